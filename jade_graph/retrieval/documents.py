"""Reading folders of documents of every kind that `kinds` knows.

Invariant: one bad file never ends the reading; whatever is not read is named with its reason, be it a file, a folder or
a link, and what was guessed is noted. Only regular files inside the folder are opened. Only when nothing at all can be
read is that an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from jade_graph.errors import DataError
from jade_graph.retrieval.kinds import SUFFIXES, read_kind, suffix_of
from jade_graph.retrieval.reading import MAX_BYTES, Document, Documents, Found, Skipped, UnreadableError

__all__ = ["MAX_BYTES", "SUFFIXES", "Document", "Documents", "Skipped", "read_documents"]


def read_documents(
    path: Path | str, *, max_bytes: int = MAX_BYTES, progress: Callable[[int, int], None] | None = None
) -> Documents:
    """Read one file, or every file of a known kind under a folder, in order of name.

    Hidden files and folders, links to folders and links that lead out of the folder are named, and not followed.

    Args:
        max_bytes: larger files are left out (of JSON lines and tables: longer lines).
        progress: called with (files done, files in all).

    Raises:
        DataError: DOCUMENTS_NOT_FOUND when the path does not exist; DOCUMENTS_UNREADABLE when nothing gave a text.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"there is no file or folder {str(path)!r}.", code="DOCUMENTS_NOT_FOUND", hint="check the path")
    found = Found(max_bytes)
    folder = root.is_dir()
    paths = sorted(_files(root, found)) if folder else [root]
    documents: list[Document] = []
    taken: dict[str, tuple[str, Document]] = {}
    files = 0
    for done, file in enumerate(paths, start=1):
        source = named(file.relative_to(root if folder else root.parent))
        before = len(documents)
        try:
            for document, where in read_kind(file, source, found):
                documents.append(_with_its_own_id(document, where, taken, found))
        except (UnreadableError, OSError) as error:
            found.skip(source, _reason(error))
        files += len(documents) > before
        if progress is not None:
            progress(done, len(paths))
    if not documents:
        _complain(path, found.skipped)
    return Documents(tuple(documents), tuple(sorted(found.skipped, key=lambda s: s.kind)), files, tuple(found.notes))


def named(path: Path) -> str:
    """A path as text, with `/`; bytes that are no UTF-8 are written out, so that every name can be stored and shown."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _files(root: Path, found: Found) -> Iterator[Path]:
    """Regular files of a known kind; everything else is put on the list of what is left out."""
    inside = root.resolve()

    def unreadable(error: OSError) -> None:
        where = Path(os.fsdecode(error.filename or ""))
        found.skip(named(where.relative_to(root)) + "/", _reason(error))

    for folder, names, files in os.walk(root, onerror=unreadable):
        here = Path(folder)
        entered = []
        for name in sorted(names):
            where = here / name
            if name.startswith("."):
                found.skip(named(where.relative_to(root)) + "/", "hidden", kind="hidden")
            elif where.is_symlink():
                found.skip(
                    named(where.relative_to(root)) + "/", f"a link to the folder {os.readlink(where)!r}: not followed"
                )
            else:
                entered.append(name)
        names[:] = entered
        for name in files:
            where = here / name
            reason, kind = _left_out(where, inside)
            if reason:
                found.skip(named(where.relative_to(root)), reason, kind=kind)
            else:
                yield where


def _left_out(path: Path, inside: Path) -> tuple[str, str]:
    """(why a file is not opened, of what kind that is); empty texts for one that is."""
    if path.name.startswith("."):
        return "hidden", "hidden"
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(inside):
            return f"a link that leads out of the folder, to {os.readlink(path)!r}", ""
        mode = path.stat().st_mode
    except (OSError, RuntimeError) as error:  # a link to nothing, or to itself
        return _reason(error), ""
    if not stat.S_ISREG(mode):
        return f"{_special(mode)}, not a file", ""
    if not suffix_of(path.name):
        return f"of no known kind ({path.suffix.lower() or 'no suffix'})", "unknown"
    return "", ""


def _special(mode: int) -> str:
    for test, name in ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder")):
        if test(mode):
            return name
    return "a device"


def _with_its_own_id(document: Document, where: str, taken: dict[str, tuple[str, Document]], found: Found) -> Document:
    """Two texts with one id, of two files say, are both kept: the later one is called by its place."""
    first, other = taken.setdefault(document.id, (where, document))
    if other is document or (other.title, other.text) == (document.title, document.text):
        return document
    found.note(where, f"the id {document.id!r} is that of {first}, too: this one is {where!r}")
    return replace(document, id=where)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def _complain(path: Path | str, skipped: list[Skipped]) -> None:
    told = [s for s in skipped if s.kind not in ("unknown", "hidden")]
    reasons = "; ".join(f"{s.source}: {s.reason}" for s in told[:3])
    others = ", ".join(s.source for s in skipped if s.kind == "unknown")
    nothing = ": no file of a known kind" + (f" ({others[:200]})" if others else "")
    raise DataError(
        f"no text could be read from {str(path)!r}" + (f" ({reasons})." if reasons else nothing + "."),
        code="DOCUMENTS_UNREADABLE",
        known=SUFFIXES,
        hint="name a folder that holds such files",
    )
