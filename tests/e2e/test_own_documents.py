"""`jade index` and `jade ask` over a folder of one's own text with a chat model that is not ours.

The model is randomly initialised (weights cannot be downloaded in tests): its words are noise, but loading, chat
template, stopping, limits, fallbacks and the record of every token are what a real instruct model gets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jade_graph.runs.store import RunStore
from jade_graph.testing.models import make_random_model
from jade_graph.types import Run

NOTES = {
    "cats.md": "# Cats\n\nOur cat is called Momo. Momo was born in 2019 in Kyoto.\n\n## Food\n\nMomo likes tuna.",
    "dogs.txt": "Our dog Rex sleeps all day. Rex was born in 2015 in Lyon.",
    "house/boiler.html": "<html><title>Boiler</title><body><p>The boiler is by Vaillant.</p></body></html>",
    "people.jsonl": '{"id": "p1", "title": "Ann", "text": "Ann lives in Lyon and owns the boiler."}\n',
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for name, text in NOTES.items():
        path = folder / "notes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    make_random_model(folder / "model", arch="qwen2", chat=True, max_context=4096)
    return folder


def jade(work: Path, *args: str, code: int = 0) -> dict[str, Any]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("JADE_")} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "jade_graph.cli", *args, "--json", "--set", "encoder=hash"]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    out: dict[str, Any] = json.loads(done.stdout)
    return out


@pytest.fixture(scope="module")
def asked(work: Path) -> tuple[dict[str, Any], Run]:
    jade(work, "index", "notes", "--corpus", "notes")
    out = jade(work, "ask", "Where was Momo born?", "--corpus", "notes", "--backbone", "model", "--plan", "QR,R,DS,AG")
    with RunStore(work / ".jade" / "runs.db") as store:
        return out, store.get(out["run_id"])


def test_the_own_documents_are_found_and_answered_from(asked: tuple[dict[str, Any], Run]) -> None:
    out, run = asked
    assert out["status"] == "answered"
    assert [a["role"] for a in out["actions"]] == ["QR", "R", "DS", "AG"]
    assert len(run.documents) == 5
    assert "Momo" in "".join(d.text for d in run.documents)


def test_the_chat_template_was_applied_once(asked: tuple[dict[str, Any], Run], work: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    for t in asked[1].transitions:
        if t.role == "R":
            continue
        text = tokenizer.decode(t.prompt_token_ids)
        assert text.count("<|im_start|>user") == 1
        assert text.rstrip().endswith("<|im_start|>assistant")
        messages = [{"role": m.role, "content": m.content} for m in t.prompt_messages]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert list(t.prompt_token_ids) == list(ids)


def test_actions_stop_at_an_end_token_or_at_their_limit(asked: tuple[dict[str, Any], Run], work: Path) -> None:
    ends = set(json.loads((work / "model" / "generation_config.json").read_text())["eos_token_id"])
    for t in asked[1].transitions:
        if t.role == "R":
            continue
        assert 1 <= len(t.action_token_ids) <= t.sampling["max_new_tokens"]
        assert (t.action_token_ids[-1] in ends) == (t.finish_reason == "stop")
        assert t.truncated == (t.finish_reason == "length")
        assert not set(t.action_token_ids[:-1]) & ends


def test_recorded_log_probabilities_are_the_models(asked: tuple[dict[str, Any], Run], work: Path) -> None:
    """A teacher-forced pass over the recorded ids gives the recorded numbers: token in, token out."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32)
    for t in asked[1].transitions:
        if t.role == "R":
            continue
        ids = torch.tensor([[*t.prompt_token_ids, *t.action_token_ids]])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(t.prompt_token_ids) - 1 : -1].float()
        expected = torch.log_softmax(logits, -1).gather(-1, ids[0, len(t.prompt_token_ids) :, None])[:, 0]
        assert torch.allclose(torch.tensor(t.old_logprobs), expected, atol=1e-4)


def test_every_violation_of_a_model_that_writes_noise_is_named(asked: tuple[dict[str, Any], Run]) -> None:
    for t in asked[1].transitions:
        if t.role in ("QR", "AG"):
            assert t.violation is not None
            assert t.fallback_used


def test_the_planner_constrained_to_legal_plans(work: Path, asked: Any) -> None:
    del asked
    out = jade(work, "ask", "Where was Rex born?", "--corpus", "notes", "--backbone", "model",
               "--set", "constrained=true", "--set", "limits.depth=1", "--set", "limits.tokens=200000")  # fmt: skip
    planned = [a for a in out["actions"] if a["role"] == "PL"]
    assert planned
    assert all(a["violation"] is None for a in planned)


def test_limits_end_a_run_with_a_named_failure(work: Path, asked: Any) -> None:
    del asked
    out = jade(work, "ask", "Where was Rex born?", "--corpus", "notes", "--backbone", "model",
               "--set", "limits.tokens=50", code=1)  # fmt: skip
    assert (out["status"], out["error"]) == ("failed", "LIMIT_TOKENS")


def test_the_bundled_model_says_that_it_cannot_read_the_question(work: Path, asked: Any) -> None:
    del asked
    out = jade(work, "ask", "Where was Momo the cat born?", code=2)
    assert out["error"]["code"] == "FOREIGN_QUESTION"
    assert "jade index" in out["error"]["hint"]


def test_over_own_documents_the_small_model_answers_once_it_is_added(work: Path, asked: Any) -> None:
    del asked
    out = jade(work, "ask", "Where was Momo the cat born?", "--corpus", "notes", code=5)
    assert out["error"]["code"] == "MODEL_NOT_ADDED"
    assert "jade models add smol" in out["error"]["hint"]
    out = jade(work, "ask", "Where was Momo the cat born?", "--corpus", "nots", code=4)
    assert out["error"]["code"] == "UNKNOWN_CORPUS"
