"""The answer in server-sent events while it is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jade_graph.backbones.scripted import ScriptedBackbone

URL = "/v1/chat/completions"
ILLEGAL = "It is <answer>Ann Lee"  # shown as "Ann Lee", read as "It is Ann Lee"


def shown(chunks: list[dict[str, Any]]) -> str:
    """What a client that heeds "retract" shows."""
    said = ""
    for chunk in chunks:
        if (chunk.get("jade") or {}).get("event") == "retract":
            said = ""
        for choice in chunk["choices"]:
            said += choice["delta"].get("content") or ""
    return said


def chunks_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def streamed(client: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    return chunks_of((await client.post(URL, json=body)).text)


def contents(chunks: list[dict[str, Any]]) -> list[str]:
    return [
        c["choices"][0]["delta"]["content"] for c in chunks if c["choices"] and "content" in c["choices"][0]["delta"]
    ]


class Gated(ScriptedBackbone):
    """Writes the first half of an answer and waits for the gate before the second."""

    def __init__(self) -> None:
        super().__init__(lambda ask: "<workflow>R,AG</workflow>" if ask.role == "PL" else "<answer>Ann Lee</answer>")
        self.gate = asyncio.Event()
        self.left: list[BaseException] = []

    async def generate(self, *args: Any, watch: Any = None, **more: Any) -> Any:
        done = await super().generate(*args, **more)
        if watch is not None:
            watch("<answer>Ann ")
            try:
                await self.gate.wait()
            except BaseException as error:
                self.left.append(error)
                raise
            watch("Lee</answer>")
        return done


async def events_of(response: Any) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


@pytest.mark.parametrize("events", [False, True])
async def test_the_pieces_make_up_the_answer(serving: Any, chat: Any, events: bool) -> None:
    async with serving() as client:
        chunks = await streamed(client, chat(stream=True, jade={"events": events}))
        pieces = contents(chunks)
        assert pieces[0] == ""  # the chunk that names the speaker
        assert "".join(pieces) == "Ann Lee" == shown(chunks) == chunks[-1]["jade"]["answer"]
        assert len(pieces) > 3
        kinds = [c["jade"]["event"] for c in chunks if "jade" in c]
        assert ("step" in kinds) is events
        assert kinds[-1] == "end"
        assert chunks[-1]["model"].startswith("jade@")


async def test_a_piece_is_there_before_the_answer_is(serving: Any, chat: Any) -> None:
    backbone = Gated()
    async with serving(backbone) as client, client.stream("POST", URL, json=chat(stream=True)) as response:
        said = ""
        async for chunk in events_of(response):
            said += "".join(contents([chunk]))
            if said == "Ann":
                assert not backbone.gate.is_set()
                backbone.gate.set()
        assert said == "Ann Lee"
        assert backbone.gate.is_set()


async def test_who_leaves_within_the_answer_ends_the_run(serving: Any, chat: Any, store: Any) -> None:
    backbone = Gated()
    async with serving(backbone) as client:
        async with client.stream("POST", URL, json=chat(stream=True)) as response:
            async for chunk in events_of(response):
                if "".join(contents([chunk])):
                    break
        while client.service.places.running:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)
        await store.flushed()
        [row] = store.list_runs()
        assert (row["status"], row["error"]) == ("failed", "CANCELLED")
        assert [type(error) for error in backbone.left] == [asyncio.CancelledError]


async def test_what_a_fallback_takes_back_is_announced(serving: Any, scripted: Any, chat: Any) -> None:
    async with serving(scripted(AG=ILLEGAL)) as client:
        chunks = await streamed(client, chat(stream=True))
        kinds = [(c.get("jade") or {}).get("event") for c in chunks]
        back = kinds.index("retract")
        assert chunks[back]["choices"][0]["delta"] == {}
        assert "".join(contents(chunks[:back])) == "Ann Lee"
        assert "".join(contents(chunks[back:])) == "It is Ann Lee" == shown(chunks) == chunks[-1]["jade"]["answer"]
        whole = (await client.post(URL, json=chat())).json()
        assert whole["choices"][0]["message"]["content"] == "It is Ann Lee"


async def test_an_answer_in_one_piece_is_never_taken_back(serving: Any, scripted: Any, chat: Any) -> None:
    async with serving(scripted(AG=ILLEGAL)) as client:
        chunks = await streamed(client, chat(stream=True, jade={"tokens": False}))
        assert contents(chunks) == ["", "It is Ann Lee"]
        assert [(c.get("jade") or {}).get("event") for c in chunks].count("retract") == 0


async def test_two_streams_at_once_do_not_mix(serving: Any, scripted: Any, chat: Any) -> None:
    async with serving(scripted(AG=lambda ask: f"<answer>{ask.view.question} it is</answer>")) as client:
        names = [f"name {n}" for n in range(6)]
        for name, chunks in zip(
            names, await asyncio.gather(*(streamed(client, chat(n, stream=True)) for n in names)), strict=True
        ):
            assert "".join(contents(chunks)) == f"{name} it is"
            assert len({chunk["id"] for chunk in chunks}) == 1


async def test_pieces_hold_no_line_breaks_of_unicode(serving: Any, scripted: Any, chat: Any) -> None:
    answer = "\U0001d11e\x1bone é two"  # a zero-width sign that is no white space and a letter of several bytes
    async with serving(scripted(AG=f"<answer>{answer}\u2028\x85 three</answer>")) as client:
        got = await client.post(URL, json=chat(stream=True))
        assert all(line.startswith("data: ") for line in got.text.splitlines() if line)
        assert shown(chunks_of(got.text)) == f"{answer} three"
        assert not {"\u2028", "\u2029", "\x85"} & set(got.text)


async def test_a_run_that_fails_within_its_answer_takes_it_back_and_is_an_error(serving: Any, chat: Any) -> None:
    class Broken(Gated):
        async def generate(self, *args: Any, watch: Any = None, **more: Any) -> Any:
            if watch is not None:
                watch("<answer>Ann")
                raise ZeroDivisionError
            return await ScriptedBackbone.generate(self, *args, **more)

    async with serving(Broken()) as client:
        text = (await client.post(URL, json=chat(stream=True))).text
        chunks = chunks_of(text)
        assert chunks[-1]["error"]["code"] == "ROLE_ERROR"
        assert shown(chunks[:-1]) == ""
        assert "".join(contents(chunks[:-1])) == "Ann"
