"""Credit: which action of a run earned how much of its reward.

Invariant: pure functions of one recorded run, so that a trace can be credited again under another mode without running
anything. Only the actions of trainable roles carry credit; an unscored run has none at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jade_graph.errors import UsageError, unknown
from jade_graph.scoring.rewards import Scored
from jade_graph.types import Run, Transition

MODES = ("broadcast", "terminal_gae", "turn_delta", "split", "turn", "return_to_go", "final")
TURN_MODES = ("turn", "return_to_go", "final")
"""Of workflows that predict an answer turn by turn (M-ASK, arXiv 2601.04703)."""

Terms = dict[str, float]


def assign(
    run: Run,
    scored: Scored,
    *,
    mode: str,
    gamma: float = 1.0,
    lam: float = 1.0,
    values: Sequence[float] | None = None,
    inherit_penalties: bool = False,
    turn_scores: Mapping[int, float] | None = None,
) -> tuple[Transition, ...]:
    """Copies of the run's transitions, in their order, with credit on every learning row.

    Learning rows i = 1..n in order of `seq`; O is the sum of the run-level terms, l_i the row's own terms, V_i its
    value (0 where `values` is None).

    | mode | reward r_i | return_ (what V is regressed on) | advantage |
    |---|---|---|---|
    | broadcast | O + l_i | r_i | r_i - V_i |
    | terminal_gae | l_i, and O at i = n | A_i + V_i, A the GAE of O alone | A_i + l_i |
    | split | O/n + l_i | r_i | r_i - V_i |
    | turn_delta | M(t) - M(t-1) + l_i, and the costs at i = n | r_i | r_i - V_i |
    | turn, return_to_go, final | `turn_shares`; l_i alone for an illegal row; the costs at i = n | r_i | r_i - V_i |

    In `terminal_gae` V predicts the outcome that is still to come, not the row's own penalty; with `inherit_penalties`
    it predicts both, A is the GAE of all r_i (earlier rows share in later penalties) and is itself the advantage.
    In `turn_delta` every row of a round gets the round's whole change of the answer's score M (M-ASK).

    Rows of roles that judge others (`Transition.judges`) are none of the run's own and stand outside the table: each
    earns the team's O and its own l_i, whatever the mode, as an episode of one step.

    Rows that do not learn, and every row of an unscored run, have empty `rewards` and None. `done` marks the last
    learning row; rows that do not learn keep what was recorded.

    Args:
        gamma, lam: in [0, 1], used by `terminal_gae` alone. Sources: JADE (arXiv 2601.21916); Schulman et al. (2016).
        values: V of each learning row, in order of `seq`; None: zeros, and `value` stays None.
        turn_scores: score of the answer after each round, for `turn_delta`. A round without one leaves the score as it
            was. None: 0 before the last round that has a learning row, the performance term from there on.

    Raises:
        UsageError: UNKNOWN_CREDIT_MODE, CREDIT_OPTION (gamma, lam, values or turn scores), CREDIT_RUN (the score or a
            row is of another run).
    """
    if mode not in MODES:
        raise unknown("credit mode", mode, MODES, code="UNKNOWN_CREDIT_MODE")
    _require_one_run(run, scored)
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not 0.0 <= value <= 1.0:
            raise _wrong(f"{name} is {value!r}, not between 0 and 1.")
    every = sorted((i for i, t in enumerate(run.transitions) if t.learns), key=lambda i: run.transitions[i].seq)
    order = [i for i in every if run.transitions[i].judges is None]
    known = dict(zip(every, _baseline(values, len(every)), strict=True))
    v = [known[i] for i in order]
    rows = [
        replace(t, rewards={}, reward=None, value=None, advantage=None, return_=None)  # what an earlier credit left
        for t in run.transitions
    ]
    if scored.outcome is None:
        return tuple(rows)
    for i in (i for i in every if run.transitions[i].judges is not None):
        own_value = None if values is None else known[i]
        rows[i] = _of_team(
            rows[i],
            scored.outcome,
            scored.actions[i],
            own_value,
            apart=mode == "terminal_gae" and not inherit_penalties,
        )
    if not order:
        return tuple(rows)
    local = [dict(scored.actions[i]) for i in order]
    shares = _shares(mode, run, scored, scored.outcome, order, turn_scores)
    if mode in TURN_MODES:
        name = next(iter(scored.outcome), "outcome")
        shares = [
            {k: x for k, x in share.items() if k != name} if own else share
            for share, own in zip(shares, local, strict=True)
        ]
    placed = [_merged(share, own) for share, own in zip(shares, local, strict=True)]
    rewards = [math.fsum(terms.values()) for terms in placed]
    if mode == "terminal_gae":
        own = [0.0 if inherit_penalties else math.fsum(terms.values()) for terms in local]
        stream = rewards if inherit_penalties else [math.fsum(share.values()) for share in shares]
        ahead = gae(stream, v, gamma, lam)
        returns = [a + b for a, b in zip(ahead, v, strict=True)]
        advantages = [a + o for a, o in zip(ahead, own, strict=True)]
    else:
        returns = rewards
        advantages = [r - b for r, b in zip(rewards, v, strict=True)]
    for k, i in enumerate(order):
        rows[i] = replace(
            rows[i],
            rewards=placed[k],
            reward=rewards[k],
            value=None if values is None else v[k],
            advantage=advantages[k],
            return_=returns[k],
            done=i == order[-1],
        )
    return tuple(rows)


def _of_team(
    row: Transition, outcome: Mapping[str, float], own: Mapping[str, float], value: float | None, *, apart: bool
) -> Transition:
    """A judging row with the team's reward; `apart`: V predicts the outcome alone (see `assign`)."""
    terms = _merged(dict(outcome), dict(own))
    reward, penalties = math.fsum(terms.values()), math.fsum(own.values())
    return replace(
        row,
        rewards=terms,
        reward=reward,
        value=value,
        advantage=reward - (value or 0.0),
        return_=reward - penalties if apart else reward,
        done=True,
    )


def gae(rewards: Sequence[float], values: Sequence[float], gamma: float, lam: float) -> list[float]:
    """Generalised advantage estimates of one finished episode (Schulman et al., 2016, eq. 16).

    A_i = sum over k >= 0 of (gamma * lam)^k * delta_(i+k), delta_i = r_i + gamma * V_(i+1) - V_i, and V is 0 after the
    last row: nothing is bootstrapped beyond the end of the run.
    """
    out, ahead, next_value = [0.0] * len(rewards), 0.0, 0.0
    for i in reversed(range(len(rewards))):
        ahead = rewards[i] + gamma * next_value - values[i] + gamma * lam * ahead
        out[i], next_value = ahead, values[i]
    return out


def turn_deltas(run: Run, performance: float, turn_scores: Mapping[int, float] | None = None) -> dict[int, float]:
    """Change of the answer's score by each round of the run: M(t) - M(t-1), with M = 0 before the first round.

    The deltas telescope to the score after the last round. Source: M-ASK (arXiv 2601.04703), turn-level rewards.
    Arguments and errors as in `assign`; `performance` is M after the last round where there are no `turn_scores`.
    """
    rounds = sorted({t.round for t in run.transitions})
    if turn_scores is None:
        turn_scores = {max((t.round for t in run.transitions if _own(t)), default=0): performance}
    elif strange := sorted(set(turn_scores) - set(rounds)):
        raise _wrong(f"run {run.id!r} has no round {strange[0]!r}.", known=[str(r) for r in rounds])
    before, deltas = 0.0, dict[int, float]()
    for r in rounds:
        after = turn_scores.get(r, before)
        if not math.isfinite(after):
            raise _wrong(f"the score after round {r} of run {run.id!r} is {after!r}, no finite number.")
        deltas[r], before = after - before, after
    return deltas


@dataclass(frozen=True, slots=True)
class Turn:
    """A round of a run: the score of the predicted answer when it began and when it ended."""

    round: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        return self.after - self.before


def turns(run: Run, performance: float, answers: Mapping[int, float]) -> tuple[Turn, ...]:
    """The rounds of a run in order; the first begins at 0. The gains telescope to the score of the last prediction.

    Args:
        performance: the score of the run's own answer.
        answers: the score of every predicted answer, by `seq`. Where nothing was predicted the run's own answer counts
            as that of its last learning action.
    """
    answers = answers or {max((t.seq for t in run.transitions if _own(t)), default=-1): performance}
    out: list[Turn] = []
    score = 0.0
    ordered = sorted(run.transitions, key=lambda t: t.seq)
    for r in dict.fromkeys(sorted(t.round for t in ordered)):
        written = [answers[t.seq] for t in ordered if t.round == r and t.seq in answers]
        out.append(Turn(r, score, written[-1] if written else score))
        score = out[-1].after
    return tuple(out)


def turn_shares(run: Run, performance: float, answers: Mapping[int, float], *, mode: str) -> dict[int, float]:
    """What each action earns of the performance, by `seq`. M is the score of the predicted answer.

    turn: an action that predicts an answer earns M of that answer; any other the gain of its turn, M(t) - M(t-1), which
    is 0 in a turn that predicts none. return_to_go: the same plus the gains of all later turns. final: the score of the
    run's own answer. Source: M-ASK (arXiv 2601.04703), section on turn-level rewards; arguments as in `turns`.
    """
    if mode == "final":
        return {t.seq: performance for t in run.transitions}
    found = {turn.round: turn for turn in turns(run, performance, answers)}
    last = max(found.values(), key=lambda turn: turn.round).after if found else 0.0
    out: dict[int, float] = {}
    for t in run.transitions:
        turn = found[t.round]
        out[t.seq] = answers.get(t.seq, turn.gain) + (last - turn.after if mode == "return_to_go" else 0.0)
    return out


def _own(t: Transition) -> bool:
    """Whether the row learns and is of the run itself, not of what judges it."""
    return t.learns and t.judges is None


def _shares(
    mode: str,
    run: Run,
    scored: Scored,
    outcome: Mapping[str, float],
    order: Sequence[int],
    turn_scores: Mapping[int, float] | None,
) -> list[Terms]:
    """The run-level terms as they fall on the learning rows."""
    n, whole = len(order), dict(outcome)
    if mode == "broadcast":
        return [dict(whole) for _ in order]
    if mode == "split":
        return [{name: value / n for name, value in whole.items()} for _ in order]
    if mode == "terminal_gae":
        return [{} for _ in order[:-1]] + [whole]
    name = next(iter(whole), "outcome")  # `Scored` has the performance term first
    performance = whole.pop(name, 0.0)
    if mode in TURN_MODES:
        earned = turn_shares(run, performance, scored.answers, mode=mode)
        shares = [{name: earned[run.transitions[i].seq]} for i in order]
        shares[-1] |= whole
        return shares
    deltas = turn_deltas(run, performance, turn_scores)
    shares = [{name: deltas[run.transitions[i].round]} for i in order]
    shares[-1] |= whole
    return shares


def _merged(share: Terms, own: Terms) -> Terms:
    return share | {name: share.get(name, 0.0) + value for name, value in own.items()}


def _baseline(values: Sequence[float] | None, n: int) -> list[float]:
    if values is None:
        return [0.0] * n
    found = [float(value) for value in values]
    if len(found) != n:
        raise _wrong(f"{len(found)} values for {n} learning rows.")
    if not all(map(math.isfinite, found)):
        raise _wrong(f"the values hold {next(x for x in found if not math.isfinite(x))!r}, no finite number.")
    return found


def _require_one_run(run: Run, scored: Scored) -> None:
    strange = {scored.run_id, *(t.run_id for t in run.transitions)} - {run.id}
    if strange:
        raise UsageError(f"run {run.id!r} would be credited with what is of run {min(strange)!r}.", code="CREDIT_RUN")
    if len(scored.actions) != len(run.transitions):
        raise UsageError(
            f"run {run.id!r} has {len(run.transitions)} actions and was scored with {len(scored.actions)}.",
            code="CREDIT_RUN",
            hint="score the run again",
        )
    seen = {t.seq for t in run.transitions}
    if len(seen) < len(run.transitions):
        raise UsageError(f"run {run.id!r} has two actions of one number, or two attempts.", code="CREDIT_RUN")


def _wrong(message: str, known: Sequence[str] = ()) -> UsageError:
    return UsageError(message, code="CREDIT_OPTION", known=known)
