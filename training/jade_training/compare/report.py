"""The report: Markdown with tables, claims with intervals, and the command that made it.

Invariant: every sentence that judges is computed from the results beside it; a claim that does not hold is said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jade_training.compare.arms import Arm
from jade_training.compare.run import Price, Result
from jade_training.compare.statistics import by_question, difference, summary

JOINT, DECOUPLED, START = "joint", "decoupled", "start"
SWEEPS = {"alpha": "cost of turns", "call_cost": "cost of calls"}
PAPER_GRAPH = "static QR,R,DS,AG"


def compared(arms: Sequence[Arm], results: Sequence[Result], sweep: Mapping[Price, Sequence[Result]]) -> dict[str, Any]:
    """Everything that the report says, as data: `arms`, `claims`, `front`, `ds`, `sweep`."""
    groups = {arm.name: [r for r in results if r.arm == arm.name] for arm in arms}
    groups = {name: found for name, found in groups.items() if found}
    told = {name: summary(found) for name, found in groups.items()}
    out: dict[str, Any] = {
        "arms": {arm.name: {"title": arm.title, **told[arm.name]} for arm in arms if arm.name in told},
        "claims": _claims(arms, groups, told),
        "front": _front(arms, groups, sweep),
        "ds": selector(groups, results),
        "sweep": {of: _points(sweep, of) for of in dict.fromkeys(price.of for price in sweep)},
    }
    return out


def _points(sweep: Mapping[Price, Sequence[Result]], of: str) -> dict[str, Any]:
    own = {f"{price.cost:g}": summary(results) for price, results in sweep.items() if price.of == of}
    return {
        cost: {"f1": s["f1"]["mean"], "f1_by_seed": s["f1_by_seed"], "calls": s["calls"]["mean"], "plans": s["plans"]}
        for cost, s in own.items()
    }


def _front(
    arms: Sequence[Arm], groups: Mapping[str, list[Result]], sweep: Mapping[Price, Sequence[Result]]
) -> list[dict[str, Any]]:
    """Of each fixed graph: the joint point, under whatever cost it learned, with the most F1 at no more calls."""
    points = {price.named(JOINT): list(found) for price, found in sweep.items()}
    points |= {JOINT: groups[JOINT]} if JOINT in groups else {}
    told: list[dict[str, Any]] = []
    for name in (arm.name for arm in arms if arm.fixed and arm.name in groups and points):
        calls = _of(groups[name], "calls")
        within = [point for point, found in points.items() if _of(found, "calls") <= calls]
        best = max(within, key=lambda point: _of(points[point], "f1"), default=None)
        row: dict[str, Any] = {"graph": name, "f1": _of(groups[name], "f1"), "calls": calls, "point": best}
        if best is not None:
            own = {"point_f1": _of(points[best], "f1"), "point_calls": _of(points[best], "calls")}
            row |= {**own, "seeds": len(points[best]), "difference": difference(points[best], groups[name])}
        told.append(row)
    return told


def _of(results: Sequence[Result], figure: str) -> float:
    values = by_question(results, figure).values()
    return sum(values) / len(values)


def summarized(told: Mapping[str, Any]) -> dict[str, Any]:
    """What `jade compare --json` prints: `arms` by role in the comparison, with `static` the best fixed graph.

    Returns:
        `arms` {none, decoupled, static, executors, joint: {f1, ci95, calls, ..}}, those that ran; `static` {graph:
        the same} of every fixed graph; `differences` joint minus each; `manifest`; and the report's other parts.
    """

    def flat(name: str) -> dict[str, Any]:
        a = told["arms"][name]
        means = {figure: value["mean"] for figure, value in a.items() if isinstance(value, Mapping) and "mean" in value}
        rest = {k: a[k] for k in ("f1_by_kind", "f1_by_seed", "routing_bits", "minutes", "gradient_tokens", "plans")}
        return {**means, "ci95": a["f1"]["ci95"], **rest}

    fixed = {name.removeprefix("static "): flat(name) for name in told["arms"] if name.startswith("static ")}
    names = {"none": START, "decoupled": DECOUPLED, "executors": "executors", "joint": JOINT}
    arms = {short: flat(name) for short, name in names.items() if name in told["arms"]}
    if fixed:
        best = max(fixed, key=lambda graph: fixed[graph]["f1"])
        arms["static"] = {"graph": best, **fixed[best]}
    differences = {
        c["against"]: {k: c[k] for k in ("f1", "f1_style_stripped", "calls", "holds")} for c in told["claims"]
    }
    rest = {k: told[k] for k in ("front", "ds", "sweep", "ceiling", "report", "manifest")}
    return {"arms": arms, "static": fixed, "differences": differences, **rest}


def _claims(
    arms: Sequence[Arm], groups: Mapping[str, list[Result]], told: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    if JOINT not in groups:
        return []
    static = [arm.name for arm in arms if arm.fixed and arm.name in groups]
    best = max(static, key=lambda name: told[name]["f1"]["mean"]) if static else None
    wanted = [(DECOUPLED, 0.15), (START, 0.20), (PAPER_GRAPH, 0.15), (best, 0.0)]
    found: list[dict[str, Any]] = []
    for name, aim in wanted:
        if name not in groups or name is None or any(c["against"] == name for c in found):
            continue
        whole = difference(groups[JOINT], groups[name])
        stripped = difference(groups[JOINT], groups[name], "f1_style_stripped")
        calls = difference(groups[JOINT], groups[name], "calls")
        holds = whole["difference"] >= aim and whole["ci95"][0] > 0
        found.append(
            {
                "against": name, "best_fixed": name == best, "aim": aim, "holds": holds, "f1": whole,
                "f1_style_stripped": stripped, "calls": calls,
            }
        )  # fmt: skip
    return found


def selector(groups: Mapping[str, list[Result]], results: Sequence[Result]) -> dict[str, Any]:
    """What DS adds to QR,R,AG, with frozen and with trained executors, paired on the question."""
    out: dict[str, Any] = {}
    frozen = [[r for r in results if r.arm == f"start {plan}"] for plan in ("QR,R,DS,AG", "QR,R,AG")]
    trained = [groups.get(f"static {plan}", []) for plan in ("QR,R,DS,AG", "QR,R,AG")]
    for name, (with_ds, without) in (("frozen", frozen), ("trained", trained)):
        if with_ds and without:
            out[name] = difference(with_ds, without)
            editions = [
                sum(v for q, v in by_question(found, "f1").items() if "-edition-" in q) for found in (with_ds, without)
            ]
            n = sum("-edition-" in q for q in by_question(without, "f1"))
            out[name]["edition"] = (editions[0] - editions[1]) / n if n else None
    return out


def markdown(data: Mapping[str, Any], facts: Mapping[str, Any], command: str, ceiling: float | None) -> str:
    """The report as Markdown; figures stand beside it as PNG."""
    arms = data["arms"]
    kinds = sorted({kind for arm in arms.values() for kind in arm["f1_by_kind"]})
    lines = ["# Joint learning, compared", "", f"Made by `{command}`. {_setting(facts)}", ""]
    if ceiling is not None:
        best = max(arms, key=lambda name: arms[name]["f1"]["mean"])
        share = arms[best]["f1"]["mean"] / ceiling
        lines += [
            f"The oracle that routes perfectly reaches {ceiling:.3f}; the best arm ({best}) {share:.0%} of it.",
            "",
        ]
    lines += ["## Arms", "", _row("arm", "F1 (95 %)", "stripped", "EM", *kinds, "calls", "bits", "illegal", "min")]
    lines.append(_row(*["---"] * (9 + len(kinds))))
    for name, a in arms.items():
        low, high = a["f1"]["ci95"]
        lines.append(
            _row(
                f"**{name}**" if name == JOINT else name, f"{a['f1']['mean']:.3f} ({low:.3f} to {high:.3f})",
                f"{a['f1_style_stripped']['mean']:.3f}", f"{a['em']['mean']:.3f}",
                *(f"{a['f1_by_kind'].get(kind, 0.0):.2f}" for kind in kinds), f"{a['calls']['mean']:.2f}",
                f"{a['routing_bits']:.2f}", f"{a['illegal_rate']['mean']:.1%}", f"{a['minutes']:.1f}",
            )
        )  # fmt: skip
    lines += ["", "F1 of each seed: " + "; ".join(
        f"{name} {', '.join(f'{v:.3f}' for v in a['f1_by_seed'])}" for name, a in arms.items()) + ".", ""]  # fmt: skip
    lines += ["![Learning curves](curves.png)", "", "![F1 against calls](front.png)", ""]
    lines += ["## Does joint learning win?", ""]
    lines += [_verdict(c) for c in data["claims"]]
    lines += ["", *_front_lines(data["front"]), "## Which plan for which kind", ""]
    for name in (n for n in (JOINT, DECOUPLED) if n in arms):
        lines += [f"{name}: " + "; ".join(
            f"{kind}: {', '.join(f'{plan} {share:.0%}' for plan, share in list(plans.items())[:2])}"
            for kind, plans in arms[name]["plans_by_kind"].items()) + ".", ""]  # fmt: skip
    lines += _selector(data["ds"]) + _sweep(data["sweep"]) + _health(arms)
    return "\n".join(lines).rstrip() + "\n"


def _setting(facts: Mapping[str, Any]) -> str:
    improve = facts["settings"]["improve"]
    runs = improve["questions"] * improve["runs_per_question"]
    return (
        f"Start {facts['start']}; learned from {facts['train']}, weights picked on {facts['dev']}, reported on "
        f"{facts['test']}: worlds that share no entity. Every learning arm: {improve['iterations']} updates of "
        f"{improve['questions']} questions x {improve['runs_per_question']} = {runs} runs. All evaluations are greedy."
    )


def _verdict(claim: Mapping[str, Any]) -> str:
    f1, calls, stripped = claim["f1"], claim["calls"], claim["f1_style_stripped"]
    name = f"the best fixed graph ({claim['against']})" if claim["best_fixed"] else claim["against"]
    aim = f"at least {claim['aim']:.2f}" if claim["aim"] else "more than 0"
    return (
        f"- Against {name}: {f1['difference']:+.3f} F1 (95 % {f1['ci95'][0]:+.3f} to {f1['ci95'][1]:+.3f}, "
        f"p {f1['p']:.3g}; by seed {', '.join(f'{d:+.3f}' for d in f1['by_seed']) or 'none'}); "
        f"style stripped {stripped['difference']:+.3f}; {calls['difference']:+.2f} calls a question. "
        f"{'Holds' if claim['holds'] else 'Does not hold'} (aim: {aim}, interval above 0)."
    )


def _selector(ds: Mapping[str, Any]) -> list[str]:
    if not ds:
        return []
    lines = ["## A module that harms until it is trained", "", "What DS adds to QR,R,AG:", ""]
    for name, d in ds.items():
        edition = "" if d["edition"] is None else f"; on editions alone {d['edition']:+.3f}"
        interval = f"95 % {d['ci95'][0]:+.3f} to {d['ci95'][1]:+.3f}"
        lines.append(f"- executors {name}: {d['difference']:+.3f} F1 ({interval}){edition}")
    return [*lines, ""]


def _front_lines(front: Sequence[Mapping[str, Any]]) -> list[str]:
    if not front:
        return []
    lines = ["## At no more calls than a fixed graph", ""]
    lines += ["The joint arm, at whatever cost of turns or calls it was learned, with the most F1.", ""]
    lines += [_row("fixed graph", "F1", "calls", "joint", "F1", "calls", "difference (95 %)"), _row(*["---"] * 7)]
    for f in front:
        cells = ["none", "", "", ""]
        if f["point"] is not None:
            d, seeds = f["difference"], f"{f['seeds']} seed" + "s" * (f["seeds"] > 1)
            cells = [
                f"{f['point']} ({seeds})", f"{f['point_f1']:.3f}", f"{f['point_calls']:.2f}",
                f"{d['difference']:+.3f} ({d['ci95'][0]:+.3f} to {d['ci95'][1]:+.3f})",
            ]  # fmt: skip
        lines.append(_row(f["graph"], f"{f['f1']:.3f}", f"{f['calls']:.2f}", *cells))
    return [*lines, ""]


def _sweep(sweep: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for of, points in sweep.items():
        lines += [
            f"## The {SWEEPS[of]}",
            "",
            _row(of.replace("_", " "), "F1", "calls", "plans"),
            _row("---", "---", "---", "---"),
        ]
        for cost, s in points.items():
            plans = ", ".join(f"{plan} {share:.0%}" for plan, share in list(s["plans"].items())[:3])
            seeds = f" ({', '.join(f'{f1:.3f}' for f1 in s['f1_by_seed'])})" if len(s["f1_by_seed"]) > 1 else ""
            lines.append(_row(cost, f"{s['f1']:.3f}{seeds}", f"{s['calls']:.2f}", plans))
        lines.append("")
    return lines


def _health(arms: Mapping[str, Any]) -> list[str]:
    roles = sorted({role for a in arms.values() for role in a["health"]})
    if not roles:
        return []
    lines = ["## Each role's own health", "", "Exact match on a fixed bank of prompts of another world.", ""]
    lines += [_row("arm", *roles, "gradient tokens"), _row(*["---"] * (len(roles) + 2))]
    for name, a in arms.items():
        cells = (f"{a['health'].get(role, 0.0):.2f}" for role in roles)
        lines.append(_row(name, *cells, f"{a['gradient_tokens']:,.0f}"))
    return [*lines, ""]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
