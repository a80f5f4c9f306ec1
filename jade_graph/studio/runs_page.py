"""Runs: the table, its filters, and what the selection looks like.

Invariant: what is shown is in the address, so that it can be shared and comes back on reload. The browser gets one page
of rows; counting, sorting and grouping are the database's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nicegui import ui

from jade_graph.picture.text import clean, milliseconds
from jade_graph.studio import shell
from jade_graph.studio.index import SORTS, Filter, Summary
from jade_graph.studio.shared import Studio

SIZE = 50
_COLUMNS = (
    ("question", "Question", "left"), ("answer", "Answer", "left"), ("type", "Type", "left"), ("plan", "Plan", "left"),
    ("preset", "Preset", "left"), ("version", "Version", "left"), ("f1", "F1", "right"), ("calls", "Calls", "right"),
    ("illegal", "Illegal", "right"), ("wall_ms", "Time", "right"), ("started_at", "Started", "right"),
)  # fmt: skip
_QUESTION = """
<q-td :props="props" class="st-question">
  <a :href="'/run/' + props.row.id" class="st-link">
    <span :class="'st-dot st-' + props.row.status" role="img" :aria-label="props.row.status"></span
    >{{ props.row.question }}
  </a>
</q-td>"""
_ANSWER = """
<q-td :props="props" class="st-answer" :title="props.row.answer || props.row.error">
  <span v-if="props.row.error" class="st-error">{{ props.row.error }}</span>
  <span v-else>{{ props.row.answer }}</span>
</q-td>"""
_F1 = """
<q-td :props="props" class="st-number">
  <span v-if="props.row.f1 === null" class="st-soft">–</span>
  <span v-else :class="props.row.f1 === 1 ? 'st-good' : props.row.f1 === 0 ? 'st-bad' : 'st-partly'"
    >{{ props.row.f1.toFixed(2) }}</span>
</q-td>"""
_SCORES = {"right": "right", "partly": "partly right", "wrong": "wrong", "unscored": "not scored"}


class RunsPage:
    """One visitor's table."""

    def __init__(self, studio: Studio, query: Mapping[str, str]) -> None:
        self.studio = studio
        self.where = Filter.of(query)
        sort = query.get("sort", "started_at")
        self.sort = sort if sort in SORTS else "started_at"
        self.descending = query.get("order", "desc") != "asc"
        self.page = max(1, int(query["page"]) if query.get("page", "").isdigit() else 1)
        self.last: tuple[Any, ...] = ()

    async def build(self) -> None:
        index = self.studio.index
        if not await asyncio.to_thread(index.holds):
            await asyncio.to_thread(index.sync, 1)
        else:
            self.studio.follow()
        if not await asyncio.to_thread(index.holds):
            shell.empty(
                "No run is recorded yet",
                "Ask a question here, or record many with a rollout. This page fills by itself.",
                'jade demo     or     jade ask "Who directed ..?"     or     jade rollout microworld:test',
            )
            ui.link("Ask a question", "/ask").classes("jv-button jv-primary st-button-link")
            ui.timer(2.0, self._look_again)
            return
        choices = await asyncio.to_thread(self.studio.choices)
        with ui.element("div").classes("st-runs"):
            with ui.element("section").classes("st-table-side"):
                self._filters(choices)
                self._table()
            self.aside = ui.element("aside").classes("st-aside").props('aria-label="About this selection"')
        await self.refresh()
        ui.timer(3.0, self._live)

    # --- parts --------------------------------------------------------------------------------------------------------
    def _filters(self, choices: Mapping[str, list[str]]) -> None:
        with ui.element("div").classes("st-filters").props('role="search"'):
            search = ui.input(placeholder="Search questions, answers, run ids", value=self.where.text)
            search.props('dense outlined clearable debounce="250" aria-label="Search"').classes("st-search")
            search.on_value_change(lambda e: self._set(text=e.value or ""))
            named = {"type": "Any type", "preset": "Any preset", "version": "Any version", "plan": "Any plan"}
            for name, label in named.items():
                self._select(name, {"": label, **{v: clean(v) for v in choices[name]}})
            self._select("status", {"": "Any state", "answered": "answered", "failed": "failed", "running": "running"})
            self._select("score", {"": "Any score", **_SCORES})
            self._select("calls", {"": "Any calls", **{str(n): f"{n} or more calls" for n in (2, 3, 5, 8, 12)}})
            self._select("illegal", {"": "Illegal or not", "some": "with illegal actions", "none": "all legal"})

    def _select(self, name: str, options: dict[str, str]) -> None:
        value = getattr(self.where, name)
        if value not in options:
            options = {**options, value: clean(value)}
        chosen = ui.select(options, value=value).props(f'dense outlined options-dense aria-label="Filter by {name}"')
        chosen.classes("st-select" + (" st-set" if value else ""))
        chosen.on_value_change(lambda e: self._set(**{name: e.value or ""}))

    def _table(self) -> None:
        columns = [
            {"name": name, "label": label, "field": name, "align": align, "sortable": name in SORTS,
             "classes": f"st-col-{name}", "headerClasses": f"st-col-{name}"}
            for name, label, align in _COLUMNS
        ]  # fmt: skip
        pagination = {
            "rowsPerPage": SIZE, "rowsNumber": 0, "page": self.page, "sortBy": self.sort, "descending": self.descending,
        }  # fmt: skip
        self.table = ui.table(columns=columns, rows=[], row_key="id", pagination=pagination)
        self.table.classes("st-table").props('flat dense binary-state-sort :rows-per-page-options="[50]"')
        self.table.add_slot("body-cell-question", _QUESTION)
        self.table.add_slot("body-cell-answer", _ANSWER)
        self.table.add_slot("body-cell-f1", _F1)
        self.table.on("request", self._asked)

    # --- what happens -------------------------------------------------------------------------------------------------
    async def _set(self, **changes: str) -> None:
        self.where = Filter(**{**{n: getattr(self.where, n) for n in Filter.__slots__}, **changes})
        self.page = 1
        await self.refresh()

    async def _asked(self, event: Any) -> None:
        asked = event.args["pagination"]
        self.page, self.sort = int(asked["page"]), str(asked.get("sortBy") or "started_at")
        self.descending = bool(asked["descending"]) or not asked.get("sortBy")
        await self.refresh()

    async def refresh(self, *, quietly: bool = False) -> None:
        size = SIZE
        index = self.studio.index
        summary: Summary = await asyncio.to_thread(index.summary, self.where)
        found = await asyncio.to_thread(
            index.page,
            self.where,
            sort=self.sort,
            descending=self.descending,
            limit=size,
            offset=(self.page - 1) * size,
        )
        now = (summary, tuple((row["id"], row["status"]) for row in found), self.sort, self.descending, self.page)
        if quietly and now == self.last:
            return
        self.last = now
        self.table.pagination.update(
            {"rowsNumber": summary.runs, "page": self.page, "sortBy": self.sort, "descending": self.descending}
        )
        self.table.rows[:] = [_shown(row) for row in found]
        self.table.update()
        query = self.where.as_query()
        if self.sort != "started_at" or not self.descending:
            query |= {"sort": self.sort, "order": "desc" if self.descending else "asc"}
        if self.page > 1:
            query["page"] = str(self.page)
        ui.navigate.history.replace(shell.url("/", query))
        self._aside(
            summary
        )  # last: it removes the button that was pressed, and with it the place that we are called in

    async def _live(self) -> None:
        await asyncio.to_thread(self.studio.sync)
        await self.refresh(quietly=True)

    async def _look_again(self) -> None:
        await asyncio.to_thread(self.studio.sync)
        if await asyncio.to_thread(self.studio.index.holds):
            ui.navigate.reload()

    # --- the selection ------------------------------------------------------------------------------------------------
    def _aside(self, s: Summary) -> None:
        self.aside.clear()
        with self.aside:
            with ui.element("dl").classes("st-figures"):
                for name, value in (
                    ("runs", f"{s.runs:,}"),
                    ("mean F1", shell.number(s.f1)),
                    ("calls a run", shell.number(s.calls, 1)),
                    ("failed", f"{s.failed:,}"),
                ):
                    with ui.element("div"):
                        _tag("dt", name)
                        _tag("dd", value)
            if not s.runs:
                ui.label("No run matches these filters. Widen or clear them.").classes("st-soft")
                return
            self._score_bar(s)
            self._bars("Plans", "plan", s.plans, s.runs, "share of the runs, and mean F1")
            self._bars("Question types", "type", s.types, s.runs, "share of the runs, and mean F1")

    def _score_bar(self, s: Summary) -> None:
        if not s.scored:
            ui.label("None of these runs has gold answers, so none is scored.").classes("st-soft")
            return
        _tag("h2", "Scores")
        with ui.element("div").classes("st-stack").props('role="group" aria-label="Scores of the selection"'):
            for (name, label), n in zip(list(_SCORES.items())[:3], s.scores, strict=True):
                if n:
                    part = ui.element("button").classes(f"st-part st-part-{name}").style(f"flex-grow: {n}")
                    part.props(f'type="button" title="{label}: {n:,}" aria-label="Filter: {label}, {n} runs"')
                    part.on("click", lambda _, name=name: self._set(score="" if self.where.score == name else name))
        with ui.element("div").classes("st-legend"):
            for (name, label), n in zip(list(_SCORES.items())[:3], s.scores, strict=True):
                ui.label(f"{label} {100 * n / s.scored:.0f} %").classes(f"st-key st-key-{name}")

    def _bars(
        self, title: str, name: str, groups: tuple[tuple[str, int, float | None], ...], total: int, told: str
    ) -> None:
        _tag("h2", title)
        with ui.element("div").classes("st-bars").props(f'role="group" aria-label="{title}: {told}"'):
            with ui.element("div").classes("st-bars-head"):
                ui.label("")
                ui.label("share")
                ui.label("F1")
            for value, n, f1 in groups[:12]:
                bar = ui.element("button").classes("st-bar").props('type="button"')
                if getattr(self.where, name) == value:
                    bar.classes("st-bar-set").props('aria-pressed="true"')
                bar.on("click", lambda _, value=value: self._pick(name, value))
                with bar:
                    with ui.element("span").classes("st-bar-name"):
                        ui.element("span").classes("st-bar-fill").style(f"width: {100 * n / total:.1f}%")
                        ui.label(clean(value))
                    ui.label(f"{100 * n / total:.0f} %").classes("st-bar-n")
                    ui.label(shell.number(f1)).classes("st-bar-n")
            if len(groups) > 12:
                ui.label(f"and {len(groups) - 12} more").classes("st-soft")

    async def _pick(self, name: str, value: str) -> None:
        if value == "none":
            return
        await self._set(**{name: "" if getattr(self.where, name) == value else value})


def _tag(tag: str, text: str) -> None:
    with ui.element(tag):
        ui.label(text)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the browser gets it: text and numbers."""
    started = datetime.fromtimestamp(row["started_at"]).astimezone()
    today = started.date() == datetime.now().astimezone().date()
    return {
        "id": row["id"],
        "status": row["status"],
        "question": clean(row["question"])[:300],
        "answer": clean(row["answer"])[:120],
        "error": clean(row["error"]),
        "type": clean(row["type"]),
        "plan": clean(row["plan"]),
        "preset": clean(row["preset"]),
        "version": clean(row["version"]),
        "f1": row["f1"],
        "calls": row["calls"],
        "illegal": row["illegal"],
        "wall_ms": milliseconds(row["wall_ms"]) if row["status"] != "running" else "…",
        "started_at": started.strftime("%H:%M:%S" if today else "%y-%m-%d %H:%M"),
    }
