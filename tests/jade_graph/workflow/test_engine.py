"""The graph end to end over scripted actions: plans, recursion, limits, failures, determinism."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jade_graph import plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError, GraphError, RetrievalError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.testing.roles import outputs
from jade_graph.types import (
    Ask,
    Effect,
    Limits,
    Message,
    Parsed,
    Passage,
    Preset,
    Question,
    Run,
    Sampling,
    Status,
    View,
)
from jade_graph.workflow.parts import limits_of
from jade_graph.workflow.plans import PlanGrammar, jade_rule
from tests.waiting import until

PLANS = [str(p) for p in PlanGrammar.of([jade_rule]).plans]


def roles(run: Run) -> list[str]:
    return [t.role for t in run.transitions]


# --- plans ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("plan", PLANS)
def test_every_legal_plan_runs(plan: str, scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{plan if a.view.level == 'root' else 'R,AG'}</workflow>")
    run = JadeGraph(backbone, retriever=passages).run("When was the maker of X born?")
    assert run.status == "answered", run.error_message
    assert run.plan == plan
    if plan in ("QDS", "QDP"):
        assert run.answer == "1950"
        assert roles(run)[-1] == "AS"
        assert run.counters.sub_questions == 2
    else:
        assert roles(run) == ["PL", *plan.split(",")]
        assert run.answer == "Ann Lee"
    assert run.illegal_actions == 0
    assert run.transitions[-1].done
    assert [t.seq for t in run.transitions] == list(range(len(run.transitions)))


def test_serial_sub_questions_see_the_answers_before_them(scripted: Any, passages: Any) -> None:
    seen: dict[str, Any] = {}

    def rewrite(ask: Ask) -> str:
        seen[ask.trace_node] = (ask.view.question, ask.view.siblings)
        return "<query>q</query>"

    backbone = scripted(
        PL=lambda a: "<workflow>QDS</workflow>" if a.view.level == "root" else "<workflow>QR,R,AG</workflow>",
        QR=rewrite,
    )
    run = JadeGraph(backbone, retriever=passages).run("When was the maker of X born?")
    assert seen["0.1"] == ("who made X?", ())
    assert seen["0.2"] == ("when was Ann Lee born?", (("who made X?", "Ann Lee"),))
    assert [n.status for n in run.trace] == [Status.SOLVED] * 3


def test_parallel_sub_questions_really_run_at_once(scripted: Any, passages: Any) -> None:
    backbone = scripted(
        {"latency_s": 0.01}, PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'R,AG'}</workflow>"
    )
    run = JadeGraph(backbone, retriever=passages).run("Compare them?")
    answers = [t for t in run.transitions if t.role == "AG"]
    assert len(answers) == 2
    first, second = answers
    assert second.started_ms < first.started_ms + first.latency_ms


def test_recursion_to_the_depth_limit(scripted: Any, passages: Any) -> None:
    """A planner that always decomposes is stopped by the depth limit: deeper plans are offered no decomposition."""
    backbone = scripted(PL="<workflow>QDP</workflow>", QDP="<q1>one?</q1>", QDS="<q1>one?</q1>")
    graph = JadeGraph(backbone, retriever=passages, limits=Limits(depth=3))
    run = graph.run("Deep?")
    assert run.status == "answered"
    assert max(n.depth for n in run.trace) == 3
    deepest = [t for t in run.transitions if t.role == "PL" and t.depth == 3]
    assert [t.violation for t in deepest] == ["NOT_ALLOWED"]  # QDP is known, and not in the language there
    assert run.trace[-1].plan == "R,AG"


def test_a_plan_can_be_forced(scripted: Any, passages: Any) -> None:
    run = JadeGraph(scripted(), retriever=passages).run("?", plan="qr,r,ag")
    assert roles(run) == ["QR", "R", "AG"]
    with pytest.raises(UsageError, match="PLAN_ILLEGAL"):
        JadeGraph(scripted(), retriever=passages).run("?", plan="DS,AG")


def test_several_queries_interleave(scripted: Any, passages: Any) -> None:
    backbone = scripted(QR="<query>a</query><query>b</query>")
    run = JadeGraph(backbone, preset="mmoa-rag", retriever=passages).run("Q?")
    assert passages.queries == ["a", "b"]
    assert roles(run) == ["QR", "R", "DS", "AG"]
    assert len(run.transitions[1].parsed["documents"]) == 5


# --- presets ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["jade", "jade-code", "mao-arag", "mmoa-rag", "vanilla-rag"])
def test_presets_run_and_draw(name: str, scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(PL="<workflow>QDS</workflow>"), preset=name, retriever=passages)
    run = graph.run("When was the maker of X born?")
    assert run.status == "answered"
    assert "select" in graph.graph.get_graph().draw_mermaid()
    assert ("PL" in roles(run)) == (name not in ("mmoa-rag", "vanilla-rag"))
    if name in ("jade-code", "mao-arag"):
        assert max(n.depth for n in run.trace) == 1


def test_frozen_roles_are_greedy_and_on_the_frozen_backbone(scripted: Any, passages: Any) -> None:
    trained = scripted({"version": "v2"}, PL="<workflow>R,AG</workflow>")
    graph = JadeGraph(
        trained,
        frozen_backbone=scripted({"version": "v1"}),
        preset="mao-arag",
        retriever=passages,
        sampling=Sampling(temperature=1.0),
    )
    run = graph.run("Q?")
    by_role = {t.role: t for t in run.transitions}
    assert (by_role["PL"].agent_trainable, by_role["AG"].agent_trainable) == (True, False)
    assert (by_role["PL"].backbone_version, by_role["AG"].backbone_version) == ("v2", "v1")
    assert (by_role["PL"].sampling["temperature"], by_role["AG"].sampling["temperature"]) == (1.0, 0.0)
    assert run.backbone_version == "v2"


def test_constrained_planner_gets_the_legal_plans_as_choices(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, constrained=True)
    run = graph.run("Q?")
    assert run.transitions[0].sampling["constrained"] is True
    with_bad_plan = JadeGraph(scripted(PL="<workflow>DS,AG</workflow>"), retriever=passages, constrained=True)
    assert with_bad_plan.run("Q?").error == "BACKBONE_CHOICES"


def test_exploring_draws_the_root_plan_uniformly_and_records_how(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, sampling=Sampling(temperature=1.0))

    def run(explore: float, seed: int) -> Run:
        return graph.run("Who made X?", seed=seed, explore=explore)

    always = [run(1.0, seed) for seed in range(60)]
    assert {r.plan for r in always} == {str(plan) for plan in graph.grammar.plans}
    first = always[0].transitions[0]
    told = {name: first.sampling[name] for name in ("explore", "n_plans", "forced")}
    assert told == {"explore": 1.0, "n_plans": 8, "forced": True}
    assert first.valid
    assert all("explore" not in t.sampling for r in always for t in r.transitions if t.role != "PL" or t.depth)
    half = [run(0.5, seed).transitions[0].sampling["forced"] for seed in range(40)]
    assert 8 <= sum(half) <= 32
    assert run(0.5, 3).plan == run(0.5, 3).plan
    assert "explore" not in run(0.0, 3).transitions[0].sampling
    with pytest.raises(UsageError, match="BAD_EXPLORE"):
        run(1.5, 0)


# --- limits -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (Limits(tokens=10), "LIMIT_TOKENS"),
        (Limits(deadline_s=0.0), "LIMIT_DEADLINE"),
        (Limits(rounds=1), "LIMIT_ROUNDS"),
    ],
)
def test_a_limit_ends_the_run_with_its_name(limits: Limits, error: str, scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDS' if a.view.level == 'root' else 'R,AG'}</workflow>")
    run = JadeGraph(backbone, retriever=passages, limits=limits).run("Q?")
    assert (run.status, run.error) == ("failed", error)
    assert all(n.finished for n in run.trace)


def test_the_deadline_interrupts_a_slow_model(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted({"latency_s": 30.0}), retriever=passages, limits=Limits(deadline_s=0.5))
    run = graph.run("Q?")
    assert (run.status, run.error) == ("failed", "LIMIT_DEADLINE")
    assert run.transitions[0].error == "LIMIT_DEADLINE"


def test_beyond_the_retrieval_limit_the_answerer_gets_no_documents(scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'R,AG'}</workflow>")
    run = JadeGraph(backbone, retriever=passages, limits=Limits(retrievals=1)).run("Q?")
    assert run.status == "answered"
    assert run.counters.retrievals == 1
    assert [t.error for t in run.transitions if t.role == "R"] == [None, "LIMIT_RETRIEVALS"]


def test_rounds_run_out_and_what_is_solved_is_summarized(scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'R,AG'}</workflow>")
    run = JadeGraph(backbone, retriever=passages, limits=Limits(rounds=2)).run("Q?")
    assert run.status == "answered"
    assert [(n.status.value, n.error) for n in run.trace[1:]] == [("solved", None), ("failed", "LIMIT_ROUNDS")]


def test_sub_questions_are_cut_to_the_limit(scripted: Any, passages: Any) -> None:
    backbone = scripted(
        PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'R,AG'}</workflow>",
        QDP="<q1>a?</q1><q2>b?</q2><q3>c?</q3>",
    )
    run = JadeGraph(backbone, retriever=passages, limits=Limits(sub_questions=2)).run("Q?")
    assert run.counters.sub_questions == 2
    assert len(run.trace) == 3


def test_long_documents_are_cut_to_the_context(scripted: Any) -> None:
    class Long:
        corpus_id = "long"

        async def search(self, query: str, k: int) -> list[Passage]:
            return [Passage(str(i), "word " * 500) for i in range(k)]

    run = JadeGraph(scripted({"max_context": 1000}), retriever=Long()).run("Q?")
    assert run.status == "answered", run.error_message
    assert [t.prompt_cut for t in run.transitions] == [False, False, True]
    assert len(run.transitions[-1].prompt_token_ids) <= 1000


def test_a_question_longer_than_the_context_is_a_named_failure(scripted: Any, passages: Any) -> None:
    run = JadeGraph(scripted({"max_context": 160}), retriever=passages).run("why " * 300 + "?")
    assert (run.status, run.error) == ("failed", "CONTEXT_OVERFLOW")


# --- failures ---------------------------------------------------------------------------------------------------------
class Failing:
    corpus_id = "failing"

    def __init__(self, failures: int, error: Exception) -> None:
        self.left, self.error, self.calls = failures, error, 0

    async def search(self, query: str, k: int) -> list[Passage]:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return [Passage("p", "text")]


def test_a_retrieval_is_retried_then_named(scripted: Any) -> None:
    error = RetrievalError("the index is away.", code="INDEX_AWAY")
    twice = Failing(2, error)
    assert JadeGraph(scripted(), retriever=twice).run("Q?").status == "answered"
    assert twice.calls == 3
    run = JadeGraph(scripted(), retriever=Failing(99, error)).run("Q?")
    assert (run.status, run.error) == ("failed", "INDEX_AWAY")
    assert run.transitions[-1].error == "INDEX_AWAY"


def test_a_plan_that_retrieves_without_a_corpus_is_a_named_failure(scripted: Any) -> None:
    assert JadeGraph(scripted()).run("Q?").error == "NO_CORPUS"
    assert JadeGraph(scripted(PL="<workflow>AG</workflow>")).run("Q?").status == "answered"


def test_a_retriever_or_model_that_raises_anything_is_a_named_failure(scripted: Any, passages: Any) -> None:
    assert JadeGraph(scripted(), retriever=Failing(9, ZeroDivisionError("x"))).run("Q?").error == "TOOL_ERROR"

    assert JadeGraph(scripted(), retriever=Failing(9, TimeoutError("socket"))).run("Q?").error == "TOOL_ERROR"

    def boom(ask: Ask) -> str:
        raise BackboneError("gone.", code="BACKBONE_GONE")

    run = JadeGraph(scripted(AG=boom), retriever=passages).run("Q?")
    assert run.error == "BACKBONE_POLICY"
    assert [t.role for t in run.transitions] == ["PL", "R", "AG"]


def test_one_failing_branch_does_not_lose_its_siblings(scripted: Any, passages: Any) -> None:
    def answer(ask: Ask) -> str:
        if ask.view.question == "left?":
            raise ValueError("no")
        return "<answer>ok</answer>"

    backbone = scripted(PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'AG'}</workflow>", AG=answer)
    run = JadeGraph(backbone, retriever=passages).run("Q?")
    assert run.status == "failed"
    assert [n.status.value for n in run.trace] == ["failed", "failed", "solved"]


def test_cancelling_a_run_is_recorded(scripted: Any, passages: Any) -> None:
    ended: list[Run] = []

    async def main() -> None:
        graph = JadeGraph(scripted({"latency_s": 30.0}), retriever=passages)
        task = asyncio.create_task(
            graph.arun("Q?", on_event=lambda e: ended.append(e.run) if e.run is not None else None)
        )
        await until(lambda: graph.engine.contexts.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not graph.engine.contexts.running

    asyncio.run(main())
    assert [(r.status, r.error) for r in ended] == [("failed", "CANCELLED")]


def test_wrong_arguments_are_errors_at_once(scripted: Any) -> None:
    with pytest.raises(UsageError, match=r"UNKNOWN_PRESET.*did you mean 'jade'"):
        JadeGraph(scripted(), preset="jad")
    with pytest.raises(UsageError, match="EMPTY_QUESTION"):
        JadeGraph(scripted()).run("  ")
    with pytest.raises(UsageError, match="UNKNOWN_LIMIT"):
        limits_of(plugins.load("jade.presets", "jade"), round=3)
    with pytest.raises(UsageError, match="UNKNOWN_ROLE"):
        JadeGraph(scripted(), preset=Preset("p", "P", trainable=frozenset({"XX"})))
    with pytest.raises(GraphError, match="GRAPH_ROLE_OPTION"):
        JadeGraph(scripted(), preset=Preset("p", "P", role_options={"AG": {"nonsense": 1}}))
    with pytest.raises(UsageError, match="BAD_K"):
        JadeGraph(scripted(), k=0)


class Odd:
    """A third party's answerer that breaks the contract in a chosen way."""

    code, name, kind, description = "AG", "Odd", "executor", "odd"
    max_new_tokens, violations = 32, ()

    def __init__(self, effect: Any) -> None:
        self._effect = effect

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        return (Message("user", "x"),)

    def parse(self, text: str, view: View) -> Parsed:
        return Parsed(text or "x")

    def fallback(self, text: str, view: View) -> str:
        return text

    def effect(self, value: str, view: View) -> Any:
        if isinstance(self._effect, Exception):
            raise self._effect
        return self._effect


@pytest.mark.parametrize(
    "effect",
    [
        None,
        {"answer": "x"},
        Effect(answer=""),
        Effect(answer=5),  # type: ignore[arg-type]
        Effect(memory=None),  # type: ignore[arg-type]
        Effect(children=("", "")),
        Effect(children="abc"),  # type: ignore[arg-type]
        Effect(children=("a?",), order="zigzag"),  # type: ignore[arg-type]
        Effect(memory={"documents": ("no passage",)}),
        ZeroDivisionError("x"),
        TimeoutError("its own"),
    ],
    ids=repr,
)
def test_a_role_that_breaks_its_contract_is_a_named_failure(
    effect: Any, scripted: Any, passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = plugins.load
    monkeypatch.setattr(plugins, "load", lambda group, name: Odd(effect) if name == "AG" else load(group, name))
    run = JadeGraph(scripted(AG="hello"), preset="vanilla-rag", retriever=passages).run("Q?")
    assert (run.status, run.error) == ("failed", "ROLE_ERROR")
    assert "'AG'" in run.error_message
    assert run.transitions[-1].error == "ROLE_ERROR"


def test_a_watcher_that_raises_does_not_end_the_run(scripted: Any, passages: Any) -> None:
    def watch(event: Any) -> None:
        raise ValueError("no")

    assert JadeGraph(scripted(), retriever=passages).run("Q?", on_event=watch).status == "answered"


@pytest.mark.parametrize("limit", [120, 150, 400])
def test_parallel_branches_cannot_overdraw_the_token_limit(limit: int, scripted: Any, passages: Any) -> None:
    backbone = scripted(
        PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'AG'}</workflow>",
        QDP="<q1>a?</q1><q2>b?</q2><q3>c?</q3><q4>d?</q4>",
        AG="<answer>" + "word " * 38 + "</answer>",
    )
    run = JadeGraph(backbone, retriever=passages, limits=Limits(tokens=limit)).run("..?")
    assert run.counters.tokens <= limit
    assert run.status == "answered" or run.error == "LIMIT_TOKENS"


def test_sub_questions_that_find_no_room_to_split_are_answered_directly(scripted: Any, passages: Any) -> None:
    """Four parallel children plan a decomposition when two sub-questions are left: none of them fails for that."""
    backbone = scripted(PL="<workflow>QDP</workflow>", QDP="<q1>a?</q1><q2>b?</q2><q3>c?</q3><q4>d?</q4>")
    run = JadeGraph(backbone, retriever=passages, limits=Limits(sub_questions=6, rounds=20)).run("Q?")
    assert run.status == "answered", run.error
    assert run.counters.sub_questions == 6
    assert not [n for n in run.trace if n.error]
    assert {n.plan for n in run.trace if n.depth == 1} == {"QDP", "R,AG"}


def test_round_and_step_order_agrees_with_what_depends_on_what(scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDS' if a.view.level == 'root' else 'R,AG'}</workflow>")
    run = JadeGraph(backbone, retriever=passages).run("Q?")
    by_place = sorted(run.transitions, key=lambda t: (t.round, t.step))
    assert [t.role for t in by_place] == ["PL", "QDS", "PL", "R", "AG", "PL", "R", "AG", "AS"]
    assert len({(t.round, t.step) for t in run.transitions}) == len(run.transitions)


@pytest.mark.parametrize(
    ("preset", "code"),
    [
        (Preset("p", "P", plan="QDS", limits={"depth": 0}), "GRAPH_DEPTH"),
        (Preset("p", "P", plan="QDS", sub_plan="QDP"), "GRAPH_SUB_PLAN"),
    ],
)
def test_fixed_plans_that_cannot_reach_an_answer_are_not_built(preset: Preset, code: str, scripted: Any) -> None:
    with pytest.raises(GraphError, match=code):
        JadeGraph(scripted(), preset=preset)


def test_a_run_may_go_deeper_than_its_preset(scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDS' if a.view.level == 'root' else 'R,AG'}</workflow>")
    graph = JadeGraph(backbone, preset=Preset("p", "P", limits={"depth": 0}), retriever=passages)
    assert graph.run("Q?", limits=Limits(depth=1)).answer == "1950"


def test_documents_without_spaces_are_cut_by_characters(scripted: Any) -> None:
    class Dense:
        corpus_id = "zh"

        async def search(self, query: str, k: int) -> list[Passage]:
            return [Passage(str(i), "漢" * 400) for i in range(k)]

    run = JadeGraph(scripted({"max_context": 1000}), retriever=Dense()).run("Q?")
    assert run.status == "answered"
    assert run.transitions[-1].prompt_cut
    assert run.transitions[-1].prompt_messages[0].content.count("漢") > 500


async def test_a_question_that_cannot_be_asked_does_not_end_the_others(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages)
    runs = [run async for run in graph.arun_many(["a?", "  ", "b?"])]
    assert sorted((r.question, r.status, r.error) for r in runs) == [
        ("  ", "failed", "EMPTY_QUESTION"),
        ("a?", "answered", None),
        ("b?", "answered", None),
    ]
    with pytest.raises(UsageError, match="BAD_CONCURRENCY"):
        _ = [run async for run in graph.arun_many(["a?"], concurrency=0)]
    with pytest.raises(UsageError, match="BAD_SAMPLING"):
        await graph.arun("a?", sampling={"max_new_tokens": 8})
    with pytest.raises(UsageError, match="BAD_METADATA"):
        await graph.arun("a?", metadata={"when": {1}})


async def test_closing_closes_both_backbones(scripted: Any) -> None:
    trained, frozen = scripted(), scripted()
    await JadeGraph(trained, frozen_backbone=frozen, preset="mao-arag").aclose()
    for backbone in (trained, frozen):
        with pytest.raises(BackboneError, match="BACKBONE_CLOSED"):
            await backbone.generate([1], Sampling())


# --- concurrency and determinism --------------------------------------------------------------------------------------
async def test_many_runs_at_once(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(AG=lambda a: f"<answer>{a.view.question}</answer>"), retriever=passages)
    asked = [Question(f"q{i}", f"What is {i}?") for i in range(50)]
    runs = [run async for run in graph.arun_many(asked, concurrency=16)]
    assert sorted((r.question_id, r.answer) for r in runs) == sorted((q.id, q.question) for q in asked)
    assert len({r.id for r in runs}) == 50


def test_seeds_depend_on_place_not_on_time(scripted: Any, passages: Any) -> None:
    backbone = scripted(PL=lambda a: f"<workflow>{'QDP' if a.view.level == 'root' else 'R,AG'}</workflow>")
    graph = JadeGraph(backbone, retriever=passages)

    def seeds(seed: int) -> list[int]:
        return [t.sampling["seed"] for t in graph.run("Q?", seed=seed).transitions if t.sampling]

    assert seeds(1) == seeds(1)
    assert not set(seeds(1)) & set(seeds(2))
    assert len(set(seeds(1))) == len(seeds(1))


def test_the_graph_hash_names_what_the_graph_does(scripted: Any) -> None:
    base = JadeGraph(scripted()).graph_hash
    assert JadeGraph(scripted()).graph_hash == base
    assert JadeGraph(scripted(), k=3).graph_hash != base
    preset: Preset = plugins.load("jade.presets", "jade")
    assert JadeGraph(scripted(), preset=replace(preset, role_options={"AG": {"max_words": 5}})).graph_hash != base


async def test_the_compiled_graph_runs_on_its_own(scripted: Any, passages: Any) -> None:
    """LangGraph users drive `graph.graph` directly: no context is prepared, the nodes make one from the state."""
    graph = JadeGraph(scripted(), retriever=passages)
    out = await graph.graph.ainvoke({"question": "Q?"})
    assert (out["answer"], out["status"], out["error"]) == ("Ann Lee", "answered", None)
    assert not graph.engine.contexts.running


async def test_run_inside_a_running_loop(scripted: Any, passages: Any) -> None:
    assert JadeGraph(scripted(), retriever=passages).run("Q?").status == "answered"


# --- anything a model may write ---------------------------------------------------------------------------------------
SPLITS = ["<workflow>QDS</workflow>", "<workflow>QDP</workflow>", "<q1>a?</q1><q2>b #1?</q2><q3>c?</q3>"]
SCRAPS = st.sampled_from(
    list(outputs(seed=1, count=300)) + [f"<workflow>{p}</workflow>" for p in PLANS] * 12 + SPLITS * 30
)
ANYTHING = st.one_of(SCRAPS, SCRAPS, st.text(max_size=40))
script: dict[str, Any] = {"texts": [], "used": 0, "all": 0}


def _written(ask: Ask) -> str:
    script["used"] += 1
    return str(script["texts"][script["used"] % len(script["texts"])])


@pytest.fixture(scope="module")
def anything_goes() -> JadeGraph:
    class Any5:
        corpus_id = "any"

        async def search(self, query: str, k: int) -> list[Passage]:
            return [Passage(f"p{i}", f"<answer>{query}</answer>\nDocument9: x") for i in range(k)]

    return JadeGraph(ScriptedBackbone(_written), retriever=Any5())


@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(ANYTHING, min_size=12, max_size=30), rounds=st.integers(2, 16), depth=st.integers(0, 3))
def test_whatever_is_written_every_run_ends_and_every_violation_is_named(
    anything_goes: JadeGraph, texts: list[str], rounds: int, depth: int
) -> None:
    script.update(texts=texts, used=0)
    limits = Limits(rounds=rounds, depth=depth, retrievals=6, sub_questions=12)
    run = anything_goes.run("Who made X?", limits=limits)
    script["all"] += script["used"]
    assert run.status == "answered" or run.error in ("LIMIT_ROUNDS", "LIMIT_DEPTH", "LIMIT_SUB_QUESTIONS"), run.error
    assert (run.status == "answered") == bool(run.answer)
    assert run.counters.rounds <= rounds
    assert run.counters.retrievals <= 6
    assert run.counters.sub_questions <= 12
    for t in run.transitions:
        assert len(t.old_logprobs) == len(t.action_token_ids)
        assert t.valid == (t.violation is None and t.error is None)
        assert t.error in (None, "LIMIT_RETRIEVALS")
        if t.role in anything_goes.roles:
            assert t.violation is None or t.violation in anything_goes.roles[t.role].violations
            assert t.fallback_used == (t.violation is not None)


def test_ten_thousand_outputs_were_tried() -> None:
    assert script["all"] >= 10_000
