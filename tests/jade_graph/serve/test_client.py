"""The official `openai` client against a real `jade serve` over loopback."""

from __future__ import annotations

import json
import subprocess

import openai
import pytest

QUESTION = [{"role": "user", "content": "When was the author of the annals born?"}]


@pytest.fixture
def client(process):
    with openai.OpenAI(base_url=process.url, api_key=process.key, max_retries=0, timeout=20) as client:
        yield client


def test_a_whole_answer_has_exact_usage_and_is_recorded(client, process):
    answer = client.chat.completions.create(model="jade", messages=QUESTION, seed=3, user="ann", metadata={"a": "b"})
    assert answer.choices[0].message.content == "1950"
    assert answer.choices[0].finish_reason == "stop"
    told = answer.model_extra["jade"]
    assert answer.id == f"chatcmpl-{told['run_id']}"
    assert told["recorded"] is True
    assert told["plan"] == "QDS"
    run = json.loads(process.run("runs", "show", told["run_id"], "--json"))
    spent = [(len(t["prompt_token_ids"]), len(t["action_token_ids"])) for t in run["transitions"]]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == tuple(map(sum, zip(*spent, strict=True)))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == f"jade@{run['backbone_version']}"
    assert run["seed"] == 3
    served = run["metadata"]["served"]
    assert (served["client"], served["user"], served["metadata"]) == ("key1", "ann", {"a": "b"})
    assert process.key not in json.dumps(run)
    again = client.chat.completions.create(model=answer.model, messages=QUESTION)  # the exact version, by its name
    assert again.choices[0].message.content == "1950"


def test_a_stream_says_the_same(client):
    chunks = list(client.chat.completions.create(model="jade", messages=QUESTION, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "1950"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].model_extra["jade"]["event"] == "end"


def test_steps_come_as_typed_events_that_the_client_passes_on(client):
    chunks = list(
        client.chat.completions.create(
            model="jade",
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"jade": {"events": True}},
        )
    )
    assert chunks[-1].choices == []
    usage = chunks.pop().usage
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "1950"
    events = [chunk.model_extra["jade"] for chunk in chunks if "jade" in chunk.model_extra]
    steps = [event for event in events if event["event"] == "step"]
    assert [step["seq"] for step in steps] == list(range(len(steps)))
    assert [step["role"] for step in steps][:2] == ["PL", "QDS"]
    assert {"R", "AG", "AS"} <= {step["role"] for step in steps}
    assert usage.prompt_tokens == sum(step["prompt_tokens"] for step in steps)
    assert usage.completion_tokens == sum(step["action_tokens"] for step in steps)
    last = {node["id"]: node for event in events if event["event"] == "trace" for node in event["nodes"]}
    assert {key: node["answer"] for key, node in last.items()} == {"0": "1950", "0.1": "Ann Lee", "0.2": "Ann Lee"}
    whole = client.chat.completions.create(model="jade", messages=QUESTION, extra_body={"jade": {"events": True}})
    named = ("seq", "role", "trace_node", "action", "plan")
    assert [[s[n] for n in named] for s in whole.model_extra["jade"]["steps"]] == [[s[n] for n in named] for s in steps]


async def test_the_asynchronous_client_streams_too(process):
    async with openai.AsyncOpenAI(base_url=process.url, api_key=process.key, max_retries=0) as client:
        stream = await client.chat.completions.create(model="vanilla-rag", messages=QUESTION, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Ann Lee"


def test_models_are_presets_and_versions(client):
    names = [model.id for model in client.models.list()]
    assert "jade" in names
    assert "vanilla-rag@scripted:served_policy:policy" in names
    assert client.models.retrieve("jade").model_extra["jade"]["version"] == "scripted:served_policy:policy"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("jade@7")


def test_errors_are_the_clients_own_with_our_codes(client, process):
    def code(kind, ask, **more):
        with pytest.raises(kind) as caught:
            ask.chat.completions.create(**{"model": "jade", "messages": QUESTION, **more})
        return caught.value.code

    assert code(openai.NotFoundError, client, model="jaed") == "UNKNOWN_MODEL"
    assert code(openai.BadRequestError, client, n=2) == "UNSUPPORTED_PARAMETER"
    assert code(openai.BadRequestError, client, extra_body={"jade": {"plan": "AG,R"}}) == "PLAN_ILLEGAL"
    assert code(openai.BadRequestError, client, messages=[{"role": "assistant", "content": "x"}]) == "LAST_MESSAGE"
    with openai.OpenAI(base_url=process.url, api_key="a-key-that-is-not-right", max_retries=0) as wrong:
        assert code(openai.AuthenticationError, wrong) == "WRONG_API_KEY"
    assert process.key not in (process.folder / "err.txt").read_text()


def test_a_refused_stream_is_an_error_and_no_stream(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="jaed", messages=QUESTION, stream=True)


def test_earlier_messages_are_taken_and_named_as_ignored(client):
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who wrote the annals?"},
        {"role": "assistant", "content": "Ann Lee"},
        {"role": "user", "content": [{"type": "text", "text": "When was the author of the annals born?"}]},
    ]
    answer = client.chat.completions.create(model="jade", messages=history, max_tokens=5)
    assert answer.choices[0].message.content == "1950"
    assert answer.model_extra["jade"]["ignored"] == ["max_tokens", "messages.0-2"]


def test_a_port_that_is_in_use_is_told_before_anything_is_loaded(process):
    port = process.url.rpartition(":")[2].partition("/")[0]
    command = [*process.jade, "serve", "--port", port, "--json"]
    second = subprocess.run(
        command, cwd=process.folder, env=process.env, capture_output=True, text=True, check=False, timeout=60
    )
    assert second.returncode == 2
    assert json.loads(second.stdout)["error"]["code"] == "SERVE_PORT_IN_USE"
