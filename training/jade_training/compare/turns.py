"""What the comparison of turn loops says: M-ASK by credit mode, its own first answer, Search-R1 and JADE's arms.

Invariant: every sentence that judges is computed from the results beside it, and the criterion of a collapse stands in
the report; differences are paired on the question, means over seeds first.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jade_graph.scoring.stats import mean_ci, paired_ci
from jade_training.compare.arms import Arm
from jade_training.compare.run import Result
from jade_training.compare.statistics import by_question, difference, summary

FALL = 0.1
"""A learning run has collapsed where the watchdog stopped it, or its last F1 on the development world lies this far
below its best or below the start's."""
LIMIT = 0.2
"""A share of illegal actions in its last rollout from which it has collapsed, too."""


def collapse(result: Result) -> str:
    """Why a learning run counts as collapsed; empty: it does not."""
    if result.stopped:
        return f"stopped: {result.stopped}"
    curve = {int(step): e["f1"] for step, e in result.evaluations.items()}
    last = curve[max(curve)]
    if last < max(curve.values()) - FALL:
        return f"F1 fell from {max(curve.values()):.3f} to {last:.3f}"
    if last < curve[min(curve)] - FALL:
        return f"F1 {last:.3f} is below the start's {curve[min(curve)]:.3f}"
    legal = result.history[-1].get("legal", 1.0)
    return f"{1 - legal:.0%} of the actions are illegal" if legal < 1 - LIMIT else ""


def compared(arms: Sequence[Arm], results: Sequence[Result]) -> dict[str, Any]:
    """Everything that the report says, as data: `arms`, `claims`."""
    groups = {arm.name: [r for r in results if r.arm == arm.name] for arm in arms}
    groups = {name: found for name, found in groups.items() if found}
    told: dict[str, Any] = {}
    for arm in arms:
        if found := groups.get(arm.name):
            told[arm.name] = {"title": arm.title, **summary(found), **_looped(found)}
    return {"arms": told, "claims": _claims(groups)}


def _looped(found: Sequence[Result]) -> dict[str, Any]:
    """What `summary` does not know: prompt tokens, the first answer, searches, spread over seeds, collapses."""
    tokens = mean_ci(list(by_question(found, "prompt_tokens").values()))
    first = list(by_question(found, "first_f1").values())
    last = [e[max(e, key=int)]["f1"] for r in found if (e := r.evaluations)]
    scores = [r.figures["f1"] for r in found]
    return {
        "prompt_tokens": {"mean": tokens.mean, "ci95": [tokens.low, tokens.high]},
        "searches_by_kind": {
            kind: statistics.fmean(row.retrievals for r in found for row in r.rows if row.type == kind)
            for kind in sorted({row.type for r in found for row in r.rows})
        },
        "first_f1": sum(first) / len(first) if first else None,
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "last_dev_f1": last,
        "trained": any(r.trained for r in found),
        "collapses": {str(r.seed): why for r in found if r.trained and (why := collapse(r))},
    }


def _claims(groups: Mapping[str, list[Result]]) -> list[dict[str, Any]]:
    """Differences of F1: each credit mode against its own first answer, the other methods, and the other modes."""
    found: list[dict[str, Any]] = []
    asking = [name for name in groups if name.startswith("m-ask ")]
    learned = [name for name in asking if name != "m-ask start"]
    for name in asking:
        ours, first = by_question(groups[name], "f1"), by_question(groups[name], "first_f1")
        if first:
            pair = paired_ci([ours[q] for q in first], [first[q] for q in first])
            own = {"difference": pair.difference, "ci95": [pair.low, pair.high], "p": pair.p, "n": len(first)}
            found.append({"ours": name, "against": "its plan's own first answer", "f1": {**own, "by_seed": []}})
    others = ("m-ask start", "jade", "vanilla-rag", "search-r1")
    pairs = [(name, other) for name in learned for other in others]
    pairs += [(a, b) for i, a in enumerate(learned) for b in learned[i + 1 :]]
    pairs += [("search-r1", "search-r1 start"), ("jade", "jade start")]
    for name, other in pairs:
        if name in groups and other in groups:
            found.append({"ours": name, "against": other, "f1": difference(groups[name], groups[other])})
    return found


def markdown(data: Mapping[str, Any], facts: Mapping[str, Any], command: str, ceiling: float | None) -> str:
    """The report as Markdown; figures stand beside it as PNG."""
    arms = data["arms"]
    kinds = sorted({kind for arm in arms.values() for kind in arm["f1_by_kind"]})
    improve = facts["settings"]["improve"]
    runs = improve["questions"] * improve["runs_per_question"]
    lines = [
        "# Turn loops, compared", "",
        f"Made by `{command}`. Start {facts['start']}; learned from {facts['train']}, weights picked on "
        f"{facts['dev']}, reported on {facts['test']}: worlds that share no entity. Every learning arm: "
        f"{improve['iterations']} updates of {improve['questions']} questions x {improve['runs_per_question']} = "
        f"{runs} runs; a call costs {improve['call_cost']:g}. All evaluations are greedy.", "",
    ]  # fmt: skip
    if ceiling is not None:
        lines += [f"The oracle in M-ASK's roles reaches {ceiling:.3f}.", ""]
    columns = (
        "arm",
        "F1 (95 %)",
        *kinds,
        "first answer",
        "calls",
        "prompt tokens",
        "illegal",
        "tokens learned",
        "min",
    )
    lines += ["## Arms", "", _row(*columns), _row(*["---"] * len(columns))]
    for name, a in arms.items():
        low, high = a["f1"]["ci95"]
        first = f"{a['first_f1']:.3f}" if name.startswith("m-ask") and a["first_f1"] is not None else ""
        lines.append(
            _row(
                name, f"{a['f1']['mean']:.3f} ({low:.3f} to {high:.3f})",
                *(f"{a['f1_by_kind'].get(kind, 0.0):.2f}" for kind in kinds), first, f"{a['calls']['mean']:.2f}",
                f"{a['prompt_tokens']['mean']:.0f}", f"{a['illegal_rate']['mean']:.1%}",
                f"{a['gradient_tokens']:,.0f}", f"{a['minutes']:.1f}",
            )
        )  # fmt: skip
    lines += ["", "![Learning curves](curves.png)", "", "![F1 against prompt tokens](front.png)", ""]
    criterion = (
        "A learning run has collapsed where the watchdog stopped it, where its last F1 on the development world lies "
        f"{FALL:g} below its best or below the start's, or where more than {LIMIT:.0%} of the actions of its last "
        "rollout are illegal."
    )
    lines += ["## Stability", "", criterion, ""]
    lines += [_row("arm", "F1 of each seed", "spread (sd)", "last F1, development", "collapsed")]
    lines.append(_row(*["---"] * 5))
    for name, a in arms.items():
        if a["trained"]:
            spread = "" if a["spread"] is None else f"{a['spread']:.3f}"
            told = "; ".join(f"seed {seed}: {why}" for seed, why in a["collapses"].items())
            lines.append(
                _row(
                    name, _numbers(a["f1_by_seed"]), spread, _numbers(a["last_dev_f1"]),
                    f"{len(a['collapses'])} of {len(a['seeds'])}" + (f" ({told})" if told else ""),
                )
            )  # fmt: skip
    lines += ["", "## Searches a question", "", _row("arm", *kinds), _row(*["---"] * (len(kinds) + 1))]
    for name, a in arms.items():
        lines.append(_row(name, *(f"{a['searches_by_kind'].get(kind, 0.0):.2f}" for kind in kinds)))
    lines += ["", "## Differences of F1", "", "Paired on the question, over the means of the seeds.", ""]
    lines += [_row("arm", "against", "difference", "95 %", "p", "by seed"), _row(*["---"] * 6)]
    for claim in data["claims"]:
        f1 = claim["f1"]
        interval = f"{f1['ci95'][0]:+.3f} to {f1['ci95'][1]:+.3f}"
        by_seed = _numbers(f1["by_seed"], "+.3f")
        lines.append(
            _row(claim["ours"], claim["against"], f"{f1['difference']:+.3f}", interval, f"{f1['p']:.3g}", by_seed)
        )
    return "\n".join(lines).rstrip() + "\n"


def _numbers(values: Sequence[float], form: str = ".3f") -> str:
    return ", ".join(format(v, form) for v in values)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
