"""Real questions in three parts: to learn from, to choose with, to report on.

Invariant: a part's questions are those that the seed says, whatever machine splits them; `train` shares no gold
passage, title or named answer with the other parts, of any data set, and is searched without their gold passages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jade_graph.data import Dataset, load_dataset
from jade_graph.data.splitting import REST, save_dataset, split, together, without_facts_of
from jade_graph.errors import DataError
from jade_graph.settings.manifest import manifest
from jade_training.supervised.teaching import lesson, single

PARTS = (REST, "dev", "test")
SINGLE = "single-hop"


@dataclass(frozen=True, slots=True)
class Source:
    """A data set and what becomes of its questions. `most`: how many of a part are kept, drawn with the seed."""

    folder: str
    shares: Mapping[str, float]
    most: Mapping[str, int]
    single: bool = False


# HotpotQA is share-alike: it is measured on, and nothing that is shipped learns from it.
SOURCES: Mapping[str, Source] = {
    "musique": Source("musique_train100", {"test": 0.3, "dev": 0.1}, {"test": 30, "dev": 10}, single=True),
    "2wiki": Source("2wiki_train500", {"test": 0.2, "dev": 0.1}, {"test": 50, "dev": 25}),
    "hotpot": Source("hotpot_train100", {"test": 0.9}, {"test": 50}),
}
SINGLES = {REST: 200, "dev": 15, "test": 50}


def prepare(data: Path, out: Path, *, seed: int = 0) -> dict[str, Dataset]:
    """The parts, written to `out` once and read back from there afterwards.

    Single-hop questions are MuSiQue's own sub-questions, with the answers that they refer to put in.

    Args:
        data: the folder with the data sets of `SOURCES`.

    Raises:
        DataError: REAL_DATA where a data set is not there; DATASET_...
    """
    if all((out / name / "manifest.json").is_file() for name in PARTS):
        return {name: load_dataset(out / name) for name in PARTS}
    found: dict[str, dict[str, Dataset]] = {name: {} for name in PARTS}
    for name, source in SOURCES.items():
        if not (data / source.folder).is_dir():
            raise DataError(
                f"{str(data)!r} has no {source.folder!r}.",
                code="REAL_DATA",
                known=sorted(s.folder for s in SOURCES.values()),
                hint="the folder that holds them",
            )
        parts = split(load_dataset(data / source.folder), source.shares, seed=seed)
        for part in PARTS:
            if part in parts and not (part == REST and "dev" not in source.shares):
                found[part][name] = parts[part].sample(source.most.get(part), seed)
                if source.single:
                    found[part][SINGLE] = _singles(parts[part], SINGLES[part], seed)
    whole = {name: together(f"real-{name}", sets) for name, sets in found.items()}
    whole[REST] = without_facts_of(whole[REST], [whole[name] for name in PARTS if name != REST])
    for name, joined in whole.items():
        licence = "MuSiQue CC BY 4.0, 2WikiMultihopQA Apache-2.0, HotpotQA CC BY-SA 4.0; passages: Wikipedia, CC BY-SA"
        about = manifest(dataset="real", part=name, seed=seed, dataset_id=joined.dataset_id, licences=licence)
        save_dataset(joined, out / name, manifest=about)
    return {name: load_dataset(out / name) for name in PARTS}


def _singles(dataset: Dataset, most: int, seed: int) -> Dataset:
    lessons = [found for question in dataset.questions if (found := lesson(question))]
    questions = [each.question for each in single(lessons)]
    return Dataset(SINGLE, questions, dataset.passages, format="jade").sample(most, seed)


def counted(parts: Mapping[str, Dataset]) -> dict[str, dict[str, int]]:
    """How many questions of each data set a part has."""
    out: dict[str, dict[str, int]] = {}
    for name, part in parts.items():
        kinds = [question.type for question in part.questions]
        out[name] = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} | {"passages": len(part.passages)}
    return out


__all__ = ["PARTS", "SINGLE", "SOURCES", "counted", "prepare"]
