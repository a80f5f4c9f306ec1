from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.backbones import load_backbone
from jade_graph.backbones.scripted import EOS, ScriptedBackbone
from jade_graph.errors import BackboneError
from jade_graph.testing.backbones import BackboneConformance, Subject
from jade_graph.types import Ask, Message, Sampling, View

ASK = Ask("AG", View("who?", "who?", "root"), "q1")


def policy(ask: Ask) -> str:
    return f"<answer>{ask.role} says Zoë</answer>"


class TestConformance(BackboneConformance):
    subject = Subject(samples=False, hint=ASK)

    @pytest.fixture
    def backbone(self) -> ScriptedBackbone:
        return ScriptedBackbone(policy)


async def test_answers_from_the_policy() -> None:
    backbone = ScriptedBackbone(policy, version="v7")
    completion = await backbone.generate([1], Sampling(), hint=ASK)
    assert completion.text == "<answer>AG says Zoë</answer>"
    assert completion.token_ids == (*backbone.encode_text(completion.text), EOS)
    assert set(completion.logprobs) == {0.0}
    assert (completion.finish_reason, completion.model_version) == ("scripted", "v7")


async def test_cut_at_max_new_tokens() -> None:
    completion = await ScriptedBackbone(policy).generate([1], Sampling(max_new_tokens=3), hint=ASK)
    assert (completion.text, completion.finish_reason, len(completion.token_ids)) == ("<answer>A", "length", 3)


@given(st.text())
def test_tokens_are_reversible(text: str) -> None:
    backbone = ScriptedBackbone(policy)
    assert backbone.decode(backbone.encode_text(text)) == text


def test_profiles_render_differently() -> None:
    messages = [Message("system", "S"), Message("user", "U")]
    compact, chat = ScriptedBackbone(policy), ScriptedBackbone(policy, profile="chat")
    assert compact.decode(compact.encode(messages)) == "SU"
    assert chat.decode(chat.encode(messages)) == "system: S\nuser: U\n"


async def test_choices_are_honoured() -> None:
    backbone = ScriptedBackbone(lambda ask: "QDS")
    choices = tuple((*backbone.encode_text(text), EOS) for text in ("QDS", "R,AG"))
    completion = await backbone.generate([1], Sampling(choices=choices), hint=ASK)
    assert completion.token_ids == choices[0]
    with pytest.raises(BackboneError) as caught:
        await backbone.generate([1], Sampling(choices=choices[1:]), hint=ASK)
    assert caught.value.error_code == "BACKBONE_CHOICES"
    assert caught.value.known == ("R,AG",)


async def test_errors_are_typed() -> None:
    backbone = ScriptedBackbone(lambda ask: ask.view.memory["absent"])
    with pytest.raises(BackboneError) as caught:
        await backbone.generate([1], Sampling())
    assert caught.value.error_code == "BACKBONE_NO_HINT"
    with pytest.raises(BackboneError) as caught:
        await backbone.generate([1], Sampling(), hint=ASK)
    assert caught.value.error_code == "BACKBONE_POLICY"
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(BackboneError) as caught:
        await ScriptedBackbone(policy, max_context=10).generate([1] * 9, Sampling(max_new_tokens=2), hint=ASK)
    assert caught.value.error_code == "CONTEXT_OVERFLOW"
    await backbone.aclose()
    with pytest.raises(BackboneError) as caught:
        await backbone.generate([1], Sampling(), hint=ASK)
    assert caught.value.error_code == "BACKBONE_CLOSED"


async def test_an_exception_that_the_policy_returns_is_raised_as_it_is() -> None:
    with pytest.raises(ConnectionResetError):
        await ScriptedBackbone(lambda ask: ConnectionResetError("x")).generate([1], Sampling(), hint=ASK)


def test_found_by_name() -> None:
    backbone = load_backbone("scripted:os.path:join", latency_s=0.5)
    assert isinstance(backbone, ScriptedBackbone)
    assert backbone.version == "scripted:os.path:join"
    for name in ("os.path:nothing", "no_such_module:policy", ""):
        with pytest.raises(BackboneError) as caught:
            load_backbone(f"scripted:{name}")
        assert caught.value.error_code == "BACKBONE_POLICY"
