"""Watched actions: what is heard is the action, piece by piece, and watching changes nothing of what is drawn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.backbones import watching as watching_module
from jade_graph.backbones.hf import HFBackbone
from jade_graph.backbones.openai_ import OpenAIBackbone, connect
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.backbones.watching import Outbox, Watching, deliver
from jade_graph.errors import BackboneError
from jade_graph.testing.server import Server, serve
from jade_graph.types import Ask, Completion, Message, Sampling, View

HINT = Ask("AG", View("q", "q", "root", {}))


def bytes_of(ids: Any) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=150))
def test_pieces_make_up_the_text_and_none_ends_within_a_character(text: str) -> None:
    """A token a byte: half characters at every step, and windows that begin anywhere."""
    data = text.encode("utf-8", errors="replace")
    text = data.decode("utf-8")

    async def main() -> list[str]:
        heard: list[str] = []
        watching = Watching(heard.append, bytes_of)
        for place, token in enumerate(data):
            watching.add(place, token)
            watching.tell()
        watching.end(text)
        return heard

    heard = asyncio.run(main())
    assert "".join(heard) == text
    assert all(heard)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in heard)


async def test_what_is_drawn_a_second_time_is_heard_once() -> None:
    heard: list[str] = []
    watching = Watching(heard.append, bytes_of)
    for place, token in [*enumerate(b"abc"), *enumerate(b"abcd")]:
        watching.add(place, token)
        watching.tell()
    assert heard == ["a", "b", "c", "d"]


async def test_a_long_text_is_not_decoded_from_its_beginning_for_every_token() -> None:
    longest = 0

    def decode(ids: Any) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return bytes_of(ids)

    heard: list[str] = []
    watching = Watching(heard.append, decode)
    for place, token in enumerate(b"word " * 400):
        watching.add(place, token)
        watching.tell()
    assert "".join(heard) == "word " * 400
    assert longest < 200


async def test_a_watcher_that_raises_ends_nothing_but_itself(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def watch(text: str) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    backbone = ScriptedBackbone(lambda ask: "<answer>Frank Herbert</answer>")
    done = await backbone.generate([1], Sampling(), hint=HINT, watch=watch)
    assert done.text == "<answer>Frank Herbert</answer>"
    assert calls == 1
    assert "will not be called again" in caplog.text


def test_tokens_for_a_loop_that_is_closed_are_nobodys() -> None:
    async def main() -> Watching:
        return Watching(lambda text: None, bytes_of)

    watching = asyncio.run(main())
    deliver([(watching, 0, 65)])


async def test_many_rows_wake_their_loop_less_often_than_one_and_all_is_heard_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that goes on a millisecond a step: 64 rows are told every 32 steps, one at each."""
    for rows, wakings in ((64, 2), (1, 60)):
        clock, sent = iter(n / 1000 for n in range(1000, 1060)), list[int]()
        monkeypatch.setattr(watching_module, "deliver", lambda drawn, sent=sent: sent.append(len(drawn)))
        monkeypatch.setattr(watching_module.time, "perf_counter", lambda clock=clock: next(clock))
        outbox, each = Outbox(), [Watching(lambda text: None, bytes_of) for _ in range(rows)]
        for place in range(60):
            outbox.put([(w, place, 65) for w in each])
        assert len(sent) == wakings
        assert sent[0] == rows  # the first is not kept
        monkeypatch.undo()


async def test_the_scripted_backbone_says_what_it_answers() -> None:
    heard: list[str] = []
    backbone = ScriptedBackbone(lambda ask: "<answer>Čapek wrote R.U.R.</answer>")
    done = await backbone.generate([1], Sampling(), hint=HINT, watch=heard.append)
    assert "".join(heard) == done.text
    assert len(heard) > 5


# --- a model ----------------------------------------------------------------------------------------------------------
def asked(backbone: HFBackbone | OpenAIBackbone, count: int) -> list[tuple[list[int], Sampling]]:
    """Prompts and lengths of several sizes, so that rows move about in the batch."""
    prompts = [backbone.encode([Message("user", "Who? " * (1 + n % 4))]) for n in range(count)]
    return [
        (ids, Sampling(0.0 if n % 5 == 0 else 1.0, max_new_tokens=4 + n % 9, seed=n)) for n, ids in enumerate(prompts)
    ]


def same(a: Completion, b: Completion) -> bool:
    return (a.text, a.token_ids, a.finish_reason) == (b.text, b.token_ids, b.finish_reason)


async def test_a_batch_of_watched_and_unwatched_rows_draws_what_unwatched_ones_draw(chat: HFBackbone) -> None:
    requests = asked(chat, 24)
    plain = await asyncio.gather(*(chat.generate(ids, s) for ids, s in requests))
    heard: list[list[str]] = [[] for _ in requests]
    mixed = await asyncio.gather(
        *(chat.generate(ids, s, watch=heard[n].append if n % 2 else None) for n, (ids, s) in enumerate(requests))
    )
    for n, (a, b) in enumerate(zip(plain, mixed, strict=True)):
        assert same(a, b)
        assert b.logprobs == pytest.approx(a.logprobs, abs=1e-4)
        assert "".join(heard[n]) == (b.text if n % 2 else "")
    assert max(map(len, heard)) > 2


async def test_a_watcher_hears_before_the_action_has_ended_and_on_its_own_loop(chat: HFBackbone) -> None:
    ids, _ = asked(chat, 1)[0]
    first = asyncio.Event()
    threads: set[int] = set()

    def watch(text: str) -> None:
        threads.add(threading.get_ident())
        first.set()

    task = asyncio.create_task(chat.generate(ids, Sampling(max_new_tokens=400, seed=3, forced=None), watch=watch))
    await first.wait()
    early = not task.done()
    await task
    assert early
    assert threads == {threading.get_ident()}


async def test_who_is_cancelled_hears_nothing_more(chat: HFBackbone) -> None:
    ids, _ = asked(chat, 1)[0]
    heard: list[str] = []
    first = asyncio.Event()

    def watch(text: str) -> None:
        heard.append(text)
        first.set()

    task = asyncio.create_task(chat.generate(ids, Sampling(max_new_tokens=400, seed=3), watch=watch))
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    then = list(heard)
    await chat.generate(ids, Sampling(max_new_tokens=8))  # the worker has gone on
    assert heard == then


# --- a server ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server(chat: HFBackbone, chat_folder: Path) -> Iterator[Server]:
    with serve(Server(chat, root=str(chat_folder))) as running:
        yield running


@pytest.fixture
def remote(server: Server) -> Iterator[OpenAIBackbone]:
    server.requests.clear()
    server.faults.clear()
    backbone = connect(f"{server.url}#served")
    backbone._line._backoff_s = 0.001
    yield backbone
    asyncio.run(backbone.aclose())


async def test_a_server_streams_what_is_watched(remote: OpenAIBackbone, server: Server) -> None:
    for ids, sampling in asked(remote, 4):
        heard: list[str] = []
        plain = await remote.generate(ids, sampling)
        watched = await remote.generate(ids, sampling, watch=heard.append)
        assert same(plain, watched)
        assert watched.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
        assert "".join(heard) == watched.text
    assert {body["stream"] for body in server.requests if body["max_tokens"] > 1} == {True, False}


async def test_a_stream_that_is_cut_is_asked_for_again_and_heard_once(remote: OpenAIBackbone, server: Server) -> None:
    ids, sampling = asked(remote, 1)[0]
    server.faults.extend(["drop", 503])
    heard: list[str] = []
    done = await remote.generate(ids, sampling, watch=heard.append)
    assert "".join(heard) == done.text
    assert len(server.requests) == 3


async def test_a_stream_without_token_ids_is_refused(remote: OpenAIBackbone, server: Server) -> None:
    def spoil(answer: dict[str, Any]) -> dict[str, Any]:
        choice = {key: value for key, value in answer["choices"][0].items() if key != "token_ids"}
        return answer | {"choices": [choice]}

    ids, sampling = asked(remote, 1)[0]
    server.faults.append(spoil)
    with pytest.raises(BackboneError) as caught:
        await remote.generate(ids, sampling, watch=lambda text: None)
    assert caught.value.error_code == "BACKBONE_NO_TOKEN_IDS"
