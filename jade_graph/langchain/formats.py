"""Texts of a known format (dates, addresses, URLs ..), drawn by a model letter by letter from what the format allows.

Invariant: what is written is of its format whatever the model draws, as Pydantic reads it. Each writer begins behind
the opening quote and writes the closing one.
"""

from __future__ import annotations

import base64
import calendar
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from jade_graph.langchain.writing import Pen

SCHEMES, ZONE, NOW = "x-jade-schemes", "x-jade-zone", "x-jade-now"
"""What Pydantic asks of a value and its JSON schema does not say: schemes of a URL, "aware", "past" or "future"."""

_LETTERS, _DIGITS, _HEX = "abcdefghijklmnopqrstuvwxyz", "0123456789", "0123456789abcdef"
_PATH = [*_LETTERS, *_LETTERS.upper(), *_DIGITS, *"-._~/?=&+"]
_TOPS = "com org net edu gov int info io eu uk de fr es it nl ch jp in cn br ca au us".split()  # noqa: SIM905
_LABEL, _LOCAL, _LONGEST_PATH = 20, 30, 80

Schema = Mapping[str, Any]


async def write(pen: Pen, schema: Schema) -> None:
    """Write a text of the schema's format, which is one of `FORMATS`."""
    await _WRITERS[schema["format"]](pen, schema)
    pen.write('"')


def alike(one: Schema) -> tuple[Any, ...] | None:
    """What tells the formats of two texts apart; None of free text."""
    if one.get("format") not in FORMATS:
        return None
    return (one["format"], *(str(one.get(mark)) for mark in (SCHEMES, ZONE, NOW)))


async def _date(pen: Pen, schema: Schema) -> None:
    now = schema.get(NOW)
    centuries = {"past": ["19"], "future": ["20"]}.get(str(now), ["19", "20"])
    years = range(80, 100) if now == "future" else range(100)
    year = await pen.pick(centuries) + await pen.pick([f"{n:02}" for n in years])
    pen.write("-")
    month = await pen.pick([f"{n:02}" for n in range(1, 13)])
    pen.write("-")
    await pen.pick([f"{n:02}" for n in range(1, calendar.monthrange(int(year), int(month))[1] + 1)])


async def _time(pen: Pen, schema: Schema) -> None:
    for most, after in ((24, ":"), (60, ":"), (60, "")):
        await pen.pick([f"{n:02}" for n in range(most)])
        pen.write(after)
    pen.write("Z" if schema.get(ZONE) == "aware" else "")


async def _date_time(pen: Pen, schema: Schema) -> None:
    await _date(pen, schema)
    pen.write("T")
    await _time(pen, schema)


async def _duration(pen: Pen, schema: Schema) -> None:
    del schema
    pen.write("PT")
    await pen.pick([f"{n}M" for n in range(60)])


async def _uuid(version: str, pen: Pen, schema: Schema) -> None:
    del schema
    for index in range(32):
        digits = {12: version, 16: "89ab"}.get(index, _HEX)
        await pen.pick([("-" if index in (8, 12, 16, 20) else "") + digit for digit in digits])


async def _ipv4(after: str, pen: Pen, schema: Schema) -> None:
    del schema
    for index in range(4):
        await pen.pick([("." if index else "") + str(n) for n in range(256)])
    pen.write(after)


async def _ipv6(after: str, pen: Pen, schema: Schema) -> None:
    del schema
    for index in range(32):
        await pen.pick([(":" if index and index % 4 == 0 else "") + digit for digit in _HEX])
    pen.write(after)


async def _letters(pen: Pen, first: str, then: str, most: int, end: str) -> None:
    """Letters of these, no two marks side by side and none at the end, to the model's end mark."""
    marks = [mark for mark in then if not mark.isalnum()]
    last = await pen.pick(list(first))
    for _ in range(most - 1):
        allowed = [letter for letter in then if not (letter in marks and last in marks)]
        drawn = await pen.pick([*allowed, *([] if last in marks else [end])], silent=end)
        if drawn == end:
            return
        last = drawn
    if last in marks:
        await pen.pick(list(first))


async def _label(pen: Pen) -> None:
    """Begins with a letter, so that no host is a number, and is no encoded one ("xn--"), for no two hyphens meet."""
    await _letters(pen, _LETTERS, _LETTERS + _DIGITS + "-", _LABEL, ".")


async def _host(pen: Pen, schema: Schema) -> None:
    del schema
    await _label(pen)
    pen.write(".")
    await pen.pick(list(_TOPS))


async def _email(pen: Pen, schema: Schema) -> None:
    await _letters(pen, _LETTERS, _LETTERS + _DIGITS + "._-+", _LOCAL, "@")
    pen.write("@")
    await _host(pen, schema)


async def _uri(pen: Pen, schema: Schema) -> None:
    scheme = await pen.pick(list(schema.get(SCHEMES) or ("https", "http")))
    pen.write("://")
    if scheme != "file":
        await _host(pen, schema)
    pen.write("/")
    for _ in range(_LONGEST_PATH):
        if pen.left(pen.ids()) <= 0 or await pen.pick([*_PATH, '"'], silent='"') == '"':
            return


async def _base64(encode: Callable[[bytes], bytes], pen: Pen, schema: Schema) -> None:
    del schema
    pen.write(encode((await pen.words()).encode()).decode("ascii"))


_WRITERS: Mapping[str, Callable[[Pen, Schema], Awaitable[None]]] = {
    "date": _date,
    "time": _time,
    "date-time": _date_time,
    "duration": _duration,
    **{f"uuid{version}": partial(_uuid, version) for version in "1345678"},
    "uuid": partial(_uuid, "4"),
    "ipv4": partial(_ipv4, ""),
    "ipv4network": partial(_ipv4, "/32"),
    "ipv4interface": partial(_ipv4, "/32"),
    "ipv6": partial(_ipv6, ""),
    "ipv6network": partial(_ipv6, "/128"),
    "ipv6interface": partial(_ipv6, "/128"),
    "ipvanyaddress": partial(_ipv4, ""),
    "ipvanynetwork": partial(_ipv4, "/32"),
    "ipvanyinterface": partial(_ipv4, "/32"),
    "hostname": _host,
    "email": _email,
    "uri": _uri,
    "base64": partial(_base64, base64.b64encode),
    "base64url": partial(_base64, base64.urlsafe_b64encode),
}
FORMATS = frozenset(_WRITERS)
"""Formats that are written as they should be. Others are free text, which a Pydantic class may refuse."""
