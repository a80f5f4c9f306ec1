"""What the studio's pages share: settings, the run store, its index, and the room where runs happen.

Invariant: one store, one index and one room for all pages; a run is read from the store each time it is shown, so that
what another process records is seen too.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.picture.spelling import speller
from jade_graph.picture.view import credited, view
from jade_graph.runs.store import RunStore
from jade_graph.studio.index import Index
from jade_graph.studio.registered import Registered
from jade_graph.studio.room import Configured, Room

if TYPE_CHECKING:
    from jade_graph.picture.details import Pieces
    from jade_graph.retrieval.local import LocalRetriever
    from jade_graph.settings.fields import Settings
    from jade_graph.types import Run

_KEPT = 16
_SYNC_S = 2.0
_CHOICES_S = 10.0


class Studio:
    """The state of one studio. Raises `StoreError` where the store cannot be opened."""

    def __init__(self, configured: Configured) -> None:
        self.configured = configured
        self.settings: Settings = configured([]).settings
        self.store = RunStore(self.settings.store_url)
        self.index = Index(self.store.engine)
        self.room = Room(configured)
        self.registered = Registered(self.settings)
        self._ended: OrderedDict[tuple[str, int], tuple[Run, Pieces | None]] = OrderedDict()
        self._corpus: LocalRetriever | None = None
        self._synced = self._chosen = -1e9
        self._choices: dict[str, list[str]] = {}
        self._lock, self._syncing = threading.Lock(), threading.Lock()

    @property
    def roots(self) -> tuple[Path, Path]:
        """Folders whose files a visitor may name: the data folder, and the one where the studio was started."""
        return self.settings.data_path, Path()

    def sync(self) -> None:
        """Bring the index up to date, unless that was just done or somebody is doing it."""
        if time.monotonic() - self._synced < _SYNC_S or not self._syncing.acquire(blocking=False):
            return
        try:
            self.index.sync()
            self._synced = time.monotonic()
        finally:
            self._syncing.release()

    def choices(self) -> dict[str, list[str]]:
        """What the filters offer; asked of the index once in a while."""
        if time.monotonic() - self._chosen > _CHOICES_S:
            self._choices, self._chosen = self.index.choices(), time.monotonic()
        return self._choices

    def follow(self) -> None:
        """Begin to bring the index up to date, on a thread of its own."""
        threading.Thread(target=self.sync, name="studio-index", daemon=True).start()

    def run(self, run_id: str) -> tuple[Run, Pieces | None]:
        """A run with its rewards, and what spells its tokens. Raises `StoreError` RUN_NOT_FOUND, RUN_AMBIGUOUS."""
        known = next((found for (i, _), found in self._ended.items() if i == run_id), None)
        if known is not None:
            return known
        run = self.store.get(run_id)
        shown = credited(run), speller(self.settings, run)
        if run.status != "running":
            self._ended[run.id, run.attempt] = shown
            while len(self._ended) > _KEPT:
                self._ended.popitem(last=False)
        return shown

    def view(self, run_id: str) -> dict[str, Any]:
        """`picture.view.view` with `mark`, which changes when the run does, and its forks."""
        run, _ = self.run(run_id)
        return {**view(run), "mark": self.mark(run), "forks": self.index.forks(run.id)}

    @staticmethod
    def mark(run: Run) -> str:
        """Changes whenever a running run has got further."""
        changed = sum(n.status.value != "pending" for n in run.trace)
        return f"{run.status}-{run.attempt}-{len(run.transitions)}-{len(run.trace)}-{changed}"

    def corpora(self) -> Sequence[str]:
        from jade_graph.retrieval.manifest import list_corpora

        return [m.name for m in list_corpora(self.settings.data_path)]

    def retriever(self, name: str) -> LocalRetriever:
        """The corpus, open; the one that was looked at last stays so. Raises `RetrievalError`."""
        from jade_graph.retrieval.corpus import open_corpus

        with self._lock:
            if self._corpus is None or self._corpus.name != name:
                fresh = open_corpus(name, self.settings.data_path, mode="hybrid")
                if self._corpus is not None:
                    self._corpus.close()
                self._corpus = fresh
            return self._corpus

    def close(self) -> None:
        self.room.close()
        self.index.close()
        if self._corpus is not None:
            self._corpus.close()
        self.store.close()
