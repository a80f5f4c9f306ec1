"""Reading the tagged actions of roles.

Invariant: tags match in any case; a helper never raises and never looks inside another tag's text. `whole` tells
whether the tags cover the whole output, white space apart, which is what makes an action legal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

_ANY_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z_]*[0-9]*>")


@cache
def _pair(name: str) -> re.Pattern[str]:
    return re.compile(rf"<{name}>(.*?)</{name}>", re.IGNORECASE | re.DOTALL)


@cache
def _numbered(name: str) -> re.Pattern[str]:
    return re.compile(rf"<{name}(\d{{1,3}})>(.*?)</{name}\1>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tagged:
    """Texts found between tags (stripped), their numbers where tags have any, and whether nothing else was there."""

    texts: tuple[str, ...]
    numbers: tuple[int, ...]
    whole: bool


def find(text: str, name: str) -> Tagged:
    """Every `<name>..</name>`."""
    pattern = _pair(name)
    texts = tuple(m[1].strip() for m in pattern.finditer(text))
    return Tagged(texts, (), bool(texts) and not pattern.sub("", text).strip())


def find_numbered(text: str, name: str) -> Tagged:
    """Every `<name1>..</name1>`, `<name2>..</name2>` in the order written."""
    pattern = _numbered(name)
    found = list(pattern.finditer(text))
    return Tagged(
        tuple(m[2].strip() for m in found),
        tuple(int(m[1]) for m in found),
        bool(found) and not pattern.sub("", text).strip(),
    )


def strip_tags(text: str) -> str:
    """The raw text without anything that looks like a tag, white space normalised: what fallbacks go on with."""
    return " ".join(_ANY_TAG.sub(" ", text).split())


def words(text: str) -> int:
    return len(text.split())
