"""Where a learning run takes questions, passages and the starting weights from.

Invariant: questions to learn from and to be measured on share no id, and microworlds no entity: a spec of the same
split for both is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.assembly import open_retriever_for
from jade_graph.backbones import folders
from jade_graph.data import load_dataset
from jade_graph.errors import UsageError
from jade_graph.microworld.search import WordSearch
from jade_graph.types import Question
from jade_training.improve.improver import Data
from jade_training.mixing.mixture import Mixture, dataset_of, parts_of

if TYPE_CHECKING:
    from jade_graph.assembly import Progress
    from jade_graph.settings.config import Config
    from jade_training.improve.settings import ImproveSettings

MICROWORLD = "microworld:"


def mixed(train: Data, settings: ImproveSettings, mixture: Mixture) -> tuple[Data, ImproveSettings]:
    """Questions in a mixture's shares; of roles, the weights of their losses instead (1 on average).

    Raises `ConfigError` BAD_MIXTURE.
    """
    if mixture.by == "role":
        weights = {
            role: share * len(mixture.shares) for part, share in mixture.shares.items() for role in parts_of(part)
        }
        return train, replace(settings, ppo=replace(settings.ppo, role_weights=weights))
    value: Callable[[Question], str] = (
        (lambda q: q.type or "") if mixture.by == "type" else (lambda q: dataset_of(q.id))
    )
    drawn = mixture.drawn(train.questions, value, seed=settings.seed)
    shares = ", ".join(f"{name} {share:g}" for name, share in mixture.shares.items())
    return Data(f"{train.name} ({mixture.by}: {shares})", drawn, train.retriever), settings


def data_of(
    config: Config, spec: str, *, limit: int | None = None, split: str | None = None, progress: Progress | None = None
) -> Data:
    """A data set with where to search: its own passages, or the corpus that somebody named.

    Microworlds are searched by words: names decide there, and thousands of passages need no encoder.
    """
    data = load_dataset(spec, limit=limit, split=split)
    if spec.startswith(MICROWORLD) and config.origin("corpus") == "default":
        return Data(data.name, data.questions, WordSearch(data.passages))
    return Data(data.name, data.questions, open_retriever_for(config, data, progress))


def require_apart(train: Data, held_out: Data) -> None:
    """Refuse to measure on what is learned from. Raises `UsageError` NOT_HELD_OUT."""
    both = {q.question for q in train.questions} & {q.question for q in held_out.questions}
    worlds = [d.name.removeprefix(MICROWORLD).partition("?")[0] for d in (train, held_out)]
    alike = all(d.name.startswith(MICROWORLD) for d in (train, held_out)) and worlds[0] == worlds[1]
    if both or alike:
        what = f"both are worlds of the split {worlds[0]!r}" if alike else f"{len(both)} questions are in both"
        raise UsageError(
            f"{held_out.name!r} is not held out from {train.name!r}: {what}.",
            code="NOT_HELD_OUT",
            hint="another file or split" + (", microworld:validation?n=140" if alike else ""),
        )


NEED_ANSWERS = frozenset({"f1", "em", "f1-yes-no"})
"""Outcomes that nothing is known of without gold answers."""


def require_answers(train: Data, held_out: Data, outcome: str) -> list[str]:
    """What to say of questions without gold answers: their runs are unscored, and teach nothing.

    Raises `UsageError` NO_ANSWERS where no question of a set has one and the outcome needs them.
    """
    if outcome not in NEED_ANSWERS:
        return []
    notes: list[str] = []
    for data in (train, held_out):
        without = [q.id for q in data.questions if not q.answers]
        if without and len(without) == len(data.questions):
            raise UsageError(
                f"no question of {data.name!r} has a gold answer, and the outcome {outcome!r} needs them.",
                code="NO_ANSWERS",
                hint='{"id": "1", "question": "..", "answers": [".."]} on each line, or another --outcome',
            )
        if without:
            notes.append(f"{len(without)} of {len(data.questions)} questions of {data.name} have no gold answer "
                         f"and are not scored; the first is {without[0]}.")  # fmt: skip
    return notes


def folder_of(backbone: str) -> Path:
    """The folder of a local model: learning needs its weights. Of registered versions too: `registering.start_of`.

    Raises:
        BackboneError: BACKBONE_NOT_FOUND. UsageError: BACKBONE_NOT_LOCAL.
    """
    scheme, mark, rest = backbone.partition(":")
    if mark and scheme not in ("hf",):
        raise UsageError(
            f"{backbone!r} cannot be trained: its weights are not in this process.",
            code="BACKBONE_NOT_LOCAL",
            hint="a folder or hub id with safetensors, a registered version (models:/..), or tiny",
        )
    found: Any = folders.find_folder(rest if mark else backbone)
    return Path(found)
