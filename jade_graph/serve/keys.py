"""API keys and how many requests each may make.

Invariant: a key is kept as a hash and compared in constant time against every known one; it is in no message, log or
record, its name is.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jade_graph.errors import UsageError
from jade_graph.serve.problems import RequestError
from jade_graph.settings.fields import ServeSettings

LEAST = 16
"""Characters of a key: less could be guessed."""
ANYONE = "anyone"
"""The name of a caller where no keys are asked for."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Names by the hash of their key. Empty: nobody is asked for one."""

    names: Mapping[bytes, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.names)

    def name(self, authorization: str | None) -> str:
        """Whose key the header `Authorization: Bearer KEY` holds. Raises `RequestError` NO_API_KEY, WRONG_API_KEY."""
        if not self.names:
            return ANYONE
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise RequestError(
                "the request has no API key.", code="NO_API_KEY", hint="send the header Authorization: Bearer KEY"
            )
        wanted, found = _hash(given.strip()), ""
        for known, name in self.names.items():  # all of them, whichever fits
            if hmac.compare_digest(known, wanted):
                found = name
        if not found:
            raise RequestError("the API key is not known here.", code="WRONG_API_KEY", hint="ask who runs this server")
        return found


def read_keys(settings: ServeSettings) -> Keys:
    """The keys of the settings and of the file that they name.

    Raises:
        UsageError: SERVE_KEYS_FILE, SERVE_KEY_SHORT, SERVE_KEY_TWICE.
    """
    found: list[tuple[str, str]] = []
    for number, key in enumerate(filter(None, map(str.strip, (settings.keys or "").split(","))), 1):
        found.append((f"key{number}", key))
    if settings.keys_file:
        found += _read_file(Path(settings.keys_file).expanduser())
    names: dict[bytes, str] = {}
    for name, key in found:
        if len(key) < LEAST:
            raise UsageError(
                f"the API key {name!r} has {len(key)} characters: {LEAST} or more are needed.",
                code="SERVE_KEY_SHORT",
                hint="python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        if _hash(key) in names:
            raise UsageError(f"the API key {name!r} is also {names[_hash(key)]!r}.", code="SERVE_KEY_TWICE")
        names[_hash(key)] = name
    return Keys(names)


def _read_file(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UsageError(
            f"the file of API keys {str(path)!r} cannot be read: {why}.",
            code="SERVE_KEYS_FILE",
            hint="one key a line: KEY, or NAME KEY",
        ) from error
    out = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) > 2:
            raise UsageError(
                f"line {number} of {str(path)!r} has {len(words)} words.",
                code="SERVE_KEYS_FILE",
                hint="one key a line: KEY, or NAME KEY",
            )
        if words:
            out.append((words[0] if len(words) == 2 else f"line{number}", words[-1]))
    if not out:
        raise UsageError(f"the file of API keys {str(path)!r} has none.", code="SERVE_KEYS_FILE", hint="one key a line")
    return out


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="replace")).digest()


class Rate:
    """A bucket per name that fills at `per_minute` and holds as many; each request takes one.

    Args:
        per_minute: 0: no bound.
        clock: seconds that only grow.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # (requests left, when that was)

    def take(self, name: str) -> dict[str, str]:
        """Count a request; returns headers that say what is left. Raises `RequestError` RATE_LIMIT."""
        if not self.per_minute:
            return {}
        now = self._clock()
        left, since = self._left.get(name, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - since) * self.per_minute / 60)
        headers = {"x-ratelimit-limit-requests": str(self.per_minute)}
        if left < 1:
            self._left[name] = (left, now)
            wait = math.ceil((1 - left) * 60 / self.per_minute)
            raise RequestError(
                f"more than {self.per_minute} requests a minute.",
                code="RATE_LIMIT",
                hint=f"try again in {wait} s",
                headers={**headers, "x-ratelimit-remaining-requests": "0", "retry-after": str(wait)},
            )
        self._left[name] = (left - 1, now)
        return {**headers, "x-ratelimit-remaining-requests": str(int(left - 1))}
