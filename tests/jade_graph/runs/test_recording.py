"""Recording of a user's own graph: every field honest, whatever the graph does, and good enough to train on."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError, JadeError, UsageError
from jade_graph.runs.export import export_store, read_export
from jade_graph.runs.recording import Recording, act, act_sync, current, record_run, use, use_sync
from jade_graph.runs.store import RunStore
from jade_graph.scoring.credit import assign
from jade_graph.scoring.rewards import RewardSpec, score_run
from jade_graph.types import Ask, Limits, Message, Parsed, Passage, Question, Run, Sampling, Status
from tests.waiting import until


def policy(ask: Ask) -> str:
    return {"router": "add", "answer": "5"}.get(ask.role, "?")


@pytest.fixture
def backbone() -> ScriptedBackbone:
    return ScriptedBackbone(policy, version="v7")


def tool_of(text: str) -> Parsed:
    return Parsed(text) if text in ("add", "mul") else Parsed("add", "UNKNOWN", fallback_used=True)


class State(TypedDict, total=False):
    question: str
    tool: str
    answer: str
    seen: Annotated[list[str], operator.add]


def agent() -> Any:
    """A graph as its user wrote it: a router, then an answer that calls a tool; no node knows of a recording."""

    async def route(state: State) -> State:
        return {"tool": (await act("router", state["question"], parse=tool_of)).value}

    async def answer(state: State) -> State:
        total = await use("calculator", lambda q: sum(map(int, q.split("+"))), state["question"])
        done = await act("answer", [SystemMessage("Answer."), HumanMessage(f"{state['question']} {total}")])
        return {"answer": done.text}

    return (
        StateGraph(State)
        .add_node("route", route)
        .add_node("reply", answer)
        .add_edge(START, "route")
        .add_edge("route", "reply")
        .add_edge("reply", END)
        .compile()
    )


async def recorded(backbone: Any, question: str | Question = "2+3", **options: Any) -> Run:
    async with record_run(question, backbone=backbone, **options) as rec:
        state = await agent().ainvoke({"question": rec.run.question})
        rec.answer = state["answer"]
    return rec.run


# --- what is recorded -------------------------------------------------------------------------------------------------
async def test_every_field_of_a_run_and_its_actions(backbone: ScriptedBackbone) -> None:
    asked = Question("q1", "2+3", ("5",), type="sum")
    run = await recorded(backbone, asked, name="mine", graph_hash="g", corpus_id="c", seed=4, metadata={"a": 1})
    assert (run.status, run.answer, run.error, run.preset, run.seed) == ("answered", "5", None, "mine", 4)
    assert (run.question_id, run.graph_hash, run.corpus_id, run.backbone_version) == ("q1", "g", "c", "v7")
    assert run.metadata == {"type": "sum", "a": 1}
    assert [(n.id, n.status, n.answer) for n in run.trace] == [("0", Status.SOLVED, "5")]
    router, tool, answer = run.transitions
    assert [(t.seq, t.step, t.round, t.node, t.role) for t in run.transitions] == [
        (0, 0, 1, "route", "router"),
        (1, 1, 1, "reply", "calculator"),
        (2, 2, 1, "reply", "answer"),
    ]
    assert {(t.run_id, t.question_id, t.graph_hash, t.corpus_id) for t in run.transitions} == {(run.id, "q1", "g", "c")}
    assert router.prompt_messages == (Message("user", "2+3"),)
    assert answer.prompt_messages == (Message("system", "Answer."), Message("user", "2+3 5"))
    for t in (router, answer):
        assert list(t.prompt_token_ids) == backbone.encode(t.prompt_messages)
        assert list(t.action_token_ids) == [*backbone.encode_text(t.action_text), backbone.eos_token_id]
        assert len(t.old_logprobs) == len(t.action_token_ids)
        assert (t.agent_trainable, t.valid, t.backbone_version, t.truncated) == (True, True, "v7", False)
        assert t.sampling["temperature"] == 1.0
        assert t.sampling["top_p"] == 1.0
        assert not t.sampling["constrained"]
    assert router.parsed == "add"
    assert (tool.agent_trainable, tool.finish_reason, tool.parsed) == (
        False,
        "tool",
        {"arguments": ["2+3"], "result": 5},
    )
    assert tool.action_token_ids == tool.old_logprobs == ()
    spent = sum(len(t.prompt_token_ids) + len(t.action_token_ids) for t in run.transitions)
    assert (run.counters.calls, run.counters.tokens, run.counters.rounds) == (2, spent, 1)
    assert answer.counters_before["calls"] == 1
    assert answer.counters_after["calls"] == 2
    assert [t.done for t in run.transitions] == [False, False, True]
    assert all(t.reward is None and t.advantage is None for t in run.transitions)


async def test_what_the_parser_says_is_recorded_and_given_back(backbone: ScriptedBackbone) -> None:
    async with record_run("?", backbone=backbone) as rec:
        unknown = await act("other", "?", parse=tool_of)
        nothing = await act("other", "?", parse=lambda text: None)
        whole = await act("other", "?")
        rec.answer = "a"
    assert (unknown.value, unknown.violation, unknown.text) == ("add", "UNKNOWN", "?")
    assert (nothing.value, nothing.violation, whole.value, whole.violation) == (None, "UNPARSED", "?", None)
    first, second, third = rec.run.transitions
    assert (first.valid, first.violation, first.fallback_used) == (False, "UNKNOWN", True)
    assert (second.violation, third.valid) == ("UNPARSED", True)
    scored = score_run(rec.run, Question("", "?"), RewardSpec(outcome="mine"), rewards={"mine": lambda run, q: 2.0})
    assert scored.outcome == {"mine": 2.0}
    assert scored.actions == ({"format": -1.0}, {"format": -1.0}, {})


async def test_token_ids_and_mappings_are_prompts_too(backbone: ScriptedBackbone) -> None:
    async with record_run("?", backbone=backbone) as rec:
        await act("a", [7, 8, 9])
        await act("a", [{"role": "user", "content": "hi"}])
        rec.answer = "a"
    ids, mapping = rec.run.transitions
    assert (ids.prompt_messages, ids.prompt_token_ids) == ((), (7, 8, 9))
    assert mapping.prompt_messages == (Message("user", "hi"),)


async def test_found_passages_count_as_a_retrieval(backbone: ScriptedBackbone) -> None:
    async def search(query: str) -> list[Passage]:
        return [Passage("p1", "text", score=0.5)] if query == "hit" else []

    async with record_run("?", backbone=backbone) as rec:
        assert (await use("R", search, "hit"))[0].id == "p1"
        assert await use("R", search, "miss") == []
        assert await use("lister", lambda: []) == []
        rec.answer = "a"
    assert rec.run.counters.retrievals == 2
    assert [d.id for d in rec.run.documents] == ["p1"]
    assert [t.action_text for t in rec.run.transitions] == ["p1", "", "[]"]


async def test_roles_that_do_not_train_are_greedy_and_served_by_the_frozen_backbone(backbone: ScriptedBackbone) -> None:
    frozen = ScriptedBackbone(lambda ask: "add", version="frozen")
    run = await recorded(backbone, trainable={"answer"}, frozen_backbone=frozen)
    router, _, answer = run.transitions
    assert (router.agent_trainable, router.sampling["temperature"], router.backbone_version) == (False, 0.0, "frozen")
    assert (answer.agent_trainable, answer.sampling["temperature"], answer.backbone_version) == (True, 1.0, "v7")


async def test_turns_are_rounds_with_steps_of_their_own(backbone: ScriptedBackbone) -> None:
    async with record_run("?", backbone=backbone) as rec:
        for turn in (1, 1, 2, 3):
            await act("a", "?", turn=turn)
        rec.answer = "a"
    assert [(t.round, t.step) for t in rec.run.transitions] == [(1, 0), (1, 1), (2, 0), (3, 0)]
    assert rec.run.counters.rounds == 3


# --- branches, seeds --------------------------------------------------------------------------------------------------
def fan(delays: dict[str, float]) -> Any:
    async def branch(state: State) -> State:
        await asyncio.sleep(delays[state["question"]])
        return {"seen": [(await act("branch", f"name {state['question']}")).text]}

    return (
        StateGraph(State)
        .add_node("branch", branch)
        .add_conditional_edges(START, lambda _: [Send("branch", {"question": q}) for q in delays])
        .add_edge("branch", END)
        .compile()
    )


async def test_concurrent_branches_have_numbers_of_their_own_and_seeds_that_do_not_depend_on_order() -> None:
    backbone = ScriptedBackbone(lambda ask: "x", latency_s=0.005)
    seeds = []
    for delays in ({"a": 0.0, "b": 0.01, "c": 0.02}, {"a": 0.02, "b": 0.01, "c": 0.0}):
        async with record_run("?", backbone=backbone, seed=3) as rec:
            await fan(delays).ainvoke({"question": "?"})
            rec.answer = "a"
        assert [t.seq for t in rec.run.transitions] == [0, 1, 2]
        seeds.append({t.prompt_messages[0].content: t.sampling["seed"] for t in rec.run.transitions})
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == 3


async def test_a_subgraph_belongs_to_the_run(backbone: ScriptedBackbone) -> None:
    outer = StateGraph(State).add_node("inner", agent()).add_edge(START, "inner").add_edge("inner", END).compile()
    async with record_run("2+3", backbone=backbone) as rec:
        rec.answer = (await outer.ainvoke({"question": "2+3"}))["answer"]
    assert [t.node for t in rec.run.transitions] == ["route", "reply", "reply"]


async def test_equal_requests_are_drawn_differently_and_again_alike(backbone: ScriptedBackbone) -> None:
    async def seeds(seed: int) -> list[int]:
        async with record_run("?", backbone=backbone, seed=seed) as rec:
            for _ in range(3):
                await act("a", "?")
            rec.answer = "a"
        return [t.sampling["seed"] for t in rec.run.transitions]

    first = await seeds(0)
    assert len(set(first)) == 3
    assert await seeds(0) == first
    assert not set(await seeds(1)) & set(first)


async def test_runs_side_by_side_keep_their_actions_apart() -> None:
    backbone = ScriptedBackbone(lambda ask: ask.view.question, latency_s=0.002)
    runs = await asyncio.gather(*(recorded(backbone, f"{k}+1", run_id=f"r{k}") for k in range(8)))
    for k, run in enumerate(runs):
        assert run.answer == f"{k}+1"
        assert {t.run_id for t in run.transitions} == {f"r{k}"}
        assert len(run.transitions) == 3
    with pytest.raises(UsageError, match="NOT_RECORDING"):
        current()


# --- what goes wrong --------------------------------------------------------------------------------------------------
async def test_outside_of_a_run_there_is_a_typed_error() -> None:
    with pytest.raises(UsageError, match=r"NOT_RECORDING.*record_run"):
        await act("router", "?")
    with pytest.raises(UsageError, match="NOT_RECORDING"):
        act_sync("router", "?")


async def test_an_exception_ends_the_run_as_failed_and_goes_on(backbone: ScriptedBackbone, tmp_path: Path) -> None:
    async def fails(rec: Recording) -> None:
        async with rec:
            await act("a", "?")
            rec.answer = "never"
            raise ZeroDivisionError("mine")

    with RunStore(tmp_path / "runs.db") as store:
        rec = record_run("?", backbone=backbone, recorder=store)
        with pytest.raises(ZeroDivisionError):
            await fails(rec)
        kept = store.get(rec.run.id)
    assert (rec.run.status, rec.run.error, rec.run.error_message) == ("failed", "NODE_ERROR", "ZeroDivisionError: mine")
    assert kept == rec.run
    assert len(kept.transitions) == 1
    assert kept.trace[0].status is Status.FAILED


async def test_what_a_parser_tool_or_backbone_raises_is_recorded_with_its_action() -> None:
    def broken(_: Any) -> str:
        raise KeyError("k")

    backbone = ScriptedBackbone(lambda ask: BackboneError("gone", code="BACKBONE_CLOSED") if ask.role == "b" else "x")
    async with record_run("?", backbone=backbone) as rec:
        with pytest.raises(KeyError):
            await act("a", "?", parse=broken)
        with pytest.raises(KeyError):
            await use("t", broken, 1)
        with pytest.raises(BackboneError):
            await act("b", "?")
        rec.answer = "an agent may go on"
    rows = rec.run.transitions
    assert [t.error for t in rows] == ["ROLE_ERROR", "TOOL_ERROR", "BACKBONE_CLOSED"]
    assert not any(t.valid for t in rows)
    assert rows[0].action_text == "x"
    assert rows[2].action_token_ids == ()
    assert [t.finish_reason for t in rows] == ["scripted", "error", "error"]
    assert rec.run.status == "answered"


@pytest.mark.parametrize("answer", [None, "", "  "])
async def test_a_run_without_an_answer_has_failed(backbone: ScriptedBackbone, answer: str | None) -> None:
    async with record_run("?", backbone=backbone) as rec:
        if answer is not None:
            rec.answer = answer
    assert (rec.run.status, rec.run.error) == ("failed", "NO_ANSWER")


async def test_the_deadline_cuts_an_action_which_is_recorded() -> None:
    slow = ScriptedBackbone(policy, latency_s=30)
    with pytest.raises(JadeError, match="LIMIT_DEADLINE"):
        await recorded(slow, limits=Limits(deadline_s=0.05))
    with pytest.raises(JadeError, match="LIMIT_DEADLINE"):
        async with record_run("?", backbone=slow, limits=Limits(deadline_s=0.05)) as rec:
            await act("a", "?")
    assert [t.error for t in rec.run.transitions] == ["LIMIT_DEADLINE"]
    assert (rec.run.status, rec.run.error) == ("failed", "LIMIT_DEADLINE")


async def test_the_deadline_also_ends_an_agent_that_waits_for_something_else(backbone: ScriptedBackbone) -> None:
    with pytest.raises(JadeError, match="LIMIT_DEADLINE"):
        async with record_run("?", backbone=backbone, limits=Limits(deadline_s=0.01)) as rec:
            await asyncio.sleep(30)
    assert rec.run.error == "LIMIT_DEADLINE"


async def twice(rec: Recording) -> None:
    async with rec:
        await act("a", "1234567890")
        await act("a", "1234567890")


async def test_tokens_run_out(backbone: ScriptedBackbone) -> None:
    rec = record_run("?", backbone=backbone, limits=Limits(tokens=6))
    with pytest.raises(JadeError, match="LIMIT_TOKENS"):
        await twice(rec)
    first, second = rec.run.transitions
    assert (first.error, second.error, second.prompt_token_ids) == (None, "LIMIT_TOKENS", first.prompt_token_ids)
    assert first.sampling["max_new_tokens"] == 2
    assert rec.run.counters.calls == 1
    assert rec.run.counters.tokens <= 6


async def test_cancelling_is_recorded(tmp_path: Path) -> None:
    slow = ScriptedBackbone(policy, latency_s=30)
    runs: list[Any] = []

    async def work() -> None:
        async with record_run("?", backbone=slow) as rec:
            runs.append(rec.run)
            await act("a", "?")

    task = asyncio.create_task(work())
    await until(lambda: runs)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (runs[0].status, runs[0].error) == ("failed", "CANCELLED")
    assert [t.error for t in runs[0].transitions] == ["CANCELLED"]


async def test_nothing_is_added_to_a_run_that_has_ended() -> None:
    backbone = ScriptedBackbone(lambda ask: "x", latency_s=0.01)
    async with record_run("?", backbone=backbone) as rec:
        left = asyncio.create_task(act("a", "?"))
        await asyncio.sleep(0)
        rec.answer = "a"
    with pytest.raises(UsageError, match="RECORDING_OVER"):
        await left
    assert rec.run.transitions == ()
    with pytest.raises(UsageError, match="RECORDING_OVER"):
        rec.answer = "b"
    with pytest.raises(UsageError, match="RECORDING_OVER"):
        async with rec:
            pass


async def test_wrong_arguments_are_named(backbone: ScriptedBackbone) -> None:
    with pytest.raises(UsageError, match="EMPTY_QUESTION"):
        record_run(" ", backbone=backbone)
    with pytest.raises(UsageError, match="BAD_METADATA"):
        record_run("?", backbone=backbone, metadata={"a": object()})
    async with record_run("?", backbone=backbone) as rec:
        for role in ("", "x" * 41):
            with pytest.raises(UsageError, match="RECORDING_ROLE"):
                await act(role, "?")
        for prompt in ([], [3.5], [{"role": "tool", "content": "x"}], [HumanMessage(["a", "b"])]):
            with pytest.raises(UsageError, match="RECORDING_PROMPT"):
                await act("a", prompt)
        with pytest.raises(UsageError, match="RECORDING_ANSWER"):
            rec.answer = 5  # type: ignore[assignment]
        with pytest.raises(UsageError, match="SYNC_IN_LOOP"):
            act_sync("a", "?")
        rec.answer = "a"
    assert rec.run.transitions == ()


# --- plain functions --------------------------------------------------------------------------------------------------
def plain_agent() -> Any:
    def route(state: State) -> State:
        use_sync("tool", str.upper, "x")
        return {"answer": act_sync("router", state["question"]).text}

    return StateGraph(State).add_node("route", route).add_edge(START, "route").add_edge("route", END).compile()


def test_plain_functions_are_recorded(backbone: ScriptedBackbone, tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        with record_run("2+3", backbone=backbone, recorder=store) as rec:
            rec.answer = plain_agent().invoke({"question": "2+3"})["answer"]
        assert store.get(rec.run.id) == rec.run
    assert [(t.role, t.node) for t in rec.run.transitions] == [("tool", "route"), ("router", "route")]


async def test_plain_functions_in_an_asynchronous_run(backbone: ScriptedBackbone) -> None:
    async with record_run("2+3", backbone=backbone) as rec:
        rec.answer = (await plain_agent().ainvoke({"question": "2+3"}))["answer"]
    assert (rec.run.answer, [t.node for t in rec.run.transitions]) == ("add", ["route", "route"])


# --- to the learner ---------------------------------------------------------------------------------------------------
@pytest.fixture
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
async def test_recorded_exported_credited_and_trained_on(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("trl")
    from jade_graph.backbones.hf import HFBackbone
    from jade_graph.testing.models import make_random_model
    from jade_training.learner.ppo import PPOConfig
    from jade_training.learner.trainer import PPOTrainer

    folder = make_random_model(tmp_path / "model", width=16, heads=2)
    backbone = HFBackbone.load(folder, device="cpu")
    drawn = Sampling(temperature=0.8, max_new_tokens=6)
    questions = [Question(f"q{k}", f"{k}+1", (str(k + 1),)) for k in range(6)]
    with RunStore(tmp_path / "runs.db") as store:
        runs = await asyncio.gather(
            *(recorded(backbone, q, recorder=store, sampling=drawn, graph_hash="g", run_id=q.id) for q in questions),
        )
        assert all(run.record_error is None for run in runs)
        kept = {run.id: run for run in store.iter_runs()}
        export_store(store, tmp_path / "export")
    await backbone.aclose()
    exported = {run.id: run for run in read_export(tmp_path / "export").runs}

    def text(value: Any) -> str:
        return repr(value).replace("\\x00", "\ufffd")  # no database holds NUL; a random model writes it

    for run in runs:
        assert text(kept[run.id]) == text(run)
        assert text(exported[run.id].transitions) == text(run.transitions)
        assert [t.action_token_ids for t in kept[run.id].transitions] == [t.action_token_ids for t in run.transitions]
        assert text(exported[run.id].answer) == text(run.answer)
        for t in run.transitions:
            assert len(t.old_logprobs) == len(t.action_token_ids)

    spec = RewardSpec(outcome="short")
    own = {"short": lambda run, question: 1.0 / len(run.transitions[0].action_token_ids)}
    scored = {q.id: score_run(exported[q.id], q, spec, rewards=own) for q in questions}
    for run in exported.values():
        credited = assign(run, scored[run.id], mode="terminal_gae")
        assert [t.advantage is not None for t in credited] == [True, False, True]
    trainer = PPOTrainer(folder, PPOConfig(minibatches=1), device="cpu")
    before = [p.detach().clone() for p in trainer.model.parameters()]
    # The trainer recomputes the log-probabilities from the recorded ids and refuses rows that differ.
    metrics = trainer.update(list(exported.values()), scored, version=backbone.version)
    assert metrics["rows"] == 12
    assert any(not b.equal(p) for b, p in zip(before, trainer.model.parameters(), strict=True))
