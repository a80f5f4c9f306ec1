"""Corpus: a search as the graph searches, with the ranks by words, by meaning and fused side by side.

Invariant: the three lists come from one search of the corpus itself; a passage is shown as text.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from nicegui import ui

from jade_graph.errors import JadeError
from jade_graph.picture.text import clean
from jade_graph.studio import shell
from jade_graph.studio.shared import Studio

_DEPTH = 100


class CorpusPage:
    """One visitor's search."""

    def __init__(self, studio: Studio, query: dict[str, str]) -> None:
        self.studio, self.text = studio, query.get("q", "")
        self.name = query.get("corpus", "")
        k = query.get("k", "")
        self.k = min(int(k), _DEPTH) if re.fullmatch("[1-9][0-9]{0,5}", k) else studio.settings.k

    async def build(self) -> None:
        names = list(await asyncio.to_thread(self.studio.corpora))
        if not names:
            shell.empty(
                "There is no corpus yet",
                "A corpus is documents made searchable. Index a folder of yours, or let the demo make its world.",
                "jade index PATH --corpus NAME     or     jade demo",
            )
            return
        settings = self.studio.settings
        if self.name not in names:
            self.name = settings.corpus if settings.corpus in names else names[0]
        with ui.element("section").classes("st-corpus"):
            with ui.element("div").classes("st-filters").props('role="search"'):
                search = ui.input(placeholder="Search as the graph searches", value=self.text)
                search.props('dense outlined clearable debounce="300" autofocus aria-label="Query"').classes(
                    "st-search"
                )
                search.on_value_change(lambda e: self._set(text=e.value or ""))
                chosen = ui.select(names, value=self.name).props('dense outlined aria-label="Corpus"')
                chosen.on_value_change(lambda e: self._set(name=str(e.value)))
                top = ui.select({n: f"best {n}" for n in sorted({5, 10, 20, self.k})}, value=self.k)
                top.props('dense outlined aria-label="Passages"').on_value_change(lambda e: self._set(k=int(e.value)))
            self.box = ui.element("div").classes("st-ranks")
        await self._search()

    async def _set(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)
        await self._search()

    async def _search(self) -> None:
        ui.navigate.history.replace(shell.url("/corpus", {"corpus": self.name, "q": self.text, "k": str(self.k)}))
        self.box.clear()
        if not self.text.strip():
            with self.box:
                shell.empty("Nothing is searched for yet", "Type a question, or the query that a run rewrote.")
            return
        asked = (self.name, self.text, self.k)
        try:
            ranked = await asyncio.to_thread(self._ranked, *asked)
        except JadeError as error:
            with self.box:
                shell.empty("The corpus cannot be searched", str(error))
            return
        if asked != (self.name, self.text, self.k):  # something else was typed meanwhile
            return
        with self.box:
            self._columns(ranked)

    def _ranked(self, name: str, text: str, k: int) -> list[Any]:
        return list(self.studio.retriever(name).explain(text, max(k, _DEPTH)))

    def _columns(self, ranked: list[Any]) -> None:
        lists = (
            ("By words", "BM25", sorted((r for r in ranked if r.bm25_rank), key=lambda r: r.bm25_rank), "bm25"),
            ("Fused", "what the graph gets", ranked, "fused"),
            ("By meaning", "vectors", sorted((r for r in ranked if r.dense_rank), key=lambda r: r.dense_rank), "dense"),
        )
        for title, told, found, kind in lists:
            with ui.element("section").classes(f"st-rank st-rank-{kind}"):
                with ui.element("h2"):
                    ui.label(title)
                    ui.label(told).classes("st-soft")
                if not found:
                    ui.label("No passage has any of these words." if kind == "bm25" else "Nothing.").classes("st-soft")
                for r in found[: self.k]:
                    self._passage(r, kind)

    def _passage(self, r: Any, kind: str) -> None:
        rank = {"bm25": r.bm25_rank, "dense": r.dense_rank, "fused": r.rank}[kind]
        score = {"bm25": r.bm25_score, "dense": r.dense_score, "fused": r.passage.score}[kind]
        others = (("words", r.bm25_rank), ("fused", r.rank), ("meaning", r.dense_rank))
        own = {"bm25": "words", "dense": "meaning", "fused": "fused"}[kind]
        with ui.element("article").classes("st-passage" + (" st-in" if r.rank <= self.k else "")):
            with ui.element("div").classes("st-passage-head"):
                ui.label(str(rank)).classes("st-place")
                ui.label(clean(r.passage.title or r.passage.id)).classes("st-passage-title")
                ui.label(f"{score:.3f}").classes("st-soft st-number")
            ui.label(clean(r.passage.text)).classes("st-passage-text")
            told = " · ".join(f"{name} {place if place else 'not found'}" for name, place in others if name != own)
            ui.label(told).classes("st-soft")
