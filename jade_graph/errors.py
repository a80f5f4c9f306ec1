"""Typed errors with stable codes.

Invariant: every error a user can cause carries a code that never changes meaning, the offending value, the known
alternatives and the next command to try. Each code has a section in docs/reference/errors.md.
"""

from __future__ import annotations

import difflib
import errno
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote_plus

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^@\s]*)(?=@)")
_PAIR = re.compile(r"(?<=[?&;#])([^=&;#?\s'\"]{1,80})=([^&;#\s'\"]+)")
_SECRET = re.compile(
    r"pass(word|wd|phrase|code)?$|^pw$|pwd|secret|token|api[-_.]?key|access[-_.]?key|private[-_.]?key|^key$|[-_.]key$|"
    r"^sig$|signature|credential|^auth$|authorization|^sas$|^code$|session",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """The text with the secrets of the URLs in it hidden: passwords, and what parameters of telling names hold."""
    if "://" in text:
        text = _PASSWORD.sub(r"\1:***", text)
    if "=" not in text or not any(mark in text for mark in "?&#;"):
        return text
    return _PAIR.sub(lambda pair: f"{pair[1]}=***" if _SECRET.search(unquote_plus(pair[1])) else pair[0], text)


class JadeError(Exception):
    """Base of all errors of this package.

    Args:
        message: one sentence that quotes the offending value.
        code: stable, e.g. "CONFIG_UNKNOWN_KEY"; defaults to the class's own.
        known: the alternatives that would have worked.
        hint: the next command or change to try.

    Secrets of URLs in any of them are masked: an error is printed, logged and recorded.
    """

    code: ClassVar[str] = "JADE_ERROR"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, code: str | None = None, known: Iterable[str] = (), hint: str = "") -> None:
        message = masked(message)
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.known = tuple(masked(name) if isinstance(name, str) else name for name in known)
        self.hint = masked(hint)

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


_FULL = ("disk is full", "no space left", "disk quota exceeded")
_NO_ACCESS = ("readonly database", "read-only file system", "permission denied")


def storage_error(error: BaseException, where: str = "") -> JadeError | None:
    """What a full disk or a place without access did to a file or a database, by its own name; None for anything else.

    Args:
        where: the folder in question, where the error does not name a path.
    """
    told, number = str(error).lower(), getattr(error, "errno", None)
    path = str(getattr(error, "filename", None) or where)
    at = f" at {path!r}" if path else ""
    if number in (errno.ENOSPC, errno.EDQUOT) or any(words in told for words in _FULL):
        return JadeError(
            f"the disk is full{at}: {error}",
            code="DISK_FULL",
            hint="make room and run the same command again; what was written before is kept",
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM) or any(words in told for words in _NO_ACCESS):
        return JadeError(
            f"there is no access{at}: {error}",
            code="NO_ACCESS",
            hint="check its rights and whether it is mounted for reading only; --set data_dir=FOLDER writes elsewhere",
        )
    return None


_ROOM = 8 << 20  # bytes: a transaction that failed gives back about so much


def no_room(error: BaseException, where: Path) -> JadeError | None:
    """DISK_FULL where a library that failed does not say why, and hardly any room is left; None for anything else."""
    try:
        free = shutil.disk_usage(where).free
    except OSError:
        return None
    return storage_error(OSError(errno.ENOSPC, f"{free} bytes are left; {error}"), str(where)) if free < _ROOM else None


def unknown(what: str, value: str, known: Iterable[str], *, code: str, hint: str = "") -> UsageError:
    """A `UsageError` for a name that is not there, with the nearest known one as its hint."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1)
    if near and not hint:
        hint = f"did you mean {near[0]!r}?"
    return UsageError(f"unknown {what} {value!r}.", code=code, known=names, hint=hint)
