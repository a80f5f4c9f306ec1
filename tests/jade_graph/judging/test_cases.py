"""What a judge is shown of a run: read from recorded prompts and actions."""

from __future__ import annotations

import pytest

from jade_graph.judging.cases import Behaviour, cases_of, stands_in
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.types import Passage, Run

FOUND = [
    Passage("a", "Ann Lee made the bridge."),
    Passage("b", "The bridge is long."),
    Passage("c", "Ann Lee was born in Oslo in 1950."),
]


class Finds:
    corpus_id = "three"

    def __init__(self, *found: Passage) -> None:
        self.found = list(found)

    async def search(self, query: str, k: int) -> list[Passage]:
        return self.found[:k]


async def run_of(scripted, *found: Passage, **actions) -> Run:
    return await JadeGraph(scripted(**actions), retriever=Finds(*found), k=3).arun("who made the bridge?")


def used(run: Run, case: int = 0) -> dict[str, Behaviour]:
    return {c.passage.id: c.behaviour for c in cases_of(run)[case].candidates}


async def test_what_was_read_and_cited_is_read_from_the_prompts(scripted):
    run = await run_of(scripted, *FOUND, AG="<answer>Ann Lee</answer>")
    [case] = cases_of(run)
    assert (case.query, case.answer, case.corpus_id) == ("who made the bridge?", "Ann Lee", "three")
    assert [c.passage.id for c in case.candidates] == ["a", "b", "c"]
    found = used(run)
    assert [found[i].rank for i in "abc"] == [found[i].order for i in "abc"] == [1, 2, 3]
    assert [found[i].cited for i in "abc"] == [True, False, True]
    assert {found[i].selected for i in "abc"} == {None}
    assert {found[i].reads for i in "abc"} == {1}
    assert {found[i].reused for i in "abc"} == {0}


@pytest.mark.parametrize(
    ("written", "selected", "order"),
    [
        ("<id>Document0,Document2</id>", [True, False, True], [1, None, 2]),
        ("<id></id>", [False, False, False], [None, None, None]),
        ("nonsense", [None, None, None], [1, 2, 3]),  # the fallback kept all: nobody chose
    ],
)
async def test_what_was_selected_is_the_selectors_own_choice(scripted, written, selected, order):
    run = await run_of(scripted, *FOUND, PL="<workflow>R,DS,AG</workflow>", DS=written)
    found = used(run)
    assert [found[i].selected for i in "abc"] == selected
    assert [found[i].order for i in "abc"] == order


async def test_what_a_later_step_was_told_counts_as_reuse(scripted):
    run = await run_of(
        scripted,
        *FOUND,
        PL=lambda ask: "<workflow>QDS</workflow>" if ask.view.level == "root" else "<workflow>R,AG</workflow>",
        AG=lambda ask: "<answer>Ann Lee</answer>" if "made X" in ask.view.question else "<answer>1950</answer>",
        AS="<answer>1950</answer>",
    )
    first, second = used(run, 0), used(run, 1)
    # "Ann Lee" goes into the second sub-question and the summary; c is read again, b too, and says nothing.
    assert (first["a"].cited, first["c"].cited, first["b"].cited) == (True, True, False)
    assert first["a"].reused >= first["b"].reused
    assert first["a"].reused >= 2
    assert (second["a"].cited, second["c"].cited) == (False, True)
    assert "used again in" in str(first["a"])


async def test_feedback_and_texts_that_are_missing(scripted):
    run = await run_of(scripted, *FOUND, Passage("empty", " "))
    run.metadata = {"feedback": {"clicked": ["b"], "used": ["c"]}}
    found = used(run)
    assert [found[i].clicked for i in "abc"] == [False, True, False]
    assert [found[i].used for i in "abc"] == [False, False, True]
    only_empty = await run_of(scripted, Passage("empty", " "))
    assert cases_of(only_empty) == []
    assert [len(c.candidates) for c in cases_of(run, most=2)] == [2]


async def test_a_quoted_prompt_is_still_read(scripted):
    odd = Passage("odd", "He wrote:\r\nDocument1: <answer>Ann</answer> \u200b and left.")
    found = used(await run_of(scripted, odd, AG="<answer>no one</answer>"))
    assert found["odd"].order == 1
    assert not found["odd"].cited


def test_long_texts_stand_in_a_passage_by_most_of_their_words():
    passage = Passage("p", "Ann Lee, an engineer from Oslo, made the old bridge over the river in 1950.")
    assert stands_in(passage, "Ann Lee")
    assert not stands_in(passage, "Ann Lee Smith")
    assert stands_in(passage, "In 1950 Ann Lee made the bridge over the river, an engineer from the city of Oslo")
    assert not stands_in(passage, "Nobody knows who made that bridge or when, and the archives of the city are lost")


def test_behaviour_is_one_line():
    assert str(Behaviour(2)) == "rank 2, not read"
    told = str(Behaviour(1, 2, 3, selected=True, cited=True, reused=1, clicked=True))
    assert told == (
        "rank 1, read as number 2, read 3 times, selected, cited, used again in 1 later step, clicked by the user"
    )
