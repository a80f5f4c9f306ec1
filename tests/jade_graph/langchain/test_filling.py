"""Structured output from a model that writes anything at all: the shape is right, or the schema is refused by name."""

from __future__ import annotations

import asyncio
import datetime
import random
import uuid
from collections.abc import Sequence
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    UUID1,
    UUID5,
    UUID7,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    Base64Str,
    BaseModel,
    EmailStr,
    Field,
    FilePath,
    FileUrl,
    FtpUrl,
    FutureDate,
    FutureDatetime,
    HttpUrl,
    IPvAnyAddress,
    IPvAnyNetwork,
    Json,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    PostgresDsn,
    RootModel,
    SecretStr,
    WebsocketUrl,
    create_model,
)

from jade_graph.errors import UsageError
from jade_graph.langchain import JadeChatModel
from jade_graph.langchain.filling import Filler
from jade_graph.langchain.shapes import Generator, Shapes
from jade_graph.types import Completion, Message, Sampling


class Wild:
    """A backbone of bytes that draws whatever it likes, by its seed; `fond`: texts that it takes where it may."""

    version, profile, eos_token_id, exact_ids = "wild", "compact", 256, True

    def __init__(self, *fond: str, max_context: int = 100_000) -> None:
        self.fond, self.max_context = fond, max_context

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.encode_text("".join(m.content for m in messages))

    def encode_text(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(t for t in token_ids if t < 256).decode(errors="replace")

    async def generate(self, prompt_token_ids: Sequence[int], sampling: Sampling, *, hint: Any = None) -> Completion:
        rng = random.Random(f"{sampling.seed} {list(prompt_token_ids)}")
        if sampling.choices is not None:
            liked = [c for c in sampling.choices if any(word in self.decode(c) for word in self.fond)]
            ids = tuple(rng.choice(liked or sampling.choices))
            return Completion(self.decode(ids), ids, (0.0,) * len(ids), "stop", self.version)
        letters = [*b'"\\{}[]:, \n', *b"abc0123", 0xC3, 0xFF, 256]
        ids = tuple(rng.choices(letters, k=sampling.max_new_tokens))
        if 256 in ids:
            ids = ids[: ids.index(256) + 1]
        return Completion(self.decode(ids), ids, (0.0,) * len(ids), "stop" if ids[-1] == 256 else "length", "wild")

    async def aclose(self) -> None: ...


def filled(kind: type[BaseModel], seed: int = 0, *fond: str, tokens: int = 64) -> BaseModel:
    shapes = Shapes(kind.model_json_schema(schema_generator=Generator), checked=True)
    filler = Filler(Wild(*fond), [], Sampling(temperature=1.0, max_new_tokens=tokens, seed=seed), shapes)
    return kind.model_validate_json(asyncio.run(filler.fill()))


class Mood(Enum):
    GOOD, BAD, THIRD = "good", 2, None


class Tree(BaseModel):
    name: str
    left: Tree | None
    right: Tree | None
    more: list[Tree]
    by_name: dict[str, Tree]


class Pair(NamedTuple):
    x: int
    y: str


plain = st.sampled_from(
    [str, int, float, bool, None, bytes, Decimal, uuid.UUID, datetime.date, datetime.time, datetime.datetime,
     datetime.timedelta, Mood, Literal["a", "b"], Literal[1, "x", None], Tree, Pair, list, dict, tuple[()]]
)  # fmt: skip
keys = st.sampled_from([str, int, bool, datetime.date, Literal["k", "l", "m"]])
names = st.sampled_from(["a", "b", "c", "kind", "a b", 'q"uote', "é"])


aware = [AnyUrl, HttpUrl, FileUrl, FtpUrl, WebsocketUrl, EmailStr, Base64Str, Base64Bytes, UUID1, UUID5, UUID7,
         IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface, IPvAnyAddress, IPvAnyNetwork,
         AwareDatetime, NaiveDatetime, PastDate, FutureDate, PastDatetime, FutureDatetime, SecretStr]  # fmt: skip


@pytest.mark.parametrize("kind", aware, ids=str)
def test_a_text_is_of_its_format_with_any_model(kind: Any) -> None:
    for seed in range(8):
        filled(RootModel[kind], seed, *(["a", "1"] if seed % 2 else ['"']), tokens=200)
        filled(RootModel[list[kind] | dict[str, kind]], seed, tokens=8)


@pytest.mark.parametrize(
    ("kind", "named"), [(PostgresDsn, "multi-host-uri"), (FilePath, "file-path"), (Json, "application/json")], ids=str
)
def test_a_format_that_cannot_be_kept_is_refused_by_name(kind: Any, named: str) -> None:
    with pytest.raises(UsageError, match=f"STRUCTURED_SCHEMA.*{named}"):
        filled(RootModel[kind])


def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(lambda t: list[t]),  # type: ignore[valid-type]
        inner.map(lambda t: tuple[t, ...]),
        several.map(lambda ts: tuple[tuple(ts)]),  # type: ignore[misc]
        st.tuples(keys, inner).map(lambda kv: dict[kv[0], kv[1]]),  # type: ignore[misc,name-defined]
        several.map(lambda ts: Literal["none"] | ts[0] if len(ts) == 1 else _union(ts)),
        st.dictionaries(names, inner, max_size=3).map(model_of),
    )


def _union(kinds: list[Any]) -> Any:
    found = kinds[0]
    for kind in kinds[1:]:
        found = found | kind if found is not None or kind is not None else None
    return found


def model_of(fields: dict[str, Any]) -> type[BaseModel]:
    made = {f"f{i}": (kind, Field(alias=name)) for i, (name, kind) in enumerate(fields.items())}
    return create_model("Made", **made)  # type: ignore[call-overload,no-any-return]


accepted: list[bool] = []


@settings(max_examples=150)
@given(st.dictionaries(names, st.recursive(plain, deeper, max_leaves=5), min_size=1, max_size=3), st.integers(0, 9))
def test_the_shape_is_right_with_any_model(fields: dict[str, Any], seed: int) -> None:
    try:
        filled(model_of(fields), seed)
    except UsageError as error:
        if error.error_code != "STRUCTURED_SCHEMA":
            raise
        accepted.append(False)
    else:
        accepted.append(True)


def test_most_of_those_schemas_were_accepted() -> None:
    assert sum(accepted) > 0.7 * len(accepted) > 0


class Search(BaseModel):
    query: str


class Answer(BaseModel):
    answer: str
    sure: bool


class Both(BaseModel):
    query: str
    answer: str


class Said(BaseModel):
    kind: Literal["said"]
    text: str


class Done(BaseModel):
    kind: Literal["done", "over"]
    text: str


@pytest.mark.parametrize(
    ("union", "fond", "wanted"),
    [
        (Search | Answer, "query", Search),
        (Search | Answer, "answer", Answer),
        (Search | Both, "query", Search),
        (Search | Both, "answer", Both),
        (Said | Done, "over", Done),
        (Said | Done, "said", Said),
        (Search | None, "null", type(None)),
        (Search | dict[str, int], "query", Search),
        (list[int] | list[str], '["', list),
        (list[int] | Search, "{", Search),
        (int | float, ".", float),
        (str | int, '"', str),
        (str | int, "7", int),
    ],
)
def test_the_model_chooses_the_arm_of_a_union(union: Any, fond: str, wanted: type) -> None:
    for seed in range(4):
        assert type(filled(RootModel[union], seed, fond).root) is wanted  # type: ignore[attr-defined]


def test_every_arm_of_a_union_is_drawn() -> None:
    drawn = {type(filled(RootModel[Search | Answer | list[int]], seed).root) for seed in range(24)}  # type: ignore[attr-defined]
    assert drawn == {Search, Answer, list}


def test_mappings_and_tuples_are_filled_with_their_kinds() -> None:
    class Kinds(BaseModel):
        counts: dict[str, int] = Field(min_length=2)
        by_key: dict[Literal["a", "b"], bool] = Field(min_length=2)
        pair: tuple[int, int]
        many: list[int] = Field(min_length=20, max_length=20)

    for seed in range(6):
        got: Any = filled(Kinds, seed)
        assert len(got.counts) >= 2
        assert set(got.by_key) == {"a", "b"}
        assert len(got.many) == 20
    assert any(filled(RootModel[dict[str, int]], seed).root for seed in range(4))  # type: ignore[attr-defined]


@pytest.mark.parametrize("tokens", [1, 64, 400])
def test_what_contains_itself_ends(tokens: int) -> None:
    for seed in range(8):
        assert isinstance(filled(Tree, seed, "{", ", ", tokens=tokens), Tree)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "uuid"}]}, "begin alike"),
        ({"anyOf": [{"type": "object", "additionalProperties": {"type": t}} for t in ("string", "integer")]}, "alike"),
        ({"type": "object", "patternProperties": {"^a": {"type": "string"}}}, "patternProperties"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "'a'"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "minItems": 3}, "different"),
        ({"type": "string", "not": {"enum": ["a"]}}, "'not'"),
        ({"allOf": [{"type": "string"}, {"minLength": 3}]}, "allOf"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "at most 2"),
        ({"enum": []}, "no value"),
        ({"$ref": "#/$defs/None"}, "is not there"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(schema: dict[str, Any], named: str) -> None:
    wrapped = {"title": "T", "type": "object", "properties": {"x": schema}}
    with pytest.raises(UsageError, match=f"STRUCTURED_SCHEMA.*{named}"):
        JadeChatModel(backbone=Wild()).with_structured_output(wrapped).invoke("?")
