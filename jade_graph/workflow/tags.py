"""Reading the tagged actions of roles.

Invariant: tags match in any case; a helper never raises and never looks inside another tag's text. `whole` tells
whether the tags cover the whole output, white space apart, which is what makes an action legal. Reading takes time that
grows with the text's length, whatever the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

_ANY_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z_]*[0-9]*>")


Ends = tuple[re.Pattern[str], re.Pattern[str]]
"""What opens and what closes: groups of the one must be groups of the other."""


@cache
def ends(name: str, groups: str = "") -> Ends:
    """Of `<name>` and `</name>`, whose names go on with what `groups` (a pattern) matches."""
    made = (re.compile(rf"<{slash}{name}{groups}>", re.IGNORECASE) for slash in ("", "/"))
    return next(made), next(made)


@dataclass(frozen=True, slots=True)
class Pair:
    """What opens, the text between, and where in the whole text all of it stands."""

    opening: re.Match[str]
    inner: str
    start: int
    end: int


def pairs(text: str, ends: Ends) -> Iterator[Pair]:
    """Every opening with the first closing of its kind behind it, none within another: what a lazy pattern finds, in
    time that grows with the text's length alone.
    """
    closings: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for match in ends[1].finditer(text):
        closings.setdefault(_kind(match), []).append(match.span())
    at = 0
    while closings and (opening := ends[0].search(text, at)) is not None:
        spans = closings.get(_kind(opening), [])
        which = bisect_left(spans, (opening.end(), 0))
        if which == len(spans):
            at = opening.start() + 1
            continue
        start, at = spans[which]
        yield Pair(opening, text[opening.end() : start], opening.start(), at)


def without(text: str, found: Sequence[Pair]) -> str:
    """The text with these pairs cut out."""
    edges = [0, *(edge for pair in found for edge in (pair.start, pair.end)), len(text)]
    return "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


def _kind(match: re.Match[str]) -> tuple[str, ...]:
    return tuple(group.lower() for group in match.groups())


@dataclass(frozen=True, slots=True)
class Tagged:
    """Texts found between tags (stripped), their numbers where tags have any, and whether nothing else was there."""

    texts: tuple[str, ...]
    numbers: tuple[int, ...]
    whole: bool


def find(text: str, name: str) -> Tagged:
    """Every `<name>..</name>`."""
    found = list(pairs(text, ends(name)))
    return Tagged(tuple(p.inner.strip() for p in found), (), bool(found) and not without(text, found).strip())


def find_numbered(text: str, name: str) -> Tagged:
    """Every `<name1>..</name1>`, `<name2>..</name2>` in the order written."""
    found = list(pairs(text, ends(name, r"(\d{1,3})")))
    return Tagged(
        tuple(p.inner.strip() for p in found),
        tuple(int(p.opening[1]) for p in found),
        bool(found) and not without(text, found).strip(),
    )


def strip_tags(text: str) -> str:
    """The raw text without anything that looks like a tag, white space normalised: what fallbacks go on with."""
    return " ".join(_ANY_TAG.sub(" ", text).split())


def words(text: str) -> int:
    return len(text.split())
