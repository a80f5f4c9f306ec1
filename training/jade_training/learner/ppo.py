"""PPO in one file: every hyper-parameter, and the losses as pure functions of tensors.

Invariant: no function here knows a model, a row or a file. Losses are sums over tokens (or rows) under weights that
were normalised over the whole mini-batch, so splitting it into micro-batches changes nothing.

Notation: pi the policy being trained, pi_old the one that sampled, pi_ref the reference, b the distribution that an
action was really drawn from (pi_old, but for explored plans), A the advantage, r = pi / pi_old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jade_graph.errors import ConfigError, unknown
from jade_graph.scoring.credit import MODES

if TYPE_CHECKING:
    from torch import Tensor

NOT_NEGATIVE = (
    "plan_coef", "plan_mass", "plan_shrinkage", "warmup", "weight_decay", "value_coef", "kl_coef", "replay_coef",
    "bank_kl_coef",
)  # fmt: skip
Estimator = Literal["gae", "rloo", "grpo", "tree"]
Whitening = Literal["none", "batch", "per_role"]
KLEstimator = Literal["k1", "k2", "k3"]
Ratio = Literal["token", "sequence"]
Normalisation = Literal["row", "token"]


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021) instead of full weights; then the reference is the model without them.

    Attributes:
        rank: of the update; 8-64.
        alpha: the update is scaled by alpha / rank.
        targets: names of the linear modules; None: all of them but the head.
    """

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raises `ConfigError` CONFIG_VALUE."""
        for name in ("rank", "alpha"):
            if getattr(self, name) < 1:
                raise _wrong(f"lora.{name}", getattr(self, name), "1 or more")


@dataclass(frozen=True, slots=True)
class PPOConfig:
    """All that decides an update. Defaults suit the bundled model of a million parameters; the paper's are in brackets.

    Attributes:
        estimator: how advantages are made: "gae" from values (Schulman et al. 2016), "rloo" and "grpo" from the other
            runs of the same question (they need several, and no value head), "tree" from those that part at the action:
            plans are compared with plans, and what carries out a plan with other runs of it.
        plan_temperature: not None: the planner's actions give no rows; it learns from comparing the plans tried for a
            prompt instead, and this is eta of `jade_training.learner.planwise`, in units of reward.
        plan_coef, plan_memory, plan_questions: weight of that loss, for how many updates a comparison is remembered,
            and how many a mini-batch.
        plan_mass: weight of the log-probability of all tried plans together in that loss; it keeps plans legal.
        plan_shrinkage: 0: plans are compared by what their own runs came to. Above: by what is expected of them from
            the runs of all remembered questions, and this is the ridge's lambda (`jade_training.learner.outcomes`).
        plan_halflife: updates after which an outcome weighs half as much in that ridge, because the executors have
            learned since (None: all weigh alike).
        plan_noise: share of the prompt's tokens that are replaced by others', drawn anew at each pass, so that the
            planner cannot know the luck of single questions by heart (word dropout: Iyyer et al. 2015).
        credit: which reward each action of a run is given: a mode of `jade_graph.scoring.credit`. Without values (all
            estimators but "gae") only the turn modes tell actions apart, turn by turn: `learner.turnwise`.
        inherit_penalties: whether earlier actions of a run share the format penalties of later ones ("gae" only).
        gamma, lam: discount and GAE's lambda [1, 1]: 1, 1 is the Monte-Carlo return minus the value.
        whitening: advantages to mean 0 and std 1 "per_role" (a role with small advantages learns as fast as others),
            over the "batch" [as published], or "none".
        role_weights: factor on the loss of a role's rows; those not named weigh 1.
        per_run_weighting: every question weighs the same, however many actions its runs took.
        learning_rate: of AdamW [5e-7 for 7B], and `value_learning_rate` [1e-5] of the value head (None: the same).
        schedule: of both: "constant", or "linear" to a tenth over `updates`; `warmup` updates rise to it first.
        updates: planned in all; "linear" needs it.
        betas, weight_decay: of AdamW. Matrices decay, vectors do not.
        epochs: passes over the rows of an update [1].
        minibatches: optimiser steps a pass; `minibatch_rows`, if given, fixes their size instead.
        clip: the ratio r earns nothing outside 1 -+ clip [0.2].
        value_clip: the same for values, around the old value; None: off [0.5].
        value_coef: weight of the value loss ("gae" only).
        kl_coef: weight of KL(pi || pi_ref) on the visited states; 0 needs no reference [0].
        kl_estimator: "k2" and "k3" are losses (k2's gradient is that of the KL, on policy; k3 has less variance). "k1"
            as a loss has no gradient on average, so it is taken from the reward, as in RLHF's PPO.
        entropy_coef: weight of the entropy bonus; one number, or one for each role (others 0) [0].
        ratio: "token" ratios, or one "sequence" ratio for a whole action; one for all or by role (others "token").
        normalisation: "row": each action weighs the same, whatever its length; "token": each token does.
        by_question: mini-batches of whole questions: rows that begin alike are then read together.
        max_grad_norm: gradients are scaled down to this norm.
        target_kl: the update ends when a mini-batch finds KL(pi_old || pi) above it; None: never.
        logprob_tolerance: at the first mini-batch of an update pi is pi_old: log-probabilities that differ from the
            recorded ones by more (mean, nats) are refused, for temperature or weights are wrong. None: off. With
            `bf16` the rounding of a confident model is about 0.02.
        replay_coef, replay_rows: weight of the negative log-likelihood of demonstrations, and how many a mini-batch.
        bank_kl_coef, bank_rows: weight of KL(pi_ref || pi) on the bank of fixed prompts, and how many a mini-batch.
        bf16: autocast the matrix products to bfloat16; weights, heads and losses stay float32.
        micro_tokens: most tokens, padding included, in one forward pass. Changes speed and memory, nothing else.
        lora: adapters instead of full weights.
        seed: of mini-batches and replay.
    """

    estimator: Estimator = "gae"
    plan_temperature: float | None = None
    plan_coef: float = 1.0
    plan_memory: int = 6
    plan_questions: int = 36
    plan_mass: float = 0.1
    plan_shrinkage: float = 0.0
    plan_halflife: float | None = None
    plan_noise: float = 0.0
    credit: str = "terminal_gae"
    inherit_penalties: bool = False
    gamma: float = 1.0
    lam: float = 1.0
    whitening: Whitening = "per_role"
    role_weights: Mapping[str, float] = field(default_factory=dict)
    per_run_weighting: bool = False
    learning_rate: float = 3e-4
    value_learning_rate: float | None = None
    schedule: Literal["constant", "linear"] = "constant"
    warmup: int = 0
    updates: int | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    epochs: int = 1
    minibatches: int = 4
    minibatch_rows: int | None = None
    by_question: bool = False
    clip: float = 0.2
    value_clip: float | None = 0.5
    value_coef: float = 0.5
    kl_coef: float = 0.0
    kl_estimator: KLEstimator = "k2"
    entropy_coef: float | Mapping[str, float] = 0.0
    ratio: Ratio | Mapping[str, Ratio] = "token"
    normalisation: Normalisation = "row"
    max_grad_norm: float = 1.0
    target_kl: float | None = None
    logprob_tolerance: float | None = 0.1
    replay_coef: float = 0.0
    replay_rows: int = 24
    bank_kl_coef: float = 0.0
    bank_rows: int = 24
    bf16: bool = False
    micro_tokens: int = 2048
    lora: Lora | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `ConfigError` CONFIG_VALUE, `UsageError` UNKNOWN_CREDIT_MODE."""
        object.__setattr__(self, "betas", tuple(self.betas))  # JSON brings lists back
        if isinstance(self.lora, Mapping):
            lora = dict(self.lora)
            targets = lora.pop("targets", None)
            object.__setattr__(self, "lora", Lora(**lora, targets=tuple(targets) if targets else None))
        allowed = {
            "estimator": ("gae", "rloo", "grpo", "tree"),
            "whitening": ("none", "batch", "per_role"),
            "kl_estimator": ("k1", "k2", "k3"),
            "normalisation": ("row", "token"),
            "schedule": ("constant", "linear"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(values)}")
        ratios = self.ratio.values() if isinstance(self.ratio, Mapping) else [self.ratio]
        for value in ratios:
            if value not in ("token", "sequence"):
                raise _wrong("ratio", value, "token or sequence")
        for name in (
            "epochs",
            "minibatches",
            "micro_tokens",
            "replay_rows",
            "bank_rows",
            "plan_memory",
            "plan_questions",
        ):
            if getattr(self, name) < 1:
                raise _wrong(name, getattr(self, name), "1 or more")
        for name in ("learning_rate", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise _wrong(name, getattr(self, name), "above 0")
        optional = (
            "plan_temperature",
            "plan_halflife",
            "minibatch_rows",
            "value_learning_rate",
            "value_clip",
            "target_kl",
        )
        for name in optional:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise _wrong(name, getattr(self, name), "above 0, or None")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise _wrong(name, getattr(self, name), "0 or more")
        for role, weight in self.role_weights.items():
            if not weight >= 0:
                raise _wrong(f"role_weights.{role}", weight, "0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise _wrong("betas", self.betas, "from 0 to below 1")
        if self.credit not in MODES:
            raise unknown("credit mode", self.credit, MODES, code="UNKNOWN_CREDIT_MODE")
        for name in ("gamma", "lam", "plan_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(name, getattr(self, name), "from 0 to 1")
        if self.schedule == "linear" and not self.updates:
            raise _wrong("updates", self.updates, "the number of updates planned, for a linear schedule")

    def entropy_of(self, role: str) -> float:
        """The entropy coefficient of a role."""
        found = self.entropy_coef.get(role, 0.0) if isinstance(self.entropy_coef, Mapping) else self.entropy_coef
        return float(found)

    def ratio_of(self, role: str) -> Ratio:
        """Whether a role's ratio is of tokens or of the whole action."""
        return self.ratio.get(role, "token") if isinstance(self.ratio, Mapping) else self.ratio

    def rate(self, update: int) -> float:
        """The factor on the learning rates at an update, counted from 0."""
        up = min(1.0, (update + 1) / (self.warmup + 1))
        down = 1.0 - 0.9 * min(1.0, update / max(1, (self.updates or 1) - 1)) if self.schedule == "linear" else 1.0
        return up * down

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it; `PPOConfig(**...)` reads it back."""
        told = asdict(self)
        if not self.by_question:
            del told["by_question"]  # as learning runs that were begun before there was such a thing have it
        return told


def _wrong(name: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{name} is {value!r}.", code="CONFIG_VALUE", hint=f"{name}: {wanted}")


# --- losses: all tensors float32; N action tokens, R rows ------------------------------------------------------------
def log_ratios(logprobs: Tensor, old: Tensor, rows: Tensor, sequence: Tensor) -> Tensor:
    """log r (N,) of each token; for rows with `sequence` (R,) that of the whole action, at each of its tokens.

    Args:
        logprobs, old: log pi and log pi_old of the action tokens (N,).
        rows: the row (N,) that each token belongs to.
        sequence: which rows (R,) have one ratio.
    """
    import torch

    difference = logprobs - old
    if not bool(sequence.any()):
        return difference
    sums = torch.zeros(len(sequence), device=difference.device).index_add(0, rows, difference)
    return torch.where(sequence[rows], sums[rows], difference)


def clipped_policy_loss(
    log_ratio: Tensor, advantages: Tensor, weights: Tensor, *, clip: float, off_policy: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """-sum_t weight_t * w_t * min(r_t A_t, clip(r_t, 1 -+ clip) A_t)  (Schulman et al. 2017, eq. 7).

    `off_policy` w = pi_old / b corrects for actions drawn from b; the proximal policy of the clipping stays pi_old
    (decoupled objective, Hilton et al. 2021). All are (N,), one number a token.

    Returns:
        the loss, and whether clipping bound each token (N,).
    """
    import torch

    ratio = log_ratio.exp()
    free = ratio * advantages
    held = ratio.clamp(1 - clip, 1 + clip) * advantages
    surrogate = torch.minimum(free, held)
    if off_policy is not None:
        surrogate = surrogate * off_policy
    return -(weights * surrogate).sum(), held < free


def value_loss(values: Tensor, old: Tensor, returns: Tensor, weights: Tensor, *, clip: float | None) -> Tensor:
    """sum_i weight_i * 1/2 max((V - R)^2, (V_clipped - R)^2), V_clipped within `clip` of the old value. All (R,)."""
    import torch

    errors = (values - returns) ** 2
    if clip is not None:
        held = old + (values - old).clamp(-clip, clip)
        errors = torch.maximum(errors, (held - returns) ** 2)
    return 0.5 * (weights * errors).sum()


def kl(logprobs: Tensor, reference: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimates (N,) of KL(pi || pi_ref) at tokens sampled from pi (Schulman 2020, "Approximating KL divergence").

    With d = log pi - log pi_ref: k1 = d; k2 = d^2 / 2; k3 = exp(-d) - 1 + d.
    """
    difference = logprobs - reference
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    return (-difference).exp() - 1 + difference


def entropy(log_distribution: Tensor) -> Tensor:
    """-sum_v p log p (N,) of log-probabilities (N, vocabulary), in nats."""
    return -(log_distribution.exp() * log_distribution).sum(-1)


def full_kl(reference: Tensor, log_distribution: Tensor) -> Tensor:
    """KL(pi_ref || pi) (N,) of two sets of log-probabilities (N, vocabulary): exact, no sampling."""
    return (reference.exp() * (reference - log_distribution)).sum(-1)


def token_weights(
    lengths: Tensor, rows: Tensor, row_weights: Tensor, *, count: int, tokens: int, normalisation: Normalisation
) -> Tensor:
    """Weights (N,) that make a sum over tokens the mean over a mini-batch of `count` rows and `tokens` action tokens.

    "row": mean over rows of the mean over their tokens; "token": mean over all tokens. The mini-batch's own counts are
    used, not the micro-batch's: a mean of means is wrong by a fifth for ragged actions.
    """
    own = row_weights[rows]
    if normalisation == "token":
        return own / tokens
    return own / lengths[rows] / count
