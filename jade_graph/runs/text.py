"""Text as every database holds it: the type of all text columns.

Invariant: what is written and what is looked for are cleaned by the same function, so that a run is found by what it
was called; no text loses a row. Token ids are packed numbers and stay exact, whatever their text is.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

_NUL = "\x00"
_SHOWN = "\ufffd"


def clean(text: str) -> str:
    """The text without what a database cannot hold: a lone surrogate becomes "?", NUL the replacement character."""
    if text.isascii():
        return text.replace(_NUL, _SHOWN) if _NUL in text else text
    return text.encode("utf-8", errors="replace").decode("utf-8").replace(_NUL, _SHOWN)


class _Cleaned(sa.types.TypeDecorator[str]):
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        del dialect
        return clean(value) if isinstance(value, str) else value


class Text(_Cleaned):
    """`sa.Text`, cleaned."""

    impl = sa.Text
    cache_ok = True


class String(_Cleaned):
    """`sa.String`, cleaned."""

    impl = sa.String
    cache_ok = True
