"""References between sub-questions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.workflow.references import references, resolve_references


@pytest.mark.parametrize(
    ("text", "answers", "resolved"),
    [
        ("who founded #1?", ["Rome"], "who founded Rome?"),
        ("#2 and #1", ["a", "b"], "b and a"),
        ("#3", ["a", "b"], "#3"),
        ("#1", [""], "#1"),
        ("#12", ["a"], "#12"),
        ("#0 #100", ["a"], "#0 #100"),
        ("#1", {1: "x"}, "x"),
        ("#1's #2", {2: "y"}, "#1's y"),
    ],
)
def test_resolving(text: str, answers: object, resolved: str) -> None:
    assert resolve_references(text, answers) == resolved  # type: ignore[arg-type]


@given(st.lists(st.text(max_size=5).map(lambda t: f"#1#2{t}"), min_size=1, max_size=9))
def test_text_of_an_answer_is_never_a_reference(answers: list[str]) -> None:
    text = " ".join(f"#{i}" for i in range(1, len(answers) + 1))
    assert resolve_references(text, answers) == " ".join(answers)


@given(st.text())
def test_without_answers_nothing_changes(text: str) -> None:
    assert resolve_references(text, []) == text


def test_references_in_order_of_sight() -> None:
    assert references("#2 then #1, #2 and #10") == (2, 1, 10)
    assert references("no. 1") == ()
