"""Around a model's call: the prompt that fits, and what the text that came back means.

Invariant: pure; what a role's parser or effect returns is checked before anything acts on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from jade_graph.errors import BackboneError
from jade_graph.types import Backbone, Effect, Message, Parsed, Passage, Plan, Role, Thought, Tool, View

LONGEST = 32_768
"""Most characters of an action, its thought apart: hosted models write what they like, and parsers run on the loop."""


def read(role: Role, text: str, view: View, thought: Thought | None = None) -> Parsed:
    """Parse an action; where there is no legal value, take the role's fallback.

    Of a model that thinks before it answers the `thought` is no part of the action, but for roles that speak of
    thoughts themselves (an attribute `thinks`), where the whole is legal.
    """
    if thought is not None:
        if getattr(role, "thinks", False):
            whole = role.parse(thought.whole(text)[:LONGEST], view)
            if whole.value is not None and whole.violation is None:
                return whole
        text = thought.spoken(text)
    if len(text) > LONGEST:
        return Parsed(role.fallback(text[:LONGEST], view), "OVERLONG", fallback_used=True)
    parsed = role.parse(text, view)
    if parsed.value is None:
        return Parsed(role.fallback(text, view), parsed.violation or "UNPARSED", fallback_used=True)
    return parsed


def checked(effect: object, part: Role | Tool, view: View) -> Effect:
    """The effect, if the graph can carry it out. Raises `TypeError` or `ValueError` that names what is wrong."""
    if not isinstance(effect, Effect):
        raise TypeError(f"effect() gave a {type(effect).__name__}, no Effect")
    if not isinstance(effect.memory, Mapping):
        raise TypeError(f"Effect.memory is a {type(effect.memory).__name__}, no mapping")
    if effect.answer is not None and not (isinstance(effect.answer, str) and effect.answer.strip()):
        raise ValueError(f"Effect.answer is {effect.answer!r}: a text that is not empty is needed")
    if isinstance(effect.children, str) or not all(isinstance(c, str) and c.strip() for c in effect.children):
        raise ValueError(f"Effect.children is {effect.children!r}: texts that are not empty are needed")
    if effect.order not in (None, "serial", "parallel"):
        raise ValueError(f"Effect.order is {effect.order!r}: 'serial' or 'parallel' is needed")
    for name in ("documents", "selected"):
        if not all(isinstance(d, Passage) for d in effect.memory.get(name) or ()):
            raise TypeError(f"Effect.memory[{name!r}] holds what is no Passage")
    if getattr(part, "kind", "tool") == "planner" and effect.memory.get("plan") not in view.plans:
        raise ValueError(f"the planner's effect holds no legal plan: {effect.memory.get('plan')!r}")
    return effect


def fit(role: Role, view: View, backbone: Backbone, max_new_tokens: int) -> tuple[tuple[Message, ...], list[int], bool]:
    """Render and encode a prompt that leaves room for the action, cutting documents where it is too long.

    Returns messages, ids, and whether documents were cut. Raises `BackboneError` CONTEXT_OVERFLOW when the prompt does
    not fit without any document text either.
    """
    room = backbone.max_context - max_new_tokens
    longest = max((len(d.text) for d in _passages(view.memory)), default=0)
    cut = False
    while True:
        messages = role.render(view, backbone.profile)
        ids = backbone.encode(messages)
        if len(ids) <= room:
            return messages, ids, cut
        if longest == 0:
            raise BackboneError(
                f"the prompt of {role.code} has {len(ids)} tokens without its documents; {room} fit.",
                code="CONTEXT_OVERFLOW",
                hint="a model with a longer context (--backbone), or a shorter question",
            )
        longest = max(0, min(longest - 1, int(longest * room / len(ids))))
        view, cut = _cut_documents(view, longest), True


def _cut_documents(view: View, length: int) -> View:
    """The view with documents of at most `length` characters, cut between words where there are any."""

    def cut(passage: Passage) -> Passage:
        if len(passage.text) <= length:
            return passage
        head, _, tail = passage.text[:length].rpartition(" ")
        return replace(passage, text=head if len(tail) < length // 2 else passage.text[:length])

    def within(value: Any) -> Any:
        if isinstance(value, Passage):
            return cut(value)
        if isinstance(value, tuple | list):
            return tuple(map(within, value))
        if isinstance(value, Mapping):
            return {key: within(inner) for key, inner in value.items()}
        return value

    return replace(view, memory=within(view.memory))


def _passages(value: Any) -> Iterator[Passage]:
    """Every passage in the working memory, however deep: a loop may keep those of earlier turns."""
    if isinstance(value, Passage):
        yield value
    elif isinstance(value, tuple | list | Mapping):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _passages(inner)


def jsonable(value: Any) -> Any:
    """A parsed value as JSON can hold it."""
    if isinstance(value, Plan):
        return str(value)
    if isinstance(value, Passage):
        score = round(float(value.score), 6) if isinstance(value.score, int | float) else 0.0
        known = {"id": value.id, "title": value.title, "text": value.text, "score": score}
        return {**known, "metadata": jsonable(value.metadata)} if value.metadata else known
    if isinstance(value, tuple | list):
        return [jsonable(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def in_words(value: Any) -> str:
    """A recorded value (`jsonable`) in one line for people."""
    if isinstance(value, Mapping):
        return "; ".join(str(k) if v is True else f"{k}: {in_words(v)}" for k, v in value.items())
    if isinstance(value, tuple | list):
        return " | ".join(" = ".join(map(str, v)) if isinstance(v, tuple | list) else str(v) for v in value)
    return "" if value is None else str(value)
