"""What the answer generator and the summarizer share: the form of an answer, and how it is read.

Invariant: an answer is one line and never empty. Where the model wrote nothing readable it is "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jade_graph.types import Effect, Parsed, View
from jade_graph.workflow import tags

UNKNOWN = "unknown"
VIOLATIONS = ("NO_TAG", "EXTRA_TEXT", "MULTIPLE", "EMPTY_ITEM", "TOO_LONG")


def parse_answer(text: str, max_words: int, tag: str = "answer") -> Parsed:
    """Read `<answer>..</answer>` (or another tag): once, covering the whole output, 1 to `max_words` words.

    White space is normalised: an answer is one line, so that it cannot look like more than one in a later prompt.
    """
    found = tags.find(text, tag)
    checks = (
        ("NO_TAG", not found.texts),
        ("EXTRA_TEXT", not found.whole),
        ("MULTIPLE", len(found.texts) > 1),
        ("EMPTY_ITEM", not all(found.texts)),
        ("TOO_LONG", any(tags.words(t) > max_words for t in found.texts)),
    )
    violation = next((code for code, broken in checks if broken), None)
    return Parsed(_flat(found.texts[0])) if violation is None else Parsed(None, violation)


def raw_answer(text: str, tag: str = "answer") -> str:
    """The first tagged answer where there is one, else the raw text without tags, else "unknown"."""
    tagged = next((t for t in tags.find(text, tag).texts if t), "")
    return _flat(tagged) or tags.strip_tags(text) or UNKNOWN


def _flat(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class Answering:
    """A role whose action is one answer."""

    violations: ClassVar[tuple[str, ...]] = VIOLATIONS
    linear: ClassVar[bool] = True
    answer_tag: ClassVar[str] = "answer"
    max_words: int = 40
    max_new_tokens: int = 96

    @property
    def form(self) -> str:
        """What the chat prompt asks for."""
        return (
            f"Write nothing but the answer, as short as possible and at most {self.max_words} words, in the form "
            "<answer>the answer</answer>"
        )

    def parse(self, text: str, view: View) -> Parsed:
        del view
        return parse_answer(text, self.max_words)

    def fallback(self, text: str, view: View) -> str:
        del view
        return raw_answer(text)

    def effect(self, value: str, view: View) -> Effect:
        del view
        return Effect(answer=value)
