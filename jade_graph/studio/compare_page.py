"""Compare: the same questions under two versions or methods, or two saved evaluations (`studio.sides`).

Invariant: which two are compared stands in the address. Differences have intervals, and the page says of each whether
it is one; a pair of runs is one click away.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from nicegui import ui

from jade_graph.errors import JadeError
from jade_graph.picture.text import clean, milliseconds
from jade_graph.studio import shell, sides
from jade_graph.studio.shared import Studio
from jade_graph.workflow.replay import first_difference

if TYPE_CHECKING:
    from jade_graph.gate.diff import FigureDiff, Turned
    from jade_graph.studio.comparison import Comparison

_MOST = 40
FEW = 30
"""Questions below which no difference is told: 30 show one of about .25 F1."""


class ComparePage:
    """One visitor's comparison."""

    def __init__(self, studio: Studio, query: dict[str, str]) -> None:
        self.studio = studio
        self.sides = {"a": query.get("a", ""), "b": query.get("b", "")}
        self.named: set[str] = set()  # what was written on this page, and not in its address
        self.show = query.get("show", "") if query.get("show") in ("right", "wrong") else ""

    async def build(self) -> None:
        await asyncio.to_thread(self.studio.sync)
        self.known = await asyncio.to_thread(sides.choices, self.studio)
        if len(self.known) < 2 and not all(self.sides.values()):
            shell.empty(
                "There are no two versions or methods yet",
                "A comparison needs the same questions answered by two: run them again with another method or model, "
                "register two versions, or name two files that jade eval saved.",
                "jade rollout microworld:test --preset vanilla-rag     or     jade eval microworld:test --out a.jsonl",
            )
        names = self.known
        if len(names) >= 2 and not any(self.sides.values()):
            self.sides["a"], self.sides["b"] = list(names)[:2]
        with ui.element("section").classes("st-compare"):
            with ui.element("div").classes("st-filters"):
                for side, label in (("a", "A, before"), ("b", "B, after")):
                    with ui.element("div").classes("st-side"):
                        ui.label(label).classes("st-label")
                        value = self.sides[side]
                        options = names if value in names or not value else {**names, value: value}
                        chosen = ui.select(options, value=value or None, with_input=True, new_value_mode="add-unique")
                        chosen.props(f'dense outlined aria-label="{label}"').classes("st-wide")
                        chosen.on_value_change(lambda e, side=side: self._set(side, str(e.value or "")))
            ui.label(
                "Choose versions and methods of the run store or registered versions, or write an alias, or the path "
                "of a file that jade eval --out saved."
            ).classes("st-soft")
            self.box = ui.element("div").classes("st-comparison")
        await self.refresh()

    async def _set(self, side: str, value: str) -> None:
        self.sides[side] = value
        self.named.add(value)
        await self.refresh()

    async def _read(self) -> None:
        self.named |= set(self.sides.values())
        await self.refresh()

    async def _only(self, how: str) -> None:
        self.show = "" if self.show == how else how
        await self.refresh()

    async def refresh(self) -> None:
        ui.navigate.history.replace(shell.url("/compare", {**self.sides, "show": self.show}))
        self.box.clear()
        if not all(self.sides.values()):
            return
        try:
            found, told = await asyncio.to_thread(self._compared)
        except JadeError as error:
            with self.box:
                shell.empty("These two cannot be compared", str(error))
                if error.error_code == "STUDIO_UNNAMED":
                    button = ui.element("button").classes("jv-button").props('type="button"')
                    button.on("click", self._read)
                    with button:
                        ui.label("Read these files")
            return
        with self.box:
            if found is None:
                shell.empty(
                    "They have no question in common",
                    "Both must have answered the same data set: compare two rollouts or evaluations of one.",
                )
                return
            self._figures(found, told)
            self._changes(found)

    def _compared(self) -> tuple[Comparison | None, str]:
        return sides.compared(self.studio, self.sides["a"], self.sides["b"], frozenset(self.named))

    # --- parts --------------------------------------------------------------------------------------------------------
    def _figures(self, found: Comparison, told: str) -> None:
        b = found.behaviour
        with ui.element("div").classes("st-turns").props('role="group" aria-label="What turned"'):
            for how, n, what in (
                ("right", len(b.turned_right), "turned right with B"),
                ("wrong", len(b.turned_wrong), "turned wrong with B"),
            ):
                button = ui.element("button").classes(f"st-turn st-turn-{how}").props('type="button"')
                button.props(f'aria-pressed="{str(self.show == how).lower()}"')
                button.on("click", lambda _, how=how: self._only(how))
                with button:
                    ui.label(f"{n:,}").classes("st-turn-n")
                    ui.label(what)
            for share, what in ((b.same_plan, "have the same plan"), (b.same_answer, "have the same answer")):
                with ui.element("div").classes("st-turn st-turn-plain"):
                    ui.label(f"{100 * share:.0f} %").classes("st-turn-n")
                    ui.label(what)
        left = f" {found.left_out:,} questions of one side alone are left out." if found.left_out else ""
        ui.label(clean(f"{b.n:,} questions in common.{left} {told}")).classes("st-soft")
        if b.n < FEW:
            few = f"Too few questions to tell which is better: ask both at least {FEW}. What differs may be chance."
            ui.label(few).classes("st-few").props('role="note"')
        with ui.element("div").classes("st-two"):
            with ui.element("section"):
                _tag("h2", "Figures")
                _figure_grid(b.figures)
                if len(b.types) > 1:
                    _tag("h2", "F1 by question type")
                    _figure_grid([_named(kind, figure) for kind, figure in b.types.items()], "f1")
            with ui.element("section"):
                _tag("h2", "Plans")
                shares = list(b.plans.items())[:12]
                _grid(("plan", "A", "B"), [(clean(p), f"{100 * x:.0f} %", f"{100 * y:.0f} %") for p, (x, y) in shares])

    def _changes(self, found: Comparison) -> None:
        b = found.behaviour
        listed = [("right", t) for t in b.turned_right] if self.show != "wrong" else []
        listed += [("wrong", t) for t in b.turned_wrong] if self.show != "right" else []
        _tag("h2", "Questions whose answer turned")
        if not listed:
            ui.label("None.").classes("st-soft")
        for how, turned in listed[:_MOST]:
            self._turned(how, turned, found.questions)
        if len(listed) > _MOST:
            ui.label(f"and {len(listed) - _MOST:,} more").classes("st-soft")

    def _turned(self, how: str, t: Turned, questions: dict[str, str] | Any) -> None:
        with ui.element("article").classes(f"st-change st-change-{how}"):
            with ui.element("div").classes("st-change-head"):
                text = clean(questions.get(t.question_id) or t.question_id)
                parting = self._parting(t)
                if parting is not None:
                    ui.link(text, f"/pair?a={t.run_a}&b={t.run_b}").classes("st-link")
                else:
                    ui.label(text)
                ui.label(f"turned {how}").classes("st-good" if how == "right" else "st-bad")
            sides = (("A", t.f1_a, t.plan_a, t.answer_a), ("B", t.f1_b, t.plan_b, t.answer_b))
            for side, f1, plan, answer in sides:
                with ui.element("div").classes("st-change-side"):
                    ui.label(side).classes("st-side-name")
                    ui.label(shell.number(f1)).classes("st-number")
                    ui.label(clean(plan)).classes("st-plan")
                    ui.label(clean(answer)).classes("st-change-answer")
            if parting:
                ui.label(parting).classes("st-soft")

    def _parting(self, t: Turned) -> str | None:
        """Where the two runs part; None where they are not both in the store."""
        if not t.run_a or not t.run_b:
            return None
        try:
            one, other = self.studio.run(t.run_a)[0], self.studio.run(t.run_b)[0]
        except JadeError:
            return None
        a, b = first_difference(one, other)
        known = a or b
        if known is None:
            return "The two runs did the same."
        where = "the question" if known.trace_node == "0" else f"sub-question {known.trace_node[2:]}"
        return clean(f"They part at {known.role}, {where}, action {known.seq}.")


def _named(name: str, figure: FigureDiff) -> FigureDiff:
    from dataclasses import replace

    return replace(figure, name=name)


_LABELS = {"f1": "F1", "em": "exact match", "latency_ms": "time", "illegal_rate": "illegal actions",
           "failed_rate": "failed", "f1_style_stripped": "F1, style stripped", "support_recall": "support recall",
           "answer_recall": "answer recall", "calls": "model calls"}  # fmt: skip


def _figure_grid(figures: Any, kind: str = "") -> None:
    rows = []
    for f in figures:
        name = kind or f.name
        apart = f.ci is not None and (f.ci[0] > 0 or f.ci[1] < 0)
        rows.append(
            (
                clean(_LABELS.get(f.name, f.name)),
                *("–" if v is None else _short(name, v) for v in (f.a, f.b)),
                "–" if f.difference is None else _signed(name, f.difference),
                "–" if f.ci is None else f"{_signed(name, f.ci[0])} to {_signed(name, f.ci[1])}",
                "a difference" if apart else "may be chance",
            )
        )
    _grid(("", "A", "B", "B − A", "95 % interval", ""), rows)


def _short(name: str, value: float) -> str:
    if name == "latency_ms":
        return milliseconds(value)
    return f"{value:,.1f}" if name in ("calls", "retrievals", "tokens") else f"{value:.2f}"


def _signed(name: str, value: float) -> str:
    if name == "latency_ms":
        return f"{value:+,.0f} ms"
    return f"{value:+,.1f}" if name in ("calls", "retrievals", "tokens") else f"{value:+.2f}"


def _tag(tag: str, text: str) -> None:
    with ui.element(tag):
        ui.label(text)


def _grid(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    with ui.element("table").classes("st-grid"):
        with ui.element("thead"), ui.element("tr"):
            for text in head:
                _tag("th", text)
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for text in row:
                        _tag("td", text)
