"""M-ASK's roles and Search-R1's: the contract, legal formats, fallbacks and what they do to the state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jade_graph.testing.roles import check_role
from jade_graph.types import Counters, Limits, Passage, Role, View
from jade_nodes.m_ask.answer import ANSWER
from jade_nodes.m_ask.knowledge import NOTHING
from jade_nodes.m_ask.plan import PLAN
from jade_nodes.m_ask.search import SEARCH
from jade_nodes.m_ask.summary import SUMMARY
from jade_nodes.m_ask.update import UPDATE
from jade_nodes.search_r1 import ROLE as MONOLITH

ROLES: tuple[Role, ...] = (PLAN, SEARCH, SUMMARY, UPDATE, ANSWER, MONOLITH)
ROOT = View("Who made X?", "Who made X?", "root")
STEPS = (("who made X?", "unknown"), ("when was #1 born?", "unknown"))
KNOWN = replace(ROOT, memory={"steps": STEPS, "predicted": "Bob", "asked": ("x",), "queries": ("X maker",)})
LONG = "word " * 101
ONE = "<q1>a?</q1><a1>b</a1>"
END_ANSWER = "<final_answer>c</final_answer>"


@pytest.mark.parametrize("role", ROLES, ids=lambda r: r.code)
def test_the_roles_keep_the_contract(role: Role) -> None:
    check_role(role)


def outcome(role: Role, text: str, view: View) -> tuple[Any, str | None]:
    parsed = role.parse(text, view)
    return (parsed.value if parsed.value is not None else role.fallback(text, view)), parsed.violation


@pytest.mark.parametrize(
    ("text", "steps", "answer", "violation"),
    [
        (ONE + END_ANSWER, (("a?", "b"),), "c", None),
        (f"{ONE}\n<Q2>d  #1?</Q2><A2>unknown</A2> {END_ANSWER}", (("a?", "b"), ("d #1?", "unknown")), "c", None),
        (END_ANSWER, (("Who made X?", "unknown"),), "c", "NO_TAG"),
        (ONE, (("a?", "b"),), "unknown", "NO_FINAL"),
        (f"so {ONE}{END_ANSWER}", (("a?", "b"),), "c", "EXTRA_TEXT"),
        (ONE + END_ANSWER * 2, (("a?", "b"),), "c", "MULTIPLE"),
        (f"<q1>a?</q1><a1> </a1>{END_ANSWER}", (("a?", "unknown"),), "c", "EMPTY_ITEM"),
        (f"<q1>a?</q1>{END_ANSWER}", (("a?", "unknown"),), "c", "ORDER"),
        (f"<a1>b</a1><q1>a?</q1>{END_ANSWER}", (("a?", "b"),), "c", "ORDER"),
        (END_ANSWER + ONE, (("a?", "b"),), "c", "ORDER"),
        (ONE + "<q3>d?</q3><a3>e</a3>" + END_ANSWER, (("a?", "b"), ("d?", "e")), "c", "ORDER"),
        ("".join(f"<q{i}>s{i}</q{i}><a{i}>u</a{i}>" for i in range(1, 7)) + END_ANSWER,
         tuple((f"s{i}", "u") for i in range(1, 6)), "c", "TOO_MANY"),
    ],
)  # fmt: skip
def test_plan(text: str, steps: Any, answer: str, violation: str | None) -> None:
    assert outcome(PLAN, text, ROOT) == ({"steps": steps, "answer": answer}, violation)
    effect = PLAN.effect({"steps": steps, "answer": answer}, ROOT)
    assert (effect.memory["steps"], effect.memory["predicted"]) == (steps, answer)


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("<search>X  maker</search>", {"search": "X maker"}, None),
        (" <END> ", {"end": True}, None),
        ("X maker", {"search": "X maker"}, "NO_TAG"),
        ("", {"end": True}, "NO_TAG"),
        ("<search>a</search><end>", {"search": "a"}, "MULTIPLE"),
        ("<search>a</search><search>b</search>", {"search": "a"}, "MULTIPLE"),
        ("so <search>a</search>", {"search": "a"}, "EXTRA_TEXT"),
        ("enough <end>", {"end": True}, "EXTRA_TEXT"),
        ("<search> </search>", {"end": True}, "EMPTY_ITEM"),
        (f"<search>{LONG}</search>", {"search": ("word " * 100).strip()}, "TOO_LONG"),
    ],
)
def test_search(text: str, value: Any, violation: str | None) -> None:
    assert outcome(SEARCH, text, KNOWN) == (value, violation)


def test_a_query_is_remembered_and_an_end_is_told() -> None:
    effect = SEARCH.effect({"search": "y"}, KNOWN)
    assert (effect.memory["queries"], effect.memory["asked"]) == (("y",), ("x", "y"))
    assert SEARCH.effect({"end": True}, KNOWN).memory == {"ended": True}


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("<evidence>Ann  Lee made X.</evidence>", "Ann Lee made X.", None),
        ("no useful information.", NOTHING, None),
        ("Ann Lee", "Ann Lee", "NO_TAG"),
        ("", NOTHING, "NO_TAG"),
        ("well <evidence>a</evidence>", "a", "EXTRA_TEXT"),
        ("<evidence>a</evidence><evidence>b</evidence>", "a", "MULTIPLE"),
        (f"<evidence>{LONG}</evidence>", ("word " * 75).strip(), "TOO_LONG"),
    ],
)
def test_summary(text: str, value: str, violation: str | None) -> None:
    assert outcome(SUMMARY, text, KNOWN) == (value, violation)


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("<update>t2</update>", {"update": 2}, None),
        ("<add>T3</add>", {"add": 3}, None),
        ("t1", {"add": 3}, "NO_TAG"),
        ("<update>t3</update>", {"add": 3}, "OUT_OF_RANGE"),
        ("<add>t1</add>", {"add": 3}, "OUT_OF_RANGE"),
        ("<update>one</update>", {"add": 3}, "BAD_ITEM"),
        ("<update>t1</update><add>t3</add>", {"add": 3}, "MULTIPLE"),
        ("ok <update>t1</update>", {"add": 3}, "EXTRA_TEXT"),
    ],
)
def test_update(text: str, value: Any, violation: str | None) -> None:
    assert outcome(UPDATE, text, KNOWN) == (value, violation)


def test_evidence_overwrites_one_step_or_is_added() -> None:
    view = replace(KNOWN, memory={**KNOWN.memory, "evidence": "Ann"})
    assert UPDATE.effect({"update": 1}, view).memory["steps"] == (("X maker", "Ann"), STEPS[1])
    assert UPDATE.effect({"add": 3}, view).memory["steps"] == (*STEPS, ("X maker", "Ann"))


def test_answer() -> None:
    assert outcome(ANSWER, END_ANSWER, KNOWN) == ({"answer": "c"}, None)
    assert outcome(ANSWER, "c d", KNOWN) == ({"answer": "c d"}, "NO_TAG")
    assert outcome(ANSWER, f"so {END_ANSWER}", KNOWN) == ({"answer": "c"}, "EXTRA_TEXT")
    assert outcome(ANSWER, "<final_answer></final_answer>", KNOWN) == ({"answer": "unknown"}, "EMPTY_ITEM")
    assert ANSWER.effect({"answer": "c"}, KNOWN).answer is None  # the loop says when it is final


LAST = replace(ROOT, counters=Counters(rounds=4), limits=Limits(rounds=4))


@pytest.mark.parametrize(
    ("text", "view", "value", "violation"),
    [
        ("<search>q</search>", ROOT, {"search": "q"}, None),
        ("<think>hm  so</think> <answer>Ann</answer>", ROOT, {"think": "hm so", "answer": "Ann"}, None),
        ("<search>q</search>", LAST, {"answer": "q"}, "NOT_ALLOWED"),
        ("Ann", ROOT, {"answer": "Ann"}, "NO_TAG"),
        ("<search>q</search><answer>a</answer>", ROOT, {"search": "q"}, "MULTIPLE"),
        ("so <think>x</think><search>q</search>", ROOT, {"search": "q"}, "EXTRA_TEXT"),
    ],
)
def test_monolith(text: str, view: View, value: Any, violation: str | None) -> None:
    assert outcome(MONOLITH, text, view) == (value, violation)


@pytest.mark.parametrize("profile", ["chat", "compact"])
def test_the_monoliths_context_only_grows(profile: str) -> None:
    view, seen = ROOT, ""
    for query in ("first", "second"):
        memory = {**view.memory, **MONOLITH.effect({"search": query, "think": f"I want {query}"}, view).memory}
        view = replace(view, memory={**memory, "documents": (Passage(query, f"found by {query}"),)})
        prompt = MONOLITH.render(view, profile)[-1].content
        for text in ("first", "found by first", *(("second", "found by second") if query == "second" else ())):
            assert text in prompt
        assert len(prompt) > len(seen)
        seen = prompt
