"""What training found of a run's long texts: the pieces that they were cut into, and what each weighs.

Invariant: pure. A cut counts only where its pieces, put together, are the text to the last character; a run that was
not judged has none of this.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jade_graph.types import Run, Transition
from jade_graph.workflow import tags

KEY = "compression"
"""Of a run's metadata."""
SEGMENTER, SCORER = "SG", "SC"
"""Codes of the two roles that judge; no graph that serves has them."""
How = Literal["uniform", "joint", "frozen", "leave_one_out"]
"""Who weighs: nobody (lengths are measured), a role in training, the same role of the frozen model, what following
text loses without the piece."""
LEAST, MOST = 1, 5
"""Weights: what could be left out, and what must stay."""

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.IGNORECASE | re.DOTALL)
_OUTER = re.compile(r"\s*<([a-zA-Z][a-zA-Z_]*)>(.*)</\1>\s*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Judged:
    """One text of a run.

    Attributes:
        seq, role: of the action that wrote it.
        limit: tokens that the action could have had.
        pieces: what it was cut into; the whole text alone where it was not.
        lengths: of each piece, in tokens of the model; they sum to those of the text.
        weights: of each piece, 1 to 5; None where nobody weighed them.
        valid: whether the cut is lossless and every piece has a weight.
        why: what was wrong, where it is not.
        drops: what leaving each piece out costs the log-probability of what followed (nats), where that was measured.
    """

    seq: int
    role: str
    limit: int
    pieces: tuple[str, ...]
    lengths: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    valid: bool = False
    why: str = ""
    drops: tuple[float, ...] | None = None

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Judged:
        made: dict[str, Any] = {name: told[name] for name in cls.__slots__ if name in told}
        for name in ("pieces", "lengths", "weights", "drops"):
            made[name] = None if made.get(name) is None else tuple(made[name])
        return cls(**made)


def judged(run: Run) -> tuple[Judged, ...]:
    """The texts of a run that training judged, in the order of their actions; empty where it did not."""
    found = run.metadata.get(KEY)
    told = found.get("texts") if isinstance(found, Mapping) else None
    return tuple(Judged.from_dict(each) for each in told or ())


def long_part(text: str) -> tuple[int, int]:
    """Where in an action its long text begins and ends: a thought's inside, else that of a tag around it all, else
    everything; without white space at its edges. What is behind it is what the text led to."""
    if found := _THOUGHT.match(text):
        start, end = found.span(1)
    elif (outer := _OUTER.fullmatch(text)) and f"<{outer[1]}>".lower() not in outer[2].lower():
        start, end = outer.span(2)
    else:
        start, end = 0, len(text)
    inside = text[start:end]
    start += len(inside) - len(inside.lstrip())
    return start, max(start, end - (len(inside) - len(inside.rstrip())))


def texts_of(transitions: Iterable[Transition], roles: Collection[str]) -> list[tuple[Transition, str]]:
    """The long texts that these roles wrote, in order; those of actions that failed, and empty ones, left out."""
    found: list[tuple[Transition, str]] = []
    for t in sorted(transitions, key=lambda t: t.seq):
        if t.role in roles and t.error is None and t.judges is None and t.action_token_ids:
            start, end = long_part(t.action_text)
            if end > start:
                found.append((t, t.action_text[start:end]))
    return found


def lossless(pieces: Sequence[str], text: str) -> bool:
    """Whether the pieces are the text, to the last character, and none is empty."""
    return bool(pieces) and all(pieces) and "".join(pieces) == text


def cut_by_tags(text: str, name: str) -> tuple[tuple[str, ...], bool]:
    """What stands in each `<name>..</name>`, to the last space, and whether nothing else does."""
    found = list(tags.pairs(text, tags.ends(name)))
    return tuple(p.inner for p in found), bool(found) and not tags.without(text, found).strip()


def cannot_be_cut(text: str) -> bool:
    """Whether the text has the tags in it that pieces are written in: no cut of it could be read."""
    return any(end.search(text) for end in tags.ends("seg"))
