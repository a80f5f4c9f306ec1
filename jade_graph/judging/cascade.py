"""The cascade: from the top level down, voters pick what deserves the level, and a quorum of them decides.

Invariant: a level that fewer voters than the quorum could be read on decides nothing, and what is undecided then stays
without a label. A search takes at most (levels - 1) * voters calls. With perfect judges labels are the truth.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from jade_graph.errors import PluginError, UsageError
from jade_graph.judging.cases import Candidate, Case


@dataclass(frozen=True, slots=True)
class Cascade:
    """How many levels, voters, and voters that have to agree (None: more than half).

    One voter is CLUE-s. Raises `UsageError` JUDGE_OPTION.
    """

    levels: int = 5
    voters: int = 5
    quorum: int | None = None

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise _option(f"{self.levels} levels tell nothing apart: at least 2.")
        if self.voters < 1:
            raise _option(f"{self.voters} voters cannot vote: at least 1.")
        if self.quorum is not None and not 1 <= self.quorum <= self.voters:
            raise _option(f"a quorum of {self.quorum} of {self.voters} voters: from 1 to {self.voters}.")

    @property
    def agree(self) -> int:
        """Voters that have to agree."""
        return self.voters // 2 + 1 if self.quorum is None else self.quorum

    @property
    def calls(self) -> int:
        """At most, for one search."""
        return (self.levels - 1) * self.voters

    def value(self, level: int) -> float:
        """A level as a label from 0 to 1."""
        return level / (self.levels - 1)


CLUE = Cascade()
"""The paper's: five levels, five voters, three agree."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one voter is asked: which of the `undecided` passages deserve `level` (of 0 .. levels - 1).

    `examples` were judged one level higher. Both are indices into `case.candidates`; `seed` is the voter's own.
    """

    case: Case
    level: int
    levels: int
    undecided: tuple[int, ...]
    examples: tuple[int, ...]
    voter: int
    seed: int

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The undecided ones."""
        return tuple(self.case.candidates[i] for i in self.undecided)


@dataclass(frozen=True, slots=True)
class Vote:
    """Which of `ballot.undecided` deserve the level, as positions in it; None: the voter could not be read."""

    chosen: frozenset[int] | None
    text: str = ""
    tokens: int = 0


class Judge(Protocol):
    """Whoever votes. `about` says who it is and with what settings: labels of judges that differ are kept apart."""

    @property
    def about(self) -> Mapping[str, Any]: ...

    async def vote(self, ballots: Sequence[Ballot]) -> Sequence[Vote]:
        """One vote for each ballot, in their order. All voters of a level are asked at once, so that they batch."""
        ...


class FunctionJudge:
    """A function as a judge: it gets a `Ballot` and gives the ids of the passages that deserve the level.

    It may be a coroutine function, and may return None for a vote that does not count.

    Args:
        name: says in provenance who judged.
    """

    def __init__(self, function: Callable[[Ballot], Any], name: str | None = None) -> None:
        self._function = function
        self._name = name or f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"

    @property
    def about(self) -> Mapping[str, Any]:
        return {"judge": self._name, "form": "function"}

    async def vote(self, ballots: Sequence[Ballot]) -> list[Vote]:
        """Raises `PluginError` JUDGE_FAILED, JUDGE_CHOICE (an id that was not asked about)."""
        return [await self._one(ballot) for ballot in ballots]

    async def _one(self, ballot: Ballot) -> Vote:
        try:
            said = self._function(ballot)
            said = await said if inspect.isawaitable(said) else said
            ids = None if said is None else [str(each) for each in said]
        except Exception as error:
            raise PluginError(
                f"the judge {self._name!r} raised {type(error).__name__} on run {ballot.case.run_id!r}: {error}",
                code="JUDGE_FAILED",
                hint=f"jade runs show {ballot.case.run_id}",
            ) from error
        if ids is None:
            return Vote(None)
        asked = {candidate.passage.id: place for place, candidate in enumerate(ballot.candidates)}
        if strange := [id_ for id_ in ids if id_ not in asked]:
            raise PluginError(
                f"the judge {self._name!r} chose the passage {strange[0]!r}, which was not asked about.",
                code="JUDGE_CHOICE",
                known=list(asked),
            )
        return Vote(frozenset(asked[id_] for id_ in ids))


@dataclass(frozen=True, slots=True)
class Label:
    """A passage's level; None: no label. `votes`: how many voters chose it, from the top level down to where it was
    decided.
    """

    id: str
    level: int | None
    votes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of one search. `unreadable`: votes that could not be read, of `calls`."""

    run_id: str
    attempt: int
    seq: int
    query: str
    labels: tuple[Label, ...]
    calls: int = 0
    unreadable: int = 0
    tokens: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, int]:
        return self.run_id, self.attempt, self.seq


async def judge_case(case: Case, judge: Judge, cascade: Cascade = CLUE, *, seed: int = 0) -> Judgement:
    """Label the passages of one search. Voters' seeds follow from `seed` and from where the search stands."""
    undecided = list(range(len(case.candidates)))
    levels: dict[int, int] = {}
    votes: dict[int, list[int]] = {i: [] for i in undecided}
    above: tuple[int, ...] = ()
    calls = unreadable = tokens = 0
    for level in range(cascade.levels - 1, 0, -1):
        if not undecided:
            break
        ballots = [
            Ballot(case, level, cascade.levels, tuple(undecided), above, voter, _seed(seed, *case.key, level, voter))
            for voter in range(cascade.voters)
        ]
        said = await judge.vote(ballots)
        read = [vote.chosen for vote in said if vote.chosen is not None]
        calls, unreadable = calls + len(ballots), unreadable + len(ballots) - len(read)
        tokens += sum(vote.tokens for vote in said)
        if len(read) < cascade.agree:
            break
        counts = {i: sum(place in chosen for chosen in read) for place, i in enumerate(undecided)}
        for i, count in counts.items():
            votes[i].append(count)
        above = tuple(i for i in undecided if counts[i] >= cascade.agree)
        levels |= dict.fromkeys(above, level)
        undecided = [i for i in undecided if i not in levels]
    else:
        levels |= dict.fromkeys(undecided, 0)
    labels = tuple(Label(c.passage.id, levels.get(i), tuple(votes[i])) for i, c in enumerate(case.candidates))
    return Judgement(*case.key, case.query, labels, calls, unreadable, tokens, provenance(judge, cascade, seed))


def provenance(judge: Judge, cascade: Cascade, seed: int) -> dict[str, Any]:
    """Who judged, and how: what has to agree where judging goes on."""
    return {
        "method": "cascade",
        **judge.about,
        "levels": cascade.levels,
        "voters": cascade.voters,
        "quorum": cascade.agree,
        "seed": seed,
    }


def name_of(about: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits over a provenance: labels of one name are of one judge."""
    return hashlib.sha256(json.dumps(dict(about), sort_keys=True, default=str).encode()).hexdigest()[:16]


def majority_error(p: float, voters: int = 5, quorum: int | None = None) -> float:
    """How often a quorum is wrong where each voter is, independently, with probability `p`."""
    least = Cascade(voters=voters, quorum=quorum).agree
    return math.fsum(math.comb(voters, j) * p**j * (1 - p) ** (voters - j) for j in range(least, voters + 1))


def counted(judgements: Iterable[Judgement]) -> dict[str, int]:
    """Searches, passages, those with a label, calls, unreadable votes and tokens, of all together."""
    out = dict.fromkeys(("searches", "passages", "labelled", "calls", "unreadable", "tokens"), 0)
    for each in judgements:
        out["searches"] += 1
        out["passages"] += len(each.labels)
        out["labelled"] += sum(label.level is not None for label in each.labels)
        out["calls"] += each.calls
        out["unreadable"] += each.unreadable
        out["tokens"] += each.tokens
    return out


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=4).digest(), "big") >> 1


def _option(message: str) -> UsageError:
    return UsageError(message, code="JUDGE_OPTION", hint="--levels 5 --voters 5 --quorum 3")


__all__ = [
    "CLUE",
    "Ballot",
    "Cascade",
    "FunctionJudge",
    "Judge",
    "Judgement",
    "Label",
    "Vote",
    "counted",
    "judge_case",
    "majority_error",
    "name_of",
    "provenance",
]
