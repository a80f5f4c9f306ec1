"""JSON of a schema from any model: the skeleton is written for it, it writes the values.

Invariant: what comes out is JSON of the schema's shape, whatever the model: braces, names and separators are given,
alternatives (enum, boolean, null, digits, one more item or not) are drawn from the model among the legal ones, and free
text ends at its closing quote. Bounds and patterns of values are not kept: who parses the result checks them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.types import Backbone, Completion, Sampling

MOST_ITEMS = 16
_MOST_DIGITS = 12
_MOST_DEPTH = 12
_REST = 96  # tokens kept free for the skeleton that is still to come
_PIECE = 16
_DIGITS = tuple("0123456789")
_SPELLED = '{"a": [-0.5, true]}'


@dataclass
class Filler:
    """Fills one schema. `sampled` are the completions that the model was asked for, in order.

    Args:
        backbone: with token ids of its own.
        prompt: token ids before the JSON.
        sampling: how values are drawn; `max_new_tokens` bounds all free text together.
        definitions: the schema's "$defs".
    """

    backbone: Backbone
    prompt: list[int]
    sampling: Sampling
    definitions: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    cut: bool = False
    sampled: list[Completion] = field(default_factory=list)

    async def fill(self, schema: Mapping[str, Any]) -> str:
        """The JSON text. Raises `UsageError` STRUCTURED_SCHEMA, STRUCTURED_TOKENIZER, `BackboneError`."""
        if self.backbone.decode(self.backbone.encode_text(_SPELLED)) != _SPELLED:
            raise UsageError(
                f"the tokenizer of {self.backbone.version!r} cannot spell JSON ({_SPELLED!r}).",
                code="STRUCTURED_TOKENIZER",
                hint="a model with a tokenizer of bytes or subwords",
            )
        await self._value(schema, 0)
        return self.text

    # --- values -------------------------------------------------------------------------------------------------------
    async def _value(self, schema: Mapping[str, Any], depth: int) -> None:
        await self._from(await self._pick(list(self._openings(schema, depth))), schema, depth)

    async def _from(self, opening: str, schema: Mapping[str, Any], depth: int) -> None:
        """Go on after the opening that was drawn."""
        kind = next(s for s in self._alternatives(schema, depth) if opening in set(self._openings(s, depth)))
        if "enum" in kind or "const" in kind:
            return
        if opening == "{":
            await self._object(kind, depth + 1)
        elif opening == "[":
            await self._array(kind, depth + 1)
        elif opening == '"':
            await self._string()
        elif kind.get("type") in ("integer", "number"):
            await self._number(opening, kind["type"] == "number")

    async def _object(self, schema: Mapping[str, Any], depth: int) -> None:
        for number, (name, inner) in enumerate(schema.get("properties", {}).items()):
            self._write(f"{', ' if number else ''}{json.dumps(name)}: ")
            await self._value(inner, depth)
        self._write("}")

    async def _array(self, schema: Mapping[str, Any], depth: int) -> None:
        items = schema.get("items") or {"type": "string"}
        least, most = int(schema.get("minItems", 0)), min(int(schema.get("maxItems", MOST_ITEMS)), MOST_ITEMS)
        for count in range(most):
            if count and count >= least and self._left(self._ids()) <= 0:
                self.cut = True
                break
            if count:
                if count >= least and await self._pick([", ", "]"]) == "]":
                    return
                if count < least:
                    self._write(", ")
                await self._value(items, depth)
            else:
                opening = await self._pick([*self._openings(items, depth), *(["]"] if not least else [])])
                if opening == "]":
                    return
                await self._from(opening, items, depth)
        self._write("]")

    async def _string(self) -> None:
        start, body = list(self._ids()), ""
        left = self._left(start)
        ids: list[int] = []
        while left > 0:
            done = await self._draw([*start, *ids], min(_PIECE, left))
            ids += [t for t in done.token_ids if done.finish_reason == "length" or t != done.token_ids[-1]]
            left -= len(done.token_ids)
            body = self.backbone.decode(ids)
            if _closes(body) is not None or "\n" in body or done.finish_reason != "length":
                break
        else:
            self.cut = True
        end = _closes(body)
        body = body[: len(body) if end is None else end].split("\n", 1)[0]
        self._write(json.dumps(_unescaped(body), ensure_ascii=False)[1:])

    def _left(self, ids: list[int]) -> int:
        """Tokens that free text may still take: of the budget, and of the context less what the rest will need."""
        spent = sum(len(c.token_ids) for c in self.sampled)
        return min(self.sampling.max_new_tokens - spent, self.backbone.max_context - len(ids) - _REST)

    async def _number(self, digits: str, fraction: bool) -> None:
        if digits == "-":
            digits += await self._pick(list(_DIGITS))
        if digits.lstrip("-") == "0" and not fraction:
            return  # JSON has no leading zeros
        point = False
        for _ in range(_MOST_DIGITS):
            more = [] if digits.lstrip("-") == "0" else list(_DIGITS)
            if fraction and not point:
                more.append(".")
            drawn = await self._pick([*more, " "], silent=" ")
            if drawn == " ":
                return
            digits += drawn
            if drawn == ".":
                point = True
                digits += await self._pick(list(_DIGITS))

    # --- what may begin a value ---------------------------------------------------------------------------------------
    def _alternatives(self, schema: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
        if depth > _MOST_DEPTH:
            raise _wrong(schema, f"is nested deeper than {_MOST_DEPTH}")
        if "$ref" in schema:
            name = str(schema["$ref"]).rsplit("/", 1)[-1]
            if name not in self.definitions:
                raise _wrong(schema, f"refers to {schema['$ref']!r}, which is not there")
            yield from self._alternatives(self.definitions[name], depth + 1)
        elif several := schema.get("anyOf") or schema.get("oneOf"):
            for one in several:
                yield from self._alternatives(one, depth + 1)
        elif len(schema.get("allOf", ())) == 1:
            yield from self._alternatives(schema["allOf"][0], depth + 1)
        elif isinstance(schema.get("type"), list):
            for kind in schema["type"]:
                yield {**schema, "type": kind}
        else:
            yield schema

    def _openings(self, schema: Mapping[str, Any], depth: int) -> list[str]:
        found: dict[str, None] = {}
        for one in self._alternatives(schema, depth):
            if "enum" in one or "const" in one:
                told = one["enum"] if "enum" in one else [one["const"]]
                found |= dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in told)
                continue
            kind = one.get("type") or ("object" if "properties" in one else None)
            if kind not in _OPENINGS:
                raise _wrong(one, "has no type that can be filled")
            found |= dict.fromkeys(_OPENINGS[str(kind)])
        return list(found)

    # --- the model ----------------------------------------------------------------------------------------------------
    def _ids(self) -> list[int]:
        return [*self.prompt, *(self.backbone.encode_text(self.text) if self.text else ())]

    def _write(self, text: str) -> None:
        self.text += text

    async def _pick(self, texts: list[str], *, silent: str = "") -> str:
        """One of the texts, drawn by the model where there is more than one; written down unless it is `silent`."""
        if len(texts) == 1:
            chosen = texts[0]
        else:
            end = self.backbone.eos_token_id
            choices = tuple((*self.backbone.encode_text(text), end) for text in texts)
            wanted = max(map(len, choices))
            done = await self._ask(replace(self.sampling, choices=choices, max_new_tokens=wanted), self._ids())
            chosen = texts[choices.index(done.token_ids)]
        if chosen != silent:
            self._write(chosen)
        return chosen

    async def _draw(self, ids: list[int], count: int) -> Completion:
        return await self._ask(replace(self.sampling, max_new_tokens=count), ids)

    async def _ask(self, sampling: Sampling, ids: list[int]) -> Completion:
        done = await self.backbone.generate(ids, replace(sampling, seed=sampling.seed + len(self.sampled)))
        self.sampled.append(done)
        return done


_OPENINGS: Mapping[str, tuple[str, ...]] = {
    "object": ("{",),
    "array": ("[",),
    "string": ('"',),
    "integer": ("-", *_DIGITS),
    "number": ("-", *_DIGITS),
    "boolean": ("true", "false"),
    "null": ("null",),
}


def _closes(body: str) -> int | None:
    """Where the first quote stands that no backslash hides."""
    escaped = False
    for index, letter in enumerate(body):
        if letter == '"' and not escaped:
            return index
        escaped = letter == "\\" and not escaped
    return None


def _unescaped(body: str) -> str:
    try:
        return str(json.loads(f'"{body}"'))
    except ValueError:  # a stray backslash or control character: the text as it was written
        return body


def _wrong(schema: Mapping[str, Any], what: str) -> UsageError:
    return UsageError(
        f"the schema {json.dumps(schema, default=str)[:200]} {what}.",
        code="STRUCTURED_SCHEMA",
        known=["object with properties", "array", "string", "integer", "number", "boolean", "null", "enum", "anyOf"],
        hint="a Pydantic model with typed fields",
    )
