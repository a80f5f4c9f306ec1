"""Rewards: what a recorded run is worth, term by term.

Invariant: pure functions of a run and its question. Each term stays on its own, weighted and signed; what cannot be
scored is None, "unscored", and never 0; a reward that fails is an error that names the run and the term.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, get_args

from jade_graph import plugins
from jade_graph.errors import PluginError, UsageError
from jade_graph.scoring.metrics import exact_match, is_yes_no, token_f1
from jade_graph.types import Preset, Question, Run, Transition
from jade_graph.workflow.approval import REPLACED

RunReward = Callable[[Run, Question], float | None]
"""Scores a whole run; None: it cannot be scored. Entry points of the group "jade.rewards" are of this type."""

GROUP = "jade.rewards"
COSTS = ("turn_cost", "retrieval_cost", "call_cost", "token_cost")
FORMAT = "format"
MOST = 3
"""Turns and retrievals count up to this many (JADE, arXiv 2601.21916: costs are normalised by a maximum of 3)."""

CostForm = Literal["paper", "code"]


# --- performance ------------------------------------------------------------------------------------------------------
def f1(run: Run, question: Question) -> float | None:
    """Token F1 of the final answer, its best over the gold answers (JADE, arXiv 2601.21916); in [0, 1]."""
    return token_f1(run.answer, question.answers)


def em(run: Run, question: Question) -> float | None:
    """Exact match of the final answer with a gold answer, after normalisation: 0 or 1."""
    return exact_match(run.answer, question.answers)


def f1_yes_no(run: Run, question: Question) -> float | None:
    """Exact match where the gold answer is yes or no, however it is written, else token F1 (JADE's published code).

    `metrics.token_f1` matches yes and no exactly too, so that `f1` gives the same figures; this one says it.
    """
    return (em if is_yes_no(question.answers) else f1)(run, question)


# --- what a run is worth ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class RewardSpec:
    """Which terms make up the reward, and their weights. A term whose weight is 0 is left out.

    Args:
        outcome: a name of "jade.rewards": the performance term.
        alpha: turn cost. "paper": `alpha * min(rounds, 3) / 3`; "code": `alpha * min(rounds - 1, 3) / 3`.
        beta: retrieval cost: `beta * min(retrievals, 3) / 3`.
        call_cost: per language-model call of the run, without a cap.
        token_cost: per 1,000 prompt and action tokens, without a cap.
        cost_form: of the turn cost: the paper's, or the published code's, in which the first turn is free.
        penalties: what an illegal action of a role earns (at most 0), by role code; "*" for the roles not named.
        extra: further names of "jade.rewards" with their weights.

    Raises:
        UsageError: REWARD_SPEC for a weight that is not finite or of the wrong sign, or a term named twice.
    """

    outcome: str = "f1"
    alpha: float = 0.0
    beta: float = 0.0
    call_cost: float = 0.0
    token_cost: float = 0.0
    cost_form: CostForm = "paper"
    penalties: Mapping[str, float] = field(default_factory=lambda: {"*": -1.0})
    extra: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "call_cost", "token_cost"):
            cost = getattr(self, name)
            if not (_finite(cost) and cost >= 0):
                raise _wrong(f"{name} is {cost!r}: a cost is a finite number of at least 0, and is subtracted.")
        for role, penalty in self.penalties.items():
            if not (_finite(penalty) and penalty <= 0):
                raise _wrong(f"the penalty of {role!r} is {penalty!r}: a finite number of at most 0 is added.")
        for name, weight in self.extra.items():
            if not _finite(weight):
                raise _wrong(f"the weight of {name!r} is {weight!r}, no finite number.")
            if name == self.outcome:
                raise _wrong(f"{name!r} is the outcome and an extra term: it would count twice under one name.")
        for name in (self.outcome, *self.extra):
            if name in (*COSTS, FORMAT):
                raise _wrong(f"{name!r} is the name of a cost or penalty: no reward can be stored under it.")
        if self.cost_form not in get_args(CostForm):
            raise _wrong(f"the cost form {self.cost_form!r} does not exist.", known=get_args(CostForm))

    @classmethod
    def of_preset(cls, preset: Preset, **overrides: Any) -> RewardSpec:
        """The preset's alpha, beta and penalties; `overrides` are fields of this class."""
        own = {"alpha": preset.alpha, "beta": preset.beta, "penalties": dict(preset.penalties)}
        return cls(**{**own, **overrides})

    def penalty(self, role: str) -> float:
        """What an illegal action of this role earns: its own penalty, else that of "*", else 0."""
        return float(self.penalties.get(role, self.penalties.get("*", 0.0)))


@dataclass(frozen=True, slots=True)
class Scored:
    """What a run earned.

    `outcome`: run-level terms, weighted and signed (costs negative), the performance term first; None: unscored.
    `actions`: local terms, `{"format": -1.0}` or `{}`, aligned with `run.transitions`. Only rows that learn have any.
    `answers`: what the performance term says of every answer that an action predicted on the way, by `seq`.
    """

    run_id: str
    outcome: Mapping[str, float] | None
    actions: tuple[Mapping[str, float], ...]
    answers: Mapping[int, float] = field(default_factory=dict)

    @property
    def outcome_total(self) -> float | None:
        """Sum of the run-level terms."""
        return None if self.outcome is None else math.fsum(self.outcome.values())

    @property
    def total(self) -> float | None:
        """Sum of all terms, each counted once: run-level ones and those of single actions."""
        if self.outcome is None:
            return None
        return math.fsum([*self.outcome.values(), *(v for terms in self.actions for v in terms.values())])


def score_run(
    run: Run, question: Question, spec: RewardSpec, *, rewards: Mapping[str, RunReward] | None = None
) -> Scored:
    """Score one run; nothing is run again.

    `rewards` are functions of your own by the names that `spec` gives them; the others are found by entry point.

    A failed run scores what its (empty) answer scores. A run that has not ended, whose plan a person replaced, or
    that any named reward cannot score (no gold answers, say), is unscored.

    Raises:
        UsageError: REWARD_QUESTION (the question is not the one that was run), UNKNOWN_REWARD.
        PluginError: REWARD_FAILED (a reward raised), REWARD_VALUE (it gave no finite number); both name run and term.
    """
    if run.question_id and question.id and run.question_id != question.id:
        raise UsageError(
            f"run {run.id!r} answers the question {run.question_id!r}, not {question.id!r}.", code="REWARD_QUESTION"
        )
    outcome = _outcome(run, question, spec, rewards or {})
    answers = {} if outcome is None else _predicted(run, question, spec, rewards or {})
    return Scored(run.id, outcome, tuple(_local(t, spec) for t in run.transitions), answers)


def _outcome(
    run: Run, question: Question, spec: RewardSpec, own: Mapping[str, RunReward]
) -> Mapping[str, float] | None:
    if run.status == "running" or run.metadata.get(REPLACED):
        return None
    weights = {spec.outcome: 1.0, **{name: weight for name, weight in spec.extra.items() if weight}}
    terms: dict[str, float] = {}
    # Every reward is asked even where an earlier one is None: one that is broken must not hide behind it.
    found = {name: own[name] if name in own else plugins.load(GROUP, name) for name in weights}
    values = {name: _value(name, reward, run, question) for name, reward in found.items()}
    for name, value in values.items():
        if value is None:
            return None
        terms[name] = weights[name] * value
        if name == spec.outcome:
            terms |= _costs(run, spec)
    return terms


def _predicted(run: Run, question: Question, spec: RewardSpec, own: Mapping[str, RunReward]) -> dict[int, float]:
    """The score that the run would have had with each predicted answer as its own."""
    texts = {t.seq: text for t in run.transitions if (text := t.predicted) is not None}
    reward = own[spec.outcome] if spec.outcome in own else plugins.load(GROUP, spec.outcome)
    by_text = {
        text: _value(spec.outcome, reward, replace(run, answer=text), question)
        for text in dict.fromkeys(texts.values())
    }
    return {seq: score for seq, text in texts.items() if (score := by_text[text]) is not None}


def _costs(run: Run, spec: RewardSpec) -> dict[str, float]:
    c = run.counters
    turns = c.rounds if spec.cost_form == "paper" else max(c.rounds - 1, 0)
    costs = {
        "turn_cost": spec.alpha * min(turns, MOST) / MOST,
        "retrieval_cost": spec.beta * min(c.retrievals, MOST) / MOST,
        "call_cost": spec.call_cost * c.calls,
        "token_cost": spec.token_cost * c.tokens / 1000,
    }
    weights = dict(zip(COSTS, (spec.alpha, spec.beta, spec.call_cost, spec.token_cost), strict=True))
    return {name: 0.0 - cost for name, cost in costs.items() if weights[name]}


def _local(t: Transition, spec: RewardSpec) -> Mapping[str, float]:
    """The penalty of an illegal action, for the offender alone: nobody learns from a frozen role's."""
    penalty = spec.penalty(t.role)
    return {FORMAT: penalty} if t.violation is not None and penalty and t.learns else {}


def _value(name: str, reward: RunReward, run: Run, question: Question) -> float | None:
    try:
        value = reward(run, question)
    except Exception as error:
        raise PluginError(
            f"the reward {name!r} raised {type(error).__name__} for run {run.id!r}: {error}",
            code="REWARD_FAILED",
            hint=f"jade runs show {run.id}",
        ) from error
    if value is None:
        return None
    if not _finite(value):
        raise PluginError(
            f"the reward {name!r} gave {value!r} for run {run.id!r}: a finite number is needed, or None for unscored.",
            code="REWARD_VALUE",
            hint=f"jade runs show {run.id}",
        )
    return float(value)


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _wrong(message: str, known: tuple[str, ...] = ()) -> UsageError:
    return UsageError(message, code="REWARD_SPEC", known=known)
