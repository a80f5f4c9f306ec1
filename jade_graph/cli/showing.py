"""Versions, promotions, verdicts and differences as tables for the terminal, and as Markdown.

Invariant: one list of rows feeds both, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jade_graph.cli.console import table
from jade_graph.registry.versions import ModelVersion, Promotion
from jade_graph.settings.plain import text

if TYPE_CHECKING:
    from jade_graph.gate.diff import FigureDiff, Turned, VersionDiff
    from jade_graph.gate.promoting import Outcome

_RATES = ("illegal_rate", "failed_rate", "support_recall", "answer_recall")


class Part(NamedTuple):
    """A table: its title, columns, rows, and which columns hold numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: str = ""


def shown(parts: Sequence[Part]) -> list[Any]:
    """For the terminal."""
    return [table(p.columns, p.rows, title=p.title, right=p.right) for p in parts if p.rows]


def markdown(title: str, parts: Sequence[Part]) -> str:
    """For a file."""
    out = [f"# {title}"]
    for part in parts:
        if not part.rows:
            continue
        numeric = part.right.split()
        rule = ["---:" if name in numeric else "---" for name in part.columns]
        lines = [part.columns, rule, *part.rows]
        out += [f"## {part.title}", "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)]
    return "\n\n".join(out) + "\n"


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())


# --- lists ------------------------------------------------------------------------------------------------------------
def of_versions(versions: Sequence[ModelVersion]) -> list[Part]:
    rows = [
        (
            str(v.number), ", ".join(v.aliases), v.weights, f"{v.created:%Y-%m-%d %H:%M}",
            text(v.metrics.get("f1")), v.tags.get("jade.profile", ""), v.made_from,
        )
        for v in versions
    ]  # fmt: skip
    columns = ("version", "alias", "weights", "registered (UTC)", "F1", "profile", "made from")
    return [Part("versions", columns, rows, "version F1")]


def of_history(entries: Sequence[Promotion]) -> list[Part]:
    rows = [
        (
            str(e.number), f"{e.when:%Y-%m-%d %H:%M:%S}", e.kind,
            f"{e.from_version or 'nobody'} -> {e.to_version}", e.who, e.reason or e.summary,
        )
        for e in entries
    ]  # fmt: skip
    return [Part("promotions", ("#", "when (UTC)", "what", "champion", "who", "why"), rows, "#")]


def of_outcome(outcome: Outcome) -> list[Part]:
    if outcome.verdict is None:
        return []
    against = "nobody" if outcome.champion is None else f"version {outcome.champion.number}"
    rows = [
        (f.rule, "pass" if f.passed else "REFUSED", f.told, "" if f.passed else f.todo)
        for f in outcome.verdict.findings
    ]
    title = f"version {outcome.challenger.number} against {against}"
    return [Part(title, ("rule", "", "what was seen", "what to do"), rows)]


# --- differences ------------------------------------------------------------------------------------------------------
def of_diff(found: VersionDiff, most: int = 10) -> list[Part]:
    """Tables of a difference; at most `most` answers of each kind that turned."""
    return list(_diff(found, most))


def _diff(found: VersionDiff, most: int) -> Iterator[Part]:
    w, a, b = found.weights, str(found.a.number), str(found.b.number)
    rows = [("all", f"{w.drift:.2%}", f"{sum(layer.parameters for layer in w.layers):,}")]
    rows += [(layer.name, f"{layer.drift:.2%}", f"{layer.parameters:,}") for layer in w.layers]
    rows += [(name, "-", "in one only, or in another shape") for name in w.unmatched]
    title = "weights: the same" if w.same else "weights: how far they moved, relative to their size"
    yield Part(title, ("layer", "drift", "parameters"), rows, "drift parameters")
    behaviour = found.behaviour
    if behaviour is None:
        return
    columns = ("figure", a, b, "difference", "95 %", "p")
    right = f"{a} {b} difference p"
    yield Part(
        f"figures on {behaviour.dataset}, {behaviour.n} questions", columns, [_row(f) for f in behaviour.figures], right
    )
    by_type = [(kind, *_row(f)[1:]) for kind, f in behaviour.types.items()]
    name = next((f.name for f in behaviour.types.values()), "")
    yield Part(f"{name} by type of question", ("type", *columns[1:]), by_type, right)
    plans = [(plan, f"{x:.1%}", f"{y:.1%}", f"{y - x:+.1%}") for plan, (x, y) in behaviour.plans.items()]
    agree = f"plans; equal in {behaviour.same_plan:.0%} of the questions, answers in {behaviour.same_answer:.0%}"
    yield Part(agree, ("plan", a, b, "change"), plans, f"{a} {b} change")
    heads = ("question", "type", f"answer {a}", f"answer {b}", f"plan {a}", f"plan {b}", f"run {a}", f"run {b}")
    for what, turned in (("right", behaviour.turned_right), ("wrong", behaviour.turned_wrong)):
        more = f", the first {most}" if len(turned) > most else ""
        yield Part(f"{len(turned)} answers turned {what}{more}", heads, [_turn(t) for t in turned[:most]])


def _row(f: FigureDiff) -> tuple[str, ...]:
    between = "-" if f.ci is None else f"[{_number(f.name, f.ci[0], '+')}, {_number(f.name, f.ci[1], '+')}]"
    return (
        f.name, _with(f.name, f.a, f.a_ci), _with(f.name, f.b, f.b_ci),
        _number(f.name, f.difference, "+"), between, "-" if f.p is None else f"{f.p:.3f}",
    )  # fmt: skip


def _with(name: str, value: float | None, ci: tuple[float, float] | None) -> str:
    shown = _number(name, value)
    return shown if ci is None else f"{shown} ±{_number(name, (ci[1] - ci[0]) / 2)}"


def _number(name: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if name in _RATES:
        return f"{value:{sign}.1%}"
    return f"{value:{sign},.0f}" if name in ("tokens", "latency_ms") else f"{value:{sign}.3f}"


def _turn(t: Turned) -> tuple[str, ...]:
    return (t.question_id, t.type, t.answer_a, t.answer_b, t.plan_a, t.plan_b, t.run_a, t.run_b)
