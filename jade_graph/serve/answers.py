"""JSON answers and server-sent events as bytes.

Invariant: what is sent is UTF-8 and strict JSON whatever is in it: a lone surrogate becomes "?", a number that JSON
cannot hold becomes null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


# Line breaks to clients that split text by Unicode's lines; JSON escapes the ASCII ones itself.
_BREAKS = tuple((c.encode(), f"\\u{ord(c):04x}".encode()) for c in "\x85\u2028\u2029")


def dumps(value: Any) -> bytes:
    try:
        text = _encode(value)
    except ValueError:
        text = _encode(_finite(value))
    return text.encode("utf-8", errors="replace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def event(value: Any) -> bytes:
    """One server-sent event without a name: OpenAI's clients read the data of any."""
    data = dumps(value)
    for raw, escaped in _BREAKS:
        data = data.replace(raw, escaped)
    return b"data: " + data + b"\n\n"


class Json(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content)
