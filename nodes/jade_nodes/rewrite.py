"""QR, the query rewriter: turns a question into what a search engine finds.

Invariant: at least one non-empty query of at most `max_words` words comes out, whatever the model writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jade_graph.types import Effect, Message, Parsed, RoleKind, View
from jade_graph.workflow import tags
from jade_nodes.prompting import compact_pairs, one_line, quote, solved_pairs, system_and_user


@dataclass(frozen=True)
class QueryRewriter:
    """`max_queries` above 1 lets the rewriter search several queries at once (MMOA-RAG); their results interleave."""

    code: ClassVar[str] = "QR"
    linear: ClassVar[bool] = True
    name: ClassVar[str] = "Query Rewriter"
    kind: ClassVar[RoleKind] = "executor"
    description: ClassVar[str] = "rewrites the question as a search query: drops noise, names what is meant"
    violations: ClassVar[tuple[str, ...]] = (
        "NO_TAG",
        "EXTRA_TEXT",
        "EMPTY_ITEM",
        "TOO_MANY",
        "TOO_LONG",
        "SAME_AS_TARGET",
    )
    max_queries: int = 1
    max_words: int = 100
    max_chars: int | None = None
    max_new_tokens: int = 128

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        if profile != "chat":
            return (Message("user", f"{compact_pairs(view.siblings)}rewrite : {one_line(view.question)}\n"),)
        known = f"\n\nAlready known:\n{solved_pairs(view.siblings)}" if view.siblings else ""
        many = f"; at most {self.max_queries} queries, each in its own tags" if self.max_queries > 1 else ""
        return system_and_user(
            "You rewrite a question as a query for a search engine: keep the entities and the relation asked for, "
            "resolve references, leave out everything else. Write nothing but the query, in the form "
            f"<query>the query</query>{many}",
            f"Question: {quote(view.question)}{known}",
        )

    def parse(self, text: str, view: View) -> Parsed:
        found = tags.find(text, "query")
        target = " ".join(view.question.casefold().split())
        checks = (
            ("NO_TAG", not found.texts),
            ("EXTRA_TEXT", not found.whole),
            ("EMPTY_ITEM", not all(found.texts)),
            ("TOO_MANY", len(found.texts) > self.max_queries),
            ("TOO_LONG", self._too_long(found.texts)),
            ("SAME_AS_TARGET", any(" ".join(t.casefold().split()) == target for t in found.texts)),
        )
        violation = next((code for code, broken in checks if broken), None)
        return Parsed(found.texts) if violation is None else Parsed(None, violation)

    def _too_long(self, texts: tuple[str, ...]) -> bool:
        if self.max_chars is not None and sum(map(len, texts)) > self.max_chars:
            return True
        return any(tags.words(t) > self.max_words for t in texts)

    def fallback(self, text: str, view: View) -> tuple[str, ...]:
        """The tagged queries where there are any, else the raw text, else the question."""
        kept = [t for t in tags.find(text, "query").texts if t] or [tags.strip_tags(text)]
        cut = [" ".join(t.split()[: self.max_words]) for t in kept[: self.max_queries]]
        return tuple(t for t in cut if t) or (view.question,)

    def effect(self, value: tuple[str, ...], view: View) -> Effect:
        del view
        return Effect(memory={"queries": tuple(value)})


REWRITER = QueryRewriter()
