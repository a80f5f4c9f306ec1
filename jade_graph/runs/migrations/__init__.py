"""The run store's schema: a new store gets it whole, an older one is brought to it, forwards only.

Invariant: who changes a schema holds the store's write lock from the look at its revision to the commit, so that two
processes that open one store at once do it once, and one that dies in between leaves the store as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from jade_graph.errors import StoreError
from jade_graph.runs import tables
from jade_graph.types import SCHEMA_VERSION

REVISIONS = ("0001", "0002", "0003")
"""Every schema that there was, the oldest first; a file each in `versions`."""
FIRST, HEAD = REVISIONS[0], REVISIONS[-1]
VERSION_TABLE = "jade_store_revision"
_LOCK = 0x6A616465_73746F72  # of PostgreSQL's advisory locks

# As Alembic makes it; declared here so that a store which needs nothing is opened without loading Alembic.
_revision = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
_schema_version = sa.select(tables.info.c.value).where(tables.info.c.key == "schema_version")


def prepare(engine: sa.Engine, shown: str, *, busy_timeout_s: float) -> None:
    """Make the schema, or bring an older one to `HEAD`. A store that has it is only read.

    Args:
        shown: the store's address as messages may quote it.
        busy_timeout_s: how long to wait for another process that does the same.

    Raises:
        StoreError: STORE_SCHEMA, for a store of a newer version. SQLAlchemyError: it cannot be written.
    """
    with engine.connect() as db:
        if _at(db, shown) == HEAD:
            return
    locking = _locking(engine, busy_timeout_s)
    try:
        with locking.begin() as db:
            if db.dialect.name == "postgresql":
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            found = _at(db, shown)  # another process may have been here while we waited
            if found is None:
                tables.metadata.create_all(db)
                _revision.create(db)
                db.execute(_revision.insert(), [{"version_num": HEAD}])
            elif found != HEAD:
                _upgrade(db, found)
            if db.execute(_schema_version).scalar() is None:
                db.execute(tables.info.insert(), [{"key": "schema_version", "value": str(SCHEMA_VERSION)}])
    finally:
        locking.dispose()


def _at(db: sa.Connection, shown: str) -> str | None:
    """The revision of a store; None for a database without one. Raises `StoreError` STORE_SCHEMA."""
    there = sa.inspect(db)
    if not there.has_table(tables.info.name):
        return None
    version = db.execute(_schema_version).scalar()
    found = db.execute(sa.select(_revision.c.version_num)).scalar() if there.has_table(VERSION_TABLE) else None
    if found is None:  # of a time before revisions were written down: it is the first, perhaps with later tables
        found = FIRST
    if int(version or 0) > SCHEMA_VERSION or found not in REVISIONS:
        newer = f"schema {version}" if int(version or 0) > SCHEMA_VERSION else f"revision {found}"
        raise StoreError(
            f"the run store {shown!r} has {newer}; this version knows schema {SCHEMA_VERSION}, revision {HEAD}.",
            code="STORE_SCHEMA",
            hint="pip install --upgrade jade-graph",
        )
    return str(found)


def _upgrade(db: sa.Connection, found: str) -> None:
    """Carry out what is missing from `found` on, within the caller's transaction."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent))
    context = MigrationContext.configure(db, opts={"version_table": VERSION_TABLE, "transactional_ddl": True})
    if not sa.inspect(db).has_table(VERSION_TABLE):
        context.stamp(scripts, found)
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions(HEAD, found))):
            script.module.upgrade()
            context.stamp(scripts, script.revision)


def _locking(engine: sa.Engine, busy_timeout_s: float) -> sa.Engine:
    """An engine whose transactions hold a SQLite file's write lock from their begin, tables included."""
    own = sa.create_engine(engine.url, poolclass=sa.pool.NullPool)
    if own.dialect.name == "sqlite":

        def connected(connection: Any, record: Any) -> None:
            del record
            connection.isolation_level = None  # Python's sqlite3 would begin at the first row, after the tables
            connection.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}").close()

        def begin(db: sa.Connection) -> None:
            db.exec_driver_sql("BEGIN IMMEDIATE")

        sa.event.listen(own, "connect", connected)
        sa.event.listen(own, "begin", begin)
    return own
