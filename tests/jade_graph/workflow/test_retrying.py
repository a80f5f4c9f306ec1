"""Searches that fail are tried again, by LangGraph's policy, on both ways that a run can take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import RetryPolicy

from jade_graph import JadeGraph, Limits, Passage, Run, RunStore, Transition
from jade_graph.errors import RetrievalError
from jade_graph.workflow.replay import Replay
from jade_graph.workflow.retrying import RETRY, another, tried

THROUGH_LANGGRAPH = {"max_concurrency": 64}
QUICK = RetryPolicy(initial_interval=0.0, max_attempts=3, jitter=False, retry_on=RETRY.retry_on)


class Shaky:
    """Fails the first `fails` searches of each query."""

    corpus_id = "shaky"

    def __init__(self, fails: int, error: Exception | None = None) -> None:
        self.fails, self.error = fails, error or RetrievalError("away for a moment", code="RETRIEVER_FAILED")
        self.asked: dict[str, int] = {}

    async def search(self, query: str, k: int) -> list[Passage]:
        self.asked[query] = self.asked.get(query, 0) + 1
        if self.asked[query] <= self.fails:
            raise self.error
        return [Passage("p", f"about {query}")]


def record(run: Run) -> tuple[Any, ...]:
    rows = [replace(t, run_id="", started_ms=0, latency_ms=0, queue_ms=0) for t in run.transitions]
    return rows, run.trace, run.answer, run.status, run.error, run.error_message, run.counters


async def both_ways(scripted: Any, shaky: Any, **options: Any) -> Run:
    """The run, which is the same whoever carries it out."""
    backbone = scripted(PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'R,AG'}</workflow>")
    runs = []
    for config in (None, THROUGH_LANGGRAPH):
        graph = JadeGraph(backbone, retriever=shaky(), **{"retry_policy": QUICK, **options})
        runs.append(await graph.arun("Compare them?", config=config))
        assert not graph.engine.contexts.running
    assert record(runs[0]) == record(runs[1])
    return runs[0]


async def test_an_action_that_succeeds_at_the_third_try_is_one_transition(scripted: Any) -> None:
    run = await both_ways(scripted, lambda: Shaky(2))
    assert run.status == "answered", run.error_message
    searches = [t for t in run.transitions if t.role == "R"]
    assert [(t.error, len(t.parsed["documents"])) for t in searches] == [(None, 1), (None, 1)]
    assert [t.seq for t in run.transitions] == list(range(len(run.transitions)))
    assert run.counters.retrievals == 2


async def test_after_the_last_try_the_run_fails_by_the_name_of_the_error(scripted: Any) -> None:
    run = await both_ways(scripted, lambda: Shaky(3))
    assert (run.status, run.error) == ("failed", "RETRIEVER_FAILED")
    assert "away for a moment" in run.error_message
    assert [t.error for t in run.transitions if t.role == "R"] == ["RETRIEVER_FAILED"] * 2


@pytest.mark.parametrize(
    ("error", "name"),
    [(RetrievalError("gone", code="NO_CORPUS"), "NO_CORPUS"), (ConnectionError("reset"), "TOOL_ERROR")],
)
async def test_what_another_try_would_not_mend_is_not_tried_again(scripted: Any, error: Exception, name: str) -> None:
    made: list[Shaky] = []

    def shaky() -> Shaky:
        made.append(Shaky(1, error))
        return made[-1]

    run = await both_ways(scripted, shaky)
    assert (run.status, run.error) == ("failed", name)
    assert [set(each.asked.values()) for each in made] == [{1}, {1}]


async def test_a_policy_of_ones_own_says_what_is_tried_again(scripted: Any) -> None:
    for wanted in (ConnectionError, (ConnectionError, OSError), lambda e: isinstance(e, ConnectionError)):
        policy = RetryPolicy(initial_interval=0.0, max_attempts=2, jitter=False, retry_on=wanted)
        run = await both_ways(scripted, lambda: Shaky(1, ConnectionError("reset")), retry_policy=policy)
        assert run.status == "answered", run.error_message
        run = await both_ways(scripted, lambda: Shaky(2, ConnectionError("reset")), retry_policy=policy)
        assert run.error == "TOOL_ERROR"


async def test_tries_are_bounded_by_the_one_deadline(scripted: Any) -> None:
    policy = RetryPolicy(initial_interval=0.2, max_attempts=1000, jitter=False, retry_on=RetrievalError)
    for config in (None, THROUGH_LANGGRAPH):
        shaky = Shaky(1000)
        graph = JadeGraph(
            scripted(PL="<workflow>R,AG</workflow>"),
            retriever=shaky,
            retry_policy=policy,
            limits=Limits(deadline_s=0.5),
        )
        run = await graph.arun("who?", config=config)
        assert (run.status, run.error) == ("failed", "LIMIT_DEADLINE")
        assert [t.error for t in run.transitions] == [None, "LIMIT_DEADLINE"]
        assert 1 < shaky.asked["who?"] < 10


async def test_a_fork_that_searches_anew_is_tried_again_too(scripted: Any) -> None:
    backbone = scripted(PL="<workflow>R,AG</workflow>")
    parent = await JadeGraph(backbone, retriever=Shaky(0)).arun("who?")
    for config in (None, THROUGH_LANGGRAPH):
        graph = JadeGraph(backbone, retriever=Shaky(2), retry_policy=QUICK)
        run = await graph.afork(parent, at="0:R", config=config)
        assert run.status == "answered", run.error_message
        assert [t.role for t in run.transitions] == ["PL", "R", "AG"]


async def test_a_search_that_was_begun_is_recorded_also_when_the_run_dies_meanwhile(scripted: Any) -> None:
    class Two(Shaky):
        async def search(self, query: str, k: int) -> list[Passage]:
            if query == "left?":
                return await super().search(query, k)
            raise RetrievalError("gone", code="NO_CORPUS")

    run = await both_ways(scripted, lambda: Two(1))
    assert (run.status, run.error) == ("failed", "NO_CORPUS")
    assert [t.seq for t in run.transitions] == list(range(len(run.transitions)))
    searches = [(t.trace_node, t.error) for t in run.transitions if t.role == "R"]
    assert searches == [("0.1", "NO_CORPUS"), ("0.2", "NO_CORPUS")]
    assert run.counters.retrievals == 2


async def test_no_wait_goes_beyond_the_deadline(scripted: Any) -> None:
    slow = RetryPolicy(initial_interval=60.0, max_attempts=3, jitter=False, retry_on=RetrievalError)
    for config in (None, THROUGH_LANGGRAPH):
        graph = JadeGraph(
            scripted(PL="<workflow>R,AG</workflow>"),
            retriever=Shaky(9),
            retry_policy=slow,
            limits=Limits(deadline_s=30),
        )
        run = await graph.arun("who?", config=config)
        assert (run.status, run.error) == ("failed", "LIMIT_DEADLINE")
        assert run.wall_ms < 20_000  # the deadline itself is not waited for either


async def test_a_record_that_diverged_is_never_searched_again(scripted: Any) -> None:
    parent = await JadeGraph(scripted(PL="<workflow>QR,R,AG</workflow>"), retriever=Shaky(0)).arun("who?")
    for config in (None, THROUGH_LANGGRAPH):
        shaky = Shaky(0)
        graph = JadeGraph(scripted(), retriever=shaky, retry_policy=RetryPolicy(0.0, jitter=False))
        run = await graph.arun("who?", plan="R,AG", replay=Replay(parent, parent.transitions[-1]), config=config)
        assert (run.status, run.error) == ("failed", "REPLAY_DIVERGED")
        assert not shaky.asked


async def test_what_fails_after_a_search_was_recorded_repeats_none(scripted: Any, tmp_path: Any) -> None:
    class Broken(RunStore):
        def transition(self, transition: Transition) -> None:
            if transition.role == "R":
                raise ValueError("a bug")
            super().transition(transition)

    for i, config in enumerate((None, THROUGH_LANGGRAPH)):
        with Broken(tmp_path / f"{i}.db") as store:
            policy = RetryPolicy(0.0, jitter=False, retry_on=ValueError)
            graph = JadeGraph(
                scripted(PL="<workflow>R,AG</workflow>"), retriever=Shaky(0), retry_policy=policy, recorder=store
            )
            run = await graph.arun("who?", config=config)
        assert (run.status, run.error) == ("failed", "INTERNAL")
        assert [t.role for t in run.transitions] == ["PL", "R"]


@pytest.mark.parametrize("outer_saves", [False, True])
@pytest.mark.parametrize("inner_saves", [False, True])
async def test_a_retriever_that_asks_another_graph_is_tried_again(
    scripted: Any, outer_saves: bool, inner_saves: bool
) -> None:
    plan = scripted(PL="<workflow>R,AG</workflow>")
    inner = JadeGraph(
        plan,
        retriever=Shaky(1, RetrievalError("gone", code="NO_CORPUS")),
        checkpointer=InMemorySaver() if inner_saves else None,
    )

    class Asking:
        corpus_id = "asking"

        async def search(self, query: str, k: int) -> list[Passage]:
            run = await inner.arun(query)
            if run.status != "answered":
                raise RetrievalError(run.error_message, code="RETRIEVER_FAILED")
            return [Passage("p", run.answer)]

    outer = JadeGraph(
        plan, retriever=Asking(), retry_policy=QUICK, checkpointer=InMemorySaver() if outer_saves else None
    )
    run = await outer.arun("who?", config=THROUGH_LANGGRAPH)
    assert run.status == "answered", run.error_message


async def test_waits_grow_as_langgraphs_do(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("jade_graph.workflow.retrying.asyncio.sleep", sleep)
    policy = RetryPolicy(0.1, backoff_factor=3.0, max_interval=0.5, max_attempts=5, jitter=False, retry_on=ValueError)

    async def call(attempt: int) -> str:
        if attempt < 5:
            raise ValueError
        return "done"

    assert await tried(policy, call) == "done"
    assert waited == pytest.approx([0.1, 0.3, 0.5, 0.5])
    assert not another(policy, ValueError(), 5)
    with pytest.raises(TypeError):
        await tried(policy, lambda attempt: int(None))  # type: ignore[arg-type, return-value, call-overload]
