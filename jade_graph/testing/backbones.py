"""The conformance suite of backbones: what the engine and the learner rely on.

Invariant: every rule of `types.Backbone` is one check, run against a live backbone, that raises `ContractError` with
the rule and what was seen. Third parties call `check_backbone`, or subclass `BackboneConformance` under pytest.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jade_graph.types import Ask, Backbone, Completion, Message, Sampling


class ContractError(AssertionError):
    """A backbone breaks the contract of `jade_graph.types.Backbone`; the message names the rule and what was seen."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the suite needs to know about the backbone under test.

    Args:
        samples: it draws from a distribution (False: it answers from a script, whatever the seed).
        hint: passed with every request; scripted backbones need one.
        texts: texts that its tokenizer can spell: they must come back from `encode_text` and `decode`.
        prompts: contents of the user message, of different lengths.
        max_new_tokens: of the suite's requests.
        tolerance: between log-probabilities of one request alone and in a crowd (nats). 1e-4 suits float32.
        choices: texts of the constrained decoding check.
    """

    samples: bool = True
    hint: Ask | None = None
    texts: tuple[str, ...] = ("the answer is 42", "<answer>yes</answer>", "QR,R,DS,AG")
    prompts: tuple[str, ...] = ("Who?", "Who wrote the book, and when was it?", "one two three four five " * 6)
    max_new_tokens: int = 12
    tolerance: float = 1e-3
    choices: tuple[str, ...] = ("QDS", "QDP", "R,AG", "QR,R,AG")


Check = Callable[[Backbone, Subject], Coroutine[Any, Any, None]]


def _require(condition: bool, rule: str, seen: object) -> None:
    if not condition:
        raise ContractError(f"{rule}: {seen!r}")


def _prompts(backbone: Backbone, subject: Subject) -> list[list[int]]:
    system = Message("system", "Answer in a few words.\n")
    return [backbone.encode([system, Message("user", text)]) for text in subject.prompts]


def _request(backbone: Backbone, subject: Subject, prompt: Sequence[int], sampling: Sampling) -> Awaitable[Completion]:
    return backbone.generate(prompt, sampling, hint=subject.hint)


def _samplings(subject: Subject, count: int) -> list[Sampling]:
    shapes = [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8), (0.0, 1.0)]
    return [
        Sampling(t, p, subject.max_new_tokens - index % 3, seed=index)
        for index, (t, p) in ((i, shapes[i % 4]) for i in range(count))
    ]


async def check_identity(backbone: Backbone, subject: Subject) -> None:
    """It has the protocol's members, a version, a known profile, room for a prompt."""
    del subject
    _require(isinstance(backbone, Backbone), "members of jade_graph.types.Backbone are missing", type(backbone))
    _require(
        bool(backbone.version) and isinstance(backbone.version, str), "version names the weights", backbone.version
    )
    _require(backbone.profile in ("chat", "brief", "compact"), "profile is chat, brief or compact", backbone.profile)
    _require(backbone.max_context > 0, "max_context is positive", backbone.max_context)


async def check_encoding(backbone: Backbone, subject: Subject) -> None:
    """`encode` is deterministic and gives ints; different messages give different prompts."""
    first, again = _prompts(backbone, subject), _prompts(backbone, subject)
    _require(first == again, "encode is deterministic", (first, again))
    _require(all(isinstance(token, int) for prompt in first for token in prompt), "encode gives ints", first)
    _require(all(first), "a prompt has tokens", first)
    _require(len(set(map(tuple, first))) == len(first), "different messages give different prompts", first)


async def check_round_trip(backbone: Backbone, subject: Subject) -> None:
    """`decode(encode_text(text)) == text`, with no end token in the ids."""
    for text in subject.texts:
        ids = backbone.encode_text(text)
        _require(backbone.decode(ids) == text, f"{text!r} comes back from its ids", backbone.decode(ids))
        _require(backbone.eos_token_id not in ids, "encode_text adds no end token", ids)


async def check_completion(backbone: Backbone, subject: Subject) -> None:
    """One log-probability per id; end token, finish reason, text and version agree."""
    prompt = _prompts(backbone, subject)[0]
    for sampling in _samplings(subject, 8):
        _check_one(backbone, await _request(backbone, subject, prompt, sampling), sampling)


def _check_one(backbone: Backbone, completion: Completion, sampling: Sampling) -> None:
    ids, logprobs = completion.token_ids, completion.logprobs
    _require(len(ids) == len(logprobs) > 0, "one log-probability per token id", completion)
    _require(len(ids) <= sampling.max_new_tokens, f"at most {sampling.max_new_tokens} tokens", completion)
    _require(all(math.isfinite(p) and p <= 1e-6 for p in logprobs), "log-probabilities are finite, <= 0", completion)
    _require(completion.model_version == backbone.version, "the completion names the version", completion)
    ends = set(getattr(backbone, "eos_token_ids", ())) | {backbone.eos_token_id}
    body = ids[:-1] if ids[-1] in ends else ids
    _require(not ends & set(body), "nothing follows an end token", completion)
    _require(completion.text == backbone.decode(body), "text is the ids, the end token left out", completion)
    if completion.finish_reason == "length":
        _require(len(ids) == sampling.max_new_tokens and ids[-1] not in ends, "a cut action is full", completion)
    else:
        _require(ids[-1] in ends, "a whole action ends with an end token", completion)


async def check_limit(backbone: Backbone, subject: Subject) -> None:
    """`max_new_tokens` cuts an action, and what comes before the cut does not change."""
    prompt = _prompts(backbone, subject)[1]
    whole = await _request(backbone, subject, prompt, Sampling(max_new_tokens=subject.max_new_tokens, seed=5))
    for count in (1, 3):
        cut = await _request(backbone, subject, prompt, Sampling(max_new_tokens=count, seed=5))
        _require(cut.token_ids == whole.token_ids[: len(cut.token_ids)], "the cut is a prefix", (cut, whole))
        _require(len(cut.token_ids) <= count, f"at most {count} tokens", cut)


async def check_overflow(backbone: Backbone, subject: Subject) -> None:
    """A prompt that does not fit is a typed error, not a truncation."""
    prompt = (_prompts(backbone, subject)[0] * (backbone.max_context + 1))[: backbone.max_context]
    try:
        completion = await _request(backbone, subject, prompt, Sampling(max_new_tokens=1))
    except Exception as error:
        code = getattr(error, "error_code", None)
        _require(code == "CONTEXT_OVERFLOW", "the error's code is CONTEXT_OVERFLOW", error)
    else:
        raise ContractError(f"a prompt of max_context tokens was answered: {completion!r}")


async def check_seeds(backbone: Backbone, subject: Subject) -> None:
    """Equal seeds draw equal actions; of different seeds some draw different ones; temperature 0 ignores the seed."""
    prompt = _prompts(backbone, subject)[0]

    async def draw(temperature: float, seed: int) -> tuple[int, ...]:
        sampling = Sampling(temperature, max_new_tokens=subject.max_new_tokens, seed=seed)
        return (await _request(backbone, subject, prompt, sampling)).token_ids

    drawn = [await draw(1.0, seed) for seed in range(6)]
    _require([await draw(1.0, seed) for seed in range(6)] == drawn, "a seed draws the same action again", drawn)
    greedy = [await draw(0.0, seed) for seed in range(3)]
    _require(len(set(greedy)) == 1, "temperature 0 does not depend on the seed", greedy)
    if subject.samples:
        _require(len(set(drawn)) > 1, "different seeds draw different actions", drawn)


async def check_concurrency(backbone: Backbone, subject: Subject) -> None:
    """Requests in a crowd get what they get alone: ids equal, log-probabilities within the tolerance."""
    prompts = _prompts(backbone, subject)
    samplings = _samplings(subject, 12)
    pairs = [(prompts[i % len(prompts)], sampling) for i, sampling in enumerate(samplings)]
    alone = [await _request(backbone, subject, prompt, sampling) for prompt, sampling in pairs]
    crowd = await asyncio.gather(*(_request(backbone, subject, prompt, sampling) for prompt, sampling in pairs))
    for one, other, (_, sampling) in zip(alone, crowd, pairs, strict=True):
        _check_one(backbone, other, sampling)
        _require(one.token_ids == other.token_ids, "batch mates do not change what is drawn", (one, other))
        gap = max(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True))
        _require(gap <= subject.tolerance, "batch mates do not change log-probabilities", (gap, one, other))


async def check_choices(backbone: Backbone, subject: Subject) -> None:
    """Constrained actions are one of the choices, id for id; over one choice the probability is 1."""
    prompt = _prompts(backbone, subject)[0]
    choices = tuple((*backbone.encode_text(text), backbone.eos_token_id) for text in subject.choices)
    longest = max(map(len, choices))
    base = Sampling(max_new_tokens=longest, choices=choices)
    seeds = range(8) if subject.samples else ()
    for sampling in [replace(base, seed=seed) for seed in seeds] + [replace(base, temperature=0.0)] * subject.samples:
        completion = await _request(backbone, subject, prompt, sampling)
        _require(completion.token_ids in choices, "the action is one of the choices", completion)
        _check_one(backbone, completion, sampling)
    if subject.samples:
        only = await _request(backbone, subject, prompt, replace(base, choices=choices[:1]))
        _require(only.token_ids == choices[0], "the only choice is taken", only)
        _require(max(abs(p) for p in only.logprobs) < 1e-6, "the only choice has log-probability 0", only)


async def check_cancellation(backbone: Backbone, subject: Subject) -> None:
    """A cancelled request is withdrawn, its neighbours are answered, and the backbone goes on working."""
    prompts = _prompts(backbone, subject)
    sampling = Sampling(max_new_tokens=subject.max_new_tokens, seed=1)

    async def ask(index: int) -> Completion:
        return await _request(backbone, subject, prompts[index % len(prompts)], sampling)

    tasks = [asyncio.create_task(ask(index)) for index in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for index, result in enumerate(results):
        if isinstance(result, Completion):
            _check_one(backbone, result, sampling)
        else:
            withdrawn = index % 2 == 0 and isinstance(result, asyncio.CancelledError)
            _require(withdrawn, "only cancelled requests end in CancelledError", result)
    _check_one(backbone, await ask(0), sampling)


async def check_watching(backbone: Backbone, subject: Subject) -> None:
    """One that says that it `streams` tells its text piece by piece, and draws what it draws unwatched."""
    if not getattr(backbone, "streams", False):
        return
    prompts, samplings = _prompts(backbone, subject), _samplings(subject, 4)
    plain = [await _request(backbone, subject, prompts[n % len(prompts)], s) for n, s in enumerate(samplings)]
    watched: Any = backbone
    heard: list[list[str]] = [[] for _ in samplings]

    async def ask(n: int) -> tuple[Completion, str]:
        watch = None if n == 1 else heard[n].append  # one of them is not watched
        asked = watched.generate(prompts[n % len(prompts)], samplings[n], hint=subject.hint, watch=watch)
        done: Completion = await asked
        return done, "".join(heard[n])

    for n, (done, text) in enumerate(await asyncio.gather(*map(ask, range(len(samplings))))):
        _require(done.token_ids == plain[n].token_ids, "who watches changes nothing of what is drawn", done)
        _require(text == ("" if n == 1 else done.text), "the pieces make up the text before it is returned", text)
        _require(all(heard[n]), "no piece is empty", heard[n])


CHECKS: tuple[Check, ...] = (
    check_identity,
    check_encoding,
    check_round_trip,
    check_completion,
    check_limit,
    check_overflow,
    check_seeds,
    check_concurrency,
    check_choices,
    check_cancellation,
    check_watching,
)


async def check_backbone(backbone: Backbone, subject: Subject | None = None) -> None:
    """Run every check. Raises `ContractError` for the first broken rule; the backbone stays open."""
    for check in CHECKS:
        await check(backbone, subject or Subject())


class BackboneConformance:
    """Under pytest: subclass it as `TestMyBackbone` and give a fixture `backbone`.

    Each check runs in an event loop of its own, as an application's synchronous calls do.
    """

    subject = Subject()

    def test_identity(self, backbone: Backbone) -> None:
        asyncio.run(check_identity(backbone, self.subject))

    def test_encoding(self, backbone: Backbone) -> None:
        asyncio.run(check_encoding(backbone, self.subject))

    def test_round_trip(self, backbone: Backbone) -> None:
        asyncio.run(check_round_trip(backbone, self.subject))

    def test_completion(self, backbone: Backbone) -> None:
        asyncio.run(check_completion(backbone, self.subject))

    def test_limit(self, backbone: Backbone) -> None:
        asyncio.run(check_limit(backbone, self.subject))

    def test_overflow(self, backbone: Backbone) -> None:
        asyncio.run(check_overflow(backbone, self.subject))

    def test_seeds(self, backbone: Backbone) -> None:
        asyncio.run(check_seeds(backbone, self.subject))

    def test_concurrency(self, backbone: Backbone) -> None:
        asyncio.run(check_concurrency(backbone, self.subject))

    def test_choices(self, backbone: Backbone) -> None:
        asyncio.run(check_choices(backbone, self.subject))

    def test_cancellation(self, backbone: Backbone) -> None:
        asyncio.run(check_cancellation(backbone, self.subject))

    def test_watching(self, backbone: Backbone) -> None:
        asyncio.run(check_watching(backbone, self.subject))
