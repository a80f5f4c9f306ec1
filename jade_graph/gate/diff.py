"""What changed between two versions: weights, behaviour, figures.

Invariant: plain values that any page can show; every comparison of answers is paired on the question, and every answer
that turned right or wrong names its two runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.backbones.folders import weight_files
from jade_graph.registry.registry import Registry
from jade_graph.registry.versions import ModelVersion
from jade_graph.scoring.evaluation import FIGURES, Row, in_pairs, plan_shares
from jade_graph.scoring.stats import mean_ci, paired_ci

if TYPE_CHECKING:
    from jade_graph.gate.trial import Trial

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class LayerDrift:
    """How far a group of tensors moved: |b - a| / |a| (Frobenius norms over all of them); `parameters` in it."""

    name: str
    drift: float
    parameters: int


@dataclass(frozen=True, slots=True)
class WeightDiff:
    """`drift` over everything, and by layer in order; tensors that only one of the two has, or in another shape."""

    drift: float
    layers: tuple[LayerDrift, ...]
    unmatched: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        return self.drift == 0 and not self.unmatched


@dataclass(frozen=True, slots=True)
class FigureDiff:
    """One figure of both versions with 95 % intervals, and the paired difference b - a with interval and p.

    Where no question was scored by both, the differences are None.
    """

    name: str
    a: float | None
    b: float | None
    a_ci: tuple[float, float] | None
    b_ci: tuple[float, float] | None
    difference: float | None = None
    ci: tuple[float, float] | None = None
    p: float | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """A question whose answer turned right or wrong (exact match), with both answers, plans and run ids."""

    question_id: str
    type: str
    answer_a: str
    answer_b: str
    plan_a: str
    plan_b: str
    f1_a: float | None
    f1_b: float | None
    run_a: str
    run_b: str


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What both did with the same questions.

    Attributes:
        n: questions.
        plans: plan to its share in a and in b, the most frequent first.
        same_plan, same_answer: share of questions with equal root plans, and equal answers (case and blanks apart).
        figures: over all questions; `types`: the metric by type of question.
        turned_right, turned_wrong: in the order of the questions.
    """

    dataset: str
    n: int
    plans: Mapping[str, tuple[float, float]]
    same_plan: float
    same_answer: float
    figures: tuple[FigureDiff, ...]
    types: Mapping[str, FigureDiff]
    turned_right: tuple[Turned, ...]
    turned_wrong: tuple[Turned, ...]


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """Version b against version a. `behaviour` is None where nothing was evaluated.

    `related`: "parent" when b was made from a, "child" when a was made from b, else "".
    """

    a: ModelVersion
    b: ModelVersion
    weights: WeightDiff
    behaviour: Behaviour | None = None
    related: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `console.jsonable` makes the rest plain."""
        return {
            "a": self.a.as_dict(), "b": self.b.as_dict(), "related": self.related,
            "weights": self.weights, "behaviour": self.behaviour,
        }  # fmt: skip


def diff(
    registry: Registry, a: str | int, b: str | int, trial: Trial | None = None, *, metric: str = "f1", seed: int = 0
) -> VersionDiff:
    """Compare two versions.

    Args:
        trial: answers of both to the same questions (`jade_graph.gate.measure`, `load_evidence`, `logged`); None:
            weights only.
        metric: shown by type.

    Raises:
        RegistryError: VERSION_UNKNOWN, VERSION_CORRUPT .. as `Registry.fetch`. UsageError: EVAL_NOT_PAIRED.
    """
    (first, before), (second, after) = registry.fetch(a), registry.fetch(b)
    behaviour = None
    if trial is not None:
        behaviour = compare_rows(
            trial.rows[first.number], trial.rows[second.number], dataset=trial.dataset, metric=metric, seed=seed
        )
    return VersionDiff(first, second, compare_weights(before, after), behaviour, _related(first, second))


def logged(registry: Registry, a: ModelVersion, b: ModelVersion) -> Trial | None:
    """The answers of a promotion of one of the two over the other, where the log has them."""
    from jade_graph.gate.trial import Trial
    from jade_graph.scoring.keeping import load_rows

    for entry in registry.history():
        if {entry.from_version, entry.to_version} == {a.number, b.number} and entry.evidence:
            files = registry.evidence(entry)
            if not {"champion.jsonl", "challenger.jsonl"} <= set(files):
                continue
            rows: dict[int, Sequence[Row]] = {}
            manifests: dict[int, Mapping[str, Any]] = {}
            sides = ((entry.from_version, "champion.jsonl"), (entry.to_version, "challenger.jsonl"))
            for number, name in sides:
                assert number is not None
                rows[number], manifests[number] = load_rows(files[name])
            return Trial(str(manifests[entry.to_version].get("dataset", "")), rows, manifests)
    return None


# --- weights ----------------------------------------------------------------------------------------------------------
def compare_weights(a: Path, b: Path) -> WeightDiff:
    """Relative drift of every layer, one tensor in memory at a time (two Hugging Face folders)."""
    ours, theirs = dict(_names(b)), dict(_names(a))
    sums: dict[str, list[float]] = {}
    unmatched = sorted(ours.keys() ^ theirs.keys())
    for name in sorted(ours.keys() & theirs.keys()):
        old, new = _read(theirs[name], name), _read(ours[name], name)
        if old.shape != new.shape:
            unmatched.append(name)
            continue
        group = sums.setdefault(layer_of(name), [0.0, 0.0, 0.0])
        group[0] += float((new - old).pow(2).sum())
        group[1] += float(old.pow(2).sum())
        group[2] += old.numel()
    layers = tuple(
        LayerDrift(name, _ratio(moved, size), int(count))
        for name, (moved, size, count) in sorted(sums.items(), key=lambda item: _order(item[0]))
    )
    moved, size = (sum(group[i] for group in sums.values()) for i in (0, 1))
    return WeightDiff(_ratio(moved, size), layers, tuple(unmatched))


def layer_of(tensor: str) -> str:
    """ "layer 3", "embedding", "output" or "norm": where a tensor stands in the model."""
    if match := _LAYER.search(tensor):
        return f"layer {match[1]}"
    if "embed" in tensor or "wte" in tensor or "wpe" in tensor:
        return "embedding"
    return "output" if "lm_head" in tensor else "norm" if "norm" in tensor or "ln_f" in tensor else "other"


def _order(name: str) -> tuple[int, int]:
    head, _, number = name.partition(" ")
    return ({"embedding": 0, "layer": 1, "norm": 2, "output": 3}.get(head, 4), int(number or 0))


def _names(folder: Path) -> Iterator[tuple[str, Path]]:
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                yield name, path


def _read(path: Path, name: str) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name).double()


def _ratio(moved: float, size: float) -> float:
    return float((moved / size) ** 0.5) if size else float(moved**0.5)


# --- behaviour --------------------------------------------------------------------------------------------------------
def compare_rows(
    a: Sequence[Row], b: Sequence[Row], *, dataset: str = "", metric: str = "f1", seed: int = 0
) -> Behaviour:
    """What two versions did with the same questions. Raises `UsageError` EVAL_NOT_PAIRED."""
    both = in_pairs(a, b)
    shares = (plan_shares(a), plan_shares(b))
    plans = {
        plan: (shares[0].get(plan, 0.0), shares[1].get(plan, 0.0))
        for plan in sorted({**shares[0], **shares[1]}, key=lambda p: -(shares[0].get(p, 0.0) + shares[1].get(p, 0.0)))
    }
    types = {}
    for kind in sorted({row.type for row in a}):
        types[kind] = _figure(metric, [pair for pair in both if pair[0].type == kind], seed)
    flips = [(x, y) for x, y in both if x.em is not None and y.em is not None and x.em != y.em]
    return Behaviour(
        dataset=dataset,
        n=len(a),
        plans=plans,
        same_plan=sum(x.plan == y.plan for x, y in both) / len(both),
        same_answer=sum(_plain(x.answer) == _plain(y.answer) for x, y in both) / len(both),
        figures=tuple(
            _figure(name, both, seed) for name in FIGURES if any(getattr(row, name) is not None for row in a)
        ),
        types=types,
        turned_right=tuple(_turned(x, y) for x, y in flips if (y.em or 0) > (x.em or 0)),
        turned_wrong=tuple(_turned(x, y) for x, y in flips if (y.em or 0) < (x.em or 0)),
    )


def _figure(name: str, both: Sequence[tuple[Row, Row]], seed: int) -> FigureDiff:
    """One figure over the questions that both were scored on."""
    pairs = [(float(x), float(y)) for m, n in both
             if (x := getattr(m, name)) is not None and (y := getattr(n, name)) is not None]  # fmt: skip
    if not pairs:
        return FigureDiff(name, None, None, None, None)
    before, after = ([pair[i] for pair in pairs] for i in (0, 1))
    first, second, d = mean_ci(before, seed=seed), mean_ci(after, seed=seed), paired_ci(after, before, seed=seed)
    return FigureDiff(
        name, first.mean, second.mean, (first.low, first.high), (second.low, second.high),
        d.difference, (d.low, d.high), d.p,
    )  # fmt: skip


def _turned(a: Row, b: Row) -> Turned:
    return Turned(
        a.question_id, a.type, a.answer, b.answer, a.plan, b.plan, a.f1, b.f1, a.run_id, b.run_id
    )  # fmt: skip


def _plain(answer: str) -> str:
    return " ".join(answer.casefold().split())


def _related(a: ModelVersion, b: ModelVersion) -> str:
    def made_from(child: ModelVersion, parent: ModelVersion) -> bool:
        return bool({p.rpartition("@")[2] for p in child.parents} & parent.hashes)

    return "parent" if made_from(b, a) else "child" if made_from(a, b) else ""
