"""What the prompts of several roles share: how documents, questions and solved sub-questions look.

Invariant: text from documents, questions and answers is quoted as data; a tag or document marker inside it is defused,
so a prompt has exactly the documents that it numbers. A compact prompt has a line per item, whatever the item holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jade_graph.types import Message, Passage


def _wide(word: str) -> str:
    """A pattern for an ASCII word that may be written in full-width letters."""
    return "".join(f"[{c}{chr(ord(c) + 0xFEE0)}]" for c in word)


_LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Invisible, so that "Docu<zero width space>ment7:" would look like a marker and not match as one.
_INVISIBLE = re.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
# The joiners carry meaning between the letters of some scripts and in emoji, and none beside ASCII.
_JOINER = re.compile(r"(?<=[\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?=[\x00-\x7f])|^[\u200c\u200d]+")
# No two repeats of these patterns can share characters: they stay linear in hostile text.
_MARKER = re.compile(
    rf"(?im)^((?:[^\S\n]|[*_#>`~\-\[(])*)({_wide('document')}[*_`~]*\s*)(\d+)([*_`~\])]*\s*[:：﹕︓∶꞉])"
)
_WORDS = ("workflow", "query", "id", "answer", "final_answer", "search", "end", "evidence", "update", "add", "think")
_NAMES = "|".join(map(_wide, _WORDS))
_TAG = re.compile(rf"[<＜]([\s/／]*(?:{_NAMES}|[qｑaａ]\d+)\s*)[>＞]", re.IGNORECASE)


def system_and_user(system: str, user: str) -> tuple[Message, ...]:
    return (Message("system", system), Message("user", user))


def quote(text: str) -> str:
    """Defuse what imitates our own tags or document markers; every line end becomes a newline."""
    return _defuse(_LINE_END.sub("\n", _visible(text)))


def one_line(text: str) -> str:
    """`quote`, on one line with single spaces: for prompts and lists in which a line is an item."""
    return _defuse(" ".join(_visible(text).split()))


def _visible(text: str) -> str:
    return text if text.isascii() else _JOINER.sub("", _INVISIBLE.sub("", text))


def _defuse(text: str) -> str:
    return _MARKER.sub(r"\1\2(\3)\4", _TAG.sub(r"‹\1›", text))


def numbered_documents(documents: Sequence[Passage]) -> str:
    """`Document0: title` and text, a blank line between: the selector refers to them by these names."""
    return "\n\n".join(f"Document{i}: {quote(str(d))}" for i, d in enumerate(documents))


def compact_documents(documents: Sequence[Passage], profile: str = "compact") -> str:
    """A line a document; in the profile "brief" with its title, which often alone names what the text is about."""
    titled = profile == "brief"
    return "".join(
        f"Document{i} : {one_line(f'{d.title}: {d.text}' if titled and d.title else d.text)}\n"
        for i, d in enumerate(documents)
    )


def solved_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{i}. {one_line(q)} -> {one_line(a)}" for i, (q, a) in enumerate(pairs, 1))


def compact_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"known : {one_line(q)} = {one_line(a)}\n" for q, a in pairs)
