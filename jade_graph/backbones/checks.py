"""What every backbone refuses before it spends anything.

Invariant: a request that passes here names a distribution and fits the model; what does not is a typed error that
quotes the offending value.
"""

from __future__ import annotations

from collections.abc import Sequence

from jade_graph.errors import BackboneError
from jade_graph.types import Sampling


def check_sampling(sampling: Sampling, eos_token_ids: frozenset[int]) -> None:
    """Refuse parameters that name no distribution. Raises `BackboneError` BACKBONE_SAMPLING or BACKBONE_CHOICES."""
    wrong = None
    if not 0.0 <= sampling.temperature < float("inf"):
        wrong = f"temperature {sampling.temperature!r} is not a number from 0 up"
    elif not 0.0 < sampling.top_p <= 1.0:
        wrong = f"top_p {sampling.top_p!r} is not in (0, 1]"
    elif sampling.max_new_tokens < 1:
        wrong = f"max_new_tokens {sampling.max_new_tokens!r} is not positive"
    if wrong:
        raise BackboneError(
            f"{wrong}.", code="BACKBONE_SAMPLING", hint="Sampling(temperature=1.0, top_p=1.0, max_new_tokens=64)"
        )
    if sampling.forced is not None:
        _check_action("forced action", sampling.forced, sampling, eos_token_ids)
    if sampling.choices is None:
        return
    if not sampling.choices:
        raise BackboneError(
            "the list of choices is empty.", code="BACKBONE_CHOICES", hint="choices=None for an unrestricted action"
        )
    for choice in sampling.choices:
        _check_action("choice", choice, sampling, eos_token_ids)


def _check_action(what: str, ids: Sequence[int], sampling: Sampling, eos_token_ids: frozenset[int]) -> None:
    if not ids or ids[-1] not in eos_token_ids or any(token in eos_token_ids for token in ids[:-1]):
        raise BackboneError(
            f"the {what} {tuple(ids)!r} does not have the end token as its last and only its last id.",
            code="BACKBONE_CHOICES",
            known=[str(token) for token in sorted(eos_token_ids)],
            hint="(*backbone.encode_text(text), backbone.eos_token_id)",
        )
    if len(ids) > sampling.max_new_tokens:
        raise BackboneError(
            f"a {what} of {len(ids)} tokens does not fit max_new_tokens={sampling.max_new_tokens}.",
            code="BACKBONE_CHOICES",
            hint=f"max_new_tokens={len(ids)} or more",
        )


def check_prompt(prompt: Sequence[int], sampling: Sampling, max_context: int, vocabulary: int) -> None:
    """Refuse what the model cannot take. Raises `BackboneError` CONTEXT_OVERFLOW or BACKBONE_PROMPT."""
    if len(prompt) + sampling.max_new_tokens > max_context:
        raise BackboneError(
            f"a prompt of {len(prompt)} tokens and {sampling.max_new_tokens} new ones exceed the context of "
            f"{max_context}.",
            code="CONTEXT_OVERFLOW",
            hint="fewer or shorter documents, a smaller max_new_tokens, or a model with a longer context",
        )
    if not prompt:
        raise BackboneError("the prompt is empty.", code="BACKBONE_PROMPT", hint="backbone.encode(messages)")
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= vocabulary:
        raise BackboneError(
            f"the token id {low if low < 0 else high} is not in the vocabulary of {vocabulary}.",
            code="BACKBONE_PROMPT",
            hint="backbone.encode(messages): ids of another model's tokenizer do not fit",
        )
