"""Runs the arms and measures what they came to, resumable at every arm, seed and iteration.

Invariant: an arm's result is a file, written when it is complete; the same call reads it back instead of learning
again. Weights are picked on the development world; the test world is seen once by each picked set of weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jade_graph.backbones.codec import Codec
from jade_graph.backbones.folders import content_version
from jade_graph.backbones.hf import HFBackbone
from jade_graph.errors import ConfigError
from jade_graph.scoring.evaluation import Row, evaluate, plan_shares
from jade_graph.scoring.keeping import load_rows, save_rows
from jade_graph.settings.manifest import manifest
from jade_graph.types import Preset, Sampling
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.parts import limits_of
from jade_training.compare.arms import Arm
from jade_training.improve.figures import evaluation_figures
from jade_training.improve.holding import microworld_replay, replay_of
from jade_training.improve.improver import Data, Improver, Progress, write_whole
from jade_training.improve.settings import ImproveSettings
from jade_training.supervised import files

if TYPE_CHECKING:
    from jade_training.learner.logits import Pair

GROWS = ("seeds", "costs", "call_costs", "sweep_seeds", "once")
"""Settings that say which learning runs there are, not how any of them is made: a folder takes more of them."""
Tell = Callable[[str, Progress | None], None]


@dataclass(frozen=True, slots=True)
class Price:
    """A point of a sweep: what turns ("alpha") or calls ("call_cost") cost, in units of F1."""

    of: Literal["alpha", "call_cost"]
    cost: float

    def named(self, arm: str) -> str:
        """The arm's name under this price."""
        return f"{arm} {'cost' if self.of == 'alpha' else 'call cost'} {self.cost:g}"

    def put(self, settings: ImproveSettings) -> ImproveSettings:
        """The settings of a learning run under this price, and no other."""
        if self.of == "alpha":
            return replace(settings, alpha=self.cost, call_cost=0.0)
        return replace(settings, alpha=None, call_cost=self.cost)


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """What all arms share.

    Attributes:
        seeds: learning runs of each arm.
        improve: of each learning run; its preset and seed are the arm's and the seed's own.
        costs, call_costs: of the sweeps with the joint arm: the paper's turn cost alpha, which counts at most three
            turns, in place of the cost of calls; and the cost of every call. None: no sweep.
        sweep_seeds: how many of the seeds the sweeps take.
        once: arms that learn with the first seed alone, to save time on what decides no claim.
        replay: a file of demonstrations that hold roles which the policy seldom visits; microworld brings its own.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    improve: ImproveSettings = field(default_factory=ImproveSettings)
    costs: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)
    call_costs: tuple[float, ...] = (0.04, 0.06, 0.08)
    sweep_seeds: int = 1
    once: tuple[str, ...] = ()
    replay: str | None = None

    @property
    def prices(self) -> tuple[Price, ...]:
        """All points of both sweeps."""
        found = (
            *(Price("alpha", cost) for cost in self.costs),
            *(Price("call_cost", cost) for cost in self.call_costs),
        )
        return tuple(dict.fromkeys(found))

    def as_dict(self) -> dict[str, Any]:
        told = {**asdict(self), "improve": self.improve.as_dict()}
        if self.replay is None:
            del told["replay"]  # as comparisons that were begun before there was any have it
        return told


@dataclass(slots=True)
class Result:
    """One arm with one seed: figures on the test world, and how it was learned."""

    arm: str
    seed: int
    rows: list[Row]
    figures: dict[str, Any]
    health: dict[str, float]
    history: list[dict[str, Any]]
    evaluations: dict[str, dict[str, Any]]
    gradient_tokens: float
    minutes: float
    best: str
    stopped: str | None = None

    @property
    def trained(self) -> bool:
        return bool(self.history)


class Comparison:
    """All arms over one set of data.

    Args:
        out: folder; arms/NAME/SEED hold the learning runs, results/ what they came to.
        start: Hugging Face folder.
        train, dev, test: questions to learn from, to pick weights with, and to report.

    Raises:
        ConfigError: COMPARE_CHANGED, the folder holds a comparison with other settings.
    """

    def __init__(
        self, out: Path, start: Path, train: Data, dev: Data, test: Data, settings: CompareSettings, tell: Tell
    ) -> None:
        self.out, self.start = out, start
        self.train, self.dev, self.test = train, dev, test
        self.settings, self.tell = settings, tell
        self.version = content_version(start)
        learns_microworld = train.name.startswith("microworld")
        self.replay: list[Pair] = []
        """Demonstrations of the roles that a planner may leave out; a loop calls all of its own."""
        if settings.replay is not None:
            shown, about = files.read(Path(settings.replay))
            self.replay = replay_of(shown, Codec.from_folder(start, profile=about.get("profile")))
        elif learns_microworld:
            self.replay = microworld_replay(Codec.from_folder(start).tokenizer)
        self.facts = {
            "start": self.version, "train": train.name, "dev": dev.name, "test": test.name,
            "settings": {k: v for k, v in settings.as_dict().items() if k not in GROWS},
        }  # fmt: skip
        path = out / "compare.json"
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))["facts"]
            if known != json.loads(json.dumps(self.facts)):
                raise ConfigError(
                    f"{str(out)!r} holds a comparison with other settings.",
                    code="COMPARE_CHANGED",
                    hint="another --out folder, or --fresh to begin again",
                )
        else:
            write_whole(path, json.dumps({"facts": self.facts}, indent=1) + "\n")

    async def run(self, arms: Sequence[Arm]) -> list[Result]:
        """Every arm with every seed; what does not learn is measured once."""
        found: list[Result] = []
        for seed in self.settings.seeds:
            for arm in arms:
                if arm.learns and not (arm.name in self.settings.once and seed != self.settings.seeds[0]):
                    found.append(await self.learned(arm, seed))
                elif not arm.learns and seed == self.settings.seeds[0]:
                    found.append(await self.measured(arm.name, arm.preset, self.start))
        return found

    async def sweep(self, joint: Arm) -> dict[Price, list[Result]]:
        """The joint arm under rising costs."""
        seeds = self.settings.seeds[: self.settings.sweep_seeds]
        return {price: [await self.learned(joint, seed, price) for seed in seeds] for price in self.settings.prices}

    async def learned(self, arm: Arm, seed: int, price: Price | None = None) -> Result:
        """Learn and measure, or read back. `price`: in place of the usual costs."""
        if price is not None:
            arm = replace(arm, name=price.named(arm.name))
        name = result_name(arm.name, seed)
        if (known := self._read(name)) is not None:
            return known
        settings = arm.put(replace(self.settings.improve, seed=seed, preset=arm.preset.name))
        if price is not None:
            settings = price.put(settings)
        began = time.monotonic()
        replay = self.replay if arm.preset.loop is None else []
        improver = Improver(
            self.out / "arms" / name, self.start, self.train, self.dev, settings,
            preset=arm.preset, replay=replay, progress=lambda p: self.tell(f"{arm.name}, seed {seed}", p),
        )  # fmt: skip
        improved = await improver.run()
        minutes = (time.monotonic() - began) / 60
        result = await self._tested(arm.name, seed, arm.preset, improved.best)
        result.history = improved.history
        result.evaluations = {str(k): v for k, v in improved.evaluations.items()}
        result.gradient_tokens = sum(h.get("gradient_tokens", 0.0) for h in improved.history)
        result.minutes = minutes
        result.stopped = improved.stopped.message if improved.stopped else None
        return self._keep(name, result)

    async def measured(self, name: str, preset: Preset, model: Path) -> Result:
        """A model as it is, without learning."""
        slug = _slug(name)
        known = self._read(slug)
        return known if known is not None else self._keep(slug, await self._tested(name, 0, preset, model))

    async def _tested(self, name: str, seed: int, preset: Preset, model: Path) -> Result:
        self.tell(f"{name}: on the test world", None)
        backbone = HFBackbone.load(model, dtype="float32")
        frozen = HFBackbone.load(self.start, dtype="float32") if preset.trainable is not None else None
        graph = Engine(
            backbone,
            preset=preset,
            retriever=self.test.retriever,
            frozen_backbone=frozen,
            k=self.settings.improve.k,
            limits=limits_of(preset, **self.settings.improve.limits),
            sampling=Sampling(temperature=0.0),
        )
        try:
            rows = await evaluate(graph, self.test.questions, concurrency=self.settings.improve.concurrency)
            health = _health(backbone)
        finally:
            await graph.aclose()
        figures = evaluation_figures(rows) | {"plans_by_kind": plans_by_kind(rows)}
        return Result(name, seed, rows, figures, health, [], {}, 0.0, 0.0, str(model.name))

    # --- on disk ------------------------------------------------------------------------------------------------------
    def _keep(self, name: str, result: Result) -> Result:
        folder = self.out / "results"
        facts = manifest(seeds=[result.seed], compare=self.facts, arm=result.arm)
        save_rows(folder / f"{name}.jsonl", result.rows, facts)
        told = {k: v for k, v in asdict(result).items() if k != "rows"}
        write_whole(folder / f"{name}.json", json.dumps(told, indent=1) + "\n")
        return result

    def _read(self, name: str) -> Result | None:
        path = self.out / "results" / f"{name}.json"
        if not path.exists():
            return None
        rows, _ = load_rows(path.with_suffix(".jsonl"))
        return Result(rows=rows, **json.loads(path.read_text(encoding="utf-8")))


def plans_by_kind(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Share of each root plan by kind of question, largest first."""
    return {kind: plan_shares([r for r in rows if r.type == kind]) for kind in sorted({r.type for r in rows})}


def _health(backbone: HFBackbone) -> dict[str, float]:
    """Exact match of each role on a fixed bank of prompts; empty for models that are not of microworld."""
    if backbone.profile != "compact":
        return {}
    from jade_training.pretrain.health import health, health_set

    shown = health_set(split="test", seed=11, sets=20, short=100)
    return {role: value for role, value in health(backbone.model, backbone.tokenizer, shown).items() if " " not in role}


def result_name(arm: str, seed: int) -> str:
    """Of the folder and the result of a learning run."""
    return f"{_slug(arm)}-{seed}"


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-").replace(",", "-").replace("/", "-").replace(".", "_")
