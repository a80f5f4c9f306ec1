"""Claims: who is at work on a run, among all processes that share a run store.

Invariant: whoever holds a claim lets go of it, or dies with it: the operating system holds it for a SQLite file (a
locked file beside it), the database for PostgreSQL (an advisory lock of one session). What cannot be claimed because
the store itself fails is claimed: a store that fails costs the record, not the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout

logger = logging.getLogger("jade_graph")

Let = Callable[[], None]
"""Lets go of what was taken."""


class Claims:
    """The claims of one store.

    Args:
        later: calls a function once everything that was recorded so far is written. A claim is let go of then, so that
            whoever takes the run up next finds all of it.
    """

    def __init__(self, engine: sa.Engine, later: Callable[[Callable[[], object]], None]) -> None:
        self._later = later
        self._held: dict[str, Let] = {}
        self._leaving: dict[str, object] = {}
        self._guard = threading.Lock()
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        self._place: _Files | _Session = _Files(Path(file)) if file else _Session(engine)

    def take(self, run_id: str) -> Let | None:
        """Take the run; None where another has it. Gives what lets go of it (the second call of it does nothing)."""
        with self._guard:
            if run_id in self._held and self._leaving.pop(run_id, None) is None:
                return None
            if run_id not in self._held:
                let = self._place.take(run_id)
                if let is None:
                    return None
                self._held[run_id] = let
        token, once = object(), threading.Lock()

        def leave() -> None:
            if once.acquire(blocking=False):
                self._leave(run_id, token)

        return leave

    def _leave(self, run_id: str, token: object) -> None:
        with self._guard:
            self._leaving[run_id] = token

        def let_go() -> None:
            with self._guard:
                if self._leaving.get(run_id) is token:  # else it was taken again in the meantime
                    del self._leaving[run_id]
                    self._held.pop(run_id)()

        self._later(let_go)

    def close(self) -> None:
        with self._guard:
            for let in self._held.values():
                let()
            self._held.clear()
            self._leaving.clear()
            self._place.close()


class _Files:
    """A locked file for each run under way, in a folder beside the store's."""

    def __init__(self, store: Path) -> None:
        self.folder = store.with_name(store.name + "-claims")

    def take(self, run_id: str) -> Let | None:
        path = self.folder / hashlib.blake2b(run_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        lock = FileLock(path, thread_local=False)
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except (OSError, NotImplementedError) as error:
            logger.warning("run %s cannot be claimed in %s: %s", run_id, self.folder, error)
            return _nothing

        def let() -> None:
            with contextlib.suppress(OSError):  # gone before the lock is: whoever waits for it finds another file
                path.unlink()
            lock.release()
            with contextlib.suppress(OSError):  # others' claims are in it
                self.folder.rmdir()

        return let

    def close(self) -> None:
        """Nothing is kept open beside the claims."""


class _Session:
    """Advisory locks of one session of its own."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.session: sa.Connection | None = None
        self.guard = threading.Lock()

    def take(self, run_id: str) -> Let | None:
        text = f"jade-run:{run_id}".encode("utf-8", "surrogatepass")
        key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)
        try:
            taken = self._ask("select pg_try_advisory_lock(:key)", key)
        except sa.exc.SQLAlchemyError as error:
            logger.warning("run %s cannot be claimed: %s", run_id, error)
            return _nothing

        def let() -> None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):  # the session is gone, and its locks with it
                self._ask("select pg_advisory_unlock(:key)", key)

        return let if taken else None

    def _ask(self, statement: str, key: int) -> bool:
        with self.guard:
            try:
                if self.session is None:
                    self.session = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                return bool(self.session.execute(sa.text(statement), {"key": key}).scalar())
            except sa.exc.SQLAlchemyError:
                self._closed()
                raise

    def close(self) -> None:
        with self.guard:
            self._closed()

    def _closed(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.invalidate()  # not back into the pool: its locks go with it
            session.close()


def _nothing() -> None:
    """Nothing was taken, and nothing is let go of."""
