"""OpenAIBackbone against a real server on a loopback port: the same model here and there must agree."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jade_graph.backbones import load_backbone
from jade_graph.backbones.hf import HFBackbone
from jade_graph.backbones.line import is_loopback, retry_after
from jade_graph.backbones.openai_ import OpenAIBackbone, connect
from jade_graph.errors import BackboneError, JadeError
from jade_graph.testing.backbones import BackboneConformance, Subject
from jade_graph.testing.server import Server, serve
from jade_graph.types import Message, Sampling
from tests.waiting import until


@pytest.fixture(scope="module")
def running(chat: HFBackbone, chat_folder: Path) -> Iterator[Server]:
    with serve(Server(chat, root=str(chat_folder))) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.requests.clear()
    running.headers.clear()
    running.faults.clear()
    running.abandoned = 0
    running.raw_logprobs = False
    return running


@pytest.fixture
def backbone(server: Server) -> Iterator[OpenAIBackbone]:
    backbone = make(server)
    yield backbone
    asyncio.run(backbone.aclose())


def make(server: Server, **options: Any) -> OpenAIBackbone:
    """As `connect` makes it, with waits too short to notice."""
    made = connect(f"{server.url}#served", **options)
    made._line._backoff_s = 0.001
    return made


class TestConformance(BackboneConformance):
    subject = Subject(tolerance=1e-4)


def prompt(backbone: OpenAIBackbone) -> list[int]:
    return backbone.encode([Message("user", "Who?")])


async def test_the_server_draws_what_the_model_draws_here(backbone: OpenAIBackbone, chat: HFBackbone) -> None:
    samplings = [
        Sampling(t, p, 9, seed) for seed, (t, p) in enumerate([(1.0, 1.0), (0.7, 1.0), (1.4, 0.8), (0.0, 1.0)])
    ]
    there = await asyncio.gather(*(backbone.generate(prompt(backbone), s) for s in samplings))
    here = [await chat.generate(prompt(backbone), s) for s in samplings]
    for a, b in zip(there, here, strict=True):
        assert (a.text, a.token_ids, a.finish_reason) == (b.text, b.token_ids, b.finish_reason)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert a.model_version == "served"


async def test_what_is_sent(backbone: OpenAIBackbone, server: Server) -> None:
    """Prompt ids as they are, and every switch that a server would take from elsewhere."""
    await backbone.generate(prompt(backbone), Sampling(max_new_tokens=5, seed=-1))
    (body,) = server.requests
    assert body["prompt"] == prompt(backbone)
    assert body["return_token_ids"] is True
    assert (body["top_k"], body["min_p"], body["repetition_penalty"], body["top_p"]) == (-1, 0.0, 1.0, 1.0)
    assert set(body["stop_token_ids"]) == {1, 3}
    assert 0 <= body["seed"] < 2**63
    assert "authorization" not in server.headers[0]


async def test_a_key_is_sent_where_one_is_given(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JADE_OPENAI_API_KEY", "from-env")
    for options, expected in (({}, "from-env"), ({"api_key": "given"}, "given")):
        backbone = make(server, **options)
        await backbone.generate(prompt(backbone), Sampling(max_new_tokens=1))
        assert server.headers[-1]["authorization"] == f"Bearer {expected}"
        await backbone.aclose()


async def test_choices_are_walked_by_allowed_ids(backbone: OpenAIBackbone, server: Server, chat: HFBackbone) -> None:
    """Only where the trie branches, and the probabilities are those of the restricted distribution."""
    choices = ((10, 11, 12, 3), (10, 11, 13, 3), (20, 3))
    completion = await backbone.generate(prompt(backbone), Sampling(max_new_tokens=4, seed=1, choices=choices))
    assert completion.token_ids in choices
    assert completion.finish_reason == "stop"
    walked = [body["allowed_token_ids"] for body in server.requests[1:]]  # the first asks how the server counts
    assert walked == ([[10, 20], [12, 13]] if completion.token_ids[0] == 10 else [[10, 20]])
    with torch.no_grad():
        logits = chat.model(torch.tensor([prompt(backbone)])).logits[0, -1, [10, 20]]
    expected = torch.log_softmax(logits, -1)[0 if completion.token_ids[0] == 10 else 1]
    assert completion.logprobs[0] == pytest.approx(expected.item(), abs=1e-4)
    assert completion.logprobs[-1] == 0.0


async def test_log_probabilities_from_before_the_temperature_are_refused(server: Server) -> None:
    server.raw_logprobs = True
    backbone = make(server)
    assert (await backbone.generate(prompt(backbone), Sampling(max_new_tokens=2))).token_ids  # the same at 1
    for _ in range(2):
        with pytest.raises(BackboneError) as caught:
            await backbone.generate(prompt(backbone), Sampling(0.7, max_new_tokens=2))
        assert caught.value.error_code == "BACKBONE_RAW_LOGPROBS"
        assert "processed_logprobs" in caught.value.hint
    server.raw_logprobs = False
    await backbone.generate(prompt(backbone), Sampling(0.7, max_new_tokens=2))
    await backbone.aclose()


def without(*names: str) -> Any:
    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        choice = {key: value for key, value in answer["choices"][0].items() if key not in names}
        return answer | {"choices": [choice]}

    return spoil


def changed(**fields: Any) -> Any:
    return lambda answer: answer | {"choices": [answer["choices"][0] | fields]}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (without("token_ids"), "BACKBONE_NO_TOKEN_IDS"),
        (changed(token_ids=None), "BACKBONE_NO_TOKEN_IDS"),
        (changed(token_ids=["a"]), "BACKBONE_NO_TOKEN_IDS"),
        (without("logprobs"), "BACKBONE_BAD_RESPONSE"),
        (changed(logprobs={"token_logprobs": [None] * 4}), "BACKBONE_BAD_RESPONSE"),
        (changed(token_ids=[9] * 99), "BACKBONE_BAD_RESPONSE"),
        (changed(token_ids=[], logprobs={"token_logprobs": []}), "BACKBONE_BAD_RESPONSE"),
        (changed(prompt_token_ids=[1, 2]), "BACKBONE_BAD_RESPONSE"),
        (changed(token_ids=[9], logprobs={"token_logprobs": [-1.0]}, finish_reason="stop"), "BACKBONE_BAD_RESPONSE"),
        (lambda answer: {"choices": []}, "BACKBONE_BAD_RESPONSE"),
        (lambda answer: [], "BACKBONE_BAD_RESPONSE"),
        (lambda answer: "<html>", "BACKBONE_BAD_RESPONSE"),
    ],
)
async def test_answers_that_do_not_say_everything_are_refused(
    backbone: OpenAIBackbone, server: Server, fault: Any, code: str
) -> None:
    server.faults = [fault]
    with pytest.raises(BackboneError) as caught:
        await backbone.generate(prompt(backbone), Sampling(max_new_tokens=4, seed=3))
    assert caught.value.error_code == code
    assert len(server.requests) == 1, "a wrong answer is no reason to ask again"


async def test_a_server_that_ignores_the_mask_is_refused(backbone: OpenAIBackbone, server: Server) -> None:
    server.faults = [changed(token_ids=[9], logprobs={"token_logprobs": [0.0]}, finish_reason="length")]
    with pytest.raises(BackboneError, match="only \\[3\\] were allowed"):
        await backbone.generate(prompt(backbone), Sampling(0.5))


@pytest.mark.parametrize("fault", [500, 503, 429, (429, {"retry-after": "0"}), "drop"])
async def test_passing_faults_are_tried_again(backbone: OpenAIBackbone, server: Server, fault: Any) -> None:
    server.faults = [fault, fault]
    completion = await backbone.generate(prompt(backbone), Sampling(max_new_tokens=3, seed=2))
    assert len(server.requests) == 3
    again = await backbone.generate(prompt(backbone), Sampling(max_new_tokens=3, seed=2))
    assert completion.token_ids == again.token_ids


async def test_lasting_faults_end_in_an_error_that_says_the_last(server: Server) -> None:
    backbone = make(server, retries=2)
    server.faults = [500] * 9
    with pytest.raises(BackboneError) as caught:
        await backbone.generate(prompt(backbone), Sampling(max_new_tokens=3))
    assert caught.value.error_code == "BACKBONE_UNAVAILABLE"
    assert "fault 500" in caught.value.message
    assert len(server.requests) == 3
    await backbone.aclose()


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_refusals_are_not_tried_again(backbone: OpenAIBackbone, server: Server, status: int) -> None:
    server.faults = [status]
    with pytest.raises(BackboneError) as caught:
        await backbone.generate(prompt(backbone), Sampling())
    assert caught.value.error_code == "BACKBONE_REFUSED"
    assert f"HTTP {status}" in caught.value.message
    assert len(server.requests) == 1


async def test_the_context_is_checked_here_before_anything_is_sent(backbone: OpenAIBackbone, server: Server) -> None:
    with pytest.raises(BackboneError, match="CONTEXT_OVERFLOW"):
        await backbone.generate([5] * backbone.max_context, Sampling(max_new_tokens=1))
    assert server.requests == []


async def test_a_long_retry_after_does_not_outlive_the_caller(backbone: OpenAIBackbone, server: Server) -> None:
    server.faults = [(503, {"retry-after": "3600"})]
    asked = asyncio.create_task(backbone.generate(prompt(backbone), Sampling()))
    await until(lambda: bool(server.requests))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asked, 0.2)
    assert time.monotonic() - started < 25, "it waited for the server, not for its caller"
    assert len(server.requests) == 1


async def test_cancelling_hangs_up(backbone: OpenAIBackbone, server: Server) -> None:
    server.faults = ["hang"]
    task = asyncio.create_task(backbone.generate(prompt(backbone), Sampling()))
    await until(lambda: bool(server.requests))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.abandoned == 1)


async def test_closing_fails_what_is_in_flight(server: Server) -> None:
    backbone = make(server)
    server.faults = ["hang"]
    task = asyncio.create_task(backbone.generate(prompt(backbone), Sampling()))
    await until(lambda: bool(server.requests))
    await backbone.aclose()
    await backbone.aclose()
    with pytest.raises(BackboneError, match="BACKBONE_CLOSED"):
        await task
    with pytest.raises(BackboneError, match="BACKBONE_CLOSED"):
        await backbone.generate(prompt(backbone), Sampling())
    assert not [t for t in threading.enumerate() if t is backbone._line._thread]


def test_loops_may_come_and_go(backbone: OpenAIBackbone) -> None:
    sampling = Sampling(max_new_tokens=3, seed=1)
    drawn = [asyncio.run(backbone.generate(prompt(backbone), sampling)).token_ids for _ in range(3)]
    assert drawn == [drawn[0]] * 3


# --- connecting -----------------------------------------------------------------------------------------------------
def test_the_server_says_what_it_serves(server: Server, chat_folder: Path) -> None:
    backbone = load_backbone(f"openai:{server.url}", version="w1")
    assert isinstance(backbone, OpenAIBackbone)
    assert (backbone.version, backbone.profile, backbone.max_context) == ("w1", "chat", 512)
    assert backbone.eos_token_ids == (3, 1)
    compact = load_backbone(
        f"openai:{server.url}#served", tokenizer=str(chat_folder), profile="compact", max_context=64
    )
    assert (compact.version, compact.profile, compact.max_context) == ("served", "compact", 64)


def test_unknown_models_are_named(server: Server) -> None:
    with pytest.raises(JadeError) as caught:
        connect(f"{server.url}#servad")
    assert caught.value.error_code == "UNKNOWN_MODEL"
    assert caught.value.known == ("served",)


def test_a_tokenizer_must_be_found(server: Server) -> None:
    with pytest.raises(BackboneError) as caught:
        connect(f"{server.url}#served", tokenizer="/nowhere/at/all")
    assert caught.value.error_code == "BACKBONE_NOT_FOUND"
    assert "tokenizer=" in caught.value.hint


def test_no_server(server: Server) -> None:
    with pytest.raises(BackboneError, match="BACKBONE_UNAVAILABLE"):
        connect("http://127.0.0.1:9/v1#m")
    with pytest.raises(BackboneError, match="BACKBONE_UNAVAILABLE"):
        connect(server.url.replace("/v1", "/v2") + "#m")
    with pytest.raises(BackboneError, match="BACKBONE_URL"):
        connect("no-url#m")


def test_retry_after() -> None:
    assert retry_after("1.5") == 1.5
    assert retry_after("-3") == 0.0
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (retry_after("Wed, 21 Oct 2099 07:28:00 GMT") or 0) > 3e8


def test_only_this_machine_is_reached_without_a_proxy() -> None:
    assert is_loopback("http://localhost:8000/v1")
    assert is_loopback("http://127.0.0.1/v1")
    assert not is_loopback("http://10.0.0.1:8000/v1")
