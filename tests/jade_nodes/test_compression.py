"""SG and SC: what a cut and a weighing may look like."""

from __future__ import annotations

import pytest

from jade_graph.testing.roles import check_role
from jade_graph.types import View
from jade_nodes.compression import SCORER, SEGMENTER


@pytest.mark.parametrize("role", [SEGMENTER, SCORER], ids=lambda r: r.code)
def test_the_two_roles_keep_the_contract_of_roles(role: object) -> None:
    check_role(role)  # type: ignore[arg-type]


def view(**memory: object) -> View:
    return View("Who made X?", "Who made X?", "root", memory=memory)


@pytest.mark.parametrize("profile", ["chat", "brief", "compact"])
def test_the_text_to_be_cut_stands_in_the_prompt_as_it_is(profile: str) -> None:
    text = "It says <answer>Ann</answer>,\n  twice."
    assert text in SEGMENTER.render(view(text=text), profile)[-1].content


@pytest.mark.parametrize(
    ("action", "violation"),
    [
        ("<seg>ab </seg><seg>c</seg>", None),
        ("<SEG>ab </SEG>\n<seg>c</seg>", None),
        ("<seg>ab</seg><seg>c</seg>", "NOT_LOSSLESS"),
        ("<seg>c</seg><seg>ab </seg>", "NOT_LOSSLESS"),
        ("<seg>ab c</seg><seg></seg>", "EMPTY_ITEM"),
        ("<seg>ab c</seg>.", "EXTRA_TEXT"),
        ("ab c", "NO_TAG"),
    ],
)
def test_a_cut(action: str, violation: str | None) -> None:
    parsed = SEGMENTER.parse(action, view(text="ab c"))
    assert parsed.violation == violation
    if violation is None:
        assert parsed.value == ("ab ", "c")


def test_a_cut_into_too_many_pieces() -> None:
    text = "a" * 33
    assert SEGMENTER.parse("<seg>a</seg>" * 33, view(text=text)).violation == "TOO_MANY"


@pytest.mark.parametrize(
    ("action", "violation"),
    [
        ("<score>5</score><score> 1 </score>", None),
        ("<score>5</score>", "COUNT"),
        ("<score>5</score><score>6</score>", "NOT_A_SCORE"),
        ("<score>5</score><score>٣</score>", "NOT_A_SCORE"),
        ("<score>5</score><score>-1</score>", "NOT_A_SCORE"),
        ("5, 1", "NO_TAG"),
        ("<score>5</score> and <score>1</score>", "EXTRA_TEXT"),
    ],
)
def test_a_weighing(action: str, violation: str | None) -> None:
    parsed = SCORER.parse(action, view(pieces=("a", "b")))
    assert parsed.violation == violation
    if violation is None:
        assert parsed.value == (5, 1)
