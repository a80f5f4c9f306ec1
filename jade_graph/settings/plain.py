"""Values as JSON can hold them, and as a table shows them.

Invariant: what JSON cannot hold becomes null or a text, never `NaN`; nothing here prints. What leaves as `visible` or
`json_text` moves no cursor and turns no direction, whatever a model, a document or a file's name holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any


def jsonable(value: Any) -> Any:
    """Plain JSON data out of data classes, tuples, sets, paths and numpy scalars."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted((jsonable(item) for item in value), key=lambda item: (type(item).__name__, str(item)))
    if isinstance(value, Iterable):
        return [jsonable(item) for item in value]
    if hasattr(value, "item"):
        return jsonable(value.item())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# Control characters but the line feed and the tab, marks that turn the direction, separators of lines, lone surrogates.
_UNSEEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_INVISIBLE = re.compile(f"[{_UNSEEN}]")


def visible(text: str) -> str:
    """The text for a terminal: what would act instead of being seen is shown by a sign that stands for it."""
    return _INVISIBLE.sub(_sign, text.replace("\r\n", "\n"))


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 32 else "\u2421" if code == 127 else "\ufffd"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON of plain data, readable in every script; what acts on a terminal is written as an escape."""
    told = json.dumps(jsonable(value), ensure_ascii=False, indent=indent, allow_nan=False)
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", told)


def text(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
