"""The learner's input: one row per action that a trainable role sampled.

Invariant: a row holds the very ids that the model consumed and produced, and the log-probabilities that they were drawn
with; nothing is tokenised again. Unscored runs, tools, frozen roles and failed actions give no row, and a row that a
learner could not train on exactly is an error, never a silent approximation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jade_graph.errors import DataError
from jade_graph.types import Run, Transition

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored

PLANNER = "PL"


@dataclass(frozen=True, slots=True)
class Row:
    """One action.

    Attributes:
        run_id, question_id, seq: where it comes from; `(run_id, seq)` is unique.
        role: code of the role that acted.
        prompt, action: token ids. A cut action has no end token; otherwise the end token is its last id.
        old_logprobs: log pi_old of each action token (nats), at `temperature`.
        temperature: that the action was sampled at, above 0; training divides the logits by it too.
        rewards: the action's own reward terms.
        outcome: sum of the run's terms, the same for all rows of a run.
        local: sum of `rewards`.
        behaviour: log b - log pi_old of the whole action, b the probability with which it was really drawn: 0 unless
            plans were explored.
        version: of the weights that sampled it.
        weight: on the row's loss.
        plan, draw: what the run's root was planned to do, and which of the question's draws that was: runs with the
            same draw carry out one plan, drawn once (`runs_per_plan` of a rollout).
        plans: whether this is the action that drew the plan.
        valid: whether the action was a legal one; otherwise a fallback stood in for it.
        caused: of a plan, the sum of the own terms of all that carried it out, at its node and below; else 0.
    """

    run_id: str
    question_id: str
    seq: int
    role: str
    prompt: tuple[int, ...]
    action: tuple[int, ...]
    old_logprobs: tuple[float, ...]
    temperature: float = 1.0
    rewards: Mapping[str, float] = field(default_factory=dict)
    outcome: float = 0.0
    local: float = 0.0
    behaviour: float = 0.0
    version: str = ""
    weight: float = 1.0
    plan: str = ""
    draw: str = ""
    plans: bool = False
    valid: bool = True
    caused: float = 0.0

    @property
    def length(self) -> int:
        """Prompt and action, in tokens."""
        return len(self.prompt) + len(self.action)


def rows_of(
    runs: Sequence[Run],
    scored: Mapping[str, Scored],
    *,
    roles: frozenset[str] | None = None,
    version: str | None = None,
) -> list[Row]:
    """The rows of scored runs, ordered by run id and sequence number.

    Args:
        runs: recorded runs, in any order.
        scored: by run id. A run that is not there, or whose outcome is None, is unscored and gives no row.
        roles: only these (None: every trainable role).
        version: the backbone version that every row must have been sampled with (None: any).

    Raises:
        DataError: STALE_VERSION; ROWS_SAMPLING (greedy, nucleus or constrained actions: the log-probabilities are not
            those of the distribution that is trained); ROWS_LOGPROBS (not one finite number for each action token);
            ROWS_NOT_ALIGNED (the score has another number of actions than the run).
    """
    found: list[Row] = []
    for run in runs:
        score = scored.get(run.id)
        if score is None or score.outcome is None:
            continue
        if len(score.actions) != len(run.transitions):
            raise DataError(
                f"run {run.id!r} has {len(run.transitions)} actions and was scored with {len(score.actions)}.",
                code="ROWS_NOT_ALIGNED",
                hint="score the run again",
            )
        outcome = math.fsum(score.outcome.values())
        drew = next((t.seq for t in run.transitions if t.role == PLANNER), None)
        draw = str(run.metadata.get("draw", run.id))
        for t, own in zip(run.transitions, score.actions, strict=True):
            if t.learns and (roles is None or t.role in roles):
                _check(t, version)
                caused = _caused(t, run, score) if t.role == PLANNER else 0.0
                found.append(_row(t, outcome, own, caused, plan=run.plan or "", draw=draw, plans=t.seq == drew))
    return sorted(found, key=lambda r: (r.run_id, r.seq))


def behaviour_of(t: Transition) -> float:
    """log b - log pi_old of an action, from what `sampling` says about exploration.

    With `{"explore": eps, "n_plans": n}` a plan was drawn from pi_old with probability 1 - eps, else uniformly among
    the n legal ones: b = (1 - eps) pi_old + eps / n. An illegal action can only come from pi_old: b = (1 - eps) pi_old.
    """
    explore = float(t.sampling.get("explore") or 0.0)
    if not explore:
        return 0.0
    kept = math.log1p(-explore) if explore < 1 else -math.inf
    if not t.valid:
        return kept
    uniform = math.log(explore) - math.log(int(t.sampling["n_plans"])) - math.fsum(t.old_logprobs)
    high, low = max(kept, uniform), min(kept, uniform)
    return high + math.log1p(math.exp(low - high))


def _caused(plan: Transition, run: Run, score: Scored) -> float:
    """The own terms of what followed a plan at its node and at those below it."""
    at = plan.trace_node
    followed = (
        own
        for t, own in zip(run.transitions, score.actions, strict=True)
        if t.seq > plan.seq and t.judges is None and (t.trace_node == at or t.trace_node.startswith(f"{at}."))
    )
    return math.fsum(term for own in followed for term in own.values())


def _row(
    t: Transition, outcome: float, own: Mapping[str, float], caused: float, *, plan: str, draw: str, plans: bool
) -> Row:
    return Row(
        run_id=t.run_id,
        question_id=t.question_id,
        seq=t.seq,
        role=t.role,
        prompt=tuple(t.prompt_token_ids),
        action=tuple(t.action_token_ids),
        old_logprobs=tuple(t.old_logprobs),
        temperature=float(t.sampling.get("temperature", 1.0)),
        rewards=dict(own),
        outcome=outcome,
        local=math.fsum(own.values()),
        behaviour=behaviour_of(t),
        version=t.backbone_version,
        plan=plan,
        draw=draw,
        plans=plans,
        valid=t.valid,
        caused=caused,
    )


def _check(t: Transition, version: str | None) -> None:
    where = f"action {t.seq} ({t.role}) of run {t.run_id!r}"
    if version is not None and t.backbone_version != version:
        raise DataError(
            f"{where} was sampled by version {t.backbone_version!r}, and {version!r} is trained.",
            code="STALE_VERSION",
            known=[version],
            hint="roll out again with the current weights",
        )
    s = t.sampling
    temperature, top_p = float(s.get("temperature", 1.0)), float(s.get("top_p", 1.0))
    wrong = None
    if not temperature > 0:
        wrong = "is greedy"
    elif top_p < 1:
        wrong = f"was drawn with top_p {top_p:g}"
    elif s.get("constrained"):
        wrong = "was drawn from a constrained distribution"
    if wrong:
        raise DataError(
            f"{where} {wrong}: it cannot train.", code="ROWS_SAMPLING", hint="temperature 1, top_p 1, unconstrained"
        )
    if len(t.old_logprobs) != len(t.action_token_ids) or not all(map(math.isfinite, t.old_logprobs)):
        raise DataError(
            f"{where} has {len(t.action_token_ids)} tokens and no finite log-probability for each.",
            code="ROWS_LOGPROBS",
            hint="a backbone that reports log-probabilities",
        )
