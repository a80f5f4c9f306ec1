"""What compression came to: length against accuracy, and how pieces were weighed.

Invariant: it reads what learning runs and rollouts left and changes nothing; figures that were not measured are None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jade_graph.errors import DataError
from jade_graph.scoring.compression import figures, length_of
from jade_graph.scoring.metrics import token_f1
from jade_graph.types import Run

STATE = "improve.json"
BANDS = 4


def is_learning(folder: Path) -> bool:
    return (folder / STATE).is_file()


def of_learning(folder: Path) -> dict[str, Any]:
    """A learning run: `points`, its evaluations as length against accuracy, and the last rollout's figures.

    Raises `DataError` REPORT_FOLDER for a folder whose state cannot be read, or of a run that compressed nothing.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        spec = state["facts"]["settings"].get("compress")
        history, evaluations = state["history"], state["evaluations"]
        points = [
            {"iteration": int(i), "f1": e["f1"], "f1_ci95": e.get("f1_ci95"), "tokens": e.get("text_tokens")}
            for i, e in sorted(evaluations.items(), key=lambda item: int(item[0]))
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{str(folder)!r} holds no learning run that can be read: {type(error).__name__}: {error}",
            code="REPORT_FOLDER",
            hint="the --out folder of jade improve",
        ) from error
    if spec is None:
        raise DataError(
            f"the learning run in {str(folder)!r} compressed nothing.",
            code="REPORT_FOLDER",
            hint="jade improve --compress scma",
        )
    told = [h["compression"] for h in history if isinstance(h.get("compression"), Mapping)]
    return {"name": folder.name, "compress": spec, "points": points, "last": told[-1] if told else None}


def of_runs(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Recorded runs that were judged: figures, and F1 by length in four bands of as many runs.

    Raises `DataError` REPORT_RUNS where none was judged.
    """
    own = [run for run in runs if "compression" in run.metadata]
    if not own:
        raise DataError(
            f"none of the {len(runs)} runs of {name!r} was judged.",
            code="REPORT_RUNS",
            hint="rollouts of jade improve --compress are: jade report compression FOLDER",
        )
    scored = sorted(((length_of(run), f1) for run in own if (f1 := _f1(run)) is not None), key=lambda pair: pair[0])
    n = len(scored)
    parts = [scored[n * i // BANDS : n * (i + 1) // BANDS] for i in range(BANDS)]
    bands = [
        {
            "from": part[0][0],
            "to": part[-1][0],
            "runs": len(part),
            "f1": math.fsum(f1 for _, f1 in part) / len(part),
        }
        for part in parts
        if part
    ]
    return {"name": name, "figures": figures(own), "bands": bands}


def _f1(run: Run) -> float | None:
    golds = run.metadata.get("answers")
    return token_f1(run.answer, golds) if isinstance(golds, list | tuple) else None
