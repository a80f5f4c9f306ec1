"""`restore`: a folder made of a backup.

Invariant: nothing of a file is believed before its hash was compared with the manifest's; the folder gets its name
when all is there. Nothing outside of the folder is written, whatever the names in the file say.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from jade_graph import private
from jade_graph.backup.taking import DATA, MANIFEST, SCHEMA
from jade_graph.errors import StoreError, UsageError, storage_error

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """What was written. `left_out`: what the backup never had, each with what to do."""

    folder: Path
    files: int
    bytes: int
    created_at: float
    left_out: tuple[str, ...]


def restore(file: Path, into: Path) -> Restored:
    """Make the data folder `into` (mode 0700) of a backup.

    Raises:
        UsageError: BACKUP_FILE (not there). StoreError: RESTORE_EXISTS (the folder has something in it),
            BACKUP_BROKEN (no backup, cut off, or a file that is not what was written), BACKUP_NEWER.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {str(file)!r}.", code="BACKUP_FILE", hint="jade backup FILE writes one")
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise StoreError(
            f"{str(into)!r} is not empty, and nothing is overwritten.",
            code="RESTORE_EXISTS",
            hint="--into another folder; then --set data_dir=FOLDER, or rename it",
        )
    try:
        parent = private.folder(into.absolute().parent)
        scratch = Path(tempfile.mkdtemp(prefix=f".{into.name}-restoring-", dir=parent))  # mode 0700
        try:
            manifest = _unpacked(file, scratch)
            if into.exists():
                into.rmdir()
            scratch.rename(into)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except tarfile.TarError as error:
        raise _broken(file, f"it is no tar file, or cut off ({error})") from error
    except OSError as error:
        raise storage_error(error, str(into)) or StoreError(
            f"the backup could not be restored: {error}", code="BACKUP_FAILED", hint="run the same command again"
        ) from error
    files = manifest["files"]
    return Restored(
        into, len(files), sum(f["bytes"] for f in files), float(manifest["created_at"]), tuple(manifest["left_out"])
    )


def _unpacked(file: Path, scratch: Path) -> dict[str, Any]:
    """Write the files, and compare them with the manifest, which comes last."""
    found: dict[str, tuple[int, str]] = {}
    manifest: dict[str, Any] | None = None
    with tarfile.open(file, "r:") as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isreg() else None
            if source is None:
                raise _broken(file, f"{member.name!r} is no plain file")
            if member.name == MANIFEST:
                manifest = _read(file, source)
                continue
            name = member.name.removeprefix(DATA)
            path = PurePosixPath(name)
            if not member.name.startswith(DATA) or path.is_absolute() or ".." in path.parts or not path.parts:
                raise _broken(file, f"{member.name!r} is no place in a data folder")
            target = scratch.joinpath(*path.parts)
            private.folder(target.parent)
            found[name] = _copied(source, target)
    if manifest is None:
        raise _broken(file, "it has no manifest: it was cut off, or is something else")
    wanted = {each["path"]: (each["bytes"], each["sha256"]) for each in manifest["files"]}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            what = "is missing" if name not in found else "is not in its manifest" if name not in wanted else "differs"
            raise _broken(file, f"{name!r} {what}")
    return manifest


def _copied(source: IO[bytes], target: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
        while part := source.read(_BLOCK):
            digest.update(part)
            size += out.write(part)
    return size, digest.hexdigest()


def _read(file: Path, source: IO[bytes]) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(source.read())
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(file, f"its manifest cannot be read ({error})") from error
    if schema > SCHEMA:
        raise StoreError(
            f"the backup {str(file)!r} has schema {schema}; this version knows {SCHEMA}.",
            code="BACKUP_NEWER",
            hint="pip install --upgrade jade-graph",
        )
    return manifest


def _broken(file: Path, why: str) -> StoreError:
    return StoreError(
        f"{str(file)!r} is no whole backup: {why}. Nothing was restored.",
        code="BACKUP_BROKEN",
        hint="an older backup; jade backup FILE writes a new one",
    )
