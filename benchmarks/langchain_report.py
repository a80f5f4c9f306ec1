"""The results of LangChain's standard tests as a page: `python benchmarks/langchain_report.py REPORT.xml > PAGE.md`.

Invariant: every test that ran is a row, with the reason where it was skipped; a report with a failure makes no page.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from importlib.metadata import version
from pathlib import Path

PARTS = ("langchain-tests", "langchain-core", "langchain", "langgraph", "langgraph-api", "torch", "transformers")


def page(report: Path) -> str:
    """The page in Markdown. Raises `SystemExit` for a report with failures or errors."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    counts: Counter[str] = Counter()
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            raise SystemExit(f"{case.get('name')} failed")
        skipped = case.find("skipped")
        result = "passed" if skipped is None else "skipped"
        reason = "" if skipped is None else str(skipped.get("message")).split(":")[-1].strip()
        where = str(case.get("classname")).rsplit(".", 1)[-1]
        rows.setdefault(where, []).append((str(case.get("name")), result, reason))
        counts[result] += 1
    told = ", ".join(f"{name} {version(name)}" for name in PARTS)
    out = [
        "# LangChain's standard tests",
        "",
        "What `make test-langchain` prints, test by test; made by `benchmarks/langchain_report.py`.",
        f"{counts['passed']} passed, {counts['skipped']} skipped, none failed. Versions: {told}.",
        "",
        "The chat model under test has random weights, a byte tokenizer and a chat template: real ids and",
        "log-probabilities, and any bytes as text. The embeddings are MiniLM's. Calls of tools, images, audio, PDF are",
        "not there, and say so.",
    ]
    for where, cases in rows.items():
        out += ["", f"## {where}", "", "| test | result | reason |", "|---|---|---|"]
        out += [f"| {name.replace('|', '/')} | {result} | {reason} |" for name, result, reason in cases]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
