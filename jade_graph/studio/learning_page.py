"""Learning: the curves of a learning run, live.

Invariant: the page follows the folder that its address names; it reads, and an iteration shows within seconds of being
written.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from nicegui import ui

from jade_graph.picture.text import clean
from jade_graph.studio import learning, shell
from jade_graph.studio.learning import Chart, Learned
from jade_graph.studio.state import Studio

# Told apart without red and green; dark enough on white and light enough on black.
_COLOURS = ("#1668dc", "#c4620a", "#7a4fc9", "#0f8a7e", "#b8336a", "#6b7a2f", "#4a6fa5", "#8a5a44", "#5a6878")


class LearningPage:
    """One visitor's view of a folder."""

    def __init__(self, studio: Studio, query: dict[str, str]) -> None:
        self.studio, self.folder = studio, query.get("folder", "")
        self.charts: dict[str, ui.echart] = {}
        self.shown: Learned | None = None

    async def build(self) -> None:
        data = self.studio.settings.data_path
        found = [str(p) for p in await asyncio.to_thread(learning.folders, data, Path())]
        if not found and not self.folder:
            shell.empty(
                "No learning run is to be seen from here",
                "A learning run writes its figures into its folder; the page then draws them as they come. It looks in "
                "the data folder and in the folder where the studio was started.",
                "jade improve microworld:train --out learned     or     jade demo",
            )
            self.folder = ""
        self.folder = self.folder or (found[0] if found else "")
        with ui.element("section").classes("st-learning"):
            with ui.element("div").classes("st-filters"):
                options = list(dict.fromkeys([*found, *([self.folder] if self.folder else [])]))
                chosen = ui.select(options, value=self.folder or None, with_input=True, new_value_mode="add-unique")
                chosen.props('dense outlined aria-label="Folder of a learning run"').classes("st-search")
                chosen.on_value_change(lambda e: self._set(str(e.value or "")))
                self.told = ui.label("").classes("st-soft")
            self.events = ui.element("div").classes("st-events")
            self.grid = ui.element("div").classes("st-charts")
        await self.refresh()
        ui.timer(3.0, self.refresh)

    async def _set(self, folder: str) -> None:
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

    def _draw(self, chart: Chart, learned: Learned) -> None:
        options = _options(chart, [at for at, _ in learned.events])
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


def _options(chart: Chart, events: list[int]) -> dict[str, Any]:
    grey = "#7f8c9b"
    series: list[dict[str, Any]] = [
        {
            "name": clean(name), "type": "line", "data": [list(p) for p in points], "showSymbol": len(points) < 40,
            "symbolSize": 5, "lineStyle": {"width": 3 if name == "all" else 1.8}, "animation": False,
        }
        for name, points in chart.curves.items()
    ]  # fmt: skip
    if events and series:
        series[0]["markLine"] = {
            "symbol": "none", "silent": True, "label": {"show": False}, "lineStyle": {"color": "#c42b2b"},
            "data": [{"xAxis": at} for at in events],
        }  # fmt: skip
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
