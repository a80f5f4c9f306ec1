"""Events in the run store's database: written, read, forgotten.

Invariant: an event told twice counts once, and what is told of it later is added; users are pseudonyms by this store's
own salt before they reach the database. The table is bounded: where it is full, more is refused, never dropped.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jade_graph.errors import StoreError
from jade_graph.feedback.events import FeedbackEvent, hidden, pseudonym
from jade_graph.runs import tables
from jade_graph.runs.text import String, Text

MAX_EVENTS = 5_000_000
"""Events that a store keeps: about 1.5 GB."""
_BLOCK = 10_000
_SALT = "feedback_salt"
_own = sa.MetaData()
events = sa.Table(
    "feedback_events",
    _own,
    sa.Column("id", String(32), primary_key=True),
    sa.Column("user", String(32), nullable=False, index=True),
    sa.Column("session", String(32), nullable=False),
    sa.Column("query", Text, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("document", String(500), nullable=False),
    sa.Column("shown", sa.Boolean, nullable=False),
    sa.Column("clicked", sa.Boolean, nullable=False),
    sa.Column("cited", sa.Boolean, nullable=False),
    sa.Column("dwell", sa.Float(53)),
    sa.Column("rating", sa.Float(53)),
    sa.Column("at", sa.Float(53), nullable=False, index=True),
    sa.Column("run_id", String(64), index=True),
)
files = sa.Table(
    "feedback_files",
    _own,
    sa.Column("path", String(1000), primary_key=True),
    sa.Column("written_at", sa.Float(53), nullable=False),
)
"""Files written from events: what `forget` has to go through."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Events that were taken: `new`, and `known` ones, to which what was new of them was added."""

    new: int
    known: int


class FeedbackEvents:
    """The events of one store. The tables are made on first use.

    Raises:
        StoreError: STORE_WRITE, wherever the database refuses.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        try:
            _own.create_all(engine)
            self.salt = self._salted()
        except sa.exc.SQLAlchemyError as error:
            raise _failed(error) from error

    def user(self, name: str) -> str:
        """The pseudonym of a user."""
        return pseudonym(self.salt, name)

    # --- writing ------------------------------------------------------------------------------------------------------
    def add(self, given: Iterable[FeedbackEvent], *, limit: int = MAX_EVENTS) -> Kept:
        """Keep events, in transactions of `_BLOCK`, so that whoever records runs meanwhile is not held up for long.

        Of one that is known, a click, a citation and a longer dwell are added, and a rating is replaced. What was cut
        off goes on where the same events are added again.

        Raises:
            StoreError: FEEDBACK_FULL, STORE_WRITE; the blocks before are kept.
        """
        left, taken, new = iter(given), 0, 0
        try:
            while block := list(islice(left, _BLOCK)):
                with self.engine.begin() as db:
                    before = self._count(db)
                    self._write(db, block)
                    count = self._count(db)
                    if count > limit:
                        raise StoreError(
                            f"the store holds at most {limit:,} feedback events: after {taken:,} of these it is full.",
                            code="FEEDBACK_FULL",
                            hint="jade feedback export, then jade feedback forget --older-than DAYS",
                        )
                taken, new = taken + len(block), new + count - before
        except sa.exc.SQLAlchemyError as error:
            raise _failed(error) from error
        return Kept(new, taken - new)

    def _write(self, db: sa.Connection, block: Iterable[FeedbackEvent]) -> None:
        parts: list[dict[str, dict[str, Any]]] = [{}]
        for event in block:
            kept = hidden(event, self.salt)
            if kept.id in parts[-1]:  # one statement may not name a row twice
                parts.append({})
            parts[-1][kept.id] = _row(kept)
        for part in filter(None, parts):
            db.execute(self._merging(), list(part.values()))

    def wrote(self, path: Path) -> None:
        """Remember a file that holds pseudonyms, for `forget`."""
        with self.engine.begin() as db:
            db.execute(files.delete().where(files.c.path == str(path.absolute())))
            db.execute(files.insert(), {"path": str(path.absolute()), "written_at": time.time()})

    # --- reading ------------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        with self.engine.connect() as db:
            return self._count(db)

    def __iter__(self) -> Iterator[FeedbackEvent]:
        """All events, by time."""
        return self.read()

    def read(self, *, run_id: str | None = None) -> Iterator[FeedbackEvent]:
        names = [c for c in events.c if c.name != "id"]
        query = sa.select(*names).order_by(events.c.at, events.c.session, events.c.rank, events.c.id)
        if run_id is not None:
            query = query.where(events.c.run_id == run_id)
        with self.engine.connect() as db:
            for row in db.execution_options(yield_per=_BLOCK).execute(query):
                yield FeedbackEvent(**row._mapping)

    def written(self) -> list[Path]:
        """Files that `wrote` was told of."""
        with self.engine.connect() as db:
            return [Path(p) for p in db.execute(sa.select(files.c.path).order_by(files.c.path)).scalars()]

    # --- forgetting ---------------------------------------------------------------------------------------------------
    def forget(self, user: str) -> tuple[int, int]:
        """Delete all events of a user, and the ratings and comments given in their name; how many of each.

        SQLite is told to overwrite what it deletes, and its log is emptied.
        """
        name, f = self.user(user), tables.feedback
        said = f.c.source.endswith("/" + name, autoescape=True)
        with self._deleting() as db:
            gone = db.execute(events.delete().where(events.c.user == name)).rowcount
            ratings = db.execute(f.delete().where(said)).rowcount
        self._emptied()
        return int(gone), int(ratings)

    def forget_before(self, at: float) -> int:
        """Delete the events from before a time; how many."""
        with self._deleting() as db:
            gone = db.execute(events.delete().where(events.c.at < at)).rowcount
        self._emptied()
        return int(gone)

    def unwrote(self, path: Path) -> None:
        with self.engine.begin() as db:
            db.execute(files.delete().where(files.c.path == str(path)))

    # --- within -------------------------------------------------------------------------------------------------------
    def _salted(self) -> str:
        c = tables.info.c
        wanted = sa.select(c.value).where(c.key == _SALT)
        with self.engine.begin() as db:
            if (found := db.execute(wanted).scalar()) is None:
                row = {"key": _SALT, "value": secrets.token_hex(16)}
                db.execute(self._insert(tables.info).on_conflict_do_nothing(), row)
                found = db.execute(wanted).scalar_one()
        return str(found)

    def _insert(self, table: sa.Table) -> Any:
        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)

    def _merging(self) -> Any:
        insert = self._insert(events)
        new, old = insert.excluded, events.c
        longer = sa.case(
            (new.dwell.is_(None), old.dwell),
            (old.dwell.is_(None), new.dwell),
            (new.dwell > old.dwell, new.dwell),
            else_=old.dwell,
        )
        joined = {name: sa.or_(old[name], new[name]) for name in ("shown", "clicked", "cited")}
        return insert.on_conflict_do_update(
            index_elements=["id"],
            set_={**joined, "dwell": longer, "rating": sa.func.coalesce(new.rating, old.rating)},
        )

    def _count(self, db: sa.Connection) -> int:
        return int(db.execute(sa.select(sa.func.count()).select_from(events)).scalar_one())

    @contextmanager
    def _deleting(self) -> Iterator[sa.Connection]:
        try:
            with self.engine.begin() as db:
                if self.engine.dialect.name == "sqlite":
                    db.exec_driver_sql("PRAGMA secure_delete=ON")
                yield db
        except sa.exc.SQLAlchemyError as error:
            raise _failed(error) from error

    def _emptied(self) -> None:
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as db:
                db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _row(event: FeedbackEvent) -> dict[str, Any]:
    return {"id": event.id, **{c.name: getattr(event, c.name) for c in events.c if c.name != "id"}}


def _failed(error: sa.exc.SQLAlchemyError) -> StoreError:
    return StoreError(
        f"feedback events cannot be kept in the run store: {error}", code="STORE_WRITE", hint="jade doctor"
    )
