"""Language models: one protocol, token ids in, token ids and log-probabilities out.

Invariant: a `Completion` carries ids and log-probabilities exactly as the backbone produced them, one for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jade_graph.types.trace import Ask

FinishReason = Literal["stop", "length", "scripted"]

Watch = Callable[[str], None]
"""Hears an action's text while it is drawn, piece by piece; see `Backbone`."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an action is drawn. `temperature` 0 is greedy. `top_p` 1 and no top-k: the full distribution.

    `choices` restricts the action to one of these token-id sequences (constrained decoding over a finite language);
    the recorded log-probabilities are then those of the restricted distribution, which is what was sampled.
    `forced` is the action itself: nothing is drawn, and the log-probabilities are those that the model gives it
    (exploration by a mixture of policies, spec section 4).
    `drawn` tokens of the same seed stand at the end of the prompt already: the next one is drawn as it would have been
    in one piece with them, by backbones that have an attribute `counts_draws = True`.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0
    choices: tuple[tuple[int, ...], ...] | None = None
    forced: tuple[int, ...] | None = None
    drawn: int = 0


@dataclass(frozen=True, slots=True)
class Thought:
    """How a model thinks before it answers, which is no part of its action: between `opens` and `closes`.

    `opened`: the prompt ends within a thought, so that the model's text begins with it. `tokens`: what an action may
    have for it beyond its role's own bound.
    """

    opens: str
    closes: str
    opened: bool
    tokens: int = 0

    def spoken(self, text: str) -> str:
        """The text behind the thought; empty where the thought was cut before its end."""
        if not self.opened and not text.lstrip().startswith(self.opens):
            return text
        return text.partition(self.closes)[2].lstrip()

    def whole(self, text: str) -> str:
        """The text with its thought as a role that speaks of thoughts itself reads it."""
        return self.opens + text if self.opened and not text.lstrip().startswith(self.opens) else text


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backbone produced: `len(logprobs) == len(token_ids)`, natural logarithm, at the sampling temperature
    (greedy: at temperature 1). An end-of-sequence token that was sampled is the last id; `text` leaves it out.
    `finish_reason` "length" means that `max_new_tokens` cut the action: it then has no end token.
    A hosted model that tells no ids has none here; `prompt_tokens` and `action_tokens` are then what it counted.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    model_version: str
    queue_ms: float = 0.0
    model_ms: float = 0.0
    prompt_tokens: int | None = None
    action_tokens: int | None = None


@runtime_checkable
class Backbone(Protocol):
    """A language model that every role shares. Token in, token out: text is rendered once, by `encode`.

    A backbone whose ids are not the model's own says so by an attribute `exact_ids = False`: its ids only stand in for
    messages, they are not recorded, and its actions never train (`context.knows_ids`). One that thinks before it
    answers says how by an attribute `thought` (`Thought`).

    One that tells what it draws while it draws it says so by an attribute `streams = True`. Its `generate` then takes a
    further keyword `watch` (`Watch` or None), called on the event loop that awaits it with each new piece of text, all
    of them before `generate` returns: joined they are the completion's text, or a beginning of it where it raised.
    """

    @property
    def version(self) -> str:
        """Names the weights; recorded on every completion."""
        ...

    @property
    def profile(self) -> str:
        """Which prompt profile the roles render for this model: "chat", "brief" or "compact"."""
        ...

    @property
    def max_context(self) -> int:
        """Prompt plus action, in tokens."""
        ...

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Apply the chat template (or join, where there is none) and tokenise: the only place that does."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Token ids of an action as the model would emit it, without the end token."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    @property
    def eos_token_id(self) -> int: ...

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, *, hint: Ask | None = None
    ) -> Completion:
        """Sample one action. `hint` names the role and view behind the prompt: scripted backbones answer from it,
        models ignore it. Cancelling the awaiting task withdraws the request. Raises `BackboneError`.
        """
        ...

    async def aclose(self) -> None: ...


class Lease(Protocol):
    """One user's hold on one version of a model: `backbone` stays open and the same until `release`."""

    @property
    def backbone(self) -> Backbone: ...

    @property
    def version(self) -> str:
        """The `Backbone.version` that is held."""
        ...

    def release(self) -> None:
        """Give the version back; doing so twice does nothing."""
        ...

    def renew(self, seconds: float) -> None:
        """The user is still there and needs the version for so long. Raises `BackboneError` VERSION_GONE."""
        ...


@runtime_checkable
class Leasing(Protocol):
    """A backbone whose weights may be swapped: a run leases one version and uses `lease.backbone` to its end."""

    def lease(self, *, seconds: float = math.inf, version: str = "") -> Lease:
        """Hold the active version, or the one with this `Backbone.version`. Raises `BackboneError` VERSION_GONE."""
        ...

    def follow(self, graph: Mapping[str, Any]) -> None:
        """An engine with these keyword arguments serves runs from now on: begin to follow the alias."""
        ...
