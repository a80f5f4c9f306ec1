"""What `jade register` is given: a model folder, or a learning run, and what is known of where it came from.

Invariant: facts about a model are read from the files that made it, never guessed; what is not there is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jade_graph.backbones.folders import BUNDLED
from jade_graph.backbones.seal import require_sealed
from jade_graph.errors import BackboneError, RegistryError, UsageError

STATE = "improve.json"
RISE = 0.02
"""The most by which illegal actions (per action) may rise above the start's: the gate's default too."""
_FIGURES = ("score", "f1", "em", "calls", "retrievals", "tokens", "illegal_rate", "failed_rate", "routing_bits")


@dataclass(frozen=True, slots=True)
class Source:
    """A folder to register, with its lineage.

    Attributes:
        folder: Hugging Face folder or LoRA adapter.
        facts: what goes into the manifest: "data", "hyperparameters", "seeds", ..
        metrics: figures measured by whoever made it.
        parents: content versions of the models that it was made from.
    """

    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    parents: tuple[str, ...] = ()


def resolve(path: str | Path) -> Source:
    """The model behind a path: a folder, "tiny", or a learning run (the folder of `jade improve`), whose best counts.

    A folder within a learning run (`improved/models/010`) brings the run's facts along.

    Raises:
        BackboneError: BACKBONE_NOT_FOUND. RegistryError: NOTHING_LEARNED. UsageError: RUN_UNREADABLE.
    """
    if str(path) in BUNDLED:
        bundled = BUNDLED[str(path)]
        require_sealed(bundled)
        return Source(bundled, _trained(bundled))
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise BackboneError(
            f"there is no model folder and no learning run {str(path)!r}.",
            code="BACKBONE_NOT_FOUND",
            known=["a Hugging Face folder", "a LoRA adapter", "the --out folder of jade improve", "tiny"],
        )
    if (folder / STATE).is_file():
        state = _state(folder)
        best = best_of(state["evaluations"]) or 0
        if best == 0:
            raise RegistryError(
                f"the learning run {str(folder)!r} has made nothing better than its start.",
                code="NOTHING_LEARNED",
                hint=f"register a folder of {folder / 'models'} to have it all the same",
            )
        return _of_run(folder, state, best)
    run = folder.resolve().parent.parent
    if folder.resolve().parent.name == "models" and (run / STATE).is_file() and folder.resolve().name.isdigit():
        return _of_run(run, _state(run), int(folder.resolve().name))
    return Source(folder, _trained(folder))


def _state(run: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((run / STATE).read_text(encoding="utf-8"))
        return state | {"evaluations": {int(k): v for k, v in state["evaluations"].items()}, "facts": state["facts"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{str(run / STATE)!r} describes no learning run: {type(error).__name__}: {error}",
            code="RUN_UNREADABLE",
            hint="the --out folder of jade improve",
        ) from error


def best_of(evaluations: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The evaluation with the highest score; of equal ones that with fewer illegal actions, fewer calls, the earlier.

    What broke the rules so much more often than the start that the gate would refuse it is left out, where any of what
    was learned did not.

    Args:
        evaluations: figures by iteration; 0 is the start. Those without a score are left out; None where none has one.
    """
    most = evaluations.get(0, {}).get("illegal_rate", 0.0) + RISE

    def worth(i: int) -> tuple[float, float, float, int]:
        e = evaluations[i]
        return e.get("score", e.get("f1")), -e.get("illegal_rate", 0.0), -e.get("calls", 0.0), -i

    scored = [i for i, e in evaluations.items() if e.get("score", e.get("f1")) is not None]
    kept = [i for i in scored if evaluations[i].get("illegal_rate", 0.0) <= most]
    return max(kept if any(kept) else scored, key=worth, default=None)


def _of_run(run: Path, state: Mapping[str, Any], iteration: int) -> Source:
    facts, evaluation = state["facts"], state["evaluations"].get(iteration, {})
    settings = dict(facts.get("settings", {}))
    merged = f"merged {settings.get('merge')}" if evaluation.get("merged") else None
    measured = _manifest(run / "evaluations" / f"{iteration:03d}.jsonl")
    learned = {
        "learning_run": run.resolve().name,
        "iteration": iteration,
        "weights": merged,
        "preset": facts.get("preset"),
        "data": {
            "train": facts.get("train"),
            "selected_on": facts.get("held_out"),
            "corpus_id": measured.get("corpus_id"),
        },
        "hyperparameters": settings,
        "seeds": [settings["seed"]] if "seed" in settings else [],
        "made_with": {key: measured[key] for key in ("jade", "commit", "modified", "time") if key in measured},
    }
    metrics = {name: float(evaluation[name]) for name in _FIGURES if isinstance(evaluation.get(name), int | float)}
    parents = (str(facts["model"]),) if facts.get("model") else ()
    return Source(run / "models" / f"{iteration:03d}", learned, metrics, parents)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return dict(json.loads(file.readline())["manifest"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _trained(folder: Path) -> dict[str, Any]:
    """What `jade microworld pretrain` left beside its model."""
    try:
        trained = json.loads((folder / "figures.json").read_text(encoding="utf-8"))["trained"]
        return {"hyperparameters": dict(trained["settings"]), "seeds": [trained["settings"]["seed"]]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
