"""What the prompts of several roles share: how documents and solved sub-questions look.

Invariant: text from documents and questions is quoted as data; a tag or document marker inside it is defused, so a
prompt has exactly the documents that it numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jade_graph.types import Message, Passage

_MARKER = re.compile(r"(?im)^(\s*)(document\s*)(\d+)(\s*:)")
_TAG = re.compile(r"<(/?(?:workflow|query|id|answer|q\d+)\s*)>", re.IGNORECASE)


def system_and_user(system: str, user: str) -> tuple[Message, ...]:
    return (Message("system", system), Message("user", user))


def quote(text: str) -> str:
    """Defuse what imitates our own tags or document markers."""
    return _MARKER.sub(r"\1\2(\3)\4", _TAG.sub(r"‹\1›", text))


def numbered_documents(documents: Sequence[Passage]) -> str:
    """`Document0: title` and text, a blank line between: the selector refers to them by these names."""
    return "\n\n".join(f"Document{i}: {quote(str(d))}" for i, d in enumerate(documents))


def compact_documents(documents: Sequence[Passage]) -> str:
    return "".join(f"Document{i} : {quote(d.text)}\n" for i, d in enumerate(documents))


def solved_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{i}. {q} -> {a}" for i, (q, a) in enumerate(pairs, 1))


def compact_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"known : {q} = {a}\n" for q, a in pairs)
