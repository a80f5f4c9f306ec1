"""What a side of a comparison can be: a method with a version, a method, a registered version, a saved evaluation.

Invariant: one text names a side, the same in the address and in the list, and is read in that order. Two registered
versions are compared by the answers that their promotion was decided on, as `jade diff` does, where the log has them;
else by their runs in the store.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jade_graph.errors import DataError, JadeError
from jade_graph.studio import files
from jade_graph.studio.comparison import Comparison, by_question, compare, from_index
from jade_graph.studio.index import Filter
from jade_graph.studio.registered import described

if TYPE_CHECKING:
    from jade_graph.registry.versions import ModelVersion
    from jade_graph.scoring.evaluation import Row
    from jade_graph.studio.shared import Studio

_MOST = 20_000


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its text, and what it turned out to be. All None and False: the path of a file."""

    text: str
    arm: Filter | None = None
    version: ModelVersion | None = None


def choices(studio: Studio) -> dict[str, str]:
    """What can be chosen, by its text: methods with versions, then methods, then registered versions."""
    arms = studio.index.arms()
    out = {key: f"{label}  ({n:,} runs)" for key, label, n in arms}
    presets: dict[str, int] = {}
    for key, _, n in arms:
        preset = key.partition(" @ ")[0]
        presets[preset] = presets.get(preset, 0) + n
    if len(presets) > 1:
        out |= {name: f"{name}, any version  ({n:,} runs)" for name, n in presets.items()}
    return out | described(studio.registered.read())


def side(studio: Studio, text: str) -> Side:
    """Find out what a text names."""
    preset, mark, version = text.partition(" @ ")
    if mark:
        return Side(text, Filter(preset=preset, version=version))
    if text in {key.partition(" @ ")[0] for key, _, _ in studio.index.arms()}:
        return Side(text, Filter(preset=text))
    return Side(text, version=studio.registered.read().find(text))


def compared(studio: Studio, a: str, b: str, named: Collection[str] = ()) -> tuple[Comparison | None, str]:
    """B against A with a line on where the answers come from; None where the two have no question in common.

    Args:
        named: files that a person named on the page: no others are opened.

    Raises:
        DataError: EVAL_FILE for a file that is none; STUDIO_UNNAMED for one that stands in the address alone,
            STUDIO_FILE for one that is not read; VERSION_NO_RUNS for a version that has not answered anything.
        RegistryError: VERSION_UNKNOWN, or the log's evidence cannot be read.
    """
    one, other = side(studio, a), side(studio, b)
    if one.version and other.version and one.version.number != other.version.number:
        from jade_graph.gate.diff import logged

        trial = logged(studio.registered.registry, one.version, other.version)
        if trial is not None:
            first, second = (by_question(trial.rows[v.number]) for v in (one.version, other.version))
            of = f" ({trial.dataset})" if trial.dataset else ""
            return compare(first, second, _texts(studio)), f"The answers are those of their promotion{of}."
    texts: dict[str, str] = {}
    before, after = _rows(studio, one, texts, named), _rows(studio, other, texts, named)
    found = compare(before, after, texts)
    kinds = "the run store" if one.arm or one.version or other.arm or other.version else "the files"
    return found, f"The answers are those in {kinds}."


def _rows(studio: Studio, each: Side, texts: dict[str, str], named: Collection[str]) -> dict[str, Row]:
    from jade_graph.scoring.keeping import load_rows

    if each.arm is not None:
        wanted = [each.arm]
    elif each.version is not None:
        mine = each.version.hashes
        recorded = [v for v in studio.index.choices()["version"] if v.rpartition("@")[2] in mine]
        wanted = [Filter(version=v) for v in recorded]
        if not wanted:
            raise DataError(
                f"version {each.version.number} has no run in this store, and no promotion compared the two.",
                code="VERSION_NO_RUNS",
                hint=f"jade rollout microworld:test --backbone {each.version.uri}, or jade diff, which asks both",
            )
    else:
        path = Path(each.text)
        if each.text not in named:
            if _may_be_version(each.text):
                studio.registered.registry.get(each.text)  # says which versions there are
            raise DataError(
                f"{each.text!r} may be a file, and no file is opened because an address names it.",
                code="STUDIO_UNNAMED",
                hint="the button below",
            )
        try:
            file = files.require(path, studio.roots)
        except DataError:
            if _may_be_version(each.text):
                studio.registered.registry.get(each.text)
            raise
        return by_question(load_rows(file)[0])
    rows = [row for where in wanted for row in studio.index.page(where, limit=_MOST)]
    rows.sort(key=lambda row: -row["started_at"])
    found, known = from_index(r for r in rows if r["status"] != "running" and not r["parent"])
    texts.update(known)
    return found


def _may_be_version(text: str) -> bool:
    from jade_graph.registry.versions import Reference

    try:
        return bool(Reference.parse(text))
    except JadeError:
        return False


def _texts(studio: Studio) -> dict[str, str]:
    """Questions by id, as far as the store has asked them."""
    return {r["question_id"]: r["question"] for r in studio.index.page(Filter(), limit=_MOST) if r["question_id"]}


__all__ = ["Side", "choices", "compared", "side"]
