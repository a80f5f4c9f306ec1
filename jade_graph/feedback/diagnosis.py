"""What the events tell, and what they cannot.

Invariant: every figure follows from the log and the examination alone; what is missing is said in words with its
number, so that nobody reads a label as surer than it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jade_graph.feedback.estimators import ESTIMATORS, Estimates, estimate
from jade_graph.feedback.examination import LEAST, LINK, Examination, links, unlinked
from jade_graph.feedback.log import Floats, Log, sums

WIDE = 0.5
"""An interval at least this wide says next to nothing."""
FEW = 10
"""Fewer surely seen impressions than this are few."""
_MOST_USERS = 20


@dataclass(frozen=True, slots=True)
class ByRank:
    """Of one rank: impressions, clicks, and its examination: the mean over impressions, and over users from .. to."""

    rank: int
    shown: int
    clicks: int
    examined: float | None
    least: float | None
    most: float | None


@dataclass(frozen=True, slots=True)
class ByUser:
    """Of one user: share of the sessions, impressions, clicks, examination by rank."""

    user: str
    share: float
    shown: int
    clicks: int
    examined: list[float]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `jade feedback diagnose` tells.

    Attributes:
        counts: events, sessions, users, queries, pairs.
        expected_bias: by estimator, the mean over pairs of |what it converges to / relevance - 1|, given this
            examination: 0.4 means that labels are off by 40 percent with ever so many events.
        effective: by estimator, quantiles (.1, .5, .9) over pairs of the surely seen impressions that say as much.
        ordered: the share of pairs of passages of one query whose intervals do not overlap: orders that are known.
        wide: the share of pairs with an interval of `WIDE` or more.
        unclear: what these events cannot tell, in sentences.
    """

    counts: dict[str, int]
    ranks: list[ByRank]
    users: list[ByUser]
    expected_bias: dict[str, float]
    effective: dict[str, list[float]]
    ordered: float | None
    wide: float | None
    links: list[tuple[int, int, int]]
    unclear: list[str] = field(default_factory=list)
    examination: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose(log: Log, examination: Examination | None) -> Diagnosis:
    """Look at a log.

    Args:
        examination: None where it is neither given nor can be fitted: what needs it is left out.
    """
    found = {name: estimate(log, examination, name) for name in ESTIMATORS} if examination else {}
    main = found.get("user-aware")
    return Diagnosis(
        counts={
            "events": len(log),
            "sessions": log.sessions,
            "users": len(log.users),
            "queries": len(log.queries),
            "pairs": len(log.pairs),
            "clicks": int(log.click.sum()),
        },
        ranks=_ranks(log, examination),
        users=_users(log, examination),
        expected_bias=_bias(log, examination) if examination else {},
        effective={name: _quantiles(each.effective) for name, each in found.items()},
        ordered=ordered(log, main) if main else None,
        wide=float((main.high - main.low >= WIDE).mean()) if main else None,
        links=[(a + 1, b + 1, n) for a, b, n in links(log)],
        unclear=_unclear(log, examination, main),
        examination=None if examination is None else examination.as_dict(log.ranks),
    )


def ordered(log: Log, found: Estimates) -> float | None:
    """The share of pairs of passages of one query whose intervals do not overlap; None where no query has two."""
    known = total = 0
    of = log.query
    for query in range(len(log.queries)):
        here = of == query
        low, high = found.low[here], found.high[here]
        n = len(low)
        total += n * (n - 1) // 2
        known += int((low[:, None] > high[None, :]).sum())
    return known / total if total else None


def _bias(log: Log, examination: Examination) -> dict[str, float]:
    seen = examination.of(log)
    overall = (log.shares() @ examination.table(log))[log.rank]
    true, shown = log.by_pair(seen), log.by_pair()
    off = {"naive": true / shown, "oblivious": true / log.by_pair(overall)}
    return {name: float(np.abs(off[name] - 1).mean()) if name in off else 0.0 for name in ESTIMATORS}


def _quantiles(values: Floats) -> list[float]:
    return [round(float(q), 3) for q in np.quantile(values, [0.1, 0.5, 0.9])]


def _ranks(log: Log, examination: Examination | None) -> list[ByRank]:
    shown = np.bincount(log.rank, minlength=log.ranks)
    clicks = sums(log.rank, log.click, log.ranks)
    mean = low = high = None
    if examination is not None:
        table = examination.table(log)
        mean = sums(log.rank, examination.of(log), log.ranks) / np.maximum(shown, 1)
        low, high = table.min(axis=0), table.max(axis=0)

    def at(values: Floats | None, k: int) -> float | None:
        return None if values is None else float(values[k])

    return [
        ByRank(k + 1, int(shown[k]), int(clicks[k]), at(mean, k), at(low, k), at(high, k))
        for k in np.flatnonzero(shown).tolist()
    ]


def _users(log: Log, examination: Examination | None) -> list[ByUser]:
    """Those with the most sessions first."""
    shares, shown = log.shares(), np.bincount(log.user, minlength=len(log.users))
    clicks = sums(log.user, log.click, len(log.users))
    table = None if examination is None else examination.table(log)
    heavy = np.argsort(-shares, kind="stable")[:_MOST_USERS].tolist()
    rows = [[] if table is None else [round(float(x), 4) for x in table[u]] for u in heavy]
    return [
        ByUser(log.users[u], float(shares[u]), int(shown[u]), int(clicks[u]), row)
        for u, row in zip(heavy, rows, strict=True)
    ]


def _unclear(log: Log, examination: Examination | None, found: Estimates | None) -> list[str]:
    out = []
    apart = unlinked(log)
    if apart:
        ranks = ", ".join(str(k + 1) for k in apart[:10]) + (" .." if len(apart) > 10 else "")
        out.append(
            f"Examination at rank {ranks} cannot be told from relevance: fewer than {LINK} impressions show a passage "
            "both there and at a rank that is known. Show some lists in another order, or give the examination."
        )
    few = int((np.bincount(log.user, minlength=len(log.users)) < LEAST).sum())
    if few and (examination is None or examination.how == "fitted"):
        out.append(
            f"{few} of {len(log.users)} users have fewer than {LEAST} impressions: whether they look at other ranks "
            "than each other cannot be told; a fit takes them as one."
        )
    if examination is not None and examination.how == "fitted":
        out.append(
            "Whether a user looks at rank 1 at all cannot be told: a fit assumes that everybody does. Where some often "
            "do not, what they ask for comes out as less relevant than it is."
        )
        if not examination.facts.get("ended", True):
            out.append("The fit did not settle: more events, or the examination given, would say more.")
    if found is not None:
        n = len(log.pairs)
        thin = int((found.effective < FEW).sum())
        wide = int((found.high - found.low >= WIDE).sum())
        if thin:
            out.append(f"{thin} of {n} passages were surely seen fewer than {FEW} times.")
        if wide:
            out.append(f"{wide} of {n} relevances are known to no better than {WIDE:g}.")
        if (known := ordered(log, found)) is not None and known < 0.5:
            out.append(f"Which of two passages of a query is better is known for {100 * known:.0f} % of them.")
    out.append("Passages that were never shown have no label: they are unknown, not irrelevant.")
    return out
