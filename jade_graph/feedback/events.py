"""Feedback events: one passage, shown to one user at one rank for one query, and what came of it.

Invariant: an event that is kept is whole and bounded: lengths, ranks and numbers are checked where it is read, and its
user and session are pseudonyms. What is not understood is an error with its line, never left out silently.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jade_graph.errors import DataError, UsageError
from jade_graph.runs.text import clean

FIELDS = (
    "user",
    "query",
    "rank",
    "document",
    "shown",
    "clicked",
    "cited",
    "dwell",
    "rating",
    "session",
    "at",
    "run_id",
)
REQUIRED = ("user", "query", "rank", "document")
MAX_RANK = 1000
MAX_DWELL_S = 86_400.0
_LENGTHS = {"user": 500, "query": 4000, "document": 500, "session": 500, "run_id": 64}
_PSEUDONYM = re.compile(r"[us]-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One impression.

    Args:
        user: who saw it: any id of the app's; kept as a pseudonym.
        query: what was searched for.
        rank: place in the list that was shown, from 1.
        shown: whether it was in the list that the user saw; what was only retrieved says nothing.
        clicked, cited: whether the user opened it, and whether the user used it (quoted it, said that it helped).
        dwell: seconds spent with it; None: not measured.
        rating: of the passage or its answer, -1 to 1; None: none was given. Kept and shown; estimates do not use it.
        session: one showing of one list; events of one session add to each other.
        at: when, in seconds since 1970.
        run_id: the recorded run that brought the list.
    """

    user: str
    query: str
    rank: int
    document: str
    shown: bool = True
    clicked: bool = False
    cited: bool = False
    dwell: float | None = None
    rating: float | None = None
    session: str = ""
    at: float = 0.0
    run_id: str | None = None

    @property
    def id(self) -> str:
        """The same for the same passage, list and user: told twice, it counts once."""
        parts = "\x1f".join((self.user, self.session, self.query, self.document))
        return hashlib.sha256(parts.encode("utf-8", "replace")).hexdigest()[:32]


def pseudonym(salt: str, name: str, kind: str = "u") -> str:
    """`u-` (a user) or `s-` (a session) and 16 hexadecimal digits, by HMAC-SHA256; what is one already stays as it is.

    Pseudonymous, not anonymous: whoever has the salt can test whether a name that they guess is somebody's.
    """
    if _PSEUDONYM.fullmatch(name):
        return name
    digest = hmac.new(salt.encode(), f"{kind}\x1f{name}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
    return f"{kind}-{digest[:16]}"


def hidden(event: FeedbackEvent, salt: str) -> FeedbackEvent:
    """The event with pseudonyms for user and session."""
    user = pseudonym(salt, event.user)
    return replace(event, user=user, session=pseudonym(salt, event.session or f"{user} {event.at}", "s"))


# --- reading ----------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Reading:
    """What of a file was guessed: `without_session` events of lists that had no name."""

    events: int = 0
    without_session: int = 0


def read_events(path: Path, told: Reading | None = None) -> Iterator[FeedbackEvent]:
    """Events of a JSONL file, an object a line; the fields are those of `FeedbackEvent`.

    Lines without a session: those that follow each other with the same user and query and no passage twice are taken
    for one list, named after the file's content and the line, so that the same file read again is the same lists.

    Raises:
        UsageError: FEEDBACK_FILE where there is none. DataError: FEEDBACK_EVENT, with the line.
    """
    told = told if told is not None else Reading()
    try:
        with path.open("rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise UsageError(
            f"the file {str(path)!r} cannot be read: {error.strerror or error}.",
            code="FEEDBACK_FILE",
            hint="jade microworld users --out FILE writes one to look at",
        ) from error
    group, seen = "", set[str]()
    before: tuple[str, str] | None = None
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                given = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{where} is no JSON: {error}.", code="FEEDBACK_EVENT", hint="an object a line"
                ) from error
            event = event_of(given, where)
            told.events += 1
            if not event.session:
                told.without_session += 1
                if before != (event.user, event.query) or event.document in seen:
                    group, seen = f"{name}:{number}", set()
                seen.add(event.document)
                event = replace(event, session=group)
            before = (event.user, event.query)
            yield event


def event_of(given: Any, where: str = "the event") -> FeedbackEvent:
    """An event of plain values. Raises `DataError` FEEDBACK_EVENT, naming `where`."""
    if not isinstance(given, Mapping):
        raise _wrong(where, "", given, "an object")
    for name in given:
        if name not in FIELDS:
            raise DataError(
                f"{where} has a field {str(name)[:80]!r} that no event has.", code="FEEDBACK_EVENT", known=FIELDS
            )
    values: dict[str, Any] = {}
    for name in ("user", "query", "document", "session", "run_id"):
        if (text := _text(given, name, where)) is not None:
            values[name] = text
    values["query"] = " ".join(values["query"].split())
    rank = given.get("rank")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= MAX_RANK:
        raise _wrong(where, "rank", rank, f"a whole number from 1 to {MAX_RANK}")
    values["rank"] = rank
    for name in ("shown", "clicked", "cited"):
        value = given.get(name)
        if value is not None and value not in (True, False):
            raise _wrong(where, name, value, "true or false")
        if value is not None:
            values[name] = bool(value)
    for name, low, high in (("dwell", 0.0, MAX_DWELL_S), ("rating", -1.0, 1.0), ("at", 0.0, 1e11)):
        if (value := given.get(name)) is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise _wrong(where, name, value, f"a number from {low:g} to {high:g}")
            values[name] = float(value)
    event = FeedbackEvent(**values)
    if not event.shown and (event.clicked or event.cited):
        raise _wrong(where, "shown", False, "true where the passage was clicked or cited")
    return event


def _text(given: Mapping[str, Any], name: str, where: str) -> str | None:
    value = given.get(name)
    if value is None and name not in REQUIRED:
        return None
    if not isinstance(value, str) or not (value.strip() or name not in REQUIRED) or len(value) > _LENGTHS[name]:
        raise _wrong(where, name, value, f"a text of at most {_LENGTHS[name]} characters")
    return clean(value)


def _wrong(where: str, name: str, value: Any, wanted: str) -> DataError:
    shown = "nothing" if value is None else repr(value)[:80]
    return DataError(
        f"{where}: {name + ' is ' if name else ''}{shown}, not {wanted}.", code="FEEDBACK_EVENT", known=FIELDS
    )


def plain(event: FeedbackEvent) -> dict[str, Any]:
    """As a line of the import format; what was not given is left out."""
    out = {name: getattr(event, name) for name in FIELDS}
    return {name: value for name, value in out.items() if value is not None and value != ""}


def write_events(path: Path, events: Iterable[FeedbackEvent]) -> int:
    """One JSON object a line; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8", errors="replace") as out:
        for event in events:
            if not math.isfinite(event.at):
                raise DataError(f"the time {event.at!r} of an event is none.", code="FEEDBACK_EVENT")
            out.write(json.dumps(plain(event), ensure_ascii=False) + "\n")
            count += 1
    return count
