"""JSON of a schema from any model: the skeleton is written for it, it writes the values.

Invariant: what comes out is JSON of the schema's shape, whatever the model: braces, names and separators are given,
alternatives (arms of a union, enum, boolean, null, digits, one more item or not) are drawn from the model among the
legal ones, and free text ends at its closing quote. Bounds and patterns of values are not kept: who parses the result
checks them.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jade_graph.errors import UsageError
from jade_graph.langchain import formats
from jade_graph.langchain.formats import FORMATS
from jade_graph.langchain.shapes import (
    MOST_DEPTH,
    Schema,
    Shapes,
    items_at,
    kind_of,
    least_items,
    most_items,
    values_of,
    wrong,
)
from jade_graph.langchain.writing import DIGITS, Pen
from jade_graph.types import Backbone, Sampling

MOST_ITEMS = 16
_SPELLED = '{"a": [-0.5, true]}'

Go = Callable[[], Awaitable[None]]
Beginnings = dict[str, Go]
"""Texts that a value may begin with, each with what writes the rest of it."""


class Filler(Pen):
    """Fills in one schema."""

    def __init__(self, backbone: Backbone, prompt: list[int], sampling: Sampling, shapes: Shapes) -> None:
        super().__init__(backbone, prompt, sampling)
        self.shapes = shapes

    async def fill(self) -> str:
        """The JSON text. Raises `UsageError` STRUCTURED_SCHEMA, STRUCTURED_TOKENIZER, `BackboneError`."""
        if self.backbone.decode(self.backbone.encode_text(_SPELLED)) != _SPELLED:
            raise UsageError(
                f"the tokenizer of {self.backbone.version!r} cannot spell JSON ({_SPELLED!r}).",
                code="STRUCTURED_TOKENIZER",
                hint="a model with a tokenizer of bytes or subwords",
            )
        self._try_out(self.shapes.root)
        await self._value(self.shapes.root, 0)
        return self.text

    def _try_out(self, schema: Schema, seen: list[Schema] | None = None) -> None:
        """Find alternatives that begin alike before a model is asked."""
        seen = [] if seen is None else seen
        if schema in seen:
            return
        seen.append(schema)
        self._beginnings(schema, 0)
        for one in self.shapes.alternatives(schema):
            more = one.get("additionalProperties")
            inner = [*(one.get("properties") or {}).values(), *(one.get("prefixItems") or ())]
            inner += [s for s in (one.get("items"), more) if isinstance(s, Mapping) and s]
            for each in inner:
                self._try_out(each, seen)

    # --- values -------------------------------------------------------------------------------------------------------
    async def _value(self, schema: Schema, depth: int) -> None:
        begin = self._beginnings(schema, depth)
        await begin[await self.pick(list(begin))]()

    def _beginnings(self, schema: Schema, depth: int) -> Beginnings:
        """How a value may begin at this depth, each text once. Raises `UsageError` where alternatives begin alike."""
        kinds: dict[str, list[Schema]] = {}
        found: Beginnings = {}
        for one in self._fitting(schema, depth):
            if values := values_of(one):
                found |= dict.fromkeys((json.dumps(value, ensure_ascii=False) for value in values), _done)
            else:
                kinds.setdefault(str(kind_of(one)), []).append(one)
        if "integer" in kinds or "number" in kinds:  # whole numbers are numbers
            found = {text: go for text, go in found.items() if text[0] not in "-0123456789"}
            found |= {d: partial(self.number, d, "number" in kinds) for d in ("-", *DIGITS)}
        if "boolean" in kinds:
            found |= {"true": _done, "false": _done}
        if "null" in kinds:
            found |= {"null": _done}
        if texts := kinds.get("string"):
            kept = {formats.alike(text) for text in texts}
            if len(kept) > 1 and None not in kept:
                raise wrong(schema, "has alternatives that begin alike")
            plain = None in kept  # any text is one
            found |= {'"': self.string if plain else partial(formats.write, self, texts[0])}
        return found | self._arrays(kinds.get("array", []), depth) | self._objects(kinds.get("object", []), depth)

    def _fitting(self, schema: Schema, depth: int) -> list[Schema]:
        """The alternatives that end in time; where no room is left for free text, those that end first."""
        found = self.shapes.alternatives(schema)
        if len(found) > 1:
            room = MOST_DEPTH - depth
            first = min(map(self.shapes.least, found))
            full = depth > 0 and self.left(self.ids()) <= 0
            found = [one for one in found if self.shapes.least(one) <= (first if full else max(room, first))]
        return found

    # --- objects ------------------------------------------------------------------------------------------------------
    def _objects(self, arms: Sequence[Schema], depth: int) -> Beginnings:
        if not arms:
            return {}
        if len(arms) == 1:
            return {"{": partial(self._object, arms[0], depth + 1)}
        found: Beginnings = {}
        mappings = [arm for arm in arms if "properties" not in arm]
        named = [arm for arm in arms if arm.get("properties")]
        if len(mappings) > 1 or len(mappings) + len(named) < len(arms) - 1:
            raise _alike(arms)
        for arm in mappings:
            found["{"] = partial(self._mapping, arm, depth + 1)
        if len(mappings) + len(named) < len(arms):
            found["{}"] = _done
        return found | (self._told_apart(named, depth + 1) if len(named) > 1 else self._alone(named, depth + 1))

    def _alone(self, named: Sequence[Schema], depth: int) -> Beginnings:
        out: Beginnings = {}
        for arm in named:
            name = next(iter(arm["properties"]))
            out[f"{{{_key(name)}"] = partial(self._first, arm, name, depth)
        return out

    def _told_apart(self, arms: Sequence[Schema], depth: int) -> Beginnings:
        """The arms of a union, each with a beginning of its own: a value or a name that no other has, put first."""
        shared = [name for name in arms[0]["properties"] if all(name in arm["properties"] for arm in arms)]
        for name in shared:  # what tells them apart by design: "kind": "search" | "answer"
            values = [
                [json.dumps(v, ensure_ascii=False) for v in self._listed(arm["properties"][name])] for arm in arms
            ]
            if all(values) and len({v for told in values for v in told}) == sum(map(len, values)):
                return {
                    f"{{{_key(name)}{value}": partial(self._rest, arm, name, depth)
                    for arm, told in zip(arms, values, strict=True)
                    for value in told
                }
        if names := _names_apart(arms):
            return {
                f"{{{_key(name)}": partial(self._first, arm, name, depth) for arm, name in zip(arms, names, strict=True)
            }
        for name in shared:
            out: Beginnings = {}
            count = 0
            for arm in arms:
                inner = self._beginnings(arm["properties"][name], depth)
                count += len(inner)
                for text, go in inner.items():
                    out[f"{{{_key(name)}{text}"] = partial(self._then, go, partial(self._rest, arm, name, depth))
            if len(out) == count:
                return out
        raise _alike(arms)

    def _listed(self, schema: Schema) -> list[Any]:
        return [
            value for one in self.shapes.alternatives(schema) for value in (values_of(one) or [...]) if value != ...
        ]

    async def _then(self, first: Go, second: Go) -> None:
        await first()
        await second()

    async def _first(self, arm: Schema, name: str, depth: int) -> None:
        """Go on after the first name."""
        await self._value(arm["properties"][name], depth)
        await self._rest(arm, name, depth)

    async def _rest(self, arm: Schema, but: str | None, depth: int) -> None:
        """Write all properties but the one that was written first."""
        comma = but is not None
        for name, inner in arm["properties"].items():
            if name != but:
                self.write(f"{', ' if comma else ''}{_key(name)}")
                await self._value(inner, depth)
                comma = True
        self.write("}")

    async def _object(self, schema: Schema, depth: int) -> None:
        if "properties" in schema or schema.get("additionalProperties") is False:
            await self._rest({"properties": {}, **schema}, None, depth)
        else:
            await self._mapping(schema, depth)

    async def _mapping(self, schema: Schema, depth: int) -> None:
        """Names of the model's own, each with a value: after the brace."""
        inner = schema.get("additionalProperties")
        inner = inner if isinstance(inner, Mapping) and inner else {"type": "string"}
        (names,) = self.shapes.alternatives({"type": "string", **(schema.get("propertyNames") or {})})
        listed = [str(value) if isinstance(value, str) else json.dumps(value) for value in values_of(names)]
        if not listed and kind_of(names) == "boolean":
            listed = ["true", "false"]
        least = int(schema.get("minProperties", 0))
        most = max(min(int(schema.get("maxProperties", MOST_ITEMS)), len(listed) or MOST_ITEMS), least)
        if depth + self.shapes.least(inner) > MOST_DEPTH:
            most = least
        used: list[str] = []
        while len(used) < most:
            if len(used) >= least:
                if self.left(self.ids()) <= 0:
                    self.cut = True
                    break
                if await self.pick([', "' if used else '"', "}"]) == "}":
                    return
            else:
                self.write(', "' if used else '"')
            name = await self._name(names, [name for name in listed if name not in used], used)
            if not name and used and names.get("format") in FORMATS:  # the model says the same again: that is all
                self.text = self.text.removesuffix(', "')
                break
            used.append(name)
            self.write(": ")
            await self._value(inner, depth)
        self.write("}")

    async def _name(self, names: Schema, listed: Sequence[str], used: Sequence[str]) -> str:
        """A name that is not used yet, after its opening quote."""
        at = len(self.text)
        if listed:
            await self.pick([f"{json.dumps(name, ensure_ascii=False)[1:]}" for name in listed])
        elif kind_of(names) in ("integer", "number"):
            await self.number(await self.pick(list(DIGITS)), False)
            self.write('"')
        elif names.get("format") in FORMATS:
            await formats.write(self, names)
        else:
            await self.string()
        name = str(json.loads(f'"{self.text[at:]}'))
        if name in used:  # another of the same name would replace the first
            self.text = self.text[:at]
            if names.get("format") in FORMATS:
                return ""
            name = next(new for n in range(2, len(used) + 3) if (new := _another(names, name, n)) not in used)
            self.write(json.dumps(name, ensure_ascii=False)[1:])
        return name

    # --- arrays -------------------------------------------------------------------------------------------------------
    def _arrays(self, arms: Sequence[Schema], depth: int) -> Beginnings:
        if len(arms) < 2:
            return {"[": partial(self._array, arms[0], depth + 1)} if arms else {}
        found: Beginnings = {}
        for arm in arms:
            begin: Beginnings = {} if least_items(arm) else {"[]": _done}
            if most_items(arm, MOST_ITEMS):
                for text, go in self._beginnings(items_at(arm, 0), depth + 1).items():
                    begin[f"[{text}"] = partial(self._then, go, partial(self._items, arm, depth + 1, 1))
            if any(text in found and text != "[]" for text in begin):
                raise _alike(arms)
            found |= begin
        return found

    async def _array(self, schema: Schema, depth: int) -> None:
        if not self._room(schema, depth, 0):
            self.write("]")
            return
        begin = self._beginnings(items_at(schema, 0), depth)
        drawn = await self.pick([*begin, *(["]"] if not least_items(schema) else [])])
        if drawn != "]":
            await begin[drawn]()
            await self._items(schema, depth, 1)

    async def _items(self, schema: Schema, depth: int, count: int) -> None:
        """Write items from this one on, and the bracket."""
        while self._room(schema, depth, count):
            if count < least_items(schema):
                self.write(", ")
            elif self.left(self.ids()) <= 0:
                self.cut = True
                break
            elif await self.pick([", ", "]"]) == "]":
                return
            await self._value(items_at(schema, count), depth)
            count += 1
        self.write("]")

    def _room(self, schema: Schema, depth: int, count: int) -> bool:
        """Whether another item may come, or has to."""
        fits = depth + self.shapes.least(items_at(schema, count)) <= MOST_DEPTH
        return count < least_items(schema) or (count < most_items(schema, MOST_ITEMS) and fits)


async def _done() -> None:
    """The beginning was all of it."""


def _names_apart(arms: Sequence[Schema]) -> list[str]:
    """For each arm a name of its own to begin with, no two the same, the rarest first; none: there are not enough."""
    count: dict[str, int] = {}
    for arm in arms:
        for name in arm["properties"]:
            count[name] = count.get(name, 0) + 1
    taken: dict[str, int] = {}

    def place(index: int, tried: set[str]) -> bool:
        for name in sorted(arms[index]["properties"], key=lambda n: count[n]):
            if name not in tried:
                tried.add(name)
                if name not in taken or place(taken[name], tried):
                    taken[name] = index
                    return True
        return False

    if not all(place(index, set()) for index in range(len(arms))):
        return []
    return [name for _, name in sorted((index, name) for name, index in taken.items())]


def _key(name: str) -> str:
    return f"{json.dumps(name)}: "


def _another(names: Schema, name: str, number: int) -> str:
    return f"{name}{number}" if kind_of(names) in ("integer", "number") else f"{name}_{number}"


def _alike(arms: Sequence[Schema]) -> UsageError:
    return wrong({"anyOf": list(arms)}, "has alternatives that begin alike")
