"""HFBackbone end to end on random checkpoints: what is recorded is what was sampled, whoever else is in the batch."""

from __future__ import annotations

import asyncio
import gc
import inspect
import shutil
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from jade_graph.backbones.batcher import Batcher
from jade_graph.backbones.codec import Codec
from jade_graph.backbones.hf import HFBackbone, out_of_memory
from jade_graph.errors import BackboneError
from jade_graph.testing.backbones import BackboneConformance, Subject
from jade_graph.types import Completion, Message, Sampling


class TestConformancePlain(BackboneConformance):
    subject = Subject(tolerance=1e-4)

    @pytest.fixture
    def backbone(self, plain: HFBackbone) -> HFBackbone:
        return plain


class TestConformanceChat(BackboneConformance):
    subject = Subject(tolerance=1e-4)

    @pytest.fixture
    def backbone(self, chat: HFBackbone) -> HFBackbone:
        return chat


def prompts(backbone: HFBackbone, count: int) -> list[list[int]]:
    return [backbone.encode([Message("user", "who wrote it? " * (1 + 3 * i % 7) + str(i))]) for i in range(count)]


async def together(
    backbone: HFBackbone, requests: Sequence[tuple[list[int], Sampling]]
) -> list[asyncio.Task[Completion]]:
    """Start the requests so that they are in one batch: the worker cannot look before all are queued."""
    with backbone._batcher._ready:
        tasks = [asyncio.create_task(backbone.generate(prompt, sampling)) for prompt, sampling in requests]
        await asyncio.sleep(0)
    return tasks


def teacher_forced(model: Any, prompt: Sequence[int], completion: Completion, sampling: Sampling) -> torch.Tensor:
    """Log-probabilities of the recorded ids from one plain forward pass over prompt and action, in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0].double()
    logits = logits[len(prompt) - 1 : -1] / (sampling.temperature or 1.0)
    if sampling.top_p < 1:
        probabilities, order = torch.softmax(logits, -1).sort(-1, descending=True)
        outside = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits = logits.scatter(-1, order, logits.gather(-1, order).masked_fill(outside, float("-inf")))
    ids = torch.tensor(completion.token_ids).unsqueeze(-1)
    return torch.log_softmax(logits, -1).gather(-1, ids).squeeze(-1)


async def test_recorded_log_probabilities_are_a_trainers(plain: HFBackbone) -> None:
    """Batched, ragged, at several temperatures and nuclei: equal to teacher forcing to 1e-5 in float32."""
    shapes = [(1.0, 1.0), (0.6, 1.0), (1.5, 1.0), (1.0, 0.7), (1.3, 0.9), (0.0, 1.0)]
    samplings = [Sampling(*shapes[i % 6], max_new_tokens=3 + i % 17, seed=i) for i in range(36)]
    asked = prompts(plain, 36)
    before = plain.stats
    completions = await asyncio.gather(*await together(plain, list(zip(asked, samplings, strict=True))))
    assert plain.stats["batches"] == before["batches"] + 1
    for prompt, sampling, completion in zip(asked, samplings, completions, strict=True):
        expected = teacher_forced(plain.model, prompt, completion, sampling)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, rtol=0, atol=1e-5)


async def test_wrong_temperature_would_be_caught(plain: HFBackbone) -> None:
    """The check above can fail: at another temperature it is off by far more than 1e-5."""
    prompt = prompts(plain, 1)[0]
    completion = await plain.generate(prompt, Sampling(0.6, max_new_tokens=12, seed=3))
    expected = teacher_forced(plain.model, prompt, completion, Sampling(1.0))
    assert (torch.tensor(completion.logprobs).double() - expected).abs().max() > 1e-2


async def test_finished_rows_leave_the_batch(plain_folder: Path) -> None:
    backbone = endless(plain_folder)
    asked = prompts(backbone, 4)
    lengths = [2, 9, 5, 30]
    requests = [(p, Sampling(max_new_tokens=n, seed=n)) for p, n in zip(asked, lengths, strict=True)]
    await asyncio.gather(*await together(backbone, requests))
    assert backbone.stats["row_steps"] == sum(lengths)
    assert backbone.stats["steps"] == max(lengths)
    await backbone.aclose()


def endless(folder: Path, **options: Any) -> HFBackbone:
    """A backbone whose actions end at max_new_tokens alone."""
    loaded = HFBackbone.load(folder, device="cpu")
    return HFBackbone.from_model(loaded.model, Codec(loaded.tokenizer, [-1]), version="endless@0", **options)


async def steps(backbone: HFBackbone, count: int) -> None:
    """Wait until the worker has made so many decoding steps."""
    while backbone.stats["steps"] < count:  # noqa: ASYNC110 - the worker knows no event of this loop
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("lean", [True, False])
async def test_requests_join_a_running_batch(plain_folder: Path, lean: bool) -> None:
    """They draw what they draw alone, end before those that came first, and the batch stays one."""
    backbone = endless(plain_folder, lean=lean)
    asked = prompts(backbone, 6)
    first = asyncio.create_task(backbone.generate(asked[0], Sampling(max_new_tokens=400, seed=1)))
    await steps(backbone, 3)
    samplings = [Sampling(0.9, max_new_tokens=5 + i, seed=i) for i in range(5)]
    joined = await asyncio.gather(*(backbone.generate(p, s) for p, s in zip(asked[1:], samplings, strict=True)))
    assert not first.done()
    long = await first
    assert backbone.stats["batches"] == 1
    assert backbone.stats["rows"] == 6
    assert backbone.stats["admissions"] > 1
    assert 400 <= backbone.stats["steps"] < 400 + 10
    for prompt, sampling, completion in zip(asked[1:], samplings, joined, strict=True):
        alone = await backbone.generate(prompt, sampling)
        assert completion.token_ids == alone.token_ids
        assert completion.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
        assert completion.queue_ms >= 0
        assert completion.model_ms <= long.model_ms
    assert long.token_ids == (await backbone.generate(asked[0], Sampling(max_new_tokens=400, seed=1))).token_ids
    await backbone.aclose()


async def test_no_batch_grows_over_its_cap(plain_folder: Path) -> None:
    backbone = endless(plain_folder, max_batch=3)
    requests = [(p, Sampling(max_new_tokens=6 + i % 2, seed=i)) for i, p in enumerate(prompts(backbone, 9))]
    await asyncio.gather(*await together(backbone, requests))
    assert backbone.stats["row_steps"] == 9 * 6 + 4
    assert backbone.stats["row_steps"] <= 3 * backbone.stats["steps"]
    await backbone.aclose()


async def test_a_batch_ends_with_its_last_row_so_that_new_weights_are_never_met_with_old_beginnings(
    plain_folder: Path,
) -> None:
    backbone = endless(plain_folder)
    asked = prompts(backbone, 1)[0]
    sampling = Sampling(max_new_tokens=3, seed=1)
    await asyncio.gather(*await together(backbone, [(asked, sampling)] * 3))
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.mul_(1.3)
    changed = await asyncio.gather(*await together(backbone, [(asked, sampling)] * 3))
    assert backbone.stats["batches"] == 2
    for completion in changed:
        expected = teacher_forced(backbone.model, asked, completion, sampling)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, rtol=0, atol=1e-5)
    await backbone.aclose()


async def test_nobody_joins_a_batch_of_other_weights(plain_folder: Path) -> None:
    backbone = endless(plain_folder)
    asked = prompts(backbone, 2)
    first = asyncio.create_task(backbone.generate(asked[0], Sampling(max_new_tokens=300)))
    await steps(backbone, 3)
    backbone._slot.loaded = replace(backbone._slot.loaded, version="endless@1")
    second = asyncio.create_task(backbone.generate(asked[1], Sampling(max_new_tokens=2)))
    assert (await first).model_version == "endless@0"
    assert (await second).model_version == "endless@1"
    assert backbone.stats["batches"] == 2
    await backbone.aclose()


async def test_results_come_as_their_rows_end(plain_folder: Path) -> None:
    backbone = endless(plain_folder)
    requests = [(p, Sampling(max_new_tokens=n)) for p, n in zip(prompts(backbone, 3), (200, 1, 60), strict=True)]
    ended = asyncio.as_completed(await together(backbone, requests))
    assert [len((await completion).token_ids) for completion in ended] == [1, 60, 200]
    await backbone.aclose()


async def test_cancelled_requests_drop_out_between_steps(plain_folder: Path) -> None:
    backbone = endless(plain_folder)
    first, second = prompts(backbone, 2)
    requests = [(first, Sampling(max_new_tokens=400, seed=1)), (second, Sampling(max_new_tokens=300, seed=2))]
    doomed, other = await together(backbone, requests)
    await steps(backbone, 5)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    completion = await other
    alone = await backbone.generate(second, Sampling(max_new_tokens=300, seed=2))
    assert completion.token_ids == alone.token_ids
    assert backbone.stats["cancelled"] == 1
    assert backbone.stats["row_steps"] < 400 + 300 + 300
    await backbone.aclose()


async def test_a_deadline_cancels_like_a_cancellation(plain_folder: Path) -> None:
    backbone = endless(plain_folder)
    asked = prompts(backbone, 1)[0]

    async def forever() -> None:
        for seed in range(10**6):
            await backbone.generate(asked, Sampling(max_new_tokens=400, seed=seed))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(forever(), 0.05)
    await backbone.generate(prompts(backbone, 1)[0], Sampling(max_new_tokens=2))
    assert backbone.stats["cancelled"] == 1
    await backbone.aclose()


async def test_a_request_that_breaks_the_model_fails_alone(plain_folder: Path) -> None:
    backbone = HFBackbone.load(plain_folder, device="cpu", lean=False)
    model = backbone.model
    forward = model.forward

    def sensitive(**inputs: Any) -> Any:
        if (inputs["input_ids"] == 7).any():
            raise ValueError("seven")
        return forward(**inputs)

    sensitive.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    model.forward = sensitive
    good = [p for p in prompts(backbone, 5) if 7 not in p]
    requests = [(p, Sampling(0.0, max_new_tokens=1)) for p in [*good[:2], [5, 7, 5], *good[2:]]]
    results = await asyncio.gather(*await together(backbone, requests), return_exceptions=True)
    errors = [result for result in results if isinstance(result, Exception)]
    assert [e.error_code for e in errors if isinstance(e, BackboneError)] == ["BACKBONE_GENERATION"]
    assert len(errors) == 1
    assert backbone.stats["failures"] == 1
    await backbone.aclose()


async def test_numbers_that_are_not_finite_are_an_error(plain_folder: Path) -> None:
    for lean in (True, False):
        backbone = HFBackbone.load(plain_folder, device="cpu", lean=lean)
        with torch.no_grad():
            backbone.model.lm_head.weight.fill_(float("nan"))
        with pytest.raises(BackboneError) as caught:
            await backbone.generate([5, 6], Sampling(max_new_tokens=3))
        assert caught.value.error_code == "BACKBONE_NOT_FINITE"
        await backbone.aclose()


async def test_closing(plain_folder: Path) -> None:
    backbone = endless(plain_folder)
    running = asyncio.create_task(backbone.generate(prompts(backbone, 1)[0], Sampling(max_new_tokens=450)))
    await steps(backbone, 2)
    await backbone.aclose()
    await backbone.aclose()
    with pytest.raises(BackboneError, match="BACKBONE_CLOSED"):
        await running
    with pytest.raises(BackboneError, match="BACKBONE_CLOSED"):
        await backbone.generate([5], Sampling())


def test_a_dropped_backbone_stops_its_worker(plain_folder: Path) -> None:
    backbone = HFBackbone.load(plain_folder, device="cpu")
    asyncio.run(backbone.generate([5, 6], Sampling(max_new_tokens=2)))
    threads = [t for t in threading.enumerate() if t.name == "jade-backbone"]
    batcher, reference = backbone._batcher, weakref.ref(backbone)
    del backbone
    gc.collect()
    assert reference() is None
    assert batcher.closed
    assert sum(t.is_alive() for t in threads) < len(threads)


def test_several_loops_at_once(plain: HFBackbone) -> None:
    asked = prompts(plain, 3)
    results: dict[int, list[Completion]] = {}

    def loop(number: int) -> None:
        async def ask() -> list[Completion]:
            return await asyncio.gather(*(plain.generate(p, Sampling(max_new_tokens=6, seed=4)) for p in asked))

        results[number] = asyncio.run(ask())

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = [[c.token_ids for c in completions] for completions in results.values()]
    assert drawn == [drawn[0]] * 3


async def test_full_distribution_over_many_seeds(plain: HFBackbone) -> None:
    """First tokens of 3,000 seeds, in batches, against the softmax of a plain forward pass."""
    from scipy.stats import chisquare

    prompt = prompts(plain, 1)[0]
    count = 3000
    sampling = [Sampling(2.0, max_new_tokens=1, seed=seed) for seed in range(count)]
    completions = await asyncio.gather(*(plain.generate(prompt, s) for s in sampling))
    with torch.no_grad():
        expected = torch.softmax(plain.model(torch.tensor([prompt])).logits[0, -1].double() / 2.0, -1)
    seen = torch.bincount(torch.tensor([c.token_ids[0] for c in completions]), minlength=len(expected))
    common = expected * count >= 5
    rest = ~common
    observed = [*seen[common].tolist(), seen[rest].sum().item()]
    wanted = [*(expected[common] * count).tolist(), (expected[rest] * count).sum().item()]
    assert len(observed) > 50
    assert chisquare(observed, wanted).pvalue > 1e-4


async def test_choices_are_drawn_from_the_restricted_distribution(plain: HFBackbone) -> None:
    """The probability of a whole choice is the product over its tokens of the softmax over allowed tokens."""
    prompt = prompts(plain, 1)[0]
    end = plain.eos_token_id
    choices = ((10, 11, end), (10, 12, end), (20, end))
    completion = await plain.generate(prompt, Sampling(max_new_tokens=3, seed=9, choices=choices))
    assert completion.token_ids in choices
    with torch.no_grad():
        logits = plain.model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0, len(prompt) - 1 :]
    allowed = [[10, 20], [11, 12] if completion.token_ids[0] == 10 else [end], [end]]
    for step, token in enumerate(completion.token_ids):
        expected = torch.log_softmax(logits[step, allowed[step]], -1)[allowed[step].index(token)]
        assert completion.logprobs[step] == pytest.approx(expected.item(), abs=1e-5)
    assert completion.finish_reason == "stop"


async def test_constrained_and_free_rows_share_a_batch(plain: HFBackbone) -> None:
    end = plain.eos_token_id
    choices = ((10, 11, end), (20, end))
    asked = prompts(plain, 8)
    samplings = [Sampling(max_new_tokens=8, seed=i, choices=choices if i % 2 else None) for i in range(8)]
    crowd = await asyncio.gather(*await together(plain, list(zip(asked, samplings, strict=True))))
    alone = [await plain.generate(p, s) for p, s in zip(asked, samplings, strict=True)]
    assert [c.token_ids for c in crowd] == [c.token_ids for c in alone]
    assert all(c.token_ids in choices for c in crowd[1::2])


async def test_instruct_models_stop_at_any_of_their_end_tokens(chat: HFBackbone) -> None:
    """Both <|im_end|> and <|endoftext|> end an action, and neither shows in its text."""
    assert chat.profile == "chat"
    assert chat.eos_token_ids == (3, 1)
    seen = set()
    asked = prompts(chat, 1)[0]
    samplings = [Sampling(1.5, max_new_tokens=40, seed=seed) for seed in range(200)]
    for completion in await asyncio.gather(*(chat.generate(asked, s) for s in samplings)):
        if completion.finish_reason == "stop":
            seen.add(completion.token_ids[-1])
            assert not {1, 3} & set(completion.token_ids[:-1])
        else:
            assert len(completion.token_ids) == 40
        assert "<|im_end|>" not in completion.text
        assert "<|endoftext|>" not in completion.text
    assert seen == {1, 3}


async def test_context_is_prompt_plus_action(plain: HFBackbone) -> None:
    fits = [5] * (plain.max_context - 3)
    completion = await plain.generate(fits, Sampling(max_new_tokens=3))
    assert len(completion.token_ids) <= 3
    with pytest.raises(BackboneError) as caught:
        await plain.generate([*fits, 5], Sampling(max_new_tokens=3))
    assert caught.value.error_code == "CONTEXT_OVERFLOW"
    assert str(plain.max_context) in caught.value.message


async def test_ids_of_another_vocabulary_are_refused(plain: HFBackbone) -> None:
    with pytest.raises(BackboneError, match="BACKBONE_PROMPT"):
        await plain.generate([5, 10**6], Sampling())


async def test_completions_say_how_long_they_took(plain: HFBackbone) -> None:
    completion = await plain.generate([5, 6], Sampling(max_new_tokens=2))
    assert completion.queue_ms >= 0
    assert completion.model_ms > 0


def test_models_without_a_key_value_cache_are_refused(plain: HFBackbone) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, state_size=2))
    with pytest.raises(BackboneError, match="BACKBONE_ARCHITECTURE"):
        HFBackbone.from_model(model, Codec(plain.tokenizer, [0]), version="m@0")


def test_out_of_memory_is_recognised() -> None:
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert not out_of_memory(ValueError("out of memory"))


def test_the_version_names_the_weights(plain_folder: Path, plain: HFBackbone) -> None:
    name, digest = plain.version.split("@")
    assert name == plain_folder.name
    assert len(digest) == 12
    assert isinstance(plain._batcher, Batcher)


async def test_half_precision_keeps_the_contract(plain_folder: Path) -> None:
    """bfloat16 weights, float32 log-probabilities of what was sampled: a plain pass agrees to bfloat16's precision."""
    backbone = HFBackbone.load(plain_folder, device="cpu", dtype="bfloat16")
    asked = prompts(backbone, 6)
    sampling = Sampling(0.9, max_new_tokens=8, seed=2)
    completions = await asyncio.gather(*(backbone.generate(p, sampling) for p in asked))
    for prompt, completion in zip(asked, completions, strict=True):
        expected = teacher_forced(backbone.model, prompt, completion, sampling)
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, rtol=0, atol=0.15)
    await backbone.aclose()


def test_a_hub_id_is_taken_from_the_cache_and_gives_the_version_its_name(
    plain_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    repository = tmp_path / "models--someone--their-model"
    snapshot = repository / "snapshots" / ("a" * 40)
    shutil.copytree(plain_folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    cached = partial(huggingface_hub.snapshot_download, cache_dir=tmp_path, local_files_only=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    backbone = HFBackbone.load("someone/their-model", device="cpu")
    assert backbone.version.startswith("their-model@")
    with pytest.raises(BackboneError, match="BACKBONE_NOT_FOUND"):
        HFBackbone.load("someone/else", device="cpu")
