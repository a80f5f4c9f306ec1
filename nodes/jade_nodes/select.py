"""DS, the document selector: keeps the passages that help to answer.

Invariant: what comes out is a subset of the documents, in their order; choosing none is legal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jade_graph.types import Alternative, Effect, Message, Parsed, RoleKind, View
from jade_graph.workflow import tags
from jade_nodes.prompting import compact_documents, numbered_documents, one_line, quote, system_and_user

_ITEM = re.compile(r"document\s*(\d{1,4})", re.IGNORECASE)


@dataclass(frozen=True)
class DocumentSelector:
    code: ClassVar[str] = "DS"
    linear: ClassVar[bool] = True
    name: ClassVar[str] = "Document Selector"
    kind: ClassVar[RoleKind] = "executor"
    description: ClassVar[str] = "keeps only the passages that help (after R)"
    violations: ClassVar[tuple[str, ...]] = (
        "NO_TAG",
        "EXTRA_TEXT",
        "MULTIPLE",
        "BAD_ITEM",
        "OUT_OF_RANGE",
        "DUPLICATE",
    )
    max_new_tokens: int = 48

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        documents = view.memory.get("documents") or ()
        if profile != "chat":
            return (Message("user", f"{compact_documents(documents, profile)}select : {one_line(view.query)}\n"),)
        return system_and_user(
            "You choose the documents that help to answer the question. Write nothing but their names, separated by "
            "commas, in the form <id>Document0,Document2</id>; <id></id> if none helps.",
            f"{numbered_documents(documents)}\n\nQuestion: {quote(view.query)}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        found = tags.find(text, "id")
        items = _items(found.texts[0]) if found.texts else []
        numbers = [int(m[1]) if (m := _ITEM.fullmatch(item)) else None for item in items]
        count = len(view.memory.get("documents") or ())
        valid = [n for n in numbers if n is not None]
        checks = (
            ("NO_TAG", not found.texts),
            ("EXTRA_TEXT", not found.whole),
            ("MULTIPLE", len(found.texts) > 1),
            ("BAD_ITEM", len(valid) < len(numbers)),
            ("OUT_OF_RANGE", any(n >= count for n in valid)),
            ("DUPLICATE", len(set(valid)) < len(valid)),
        )
        violation = next((code for code, broken in checks if broken), None)
        return Parsed(tuple(sorted(valid))) if violation is None else Parsed(None, violation)

    def fallback(self, text: str, view: View) -> tuple[int, ...]:
        """In one readable tag: the numbers in range. Otherwise all documents."""
        count = len(view.memory.get("documents") or ())
        found = tags.find(text, "id")
        items = _items(found.texts[0]) if found.whole and len(found.texts) == 1 else None
        if items is None or not all(_ITEM.fullmatch(item) for item in items):
            return tuple(range(count))
        return tuple(sorted({n for item in items if (n := int(item[len("document") :])) < count}))

    def effect(self, value: tuple[int, ...], view: View) -> Effect:
        documents = view.memory.get("documents") or ()
        return Effect(memory={"selected": tuple(documents[i] for i in value)})

    def alternatives(self, text: str, value: Any, documents: int) -> tuple[Alternative, ...]:
        """Every document kept, or dropped, while the others stay as they are; those that were kept come first."""
        del text
        kept = sorted(i for i in value if 0 <= i < documents) if isinstance(value, list | tuple) else []
        out = []
        for i in (*kept, *(i for i in range(documents) if i not in kept)):
            other = [k for k in kept if k != i] if i in kept else sorted((*kept, i))
            told = "kept" if i in kept else "dropped"
            out.append(Alternative(f"Document {i} {told}", _named(kept), _named(other), i))
        return tuple(out)


def _named(numbers: Sequence[int]) -> str:
    return "<id>" + ",".join(f"Document{i}" for i in numbers) + "</id>"


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text.strip() else []


SELECTOR = DocumentSelector()
