"""The run store: runs, trace nodes and transitions in SQLite (or PostgreSQL), written as they happen.

Invariant: the event loop hands a row over in microseconds; one writer thread commits what has gathered. After a crash
everything but the batch in flight is there, and a run that never ended says "running". A failed write is an error for
whoever waits on `flushed`, never a lost row in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jade_graph import private
from jade_graph.errors import StoreError, masked
from jade_graph.runs import feedback, judgements, migrations, store_read, tables
from jade_graph.runs.claims import Claims
from jade_graph.runs.filters import RunFilter, conditions
from jade_graph.runs.taken import Taken, ended, run_of
from jade_graph.runs.text import clean
from jade_graph.types import Run, TraceNode, Transition

_BATCH = 512

logger = logging.getLogger("jade_graph")


class RunStore:
    """A recorder over a database URL (or a path, which means SQLite in WAL mode). An older store is brought up to date.

    Args:
        busy_timeout_s: how long a write waits for another process that is writing to the same SQLite file.

    Raises:
        StoreError: STORE_OPEN (cannot be opened), STORE_SCHEMA (made by a newer version). Whatever reads or writes:
            STORE_BROKEN (pages of the file are damaged).
    """

    def __init__(self, url: str | Path, *, busy_timeout_s: float = 10.0) -> None:
        self.url, self.shown = str(url), masked(str(url))
        try:
            self._engine = sa.create_engine(_url(url))
            sa.event.listen(self._engine, "handle_error", self._broken)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _sqlite_pragmas(busy_timeout_s))
            migrations.prepare(self._engine, self.shown, busy_timeout_s=busy_timeout_s)
        except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
            raise StoreError(
                f"the run store {self.shown!r} cannot be opened: {error}",
                code="STORE_OPEN",
                hint="--set store.url=sqlite:///runs.db",
            ) from error
        t = tables.transitions
        key = (t.c.run_id == sa.bindparam("of_run"), t.c.attempt == sa.bindparam("of_attempt"))
        self._put_run, self._put_node = self._upsert(tables.runs), self._upsert(tables.trace_nodes)
        self._put_action = t.insert()
        self._mark_done = t.update().where(*key, t.c.seq == sa.bindparam("of_seq")).values(done=True)
        self._queue: queue.SimpleQueue[Callable[[], object] | tuple[str, Any]] = queue.SimpleQueue()
        self._failures: dict[str, StoreError] = {}
        self._taken = Taken(self.shown)
        self._claims = Claims(self._engine, self._ask)
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name="jade-store", daemon=True)
        self._writer.start()

    def _broken(self, failed: Any) -> None:
        """Damage to the file itself is told as what it is, wherever it is met."""
        if "malformed" in str(failed.original_exception):
            raise StoreError(
                f"the run store {self.shown!r} is damaged: {failed.original_exception}. Nothing was changed.",
                code="STORE_BROKEN",
                hint="put a backup back, or let sqlite3 FILE .recover write what can be read to another file",
            ) from failed.original_exception

    # --- Recorder -----------------------------------------------------------------------------------------------------
    def run_started(self, run: Run) -> None:
        self._put("run", (replace(run), None))

    def transition(self, transition: Transition) -> None:
        self._put("transition", transition)

    def trace_nodes(self, run_id: str, attempt: int, nodes: Mapping[str, TraceNode]) -> None:
        self._put("nodes", (run_id, attempt, tuple(nodes.values())))

    def run_finished(self, run: Run) -> None:
        self._put("end", (run, run.transitions[-1].seq if run.transitions else None))

    def run_resumed(self, run: Run, before: int) -> None:
        self._put("resume", (run.id, run.attempt, before))

    def claim(self, run_id: str) -> Callable[[], None] | None:
        return self._claims.take(run_id)

    async def flushed(self, run_id: str | None = None) -> None:
        """Wait until everything handed over so far is committed.

        Raises `StoreError` STORE_WRITE when rows of this run (None: of any run) could not be written.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def from_writer() -> None:
            with contextlib.suppress(RuntimeError):  # the waiter's loop is closed: nobody waits any more
                loop.call_soon_threadsafe(wake)

        self._ask(from_writer)
        await waiter
        self._raise_failure(run_id)

    def flush(self, run_id: str | None = None) -> None:
        """`flushed` for code without an event loop."""
        done = threading.Event()
        self._ask(done.set)
        done.wait()
        self._raise_failure(run_id)

    def close(self) -> None:
        """Write what is left and let go of the database."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(("stop", None))
        self._writer.join()
        self._claims.close()
        self._engine.dispose()
        self._raise_failure()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- reading ------------------------------------------------------------------------------------------------------
    def count(self, where: RunFilter | None = None) -> int:
        query = sa.select(sa.func.count()).select_from(tables.runs).where(*conditions(where))
        with self._engine.connect() as db:
            return int(db.execute(query).scalar_one())

    def list_runs(self, where: RunFilter | None = None, *, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Rows of the table `runs`, newest first."""
        query = (
            sa.select(tables.runs)
            .where(*conditions(where))
            .order_by(tables.runs.c.started_at.desc(), tables.runs.c.id)
            .limit(limit)
            .offset(offset)
        )
        with self._engine.connect() as db:
            return [dict(row._mapping) for row in db.execute(query)]

    def get(self, run_id: str, where: RunFilter | None = None) -> Run:
        """A run with trace and transitions of its last attempt, by id or unambiguous beginning of it.

        Args:
            where: runs beyond it are as if they were not there.

        Raises `StoreError` RUN_NOT_FOUND or RUN_AMBIGUOUS.
        """
        with self._engine.connect() as db:
            wanted = sa.select(tables.runs).where(*conditions(where))
            exact = db.execute(wanted.where(tables.runs.c.id == run_id)).mappings().all()
            if not exact:
                like = tables.runs.c.id.startswith(clean(run_id), autoescape=True)
                exact = db.execute(wanted.where(like).order_by(tables.runs.c.id).limit(4)).mappings().all()
            if not exact:
                raise StoreError(f"there is no run {run_id!r}.", code="RUN_NOT_FOUND", hint="jade runs list")
            if len(exact) > 1:
                ids = [row["id"] for row in exact]
                raise StoreError(f"{run_id!r} begins more than one run id.", code="RUN_AMBIGUOUS", known=ids)
            run = tables.run_of(dict(exact[0]))
            run.trace = tuple(self._nodes(db, run))
            run.transitions = tuple(self._transitions(db, run))
            feedback.attach(db, {run.id: run})
            judgements.attach(db, {run.id: run})
        return run

    def ended(self, run_id: str) -> int | None:
        """The attempt as which a run of this very id has ended; None where none has, or it cannot be read."""
        try:
            with self._engine.connect() as db:
                return ended(db, [run_id]).get(run_id)
        except sa.exc.SQLAlchemyError:
            return None

    def _nodes(self, db: sa.Connection, run: Run) -> list[TraceNode]:
        t = tables.trace_nodes
        rows = db.execute(sa.select(t).where(t.c.run_id == run.id, t.c.attempt == run.attempt)).mappings()
        nodes = [tables.node_of(dict(row)) for row in rows]
        return sorted(nodes, key=lambda n: tuple(map(int, n.id.split("."))))

    def _transitions(self, db: sa.Connection, run: Run) -> list[Transition]:
        t = tables.transitions
        query = sa.select(t).where(t.c.run_id == run.id, t.c.attempt == run.attempt).order_by(t.c.seq)
        return [tables.transition_of(_by_key(row, t)) for row in db.execute(query).mappings()]

    def iter_runs(
        self, where: RunFilter | None = None, *, rollout: str | None = None, ids: Iterable[str] | None = None
    ) -> Iterator[Run]:
        """Runs that ended, with trace and transitions of their last attempt, by start time: few queries for many runs.

        Args:
            rollout: only runs of this rollout. ids: only these runs.
        """
        return store_read.iter_runs(self._engine, conditions(where), rollout=rollout, ids=ids)

    def unfinished(self, where: RunFilter | None = None, *, rollout: str | None = None) -> store_read.Unfinished:
        """How many runs `iter_runs` leaves out, and why."""
        return store_read.unfinished(self._engine, conditions(where), rollout=rollout)

    @property
    def engine(self) -> sa.Engine:
        """For modules that keep tables of their own beside the runs."""
        return self._engine

    # --- writing ------------------------------------------------------------------------------------------------------
    def _put(self, kind: str, value: Any) -> None:
        if self._closed:
            raise StoreError(f"the run store {self.shown!r} is closed.", code="STORE_CLOSED")
        self._queue.put((kind, value))

    def _ask(self, call: Callable[[], object]) -> None:
        """Have the writer call this once it has written what is queued. Raises `StoreError` STORE_CLOSED."""
        if self._closed or not self._writer.is_alive():
            raise StoreError(f"the run store {self.shown!r} is closed.", code="STORE_CLOSED")
        self._queue.put(call)

    def _write_all(self) -> None:
        while True:
            items = [self._queue.get()]
            while len(items) < _BATCH and not self._queue.empty():
                items.append(self._queue.get())
            rows = [item for item in items if isinstance(item, tuple)]
            self._write_what_can_be([item for item in rows if item[0] != "stop"])
            for item in items:
                if not isinstance(item, tuple):
                    item()
            if any(item[0] == "stop" for item in rows):
                return

    def _write_what_can_be(self, items: Sequence[tuple[str, Any]]) -> None:
        """Write a batch; if a row in it is bad, the others all the same. Failures are kept by run for who waits."""
        try:
            items = self._taken.leave_out(self._engine, items, self._failures)
            self._write(items)
        except sa.exc.OperationalError as error:  # locked, full, gone: trying each row again would only take longer
            for item in items:
                self._fail(item, error)
        except Exception:
            for item in items:
                try:
                    self._write([item])
                except Exception as error:
                    self._fail(item, error)

    def _fail(self, item: tuple[str, Any], error: Exception) -> None:
        run_id, cause = run_of(item), getattr(error, "orig", None) or error
        if run_id not in self._failures:
            logger.error("run %s: writing to %s failed: %s", run_id, self.shown, cause)
        self._failures[run_id] = StoreError(
            f"writing run {run_id!r} to the run store {self.shown!r} failed: {type(cause).__name__}: {cause}",
            code="STORE_WRITE",
            hint="jade doctor",
        )

    def _write(self, items: Sequence[tuple[str, Any]]) -> None:
        if not items:
            return
        with self._engine.begin() as db:
            begin = 0
            for at, (kind, value) in enumerate(items):
                if kind == "resume":  # copies what the earlier attempt did: all of that must stand before
                    self._write_rows(db, items[begin:at])
                    self._copy_attempt(db, *value)
                    begin = at + 1
            self._write_rows(db, items[begin:])

    def _write_rows(self, db: sa.Connection, items: Sequence[tuple[str, Any]]) -> None:
        runs: dict[str, dict[str, Any]] = {}
        nodes: dict[tuple[str, int, str], dict[str, Any]] = {}
        actions: dict[tuple[str, int, int], dict[str, Any]] = {}
        last: list[dict[str, Any]] = []
        for kind, value in items:
            if kind == "transition":
                if (value.run_id, value.attempt, value.seq) in actions:
                    raise StoreError(f"two transitions {value.seq} of run {value.run_id!r}.", code="STORE_WRITE")
                actions[value.run_id, value.attempt, value.seq] = tables.transition_row(value)
            elif kind == "nodes":
                run_id, attempt, changed = value
                for node in changed:
                    nodes[run_id, attempt, node.id] = tables.node_row(run_id, attempt, node)
            else:
                run, seq = value
                runs[run.id] = tables.run_row(run)
                if (run.id, run.attempt, seq) in actions:
                    actions[run.id, run.attempt, seq]["done"] = True
                elif seq is not None:
                    last.append({"of_run": run.id, "of_attempt": run.attempt, "of_seq": seq})
        for statement, rows in (
            (self._put_run, list(runs.values())),
            (self._put_node, list(nodes.values())),
            (self._put_action, list(actions.values())),
            (self._mark_done, last),
        ):
            if rows:
                db.execute(statement, rows)

    def _copy_attempt(self, db: sa.Connection, run_id: str, attempt: int, before: int) -> None:
        """Give the attempt the actions and trace nodes of the one before it, up to where it goes on."""
        t, n = tables.transitions, tables.trace_nodes
        earlier = sa.select(sa.func.max(t.c.attempt)).where(t.c.run_id == run_id, t.c.attempt < attempt)
        former = db.execute(earlier).scalar()
        if former is None:
            return
        for table, more in ((t, (t.c.seq < before,)), (n, ())):
            names = [c.key for c in table.columns]
            columns = [sa.literal(attempt) if c.name == "attempt" else c for c in table.columns]
            rows = sa.select(*columns).where(table.c.run_id == run_id, table.c.attempt == former, *more)
            db.execute(table.insert().from_select(names, rows))

    def _upsert(self, table: sa.Table) -> Any:
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)
        keys = [c.name for c in table.primary_key]
        changed = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in keys}
        return insert.on_conflict_do_update(index_elements=keys, set_=changed)

    def _raise_failure(self, run_id: str | None = None) -> None:
        found = run_id if run_id is not None else next(iter(self._failures), None)
        failure = self._failures.pop(found, None) if found is not None else None
        if failure is not None:
            raise failure


def _url(url: str | Path) -> sa.URL:
    if isinstance(url, str) and "://" in url:
        parsed = sa.make_url(url)
        if parsed.drivername.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
            raise StoreError("a run store in memory would be lost.", code="STORE_OPEN", hint="sqlite:///runs.db")
        return _private(parsed)
    path = Path(url)
    return _private(sa.URL.create("sqlite", database=str(path)))


def _private(url: sa.URL) -> sa.URL:
    """A SQLite file is made with mode 0600, which its log and claims follow: it holds prompts."""
    if url.get_backend_name() == "sqlite" and url.database and not url.query:
        path = Path(url.database)
        private.folder(path.parent)
        private.file(path)
    return url


def _sqlite_pragmas(busy_timeout_s: float) -> Callable[[Any, Any], None]:
    def connected(connection: Any, record: Any) -> None:
        del record
        for pragma in (f"busy_timeout={int(busy_timeout_s * 1000)}", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}").close()

    return connected


def _by_key(row: Mapping[Any, Any], table: sa.Table) -> dict[str, Any]:
    return {column.key: row[column] for column in table.columns}
