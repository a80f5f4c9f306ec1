"""Finding and loading a data set by path or by name.

Invariant: the format is told from what is there, never guessed from a file's name; a path that exists goes before any
registered scheme, and what cannot be told is an error that lists the formats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jade_graph import plugins
from jade_graph.data.dataset import Dataset
from jade_graph.data.formats import (
    ANSWERS,
    read_2wiki,
    read_beir,
    read_flashrag,
    read_hotpot,
    read_jade,
    read_musique,
    read_open,
)
from jade_graph.data.records import Record, first_record
from jade_graph.data.tables import SUFFIXES, is_saved, saved_splits
from jade_graph.errors import DataError, PluginError, UsageError, unknown

ENTRY_POINTS = "jade.datasets"

FORMATS: dict[str, Callable[..., Dataset]] = {
    "2wiki": read_2wiki,
    "beir": read_beir,
    "flashrag": read_flashrag,
    "hotpot": read_hotpot,
    "jade": read_jade,
    "musique": read_musique,
    "open": read_open,
}

_FILES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", *SUFFIXES)


def load_dataset(
    path_or_name: str | Path,
    *,
    limit: int | None = None,
    split: str | None = None,
    format: str | None = None,
    **options: Any,
) -> Dataset:
    """Load a data set.

    Args:
        path_or_name: a file or folder, or `SCHEME:REST`, where the scheme is an entry point of "jade.datasets": a
            factory `(rest: str, **options) -> Dataset`; `limit` and `split` are among its options when given.
        limit: only the first questions; the passages stay those of the whole set.
        split: of a folder with several: a file whose name has it as a part ("dev" finds musique_ans_v1.0_dev.jsonl), or
            BEIR's qrels (default "test").
        format: one of `FORMATS`, where it cannot be told from the data.

    Raises:
        DataError: DATASET_NOT_FOUND, DATASET_FORMAT, DATASET_SPLIT, DATASET_FILE, DATASET_JSON, DATASET_FIELD,
            DATASET_UNREADABLE, DATASET_EMPTY, DATASET_IDS.
        UsageError: UNKNOWN_DATASET_FORMAT, BAD_LIMIT, DATASET_OPTION.
        PluginError: when an entry point does not give a `Dataset`.
    """
    path = Path(path_or_name).expanduser()
    if path.exists():
        if options:
            raise UsageError(
                f"a data set that is read from a path has no option {next(iter(options))!r}.",
                code="DATASET_OPTION",
                known=("limit", "split", "format"),
            )
        return _load_path(path, split, format).head(limit)
    scheme, _, rest = str(path_or_name).partition(":")
    if scheme not in plugins.names(ENTRY_POINTS):
        raise DataError(
            f"there is no data set {str(path_or_name)!r}: no such file or folder, and no scheme {scheme!r}.",
            code="DATASET_NOT_FOUND",
            known=[f"{name}:" for name in plugins.names(ENTRY_POINTS)],
            hint="name a file or folder in one of the formats " + ", ".join(FORMATS),
        )
    if format is not None:
        raise UsageError(
            f"the data set {str(path_or_name)!r} is no file, and so in no format {format!r}.",
            code="DATASET_OPTION",
            known=("limit", "split"),
        )
    given = {name: value for name, value in (("limit", limit), ("split", split)) if value is not None}
    dataset = plugins.load(ENTRY_POINTS, scheme)(rest, **given, **options)
    if not isinstance(dataset, Dataset):
        raise PluginError(f"the data set scheme {scheme!r} gave {type(dataset).__name__}, not a Dataset.")
    return dataset.head(limit)


def detect_format(path: Path | str) -> str | None:
    """The format of a file or folder; None when it is no data set (a folder of documents, say).

    "open" is that of any questions with answers: their file may be meant as a document, too.
    """
    path = Path(path)
    if path.is_dir() and not is_saved(path):
        files = {p.name.removesuffix(".gz") for p in path.iterdir()}
        if "questions.jsonl" in files:
            return "jade"
        if {"corpus.jsonl", "queries.jsonl"} <= files:
            return "beir"
        formats = {detect_format(file) for file in _data_files(path)}
        return formats.pop() if len(formats) == 1 and not _holds_documents(path) else None
    if not is_saved(path) and (not path.is_file() or not path.name.endswith(_FILES)):
        return None
    try:
        first = first_record(path)
    except DataError:  # reading it as that format will tell
        return None
    return None if first is None else _format_of(first)


_DOCUMENTS = frozenset(
    {".md", ".markdown", ".txt", ".text", ".rst", ".org", ".html", ".htm", ".xhtml", ".pdf", ".docx"}
)
_ABOUT = ("readme", "license", "licence", "changelog", "citation", "notice", "authors", "version", "dataset_card")


def _holds_documents(folder: Path) -> bool:
    """Whether notes lie beside the data: then a file of questions among them does not make it a data set."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in _DOCUMENTS and not name.lower().startswith((".", *_ABOUT)):
                return True
    return False


def _format_of(record: Record) -> str | None:
    fields = record.data.keys()
    if {"question", "paragraphs"} <= fields:
        return "musique"
    if {"question", "context"} <= fields:
        return "2wiki" if "evidences" in fields else "hotpot"
    if {"question", "golden_answers"} <= fields:
        return "flashrag"
    if {"id", "question", "answers"} <= fields:
        return "jade"
    if "question" in fields and not fields.isdisjoint(ANSWERS):
        return "open"
    return None


def _load_path(path: Path, split: str | None, format: str | None) -> Dataset:
    if format is not None and format not in FORMATS:
        raise unknown("data set format", format, FORMATS, code="UNKNOWN_DATASET_FORMAT")
    name = path.resolve().name
    found = format or detect_format(path)
    if found == "beir":
        return read_beir(path, name, split or "test")
    if found == "jade" and path.is_dir():
        if split is not None:
            raise DataError(f"{name!r} has no splits, and so no {split!r}.", code="DATASET_SPLIT")
        return read_jade(path, _part_name(path) or name)
    if path.is_dir() and not is_saved(path):
        path = _split_file(path, split)
        found = format or detect_format(path)
        name = f"{name}/{_stem(path)}"
    elif split is not None:
        raise DataError(f"{name!r} is one file, without a split {split!r}.", code="DATASET_SPLIT")
    if found is None:
        # A damaged or empty file says so itself; else its fields fit no format.
        if first_record(path) is None:
            raise DataError(f"{path.name!r} holds no record.", code="DATASET_EMPTY")
        raise DataError(
            f"{path.name!r} is in no known format.",
            code="DATASET_FORMAT",
            known=FORMATS,
            hint='{"id": "1", "question": "..", "answers": [".."]} on each line, or --format NAME',
        )
    return FORMATS[found](path, name)


def _data_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(_FILES))


def _split_file(folder: Path, split: str | None) -> Path:
    files = [folder / name for name in saved_splits(folder)] or _data_files(folder)
    chosen = [f for f in files if split is None or split == _stem(f)]
    if not chosen and split is not None:
        chosen = [f for f in files if split in _stem(f).replace("-", "_").replace(".", "_").split("_")]
    if len(chosen) == 1:
        return chosen[0]
    asked = "has several files" if split is None else f"has no single file for the split {split!r}"
    raise DataError(
        f"{str(folder)!r} {asked}." if files else f"{str(folder)!r} holds no data set.",
        code="DATASET_SPLIT" if files else "DATASET_FORMAT",
        known=[_stem(f) for f in files] or FORMATS,
        hint="--split NAME" if files else "jade index PATH --corpus NAME, for a folder of documents",
    )


def _part_name(folder: Path) -> str | None:
    """The name of a part that `jade split` wrote; None for any other folder."""
    try:
        about = json.loads((folder / "manifest.json").read_text("utf-8"))
        return f"{about['dataset']}-{about['part']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".gz", ".jsonl", ".json", *SUFFIXES):
        name = name.removesuffix(suffix)
    return name
