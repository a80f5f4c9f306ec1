"""Many events as columns: what estimators read.

Invariant: only impressions that were shown are here; a pair is a query with a passage, and every array has one place
an impression, in the order of `sessions`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jade_graph.errors import DataError, unknown
from jade_graph.feedback.events import FeedbackEvent

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SIGNALS = ("any", "clicked", "cited")
"""What counts as a click: opened or used, opened, used."""


def sums(index: Ints, values: Floats, size: int) -> Floats:
    """The sum of the values at each index, 0 .. size - 1."""
    return np.bincount(index, weights=values, minlength=size).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Log:
    """Impressions in columns.

    Attributes:
        users, queries: names; `pairs` (index of the query, passage).
        user, session, rank, pair: per impression: indices into these; `rank` from 0.
        click: 0.0 or 1.0.
    """

    users: tuple[str, ...]
    queries: tuple[str, ...]
    pairs: tuple[tuple[int, str], ...]
    user: Ints
    session: Ints
    rank: Ints
    pair: Ints
    click: Floats

    def __len__(self) -> int:
        return len(self.click)

    @property
    def sessions(self) -> int:
        return int(self.session.max()) + 1 if len(self) else 0

    @property
    def ranks(self) -> int:
        return int(self.rank.max()) + 1 if len(self) else 0

    @property
    def query(self) -> Ints:
        """The query of each pair."""
        return np.fromiter((q for q, _ in self.pairs), np.int64, len(self.pairs))

    def shares(self) -> Floats:
        """Of all sessions, those of each user."""
        found = np.zeros(len(self.users))
        _, first = np.unique(self.session, return_index=True)
        np.add.at(found, self.user[first], 1.0)
        whole: Floats = found / max(1.0, float(found.sum()))
        return whole

    def by_pair(self, values: npt.ArrayLike | None = None) -> Floats:
        """Sums of a value per impression (None: counts) by pair."""
        weights = np.ones(len(self)) if values is None else np.asarray(values, np.float64)
        return sums(self.pair, weights, len(self.pairs))


def log_of(events: Iterable[FeedbackEvent], signal: str = "any") -> Log:
    """Columns of events. Raises `UsageError` FEEDBACK_SIGNAL, `DataError` FEEDBACK_NONE."""
    if signal not in SIGNALS:
        raise unknown("signal", signal, SIGNALS, code="FEEDBACK_SIGNAL")
    users: dict[str, int] = {}
    queries: dict[str, int] = {}
    sessions: dict[tuple[int, str], int] = {}
    pairs: dict[tuple[int, str], int] = {}
    flat = array("q")
    clicks = bytearray()
    for event in events:
        if not event.shown:
            continue
        user, query = users.setdefault(event.user, len(users)), queries.setdefault(event.query, len(queries))
        session = sessions.setdefault((user, event.session), len(sessions))
        pair = pairs.setdefault((query, event.document), len(pairs))
        flat.extend((user, session, event.rank - 1, pair))
        clicks.append({"clicked": event.clicked, "cited": event.cited}.get(signal, event.clicked or event.cited))
    if not clicks:
        raise DataError("there are no feedback events.", code="FEEDBACK_NONE", hint="jade feedback import FILE")
    columns = np.frombuffer(flat, np.int64).reshape(-1, 4).T.copy()
    return Log(
        users=tuple(users),
        queries=tuple(queries),
        pairs=tuple(pairs),
        user=columns[0],
        session=columns[1],
        rank=columns[2],
        pair=columns[3],
        click=np.frombuffer(clicks, np.uint8).astype(np.float64),
    )


def drawn(users: Sequence[str], user: Ints, query: Ints, documents: Sequence[Sequence[str]], clicks: Floats) -> Log:
    """Columns of whole lists: `clicks` is sessions x ranks, `documents[q]` the one list of query q, best first."""
    sessions, ranks = clicks.shape
    pairs = tuple((q, d) for q, found in enumerate(documents) for d in found)
    return Log(
        users=tuple(users),
        queries=tuple(f"q{q}" for q in range(len(documents))),
        pairs=pairs,
        user=np.repeat(user, ranks),
        session=np.repeat(np.arange(sessions), ranks),
        rank=np.tile(np.arange(ranks), sessions),
        pair=(query[:, None] * ranks + np.arange(ranks)).ravel(),
        click=clicks.ravel().astype(np.float64),
    )
