"""A corpus's manifest: what is in the folder, made with what.

Invariant: the manifest is written last and in one step, so a folder with one is a whole corpus, and what is there
beside it belongs to an unfinished build that the next one completes.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.errors import JadeError, RetrievalError, UsageError, storage_error

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class CorpusManifest:
    """One corpus.

    `corpus_id` is that of a hybrid retriever over it. `generation` is the folder under `bm25/` that it reads.
    `embedded`, `reused` and `removed` count the vectors of the last build. `words` is the version of the words that
    are searched for; `notes` say what was guessed of files that were read. `files` are the hashes of what lies in that
    folder, `vectors` names the vectors (see `sealing`); both are empty in older corpora, `vectors` in large ones, too.
    """

    name: str
    corpus_id: str
    content_id: str
    generation: str
    encoder: str
    encoder_spec: str
    dim: int
    dtype: str
    passages: int
    documents: int
    chunking: dict[str, Any] | None = None
    source: str = ""
    words: int = 1
    skipped: tuple[dict[str, str], ...] = ()
    notes: tuple[dict[str, str], ...] = ()
    dropped: int = 0
    embedded: int = 0
    reused: int = 0
    removed: int = 0
    files: dict[str, str] = field(default_factory=dict)
    vectors: str = ""
    created_at: float = field(default_factory=time.time)
    schema_version: int = SCHEMA_VERSION

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, folder: Path) -> None:
        draft = folder / f".{MANIFEST}.tmp"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(self.as_dict(), file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> CorpusManifest | None:
    """The manifest in `folder`; None when there is none yet. Raises CORPUS_BROKEN or CORPUS_NEWER."""
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["schema_version"]
        if version > SCHEMA_VERSION:
            raise RetrievalError(
                f"the corpus {folder.name!r} has schema version {version}, this program knows {SCHEMA_VERSION}.",
                code="CORPUS_NEWER",
                hint="pip install --upgrade jade-graph",
            )
        return CorpusManifest(
            **{**record, "skipped": tuple(record["skipped"]), "notes": tuple(record.get("notes", ()))}
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if (stored := storage_error(error, str(path))) is not None:
            raise stored from error
        raise RetrievalError(
            f"the manifest {str(path)!r} cannot be read: {type(error).__name__}: {error}",
            code="CORPUS_BROKEN",
            hint=f"rename that file, and index again: jade index PATH --corpus {folder.name}",
        ) from error


def corpora_folder(root: Path | str) -> Path:
    return Path(root) / "corpora"


def corpus_folder(name: str, root: Path | str) -> Path:
    """Raises `UsageError` BAD_CORPUS_NAME."""
    if not _NAME.match(name):
        raise UsageError(
            f"the corpus name {name!r} is not usable: letters, digits, '.', '_' and '-', at most 64, and a letter or "
            "digit first.",
            code="BAD_CORPUS_NAME",
            hint="--corpus my-notes",
        )
    return corpora_folder(root) / name


def list_corpora(root: Path | str) -> list[CorpusManifest]:
    """Every whole corpus under `root`, by name. Broken and unfinished ones are left out."""
    found = []
    for path in sorted(corpora_folder(root).glob(f"*/{MANIFEST}")):
        try:
            manifest = read_manifest(path.parent)
        except JadeError:  # opening it by name tells what is wrong
            continue
        if manifest is not None:
            found.append(manifest)
    return found


def require_manifest(name: str, root: Path | str) -> CorpusManifest:
    """The manifest of a whole corpus. Raises BAD_CORPUS_NAME, UNKNOWN_CORPUS, CORPUS_UNFINISHED, CORPUS_BROKEN."""
    folder = corpus_folder(name, root)
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest
    if folder.is_dir():
        raise RetrievalError(
            f"the corpus {name!r} was never finished: its build was cut off, or is still at work.",
            code="CORPUS_UNFINISHED",
            hint=f"jade index PATH --corpus {name} (it goes on where it stopped)",
        )
    raise unknown_corpus(name, root)


def unknown_corpus(name: str, root: Path | str) -> RetrievalError:
    return RetrievalError(
        f"there is no corpus {name!r} under {str(corpora_folder(root))!r}.",
        code="UNKNOWN_CORPUS",
        known=[m.name for m in list_corpora(root)],
        hint=f"jade index PATH --corpus {name}",
    )
