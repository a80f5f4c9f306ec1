"""The plan grammar: eight plans, every other text named."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import GraphError, UsageError
from jade_graph.types import Plan
from jade_graph.workflow.plans import VIOLATIONS, PlanGrammar, jade_rule, no_closed_book_rewrite, workflow

GRAMMAR = PlanGrammar.of([jade_rule])
LEGAL = {"AG", "QR,AG", "R,AG", "QR,R,AG", "R,DS,AG", "QR,R,DS,AG", "QDS", "QDP"}


def test_the_language_is_the_papers_eight_plans() -> None:
    assert {str(p) for p in GRAMMAR.plans} == LEGAL


@pytest.mark.parametrize("plan", sorted(LEGAL))
def test_a_legal_plan_parses_in_any_case_and_spacing(plan: str) -> None:
    spaced = plan.lower().replace(",", " , ")
    parsed = GRAMMAR.parse(f" <WorkFlow> {spaced} </workflow>\n")
    assert parsed.violation is None
    assert str(parsed.value) == plan
    assert GRAMMAR.parse(workflow(plan)).value == Plan(tuple(plan.split(",")))


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("R,AG", "NO_TAG"),
        ("<workflow>R,AG", "NO_TAG"),
        ("", "NO_TAG"),
        ("sure: <workflow>R,AG</workflow>", "EXTRA_TEXT"),
        ("<workflow>R,AG</workflow><workflow>AG</workflow>", "EXTRA_TEXT"),
        ("<workflow>R,XX,AG</workflow>", "UNKNOWN"),
        ("<workflow>R,R,AG</workflow>", "DUPLICATE"),
        ("<workflow>AG,R</workflow>", "ORDER"),
        ("<workflow>R,QR,AG</workflow>", "ORDER"),
        ("<workflow>DS,AG</workflow>", "DS_WITHOUT_R"),
        ("<workflow>QR,DS,AG</workflow>", "DS_WITHOUT_R"),
        ("<workflow>QR,R,DS</workflow>", "NO_AG"),
        ("<workflow>R</workflow>", "NO_AG"),
        ("<workflow>QDS,AG</workflow>", "MIXED_DECOMPOSITION"),
        ("<workflow>QDS,QDP</workflow>", "MIXED_DECOMPOSITION"),
        ("<workflow>QDS,</workflow>", "EMPTY_ITEM"),
        ("<workflow>R,,AG</workflow>", "EMPTY_ITEM"),
        ("<workflow></workflow>", "EMPTY_ITEM"),
    ],
)
def test_an_illegal_plan_is_named(text: str, violation: str) -> None:
    parsed = GRAMMAR.parse(text)
    assert (parsed.value, parsed.violation) == (None, violation)


ITEMS = st.lists(st.sampled_from(["QDS", "QDP", "QR", "R", "DS", "AG", "", "X"]), max_size=6)


@given(ITEMS)
def test_legality_agrees_with_the_written_grammar(items: list[str]) -> None:
    by_hand = re.fullmatch(r"QDS|QDP|(QR,)?(R,(DS,)?)?AG", ",".join(items)) is not None
    parsed = GRAMMAR.parse(f"<workflow>{','.join(items)}</workflow>")
    assert (parsed.violation is None) == by_hand
    assert parsed.violation is None or parsed.violation in VIOLATIONS


@given(st.text())
def test_any_text_is_a_plan_or_a_named_violation(text: str) -> None:
    parsed = GRAMMAR.parse(text)
    assert (parsed.value is None) == (parsed.violation in VIOLATIONS)


def test_rules_add_and_remove_plans() -> None:
    grammar = PlanGrammar.of([jade_rule, no_closed_book_rewrite, lambda plans: plans | {Plan(("QE", "R", "AG"))}])
    assert "QR,AG" not in map(str, grammar.plans)
    assert grammar.parse("<workflow>QE,R,AG</workflow>").violation is None
    assert grammar.parse("<workflow>QE,AG</workflow>").violation == "NOT_ALLOWED"


def test_without_decomposition() -> None:
    assert {str(p) for p in GRAMMAR.without(frozenset({"QDS", "QDP"})).plans} == LEGAL - {"QDS", "QDP"}


@pytest.mark.parametrize(
    ("plan", "violation"),
    [
        ("QDS", "NOT_ALLOWED"),
        ("QDP,AG", "MIXED_DECOMPOSITION"),
        ("QDS,QDP", "MIXED_DECOMPOSITION"),
        ("QDS,", "EMPTY_ITEM"),
        ("R", "NO_AG"),
        ("QDX", "UNKNOWN"),
    ],
)
def test_what_a_limit_forbids_is_still_known(plan: str, violation: str) -> None:
    decomposers = frozenset({"QDS", "QDP"})
    restricted = GRAMMAR.without(decomposers)
    assert restricted.parse(f"<workflow>{plan}</workflow>").violation == violation
    again = restricted.without(frozenset({"DS"}))
    assert again.violation(("QDS",)) == "NOT_ALLOWED"
    assert again.violation(("R", "DS", "AG")) == "NOT_ALLOWED"
    assert PlanGrammar(restricted.plans, GRAMMAR.codes).violation(plan.split(",")) == violation


def test_no_plan_left_is_an_error() -> None:
    with pytest.raises(GraphError, match="GRAPH_NO_PLAN"):
        PlanGrammar.of([lambda plans: frozenset()])


def test_require_names_the_known_plans() -> None:
    assert str(GRAMMAR.require("qr, r,ag")) == "QR,R,AG"
    with pytest.raises(UsageError, match=r"PLAN_ILLEGAL.*DS_WITHOUT_R.*QDS"):
        GRAMMAR.require("DS,AG")
