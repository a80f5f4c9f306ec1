"""The chat model over a real backbone: exact ids, streams, stop texts, batches, schemas, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.runnables.utils import add
from pydantic import BaseModel, ValidationError

from jade_graph.backbones.hf import HFBackbone
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import JadeError, UsageError
from jade_graph.langchain import ChatModelBackbone, JadeChatModel
from jade_graph.langchain.messages import to_backbone
from jade_graph.testing.models import make_random_model
from jade_graph.types import Message, Sampling


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HFBackbone]:
    found = HFBackbone.load(make_random_model(tmp_path_factory.mktemp("m") / "m", chat=True, max_context=2048))
    yield found
    asyncio.run(found.aclose())


@pytest.fixture
def model(backbone: HFBackbone) -> JadeChatModel:
    return JadeChatModel(backbone=backbone, max_tokens=24)


# --- ids --------------------------------------------------------------------------------------------------------------
async def test_ids_and_log_probabilities_are_those_of_the_backbone(model: JadeChatModel, backbone: HFBackbone) -> None:
    told = await model.ainvoke([SystemMessage("Be brief."), HumanMessage("Who?")])
    prompt = backbone.encode([Message("system", "Be brief."), Message("user", "Who?")])
    direct = await backbone.generate(prompt, Sampling(temperature=0.0, max_new_tokens=24))
    meta = told.response_metadata
    assert meta["prompt_token_ids"] == prompt
    assert tuple(meta["token_ids"]) == direct.token_ids
    assert meta["logprobs"] == pytest.approx(direct.logprobs, abs=1e-4)
    assert told.content == direct.text
    assert (meta["model_name"], meta["finish_reason"]) == (backbone.version, direct.finish_reason)
    assert told.usage_metadata == {
        "input_tokens": len(prompt),
        "output_tokens": len(direct.token_ids),
        "total_tokens": len(prompt) + len(direct.token_ids),
    }


def test_a_greedy_stream_says_what_a_call_says(model: JadeChatModel) -> None:
    called, chunks = model.invoke("Who?"), list(model.stream("Who?"))
    assert len([c for c in chunks if c.content]) > 3
    assert len([c for c in chunks if c.response_metadata.get("token_ids")]) == 1  # one request
    whole = add(chunks)
    assert whole is not None
    assert whole.content == called.content
    for name in ("token_ids", "prompt_token_ids", "finish_reason", "model_name"):
        assert whole.response_metadata[name] == called.response_metadata[name]
    assert whole.response_metadata["logprobs"] == pytest.approx(called.response_metadata["logprobs"], abs=1e-3)
    assert whole.usage_metadata == called.usage_metadata


def test_a_stream_with_stop_texts_is_drawn_in_chunks(model: JadeChatModel) -> None:
    chunks = list(model.stream("Who?", stop=["never there"]))
    assert len([c for c in chunks if c.response_metadata.get("token_ids")]) == 3  # 24 tokens, 8 a chunk


async def test_a_stream_that_is_left_withdraws_its_request(model: JadeChatModel, backbone: HFBackbone) -> None:
    before = backbone.stats
    long = model.model_copy(update={"max_tokens": 200})
    stream = long.astream("Who?")
    await anext(stream)
    await stream.aclose()
    await model.ainvoke("Who?")  # the worker has gone on
    after = backbone.stats
    assert after["cancelled"] - before["cancelled"] == 1
    assert after["row_steps"] - before["row_steps"] < 200


def test_seeds(backbone: HFBackbone) -> None:
    drawn = JadeChatModel(backbone=backbone, temperature=1.0, max_tokens=12)
    fixed = [drawn.bind(seed=5).invoke("Who?").content for _ in range(2)]
    assert fixed[0] == fixed[1]
    told = drawn.invoke("Who?")
    again = drawn.invoke("Who?", seed=told.response_metadata["seed"])
    assert again.response_metadata["token_ids"] == told.response_metadata["token_ids"]


def test_batches_reach_the_backbone_together(model: JadeChatModel, backbone: HFBackbone) -> None:
    before = backbone.stats
    answers = model.batch([f"Question {i}" for i in range(12)])
    after = backbone.stats
    assert [a.content for a in answers] == [model.invoke(f"Question {i}").content for i in range(12)]
    assert after["rows"] - before["rows"] == 12
    assert after["batches"] - before["batches"] < 12


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_one_seed_is_one_text_in_calls_and_streams_with_and_without_stop(backbone: HFBackbone, top_p: float) -> None:
    for seed in range(4):
        drawn = JadeChatModel(backbone=backbone, temperature=1.0, top_p=top_p, max_tokens=40, seed=seed)
        text = drawn.invoke("Who?").text
        never = ["never there"]
        assert drawn.invoke("Who?", stop=never).text == text
        for chunk in (1, 7, 64):
            streamed = drawn.model_copy(update={"stream_tokens": chunk})
            assert add(streamed.stream("Who?")).content == text  # type: ignore[union-attr]
            assert add(streamed.stream("Who?", stop=never)).content == text  # type: ignore[union-attr]
        end = text[8:10]
        assert drawn.invoke("Who?", stop=[end]).text == text[: text.index(end)]
        assert add(drawn.stream("Who?", stop=[end])).content == text[: text.index(end)]  # type: ignore[union-attr]


def test_where_a_seed_cannot_be_gone_on_with_the_answer_is_drawn_whole() -> None:
    asked: list[Sampling] = []

    class Own(ScriptedBackbone):
        continues = True

        async def generate(self, prompt: Any, sampling: Sampling, *, hint: Any = None) -> Any:
            asked.append(sampling)
            return await super().generate(prompt, sampling, hint=hint)

    drawn = JadeChatModel(backbone=Own(lambda a: "a long answer in several words"), temperature=1.0, seed=3)
    assert drawn.invoke("Who?", stop=["in"]).text == "a long answer "
    assert [(s.seed, s.max_new_tokens) for s in asked] == [(3, 256)]


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"top_p": 0.5}, {"temperature": 0.5}, {"max_tokens": 3}, {"stop": ["a"]}, {"backbone": "another"}],
)
def test_a_cache_knows_models_apart_by_whatever_changes_their_answers(change: dict[str, Any]) -> None:
    def made(version: str, **more: Any) -> JadeChatModel:
        backbone = ScriptedBackbone(lambda a: f"{version} {more}", version=version)
        return JadeChatModel(backbone=backbone, cache=cache, **more)

    cache = InMemoryCache()
    base = {"temperature": 1.0, "seed": 1}
    other = change.pop("backbone", "one")
    one, two = made("one", **base), made(other, **{**base, **change})
    told = one.invoke("Who?").text
    assert two.invoke("Who?").text != told
    assert made("one", **base).invoke("Who?").text == told
    assert len(cache._cache) == 2


def test_tokens_are_counted_by_the_backbones_own_tokenizer(model: JadeChatModel, backbone: HFBackbone) -> None:
    text = "How many tokens is this, é漢?"
    assert model.get_token_ids(text) == backbone.encode_text(text)
    assert model.get_num_tokens(text) == len(backbone.encode_text(text)) > 0
    messages = [SystemMessage("Be brief."), HumanMessage(text)]
    told = model.invoke(messages)
    assert told.usage_metadata is not None
    assert model.get_num_tokens_from_messages(messages) == told.usage_metadata["input_tokens"]
    kept = trim_messages(messages, max_tokens=model.get_num_tokens_from_messages(messages[1:]), token_counter=model)
    assert kept == messages[1:]
    with pytest.raises(UsageError, match="CHAT_NO_TOOLS"):
        model.get_num_tokens_from_messages(messages, tools=[{}])


# --- where an answer ends ---------------------------------------------------------------------------------------------
def test_a_stop_text_ends_the_answer_in_calls_and_streams(model: JadeChatModel) -> None:
    text = model.invoke("Who?").text
    end = text[5:7]
    at = text.index(end)
    for answer in (model.invoke("Who?", stop=[end]), add(model.stream("Who?", stop=[end, "never there"]))):
        assert answer is not None
        assert answer.content == text[:at]
        assert answer.response_metadata["finish_reason"] == "stop"
    kept = JadeChatModel(backbone=model.backbone, max_tokens=24, stop=[end])
    assert kept.invoke("Who?").content == text[:at]


def test_an_answer_that_does_not_fit_is_shorter_and_says_so(backbone: HFBackbone) -> None:
    told = JadeChatModel(backbone=backbone, max_tokens=5000).invoke("Who?")
    meta = told.response_metadata
    assert len(meta["prompt_token_ids"]) + len(meta["token_ids"]) <= backbone.max_context
    with pytest.raises(JadeError, match="CONTEXT_OVERFLOW"):
        JadeChatModel(backbone=backbone).invoke("long " * 3000)


async def test_the_timeout_is_kept() -> None:
    slow = ScriptedBackbone(lambda ask: "late", latency_s=5)
    with pytest.raises(TimeoutError):
        await JadeChatModel(backbone=slow, timeout=0.01).ainvoke("Who?")


def test_a_scripted_backbone_answers_too() -> None:
    echo = JadeChatModel(backbone=ScriptedBackbone(lambda ask: f"about {ask.view.question}"), stream_tokens=1)
    assert echo.invoke("Dune").content == "about Dune"
    assert add(echo.stream("Dune")).content == "about Dune"  # type: ignore[union-attr]


# --- messages ---------------------------------------------------------------------------------------------------------
def test_messages_become_texts_of_three_roles() -> None:
    given = [
        SystemMessage("s"),
        HumanMessage("a"),
        HumanMessage([{"type": "text", "text": "b"}]),
        AIMessage("c"),
        ChatMessage(role="user", content="d"),
    ]
    assert to_backbone(given) == [
        Message("system", "s"),
        Message("user", "a\nb"),
        Message("assistant", "c"),
        Message("user", "d"),
    ]


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage([{"type": "image", "url": "http://x/y.png"}]),
        ToolMessage("42", tool_call_id="1"),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        ChatMessage(role="critic", content="d"),
    ],
)
def test_what_the_model_cannot_read_is_refused(model: JadeChatModel, message: Any) -> None:
    with pytest.raises(UsageError, match="CHAT_MESSAGE"):
        model.invoke([message])


def test_tools_are_refused_with_what_to_do_instead(model: JadeChatModel) -> None:
    with pytest.raises(NotImplementedError, match=r"CHAT_NO_TOOLS.*with_structured_output"):
        model.bind_tools([lambda x: x])
    with pytest.raises(UsageError, match="CHAT_NO_TOOLS"):
        model.invoke("Who?", tools=[{}])


def test_unknown_options_are_errors(model: JadeChatModel) -> None:
    with pytest.raises(UsageError, match="UNKNOWN_OPTION"):
        model.invoke("Who?", temprature=1)
    with pytest.raises(ValidationError, match="max_token"):
        JadeChatModel(backbone=model.backbone, max_token=3)


# --- schemas ----------------------------------------------------------------------------------------------------------
class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str
    weight: float


class Thing(BaseModel):
    title: str
    year: int
    colour: Colour
    sure: bool
    mood: Literal["good", "bad"] | None
    tags: list[str]
    parts: list[Part]


@pytest.mark.parametrize("seed", range(6))
def test_any_model_fills_in_a_schema(backbone: HFBackbone, seed: int) -> None:
    """Random weights write any bytes at all: what comes out has the schema's shape nevertheless."""
    wild = JadeChatModel(backbone=backbone, temperature=1.5, seed=seed, max_tokens=64)
    thing = wild.with_structured_output(Thing).invoke("Describe it.")
    assert isinstance(thing, Thing)
    raw = wild.with_structured_output(Thing.model_json_schema(), include_raw=True).invoke("Describe it.")
    assert raw["parsing_error"] is None
    assert json.loads(raw["raw"].content) == raw["parsed"]
    assert set(raw["parsed"]) == set(Thing.model_fields)


def test_a_choice_is_drawn_by_the_models_own_probabilities(model: JadeChatModel) -> None:
    class Verdict(BaseModel):
        kind: Literal["yes", "no", "maybe"]

    drawn = {
        JadeChatModel(backbone=model.backbone, temperature=1.0, seed=s).with_structured_output(Verdict).invoke("?").kind  # type: ignore[union-attr]
        for s in range(12)
    }
    assert len(drawn) > 1


def test_values_that_break_their_bounds_are_told(model: JadeChatModel) -> None:
    schema = {"type": "object", "title": "T", "properties": {"a": {"type": "string", "pattern": "^never$"}}}

    class Bound(BaseModel):
        n: Literal[3]
        text: str

        def model_post_init(self, context: Any, /) -> None:
            raise ValueError("no good")

    raw = model.with_structured_output(Bound, include_raw=True).invoke("?")
    assert raw["parsed"] is None
    assert "no good" in str(raw["parsing_error"])
    assert set(model.with_structured_output(schema).invoke("?")) == {"a"}


def test_what_cannot_be_filled_in_is_named(model: JadeChatModel) -> None:
    loose = {"title": "T", "type": "object", "properties": {"x": {"description": "anything"}}}
    with pytest.raises(UsageError, match=r"STRUCTURED_SCHEMA.*anything"):
        model.with_structured_output(loose).invoke("?")
    endless: dict[str, Any] = {
        "title": "T",
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/T"}},
        "$defs": {"T": {"type": "object", "properties": {"next": {"$ref": "#/$defs/T"}}}},
    }
    with pytest.raises(UsageError, match="nested deeper"):
        model.with_structured_output(endless).invoke("?")
    with pytest.raises(UsageError, match="UNKNOWN_OPTION"):
        model.with_structured_output(Part, method="magic")


def test_a_tokenizer_of_words_cannot_spell_json() -> None:
    """The bundled model: better an error than a JSON of unknown words."""
    with pytest.raises(UsageError, match="STRUCTURED_TOKENIZER"):
        JadeChatModel(backbone="tiny").with_structured_output(Part).invoke("?")


def test_a_model_without_ids_is_used_directly() -> None:
    over = JadeChatModel(backbone=ChatModelBackbone(JadeChatModel(backbone=ScriptedBackbone(lambda a: "x"))))
    with pytest.raises(UsageError, match="STRUCTURED_SCHEMA"):
        over.with_structured_output(Part)
    told = over.invoke("Who?")
    assert told.content == "x"
    assert told.response_metadata["token_ids"] == []


def test_the_path_of_a_folder_is_a_backbone(tmp_path: Path) -> None:
    folder = make_random_model(tmp_path / "m")
    assert isinstance(JadeChatModel(backbone=str(folder)).backbone, HFBackbone)
