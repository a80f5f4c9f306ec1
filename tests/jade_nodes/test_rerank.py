"""RR: ranked again where the preset allows it, within the rules of a run."""

from __future__ import annotations

from typing import Any

import pytest

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.retrieval.encoder import HashingEncoder
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.types import Passage, Plan
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.plans import PlanGrammar, jade_rule, rerank

pytestmark = pytest.mark.usefixtures("declared")
WORLD = [Passage(f"d{i}", f"a painter of boats number{i} lives in town{i % 7}") for i in range(60)]


def test_the_rule_adds_a_plan_for_each_that_retrieves() -> None:
    plain, with_ = PlanGrammar.of([jade_rule]), PlanGrammar.of([jade_rule, rerank])
    added = {str(p) for p in with_.plans} - {str(p) for p in plain.plans}
    assert added == {"R,RR,AG", "QR,R,RR,AG", "R,RR,DS,AG", "QR,R,RR,DS,AG"}
    assert with_.parse("<workflow>R,RR,AG</workflow>").value == Plan(("R", "RR", "AG"))
    assert with_.parse("<workflow>RR,R,AG</workflow>").violation == "ORDER"
    assert with_.parse("<workflow>RR,AG</workflow>").violation == "NOT_ALLOWED"
    assert plain.parse("<workflow>R,RR,AG</workflow>").violation == "UNKNOWN"
    assert PlanGrammar.of([jade_rule, rerank, rerank]).plans == with_.plans


def _run(retriever: Any, plan: str = "R,RR,AG", **more: Any) -> Any:
    says = {"PL": f"<workflow>{plan}</workflow>", "QR": "<q1>boats</q1>", "AG": "<answer>x</answer>"}
    engine = Engine(
        ScriptedBackbone(lambda ask: says[ask.role]), preset="jade-rerank", retriever=retriever, k=4, **more
    )
    return engine.run("Which painter lives in town3?")


def test_a_planner_has_passages_ranked_again() -> None:
    retriever = MemoryRetriever(WORLD, "hybrid", HashingEncoder(64))
    run = _run(retriever)
    assert (run.status, run.plan) == ("answered", "R,RR,AG")
    r, rr = (t for t in run.transitions if t.role in ("R", "RR"))
    expected = MemoryRetriever(WORLD, "hybrid", HashingEncoder(64), rerank=100).search_sync(run.question, 4)
    assert rr.action_text == ",".join(p.id for p in expected) != r.action_text
    assert run.counters.retrievals == 1
    assert not rr.agent_trainable


def test_beyond_the_limit_of_searches_it_brings_nothing() -> None:
    from jade_graph.types import Limits

    run = _run(MemoryRetriever(WORLD, "hybrid", HashingEncoder(64)), limits=Limits(retrievals=0))
    assert run.status == "answered"
    assert run.counters.retrievals == 0
    assert [t.action_text for t in run.transitions if t.role in ("R", "RR")] == ["", ""]


def test_a_retriever_that_cannot_ends_the_run_by_name() -> None:
    class Plain:
        corpus_id = "plain"

        async def search(self, query: str, k: int) -> list[Passage]:
            return WORLD[:k]

    for retriever in (Plain(), MemoryRetriever(WORLD)):
        run = _run(retriever, retry_policy=None)
        assert (run.status, run.error) == ("failed", "RERANK_UNAVAILABLE")
