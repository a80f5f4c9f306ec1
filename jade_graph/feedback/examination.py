"""Who looks at which rank: given, or fitted to the clicks by EM.

Invariant: a chance lies above 0 and is at most 1. A fit says that it is one, what it assumes, and whether it ended; it
is refused where the clicks cannot tell examination from relevance, because no passage stood at two ranks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jade_graph.errors import DataError, UsageError
from jade_graph.feedback.log import Floats, Ints, Log, sums

FLOOR = 1e-4
"""No examination is taken for smaller: a click is never divided by less."""
LINK = 10
"""Impressions at both of two ranks, of passages that stood at both, before a fit compares these ranks."""
LEAST = 200
"""Impressions of a user before a fit gives the user ranks of their own; the others are fitted as one."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The chance that a user looks at a rank.

    Attributes:
        tables: chances by rank, by user. others: of every other user.
        how: "given" or "fitted", for people. facts: of a fit.
    """

    others: tuple[float, ...] = (1.0,)
    tables: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    how: str = "given"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def table(self, log: Log) -> Floats:
        """Users of the log x its ranks; beyond the last rank that is known, that of the last."""
        ranks = log.ranks
        rows = [self.tables.get(user, self.others) for user in log.users]
        out = np.array([[row[min(k, len(row) - 1)] for k in range(ranks)] for row in rows], np.float64)
        return np.clip(out, FLOOR, 1.0)

    def of(self, log: Log) -> Floats:
        """Per impression."""
        return self.table(log)[log.user, log.rank]

    def as_dict(self, ranks: int = 100) -> dict[str, Any]:
        """As JSON holds it, and as `read_examination` reads it; the first ranks."""
        tables = {user: [round(x, 6) for x in row[:ranks]] for user, row in self.tables.items()}
        return {"how": self.how, **self.facts, "table": tables, "others": [round(x, 6) for x in self.others[:ranks]]}


def power(eta: float, ranks: int = 100) -> tuple[float, ...]:
    """(1/k)^eta for k = 1 .. ranks."""
    return tuple(float(k) ** -eta for k in range(1, ranks + 1))


def power_law(etas: Mapping[str, float], others: float = 1.0) -> Examination:
    """(1/k)^eta by user; of users that are not named, `others`."""
    facts = {"eta": dict(etas), "eta_others": others}
    return Examination(power(others), {user: power(eta) for user, eta in etas.items()}, "given", facts)


def read_examination(spec: str, named: Callable[[str], str] = str) -> Examination:
    """What `--examination` names: `power:ETA`, or a JSON file.

    The file holds {"eta": {USER: ETA}, "others": ETA}, or {"table": {USER: [chance at rank 1, ..]}, "others": [..]}.

    Args:
        named: a user's pseudonym.

    Raises:
        UsageError: FEEDBACK_EXAMINATION.
    """
    law, _, value = spec.partition(":")
    if law == "power" and value:
        return power_law({}, _eta(value, spec))
    try:
        given = json.loads(Path(spec).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(spec, f"it is neither power:ETA nor a JSON file that can be read ({error})") from error
    if not isinstance(given, Mapping) or not ("eta" in given or "table" in given):
        raise _refused(spec, 'the file holds neither an "eta" nor a "table" by user')
    by_user = given["table"] if "table" in given else given["eta"]
    if not isinstance(by_user, Mapping):
        raise _refused(spec, f"{by_user!r:.80} is not by user")
    if "table" not in given:
        etas = {named(str(user)): _eta(eta, spec) for user, eta in by_user.items()}
        return power_law(etas, _eta(given.get("others", 1.0), spec))
    tables = {named(str(user)): _row(row, spec) for user, row in by_user.items()}
    others = given.get("others")
    if others is None:
        raise _refused(spec, 'a table needs "others", for users that it does not name')
    return Examination(_row(others, spec), tables)


def _eta(value: Any, spec: str) -> float:
    try:
        eta = float(value)
    except (TypeError, ValueError):
        eta = -1.0
    if isinstance(value, bool) or not 0 <= eta <= 10:
        raise _refused(spec, f"the exponent {value!r:.40} is no number from 0 to 10")
    return eta


def _row(values: Any, spec: str) -> tuple[float, ...]:
    good = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not good or not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v <= 1 for v in values):
        raise _refused(spec, f"{values!r:.80} is no list of chances above 0 and up to 1, from rank 1 on")
    return tuple(float(v) for v in values)


def _refused(spec: str, why: str) -> UsageError:
    return UsageError(
        f"the examination {spec!r} cannot be used: {why}.",
        code="FEEDBACK_EXAMINATION",
        known=("fit", "power:ETA", "FILE"),
        hint='{"eta": {"USER": 1.5}, "others": 1.0}',
    )


# --- fitting ----------------------------------------------------------------------------------------------------------
def links(log: Log) -> list[tuple[int, int, int]]:
    """Pairs of ranks that can be compared, from 0, with the impressions that do it.

    A passage that stood at two ranks for one query is as relevant at both: what differs in its clicks is examination
    (Agarwal et al. 2019 harvest such interventions). Of its impressions at the two ranks the fewer count.
    """
    counts = np.zeros((len(log.pairs), log.ranks))
    np.add.at(counts, (log.pair, log.rank), 1.0)
    several = counts[(counts > 0).sum(axis=1) > 1]
    out = []
    for a in range(log.ranks):
        for b in range(a + 1, log.ranks):
            weight = int(np.minimum(several[:, a], several[:, b]).sum()) if len(several) else 0
            if weight:
                out.append((a, b, weight))
    return out


def unlinked(log: Log) -> list[int]:
    """Ranks, from 0, that no chain of comparisons joins to the first."""
    reached, shown = {0}, set(np.unique(log.rank).tolist())
    strong = [(a, b) for a, b, weight in links(log) if weight >= LINK]
    while more := {b if a in reached else a for a, b in strong if (a in reached) != (b in reached)}:
        reached |= more
    return sorted(shown - reached)


def fit_examination(
    log: Log, *, sessions: Floats | None = None, start: Examination | None = None, steps: int = 2000, tol: float = 1e-5
) -> Examination:
    """Examination by user and rank by EM in the position-based model (Chuklin et al. 2015; Wang et al. 2018).

    A click is a look at a relevant passage: P(c) = E(u,k) * g(q,d). Only the product is seen, so its scale is an
    assumption: every user looks at rank 1. Users with fewer than `LEAST` impressions are fitted as one.

    Args:
        sessions: a weight for each session (a bootstrap's).
        start: where to begin; a good place saves steps.

    Raises:
        DataError: FEEDBACK_UNLINKED, where a rank cannot be compared with the first.
    """
    if sessions is None and (apart := unlinked(log)):
        ranks = ", ".join(str(k + 1) for k in apart[:10])
        raise DataError(
            f"examination cannot be told from relevance at rank {ranks}: fewer than {LINK} impressions show a passage "
            "both there and at a rank that is known.",
            code="FEEDBACK_UNLINKED",
            hint="--examination power:1 or a FILE that says who looks where; or show some lists in another order",
        )
    counts = np.bincount(log.user, minlength=len(log.users))
    own = np.flatnonzero(counts >= LEAST)
    group = np.full(len(log.users), len(own), np.int64)
    group[own] = np.arange(len(own))
    groups = len(own) + 1
    weights = np.ones(len(log)) if sessions is None else sessions[log.session]
    seen, n, c = _cells(log, group, weights)
    ug, rank, pair = seen
    table = np.tile(1.0 / np.arange(1, log.ranks + 1), (groups, 1))
    if start is not None:
        begun = start.table(log)
        for each in range(groups):
            members = np.flatnonzero(group == each)
            if len(members):
                table[each] = begun[members[0]]
    pairs, size, place = len(log.pairs), groups * log.ranks, ug * log.ranks + rank
    at, of_pair = sums(place, n, size), sums(pair, n, pairs)
    relevance = np.clip(_divided(sums(pair, c, pairs), of_pair, 0.5) * 1.5, 0.01, 0.99)
    done, change = 0, np.inf
    while done < steps and change > tol:
        e, g = table.ravel()[place], relevance[pair]
        none = np.maximum(1 - e * g, 1e-12)  # the chance of no click
        looked = c + (n - c) * e * (1 - g) / none
        good = c + (n - c) * g * (1 - e) / none
        fresh = np.clip(_divided(sums(place, looked, size), at, np.nan), FLOOR, 1.0).reshape(groups, log.ranks)
        fresh = np.where(np.isnan(fresh), table, fresh)
        fresh[:, 0] = 1.0
        change = float(np.abs(fresh - table).max())
        relevance = np.clip(_divided(sums(pair, good, pairs), of_pair, 0.5), 1e-6, 1 - 1e-6)
        table, done = fresh, done + 1
    pooled = _divided((table * at.reshape(groups, -1)).sum(0), at.reshape(groups, -1).sum(0), FLOOR)
    others = table[-1] if (group == len(own)).any() else np.clip(pooled, FLOOR, 1.0)
    facts = {
        "assumes": "every user looks at rank 1",
        "own": len(own),
        "pooled": len(log.users) - len(own),
        "steps": done,
        "ended": bool(change <= tol),
    }
    rows = {log.users[u]: tuple(float(x) for x in table[group[u]]) for u in own.tolist()}
    return Examination(tuple(float(x) for x in others), rows, "fitted", facts)


def _cells(log: Log, group: Ints, weights: Floats) -> tuple[tuple[Ints, Ints, Ints], Floats, Floats]:
    """Impressions and clicks by group of users, rank and pair: what the likelihood depends on."""
    code = (group[log.user] * log.ranks + log.rank) * len(log.pairs) + log.pair
    kinds, inverse = np.unique(code, return_inverse=True)
    place, pair = np.divmod(kinds, len(log.pairs))
    ug, rank = np.divmod(place, log.ranks)
    return (ug, rank, pair), sums(inverse, weights, len(kinds)), sums(inverse, weights * log.click, len(kinds))


def _divided(a: Floats, b: Floats, otherwise: float) -> Floats:
    out: Floats = np.divide(a, b, out=np.full(len(a), otherwise), where=b > 0)
    return out
