"""The routes over a real socket: runs, feedback, cancellation, back-pressure, stopping."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx
import pytest

from jade_graph.errors import BackboneError
from jade_graph.types import Run
from tests.waiting import until


def code(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    return error["code"]


# --- runs -------------------------------------------------------------------------------------------------------------
async def test_a_run_is_begun_listed_got_and_rated(serving, store):
    async with serving() as client:
        begun = await client.post("/v1/runs", json={"question": "who?", "seed": 5, "plan": "R,AG"})
        assert begun.status_code == 202
        where = begun.headers["location"]
        assert where == f"/v1/runs/{begun.json()['id']}"
        run = {}
        while run.get("status") not in ("answered", "failed"):
            run = (await client.get(where, params={"tokens": True})).json()
        assert (run["answer"], run["seed"], run["plan"]) == ("Ann Lee", 5, "R,AG")
        assert run["usage"]["prompt_tokens"] == sum(len(step["prompt_token_ids"]) for step in run["steps"])
        assert [len(s["logprobs"]) for s in run["steps"]] == [len(s["action_token_ids"]) for s in run["steps"]]
        listed = (await client.get("/v1/runs", params={"limit": 1, "status": "answered"})).json()
        assert ([r["id"] for r in listed["data"]], listed["total"], listed["has_more"]) == ([run["id"]], 1, False)
        given = await client.post("/v1/feedback", json={"run_id": run["id"], "rating": 1, "used": ["p1"]})
        assert given.status_code == 201
        told = (await client.get(where)).json()["metadata"]["feedback"]
        assert (told["rating"], told["used"]) == (1.0, ["p1"])
        strange = await client.post("/v1/feedback", json={"run_id": run["id"], "clicked": ["p77"]})
        assert (strange.status_code, code(strange)) == (400, "FEEDBACK_DOCUMENT")
        nobody = await client.post("/v1/feedback", json={"run_id": "nope", "rating": 1})
        assert (nobody.status_code, code(nobody)) == (404, "RUN_NOT_FOUND")
    assert store.get(run["id"]).metadata["feedback"]["count"] == 1


async def test_a_run_that_is_waited_for_comes_whole(serving):
    async with serving() as client:
        run = await client.post("/v1/runs", json={"question": "who?", "model": "vanilla-rag", "wait": True})
        assert (run.status_code, run.json()["status"], run.json()["preset"]) == (200, "answered", "vanilla-rag")


async def test_a_run_that_fails_is_an_error_with_its_code_and_its_record(serving, scripted, chat, store):
    broken = scripted(AG=lambda ask: BackboneError("no memory left.", code="OUT_OF_MEMORY"))
    async with serving(broken) as client:
        answer = await client.post("/v1/chat/completions", json=chat())
        assert (answer.status_code, code(answer)) == (502, "OUT_OF_MEMORY")
        assert answer.headers["x-should-retry"] == "false"
        run = store.get(answer.json()["error"]["run_id"])
        assert (run.status, run.error) == ("failed", "OUT_OF_MEMORY")
        stream = await client.post("/v1/chat/completions", json=chat(stream=True))
        assert stream.status_code == 200
        lines = [line.removeprefix("data: ") for line in stream.text.splitlines() if line]
        assert json.loads(lines[-2])["error"]["code"] == "OUT_OF_MEMORY"
        assert lines[-1] == "[DONE]"


async def test_a_server_without_a_record_says_so(serving, chat):
    async with serving(record=False) as client:
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        for answer in (
            await client.get("/v1/runs"),
            await client.get("/v1/runs/x"),
            await client.post("/v1/runs", json={"question": "who?"}),
            await client.post("/v1/feedback", json={"run_id": "x", "rating": 1}),
        ):
            assert (answer.status_code, code(answer)) == (404, "NO_RUN_STORE")


# --- limits -----------------------------------------------------------------------------------------------------------
async def test_limits_can_be_lowered_and_not_raised(serving, scripted, chat):
    async with serving(scripted({"latency_s": 5.0})) as client:
        slow = await client.post("/v1/chat/completions", json=chat(jade={"limits": {"deadline_s": 0.1}}))
        assert (slow.status_code, code(slow)) == (422, "LIMIT_DEADLINE")  # the client's own: no 5xx
        higher = await client.post("/v1/chat/completions", json=chat(jade={"limits": {"rounds": 1000}}))
        assert (higher.status_code, code(higher)) == (400, "LIMIT_RAISED")
        assert higher.json()["error"]["param"] == "limits.rounds"


async def test_the_servers_own_deadline_is_a_gateway_timeout(serving, scripted, chat, store):
    async with serving(scripted({"latency_s": 5.0})) as client:
        graph = client.service.graphs.main
        graph.engine.limits = replace(graph.limits, deadline_s=0.1)
        slow = await client.post("/v1/chat/completions", json=chat())
        assert (slow.status_code, code(slow)) == (504, "LIMIT_DEADLINE")
        assert slow.headers["x-should-retry"] == "false"
        assert store.get(slow.json()["error"]["run_id"]).error == "LIMIT_DEADLINE"


async def test_waiting_for_a_place_counts_against_the_runs_deadline(serving, scripted, chat):
    async with serving(scripted({"latency_s": 0.4}), concurrency=1) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))
        await until(lambda: client.service.places.running == 1)
        second = await client.post("/v1/chat/completions", json=chat(jade={"limits": {"deadline_s": 0.1}}))
        assert (second.status_code, code(second)) == (429, "SERVER_BUSY")
        assert (await first).status_code == 200
        assert client.service.places.waiting == 0


async def test_beyond_the_queue_requests_are_refused_with_a_time_and_the_others_are_answered(serving, scripted, chat):
    async with serving(scripted({"latency_s": 0.15}), concurrency=2, queue=3) as client:
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=chat()) for _ in range(12)))
        assert sorted(a.status_code for a in answers) == [200] * 5 + [429] * 7
        for refused in (a for a in answers if a.status_code == 429):
            assert code(refused) == "SERVER_BUSY"
            assert int(refused.headers["retry-after"]) >= 1
        assert (client.service.places.running, client.service.places.waiting) == (0, 0)
        text = (await client.get("/metrics")).text
        assert 'jade_refused_total{code="SERVER_BUSY"} 7.0' in text
        assert 'jade_runs_total{error="",preset="jade",status="answered"} 5.0' in text


# --- clients that leave -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_client_leaves_the_run_is_cancelled_and_recorded_so(serving, scripted, chat, store, stream):
    async with serving(scripted({"latency_s": 30.0})) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/chat/completions", json=chat(stream=stream), timeout=0.3)
        await until(lambda: client.service.places.running == 0)
        await store.flushed()
        [row] = store.list_runs()
        assert (row["status"], row["error"]) == ("failed", "CANCELLED")
        assert 'error="CANCELLED"' in (await client.get("/metrics")).text


async def test_who_leaves_the_queue_gives_the_place_in_it_back(serving, scripted, chat, store):
    async with serving(scripted({"latency_s": 0.3}), concurrency=1, queue=1) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))
        await until(lambda: client.service.places.running == 1)
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/chat/completions", json=chat(), timeout=0.1)
        await until(lambda: client.service.places.waiting == 0)
        assert (await first).status_code == 200
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        await store.flushed()
        assert store.count() == 2  # the one that left never began


async def test_a_run_that_was_begun_can_be_cancelled(serving, scripted, store):
    async with serving(scripted({"latency_s": 30.0})) as client:
        run_id = (await client.post("/v1/runs", json={"question": "who?"})).json()["id"]
        done = await client.post(f"/v1/runs/{run_id}/cancel")
        assert (done.status_code, done.json()["error"]) == (200, "CANCELLED")
        assert store.get(run_id).error == "CANCELLED"
        again = await client.post(f"/v1/runs/{run_id}/cancel")
        assert (again.status_code, code(again)) == (409, "RUN_ENDED")


# --- stopping ---------------------------------------------------------------------------------------------------------
async def test_stopping_finishes_what_is_in_flight_and_takes_nothing_more(serving, scripted, chat, store):
    async with serving(scripted({"latency_s": 0.3})) as client:
        flying = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))
        alone = (await client.post("/v1/runs", json={"question": "who?"})).json()["id"]
        await until(lambda: client.service.places.running == 2)
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        client.service.stop()
        refused = await client.post("/v1/chat/completions", json=chat())
        assert (refused.status_code, code(refused)) == (503, "SERVER_STOPPING")
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        client.server.should_exit = True
        assert (await flying).status_code == 200
    assert store.get(alone).status == "answered"


# --- everything else --------------------------------------------------------------------------------------------------
async def test_paths_methods_and_types_that_are_not_there_are_told(serving):
    async with serving() as client:
        for answer, status, name in (
            (await client.get("/v1/nothing"), 404, "NO_SUCH_PATH"),
            (await client.get("/v1/chat/completions"), 405, "WRONG_METHOD"),
            (await client.post("/v1/runs", data={"question": "who?"}), 415, "BODY_NOT_JSON"),
            (await client.get("/v1/runs", params={"limit": 0}), 400, "BAD_PARAMETER"),
            (await client.get("/v1/runs", params={"status": "x"}), 400, "BAD_PARAMETER"),
            (await client.get("/v1/runs/%00"), 400, "BAD_PARAMETER"),
            (await client.get("/v1/models/jaed"), 404, "UNKNOWN_MODEL"),
        ):
            assert (answer.status_code, code(answer)) == (status, name)
            assert answer.headers["x-request-id"]


async def test_a_wrong_method_is_told_all_the_right_ones(serving):
    async with serving() as client:
        answer = await client.put("/v1/runs")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
        assert answer.json()["error"]["known"] == ["GET", "HEAD", "POST"]


async def test_the_beginning_of_more_than_one_id_is_the_askers_mistake(serving, store):
    async with serving() as client:
        for i in range(2):
            run = Run(f"same{i}", "who?", "", "jade", 0, "answered")
            store.run_started(run)
            store.run_finished(run)
        await store.flushed()
        answer = await client.get("/v1/runs/same")
        assert (answer.status_code, code(answer)) == (400, "RUN_AMBIGUOUS")
        assert (await client.get("/v1/runs/same1")).json()["id"] == "same1"


async def test_request_ids_come_back_and_are_recorded(serving, chat, store):
    async with serving() as client:
        answer = await client.post("/v1/chat/completions", json=chat(), headers={"x-request-id": "abc-1"})
        assert answer.headers["x-request-id"] == "abc-1"
        run = store.get(answer.json()["jade"]["run_id"])
        assert run.metadata["served"] == {"route": "chat", "client": "anyone", "request_id": "abc-1"}
        forged = await client.get("/healthz", headers={"x-request-id": "a b"})
        assert forged.headers["x-request-id"] != "a b"


async def test_a_clients_metadata_cannot_pass_for_gold_answers(serving, chat, store):
    async with serving() as client:
        answer = await client.post("/v1/chat/completions", json=chat(metadata={"answers": "x", "rollout": "y"}))
        assert set(store.get(answer.json()["jade"]["run_id"]).metadata) == {"served"}


async def test_sampling_is_the_requests_own(serving, chat, store):
    async with serving() as client:
        answer = await client.post("/v1/chat/completions", json=chat(temperature=0.7, top_p=0.9, seed=11))
        run = store.get(answer.json()["jade"]["run_id"])
        drawn = [t.sampling for t in run.transitions if t.role != "R"]
        assert {(s["temperature"], s["top_p"]) for s in drawn} == {(0.7, 0.9)}
        assert run.seed == 11


# --- what clients send, and read ------------------------------------------------------------------------------------
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
TEXT = {"type": "text", "text": "Who?", "cache_control": {"type": "ephemeral"}, "annotations": []}


async def test_unknown_keys_of_text_parts_and_earlier_messages_are_not_judged(serving):
    async with serving() as client:
        for earlier in (
            {"role": "user", "content": [IMAGE, {"type": "input_audio"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "critic", "content": 7},
            {"content": [None]},
        ):
            body = {"messages": [earlier, {"role": "user", "content": [TEXT]}]}
            answer = await client.post("/v1/chat/completions", json=body)
            assert (answer.status_code, answer.json()["jade"]["ignored"]) == (200, ["messages.0"])


async def test_a_refusal_names_the_field(serving):
    async with serving() as client:
        for content, where in (
            ([TEXT, IMAGE], "content.1.type"),
            ([{"type": "text"}], "content.0.text"),
            (["Who?"], "content.0"),
            (7, "content"),
        ):
            body = {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": content}]}
            answer = await client.post("/v1/chat/completions", json=body)
            told = answer.json()["error"]
            assert (answer.status_code, told["code"]) == (400, "BAD_PARAMETER")
            assert told["param"] == f"messages.1.{where}"
            assert told["param"] in told["message"]


async def test_streams_hold_no_line_breaks_of_unicode_and_are_not_held_back(serving, scripted, chat):
    answer = "one\u2028two\u2029three\x85four"
    async with serving(scripted(AG=f"<answer>{answer}</answer>")) as client:
        for options in ({"include_usage": None}, {"include_usage": True}, None):
            body = chat(stream=True, stream_options=options, jade={"events": True})
            got = await client.post("/v1/chat/completions", json=body)
            assert got.headers["x-accel-buffering"] == "no"
            lines = [line for line in got.text.splitlines() if line]
            assert lines[-1] == "data: [DONE]"
            chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
            told = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
            assert told == "one two three four"
            assert any(answer in json.dumps(c, ensure_ascii=False) for c in chunks)  # what the model wrote, in a step
            assert any(c.get("usage") for c in chunks) is bool(options and options["include_usage"])


async def test_head_is_get_without_the_body(serving):
    async with serving() as client:
        for path in ("/healthz", "/readyz", "/v1/models", "/v1/models/jade", "/metrics", "/openapi.json", "/v1/runs"):
            head, get = await client.head(path), await client.get(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"] == get.headers["content-type"]
        assert (await client.head("/v1/chat/completions")).status_code == 405
        assert (await client.head("/nothing")).status_code == 404
