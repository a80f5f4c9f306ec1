"""Other models for single roles: LangChain chat models as backbones, and what is recorded of them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from jade_graph import JadeGraph, RunStore
from jade_graph.errors import BackboneError, GraphError
from jade_graph.langchain import ChatModelBackbone, JadeChatModel
from jade_graph.langchain.adapting import as_backbone
from jade_graph.rollouts.collecting import facts_of
from jade_graph.runs.recording import act, record_run
from jade_graph.types import Message, Sampling


class Hosted(BaseChatModel):
    """Plans QR,R,AG, and says what it was asked and how many tokens that took."""

    model_name: str = "hosted-1"
    asked: list[Any] = []  # noqa: RUF012  a pydantic field
    counts: bool = True

    @property
    def _llm_type(self) -> str:
        return "hosted"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        self.asked.append((messages, kw))
        usage: Any = {"input_tokens": 100, "output_tokens": 7, "total_tokens": 107} if self.counts else None
        reason = {"finish_reason": "stop"}
        reply = AIMessage("<workflow>QR,R,AG</workflow>", usage_metadata=usage, response_metadata=reason)
        return ChatResult(generations=[ChatGeneration(message=reply)])


# --- in a graph -------------------------------------------------------------------------------------------------------
async def test_one_role_is_hosted_and_the_rest_stay_local(scripted: Any, passages: Any, tmp_path: Any) -> None:
    hosted = Hosted()
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, backbones={"PL": hosted}, recorder=store)
        out = await graph.ainvoke("Who?")
        run = store.get(out["run_id"])
    planner, rewriter = run.transitions[0], run.transitions[1]
    assert run.plan == "QR,R,AG"
    assert planner.backbone_version == "hosted-1"
    assert (planner.prompt_token_ids, planner.action_token_ids, planner.old_logprobs) == ((), (), ())
    assert not planner.agent_trainable
    assert not planner.learns
    assert planner.sampling["temperature"] is None
    assert [m.role for m in planner.prompt_messages] == ["system", "user"]
    assert (rewriter.backbone_version, rewriter.learns) == ("scripted", True)
    assert run.backbone_version == "scripted"
    assert run.metadata["backbones"] == {"PL": "hosted-1"}
    ((messages, _),) = hosted.asked
    assert [m.type for m in messages] == ["system", "human"]


async def test_tokens_are_counted_as_the_model_says(scripted: Any, passages: Any) -> None:
    local = JadeGraph(scripted(), retriever=passages)
    plain = await local.arun("Who?", plan="AG")
    for counts in (True, False):
        graph = JadeGraph(scripted(), retriever=passages, backbones={"planner": Hosted(counts=counts)})
        run = await graph.arun("Who?")
        before, after = run.transitions[0].counters_before, run.transitions[0].counters_after
        spent = after["prompt_tokens"] - before["prompt_tokens"], after["action_tokens"] - before["action_tokens"]
        assert spent == (100, 7) if counts else spent[0] > 100 and spent[1] == 7
    assert plain.transitions[0].prompt_token_ids


def test_kinds_stand_for_their_roles_and_a_code_beats_its_kind(scripted: Any, passages: Any) -> None:
    other, third = scripted({"version": "other"}), scripted({"version": "third"})
    graph = JadeGraph(scripted(), retriever=passages, backbones={"executor": other, "AG": third})
    assert graph.versions == {"AG": "third", "DS": "other", "QR": "other"}
    run = graph.run("Who?", plan="QR,R,AG")  # a plan that is given is not asked of the planner
    told = [(t.role, t.backbone_version, t.agent_trainable) for t in run.transitions if t.backbone_version]
    assert told == [("QR", "other", False), ("AG", "third", False)]


def test_a_rollout_knows_the_versions_of_all_models(scripted: Any, passages: Any) -> None:
    one = JadeGraph(scripted(), retriever=passages, backbones={"PL": Hosted()})
    assert facts_of(one)["backbones"] == {"PL": "hosted-1"}
    assert "backbones" not in facts_of(JadeGraph(scripted(), retriever=passages))


async def test_rollouts_go_on_only_with_the_same_models(scripted: Any, passages: Any, tmp_path: Any) -> None:
    from jade_graph.rollouts.collecting import _strange_version

    graph = JadeGraph(scripted(), retriever=passages, backbones={"PL": Hosted()})
    run = await graph.arun("Who?")
    facts = facts_of(graph)
    assert _strange_version(run, facts) is None
    assert _strange_version(run, {**facts, "backbones": {"PL": "hosted-2"}}) == "hosted-1"
    assert _strange_version(run, {**facts, "backbone_version": "v2"}) == "scripted"


def test_the_whole_graph_can_be_hosted(passages: Any) -> None:
    replies = ["<workflow>R,AG</workflow>", "<answer>Ann Lee</answer>"]
    graph = JadeGraph(FakeListChatModel(responses=replies), retriever=passages)
    run = graph.run("Who?")
    assert run.answer == "Ann Lee"
    assert not any(t.learns for t in run.transitions)
    assert not any(t.agent_trainable for t in run.transitions)


def test_a_hosted_planner_cannot_be_constrained(scripted: Any, passages: Any) -> None:
    with pytest.raises(GraphError, match="GRAPH_CONSTRAINED"):
        JadeGraph(scripted(), retriever=passages, backbones={"PL": Hosted()}, constrained=True)


def test_a_model_that_fails_fails_the_run_by_name(scripted: Any, passages: Any) -> None:
    class Down(Hosted):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            raise ConnectionError("no route")

    run = JadeGraph(scripted(), retriever=passages, backbones={"PL": Down()}).run("Who?")
    assert (run.status, run.error) == ("failed", "BACKBONE_CHAT_MODEL")
    assert "no route" in run.error_message


async def test_a_foreign_agents_hosted_calls_do_not_train() -> None:
    async with record_run("Who?", backbone=ChatModelBackbone(Hosted())) as rec:
        rec.answer = (await act("router", "Which way?")).text
    (row,) = rec.run.transitions
    assert not row.agent_trainable
    assert (row.prompt_token_ids, row.action_text) == ((), "<workflow>QR,R,AG</workflow>")


# --- alone ------------------------------------------------------------------------------------------------------------
async def test_options_are_passed_and_messages_come_back_whole() -> None:
    hosted = Hosted()
    backbone = ChatModelBackbone(hosted, options={"max_tokens": 9}, version="mine")
    said = [Message("system", 'é漢🎬 "quoted"'), Message("user", "u"), Message("assistant", "a"), Message("user", "v")]
    done = await backbone.generate(backbone.encode(said), Sampling())
    ((messages, options),) = hosted.asked
    assert [m.content for m in messages] == [m.content for m in said]
    assert options == {"max_tokens": 9}
    assert (done.model_version, done.prompt_tokens, done.action_tokens) == ("mine", 100, 7)


@pytest.mark.parametrize(
    ("ids", "sampling", "code"),
    [
        ([1, 2, 3], Sampling(), "BACKBONE_PROMPT"),
        (None, Sampling(choices=((1, 0),)), "BACKBONE_CHOICES"),
        (None, Sampling(forced=(1, 0)), "BACKBONE_FORCED"),
        (None, Sampling(max_new_tokens=200_000), "CONTEXT_OVERFLOW"),
    ],
)
async def test_what_it_cannot_do_is_an_error(ids: Any, sampling: Sampling, code: str) -> None:
    backbone = ChatModelBackbone(Hosted())
    with pytest.raises(BackboneError) as caught:
        await backbone.generate(ids or backbone.encode([Message("user", "u")]), sampling)
    assert caught.value.error_code == code


def test_our_own_chat_model_gives_its_backbone_with_its_ids(scripted: Any) -> None:
    local = scripted()
    assert as_backbone(JadeChatModel(backbone=local)) is local
    assert as_backbone(local) is local
    assert as_backbone(Hosted()).version == "hosted-1"
