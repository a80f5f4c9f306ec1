"""Runs of a graph that follows an alias: one version each, none lost, whatever happens to the registry."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.runs.recording import act, record_run
from jade_graph.types import Passage, Question, Run
from jade_graph.versions import Smoke, VersionedBackbone
from tests.waiting import until

from .conftest import House, Source

THREE = Smoke((Question("s1", "one?"), Question("s2", "two?"), Question("s3", "three?")))
PASSAGES = MemoryRetriever([Passage(f"p{i}", f"number {i} of many things a b") for i in range(8)])


def versions_of(run: Run) -> set[str]:
    return {run.backbone_version} | {t.backbone_version for t in run.transitions if t.backbone_version}


def require_whole(runs: list[Run]) -> None:
    """Answered, by one version from start to end, which wrote the answer."""
    for run in runs:
        assert run.status == "answered", (run.error, run.error_message)
        assert versions_of(run) == {run.backbone_version}
        assert run.answer == run.backbone_version


async def test_runs_in_flight_finish_on_theirs(following: Any, source: Source, house: House) -> None:
    house.decompose = True
    graph = JadeGraph(following(smoke=THREE), retriever=PASSAGES)
    house.gates[1] = asyncio.Event()
    before = [asyncio.ensure_future(graph.arun(f"question {i}?")) for i in range(5)]
    await until(lambda: graph.backbone.status().held == {1: 5})
    source.champion = 2
    await until(lambda: graph.backbone.version == "v2")
    assert not any(task.done() for task in before)
    after = [graph.arun(f"question {i}?") for i in range(5)]
    new = await asyncio.gather(*after)
    house.gates[1].set()
    old = await asyncio.gather(*before)
    require_whole([*old, *new])
    assert {r.answer for r in old} == {"v1"}
    assert {r.answer for r in new} == {"v2"}
    await until(lambda: house.open == 1)
    await graph.aclose()
    assert house.open == house.closed_under_use == 0


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), st.integers(1, 6)),
        st.tuples(st.just("outage"), st.just(0)),
        st.tuples(st.just("recover"), st.just(0)),
        st.tuples(st.just("ask"), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.integers(0, 8)),
    ),
    min_size=4,
    max_size=30,
)


@settings(max_examples=25)
@given(EVENTS, st.integers(0, 2**16))
def test_whatever_happens_no_question_is_lost_and_none_sees_two_versions(
    events: list[tuple[str, int]], seed: int
) -> None:
    asyncio.run(_live(events, random.Random(seed)))


async def _live(events: list[tuple[str, int]], rng: random.Random) -> None:
    source, house = Source(), House()
    house.decompose, house.latency_s = True, 0.0005
    house.broken = {5}  # does not load; 6 fails its smoke questions
    backbone = VersionedBackbone.open(
        source, lambda n, f: house(n, f) if n != 6 else ScriptedBackbone(lambda ask: "", version="v6"), poll_s=0.001
    )
    graph = JadeGraph(backbone, retriever=PASSAGES)
    running: list[asyncio.Task[Run]] = []
    for kind, number in events:
        if kind == "promote":
            source.champion = number
        elif kind in ("outage", "recover"):
            source.down = kind == "outage"
        elif kind == "ask":
            running += [asyncio.ensure_future(graph.arun(f"q{rng.random()}?")) for _ in range(number)]
        else:
            await asyncio.sleep(number / 1000)
    require_whole(await asyncio.gather(*running))
    source.down, source.champion = False, 4
    backbone.reloader.wake()
    await until(lambda: backbone.version == "v4" and house.open == 1)
    assert house.most <= 2
    assert house.closed_under_use == 0
    assert backbone.status().held == {4: 0}
    await graph.aclose()
    assert house.open == 0


async def test_smoke_questions_go_through_the_graph_and_name_what_is_wrong(
    following: Any, source: Source, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = JadeGraph(following(smoke=THREE), retriever=PASSAGES, preset="jade")
    said = {2: "no answer at all", 3: "<answer></answer>"}

    def policy(number: int) -> Any:
        return lambda ask: "nonsense" if ask.role == "PL" else said[number]

    real = house.__call__
    monkeypatch.setattr(
        graph.backbone.reloader,
        "_load",
        lambda n, f: ScriptedBackbone(policy(n), version=f"v{n}") if n in said else real(n, f),
    )
    for number in said:
        source.champion = number
        await until(lambda number=number: (a := graph.backbone.status().alarm) is not None and a.number == number)
        assert graph.backbone.status().alarm.code in ("SMOKE_ILLEGAL", "SMOKE_FAILED_RUN", "SMOKE_NO_ANSWER")
    assert (await graph.arun("still there?")).answer == "v1"
    source.champion = 4
    await until(lambda: graph.backbone.version == "v4")
    assert graph.backbone.status().ok
    await graph.aclose()


def test_what_smoke_questions_ask_for() -> None:
    def run(**facts: Any) -> Run:
        return Run("r", "q?", "", "jade", 0, **{"status": "answered", "answer": "yes", **facts})

    def code(smoke: Smoke, *runs: Run) -> str:
        with pytest.raises(BackboneError) as caught:
            smoke.check(runs)
        return caught.value.error_code

    gold = {"metadata": {"answers": ["yes"]}}
    assert code(Smoke(legal=0.0), run(answer=" ")) == "SMOKE_NO_ANSWER"
    assert code(Smoke(legal=0.0), run(status="failed", error="NO_ANSWER")) == "SMOKE_FAILED_RUN"
    assert code(Smoke(legal=0.0), run(status="failed", error="BACKBONE_NOT_FINITE")) == "SMOKE_NOT_FINITE"
    assert code(Smoke(legal=0.5), run()) == "SMOKE_ILLEGAL"
    assert code(Smoke(legal=0.0, f1=0.6), run(**gold), run(**{**gold, "answer": "no"})) == "SMOKE_F1"
    assert Smoke(legal=0.0, f1=0.5).check([run(**gold), run(**{**gold, "answer": "no"})])["f1"] == 0.5


async def test_a_search_that_fails_is_not_held_against_the_version(
    following: Any, source: Source, house: House
) -> None:
    class Search:
        corpus_id, down = "c", False

        async def search(self, query: str, k: int) -> list[Passage]:
            if self.down:
                raise OSError("the index is away")
            return [Passage("p", "text")]

    search = Search()
    graph = JadeGraph(following(smoke=THREE), retriever=search)
    search.down = True
    source.champion = 2
    await until(lambda: graph.backbone.status().outages > 1)
    assert "SMOKE_SEARCH" in graph.backbone.status().outage
    assert graph.backbone.status().ok
    search.down = False
    await until(lambda: graph.backbone.version == "v2")
    await graph.aclose()


async def test_the_frozen_backbone_stays(following: Any, source: Source, house: House) -> None:
    frozen = ScriptedBackbone(
        lambda ask: {"PL": "<workflow>R,AG</workflow>"}.get(ask.role, "<answer>f</answer>"), version="frozen"
    )
    graph = JadeGraph(following(smoke=THREE), retriever=PASSAGES, preset="mao-arag", frozen_backbone=frozen)
    served = []
    for champion in (1, 2):
        source.champion = champion
        await until(lambda champion=champion: graph.backbone.version == f"v{champion}")
        run = await graph.arun("who?")
        served.append({t.role: t.backbone_version for t in run.transitions if t.backbone_version})
    assert [s["PL"] for s in served] == ["v1", "v2"]
    assert [s["AG"] for s in served] == ["frozen", "frozen"]
    await graph.aclose()


async def test_a_run_that_waits_at_an_interrupt_goes_on_with_its_version(
    following: Any, source: Source, house: House
) -> None:
    saver = InMemorySaver()
    graph = JadeGraph(following(smoke=THREE), retriever=PASSAGES, checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    await graph.graph.ainvoke({"question": "who?"}, config, interrupt_before=["AG"])
    source.champion = 2
    await until(lambda: graph.backbone.version == "v2")
    assert (await graph.arun("another?")).answer == "v2"
    out = await graph.graph.ainvoke(None, config)
    assert out["answer"] == "v1"
    # A further question on the thread is a run of its own: it takes the version of its own beginning.
    out = await graph.graph.ainvoke({"question": "and who?"}, config)
    assert out["answer"] == "v2"
    await until(lambda: house.open == 1)
    await graph.aclose()


async def test_a_plan_that_waits_for_approval_is_carried_out_by_the_version_that_wrote_it(
    following: Any, source: Source, house: House
) -> None:
    graph = JadeGraph(following(smoke=THREE), retriever=PASSAGES, checkpointer=InMemorySaver(), approve="root")
    config: Any = {"configurable": {"thread_id": "t"}}
    waiting = await graph.arun("who?", config=config)
    assert waiting.status == "running"
    source.champion = 2
    await until(lambda: graph.backbone.version == "v2")
    done = await graph.aresume(True, config)
    require_whole([done])
    assert done.answer == "v1"
    await until(lambda: house.open == 1)
    await graph.aclose()


async def test_a_run_resumed_elsewhere_wants_the_version_that_it_began_with(
    following: Any, source: Source, house: House
) -> None:
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "t"}}
    first = JadeGraph(following(smoke=THREE), retriever=PASSAGES, checkpointer=saver)
    await first.graph.ainvoke({"question": "who?"}, config, interrupt_before=["AG"])
    source.champion = 2
    other = JadeGraph(following(smoke=THREE), retriever=PASSAGES, checkpointer=saver)
    assert other.backbone.version == "v2"
    with pytest.raises(BackboneError) as caught:
        await other.graph.ainvoke(None, config)
    assert caught.value.error_code == "VERSION_GONE"
    source.champion = 1
    await until(lambda: other.backbone.version == "v1")
    out = await other.graph.ainvoke(None, config)
    assert (out["status"], out["answer"]) == ("answered", "v1")
    for graph in (first, other):
        await graph.aclose()


async def test_a_run_that_outstays_two_promotions_fails_by_name(
    following: Any, source: Source, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = JadeGraph(following(smoke=THREE), retriever=PASSAGES, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    await graph.graph.ainvoke({"question": "who?", "run_id": "R"}, config, interrupt_before=["AG"])
    source.champion = 2
    await until(lambda: graph.backbone.version == "v2")
    source.champion = 3
    await until(lambda: graph.backbone.status().waiting == 3)
    (lease,) = graph.engine.contexts.running["R"].leases.values()
    lease.until = 0.0  # past its deadline: its place goes to the version that waits
    await until(lambda: graph.backbone.version == "v3")
    out = await graph.graph.ainvoke(None, config)
    assert (out["status"], out["error"]) == ("failed", "VERSION_GONE")
    assert house.most == 2
    await graph.aclose()


async def test_cancelled_runs_give_their_version_back(following: Any, source: Source, house: House) -> None:
    house.latency_s = 5.0
    graph = JadeGraph(following(smoke=Smoke((), legal=0.0)), retriever=PASSAGES)
    task = asyncio.ensure_future(graph.arun("who?"))
    await until(lambda: graph.backbone.status().held == {1: 1})
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert graph.backbone.status().held == {1: 0}
    await graph.aclose()


async def test_a_recorded_agent_keeps_its_version(following: Any, source: Source, house: House) -> None:
    backbone = following()
    backbone.follow(None)
    async with record_run("who?", backbone=backbone) as rec:
        first = await act("AG", "who?")
        source.champion = 2
        await until(lambda: backbone.version == "v2")
        rec.answer = (await act("AG", "who then?")).text
    assert versions_of(rec.run) == {"v1"}
    assert first.completion.model_version == "v1"
    async with record_run("who?", backbone=backbone) as rec:
        rec.answer = (await act("AG", "who?")).text
    assert versions_of(rec.run) == {"v2"}
    await until(lambda: house.open == 1)


async def test_a_graph_may_be_built_inside_an_event_loop_on_a_broken_version(source: Source, house: House) -> None:
    backbone = VersionedBackbone.open(source, lambda n, f: ScriptedBackbone(lambda ask: "", version="v1"))
    with pytest.raises(BackboneError) as caught:
        JadeGraph(backbone, retriever=PASSAGES)
    assert caught.value.error_code.startswith("SMOKE_")
    await backbone.aclose()
