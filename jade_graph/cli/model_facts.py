"""What was found of a model as it was loaded: how prompts reach it, what ends its actions, how fast it is.

Invariant: everything is asked of the loaded backbone itself; a kind that does not tell a thing is not reported on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from jade_graph.sync import run_sync
from jade_graph.types import Backbone, Message, Sampling, Thought

_TOKENS = 32
_ABILITIES = {
    "batches": "requests share batches",
    "rows": "its batches compute other numbers than it does: requests go one by one",
    "plain": "its cache computes other numbers than it does: one by one and without cache",
}
Fact = tuple[str, bool, str, str]
"""What, whether it is as one would wish, what was found, what to do."""


def facts(backbone: Backbone) -> Iterator[Fact]:
    """Raises what the backbone raises when it is asked for a few tokens."""
    codec = getattr(backbone, "codec", None)
    if codec is not None and codec.conversations is not None:
        folds = codec.conversations.folds_system
        told = "folded into the user's text: the chat template has no place for it" if folds else "by the chat template"
        yield "system text", True, told, ""
    ends = tuple(getattr(backbone, "eos_token_ids", ())) or (backbone.eos_token_id,)
    if codec is not None:
        spelled = [f"{token} {codec.tokenizer.decode([token])!r}" for token in ends]
        yield "end tokens", True, ", ".join(spelled), ""
    thought = getattr(backbone, "thought", None)
    if isinstance(thought, Thought):
        yield ("thinking", *_thinking(thought))
    elif codec is not None:
        yield "thinking", True, "none that its template tells of", ""
    small = backbone.max_context < 2048
    advice = "roles cut documents to fit; a model with a longer context reads more" if small else ""
    yield "context", not small, f"{backbone.max_context:,} tokens", advice
    able = getattr(backbone, "ability", None)
    if able in _ABILITIES:
        yield "batches", able == "batches", _ABILITIES[able], ""
    yield "speed", True, _speed(backbone), ""


def _thinking(thought: Thought) -> tuple[bool, str, str]:
    where = "its prompt opens a thought" if thought.opened else "it may think"
    room = f"{thought.tokens} tokens for it beyond each role's own"
    short = thought.opened and not thought.tokens
    return (
        not short,
        f"{where} ({thought.opens} .. {thought.closes}), {room}",
        "--set thought_tokens=1024" if short else "",
    )


def _speed(backbone: Backbone) -> str:
    prompt = backbone.encode([Message("system", "Answer."), Message("user", "Tell all that you know of rivers. " * 8)])
    room = max(1, min(_TOKENS, backbone.max_context - len(prompt)))
    asked = Sampling(temperature=1.0, max_new_tokens=room)
    run_sync(backbone.generate(prompt, Sampling(temperature=0.0, max_new_tokens=1)))
    began = time.perf_counter()
    first = run_sync(backbone.generate(prompt, Sampling(temperature=0.0, max_new_tokens=1)))
    reading = time.perf_counter() - began
    began = time.perf_counter()
    done = run_sync(backbone.generate(prompt, asked))
    writing = time.perf_counter() - began - reading
    count = max(len(done.token_ids) - len(first.token_ids), 0)
    read = f"{len(prompt) / max(reading, 1e-6):,.0f} prompt tokens/s"
    return f"{read}, {count / max(writing, 1e-6):,.0f} tokens/s of one action" if count else read
