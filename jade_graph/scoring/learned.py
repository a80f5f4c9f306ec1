"""The reward that a run was learned from, as it is recorded with the run.

Invariant: a run of a learning run is explained by what it earned there, compression included, whatever the preset says
today; a run of something else has no such reward, and nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jade_graph.errors import JadeError
from jade_graph.scoring.compression import CompressionSpec
from jade_graph.scoring.rewards import RewardSpec
from jade_graph.types import Run

REWARD, COMPRESSION = "reward", "compress"
"""In a run's metadata."""


def record(spec: RewardSpec, compression: CompressionSpec | None = None) -> dict[str, Any]:
    """For the metadata of a run that is learned from."""
    told: dict[str, Any] = {REWARD: asdict(spec)}
    return told if compression is None else {**told, COMPRESSION: compression.as_dict()}


def reward_of(run: Run) -> RewardSpec | None:
    """The terms that the run was learned from; None: it was not, or not by this version's terms."""
    found: RewardSpec | None = _made(RewardSpec, run.metadata.get(REWARD))
    return found


def compression_of(run: Run) -> CompressionSpec | None:
    """How the run's texts were made shorter where it was learned from; None: they were not."""
    found: CompressionSpec | None = _made(CompressionSpec, run.metadata.get(COMPRESSION))
    return found


def needs_peers(compression: CompressionSpec | None) -> bool:
    """Whether its term depends on the other runs of the same question."""
    return compression is not None and compression.reference == "group"


def _made(kind: Any, told: Any) -> Any:
    if not isinstance(told, Mapping) or not told:
        return None
    try:
        return kind(**told)
    except (JadeError, TypeError, AttributeError):  # metadata are the caller's: something else may stand there
        return None
