"""Texts that training judges: cut, weighed, recorded; and graphs that serve, which know nothing of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jade_graph import plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import GraphError, UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.runs.store import RunStore
from jade_graph.types import Ask, Completion, Passage, Preset, Question, Run, Sampling
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.judged import judged, long_part
from jade_graph.workflow.judging import lengths_of, weight_of

pytestmark = pytest.mark.usefixtures("declared")

THOUGHT = "Ann made X. It rained. So Ann."
CORPUS = MemoryRetriever([Passage("1", "X was made by Ann Lee.", "X")])
QUESTION = Question("q1", "Who made X?", answers=("Ann Lee",))


def policy(scores: str = "<score>5</score><score>1</score><score>4</score>", cut: str | None = None) -> Any:
    def answer(ask: Ask) -> str:
        if ask.role == "SG":
            text = str(ask.view.memory["text"])
            return cut if cut is not None else "".join(f"<seg>{s}</seg>" for s in sentences(text))
        if ask.role == "SC":
            return scores
        if not ask.view.memory.get("queries"):
            return f"<think>{THOUGHT}</think><search>who made X</search>"
        return f"<think>{THOUGHT}</think><answer>Ann Lee</answer>"

    return answer


def sentences(text: str) -> list[str]:
    parts = text.split(". ")
    return [p + ". " for p in parts[:-1]] + parts[-1:]


def engine(backbone: Any = None, **options: Any) -> Engine:
    given = {"preset": "search-r1", "retriever": CORPUS, **options}
    return Engine(backbone or ScriptedBackbone(policy()), **given)


def test_the_graph_that_serves_has_no_part_that_judges_and_one_that_trains_has() -> None:
    serving, training = engine(), engine(compress="joint")
    assert not {"SG", "SC", "judge"} & set(serving.graph.get_graph().nodes)
    assert not {"SG", "SC"} & set(serving.roles)
    assert "judge" in training.graph.get_graph().nodes
    preset: Preset = plugins.load("jade.presets", "search-r1")
    bare = engine(preset=replace(preset, compress=()))
    assert serving.graph_hash == bare.graph_hash != training.graph_hash


def test_the_front_door_which_serves_opens_no_graph_that_judges() -> None:
    graph = JadeGraph(ScriptedBackbone(policy()), preset="search-r1", retriever=CORPUS)
    assert graph.engine.compress is None
    assert not {"SG", "SC", "judge"} & {*graph.graph.get_graph().nodes, *graph.roles}
    with pytest.raises(TypeError):
        JadeGraph(ScriptedBackbone(policy()), preset="search-r1", compress="joint")  # type: ignore[call-arg]


@pytest.mark.parametrize("checkpointer", [False, True])
async def test_a_run_is_judged_after_it_is_over_and_costs_what_a_served_one_costs(checkpointer: bool) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    def saver() -> Any:  # both ways of driving
        return InMemorySaver() if checkpointer else None

    served = await engine(checkpointer=saver()).arun(QUESTION, run_id="a")
    trained = await engine(compress="joint", checkpointer=saver()).arun(QUESTION, run_id="a")
    own = [t for t in trained.transitions if t.judges is None]
    assert [(t.role, t.action_text, t.seq) for t in own] == [(t.role, t.action_text, t.seq) for t in served.transitions]
    assert trained.counters == served.counters
    assert trained.answer == served.answer == "Ann Lee"
    assert "compression" not in served.metadata
    judges = [t for t in trained.transitions if t.judges is not None]
    assert [(t.role, t.judges) for t in judges] == [("SG", 0), ("SG", 2), ("SC", 0), ("SC", 2)]
    assert all(t.learns and len(t.old_logprobs) == len(t.action_token_ids) for t in judges)
    assert trained.illegal_actions == 0


async def test_the_texts_of_a_run_are_recorded_with_pieces_lengths_and_weights(tmp_path: Path) -> None:
    with RunStore(tmp_path / "runs.sqlite") as store:
        run = await engine(compress="joint", recorder=store).arun(QUESTION)
        kept = store.get(run.id)
    first, second = judged(kept)
    assert first.pieces == ("Ann made X. ", "It rained. ", "So Ann.")
    assert first.weights == (5.0, 1.0, 4.0)
    assert (first.seq, second.seq, first.valid) == (0, 2, True)
    assert first.tokens == math.ceil(len(THOUGHT) / 3)
    assert [t.judges for t in kept.transitions][-4:] == [0, 2, 0, 2]
    assert kept.transitions == run.transitions


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        (f"<seg>{THOUGHT[:-1]}!</seg>", "NOT_LOSSLESS"),
        (f"<seg>{THOUGHT} </seg>", "NOT_LOSSLESS"),
        (THOUGHT, "NO_TAG"),
        (f"<seg>{THOUGHT}</seg><seg></seg>", "EMPTY_ITEM"),
        (f"<seg>{THOUGHT}</seg> and so on", "EXTRA_TEXT"),
    ],
)
async def test_a_cut_that_changes_a_byte_is_no_cut(cut: str, why: str) -> None:
    run = await engine(ScriptedBackbone(policy(cut=cut)), compress="joint").arun(QUESTION)
    assert {(text.valid, text.why, text.weights) for text in judged(run)} == {(False, why, None)}
    assert {t.violation for t in run.transitions if t.role == "SG"} == {why}
    assert not [t for t in run.transitions if t.role == "SC"]
    assert run.status == "answered"
    assert run.illegal_actions == 0  # the run's own actions were legal


@pytest.mark.parametrize("scores", ["<score>5</score>", "5 1 4", "<score>5</score><score>0</score><score>6</score>"])
async def test_scores_that_are_missing_or_none_count_for_nothing(scores: str) -> None:
    run = await engine(ScriptedBackbone(policy(scores)), compress="joint").arun(QUESTION)
    assert not any(text.valid for text in judged(run))


async def test_tags_in_a_text_do_not_spare_it() -> None:
    def answer(ask: Ask) -> str:
        return "<think>a <seg>b</seg> c</think><answer>Ann</answer>"

    run = await engine(ScriptedBackbone(answer), compress="joint").arun(QUESTION)
    (text,) = judged(run)
    assert (text.valid, text.why, text.weights) == (True, "TAGGED", (1.0,))


async def test_a_judge_that_fails_costs_the_judgement_and_not_the_answer() -> None:
    def answer(ask: Ask) -> Any:
        return RuntimeError("no") if ask.role == "SG" else policy()(ask)

    class Own(ScriptedBackbone):
        async def generate(self, ids: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
            if hint is not None and hint.role == "SG":
                raise RuntimeError("gone")
            return await super().generate(ids, sampling, hint=hint)

    run = await engine(Own(policy()), compress="joint").arun(QUESTION)
    assert (run.status, run.answer, run.error) == ("answered", "Ann Lee", None)
    assert {text.why for text in judged(run)} == {"ROLE_ERROR"}


async def test_a_uniform_look_asks_nobody() -> None:
    run = await engine(compress="uniform").arun(QUESTION)
    assert [t.role for t in run.transitions] == ["SR", "R", "SR"]
    assert [text.weights for text in judged(run)] == [(1.0,), (1.0,)]


async def test_a_frozen_scorer_does_not_learn() -> None:
    frozen = ScriptedBackbone(policy(), version="frozen")
    run = await engine(compress="frozen", frozen_backbone=frozen).arun(QUESTION)
    by_role = {t.role: (t.backbone_version, t.learns) for t in run.transitions}
    assert by_role["SG"] == ("scripted", True)
    assert by_role["SC"] == ("frozen", False)


class Weighing(ScriptedBackbone):
    """Finds what follows as probable as the prompt has needed pieces; counts how many requests were out at once."""

    def __init__(self) -> None:
        super().__init__(policy())
        self.out = self.most = 0

    async def generate(self, ids: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        if sampling.forced is None:
            return await super().generate(ids, sampling, hint=hint)
        self.out += 1
        self.most = max(self.most, self.out)
        done = await super().generate(ids, sampling, hint=hint)
        self.out -= 1
        own = self.decode(ids).rpartition("<think>")[2]
        nats = -0.5 * ("made X" not in own) - 3.0 * ("So Ann" not in own) + 0.2 * ("rained" not in own)
        return replace(done, logprobs=(nats, *done.logprobs[1:]))


async def test_leaving_out_weighs_by_what_the_text_led_to_in_one_batch() -> None:
    backbone = Weighing()
    run = await engine(backbone, compress="leave_one_out").arun(QUESTION)
    for text in judged(run):
        assert text.drops == pytest.approx((0.5, -0.2, 3.0))
        assert text.weights == pytest.approx((3.0, 1.0, 5.0))
    assert backbone.most == 2 * 4  # both texts, whole and without each of three pieces
    assert not [t for t in run.transitions if t.role == "SC"]


async def test_without_anything_behind_it_a_text_cannot_be_weighed_by_leaving_out() -> None:
    def answer(ask: Ask) -> str:
        return "<seg>Ann </seg><seg>Lee</seg>" if ask.role == "SG" else "<answer>Ann Lee</answer>"

    run = await engine(ScriptedBackbone(answer), compress="leave_one_out").arun(QUESTION)
    (text,) = judged(run)
    assert (text.valid, text.why) == (False, "NOTHING_FOLLOWS")


def test_what_cannot_be_judged_is_said_when_the_graph_is_made() -> None:
    preset: Preset = plugins.load("jade.presets", "search-r1")
    with pytest.raises(GraphError, match="GRAPH_COMPRESS"):
        engine(preset=replace(preset, compress=()), compress="joint")
    with pytest.raises(UsageError, match="UNKNOWN_SCORER"):
        engine(compress="sloo")
    with pytest.raises(UsageError, match="UNKNOWN_ROLE"):
        engine(preset=replace(preset, compress=("XX",)))


@pytest.mark.parametrize(
    ("action", "long"),
    [
        ("<think> a b </think><answer>c</answer>", "a b"),
        ("<THINK>a</THINK>\n<search>c</search>", "a"),
        ("<evidence>a b</evidence>", "a b"),
        ("<q1>a</q1><q2>b</q2>", "<q1>a</q1><q2>b</q2>"),
        ("<a>x</a> and <a>y</a>", "<a>x</a> and <a>y</a>"),
        (" plain text ", "plain text"),
        ("<think>  </think><answer>c</answer>", ""),
        ("", ""),
    ],
)
def test_the_long_part_of_an_action(action: str, long: str) -> None:
    start, end = long_part(action)
    assert action[start:end] == long


def test_lengths_of_pieces_sum_to_those_of_the_text() -> None:
    backbone = ScriptedBackbone(policy())
    for pieces in (("a", "b", "c", "d"), ("abcdef", "g"), ("", "abc")):
        assert sum(lengths_of(pieces, backbone)) == len(backbone.encode_text("".join(pieces)))


def test_the_weight_of_a_drop_is_between_1_and_5() -> None:
    assert [weight_of(d) for d in (-3.0, 0.0, 0.25, 1.0, 9.0)] == [1.0, 1.0, 2.0, 5.0, 5.0]


def test_a_recorded_run_that_was_judged_is_forked_like_any_other() -> None:
    parent = engine(compress="joint").run(QUESTION)
    from jade_graph.sync import run_sync

    new: Run = run_sync(engine().afork(parent, at=2, text="<answer>Bob</answer>"))
    assert new.answer == "Bob"
