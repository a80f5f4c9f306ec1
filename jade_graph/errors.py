"""Typed errors with stable codes.

Invariant: every error a user can cause carries a code that never changes meaning, the offending value, the known
alternatives and the next command to try. Each code has a section in docs/reference/errors.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class JadeError(Exception):
    """Base of all errors of this package.

    Args:
        message: one sentence that quotes the offending value.
        code: stable, e.g. "CONFIG_UNKNOWN_KEY"; defaults to the class's own.
        known: the alternatives that would have worked.
        hint: the next command or change to try.
    """

    code: ClassVar[str] = "JADE_ERROR"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: str | None = None, known: Iterable[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.known = tuple(known)
        self.hint = hint

    def __str__(self) -> str:
        parts = [f"[{self.error_code}] {self.message}"]
        if self.known:
            parts.append("Known: " + ", ".join(self.known) + ".")
        if self.hint:
            parts.append("Try: " + self.hint)
        return " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        """So that an error raised in another process arrives whole."""
        return _again, (type(self), self.as_dict())

    def as_dict(self) -> dict[str, object]:
        return {"code": self.error_code, "message": self.message, "known": list(self.known), "hint": self.hint}


def _again(kind: type[JadeError], told: dict[str, Any]) -> JadeError:
    return kind(told["message"], code=told["code"], known=told["known"], hint=told["hint"])


class UsageError(JadeError):
    """A value given by the caller is wrong: an unknown name, a missing file, a bad option."""

    code = "USAGE"
    exit_code = 2


class ConfigError(UsageError):
    code = "CONFIG"


class DataError(JadeError):
    """A data set, document or record cannot be read."""

    code = "DATA"
    exit_code = 3


class RetrievalError(JadeError):
    """The corpus cannot be searched or written."""

    code = "RETRIEVAL"
    exit_code = 4


class BackboneError(JadeError):
    """A model cannot be loaded or a generation failed."""

    code = "BACKBONE"
    exit_code = 5


class StoreError(JadeError):
    """The run store cannot be read or written."""

    code = "STORE"
    exit_code = 6


class PluginError(JadeError):
    """An entry point cannot be loaded or breaks its protocol."""

    code = "PLUGIN"
    exit_code = 7


class GraphError(JadeError):
    """The graph is put together wrongly: found when it is built, not while it runs."""

    code = "GRAPH"
    exit_code = 8


class RegistryError(JadeError):
    """A version cannot be registered, fetched or promoted, or the registry cannot be reached."""

    code = "REGISTRY"
    exit_code = 9


def unknown(what: str, value: str, known: Iterable[str], *, code: str, hint: str = "") -> UsageError:
    """A `UsageError` for a name that is not there, with the nearest known one as its hint."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1)
    if near and not hint:
        hint = f"did you mean {near[0]!r}?"
    return UsageError(f"unknown {what} {value!r}.", code=code, known=names, hint=hint)
