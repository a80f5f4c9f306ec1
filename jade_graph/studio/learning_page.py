"""Learning: the curves of a learning run, live, with the registry's versions and promotions on its time line.

Invariant: the page follows the folder that its address names; it reads, and an iteration shows within seconds of being
written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nicegui import ui

from jade_graph.picture.text import clean
from jade_graph.studio import files, learning, shell
from jade_graph.studio.learning import Chart, Learned
from jade_graph.studio.registered import Known, Moment, moments
from jade_graph.studio.shared import Studio

# Told apart without red and green; dark enough on white and light enough on black.
_COLOURS = ("#1668dc", "#c4620a", "#7a4fc9", "#0f8a7e", "#b8336a", "#6b7a2f", "#4a6fa5", "#8a5a44", "#5a6878")
_GREEN, _BLUE, _RED = "#2a9d57", "#3b82f6", "#c42b2b"
_MOST_MOMENTS = 12


class LearningPage:
    """One visitor's view of a folder."""

    def __init__(self, studio: Studio, query: dict[str, str]) -> None:
        self.studio, self.folder = studio, query.get("folder", "")
        self.charts: dict[str, ui.echart] = {}
        self.shown: Learned | None = None
        self.known: Known | None = None

    async def build(self) -> None:
        found = [str(p) for p in await asyncio.to_thread(learning.folders, *self.studio.roots)]
        if not found and not self.folder:
            shell.empty(
                "No learning run is to be seen from here",
                "A learning run writes its figures into its folder; the page then draws them as they come. It looks in "
                "the data folder and in the folder where the studio was started.",
                "jade improve microworld:train --out learned     or     jade demo",
            )
            self.folder = ""
        if self.folder not in found:  # an address names it: only what is found by itself is read
            self.folder = found[0] if found else ""
        with ui.element("section").classes("st-learning"):
            with ui.element("div").classes("st-filters"):
                options = list(dict.fromkeys([*found, *([self.folder] if self.folder else [])]))
                chosen = ui.select(options, value=self.folder or None, with_input=True, new_value_mode="add-unique")
                chosen.props('dense outlined aria-label="Folder of a learning run"').classes("st-search")
                chosen.on_value_change(lambda e: self._set(str(e.value or "")))
                self.told = ui.label("").classes("st-soft")
            self.events = ui.element("div").classes("st-events")
            self.grid = ui.element("div").classes("st-charts")
            self.line = ui.element("section").classes("st-line").props('aria-label="Versions and promotions"')
        await self.refresh()
        ui.timer(3.0, self.refresh)
        ui.timer(10.0, self.look)  # at once, then again and again; the curves do not wait for the registry

    async def look(self) -> None:
        """Ask the registry."""
        now = await asyncio.to_thread(self.studio.registered.read)
        if now == self.known:
            return
        self.known = now
        self._place()

    def _place(self) -> None:
        """Draw versions and promotions: as a line of time, in words, and as lines in the curves."""
        if self.known is None:
            return
        begun = self.shown.begun if self.shown else ()
        found = moments(self.known, begun)
        self.line.clear()
        with self.line:
            with ui.element("h2"):
                ui.label("Versions and promotions")
            if self.known.trouble:
                ui.label(clean(self.known.trouble)).classes("st-soft")
            elif not found:
                ui.label("No version is registered yet. One of a learning run's models becomes one by:").classes(
                    "st-soft"
                )
                ui.label(f"jade register {self.folder or 'FOLDER'}").classes("st-command")
            else:
                strip = ui.echart(_strip(found, begun)).classes("st-strip")
                strip.props('role="img" aria-label="Versions and promotions over time; the list below says the same"')
                with ui.element("ol").classes("st-moments"):
                    for m in found[:_MOST_MOMENTS]:
                        with ui.element("li"):
                            ui.label(f"{datetime.fromtimestamp(m.when):%Y-%m-%d %H:%M:%S}").classes("st-number")
                            ui.label(m.where if begun else "").classes("st-soft")
                            ui.label(m.text).classes("st-moment")
                if len(found) > _MOST_MOMENTS:
                    ui.label(f"and {len(found) - _MOST_MOMENTS:,} before; jade history lists all").classes("st-soft")
        if self.shown is not None:
            for chart in self.shown.charts:
                self._draw(chart, self.shown)

    async def _set(self, folder: str) -> None:
        if folder and not files.inside(Path(folder), self.studio.roots):
            ui.notify(f"{folder} is not inside the data folder or the folder where the studio was started.")
            return
        self.folder, self.shown = folder, None
        self.charts.clear()
        self.grid.clear()
        await self.refresh()

    async def refresh(self) -> None:
        if not self.folder:
            return
        now = await asyncio.to_thread(learning.read, Path(self.folder))
        if now == self.shown:
            return
        self.shown = now
        ui.navigate.history.replace(shell.url("/learning", {"folder": self.folder}))
        if not now.charts:
            self.grid.clear()
            self.charts.clear()
            self.told.set_text("")
            with self.grid:
                shell.empty(
                    "Nothing is written here yet", f"{self.folder} has no metrics.jsonl with an iteration in it."
                )
            return
        facts = {k: v for k, v in now.facts.items() if isinstance(v, str)}
        told = [f"{now.done} iterations", *(f"{k} {v}" for k, v in list(facts.items())[:4])]
        self.told.set_text(clean(" · ".join(told)))
        self.events.clear()
        with self.events:
            for at, text in now.events:
                ui.label(clean(f"Watchdog at iteration {at}: {text}")).classes("st-event").props('role="alert"')
        for chart in now.charts:
            self._draw(chart, now)
        self._place()

    def _draw(self, chart: Chart, learned: Learned) -> None:
        placed = [m for m in moments(self.known, learned.begun) if m.at is not None] if self.known else []
        options = _options(chart, [at for at, _ in learned.events], placed)
        known = self.charts.get(chart.title)
        if known is not None:
            known.options.clear()
            known.options.update(options)
            known.update()
            return
        with self.grid, ui.element("section").classes("st-chart"):
            with ui.element("h2"):
                ui.label(chart.title)
                ui.label(chart.told).classes("st-soft")
            drawn = ui.echart(options).classes("st-echart")
            drawn.props(f'role="img" aria-label="{chart.title}, {chart.told}"')
            self.charts[chart.title] = drawn


def _options(chart: Chart, events: list[int], placed: Sequence[Moment] = ()) -> dict[str, Any]:
    grey = "#7f8c9b"
    series: list[dict[str, Any]] = [
        {
            "name": clean(name), "type": "line", "data": [list(p) for p in points], "showSymbol": len(points) < 40,
            "symbolSize": 5, "lineStyle": {"width": 3 if name == "all" else 1.8}, "animation": False,
        }
        for name, points in chart.curves.items()
    ]  # fmt: skip
    if (events or placed) and series:
        lines: list[dict[str, Any]] = [{"xAxis": at, "lineStyle": {"color": _RED}} for at in events]
        for m in placed:
            promoted = m.what != "registered"
            lines.append({
                "xAxis": round(m.at or 0.0, 3),
                "lineStyle": {"color": _GREEN if promoted else _BLUE, "type": "solid" if promoted else "dashed"},
                "label": {"show": promoted, "formatter": f"v{m.version}", "color": _GREEN, "fontSize": 10},
            })  # fmt: skip
        series[0]["markLine"] = {"symbol": "none", "silent": True, "label": {"show": False}, "data": lines}
    below = 30 if len(series) < 2 else 56 if len(series) < 6 else 76  # room for a legend of one line, or two
    axis = {"axisLabel": {"color": grey, "hideOverlap": True}, "axisLine": {"lineStyle": {"color": grey}}}
    return {
        "color": list(_COLOURS),
        "animation": False,
        "aria": {"enabled": True},
        "grid": {"left": 48, "right": 14, "top": 14, "bottom": below},
        "legend": {"show": len(series) > 1, "bottom": 0, "itemHeight": 4,
                   "textStyle": {"color": grey, "fontSize": 11}, "icon": "roundRect", "itemWidth": 16},
        "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
        "xAxis": {"type": "value", "minInterval": 1, "splitLine": {"show": False}, **axis},
        "yAxis": {"type": "value", "scale": True, "splitLine": {"lineStyle": {"color": grey, "opacity": 0.2}}, **axis},
        "series": series,
    }  # fmt: skip


def _strip(found: Sequence[Moment], begun: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Time from left to right: the iterations, the registrations, and who was champion from when."""
    grey = "#7f8c9b"

    def row(name: str, points: list[dict[str, Any]], colour: str, symbol: str) -> dict[str, Any]:
        return {
            "name": name, "type": "scatter", "data": points, "symbol": symbol, "symbolSize": 9, "color": colour,
            "animation": False, "labelLayout": {"hideOverlap": True},
            "label": {"show": True, "position": "right", "color": colour, "fontSize": 11, "formatter": "{@[2]}"},
        }  # fmt: skip

    times = [m.when for m in found] + [at for _, at in begun]
    near = 0.04 * (max(times) - min(times))

    def points(rank: str, some: Sequence[Moment], between: str) -> list[dict[str, Any]]:
        """What lies too near for a label of its own shares the one before it."""
        groups: list[list[Moment]] = []
        for m in sorted(some, key=lambda m: m.when):
            if groups and m.when - groups[-1][0].when < near:
                groups[-1].append(m)
            else:
                groups.append([m])
        return [
            {
                "value": [round(g[0].when * 1000), rank, between.join(f"v{m.version}" for m in g)],
                "name": "\n".join(m.text for m in g),
            }
            for g in groups
        ]

    promoted = points("champion", [m for m in found if m.what != "registered"], " → ")
    registered = points("registered", [m for m in found if m.what == "registered"], ", ")
    series = [row("champion", promoted, _GREEN, "diamond"), row("registered", registered, _BLUE, "circle")]
    if begun:
        ticks = [{"value": [round(at * 1000), "iteration", f"{i:g}"], "name": f"iteration {i:g}"} for i, at in begun]
        series.append({**row("iteration", ticks, grey, "rect"), "symbolSize": [2, 10], "label": {"show": False}})
        told = f"iterations {begun[0][0]:g} to {begun[-1][0]:g}"
        series[-1]["data"][-1] |= {"label": {"show": True, "formatter": told, "position": "right", "color": grey}}
    axis = {"axisLabel": {"color": grey, "hideOverlap": True}, "axisLine": {"lineStyle": {"color": grey}}}
    ranks = [*(["iteration"] if begun else []), "registered", "champion"]
    return {
        "animation": False,
        "aria": {"enabled": True},
        "grid": {"left": 84, "right": 110, "top": 8, "bottom": 26},
        "tooltip": {"trigger": "item", "confine": True, "renderMode": "richText", "formatter": "{b}"},
        "xAxis": {"type": "time", "splitLine": {"show": False}, **axis},
        "yAxis": {"type": "category", "data": ranks, "axisTick": {"show": False}, **axis},
        "series": series,
    }
