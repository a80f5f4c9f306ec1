"""Exports: exact round trips, what is left out, what is refused, and who can read them."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.errors import DataError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.rollouts.collecting import collect
from jade_graph.runs.export import Export, export_runs, export_store, read_export, schema
from jade_graph.runs.filters import RunFilter
from jade_graph.runs.store import RunStore
from jade_graph.types import Counters, Limits, Message, Question, Run, Status, TraceNode, Transition

pq = pytest.importorskip("pyarrow.parquet")

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FLOAT32 = st.floats(width=32, allow_nan=False)
NUMBER = st.none() | st.floats(allow_nan=False)


def transition(run: Run, seq: int = 0, **values: Any) -> Transition:
    given = {
        "round": 1, "step": 0, "depth": 0, "node": "PL", "trace_node": "0", "role": "PL", "agent_trainable": True,
        "plan": "R,AG", "prompt_messages": (Message("user", "é漢🎬"),), "prompt_token_ids": (1, 2), "action_text": "x",
        "action_token_ids": (3,), "old_logprobs": (-0.5,), "sampling": {"temperature": 1.0, "seed": 2**62},
        "finish_reason": "stop", "truncated": False, "parsed": None, "valid": True, "violation": None,
        "fallback_used": False, "counters_before": {}, "counters_after": {"calls": 1}, "latency_ms": 1.5,
        "backbone_version": "v", "graph_hash": "g", "corpus_id": "c",
    }  # fmt: skip
    where = {"run_id": run.id, "question_id": run.question_id, "attempt": run.attempt, "seq": seq}
    return Transition(**where, **{**given, **values})


def a_run(key: str = "r", count: int = 1, **values: Any) -> Run:
    run = Run(**{"id": key, "question": "?", "question_id": "q", "preset": "jade", "seed": 0, "status": "answered",
                 "backbone_version": "v", **values})  # fmt: skip
    run.transitions = tuple(transition(run, seq) for seq in range(count))
    return run


@st.composite
def odd_runs(draw: st.DrawFn) -> Run:
    run = a_run(
        draw(TEXT.filter(bool)),
        0,
        question=draw(TEXT),
        question_id=draw(TEXT),
        seed=draw(st.integers(0, 2**63 - 1)),
        answer=draw(TEXT),
        error=draw(st.none() | TEXT),
        status=draw(st.sampled_from(["answered", "failed"])),
        counters=Counters(*draw(st.lists(st.integers(0, 10**12), min_size=6, max_size=6))),
        trace=tuple(
            TraceNode(f"0.{i}", draw(TEXT), parent=draw(st.none() | TEXT), status=draw(st.sampled_from(Status)),
                      order=draw(st.sampled_from([None, "serial"])), children=tuple(draw(st.lists(TEXT, max_size=2))))
            for i in range(draw(st.integers(0, 2)))
        ),
        started_at=draw(st.floats(0, 1e10)),
        metadata=draw(st.dictionaries(TEXT, JSON, max_size=3)),
    )  # fmt: skip
    actions = []
    for seq in range(draw(st.integers(0, 2))):
        pairs = draw(st.lists(st.tuples(st.integers(0, 2**31 - 1), FLOAT32), max_size=4))
        actions.append(
            transition(
                run,
                seq,
                prompt_messages=tuple(Message("user", text) for text in draw(st.lists(TEXT, max_size=2))),
                prompt_token_ids=tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=4))),
                action_token_ids=tuple(token for token, _ in pairs),
                old_logprobs=tuple(logprob for _, logprob in pairs),
                parsed=draw(JSON),
                violation=draw(st.none() | TEXT),
                error=draw(st.none() | TEXT),
                rewards=draw(st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=2)),
                **{name: draw(NUMBER) for name in ("reward", "value", "advantage", "return_")},
            )
        )
    run.transitions = tuple(actions)
    return run


# --- round trip -------------------------------------------------------------------------------------------------------
@settings(max_examples=40)
@given(runs=st.lists(odd_runs(), min_size=1, max_size=3, unique_by=lambda run: run.id))
def test_odd_values_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, runs: list[Run]) -> None:
    folder = tmp_path_factory.mktemp("x") / "out"
    export_runs(runs, folder, {"note": "é"})
    export = read_export(folder)
    assert export.runs == runs
    assert export.manifest["note"] == "é"


def test_logprobs_come_back_bit_for_bit(tmp_path: Path) -> None:
    bits = [0x80000000, 0x00000001, 0xBF000001, 0xFF7FFFFF, 0xFF800000, 0xBEAAAAAB]  # -0, denormal, .., -inf
    logprobs = tuple(struct.unpack("<f", struct.pack("<I", b))[0] for b in bits)
    run = a_run()
    run.transitions = (transition(run, action_token_ids=tuple(range(6)), old_logprobs=logprobs, reward=math.nan),)
    export_runs([run], tmp_path / "out", {})
    (back,) = read_export(tmp_path / "out").transitions
    assert [struct.unpack("<I", struct.pack("<f", x))[0] for x in back.old_logprobs] == bits
    assert back.reward is not None  # not a number is no missing reward
    assert math.isnan(back.reward)


def test_every_field_of_the_records_has_a_column(tmp_path: Path) -> None:
    named = {"return_" if name == "return" else name for name in schema.TRANSITIONS}
    assert named == {f.name for f in fields(Transition)}
    counters = {f.name for f in fields(Counters)}
    wanted = {f.name for f in fields(Run)} - {"counters", "record_error"} | counters
    assert set(schema.RUNS) - (schema.DERIVED - {"transitions"}) == wanted


def test_more_rows_than_a_row_group_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jade_graph.runs.export.write._ROW_GROUP", 7)
    runs = [a_run(f"r{i}", i % 4) for i in range(20)]
    export_runs(runs, tmp_path / "out", {})
    assert pq.ParquetFile(tmp_path / "out" / "transitions.parquet").num_row_groups > 2
    assert read_export(tmp_path / "out").runs == runs


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore(tmp_path / "runs.db") as opened:
        yield opened


QUESTIONS = [Question(f"q{i}", f"When {i}? é", ("1950", "MCML"), type="2hop") for i in range(3)]


async def recorded(store: RunStore, scripted: Any, passages: Any, rollout: str = "r", **options: Any) -> list[Run]:
    backbone = scripted(options, PL=lambda a: f"<workflow>{'QDS' if a.view.level == 'root' else 'R,DS,AG'}</workflow>")
    graph = JadeGraph(backbone, retriever=passages, recorder=store)
    return await collect(graph, QUESTIONS, rollout_id=rollout, runs_per_question=2)


async def test_a_rollout_is_the_same_from_memory_from_the_store_and_from_its_export(
    store: RunStore, scripted: Any, passages: Any, tmp_path: Path
) -> None:
    runs = await recorded(store, scripted, passages)
    await recorded(store, scripted, passages, "another")
    manifest = export_store(store, tmp_path / "out", rollout="r")
    back = {run.id: run for run in read_export(tmp_path / "out").runs}
    assert back == {run.id: run for run in runs}
    assert manifest["counts"] == {
        "runs": 6, "answered": 6, "failed": 0, "without_golds": 0, "transitions": sum(len(r.transitions) for r in runs),
        "trainable_transitions": sum(t.agent_trainable for r in runs for t in r.transitions),
    }  # fmt: skip
    assert manifest["left_out"] == {"running": 0, "cancelled": 0, "waiting": 0}
    assert (manifest["rollout"], manifest["seed"]) == ("r", 0)
    assert manifest["rollout_manifest"]["backbone_version"] == "scripted"
    assert export_store(store, tmp_path / "all")["counts"]["runs"] == 12
    again = export_runs(read_export(tmp_path / "out").runs, tmp_path / "again", {})
    assert again["content_hash"] == manifest["content_hash"]
    assert export_store(store, tmp_path / "same", rollout="r")["content_hash"] == manifest["content_hash"]


async def test_the_store_is_read_in_blocks(
    store: RunStore, scripted: Any, passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six runs in blocks of four: the list of ids and five queries for each of two blocks."""
    import sqlalchemy as sa

    from jade_graph.runs import store_read

    runs = await recorded(store, scripted, passages)
    monkeypatch.setattr(store_read, "BLOCK", 4)
    asked: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *a: asked.append(a[2]))
    assert sorted(store.iter_runs(rollout="r"), key=lambda r: r.id) == sorted(runs, key=lambda r: r.id)
    assert len(asked) == 11
    ids = [runs[4].id, runs[1].id]
    assert [run.id for run in store.iter_runs(ids=[*ids, "none"])] == ids
    assert [run.question_id for run in store.iter_runs(RunFilter(question_id="q1"), ids=[r.id for r in runs])] == [
        "q1",
        "q1",
    ]


# --- what is left out -------------------------------------------------------------------------------------------------
async def test_superseded_running_and_cancelled_attempts_are_not_exported(
    store: RunStore, scripted: Any, passages: Any, tmp_path: Path
) -> None:
    runs = await recorded(store, scripted, passages)
    graph = JadeGraph(scripted(AG="<answer>new</answer>"), retriever=passages, recorder=store)
    again = await graph.arun(QUESTIONS[0], run_id=runs[0].id, attempt=1)
    store.run_started(replace(runs[1], status="running", attempt=1))
    store.run_finished(replace(runs[2], status="failed", error="CANCELLED"))
    store.flush()
    manifest = export_store(store, tmp_path / "out", rollout="r")
    back = {run.id: run for run in read_export(tmp_path / "out").runs}
    assert back == {again.id: again, **{run.id: run for run in runs[3:]}}
    assert {t.attempt for t in back[again.id].transitions} == {1}
    assert manifest["left_out"] == {"running": 1, "cancelled": 1, "waiting": 0}
    attempts = set(pq.read_table(tmp_path / "out" / "transitions.parquet")["attempt"].to_pylist())
    assert attempts == {0, 1}


def test_of_runs_in_memory_the_last_attempt_counts(tmp_path: Path) -> None:
    runs = [a_run("a", attempt=1), a_run("a", attempt=0), a_run("b", status="running"), a_run("c", error="CANCELLED")]
    manifest = export_runs(iter(runs), tmp_path / "out", {})
    assert read_export(tmp_path / "out").runs == runs[:1]
    assert manifest["left_out"] == {"running": 1, "cancelled": 1}


async def test_failed_runs_are_exported_with_their_error(
    store: RunStore, scripted: Any, passages: Any, tmp_path: Path
) -> None:
    graph = JadeGraph(scripted(), retriever=passages, recorder=store, limits=Limits(tokens=5))
    (run,) = await collect(graph, QUESTIONS[:1], rollout_id="r")
    manifest = export_store(store, tmp_path / "out", rollout="r")
    assert manifest["counts"]["failed"] == 1
    (back,) = read_export(tmp_path / "out").runs
    assert back == run
    assert (back.status, back.error) == ("failed", "LIMIT_TOKENS")


# --- what is refused --------------------------------------------------------------------------------------------------
async def test_mixed_versions_are_refused_unless_asked_for(
    store: RunStore, scripted: Any, passages: Any, tmp_path: Path
) -> None:
    await recorded(store, scripted, passages, "old", version="v1")
    await recorded(store, scripted, passages, "new", version="v2")
    with pytest.raises(UsageError, match=r"EXPORT_MIXED.*v1, v2.*--version"):
        export_store(store, tmp_path / "out")
    only = export_store(store, tmp_path / "v1", where=RunFilter(version="v1"))
    assert (only["backbone_versions"], only["counts"]["runs"]) == (["v1"], 6)
    both = export_store(store, tmp_path / "both", mixed=True)
    assert (both["backbone_versions"], both["counts"]["runs"]) == (["v1", "v2"], 12)
    run = a_run(count=2)
    run.transitions[1].backbone_version = "v3"  # the weights changed within a run
    with pytest.raises(UsageError, match="EXPORT_MIXED"):
        export_runs([run], tmp_path / "within", {})


def test_what_is_wrong_with_records_is_told(tmp_path: Path) -> None:
    twice, other, longer, alien, large = a_run(count=2), a_run(), a_run(), a_run(), a_run()
    twice.transitions[1].seq = 0
    other.transitions[0].attempt = 1
    longer.transitions[0].old_logprobs = ()
    alien.transitions[0].parsed = object()
    large.transitions[0].prompt_token_ids = (2**31,)
    for runs, code in (
        ([twice], "EXPORT_DUPLICATE"),
        ([other], "EXPORT_DUPLICATE"),
        ([a_run(), a_run()], "EXPORT_DUPLICATE"),
        ([longer], "EXPORT_VALUE"),
        ([alien], "EXPORT_VALUE"),
        ([large], "EXPORT_VALUE"),
        ([], "EXPORT_EMPTY"),
        ([a_run(status="running")], "EXPORT_EMPTY"),
    ):
        with pytest.raises(DataError) as caught:
            export_runs(runs, tmp_path / "out", {})
        assert caught.value.error_code == code
        assert not list(tmp_path.iterdir())  # nothing half written either


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_runs([a_run("old")], out, {})
    with pytest.raises(UsageError, match=r"EXPORT_EXISTS.*--force"):
        export_runs([a_run("new")], out, {})
    with pytest.raises(DataError, match="EXPORT_EMPTY"):
        export_runs([], out, {}, force=True)
    assert read_export(out).runs == [a_run("old")]
    export_runs([a_run("new")], out, {}, force=True)
    assert read_export(out).runs == [a_run("new")]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("words")
    for force in (False, True):
        with pytest.raises(UsageError, match=r"EXPORT_EXISTS.*is no export"):
            export_runs([a_run()], mine, {}, force=force)
    assert (mine / "thesis.txt").read_text() == "words"
    with pytest.raises(DataError, match="EXPORT_WRITE"):
        export_runs([a_run()], mine / "thesis.txt" / "out", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    export_runs([a_run("a", 2), a_run("b")], tmp_path / "out", {})
    return tmp_path / "out"


def refused(folder: Path, code: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_export(folder, **options)
    assert caught.value.error_code == code
    return caught.value.message


def edited(folder: Path, **values: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewritten(path: Path, change: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def test_a_newer_schema_is_refused(out: Path) -> None:
    for name in ("schema_version", "export_schema"):
        edited(out, **{name: 99})
        assert f"{name} 99" in refused(out, "EXPORT_SCHEMA")
        edited(out, **{name: 1})
    for file in ("transitions.parquet", "runs.parquet"):
        rewritten(out / file, lambda t: t.append_column("mood", t.column(0)))
        assert "mood" in refused(out, "EXPORT_SCHEMA", verify=False)
        rewritten(out / file, lambda t: t.drop_columns(["mood"]))
        assert len(read_export(out, verify=False).runs) == 2


def test_changed_files_are_refused(out: Path) -> None:
    path = out / "transitions.parquet"
    rewritten(path, lambda t: t)
    assert "was changed" in refused(out, "EXPORT_BROKEN")
    rewritten(path, lambda t: t.slice(1))
    assert "has 1 actions, not 2" in refused(out, "EXPORT_BROKEN", verify=False)
    rewritten(path, lambda t: t.drop_columns(["old_logprobs"]))
    assert "lacks the columns old_logprobs" in refused(out, "EXPORT_BROKEN", verify=False)
    path.write_bytes(b"PAR1 no PAR1")
    assert "cannot be read" in refused(out, "EXPORT_BROKEN", verify=False)
    edited(out, files={})
    assert "does not describe" in refused(out, "EXPORT_BROKEN")


def test_actions_of_a_run_that_is_not_there_are_refused(out: Path) -> None:
    rewritten(out / "runs.parquet", lambda t: t.slice(1))
    assert "'a'" in refused(out, "EXPORT_BROKEN", verify=False)


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "EXPORT_NOT_FOUND")
    (tmp_path / "manifest.json").write_text('{"kind": "other"}')
    refused(tmp_path, "EXPORT_NOT_FOUND")
    (tmp_path / "manifest.json").write_text("{")
    refused(tmp_path, "EXPORT_BROKEN")


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r'PARQUET_MISSING.*pip install "jade-graph\[train\]"'):
        export_runs([a_run()], tmp_path / "out", {})
    assert not list(tmp_path.iterdir())


# --- who can read it --------------------------------------------------------------------------------------------------
def test_the_card_tells_what_is_in_it(out: Path) -> None:
    text = (out / "README.md").read_text("utf-8")
    assert "| runs | 2 |" in text
    assert "| transitions | 3 |" in text
    assert all(f"| `{name}` |" in text for name in (*schema.TRANSITIONS, *schema.RUNS))


def test_pandas_reads_it(out: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(out / "transitions.parquet")
    assert list(frame["run_id"]) == ["a", "a", "b"]
    assert frame["old_logprobs"][0].tolist() == [-0.5]
    assert frame["return"].isna().all()
    assert frame["prompt_messages"][0][0] == {"role": "user", "content": "é漢🎬"}
    runs = pandas.read_parquet(out / "runs.parquet").set_index("id")
    assert frame.groupby("run_id").size().to_dict() == runs["transitions"].to_dict()


def test_datasets_reads_the_folder(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path / "cache")
    actions = datasets.load_dataset(str(out), split="train", cache_dir=cache)
    assert actions["run_id"][:] == ["a", "a", "b"]
    assert actions[0]["prompt_messages"] == [{"role": "user", "content": "é漢🎬"}]
    assert str(actions.features["old_logprobs"].feature.dtype) == "float32"
    assert str(actions.features["prompt_token_ids"].feature.dtype) == "int32"
    runs = datasets.load_dataset(str(out), "runs", split="train", cache_dir=cache)
    assert runs["id"][:] == ["a", "b"]


def test_an_export_lists_its_actions_run_by_run() -> None:
    runs = [a_run("a", 2), a_run("b")]
    assert [(t.run_id, t.seq) for t in Export(runs, {}).transitions] == [("a", 0), ("a", 1), ("b", 0)]
