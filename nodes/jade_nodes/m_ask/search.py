"""KS, the Search role: what to search next, or that enough is known.

Invariant: either one query of at most `max_words` words or the end comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jade_graph.types import Alternative, Effect, Message, Parsed, RoleKind, View
from jade_graph.workflow import tags
from jade_nodes.m_ask.knowledge import Knowledge, chat_state, compact_state
from jade_nodes.prompting import one_line, quote, system_and_user

_END = re.compile(r"<end\s*/?>", re.IGNORECASE)


@dataclass(frozen=True)
class KnowledgeSearch:
    code: ClassVar[str] = "KS"
    linear: ClassVar[bool] = True
    name: ClassVar[str] = "Search"
    kind: ClassVar[RoleKind] = "executor"
    description: ClassVar[str] = "writes the next search query, or ends the search"
    violations: ClassVar[tuple[str, ...]] = ("NO_TAG", "EXTRA_TEXT", "MULTIPLE", "EMPTY_ITEM", "TOO_LONG")
    max_words: int = 100
    max_new_tokens: int = 128

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        k = Knowledge.of(view)
        if profile != "chat":
            asked = "".join(f"asked : {one_line(q)}\n" for q in k.asked)
            return (Message("user", f"{compact_state(k)}{asked}search : {one_line(view.question)}\n"),)
        asked = "\n".join(f"- {one_line(q)}" for q in k.asked) or "- none"
        return system_and_user(
            "You decide what to search next to answer a question. Look at what is known and at past queries; do not "
            "repeat one. Write nothing but the query, in the form <search>the query</search>, or <end> if enough is "
            "known.",
            f"Question: {quote(view.question)}\n\n{chat_state(k)}\n\nPast queries:\n{asked}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        del view
        found = tags.find(text, "search")
        ends = len(_END.findall(text))
        whole = not _END.sub("", text).strip() if not found.texts else found.whole
        checks = (
            ("NO_TAG", not found.texts and not ends),
            ("MULTIPLE", len(found.texts) + ends > 1),
            ("EXTRA_TEXT", not whole),
            ("EMPTY_ITEM", not all(found.texts)),
            ("TOO_LONG", any(tags.words(t) > self.max_words for t in found.texts)),
        )
        violation = next((code for code, broken in checks if broken), None)
        if violation is not None:
            return Parsed(None, violation)
        return Parsed({"search": " ".join(found.texts[0].split())} if found.texts else {"end": True})

    def fallback(self, text: str, view: View) -> dict[str, Any]:
        """The first tagged query, else the raw text as a query; the end where there is neither, or an end tag alone."""
        del view
        tagged = next((t for t in tags.find(text, "search").texts if t), "")
        raw = "" if _END.search(text) else tags.strip_tags(text)
        query = " ".join((tagged or raw).split()[: self.max_words])
        return {"search": query} if query else {"end": True}

    def effect(self, value: Mapping[str, Any], view: View) -> Effect:
        query = value.get("search")
        if not query:
            return Effect(memory={"ended": True})
        return Effect(memory={"queries": (query,), "asked": (*Knowledge.of(view).asked, query), "documents": ()})

    def alternatives(self, text: str, value: Any, documents: int) -> tuple[Alternative, ...]:
        """To search, or to end."""
        del text, documents
        search, end = "<search>", "<end>"
        if isinstance(value, Mapping) and value.get("search"):
            return (Alternative("searched on", search, end, ends=False),)
        return (Alternative("ended the search", end, search, ends=False),)


SEARCH = KnowledgeSearch()
