"""Tags are read in linear time, and what was found is what a lazy pattern finds."""

from __future__ import annotations

import random
import re

import pytest

from jade_graph.types import Effect, Message, Parsed, View
from jade_graph.workflow import tags
from jade_graph.workflow.reading import LONGEST, read

LAZY = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
NUMBERED = re.compile(r"<q(\d{1,3})>(.*?)</q\1>", re.IGNORECASE | re.DOTALL)
ITEM = re.compile(r"<([qa])(\d{1,3})>(.*?)</\1\2>", re.IGNORECASE | re.DOTALL)
PIECES = (
    "<answer>", "</answer>", "<ANSWER>", "</Answer>", "<an\u017fwer>", "</an\u017fwer>", "<q1>", "</q1>", "<q01>",
    "</Q01>", "<Q1>", "</a1>", "<a1>", "<q2>", "</q2>", "<q\u0661>", "</q1", "<q1234>", " ", "x", "\n", "<", ">", "/",
)  # fmt: skip


def test_what_is_found_is_what_a_lazy_pattern_finds() -> None:
    draw = random.Random(0)
    for _ in range(6_000):
        text = "".join(draw.choices(PIECES, k=draw.randrange(14)))
        found = tags.find(text, "answer")
        assert found.texts == tuple(m[1].strip() for m in LAZY.finditer(text))
        assert found.whole == (bool(found.texts) and not LAZY.sub("", text).strip())
        numbered = tags.find_numbered(text, "q")
        assert numbered.texts == tuple(m[2].strip() for m in NUMBERED.finditer(text))
        assert numbered.numbers == tuple(int(m[1]) for m in NUMBERED.finditer(text))
        assert numbered.whole == (bool(numbered.texts) and not NUMBERED.sub("", text).strip())
        items = list(tags.pairs(text, tags.ends("([qa])", r"(\d{1,3})")))
        assert [(p.opening[1], p.opening[2], p.inner) for p in items] == [m.groups() for m in ITEM.finditer(text)]
        assert tags.without(text, items) == ITEM.sub("", text)


HOSTILE = [
    "<answer>",
    "</answer>",
    "<q1>",
    "<q1></q2>",
    "<answer",
    "<a",
    "<",
    "<answer><answer></answer>",
    "<q7></q8><q9>",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_tags_is_read_in_one_pass(piece: str) -> None:
    """In quadratic time each of these takes the better part of an hour."""
    text = piece * (1_000_000 // len(piece))
    tags.find(text, "answer")
    tags.find_numbered(text, "q")
    list(tags.pairs(text, tags.ends("([qa])", r"(\d{1,3})")))
    tags.strip_tags(text)


class Asked:
    """A role that says how long the texts were that it was given."""

    code, kind = "AG", "executor"

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        return ()

    def parse(self, text: str, view: View) -> Parsed:
        self.lengths.append(len(text))
        return Parsed("yes")

    def fallback(self, text: str, view: View) -> str:
        self.lengths.append(len(text))
        return "fallback"

    def effect(self, value: str, view: View) -> Effect:
        return Effect(answer=value)


def test_an_action_without_end_is_not_parsed() -> None:
    role, view = Asked(), None
    assert read(role, "x" * LONGEST, view) == Parsed("yes")  # type: ignore[arg-type]
    assert read(role, "x" * (LONGEST + 1), view) == Parsed("fallback", "OVERLONG", fallback_used=True)  # type: ignore[arg-type]
    assert role.lengths == [LONGEST, LONGEST]
