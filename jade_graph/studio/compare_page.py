"""Compare: the same questions under two versions or methods, or two saved evaluations.

Invariant: which two are compared stands in the address. Differences have intervals, and the page says of each whether
it is one; a pair of runs is one click away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nicegui import run, ui

from jade_graph.errors import JadeError
from jade_graph.picture.text import clean, milliseconds
from jade_graph.replay import first_difference
from jade_graph.studio import shell
from jade_graph.studio.comparison import Answered, Comparison, Pair, answered, compare
from jade_graph.studio.index import Filter
from jade_graph.studio.state import Studio

_MOST = 40


class ComparePage:
    """One visitor's comparison."""

    def __init__(self, studio: Studio, query: dict[str, str]) -> None:
        self.studio = studio
        self.sides = {"a": query.get("a", ""), "b": query.get("b", "")}
        self.show = query.get("show", "") if query.get("show") in ("right", "wrong", "same") else ""

    async def build(self) -> None:
        await run.io_bound(self.studio.sync)
        self.known = await run.io_bound(self.studio.index.arms)
        if len(self.known) < 2 and not all(self.sides.values()):
            shell.empty(
                "There is one version and one method so far",
                "A comparison needs the same questions answered by two: run them again with another method or model, "
                "or name two files that jade eval saved.",
                "jade rollout microworld:test --preset vanilla-rag     or     jade eval microworld:test --out a.jsonl",
            )
        names = {key: f"{label}  ({n:,} runs)" for key, label, n in self.known}
        if len(self.known) >= 2:
            self.sides["a"] = self.sides["a"] or self.known[0][0]
            self.sides["b"] = self.sides["b"] or self.known[1][0]
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
                "Choose versions and methods of the run store, or write the path of a file that jade eval --out saved."
            ).classes("st-soft")
            self.box = ui.element("div").classes("st-comparison")
        await self.refresh()

    async def _set(self, side: str, value: str) -> None:
        self.sides[side] = value
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
            sides = [await run.io_bound(self._side, self.sides[side]) for side in ("a", "b")]
            found = await run.io_bound(compare, *sides)
        except JadeError as error:
            with self.box:
                shell.empty("These two cannot be compared", str(error))
            return
        with self.box:
            if not found.pairs:
                shell.empty(
                    "They have no question in common",
                    "Both must have answered the same data set: compare two rollouts or evaluations of one.",
                )
                return
            self._figures(found)
            self._changes(found)

    def _side(self, value: str) -> dict[str, Answered]:
        preset, mark, version = value.partition(" @ ")
        if mark:
            rows = self.studio.index.page(Filter(preset=preset, version=version), limit=20_000)
            return answered(r for r in rows if r["status"] != "running" and not r["parent"])
        from dataclasses import asdict

        from jade_graph.evaluation import load_rows

        rows_of, _ = load_rows(Path(value).expanduser())
        return answered(asdict(r) for r in rows_of)

    # --- parts --------------------------------------------------------------------------------------------------------
    def _figures(self, found: Comparison) -> None:
        better, worse = len(found.turned("right")), len(found.turned("wrong"))
        unscored = len(found.turned("unscored"))
        same = len(found.pairs) - better - worse - unscored
        with ui.element("div").classes("st-turns").props('role="group" aria-label="What turned"'):
            for how, n, told in (
                ("right", better, "better with B"),
                ("wrong", worse, "worse with B"),
                ("same", same, "the same"),
            ):
                button = ui.element("button").classes(f"st-turn st-turn-{how}").props('type="button"')
                button.props(f'aria-pressed="{str(self.show == how).lower()}"')
                button.on("click", lambda _, how=how: self._only(how))
                with button:
                    ui.label(f"{n:,}").classes("st-turn-n")
                    ui.label(told)
        left = f" {found.left_out:,} questions of one side alone are left out." if found.left_out else ""
        ui.label(f"{len(found.pairs):,} questions in common.{left}").classes("st-soft")
        with ui.element("div").classes("st-two"):
            with ui.element("section"):
                _tag("h2", "Figures")
                _grid(
                    ("", "A", "B", "B − A", "95 % interval", ""),
                    [
                        (
                            name, _short(name, a), _short(name, b), _signed(name, d),
                            f"{_signed(name, low)} to {_signed(name, high)}",
                            "a difference" if low > 0 or high < 0 else "may be chance",
                        )
                        for name, a, b, d, low, high in found.figures
                    ],
                )  # fmt: skip
            with ui.element("section"):
                _tag("h2", "Plans")
                rows = [(clean(p), f"{100 * a:.0f} %", f"{100 * b:.0f} %") for p, a, b in found.plans[:10]]
                _grid(("plan", "A", "B"), rows)

    def _changes(self, found: Comparison) -> None:
        shown = found.turned(self.show) if self.show else [*found.turned("right"), *found.turned("wrong")]
        _tag("h2", "Questions that turned" if self.show != "same" else "Questions that came out the same")
        if not shown:
            ui.label("None.").classes("st-soft")
        for pair in shown[:_MOST]:
            self._pair(pair)
        if len(shown) > _MOST:
            ui.label(f"and {len(shown) - _MOST:,} more").classes("st-soft")

    def _pair(self, pair: Pair) -> None:
        a, b = pair.one, pair.other
        with ui.element("article").classes(f"st-change st-change-{pair.turned}"):
            with ui.element("div").classes("st-change-head"):
                text = clean(a.question if a.question != a.question_id else b.question)
                if a.run_id and b.run_id:
                    ui.link(text, f"/pair?a={a.run_id}&b={b.run_id}").classes("st-link")
                else:
                    ui.label(text)
                ui.label(clean(a.type)).classes("st-soft")
            for side, x in (("A", a), ("B", b)):
                with ui.element("div").classes("st-change-side"):
                    ui.label(side).classes("st-side-name")
                    ui.label(shell.number(x.f1)).classes("st-number")
                    ui.label(clean(x.plan)).classes("st-plan")
                    ui.label(clean(x.answer)).classes("st-change-answer")
            if (told := self._parting(pair)) is not None:
                ui.label(told).classes("st-soft")

    def _parting(self, pair: Pair) -> str | None:
        """Where the two runs part, where both are in the store."""
        try:
            one, _ = self.studio.run(pair.one.run_id)
            other, _ = self.studio.run(pair.other.run_id)
        except JadeError:
            return None
        a, b = first_difference(one, other)
        known = a or b
        if known is None:
            return "The two runs did the same."
        where = "the question" if known.trace_node == "0" else f"sub-question {known.trace_node[2:]}"
        return clean(f"They part at {known.role}, {where}, action {known.seq}.")


def _short(name: str, value: float) -> str:
    if name == "milliseconds":
        return milliseconds(value)
    return f"{value:.2f}" if name == "F1" else f"{value:,.1f}"


def _signed(name: str, value: float) -> str:
    return f"{value:+.2f}" if name == "F1" else f"{value:+,.1f}"


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
