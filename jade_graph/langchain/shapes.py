"""What a JSON schema asks for, as far as it can be filled in.

Invariant: pure, and decided before a model is asked: what cannot be honoured (a keyword that changes the shape and is
not known here, alternatives that begin alike, a value that never ends) is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from jade_graph.errors import UsageError
from jade_graph.langchain import formats
from jade_graph.langchain.formats import FORMATS

MOST_DEPTH = 12
ENDLESS = 10**6
_KINDS = ("object", "array", "string", "integer", "number", "boolean", "null")
_UNKNOWN = (
    *("not", "if", "then", "else", "patternProperties", "dependentRequired", "dependentSchemas", "contains"),
    *("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "additionalItems", "dependencies"),
)
_SHAPING = ("type", "properties", "items", "prefixItems", "additionalProperties", "enum", "const", "required")
FREE = ("binary", "password", "path")


class Generator(GenerateJsonSchema):
    """A Pydantic class's schema with what the standard one leaves out: keys that are no texts, decimals as numbers, the
    schemes of URLs, and whether a time has a zone or is to come.
    """

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        if keys and keys != {"type": "string"}:
            found["propertyNames"] = keys
        return found

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        del schema
        return {"type": "number"}

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        schemes = schema.get("allowed_schemes")
        return super().url_schema(schema) | ({formats.SCHEMES: list(schemes)} if schemes else {})

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        return super().date_schema(schema) | _asked(schema)

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        return super().time_schema(schema) | _asked(schema)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        return super().datetime_schema(schema) | _asked(schema)


def _asked(schema: Mapping[str, Any]) -> JsonSchemaValue:
    """What a JSON schema does not say of a date or a time."""
    asked = {formats.NOW: schema.get("now_op"), formats.ZONE: schema.get("tz_constraint")}
    return {mark: value for mark, value in asked.items() if isinstance(value, str)}


Schema = Mapping[str, Any]


class Shapes:
    """The schemas of one root.

    Args:
        root: a JSON schema.
        checked: its values are read by a Pydantic class: formats that cannot be written are refused.

    Raises:
        UsageError: STRUCTURED_SCHEMA.
    """

    def __init__(self, root: Schema, *, checked: bool = False) -> None:
        self.root, self.checked = root, checked
        self.definitions: Mapping[str, Any] = {**(root.get("definitions") or {}), **(root.get("$defs") or {})}
        self._lengths: dict[str, int] = {}
        self._known: dict[str, None] = {}
        self._check(root)
        self._measure()
        if self.least(root) > MOST_DEPTH:
            raise wrong(root, f"is nested deeper than {MOST_DEPTH}")

    # --- reading ------------------------------------------------------------------------------------------------------
    def alternatives(self, schema: Schema) -> list[Schema]:
        """What the value may be, each of one kind, none twice."""
        found: list[Schema] = []
        for one in self._flat(schema, ()):
            if one not in found:
                found.append(one)
        return found

    def _flat(self, schema: Schema, seen: tuple[str, ...]) -> Iterator[Schema]:
        if not isinstance(schema, Mapping):
            raise wrong({"schema": schema}, "is no schema of a value")
        if "$ref" in schema:
            name = self._name(schema)
            if name in seen:
                raise wrong(schema, "refers to itself alone")
            yield from self._flat(self._named(name, schema), (*seen, name))
        elif several := schema.get("anyOf") or schema.get("oneOf"):
            for one in several:
                yield from self._flat(one, seen)
        elif len(schema.get("allOf", ())) == 1:
            yield from self._flat(schema["allOf"][0], seen)
        elif isinstance(schema.get("type"), list):
            for kind in schema["type"]:
                yield from self._flat({**schema, "type": kind}, seen)
        else:
            yield schema

    def _name(self, schema: Schema) -> str:
        return str(schema["$ref"]) if schema["$ref"] == "#" else str(schema["$ref"]).rsplit("/", 1)[-1]

    def _named(self, name: str, schema: Schema) -> Schema:
        if name == "#":
            return self.root
        if name not in self.definitions:
            raise wrong(schema, f"refers to {schema['$ref']!r}, which is not there")
        found: Schema = self.definitions[name]
        return found

    # --- how deep it has to go ----------------------------------------------------------------------------------------
    def least(self, schema: Schema) -> int:
        """The least depth of braces that a value of the schema has."""
        if "$ref" in schema:
            return self._lengths.get(self._name(schema), ENDLESS)
        return min((self._depth(one) for one in self._branches(schema)), default=ENDLESS)

    def _branches(self, schema: Schema) -> Sequence[Schema]:
        inner = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        return list(inner) if inner else [schema]

    def _depth(self, schema: Schema) -> int:
        if "$ref" in schema or "anyOf" in schema or "oneOf" in schema or "allOf" in schema:
            return self.least(schema)
        kinds = schema.get("type") if isinstance(schema.get("type"), list) else [kind_of(schema)]
        return min(self._depth_as(str(kind), schema) for kind in kinds or ())

    def _depth_as(self, kind: str, schema: Schema) -> int:
        if kind == "object":
            inner = list((schema.get("properties") or {}).values())
            if schema.get("minProperties", 0) > len(inner) and isinstance(schema.get("additionalProperties"), Mapping):
                inner.append(schema["additionalProperties"])
            return 1 + max((self.least(one) for one in inner), default=0)
        if kind == "array":
            return 1 + max((self.least(items_at(schema, i)) for i in range(least_items(schema))), default=0)
        return 0

    def _measure(self) -> None:
        """Depths of all that is referred to: from below, until nothing changes."""
        changed = True
        while changed:
            changed = False
            for name in self._known:
                now = self.least(self._named(name, {"$ref": name}))
                if now < self._lengths.get(name, ENDLESS):
                    self._lengths[name], changed = now, True

    # --- what cannot be honoured --------------------------------------------------------------------------------------
    def _check(self, schema: Any) -> None:
        if not isinstance(schema, Mapping):
            raise wrong({"schema": schema}, "is no schema of a value")
        for keyword in _UNKNOWN:
            if keyword in schema:
                raise wrong(schema, f"has {keyword!r}, which cannot be kept")
        if "$ref" in schema:
            name = self._name(schema)
            if name not in self._known:
                self._known[name] = None
                self._check(self._named(name, schema))
            return
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword not in schema:
                continue
            beside = [k for k in schema if k in _SHAPING or (k in ("anyOf", "oneOf", "allOf") and k != keyword)]
            if beside or (keyword == "allOf" and len(schema[keyword]) != 1) or not schema[keyword]:
                raise wrong(schema, f"has {keyword!r} with {beside or len(schema[keyword])}, which cannot be kept")
            for one in schema[keyword]:
                self._check(one)
            return
        self._check_one(schema)

    def _check_one(self, schema: Schema) -> None:
        if "enum" in schema or "const" in schema:
            if not values_of(schema):
                raise wrong(schema, "has no value")
            return
        kinds = schema.get("type") if isinstance(schema.get("type"), list) else [kind_of(schema)]
        for kind in kinds or [None]:
            if kind not in _KINDS:
                raise wrong(schema, "has no type that can be filled")
            if kind == "object":
                self._check_object(schema)
            elif kind == "array":
                self._check_array(schema)
            elif kind == "string" and self.checked:
                if schema.get("format", "path") not in (*FORMATS, *FREE):
                    raise wrong(schema, f"has the format {schema['format']!r}, which cannot be kept")
                if "contentMediaType" in schema:
                    raise wrong(schema, f"holds {schema['contentMediaType']!r}, which cannot be kept")

    def _check_object(self, schema: Schema) -> None:
        for one in (schema.get("properties") or {}).values():
            self._check(one)
        missing = [name for name in schema.get("required") or () if name not in (schema.get("properties") or {})]
        if missing:
            raise wrong(schema, f"requires {missing[0]!r}, and does not say what it is")
        if isinstance(schema.get("additionalProperties"), Mapping) and schema["additionalProperties"]:
            self._check(schema["additionalProperties"])
        least, most = schema.get("minProperties", 0), schema.get("maxProperties", ENDLESS)
        own = len(schema.get("properties") or {})
        if own and (own < least or own > most):
            raise wrong(schema, f"has {own} properties, and bounds for other numbers of them")
        if "propertyNames" in schema:
            keys = schema["propertyNames"]
            self._check({"type": "string", **keys})
            alternatives = self.alternatives({"type": "string", **keys})
            if (
                len(alternatives) != 1
                or alternatives[0].get("pattern")
                or kind_of(alternatives[0]) in ("object", "array")
            ):
                raise wrong(schema, "has keys that cannot be kept")
            few = 1 if alternatives[0].get("format") in FORMATS else len(values_of(alternatives[0]))
            if 0 < few < least:
                raise wrong(schema, "has fewer keys than it needs")

    def _check_array(self, schema: Schema) -> None:
        least, most = least_items(schema), schema.get("maxItems", ENDLESS)
        if least > most:
            raise wrong(schema, f"has at least {least} items and at most {most}")
        if schema.get("uniqueItems") and least > 1:
            raise wrong(schema, "wants several items that are all different, which cannot be kept")
        for one in schema.get("prefixItems") or ():
            self._check(one)
        if isinstance(schema.get("items"), list):
            raise wrong(schema, "has a list of items: 'prefixItems' is today's name for it")
        if schema.get("items"):
            self._check(schema["items"])


def kind_of(schema: Schema) -> str | None:
    """The one type of the schema."""
    return schema.get("type") or ("object" if "properties" in schema or "additionalProperties" in schema else None)


def values_of(schema: Schema) -> list[Any]:
    """The values that it lists; of none: it lists none."""
    return list(schema["enum"]) if "enum" in schema else [schema["const"]] if "const" in schema else []


def least_items(schema: Schema) -> int:
    """How many items an array has at the least."""
    return max(int(schema.get("minItems", 0)), 0)


def most_items(schema: Schema, otherwise: int) -> int:
    """How many items an array has at the most; `otherwise` where it does not say, or would never end."""
    first = len(schema.get("prefixItems") or ())
    bound = int(schema.get("maxItems", otherwise))
    if schema.get("items") is False or ("prefixItems" in schema and "items" not in schema):
        bound = min(bound, first)
    return max(min(bound, max(otherwise, first)), least_items(schema))


def items_at(schema: Schema, index: int) -> Schema:
    """The schema of the item at this place; of a list of anything: texts."""
    first = schema.get("prefixItems") or ()
    found: Schema = first[index] if index < len(first) else schema.get("items") or {"type": "string"}
    return found if isinstance(found, Mapping) else {"type": "string"}


def wrong(schema: Schema, what: str) -> UsageError:
    return UsageError(
        f"the schema {json.dumps(schema, default=str)[:200]} {what}.",
        code="STRUCTURED_SCHEMA",
        known=["object with properties", "array", "string", "integer", "number", "boolean", "null", "enum", "anyOf"],
        hint="a Pydantic model with typed fields",
    )
