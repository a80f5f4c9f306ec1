"""The suite itself: a backbone that breaks one rule is caught, by the check of that rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError
from jade_graph.testing import backbones as suite
from jade_graph.testing.backbones import CHECKS, ContractError, Subject, check_backbone
from jade_graph.types import Ask, Completion, Message, Sampling

END = 128


class Uniform:
    """A model over ASCII with every token equally likely: the smallest backbone that keeps the contract."""

    version, profile, max_context, eos_token_id = "uniform@1", "compact", 1000, END

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_text("".join(message.content for message in messages))

    def encode_text(self, text: str) -> list[int]:
        return list(text.encode("ascii"))

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(chr(token) for token in token_ids)

    async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        if len(prompt) + sampling.max_new_tokens > self.max_context:
            raise BackboneError("too long", code="CONTEXT_OVERFLOW")
        await asyncio.sleep(0)
        rng = np.random.default_rng(sampling.seed if sampling.temperature else 0)
        if sampling.choices:
            ids = list(sampling.choices[int(rng.integers(len(sampling.choices)))])
            logprobs = [float(-np.log(len(sampling.choices))), *[0.0] * (len(ids) - 1)]
        else:
            ids = [int(token) for token in rng.integers(0, END + 1, sampling.max_new_tokens)]
            if END in ids:
                ids = ids[: ids.index(END) + 1]
            logprobs = [float(-np.log(END + 1))] * len(ids)
        stopped = ids[-1] == END
        text = self.decode(ids[:-1] if stopped else ids)
        return Completion(text, tuple(ids), tuple(logprobs), "stop" if stopped else "length", self.version)

    async def aclose(self) -> None:
        pass


async def test_the_smallest_backbone_passes() -> None:
    await check_backbone(Uniform())


def spoiled(change: Callable[[Completion], Completion]) -> Any:
    class Spoiled(Uniform):
        async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
            return change(await super().generate(prompt, sampling, hint=hint))

    return Spoiled()


class Forgetful(Uniform):
    """Draws anew each time."""

    calls = 0

    async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        type(self).calls += 1
        return await super().generate(prompt, replace(sampling, seed=sampling.seed + self.calls), hint=hint)


class Deaf(Uniform):
    """Hears neither seed nor choices."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        return await super().generate(prompt, replace(sampling, seed=0, choices=None), hint=hint)


class Greedless(Uniform):
    """Samples at temperature 0."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        return await super().generate(prompt, replace(sampling, temperature=1.0), hint=hint)


class Truncating(Uniform):
    """Cuts prompts that do not fit."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        return await super().generate(prompt[: self.max_context - sampling.max_new_tokens], sampling, hint=hint)


class Lossy(Uniform):
    def decode(self, token_ids: Sequence[int]) -> str:
        return super().decode(token_ids).lower()


class Crowded(Uniform):
    """Batch mates change what is drawn."""

    running = 0

    async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        self.running += 1
        try:
            return await super().generate(prompt, replace(sampling, seed=sampling.seed + self.running), hint=hint)
        finally:
            self.running -= 1


class Overlong(Uniform):
    async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
        return await super().generate(prompt, replace(sampling, max_new_tokens=400, seed=3), hint=hint)


class Amnesiac(Uniform):
    """Another prompt for the same messages."""

    count = 0

    def encode(self, messages: Sequence[Message]) -> list[int]:
        self.count += 1
        return [*super().encode(messages), self.count]


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (spoiled(lambda c: replace(c, logprobs=c.logprobs[:-1])), suite.check_completion),
        (spoiled(lambda c: replace(c, logprobs=tuple(-p for p in c.logprobs))), suite.check_completion),
        (spoiled(lambda c: replace(c, logprobs=(float("nan"),) * len(c.logprobs))), suite.check_completion),
        (spoiled(lambda c: replace(c, text=c.text + "\u2581")), suite.check_completion),
        (spoiled(lambda c: replace(c, finish_reason="stop")), suite.check_completion),
        (spoiled(lambda c: replace(c, model_version="other")), suite.check_completion),
        (spoiled(lambda c: replace(c, token_ids=(END, *c.token_ids[1:]))), suite.check_completion),
        (Overlong(), suite.check_limit),
        (Forgetful(), suite.check_seeds),
        (Greedless(), suite.check_seeds),
        (Deaf(), suite.check_seeds),
        (Deaf(), suite.check_choices),
        (Truncating(), suite.check_overflow),
        (Lossy(), suite.check_round_trip),
        (Crowded(), suite.check_concurrency),
        (Amnesiac(), suite.check_encoding),
        (object(), suite.check_identity),
    ],
)
async def test_broken_rules_are_caught(broken: Any, caught_by: suite.Check) -> None:
    with pytest.raises(ContractError):
        await caught_by(broken, Subject())
    with pytest.raises(ContractError):
        await check_backbone(broken)


async def test_requests_that_die_with_a_neighbour_are_caught() -> None:
    class Fragile(Uniform):
        failed = False

        async def generate(self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None) -> Completion:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.failed = True
                raise
            if self.failed:
                raise RuntimeError("the batch is gone")
            return await super().generate(prompt, sampling, hint=hint)

    with pytest.raises(ContractError, match="only cancelled requests"):
        await suite.check_cancellation(Fragile(), Subject())


async def test_scripted_backbones_are_spared_what_they_cannot_do() -> None:
    backbone = ScriptedBackbone(lambda ask: "QDS")
    ask = Ask("PL", None)  # type: ignore[arg-type]
    await check_backbone(backbone, Subject(samples=False, hint=ask))


def test_the_mixin_runs_every_check() -> None:
    ours = {name.removeprefix("check_") for name in (check.__name__ for check in CHECKS)}
    theirs = {name.removeprefix("test_") for name in dir(suite.BackboneConformance) if name.startswith("test_")}
    assert ours == theirs


# --- what is watched --------------------------------------------------------------------------------------------------
class Telling(Uniform):
    """Tells its text in two pieces, spoiled as `how` says."""

    streams = True

    def __init__(self, how: str = "") -> None:
        self.how = how

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling, *, hint: Ask | None = None, watch: Any = None
    ) -> Completion:
        if watch is not None and self.how == "draws":
            sampling = replace(sampling, seed=sampling.seed + 1, temperature=1.0)
        done = await super().generate(prompt, sampling, hint=hint)
        pieces = {"empty": ["", done.text], "twice": [done.text, done.text], "late": [done.text[:1]]}
        if watch is not None:
            for piece in pieces.get(self.how, [done.text[:1], done.text[1:]]):
                watch(piece)
        return done


async def test_a_backbone_that_tells_what_it_draws_passes() -> None:
    await check_backbone(Telling())


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ("draws", "changes nothing"),
        ("empty", "no piece is empty"),
        ("twice", "make up the text"),
        ("late", "make up the text"),
    ],
)
async def test_one_that_tells_something_else_is_found_out(how: str, rule: str) -> None:
    with pytest.raises(ContractError, match=rule):
        await check_backbone(Telling(how))
