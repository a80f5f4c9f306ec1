"""A PostgreSQL server for what needs one, started from whatever installation is there."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MissingError(Exception):
    """There is no server here, or it does not start; the message says which."""


class Postgres:
    """A fresh server on a loopback port; `url` stays the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        initdb, server = _program("initdb"), _program("postgres")
        if initdb is None or server is None:
            raise MissingError("PostgreSQL is not installed (apt-get install postgresql)")
        self._server, self._folder, self._user = server, folder, None
        if os.geteuid() == 0:  # the server refuses to run as root
            self._user = next((u.pw_name for u in pwd.getpwall() if u.pw_name in ("postgres", "nobody")), None)
            if self._user is None:
                raise MissingError("PostgreSQL does not run as root, and there is no user to run it as")
            shutil.chown(folder, self._user)
        subprocess.run(
            [initdb, "-D", str(folder / "data"), "-U", "jade", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, user=self._user, cwd=folder,
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://jade@127.0.0.1:{self._port}/postgres"
        self.start()

    def start(self) -> None:
        import psycopg

        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(self._folder)]
        self.process = subprocess.Popen(
            [self._server, "-D", str(self._folder / "data"), "-p", str(self._port), *options],
            user=self._user, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        for _ in range(600):
            if self.process.poll() is not None:
                raise MissingError("the PostgreSQL server does not start here")
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise MissingError("the PostgreSQL server does not answer here")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Raises `MissingError`."""
    folder = Path(tempfile.mkdtemp(prefix="jade-pg-", dir="/tmp"))  # the socket's path has a length limit
    server = None
    try:
        server = Postgres(folder)
        yield server
    finally:
        if server is not None:
            server.process.terminate()
            server.process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str | None:
    found = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True))]
    return next((path for path in found if path), None)
