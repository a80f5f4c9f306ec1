"""Tokens of a run: what is shown is the answer, and what is not is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.types import END, Effect, Event, Message, Parsed, Preset, Thought, View
from jade_graph.workflow import speech as module
from jade_graph.workflow import tags
from jade_graph.workflow.speech import Speech, beginning
from jade_nodes.answering import parse_answer, raw_answer

PIECES = st.sampled_from(
    [
        "<answer>",
        "</answer>",
        "<Answer>",
        "</ANSWER>",
        "<",
        "</",
        "answer>",
        "<b>",
        " ",
        "\n",
        "\u2028",
        "Ann",
        "Lee ",
        "é",
    ]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def shown(events: Sequence[Event]) -> str:
    """What a client that heeds the events shows."""
    said = ""
    for event in events:
        said = "" if event.kind == "retract" else said + event.text
    return said


@given(TEXTS)
def test_what_is_certain_of_an_answer_never_changes_while_it_is_written(text: str) -> None:
    """Every beginning of the text shows a beginning of what the next one shows, or something that has begun anew
    behind a tag that was empty."""
    said = [beginning(text[:n], "answer") for n in range(len(text) + 1)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(said))


@given(TEXTS)
def test_a_legal_action_has_been_shown_whole(text: str) -> None:
    parsed = parse_answer(text, 40)
    if parsed.value is not None:
        assert beginning(text, "answer") == parsed.value


@given(TEXTS)
def test_a_tagged_answer_is_what_the_fallback_takes(text: str) -> None:
    if any(tags.find(text, "answer").texts):
        assert beginning(text, "answer") == raw_answer(text)


@given(TEXTS, st.text("Ane ", max_size=9))
def test_whatever_was_said_the_answer_is_shown_in_the_end(text: str, answer: str) -> None:
    events: list[Event] = []
    speech = Speech("run", events.append)
    hear = speech.hearing("answer", None, ())
    assert hear is not None
    for letter in text:
        hear(letter)
    speech.settle(answer)
    assert shown(events) == answer == speech.said


def test_a_long_text_is_read_now_and_then_and_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(module, "beginning", lambda text, tag: read.append(len(text)) or beginning(text, tag))
    shown: list[Event] = []
    said = Speech("r", shown.append)
    hear = said.hearing("answer", None, ())
    assert hear is not None
    whole = "<answer>" + "word " * 6000
    for letter in whole:
        hear(letter)
    assert sum(read) < 100 * len(whole)  # once for every letter it would be half the square
    said.settle(" ".join(whole[8:].split()))
    assert "".join(event.text for event in shown) == " ".join(whole[8:].split())


def test_a_thought_is_no_part_of_the_answer() -> None:
    events: list[Event] = []
    thought = Thought("<think>", "</think>", opened=True)
    hear = Speech("run", events.append).hearing("answer", thought, ())
    assert hear is not None
    for letter in "perhaps <answer>Bo</answer>, no.</think><answer>Ann Lee</answer>":
        hear(letter)
    assert shown(events) == "Ann Lee"
    assert all(event.kind == "token" for event in events)


# --- runs -------------------------------------------------------------------------------------------------------------
async def heard(graph: JadeGraph, question: str = "who?", **options: Any) -> tuple[list[Event], Any]:
    events: list[Event] = []
    run = await graph.arun(question, on_event=events.append, tokens=True, **options)
    return events, run


def tokens(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.kind in ("token", "retract")]


@pytest.mark.parametrize(
    ("plan", "role", "answer"),
    [("R,AG", "AG", "Ann Lee"), ("AG", "AG", "Ann Lee"), ("QDS", "AS", "1950"), ("QDP", "AS", "1950")],
)
async def test_the_answering_role_alone_is_heard(
    scripted: Any, passages: Any, plan: str, role: str, answer: str
) -> None:
    backbone = scripted(PL=lambda ask: f"<workflow>{'R,AG' if ask.view.depth else plan}</workflow>")
    events, run = await heard(JadeGraph(backbone, retriever=passages))
    told = tokens(events)
    assert run.answer == answer
    assert "".join(event.text for event in told) == answer
    assert {(event.kind, event.role, event.trace_node, event.run_id) for event in told} == {
        ("token", role, "0", run.id)
    }
    assert len(told) > 1
    assert events[-1].kind == "end"


async def test_who_does_not_ask_for_tokens_gets_none_and_nobody_makes_any(passages: Any, scripted: Any) -> None:
    asked: list[Any] = []

    class Spied(ScriptedBackbone):
        async def generate(self, *args: Any, **more: Any) -> Any:
            asked.append(more.get("watch"))
            return await super().generate(*args, **more)

    backbone = Spied(lambda ask: {"PL": "<workflow>R,AG</workflow>", "AG": "<answer>Ann</answer>"}[ask.role])
    graph, events = JadeGraph(backbone, retriever=passages), list[Event]()
    await graph.arun("who?", on_event=events.append)
    await graph.arun("who?")
    await graph.ainvoke("who?")
    assert asked
    assert not any(asked)
    assert not tokens(events)
    await heard(graph)
    assert [watch is not None for watch in asked[-2:]] == [False, True]  # the planner is nobody's business


@pytest.mark.parametrize(
    ("action", "first"),
    [("It is <answer>Ann Lee", "Ann Lee"), ("<answer>Ann</answer> but <answer> </answer>", "Ann"), ("Ann Lee", "")],
)
async def test_what_an_illegal_action_showed_is_taken_back_where_the_fallback_says_otherwise(
    scripted: Any, passages: Any, action: str, first: str
) -> None:
    events, run = await heard(JadeGraph(scripted(AG=action), retriever=passages))
    told = tokens(events)
    assert run.transitions[-1].violation
    assert shown(told) == run.answer == raw_answer(action)
    kinds = [event.kind for event in told]
    assert ("retract" in kinds) is bool(first and not run.answer.startswith(first))
    if "retract" in kinds:
        assert "".join(event.text for event in told[: kinds.index("retract")]) == first


async def test_a_run_that_fails_takes_back_what_it_said(passages: Any) -> None:
    class Broken(ScriptedBackbone):
        async def generate(self, *args: Any, watch: Any = None, **more: Any) -> Any:
            if watch is not None:
                watch("<answer>Ann")
                raise ZeroDivisionError
            return await super().generate(*args, **more)

    events, run = await heard(JadeGraph(Broken(lambda ask: "<workflow>R,AG</workflow>"), retriever=passages))
    assert (run.status, run.error) == ("failed", "ROLE_ERROR")
    assert [event.kind for event in tokens(events)] == ["token", "retract"]


async def test_two_runs_at_once_do_not_mix(scripted: Any, passages: Any) -> None:
    backbone = scripted(AG=lambda ask: f"<answer>{ask.view.question} it is, and no other</answer>")
    graph = JadeGraph(backbone, retriever=passages)
    names = [f"name {n}" for n in range(6)]
    for name, (events, run) in zip(names, await asyncio.gather(*(heard(graph, name) for name in names)), strict=True):
        assert shown(tokens(events)) == run.answer == f"{name} it is, and no other"
        assert {event.run_id for event in events} == {run.id}


async def test_a_backbone_that_streams_nothing_answers_in_one_piece(scripted: Any, passages: Any) -> None:
    backbone = scripted()
    backbone.streams = False
    events, run = await heard(JadeGraph(backbone, retriever=passages))
    assert [event.text for event in tokens(events)] == [run.answer]


async def test_an_action_that_is_carried_out_again_is_told_too(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages)
    run = await graph.arun("who?")
    events: list[Event] = []
    fork = await graph.afork(run, at="0:AG", answer="Bo", on_event=events.append, tokens=True)
    assert (fork.answer, shown(tokens(events))) == ("Bo", "Bo")


# --- loops, and roles that name nothing -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Guess:
    """Writes guesses; knows nothing of tags that are shown."""

    code: str = "GU"
    name: str = "Guess"
    description: str = "guesses"
    kind: str = "executor"
    violations: tuple[str, ...] = ()
    max_new_tokens: int = 40

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        return (Message("user", view.question),)

    def parse(self, text: str, view: View) -> Parsed:
        return Parsed(text)

    def fallback(self, text: str, view: View) -> str:
        return "nothing"

    def effect(self, value: str, view: View) -> Effect:
        return Effect(memory={"guesses": (*(view.memory.get("guesses") or ()), value.strip("<>/answer"))})


@dataclass(frozen=True)
class Tagged(Guess):
    answer_tag: str = "answer"


@dataclass(frozen=True)
class Guessing:
    role: Any = field(default_factory=Guess)
    name: str = "guessing"
    edges: tuple[tuple[str, str], ...] = (("GU", "R"), ("GU", END))
    turns: tuple[tuple[str, str], ...] = (("R", "GU"),)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.role, "R")

    def after(self, code: str, view: View) -> str:
        return "GU" if code == "R" else END if len(view.memory["guesses"]) == 2 else "R"

    def answer(self, view: View) -> str:
        return str(view.memory["guesses"][-1])


@pytest.mark.parametrize("role", [Guess(), Tagged()])
async def test_a_loops_answer_is_shown_and_an_earlier_one_taken_back(scripted: Any, passages: Any, role: Any) -> None:
    preset = Preset("guessing", "Guess twice", loop=Guessing(role), limits={"rounds": 3})

    def guess(ask: Any) -> str:
        return "<answer>Jim Dill</answer>" if ask.view.memory.get("guesses") else "<answer>Bob Low</answer>"

    events, run = await heard(JadeGraph(scripted(GU=guess), preset=preset, retriever=passages))
    told = tokens(events)
    assert run.answer == "Jim Dill" == shown(told)
    kinds = [event.kind for event in told]
    assert kinds.count("retract") == (1 if isinstance(role, Tagged) else 0)
    if isinstance(role, Tagged):
        assert "".join(event.text for event in told[: kinds.index("retract")]) == "Bob Low"


async def test_search_r1_shows_its_answer_and_none_of_its_searches(scripted: Any, passages: Any) -> None:
    def act(ask: Any) -> str:
        if not ask.view.memory.get("turns") and not ask.view.memory.get("queries"):
            return "<think>hm</think><search>annals</search>"
        return "<think>she is it</think><answer>Ann Lee</answer>"

    events, run = await heard(JadeGraph(scripted(SR=act), preset="search-r1", retriever=passages))
    assert run.answer == "Ann Lee" == shown(tokens(events))
    assert all(event.kind == "token" for event in tokens(events))
