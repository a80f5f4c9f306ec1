"""What decides a learning run, and what it costs to act as it proceeds.

Invariant: two learning runs with equal settings, data and starting weights make the same weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from jade_graph.assembly.models import FEW, SMALL
from jade_graph.errors import ConfigError, unknown
from jade_graph.scoring.compression import CompressionSpec
from jade_graph.scoring.credit import MODES
from jade_graph.scoring.learned import record
from jade_graph.scoring.rewards import RewardSpec
from jade_graph.settings.manifest import cpu_flags
from jade_graph.types import Preset
from jade_training.learner.ppo import Lora, PPOConfig
from jade_training.merging.curves import Window

# Chosen on worlds of the split "validation" (docs/learning.md says how), never on those that are reported.
PPO = PPOConfig(
    estimator="tree",
    learning_rate=6e-4,
    warmup=2,
    schedule="linear",
    updates=25,
    minibatches=6,
    plan_temperature=0.1,
    plan_coef=2.0,
    plan_questions=64,
    plan_memory=20,
    plan_shrinkage=10.0,
    plan_halflife=8.0,
    kl_coef=0.01,
    kl_estimator="k2",
    replay_coef=0.1,
    replay_rows=24,
    target_kl=0.2,
    bf16=any(flag.endswith("_bf16") for flag in cpu_flags()),
)


@dataclass(frozen=True, slots=True)
class ImproveSettings:
    """Everything that decides a learning run beside its data.

    Attributes:
        preset: whose trainable roles learn; the others are served by the starting weights, greedily.
        iterations: updates in all.
        questions, runs_per_question: of each rollout.
        runs_per_plan: runs that carry out each plan drawn for a question, where both planner and executors learn.
        explore: share of runs whose root plan is drawn uniformly, so that a plan that became rare is still tried.
        temperature: of the trainable roles in rollouts, and so of the policy that is trained. Below 1: a plan of many
            calls fails when one of them is drawn badly, and the planner is blamed for it.
        call_cost: what a call of the language model costs, in units of F1; it rises linearly from nothing between the
            iterations `cost_from` and `cost_to` (shares of all), because a plan that takes many calls cannot pay before
            its executors work.
        credit: which action earned how much, a mode of `jade_graph.scoring.credit`; None: the preset's.
        format_penalty: of an illegal action, to its own role; None: the preset's.
        alpha, beta: turn and retrieval cost of the paper; None: the preset's.
        outcome: name of the performance term (`jade.rewards`, or a function of the caller's own).
        extra: further rewards, with their weights.
        evaluate_every: iterations between evaluations; the last is always evaluated.
        seed: of questions, sampling and mini-batches.
        k: passages a retrieval brings.
        concurrency: runs at once; the backbone batches what they ask.
        limits: of a run, by their names, on top of the preset's.
        merge: "DECAY:SIZE": at each evaluation the last SIZE weights are merged by a decay of the rate too, and the
            better of the merge and the last weights counts (`jade_training.merging`); for a rate that is constant.
        compress: make the long texts of the preset's roles shorter (docs/methods/scma.md); None: leave them.
        ppo: of every update. Its seed and number of updates are this run's own.
    """

    preset: str = "jade"
    iterations: int = 25
    questions: int = 24
    runs_per_question: int = 8
    runs_per_plan: int = 2
    explore: float = 0.4
    temperature: float = 0.6
    call_cost: float = 0.02
    cost_from: float = 0.2
    cost_to: float = 0.6
    credit: str | None = None
    format_penalty: float | None = -0.3
    alpha: float | None = None
    beta: float | None = None
    outcome: str = "f1"
    extra: Mapping[str, float] = field(default_factory=dict)
    evaluate_every: int = 5
    seed: int = 0
    k: int = 5
    concurrency: int = 64
    limits: Mapping[str, Any] = field(default_factory=dict)
    merge: str | None = None
    compress: CompressionSpec | None = None
    ppo: PPOConfig = field(default_factory=lambda: PPO)

    def __post_init__(self) -> None:
        """Raises `ConfigError` CONFIG_VALUE, `UsageError` BAD_MERGE, UNKNOWN_DECAY."""
        if isinstance(self.ppo, Mapping):
            object.__setattr__(self, "ppo", PPOConfig(**self.ppo))
        if isinstance(self.compress, Mapping):
            object.__setattr__(self, "compress", CompressionSpec(**self.compress))
        if self.merge is not None:
            Window.parse(self.merge)
        for name in (
            "iterations",
            "questions",
            "runs_per_question",
            "runs_per_plan",
            "evaluate_every",
            "k",
            "concurrency",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"improve: {name} is {getattr(self, name)!r}, below 1.", code="CONFIG_VALUE")
        if self.credit is not None and self.credit not in MODES:
            raise unknown("credit mode", self.credit, MODES, code="UNKNOWN_CREDIT_MODE")
        if self.ppo.estimator != "gae" and self.runs_per_question < 2:
            raise ConfigError(
                f"the estimator {self.ppo.estimator!r} compares runs of one question, and there is one of each.",
                code="CONFIG_VALUE",
                hint="--runs-per-question 4, or the estimator gae",
            )

        if self.ppo.plan_temperature is not None and self.runs_per_question <= self.runs_per_plan > 1:
            raise ConfigError(
                f"{self.runs_per_question} runs of a question carry out one plan: there is none to compare it with.",
                code="CONFIG_VALUE",
                hint="--runs-per-plan 1, or more --runs-per-question",
            )

    def ppo_of(self, preset: Preset) -> PPOConfig:
        """The settings of this preset's updates: its credit, and no comparison of plans where no planner writes any."""
        plans = self.ppo.plan_temperature if writes_plans(preset) else None
        return replace(
            self.ppo,
            seed=self.seed,
            updates=self.iterations,
            credit=self.credit or preset.credit,
            plan_temperature=plans,
        )

    def cost(self, iteration: int) -> float:
        """What a call costs in an iteration."""
        done = iteration / max(1, self.iterations - 1)
        if self.cost_to <= self.cost_from:
            return self.call_cost if done >= self.cost_to else 0.0
        return self.call_cost * min(1.0, max(0.0, (done - self.cost_from) / (self.cost_to - self.cost_from)))

    def rewards(self, preset: Preset, iteration: int) -> RewardSpec:
        """What is paid for in an iteration."""
        given = {
            "alpha": self.alpha,
            "beta": self.beta,
            "penalties": None if self.format_penalty is None else {"*": self.format_penalty},
        }
        return RewardSpec.of_preset(
            preset,
            outcome=self.outcome,
            extra=dict(self.extra),
            call_cost=self.cost(iteration),
            **{k: v for k, v in given.items() if v is not None},
        )

    def paid(self, preset: Preset, iteration: int) -> dict[str, Any]:
        """The same, and for short texts, as it is recorded with the iteration's runs."""
        return record(self.rewards(preset, iteration), self.compress)

    def as_dict(self) -> dict[str, Any]:
        told = {**asdict(self), "ppo": self.ppo.as_dict()}
        if not self.limits:
            del told["limits"]  # as learning runs that were begun before there were any have it
        if self.merge is None:
            del told["merge"]
        if self.compress is None:
            del told["compress"]
        return told


def writes_plans(preset: Preset) -> bool:
    """Whether a planner draws the workflow of a question: not in a loop, and not where the preset fixes it."""
    return preset.loop is None and preset.plan is None


LARGE, PATIENT_S = SMALL, 600.0
"""Parameters from which a CPU reads one run's prompts as slowly as many; seconds that a run then may take."""
_STEPS = {"minibatches": 2, "by_question": True}
"""Of such a model on a CPU: each step brings demonstrations and plans of its own, and reading is what costs."""


def large_here(start: Path) -> bool:
    """Whether a model keeps this machine busy with a few runs: more than some millions of parameters, and no GPU."""
    from jade_graph.backbones.folders import count_parameters
    from jade_graph.backbones.weights import choose_device

    return choose_device(None).type == "cpu" and count_parameters(start) > LARGE


def policy_rate_for(start: Path, lora: bool) -> float:
    """The rate of an update of a model that is not tiny: a quarter of what imitation takes at this size.

    A policy's gradient is noisier than a teacher's, and it starts where imitation ended.
    """
    from jade_graph.backbones.folders import count_parameters
    from jade_training.supervised.sft import learning_rate_for

    return learning_rate_for(count_parameters(start), lora) / 4


def fitted(
    settings: ImproveSettings,
    start: Path,
    *,
    lora: int | None = None,
    limits: Mapping[str, Any] | None = None,
    concurrency: int | None = None,
    learning_rate: float | None = None,
    kept: Collection[str] = (),
) -> ImproveSettings:
    """The settings with what suits the size of the start on this machine, unless it is given here.

    Of a large model fewer runs are made at once, each may take longer, an update takes fewer steps, of whole questions,
    and the learning rate is `policy_rate_for`.

    Args:
        kept: fields of `PPOConfig` that were chosen by the user.
    """
    large, chosen = large_here(start), dict(limits or {})
    ppo = settings.ppo if lora is None else replace(settings.ppo, lora=Lora(lora, 2 * lora))
    if large:
        chosen.setdefault("deadline_s", PATIENT_S)
        rate = policy_rate_for(start, ppo.lora is not None) if learning_rate is None else learning_rate
        steps = {name: value for name, value in _STEPS.items() if name not in kept}
        ppo = replace(ppo, learning_rate=rate, **steps)  # type: ignore[arg-type]
    at_once = concurrency or (FEW if large else settings.concurrency)
    return replace(settings, ppo=ppo, limits=chosen, concurrency=at_once)
