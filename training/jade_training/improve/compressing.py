"""Compression in a learning run: who judges, who learns of it, what it adds to rewards and metrics.

Invariant: without a `CompressionSpec` nothing of this is touched, and a run is what it was to the last bit. Lengths of
held-out texts are those that the serving graph wrote: nothing judges there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jade_graph.errors import UsageError, unknown
from jade_graph.scoring.compression import CompressionSpec, figures
from jade_graph.scoring.rewards import Scored
from jade_graph.types import Preset, Run
from jade_graph.workflow import judging
from jade_graph.workflow.judged import judged, texts_of

OTHERS = ("reference", "kappa", "degenerate")
"""Fields of a `CompressionSpec` that `--compress-set` takes."""


class Encodes(Protocol):
    def encode_text(self, text: str) -> list[int]: ...


def chosen(
    method: str | None, alpha: float | None, scorer: str | None, texts: Sequence[str] = ()
) -> CompressionSpec | None:
    """What the command line asks for; None: no compression.

    Args:
        texts: KEY=VALUE of `OTHERS`.

    Raises:
        UsageError: COMPRESS_OPTION (an option of a compression that was not asked for, or no KEY=VALUE),
            UNKNOWN_COMPRESSION, UNKNOWN_SCORER. ConfigError: CONFIG_VALUE.
    """
    given: dict[str, Any] = {k: v for k, v in (("alpha", alpha), ("scorer", scorer)) if v is not None}
    for text in texts:
        key, _, value = (part.strip() for part in text.partition("="))
        if key not in OTHERS:
            raise unknown("option of compression", key, OTHERS, code="COMPRESS_OPTION", hint="--compress-set kappa=4")
        given[key] = value if key == "reference" and value == "group" else _number(text, value)
    if method is None:
        if given:
            raise UsageError(
                f"{next(iter(given))} is given and nothing is to be compressed.",
                code="COMPRESS_OPTION",
                hint="--compress scma, or --compress uniform",
            )
        return None
    if method == "uniform" and (unused := {"scorer", "kappa", "degenerate"} & set(given)):
        raise UsageError(
            f"{min(unused)} has no effect on a uniform penalty: it asks nobody.",
            code="COMPRESS_OPTION",
            hint="--compress scma",
        )
    return CompressionSpec(method=method, **given)  # type: ignore[arg-type]


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(
            f"{text!r} is no option of compression with its number.", code="COMPRESS_OPTION", hint="kappa=4"
        ) from None


def checked(spec: CompressionSpec | None, preset: Preset) -> None:
    """Raises `GraphError` GRAPH_COMPRESS for a preset that names no text."""
    if spec is not None:
        judging.checked(spec.how, preset)


def how(spec: CompressionSpec | None) -> str | None:
    """Who judges the runs of a rollout; None: nobody."""
    return None if spec is None else spec.how


def learners(preset: Preset, spec: CompressionSpec | None) -> frozenset[str] | None:
    """Codes of the roles whose rows train; None: all."""
    if preset.trainable is None or spec is None:
        return preset.trainable
    return preset.trainable | spec.trains


def all_learn(preset: Preset, spec: CompressionSpec | None) -> bool:
    """Whether no role is served by the starting weights."""
    return preset.trainable is None and (spec is None or spec.how != "frozen")


def scored(
    spec: CompressionSpec | None, runs: Sequence[Run], scores: Mapping[str, Scored]
) -> tuple[Mapping[str, Scored], dict[str, Any]]:
    """The scores with the compression's terms, and what to log of it, guards included; without one, as they are."""
    if spec is None:
        return scores, {}
    found = spec.scored(runs, scores)
    reference = spec.references(runs)
    penalties = [spec.of(run, reference[run.id]) for run in runs]
    told = figures(runs) | {"penalty": sum(penalties) / len(penalties) if penalties else None}
    told["alpha"] = spec.alpha
    over = sum(spec.weights(text) != text.weights for run in runs for text in judged(run) if text.valid)
    told["over_budget"] = over / max(1, told["texts"])
    return found, {"compression": told}


def length(run: Run, preset: Preset, codec: Encodes) -> int:
    """Tokens of the long texts that a run of the serving graph wrote."""
    return sum(len(codec.encode_text(text)) for _, text in texts_of(run.transitions, preset.compress))
