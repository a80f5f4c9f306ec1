"""Rollouts: ids and seeds, one policy per rollout, and what is left after kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import BackboneError, DataError, JadeError, StoreError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.rollouts.collecting import collect, f1_of, tally
from jade_graph.rollouts.replicas import planned, run_id_of, seed_of
from jade_graph.runs.export import export_store, read_export
from jade_graph.runs.filters import RunFilter
from jade_graph.runs.store import RunStore
from jade_graph.types import Limits, Question, Run

QUESTIONS = [Question(f"q{i}", f"Who made film {i}?", ("Ann Lee",), type="bridge") for i in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def made(store: RunStore, scripted: Any, passages: Any) -> Any:
    """`made(ACTIONS.., options={..}, **GRAPH)`: a graph that records to the store."""

    def make(options: Any = None, graph: Any = None, **actions: Any) -> JadeGraph:
        return JadeGraph(scripted(options, **actions), retriever=passages, **{"recorder": store, **(graph or {})})

    return make


def cut(store: RunStore, run_id: str, *, attempt: int = 0) -> None:
    """Leave the run as a process leaves it that dies in the middle of it."""
    store.run_started(replace(store.get(run_id), status="running", answer="", attempt=attempt))
    store.flush()


# --- ids and seeds ----------------------------------------------------------------------------------------------------
@given(rollout=st.text(min_size=1), question=st.text(), replica=st.integers(0, 10**6), seed=st.integers())
def test_ids_and_seeds_are_pure_and_fit(rollout: str, question: str, replica: int, seed: int) -> None:
    assert run_id_of(rollout, question, replica) == run_id_of(rollout, question, replica)
    assert 0 < len(run_id_of(rollout, question, replica)) <= 64
    assert 0 <= seed_of(seed, question, replica) < 2**63
    others = {run_id_of(rollout, question, replica + 1), run_id_of(f"{rollout}x", question, replica)}
    assert run_id_of(rollout, question, replica) not in others
    assert seed_of(seed, question, replica) != seed_of(seed + 1, question, replica)


def test_ids_and_seeds_never_change() -> None:
    """What is recorded is found again by later versions."""
    assert run_id_of("r", "q", 0) == "cfb06b846a46e590706d33684e717924"
    assert seed_of(0, "q", 0) == 4720966596886047241


async def test_every_run_has_its_id_seed_and_metadata(made: Any, store: RunStore) -> None:
    runs = await collect(made(), QUESTIONS, rollout_id="first", runs_per_question=2, seed=7)
    assert [(r.question_id, r.metadata["replica"]) for r in runs] == [(q.id, g) for q in QUESTIONS for g in (0, 1)]
    for run in runs:
        g = run.metadata["replica"]
        assert (run.id, run.seed) == (run_id_of("first", run.question_id, g), seed_of(7, run.question_id, g))
        told = {"rollout": "first", "replica": g, "draw": g, "type": "bridge", "answers": ["Ann Lee"]}
        assert run.metadata == told
        assert run.transitions
        assert store.get(run.id) == run
        assert f1_of(run) == 1.0
    assert len({r.seed for r in runs} | {r.id for r in runs}) == 12
    sampled = {t.sampling["temperature"] for r in runs for t in r.transitions if t.agent_trainable}
    assert sampled == {1.0}


async def test_exploration_reaches_the_runs_only_when_asked_for(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, given = made(), list[Any]()
    arun = graph.arun

    async def watched(*args: Any, **options: Any) -> Run:
        given.append(options.pop("explore", None))
        return await arun(*args, **options)

    monkeypatch.setattr(graph, "arun", watched)
    await collect(graph, QUESTIONS, rollout_id="r", explore=0.25)
    with pytest.raises(UsageError, match=r"explore was 0\.25 and is 0\.0"):
        await collect(graph, QUESTIONS, rollout_id="r")
    await collect(graph, QUESTIONS, rollout_id="without")
    assert given == [0.25] * 3 + [None] * 3


async def test_runs_of_one_draw_share_the_plan_and_part_after_it(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = made()
    runs = await collect(graph, QUESTIONS, rollout_id="r", runs_per_question=8, runs_per_plan=4, explore=1.0)
    for question in QUESTIONS:
        own = [r for r in runs if r.question_id == question.id]
        assert [r.metadata["draw"] for r in own] == [0] * 4 + [1] * 4
        for draw in (0, 1):
            assert len({r.plan for r in own if r.metadata["draw"] == draw}) == 1
        assert len({r.seed for r in own}) == 8
        seeds = {t.sampling["seed"] for r in own for t in r.transitions if t.role == "AG" and r.metadata["draw"] == 0}
        assert len(seeds) >= 4
    assert len({r.plan for r in runs}) > 1
    with pytest.raises(UsageError, match="runs_per_plan was 4 and is 1"):
        await collect(graph, QUESTIONS, rollout_id="r", explore=1.0)
    with pytest.raises(UsageError, match="BAD_REPLICAS"):
        await collect(graph, QUESTIONS, rollout_id="z", runs_per_plan=0)


# --- going on ---------------------------------------------------------------------------------------------------------
async def test_runs_that_ended_are_read_back_and_not_run_again(made: Any, store: RunStore) -> None:
    asked: list[str] = []

    def answer(ask: Any) -> str:
        asked.append(ask.question_id)
        return "<answer>Ann Lee</answer>"

    graph = made(AG=answer)
    first = await collect(graph, QUESTIONS[:2], rollout_id="r")
    seen: list[Run] = []
    again = await collect(graph, QUESTIONS, rollout_id="r", runs_per_question=2, progress=seen.append)
    assert [r for r in again if r.metadata["replica"] == 0][:2] == first
    assert sorted(asked) == ["q0", "q0", "q1", "q1", "q2", "q2"]
    assert sorted(r.id for r in seen) == sorted(r.id for r in again)
    figures = await tally(graph, QUESTIONS, rollout_id="r", runs_per_question=2)
    assert (figures.runs, figures.fresh, figures.runs_per_s, figures.f1) == (6, 0, None, 1.0)
    assert len(asked) == 6


async def test_a_run_that_was_cut_off_is_run_again_as_its_next_attempt(made: Any, store: RunStore) -> None:
    await collect(made(), QUESTIONS, rollout_id="r")
    victim = run_id_of("r", "q1", 0)
    cut(store, victim)
    runs = await collect(made(), QUESTIONS, rollout_id="r")
    assert [r.attempt for r in runs] == [0, 1, 0]
    assert store.get(victim) == runs[1]
    assert {t.attempt for t in runs[1].transitions} == {1}
    cut(store, victim, attempt=1)
    assert (await tally(made(), QUESTIONS, rollout_id="r")).fresh == 1
    assert store.get(victim).attempt == 2


async def test_actions_without_their_run_do_not_stand_in_the_way(made: Any, store: RunStore, tmp_path: Path) -> None:
    """A store that failed for a moment can lose a run's row and keep its actions."""
    await collect(made(), QUESTIONS, rollout_id="r")
    with sqlite3.connect(tmp_path / "runs.db") as db:
        db.execute("DELETE FROM runs WHERE question_id = 'q2'")
    db.close()
    runs = await collect(made(), QUESTIONS, rollout_id="r")
    assert [(r.attempt, r.record_error) for r in runs] == [(0, None), (0, None), (1, None)]


async def test_a_cancelled_rollout_goes_on(made: Any, store: RunStore) -> None:
    """Cancelled runs are no failures of the policy: they are run again."""
    inside = asyncio.Event()

    def answer(ask: Any) -> str:
        inside.set()
        return "<workflow>R,AG</workflow>"

    slow = made({"latency_s": 0.02}, PL=answer)
    task = asyncio.create_task(collect(slow, QUESTIONS, rollout_id="r", concurrency=2))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.flush()
    assert store.count(RunFilter(status="failed")) > 0
    runs = await collect(made(), QUESTIONS, rollout_id="r")
    assert [r.status for r in runs] == ["answered"] * 3


async def test_without_a_store_runs_are_only_in_memory(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages)
    runs = await collect(graph, QUESTIONS, rollout_id="r", runs_per_question=2)
    assert len(runs) == 6
    assert [t.seq for t in runs[0].transitions] == list(range(len(runs[0].transitions)))


# --- one policy -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"options": {"version": "newer"}}, "backbone_version was 'scripted' and is 'newer'"),
        ({"graph": {"k": 3}}, "graph_hash"),
        ({"graph": {"preset": "vanilla-rag"}}, "preset was 'jade'"),
        ({"graph": {"limits": Limits(rounds=3)}}, "limits"),
        ({"graph": {"retriever": None, "preset": "jade"}}, "corpus_id was 'numbered'"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"sampling": {"temperature": 0.5}}, "sampling"),
    ],
)
async def test_a_rollout_goes_on_only_as_it_began(
    store: RunStore, scripted: Any, passages: Any, change: dict[str, Any], named: str
) -> None:
    await collect(JadeGraph(scripted(), retriever=passages, recorder=store), QUESTIONS, rollout_id="r")
    options, graph = change.pop("options", None), change.pop("graph", {})
    other = JadeGraph(scripted(options), **{"retriever": passages, "recorder": store, **graph})
    with pytest.raises(UsageError, match="ROLLOUT_CHANGED") as caught:
        await collect(other, QUESTIONS, rollout_id="r", **change)
    assert named in str(caught.value)
    assert store.count() == 3
    assert len(await collect(other, QUESTIONS, rollout_id="another", **change)) == 3


async def test_another_wording_of_a_question_is_another_rollout(made: Any) -> None:
    await collect(made(), QUESTIONS, rollout_id="r")
    changed = [replace(QUESTIONS[0], question="Who made it?"), *QUESTIONS[1:]]
    with pytest.raises(UsageError, match=r"ROLLOUT_CHANGED.*'Who made film 0\?' and is 'Who made it\?'"):
        await collect(made(), changed, rollout_id="r")


async def test_weights_that_change_within_a_rollout_end_it(made: Any, store: RunStore) -> None:
    graph = made()

    def answer(ask: Any) -> str:
        if ask.question_id == "q1":
            graph.backbone._version = "newer"
        return "<answer>Ann Lee</answer>"

    changing = made(AG=answer)
    graph.engine.backbone = changing.backbone
    with pytest.raises(BackboneError, match=r"ROLLOUT_VERSION.*'scripted' to 'newer'"):
        await collect(changing, QUESTIONS, rollout_id="r", concurrency=1)
    # The run of two versions is recorded, and not taken for one of this rollout's.
    runs = await collect(made(), QUESTIONS, rollout_id="r")
    assert [r.attempt for r in runs] == [0, 1, 0]
    assert {t.backbone_version for r in runs for t in r.transitions} == {"scripted", ""}


async def test_frozen_roles_have_a_version_of_their_own(store: RunStore, scripted: Any, passages: Any) -> None:
    graph = JadeGraph(
        scripted(), preset="mao-arag", frozen_backbone=scripted({"version": "frozen"}), retriever=passages,
        recorder=store,
    )  # fmt: skip
    runs = await collect(graph, QUESTIONS, rollout_id="r")
    versions = {(t.agent_trainable, t.backbone_version) for r in runs for t in r.transitions if t.role != "R"}
    assert versions == {(True, "scripted"), (False, "frozen")}
    other = JadeGraph(
        scripted(), preset="mao-arag", frozen_backbone=scripted({"version": "x"}), retriever=passages, recorder=store
    )
    with pytest.raises(UsageError, match="frozen_backbone_version"):
        await collect(other, QUESTIONS, rollout_id="r")


# --- wrong arguments --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"rollout_id": ""}, UsageError, "ROLLOUT_ID"),
        ({"rollout_id": "x" * 201}, UsageError, "ROLLOUT_ID"),
        ({"runs_per_question": 0}, UsageError, "BAD_REPLICAS"),
        ({"concurrency": 0}, UsageError, "BAD_CONCURRENCY"),
        ({"sampling": {"seed": 1}}, UsageError, "BAD_SAMPLING"),
        ({"explore": 1.5}, UsageError, "BAD_EXPLORE"),
        ({"questions": []}, DataError, "DATASET_EMPTY"),
        ({"questions": [QUESTIONS[0], QUESTIONS[0]]}, DataError, "DATASET_IDS"),
        ({"questions": [Question("q", " ")]}, UsageError, "EMPTY_QUESTION"),
    ],
)
async def test_wrong_arguments_leave_no_rollout_behind(
    made: Any, store: RunStore, options: dict[str, Any], kind: type[JadeError], code: str
) -> None:
    given = {"questions": QUESTIONS, "rollout_id": "r", **options}
    with pytest.raises(kind) as caught:
        await collect(made(), given.pop("questions"), **given)
    assert caught.value.error_code == code
    assert store.count() == 0
    with pytest.raises(UsageError, match="UNKNOWN_ROLLOUT"):
        export_store(store, "nowhere", rollout=given["rollout_id"])


async def test_the_store_is_the_one_that_the_graph_records_to(scripted: Any, passages: Any, store: RunStore) -> None:
    graph = JadeGraph(scripted(), retriever=passages)
    with pytest.raises(UsageError, match="ROLLOUT_STORE"):
        await collect(graph, QUESTIONS, rollout_id="r", store=store)


async def test_a_run_that_cannot_be_recorded_is_an_error_and_made_good_later(
    made: Any, store: RunStore, tmp_path: Path
) -> None:
    graph = made()
    with sqlite3.connect(tmp_path / "runs.db") as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON transitions BEGIN SELECT RAISE(ABORT, 'full'); END")
        db.commit()
        with pytest.raises(StoreError, match=r"STORE_WRITE.*of the rollout 'r' was not recorded"):
            await collect(graph, QUESTIONS, rollout_id="r")
        db.execute("DROP TRIGGER full")
    db.close()
    store._failures.clear()  # of the runs that were cancelled when the first one was told
    runs = await collect(made(), QUESTIONS, rollout_id="r")
    assert [store.get(r.id).transitions == r.transitions for r in runs] == [True] * 3


def test_planned_runs_are_ordered_by_question_and_replica() -> None:
    runs = planned(QUESTIONS[:2], rollout_id="r", runs_per_question=2, seed=3)
    assert [(p.question.id, p.replica) for p in runs] == [("q0", 0), ("q0", 1), ("q1", 0), ("q1", 1)]
    assert len({p.seed for p in runs}) == 4


# --- kill -9 ----------------------------------------------------------------------------------------------------------
CHILD = textwrap.dedent("""
    import asyncio, sys, time
    from jade_graph.backbones.scripted import ScriptedBackbone
    from jade_graph.langchain.runnable import JadeGraph
    from jade_graph.rollouts.collecting import collect
    from jade_graph.runs.store import RunStore
    from jade_graph.types import Question

    ACTIONS = {"PL": "<workflow>QR,AG</workflow>", "QR": "<query>x</query>", "AG": "<answer>Ann</answer>"}
    questions = [Question(f"q{i}", f"Who made film {i}?") for i in range(12)]
    answers_left = int(sys.argv[2])

    def policy(ask):
        global answers_left
        if ask.role == "AG":
            answers_left -= 1
            if not answers_left:
                store.flush()
                print("stop", flush=True)
                time.sleep(60)
        return ACTIONS[ask.role]

    store = RunStore(sys.argv[1])
    graph = JadeGraph(ScriptedBackbone(policy), recorder=store)
    asyncio.run(collect(graph, questions, rollout_id="r", runs_per_question=2, concurrency=5,
                        progress=lambda run: print(run.id, run.attempt, flush=True)))
""")


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_kill_9_loses_and_repeats_nothing(tmp_path: Path, scripted: Any) -> None:
    """Killed twice in the middle: what had ended stays as it was, what was cut off is there once."""
    path = tmp_path / "runs.db"
    ended: dict[str, int] = {}
    for answers in (8, 6):
        command = [sys.executable, "-c", CHILD, str(path), str(answers)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "stop":
                    break
                run_id, attempt = line.split()
                assert ended.setdefault(run_id, int(attempt)) == int(attempt)  # what had ended is told again as it was
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        with RunStore(path) as store:
            left = store.unfinished(rollout="r")
            assert left.running > 0
            assert left.waiting > 0
    questions = [Question(f"q{i}", f"Who made film {i}?") for i in range(12)]
    with RunStore(path) as store:
        graph = JadeGraph(scripted(PL="<workflow>QR,AG</workflow>"), recorder=store)
        runs = asyncio.run(collect(graph, questions, rollout_id="r", runs_per_question=2))
        assert {run.id: run.attempt for run in runs}.items() >= ended.items()
        ended |= {run.id: run.attempt for run in runs}
        left = store.unfinished(rollout="r")
        assert (store.count(), left.running, left.waiting) == (24, 0, 0)
        manifest = export_store(store, tmp_path / "out", rollout="r")
        one_by_one = [store.get(run_id) for run_id in ended]
    runs = read_export(tmp_path / "out").runs
    assert manifest["counts"]["runs"] == len(runs) == 24
    assert {r.id: r.attempt for r in runs} == ended
    assert max(r.attempt for r in runs) > 0  # something was cut off
    keys = [(t.run_id, t.attempt, t.seq) for r in runs for t in r.transitions]
    assert len(keys) == len(set(keys))
    assert all([t.role for t in r.transitions] == ["PL", "QR", "AG"] for r in runs)
    assert sorted(runs, key=lambda r: r.id) == sorted(one_by_one, key=lambda r: r.id)
