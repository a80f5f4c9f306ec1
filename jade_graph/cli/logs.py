"""What a command's log looks like: text with the time, or one JSON object a line.

Invariant: whatever a package logs, no secret of a URL and nothing that a terminal would obey leaves here. Logs go to
standard error alone.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from jade_graph.errors import masked
from jade_graph.settings.fields import LogSettings
from jade_graph.settings.plain import visible

OURS = ("jade_graph", "jade_nodes", "jade_training")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Text(logging.Formatter):
    """`2026-12-01T05:00:00.123Z INFO jade_graph.serve: ..`"""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - theirs
        del datefmt
        return _time(record)

    def format(self, record: logging.LogRecord) -> str:
        return visible(masked(super().format(record)))


class Json(logging.Formatter):
    """`time`, `level`, `logger`, `message`, for an error its `traceback`, and what the record has as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        if record.exc_info:
            told["traceback"] = masked(self.formatException(record.exc_info))
        more = getattr(record, "fields", None)
        return json.dumps({**(more if isinstance(more, dict) else {}), **told}, default=str)


def begin(settings: LogSettings, *, everything: bool = False, quiet: bool = False) -> None:
    """Log to standard error from now on.

    Args:
        everything: other packages' lines of this level too, not their warnings alone.
        quiet: warnings and errors alone.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if settings.format == "json" else Text())
    level = logging.WARNING if quiet else logging.getLevelName(settings.level.upper())
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each.formatter, Text | Json)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level if everything else max(level, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(level)


def _time(record: logging.LogRecord) -> str:
    """UTC, to the millisecond, as ISO 8601 has it."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
