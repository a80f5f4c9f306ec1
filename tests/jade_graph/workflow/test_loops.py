"""Loops: what cannot run is refused when it is built; what runs is bounded, recorded and resumed like a plan's run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from jade_graph.errors import GraphError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.store import RunStore
from jade_graph.types import END, Effect, Limits, Message, Parsed, Preset, View
from jade_graph.workflow import loops


@dataclass(frozen=True)
class Guess:
    """Writes a guess; "stop" ends the loop, "split" tries what a loop does not allow."""

    code: str = "GU"
    name: str = "Guess"
    description: str = "guesses"
    kind: str = "executor"
    violations: tuple[str, ...] = ("EMPTY",)
    max_new_tokens: int = 20

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        return (Message("user", f"{view.question} {view.memory.get('guesses', ())}"),)

    def parse(self, text: str, view: View) -> Parsed:
        return Parsed({"answer": text}) if text else Parsed(None, "EMPTY")

    def fallback(self, text: str, view: View) -> dict[str, str]:
        return {"answer": "nothing"}

    def effect(self, value: Mapping[str, str], view: View) -> Effect:
        if value["answer"] == "split":
            return Effect(children=("one?",), order="serial")
        return Effect(memory={"guesses": (*(view.memory.get("guesses") or ()), value["answer"])})


@dataclass(frozen=True)
class Guessing:
    name: str = "guessing"
    parts: tuple[Any, ...] = (Guess(), "R")
    edges: tuple[tuple[str, str], ...] = (("GU", "R"), ("GU", END))
    turns: tuple[tuple[str, str], ...] = (("R", "GU"),)
    says: str = ""

    def after(self, code: str, view: View) -> str:
        if self.says == "raise":
            raise RuntimeError("lost the way")
        if code == "R":
            return self.says or "GU"
        return END if view.memory["guesses"][-1] == "stop" else "R"

    def answer(self, view: View) -> str:
        kept = [g for g in view.memory.get("guesses") or () if g not in ("stop", "none")]
        return kept[-1] if kept else ""


PRESET = Preset("guessing", "Guess until it is good", loop=Guessing(), limits={"rounds": 3})


def graph(scripted: Any, passages: Any, *guesses: str, loop: Guessing | None = None, **options: Any) -> JadeGraph:
    def guess(ask: Any) -> str:
        return guesses[min(len(ask.view.memory.get("guesses") or ()), len(guesses) - 1)]

    preset = replace(PRESET, loop=loop or PRESET.loop)
    return JadeGraph(scripted(GU=guess), preset=preset, retriever=passages, **options)


# --- checked when built -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"turns": (), "edges": (("GU", "R"), ("R", "GU"), ("GU", END))}, "GU -> R -> GU go round within a turn"),
        ({"edges": (("GU", "R"),)}, "no edge leads to the end"),
        ({"edges": (("GU", "XX"), ("GU", END))}, "names 'XX'"),
        ({"edges": (("GU", END),), "turns": (("R", "GU"),)}, "no way leads from 'GU' to 'R'"),
        ({"turns": ()}, "no edge leads on from 'R'"),
        ({"parts": (Guess(), "R", "R")}, "'R' stands in it twice"),
        ({"parts": (), "edges": (), "turns": ()}, "it has no parts"),
        ({"turns": (("R", "GU"), ("R", END))}, "the end begins no turn"),
    ],
)
def test_a_loop_that_cannot_run_is_not_built(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(GraphError, match="GRAPH_LOOP") as caught:
        loops.check(replace(Guessing(), **changes))
    assert told in str(caught.value)


def test_a_loop_fits_its_preset_or_is_refused(scripted: Any) -> None:
    planner = replace(Guess(), kind="planner")
    for preset, code in (
        (replace(PRESET, plan="R,AG"), "GRAPH_LOOP"),
        (replace(PRESET, loop=3), "GRAPH_LOOP"),
        (replace(PRESET, loop="no-such-loop"), "UNKNOWN_LOOP"),
        (replace(PRESET, loop=Guessing(parts=(planner, "R"))), "GRAPH_ROLE_KIND"),
        (replace(PRESET, penalties={"QX": -1.0}), "UNKNOWN_ROLE"),
    ):
        with pytest.raises((GraphError, UsageError), match=code):
            JadeGraph(scripted(), preset=preset)


def test_methods_without_a_loop_keep_their_hash_and_loops_have_their_own(scripted: Any, passages: Any) -> None:
    one, other = graph(scripted, passages, "a"), graph(scripted, passages, "a", loop=Guessing(says="R"))
    assert one.graph_hash != other.graph_hash
    longer = replace(PRESET, role_options={"GU": {"max_new_tokens": 5}})
    assert JadeGraph(scripted(GU="a"), preset=longer, retriever=passages).graph_hash != one.graph_hash


# --- run --------------------------------------------------------------------------------------------------------------
async def test_turns_are_rounds_and_steps_count_within_them(scripted: Any, passages: Any) -> None:
    run = await graph(scripted, passages, "a", "b", "stop").arun("Who?")
    assert (run.status, run.answer, run.plan) == ("answered", "b", "guessing")
    placed = [(t.role, t.round, t.step) for t in run.transitions]
    assert placed == [("GU", 1, 1), ("R", 1, 2), ("GU", 2, 1), ("R", 2, 2), ("GU", 3, 1)]
    assert (run.counters.rounds, run.counters.retrievals, run.counters.calls) == (3, 2, 3)
    assert {t.trace_node for t in run.transitions} == {"0"}


@pytest.mark.parametrize(("rounds", "calls"), [(1, 1), (2, 2), (5, 5)])
async def test_without_rounds_the_answer_in_hand_is_the_answer(
    scripted: Any, passages: Any, rounds: int, calls: int
) -> None:
    run = await graph(scripted, passages, *"abcdefg").arun("Who?", limits=Limits(rounds=rounds))
    assert (run.status, run.answer, run.counters.calls) == ("answered", "abcdefg"[calls - 1], calls)


async def test_what_ends_a_run_has_its_name(scripted: Any, passages: Any) -> None:
    async def error(*guesses: str, limits: Limits | None = None, **changes: Any) -> Any:
        made = graph(scripted, passages, *guesses, loop=Guessing(**changes))
        run = await made.arun("Who?", limits=limits)
        assert run.status == "failed"
        return run.error

    assert await error("none") == "LIMIT_ROUNDS"
    assert await error("stop") == "NO_ANSWER"
    assert await error("a", says="raise") == "LOOP_ERROR"
    assert await error("a", says="QR") == "LOOP_ERROR"  # an edge that is not there
    assert await error("split") == "LOOP_ERROR"
    assert await error("a", limits=Limits(tokens=5)) == "LIMIT_TOKENS"
    assert await error("a", limits=Limits(deadline_s=0)) == "LIMIT_DEADLINE"


async def test_a_loop_takes_no_plan(scripted: Any, passages: Any) -> None:
    with pytest.raises(UsageError, match="PLAN_ILLEGAL"):
        await graph(scripted, passages, "a").arun("Who?", plan="R,AG")


# --- checkpoints and forks --------------------------------------------------------------------------------------------
async def test_a_loop_resumes_from_any_checkpoint_in_another_graph(scripted: Any, passages: Any) -> None:
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "t"}}
    guesses = ("a", "b", "stop")
    out = await graph(scripted, passages, *guesses, checkpointer=saver).graph.ainvoke({"question": "Who?"}, config)
    history = [
        s async for s in graph(scripted, passages, *guesses, checkpointer=saver).graph.aget_state_history(config)
    ]
    assert len(history) > 6
    for snapshot in history[1:-1]:
        other = graph(scripted, passages, *guesses, checkpointer=saver)
        resumed = await other.graph.ainvoke(None, snapshot.config)
        assert (resumed["status"], resumed["answer"]) == ("answered", out["answer"]) == ("answered", "b")


async def test_resuming_elsewhere_keeps_record_and_rounds(scripted: Any, passages: Any, tmp_path: Any) -> None:
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    with RunStore(tmp_path / "runs.db") as store:
        first = graph(scripted, passages, "a", "b", "stop", checkpointer=saver, recorder=store)
        await first.graph.ainvoke({"question": "Who?", "run_id": "R"}, config, interrupt_after=["R"])
        other = graph(scripted, passages, "a", "b", "stop", checkpointer=saver, recorder=store)
        await other.graph.ainvoke(None, config)
        await store.flushed()
        run = store.get("R")
    assert (run.answer, run.attempt, run.counters.rounds, run.counters.retrievals) == ("b", 1, 3, 2)
    assert [(t.seq, t.role, t.round) for t in run.transitions] == [
        (0, "GU", 1), (1, "R", 1), (2, "GU", 2), (3, "R", 2), (4, "GU", 3)
    ]  # fmt: skip


async def test_a_fork_replays_turns_and_parts_at_an_action(scripted: Any, passages: Any) -> None:
    made = graph(scripted, passages, "a", "b", "stop")
    run = await made.arun("Who?")
    asked = len(passages.queries)
    forked = await made.afork(run, at=2, text="c")
    assert (forked.answer, forked.status) == ("c", "answered")
    assert [t.action_text for t in forked.transitions if t.role == "GU"] == ["a", "c", "stop"]
    assert forked.transitions[0].action_token_ids == run.transitions[0].action_token_ids
    assert [t.agent_trainable for t in forked.transitions if t.role == "GU"] == [False, False, True]
    assert len(passages.queries) == asked + 1  # the first search comes from the record
