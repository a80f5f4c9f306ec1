"""Demonstrations behind mistakes: the mistakes are legal, what is shown is right, and the oracle finds its way back."""

from __future__ import annotations

import pytest

from jade_graph.errors import DataError
from jade_graph.microworld import OraclePolicy, make_questions, make_world
from jade_graph.microworld.frames import UNKNOWN
from jade_graph.microworld.searching import NOTHING
from jade_graph.microworld.shown import Shown, demonstrations
from jade_graph.microworld.straying import Straying
from jade_graph.microworld.world import Difficulty, World
from jade_graph.types import Ask, Question, View


@pytest.fixture(scope="module")
def asked() -> tuple[World, tuple[Question, ...]]:
    world = make_world("train", 3, Difficulty(scale=0.1))
    return world, make_questions(world, 28, seed=3)


@pytest.fixture(scope="module", params=["m-ask", "search-r1"])
def strayed(request: pytest.FixtureRequest, asked: tuple[World, tuple[Question, ...]]) -> list[Shown]:
    return demonstrations(*asked, preset=request.param, straying=0.4, seed=1)


def test_the_same_seed_strays_alike_and_none_not_at_all(asked: tuple[World, tuple[Question, ...]]) -> None:
    some = [demonstrations(*asked, preset="m-ask", straying=0.4, seed=seed) for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2]
    assert demonstrations(*asked, preset="m-ask", straying=0.0) == demonstrations(*asked, preset="m-ask", seed=5)


def test_what_is_shown_for_a_prompt_does_not_depend_on_straying(
    asked: tuple[World, tuple[Question, ...]], strayed: list[Shown]
) -> None:
    preset = "search-r1" if strayed[0].role == "SR" else "m-ask"
    right = {(s.question_id, s.messages): s.action for s in demonstrations(*asked, preset=preset)}
    shared = [s for s in strayed if (s.question_id, s.messages) in right]
    assert shared
    assert len(shared) < len(strayed)  # some prompts stand behind a mistake
    assert all(right[s.question_id, s.messages] == s.action for s in shared)


def test_one_odd_question_ends_no_demonstrations(asked: tuple[World, tuple[Question, ...]]) -> None:
    world, questions = asked
    few = questions[:3]
    blank = Question("blank", " ")
    foreign = Question("foreign", "How many moons has Saturn, and why?", ("many",), metadata={"best_plan": "no plan"})
    left: list[dict[str, str]] = []
    shown = demonstrations(world, [few[0], blank, *few[1:], foreign], preset="jade", left_out=left)
    assert {one["id"] for one in left} >= {"blank"}
    assert [s for s in shown if s.question_id != "foreign"] == demonstrations(world, few, preset="jade")
    with pytest.raises(DataError, match="ORACLE_RUN"):
        demonstrations(world, [blank], preset="jade")


def test_it_errs_where_it_says(asked: tuple[World, tuple[Question, ...]]) -> None:
    world, questions = asked
    oracle = OraclePolicy(world, questions)
    policy = Straying(oracle, 1.0)
    question = next(q for q in questions if q.type == "2hop")
    view = View(question.question, question.question, "root", {"steps": (("a", UNKNOWN), ("b", UNKNOWN))})
    for role in ("KP", "KS", "KE", "KU", "KA"):
        ask = Ask(role, view, question.id)
        written = policy(ask)
        if written != oracle(ask):
            assert policy.righted[question.id, "0", role, 0] == oracle(ask)
    assert policy.righted
    never = Straying(oracle, 1.0)
    assert never(Ask("QR", view, question.id)) == oracle(Ask("QR", view, question.id))


def test_the_oracle_finds_what_is_known_wherever_it_stands(asked: tuple[World, tuple[Question, ...]]) -> None:
    world, questions = asked
    oracle = OraclePolicy(world, questions)
    question = next(q for q in questions if q.type == "2hop")

    def write(role: str, steps: tuple[tuple[str, str], ...], past: tuple[str, ...] = ()) -> str:
        memory = {"steps": steps, "asked": past}
        return oracle(Ask(role, View(question.question, question.question, "root", memory), question.id))

    whole = ((question.question, UNKNOWN),)
    first = write("KS", whole).removeprefix("<search>").removesuffix("</search>")
    bridge = question.decomposition[0].answer
    # Over the question itself, in the last place, or behind a search that found nothing: the second part is next.
    for steps in (((first, bridge),), ((question.question, NOTHING), (first, bridge))):
        second = write("KS", steps, (first,))
        assert second.startswith(f"<search>{bridge} ")
    query = second.removeprefix("<search>").removesuffix("</search>")
    known = ((query, question.answers[0]), (first, bridge))
    assert write("KA", known) == f"<final_answer>{question.answers[0]}</final_answer>"
    assert write("KS", known, (first, query)) == "<end>"
    assert write("KU", known) == "<add>t3</add>"
    assert write("KU", whole) == "<update>t1</update>"
