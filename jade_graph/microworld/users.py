"""Simulated users: who asks what, who looks where, and what they click.

Invariant: seeded, and the truth is known: examination (1/k)^eta by user, relevance by passage; a click is both. Heavy
users look least far (the constants of the sister method's code, arXiv 2508.20798).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jade_graph.errors import UsageError
from jade_graph.feedback.events import FeedbackEvent
from jade_graph.feedback.log import Log, drawn

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ETAS = (2.5, 2.0, 1.0, 0.8, 0.0)
"""Five users: from one who hardly looks past the first passage to one who reads them all."""
GRADES = 4
NOISE = 0.1
"""The chance that a passage which is worth nothing is clicked where it is looked at."""
_HEAVIER = 1.25


@dataclass(frozen=True, slots=True)
class Crowd:
    """Users with their habits.

    Attributes:
        etas: by user. share: of the sessions, by user. likes: users x queries, each user's distribution of queries.
    """

    etas: tuple[float, ...]
    share: Floats
    likes: Floats

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"user-{u + 1}" for u in range(len(self.etas)))

    def examination(self, ranks: int) -> Floats:
        """Users x ranks."""
        chances: Floats = np.arange(1, ranks + 1, dtype=np.float64)[None] ** -np.array(self.etas)[:, None]
        return chances

    def draw(self, sessions: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """User and query of each session."""
        users = rng.choice(len(self.etas), sessions, p=self.share)
        steps = np.cumsum(self.likes, axis=1)
        queries = (rng.random(sessions)[:, None] > steps[users]).sum(axis=1)
        return users.astype(np.int64), np.minimum(queries, self.likes.shape[1] - 1).astype(np.int64)


def make_crowd(queries: int, etas: Sequence[float] = ETAS, *, seed: int = 0) -> Crowd:
    """Users who each ask a random half of the queries, by weights drawn from U(0, 1).

    Session shares fall by 1.25 from user to user, the first, who looks least far, being the heaviest.

    Raises:
        UsageError: MICROWORLD_USERS.
    """
    if queries < 2 or not etas or not all(np.isfinite(e) and 0 <= e <= 10 for e in etas):
        raise UsageError(
            f"{queries} queries for users with the exponents {list(etas)!r:.80}.",
            code="MICROWORLD_USERS",
            hint="two queries or more, and exponents from 0 (reads everything) to 10, e.g. --etas 2.5,2,1,.8,0",
        )
    rng = np.random.default_rng([seed, 1])
    likes = np.zeros((len(etas), queries))
    for row in likes:
        own = rng.permutation(queries)[: queries // 2]
        row[own] = rng.random(len(own))
    share = _HEAVIER ** np.arange(len(etas) - 1, -1, -1.0)
    return Crowd(tuple(map(float, etas)), share / share.sum(), likes / likes.sum(axis=1, keepdims=True))


def attraction(grade: npt.ArrayLike) -> Floats:
    """The chance of a click where the passage is looked at: relevance, in the estimators' words. Grades 0 to 4."""
    return NOISE + (1 - NOISE) * np.asarray(grade, np.float64) / GRADES


def make_log(crowd: Crowd, grades: Floats, sessions: int, *, seed: int = 0) -> Log:
    """Clicks on one fixed list a query: `grades` is queries x ranks."""
    rng = np.random.default_rng([seed, 2])
    users, queries = crowd.draw(sessions, rng)
    chance = crowd.examination(grades.shape[1])[users] * attraction(grades)[queries]
    documents = [[f"d{k}" for k in range(grades.shape[1])] for _ in grades]
    return drawn(crowd.names, users, queries, documents, (rng.random(chance.shape) < chance).astype(np.float64))


def make_events(
    crowd: Crowd,
    lists: Mapping[str, Sequence[str]],
    relevant: Mapping[str, Sequence[str]],
    sessions: int,
    *,
    shuffle: float = 0.2,
    seed: int = 0,
    begin: float = 1_750_000_000.0,
) -> Iterator[FeedbackEvent]:
    """What users do with lists of passages.

    Args:
        lists: passages by query, best first. relevant: those that answer it; they have grade 4, the others 0.
        shuffle: the share of sessions that see their list in random order: without any, nothing can tell whether rank
            5 is looked at less, or what stands there is worse.
        begin: the time of the first session; each is a minute after the one before.
    """
    rng = np.random.default_rng([seed, 3])
    users, queries = crowd.draw(sessions, rng)
    names = list(lists)
    for s, (u, q) in enumerate(zip(users.tolist(), queries.tolist(), strict=True)):
        query = names[q]
        shown = list(lists[query])
        if rng.random() < shuffle:
            shown = [shown[i] for i in rng.permutation(len(shown))]
        grades = [GRADES if d in relevant.get(query, ()) else 0 for d in shown]
        chance = crowd.examination(len(shown))[u] * attraction(grades)
        clicks = rng.random(len(shown)) < chance
        for rank, (document, clicked) in enumerate(zip(shown, clicks.tolist(), strict=True), 1):
            yield FeedbackEvent(
                user=crowd.names[u],
                query=query,
                rank=rank,
                document=document,
                clicked=clicked,
                session=f"simulated-{seed}-{s}",
                at=begin + 60.0 * s,
            )
