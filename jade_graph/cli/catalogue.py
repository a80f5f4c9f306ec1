"""The error reference as data.

Invariant: docs/reference/errors.md is the one source; an installed package carries a copy of that file. `## Kind (exit
code N)` opens a kind, `### CODE` an error, and the first paragraph beneath is its meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jade_graph.errors import DataError

_KIND = re.compile(r"## .*\(exit code (\d+)\)\s*")
_CODE = re.compile(r"### ([A-Z][A-Z0-9_]+)\s*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One error: `text` is Markdown, `meaning` its first paragraph on one line."""

    code: str
    exit_code: int
    text: str

    @property
    def meaning(self) -> str:
        return " ".join(self.text.partition("\n\n")[0].split())


@cache
def read() -> dict[str, Entry]:
    """Every documented error by code. Raises `DataError` ERRORS_PAGE where the page is not in this installation."""
    return parse(_page())


def parse(page: str) -> dict[str, Entry]:
    out: dict[str, Entry] = {}
    exit_code, code, lines = 1, "", list[str]()

    def close() -> None:
        if code:
            out[code] = Entry(code, exit_code, "\n".join(lines).strip())

    for line in page.splitlines():
        kind, found = _KIND.fullmatch(line), _CODE.fullmatch(line)
        if kind or found:
            close()
            code, lines = (found[1] if found else ""), []
            exit_code = int(kind[1]) if kind else exit_code
        elif code:
            lines.append(line)
    close()
    return out


def _page() -> str:
    carried = files("jade_graph") / "cli" / "errors.md"
    if carried.is_file():
        return carried.read_text("utf-8")
    checkout = Path(__file__).resolve().parents[2] / "docs" / "reference" / "errors.md"
    if checkout.is_file():
        return checkout.read_text("utf-8")
    raise DataError(
        "this installation has no error reference.", code="ERRORS_PAGE", hint="pip install --force-reinstall jade-graph"
    )
