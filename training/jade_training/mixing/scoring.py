"""What a merge is scored by: F1 by kind of question on data sets, and the loss of held-out demonstrations by role.

Invariant: every merge answers the same questions, greedily, and reads the same demonstrations; a capability's name says
where it comes from, and larger is better (a loss is told with its sign turned).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jade_graph.backbones.codec import Codec
from jade_graph.backbones.hf import HFBackbone
from jade_graph.errors import UsageError
from jade_graph.microworld.shown import Shown
from jade_graph.scoring.evaluation import evaluate
from jade_graph.sync import run_sync
from jade_graph.types import Question, Retriever, Sampling
from jade_graph.workflow.engine import Engine
from jade_training.supervised import files
from jade_training.supervised.batches import held_out_loss

if TYPE_CHECKING:
    from jade_graph.scoring.evaluation import Row


class Asked(Protocol):
    """A data set that merges are asked: its name, its questions, and where to search."""

    @property
    def name(self) -> str: ...
    @property
    def questions(self) -> Sequence[Question]: ...
    @property
    def retriever(self) -> Retriever | None: ...


class Scorer:
    """Scores model folders; see the module.

    Args:
        asked: data sets: a capability "F1 NAME KIND" for each kind of question.
        shown: demonstrations: a capability "ROLE", minus its loss in nats a token.
        preset, k, concurrency: of the runs.

    Raises `UsageError` MIX_SCORE where there is nothing to score by.
    """

    def __init__(
        self,
        asked: Sequence[Asked] = (),
        shown: Sequence[Shown] = (),
        *,
        preset: str = "jade",
        profile: str | None = None,
        k: int = 5,
        concurrency: int = 16,
    ) -> None:
        if not asked and not shown:
            raise UsageError("nothing is named to score merges by.", code="MIX_SCORE", hint="--score dev.jsonl")
        self._asked, self._shown = list(asked), list(shown)
        self._preset, self._profile, self._k, self._concurrency = preset, profile, k, concurrency

    def __call__(self, folder: Path) -> Mapping[str, float]:
        backbone = HFBackbone.load(folder, dtype="float32")
        try:
            return {**self._losses(backbone, folder), **run_sync(self._answers(backbone))}
        finally:
            run_sync(backbone.aclose())

    def _losses(self, backbone: HFBackbone, folder: Path) -> dict[str, float]:
        if not self._shown:
            return {}
        codec = Codec.from_folder(folder, profile=self._profile)
        roles = files.by_role(self._shown)
        by_role = {role: files.pairs(codec, [s for s in self._shown if s.role == role]) for role in roles}
        found = held_out_loss(backbone.model, by_role, bf16=False)
        return {name.removeprefix("held_out "): -value for name, value in found.items()}

    async def _answers(self, backbone: HFBackbone) -> dict[str, float]:
        out: dict[str, float] = {}
        for data in self._asked:
            engine = Engine(
                backbone, preset=self._preset, retriever=data.retriever, k=self._k, sampling=Sampling(temperature=0.0)
            )
            rows: Sequence[Row] = await evaluate(engine, data.questions, concurrency=self._concurrency)
            kinds: dict[str, list[float]] = {}
            for row in rows:
                if row.f1 is not None:
                    kinds.setdefault(row.type or "all", []).append(row.f1)
            out |= {f"F1 {data.name} {kind}": math.fsum(v) / len(v) for kind, v in sorted(kinds.items())}
        return out

    def facts(self) -> dict[str, Any]:
        """What decides the scores: recorded, and compared when a search is taken up again."""
        import hashlib

        told = repr([(s.question_id, s.role, s.messages, s.action) for s in self._shown])
        return {
            "asked": {a.name: [q.id for q in a.questions] for a in self._asked},
            "shown": hashlib.sha256(told.encode()).hexdigest()[:16] if self._shown else None,
            "preset": self._preset,
            "k": self._k,
        }


__all__ = ["Asked", "Scorer"]
