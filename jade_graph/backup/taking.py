"""`back_up`: the data folder as one tar file with a manifest.

Invariant: the file appears under its name when it is whole. Databases come before the files that they name, so that
no row of a registry names a file that is not in the backup.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jade_graph import private
from jade_graph.errors import StoreError, masked, storage_error
from jade_graph.retrieval.lock import LOCK_FILE, write_lock
from jade_graph.retrieval.manifest import corpora_folder
from jade_graph.settings.fields import Settings
from jade_graph.settings.manifest import version

SCHEMA = 1
"""Of the backup's own layout."""
DATA, MANIFEST = "data/", "manifest.json"
_SQLITE = b"SQLite format 3\x00"
_BESIDE = ("-wal", "-shm", "-journal")  # of a database: the copy has what is in them
_LOCKS = (LOCK_FILE, "registry.lock")
_CORPUS_WAIT_S = 600.0

Tick = Callable[[int, int | None, str | None], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written. `left_out`: what is not in it, each with what to do; `bytes` of the files in it."""

    path: Path
    files: int
    bytes: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    path: Path
    database: bool


def back_up(settings: Settings, out: Path, *, models: bool = False, tick: Tick | None = None) -> Backup:
    """Write the data folder and the run store as one file, while others use them.

    Args:
        out: the tar file to write, mode 0600; it must not be there.
        models: models that have a name too, which can be fetched again.
        tick: told `done` of `total` files.

    Raises:
        StoreError: BACKUP_EXISTS, BACKUP_EMPTY (there is no data folder), BACKUP_FAILED. RetrievalError: CORPUS_LOCKED,
            for a corpus that is being written for ten minutes. JadeError: DISK_FULL, NO_ACCESS.
    """
    if out.exists():
        raise StoreError(f"{str(out)!r} is there already.", code="BACKUP_EXISTS", hint="another name: jade backup FILE")
    data = settings.data_path
    store, left_out = _store(settings)
    if not data.is_dir() and store is None:
        raise StoreError(
            f"there is no data folder {str(data)!r} to back up.", code="BACKUP_EMPTY", hint="--set data_dir=FOLDER"
        )
    left_out += _registry(settings)
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        private.folder(out.absolute().parent)
        with contextlib.ExitStack() as stack:
            stack.callback(draft.unlink, missing_ok=True)
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".jade-backup-", dir=out.parent)))
            entries = list(_entries(data, out, draft, scratch, None if models else left_out))
            if store is not None and not _within(store, data):
                taken = {entry.name for entry in entries}
                entries.append(_Entry("runs.db" if "runs.db" not in taken else "store.db", store, True))
            listed = _write(private.file(draft), entries, data, scratch, left_out, tick)
            draft.rename(out)
    except sqlite3.Error as error:
        raise storage_error(error, str(out.parent)) or StoreError(
            f"a database could not be copied: {error}", code="BACKUP_FAILED", hint="jade doctor"
        ) from error
    except OSError as error:
        raise storage_error(error, str(out)) or StoreError(
            f"the backup could not be written: {error}", code="BACKUP_FAILED", hint="run the same command again"
        ) from error
    return Backup(out, len(listed), sum(each["bytes"] for each in listed), tuple(left_out))


def _store(settings: Settings) -> tuple[Path | None, list[str]]:
    """The run store's file, or what to say about one that is none."""
    where = settings.store_url
    if isinstance(where, str) and "://" in where:
        if not where.startswith("sqlite"):
            return None, [f"the run store {masked(where)}: use its own tool, e.g. pg_dump"]
        import sqlalchemy as sa

        where = sa.make_url(where).database or ""
    path = Path(where)
    return (path if path.is_file() else None), []


def _registry(settings: Settings) -> list[str]:
    """What to say about a registry that does not lie in the data folder."""
    uri = settings.registry.url or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None or (uri.startswith("sqlite:///") and _within(Path(uri[10:]), settings.data_path)):
        return []
    return [f"the registry {masked(uri)} and its files: back up its database and its store where they are"]


def _within(path: Path, folder: Path) -> bool:
    return path.absolute().resolve().is_relative_to(folder.absolute().resolve())


def _entries(data: Path, out: Path, draft: Path, scratch: Path, left_out: list[str] | None) -> Iterator[_Entry]:
    """What is to be copied, databases first. Models that have a name are left out, and said so, where it is a list."""
    from jade_graph.backbones import named

    # Versions are links and copies of what the registry has, and are made again.
    skipped = {path.absolute() for path in (out, draft, scratch, data / "versions")}
    if left_out is not None:
        for name in named.NAMED:
            folder = data / "models" / name
            if folder.is_dir():
                skipped.add(folder.absolute())
                left_out.append(f"the model {name}: jade models add {name}, or jade backup --models")
    found = []
    for top, folders, files in os.walk(data):
        here = Path(top)
        folders[:] = [f for f in folders if (here / f).absolute() not in skipped and not f.endswith("-claims")]
        for name in files:
            path = here / name
            if path.absolute() in skipped or name in _LOCKS or name.endswith(_BESIDE) or not path.is_file():
                continue
            found.append(_Entry(path.relative_to(data).as_posix(), path, _is_database(path)))
    yield from sorted(found, key=lambda entry: (not entry.database, entry.name))


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except FileNotFoundError:
        return False


def _write(
    draft: Path, entries: list[_Entry], data: Path, scratch: Path, left_out: list[str], tick: Tick | None
) -> list[dict[str, Any]]:
    """The tar file: corpora first, each under its writer's lock, then the rest, then the manifest."""
    corpora: dict[str, list[_Entry]] = {}
    for entry in entries:
        corpora.setdefault(_corpus(entry, data), []).append(entry)
    listed: list[dict[str, Any]] = []
    with draft.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, group in sorted(corpora.items(), reverse=True):
            with write_lock(corpora_folder(data) / name, _CORPUS_WAIT_S) if name else contextlib.nullcontext():
                for entry in group:
                    if (told := _add(tar, entry, scratch)) is not None:
                        listed.append(told)
                    if tick is not None:
                        tick(len(listed), len(entries), "backing up")
        manifest = {
            "schema": SCHEMA,
            "jade_graph": version(),
            "created_at": time.time(),
            "files": sorted(listed, key=lambda each: str(each["path"])),
            "left_out": left_out,
        }
        _put(tar, MANIFEST, io.BytesIO(text := json.dumps(manifest, indent=1).encode()), len(text), time.time())
        tar.close()
        file.flush()
        os.fsync(file.fileno())
    return listed


def _corpus(entry: _Entry, data: Path) -> str:
    """The corpus that a file is of; "" for any other."""
    root = corpora_folder(data)
    parts = entry.path.relative_to(root).parts if entry.path.is_relative_to(root) else ()
    return parts[0] if len(parts) > 1 else ""


def _add(tar: tarfile.TarFile, entry: _Entry, scratch: Path) -> dict[str, Any] | None:
    """Copy one file, a database by way of a copy; None for one that has gone since it was listed."""
    path = entry.path
    if entry.database:
        path = scratch / "database"
        path.unlink(missing_ok=True)
        _copied(entry.path, private.file(path))
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        stat = os.fstat(file.fileno())
        digest = _put(tar, DATA + entry.name, file, stat.st_size, stat.st_mtime)
    return {"path": entry.name, "bytes": stat.st_size, "sha256": digest}


def _copied(source: Path, target: Path) -> None:
    """A consistent copy of a database that others write in, by SQLite's backup; they are not held up."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as there,
        contextlib.closing(sqlite3.connect(target)) as here,
    ):
        there.backup(here)
        here.execute("PRAGMA journal_mode=DELETE").close()  # one file, without a log beside it


def _put(tar: tarfile.TarFile, name: str, file: IO[bytes], size: int, changed: float) -> str:
    """Add a file's first `size` bytes, and give their SHA-256."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(changed), 0o600
    hashed = _Hashed(file)
    tar.addfile(info, hashed)
    return hashed.digest.hexdigest()


class _Hashed:
    """Reads a file and hashes what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self.digest.update(part)
        return part
