"""Models that think before they answer: the thought is recorded, and is no part of the action."""

from __future__ import annotations

from typing import Any

import pytest

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.types import Run, Thought

THOUGHT = "the plan is <workflow>QDS</workflow> or not? <answer>no</answer> hm </think>\n"


class Thinking(ScriptedBackbone):
    thought = Thought("<think>", "</think>", opened=True, tokens=300)


async def asked(passages: Any, says: dict[str, str], **options: Any) -> Run:
    backbone = Thinking(lambda ask: says[ask.role])
    run: Run = await JadeGraph(backbone, retriever=passages, **options).arun("Who wrote Dune?")
    return run


async def test_a_thought_is_no_illegal_action(passages: Any) -> None:
    says = {"PL": f"{THOUGHT}<workflow>R,AG</workflow>", "AG": f"{THOUGHT}<answer>Frank Herbert</answer>"}
    run = await asked(passages, says)
    assert run.answer == "Frank Herbert"
    plan, answer = (t for t in run.transitions if t.role in says)
    assert plan.valid
    assert answer.valid
    assert answer.action_text == says["AG"]
    assert answer.sampling["max_new_tokens"] > 300


async def test_a_thought_without_end_is_no_action(passages: Any) -> None:
    run = await asked(passages, {"PL": f"{THOUGHT}<workflow>AG</workflow>", "AG": "<answer>I wonder</answer> hm"})
    answer = run.transitions[-1]
    assert not answer.valid
    assert answer.fallback_used


@pytest.mark.parametrize("options", [{"constrained": True}])
async def test_a_plan_that_was_chosen_needs_no_end_of_thought(passages: Any, options: dict[str, Any]) -> None:
    run = await asked(passages, {"PL": "<workflow>AG</workflow>", "AG": f"{THOUGHT}<answer>yes</answer>"}, **options)
    assert [t.valid for t in run.transitions] == [True, True]


async def test_a_role_that_speaks_of_thoughts_reads_them(passages: Any) -> None:
    run = await asked(passages, {"SR": "I know it</think><answer>yes</answer>"}, preset="search-r1")
    assert run.transitions[0].parsed == {"think": "I know it", "answer": "yes"}
