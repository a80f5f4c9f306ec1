"""The run store: runs, trace nodes and transitions in SQLite (or PostgreSQL), written as they happen.

Invariant: the event loop hands a row over in microseconds; one writer thread commits what has gathered. After a crash
everything but the batch in flight is there, and a run that never ended says "running". A failed write is an error for
whoever waits on `flushed`, never a lost row in silence.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jade_graph import tables
from jade_graph.errors import StoreError
from jade_graph.types import SCHEMA_VERSION, Run, TraceNode, Transition

_BATCH = 512


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None means any."""

    preset: str | None = None
    status: str | None = None
    question_id: str | None = None
    text: str | None = None
    plan: str | None = None
    version: str | None = None


class RunStore:
    """A recorder over a database URL (or a path, which means SQLite in WAL mode).

    Raises:
        StoreError: STORE_OPEN (cannot be opened), STORE_SCHEMA (made by a newer version).
    """

    def __init__(self, url: str | Path) -> None:
        self.url = _url(url)
        try:
            self._engine = sa.create_engine(self.url)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _sqlite_pragmas)
            tables.metadata.create_all(self._engine)
            self._check_schema()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise StoreError(
                f"the run store {self.url!r} cannot be opened: {error}",
                code="STORE_OPEN",
                hint="--set store.url=sqlite:///runs.db",
            ) from error
        t = tables.transitions
        key = (t.c.run_id == sa.bindparam("of_run"), t.c.attempt == sa.bindparam("of_attempt"))
        self._put_run, self._put_node = self._upsert(tables.runs), self._upsert(tables.trace_nodes)
        self._put_action = t.insert()
        self._mark_done = t.update().where(*key, t.c.seq == sa.bindparam("of_seq")).values(done=True)
        self._queue: queue.SimpleQueue[Callable[[], object] | tuple[str, Any]] = queue.SimpleQueue()
        self._failure: StoreError | None = None
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name="jade-store", daemon=True)
        self._writer.start()

    # --- Recorder -----------------------------------------------------------------------------------------------------
    def run_started(self, run: Run) -> None:
        self._put("run", (replace(run), None))

    def transition(self, transition: Transition) -> None:
        self._put("transition", transition)

    def trace_nodes(self, run_id: str, attempt: int, nodes: Mapping[str, TraceNode]) -> None:
        self._put("nodes", (run_id, attempt, tuple(nodes.values())))

    def run_finished(self, run: Run) -> None:
        self._put("end", (run, run.transitions[-1].seq if run.transitions else None))

    async def flushed(self) -> None:
        """Wait until everything handed over so far is committed. Raises `StoreError` STORE_WRITE."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._queue.put(lambda: loop.call_soon_threadsafe(wake))
        await waiter
        self._raise_failure()

    def flush(self) -> None:
        """`flushed` for code without an event loop."""
        done = threading.Event()
        self._queue.put(done.set)
        done.wait()
        self._raise_failure()

    def close(self) -> None:
        """Write what is left and let go of the database."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(("stop", None))
        self._writer.join()
        self._engine.dispose()
        self._raise_failure()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- reading ------------------------------------------------------------------------------------------------------
    def count(self, where: RunFilter | None = None) -> int:
        query = sa.select(sa.func.count()).select_from(tables.runs).where(*_conditions(where))
        with self._engine.connect() as db:
            return int(db.execute(query).scalar_one())

    def list_runs(self, where: RunFilter | None = None, *, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Rows of the table `runs`, newest first."""
        query = (
            sa.select(tables.runs)
            .where(*_conditions(where))
            .order_by(tables.runs.c.started_at.desc(), tables.runs.c.id)
            .limit(limit)
            .offset(offset)
        )
        with self._engine.connect() as db:
            return [dict(row._mapping) for row in db.execute(query)]

    def get(self, run_id: str) -> Run:
        """A run with trace and transitions of its last attempt, by id or unambiguous beginning of it.

        Raises `StoreError` RUN_NOT_FOUND or RUN_AMBIGUOUS.
        """
        with self._engine.connect() as db:
            found = (
                db.execute(sa.select(tables.runs).where(tables.runs.c.id.startswith(run_id, autoescape=True)).limit(3))
                .mappings()
                .all()
            )
            exact = [row for row in found if row["id"] == run_id] or found
            if not exact:
                raise StoreError(f"there is no run {run_id!r}.", code="RUN_NOT_FOUND", hint="jade runs list")
            if len(exact) > 1:
                ids = [row["id"] for row in exact]
                raise StoreError(f"{run_id!r} begins more than one run id.", code="RUN_AMBIGUOUS", known=ids)
            run = tables.run_of(dict(exact[0]))
            run.trace = tuple(self._nodes(db, run))
            run.transitions = tuple(self._transitions(db, run))
        return run

    def _nodes(self, db: sa.Connection, run: Run) -> list[TraceNode]:
        t = tables.trace_nodes
        rows = db.execute(sa.select(t).where(t.c.run_id == run.id, t.c.attempt == run.attempt)).mappings()
        nodes = [tables.node_of(dict(row)) for row in rows]
        return sorted(nodes, key=lambda n: tuple(map(int, n.id.split("."))))

    def _transitions(self, db: sa.Connection, run: Run) -> list[Transition]:
        t = tables.transitions
        query = sa.select(t).where(t.c.run_id == run.id, t.c.attempt == run.attempt).order_by(t.c.seq)
        return [tables.transition_of(_by_key(row, t)) for row in db.execute(query).mappings()]

    # --- writing ------------------------------------------------------------------------------------------------------
    def _put(self, kind: str, value: Any) -> None:
        if self._closed:
            raise StoreError(f"the run store {self.url!r} is closed.", code="STORE_CLOSED")
        self._queue.put((kind, value))

    def _write_all(self) -> None:
        while True:
            items = [self._queue.get()]
            while len(items) < _BATCH and not self._queue.empty():
                items.append(self._queue.get())
            rows = [item for item in items if isinstance(item, tuple)]
            try:
                self._write([item for item in rows if item[0] != "stop"])
            except Exception:
                self._write_singly([item for item in rows if item[0] != "stop"])
            for item in items:
                if not isinstance(item, tuple):
                    item()
            if any(item[0] == "stop" for item in rows):
                return

    def _write_singly(self, items: Sequence[tuple[str, Any]]) -> None:
        """After a failed batch: what can be written is, so that one bad row loses nobody else's."""
        for item in items:
            try:
                self._write([item])
            except Exception as error:  # kept, and raised to whoever waits for the rows
                self._failure = StoreError(
                    f"writing to the run store {self.url!r} failed: {error}", code="STORE_WRITE", hint="jade doctor"
                )

    def _write(self, items: Sequence[tuple[str, Any]]) -> None:
        if not items:
            return
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
        with self._engine.begin() as db:
            for statement, rows in (
                (self._put_run, list(runs.values())),
                (self._put_node, list(nodes.values())),
                (self._put_action, list(actions.values())),
                (self._mark_done, last),
            ):
                if rows:
                    db.execute(statement, rows)

    def _upsert(self, table: sa.Table) -> Any:
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)
        keys = [c.name for c in table.primary_key]
        changed = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in keys}
        return insert.on_conflict_do_update(index_elements=keys, set_=changed)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _check_schema(self) -> None:
        with self._engine.begin() as db:
            found = db.execute(sa.select(tables.info.c.value).where(tables.info.c.key == "schema_version")).scalar()
            if found is None:
                db.execute(self._upsert(tables.info), [{"key": "schema_version", "value": str(SCHEMA_VERSION)}])
            elif int(found) > SCHEMA_VERSION:
                raise StoreError(
                    f"the run store {self.url!r} has schema {found}; this version knows {SCHEMA_VERSION}.",
                    code="STORE_SCHEMA",
                    hint="pip install --upgrade jade-graph",
                )


def _url(url: str | Path) -> str:
    if isinstance(url, str) and "://" in url:
        return url
    path = Path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}"


def _sqlite_pragmas(connection: Any, record: Any) -> None:
    del record
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _conditions(where: RunFilter | None) -> list[sa.ColumnElement[bool]]:
    if where is None:
        return []
    c = tables.runs.c
    pairs = (
        (c.preset, where.preset),
        (c.status, where.status),
        (c.question_id, where.question_id),
        (c.plan, where.plan),
        (c.backbone_version, where.version),
    )
    conditions: list[sa.ColumnElement[bool]] = [column == value for column, value in pairs if value is not None]
    if where.text:
        conditions.append(c.question.icontains(where.text, autoescape=True))
    return conditions


def _by_key(row: Mapping[Any, Any], table: sa.Table) -> dict[str, Any]:
    return {column.key: row[column] for column in table.columns}
