"""Compression: what a run's long texts cost by what of them counts (in the spirit of SCMA, arXiv 2601.21919).

Invariant: pure functions of recorded runs. A text whose pieces all weigh 5 costs nothing, one whose pieces all weigh 1
costs its whole length; a cut that is not lossless, and a text that nobody could weigh, cost nothing.

The paper's penalty was not seen: phi, the reference length and the guards are ours.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from jade_graph.errors import ConfigError, unknown
from jade_graph.scoring.rewards import Scored
from jade_graph.types import Question, Run
from jade_graph.workflow.judged import LEAST, MOST, SCORER, SEGMENTER, How, Judged, judged

TERM, DEGENERATE = "compression", "degenerate"
"""Names of the team's term, and of the scorer's own."""
FEWEST = 4
"""Pieces from which a histogram of weights can be called degenerate."""

Method = Literal["scma", "uniform"]
By = Literal["joint", "frozen", "leave_one_out"]


def phi(weight: float) -> float:
    """The share of its length that a piece of this weight costs: (5 - w) / 4; in [0, 1]."""
    return (MOST - weight) / (MOST - LEAST)


def penalty(weights: Sequence[float], lengths: Sequence[int], reference: float) -> float:
    """sum_i phi(w_i) |s_i| / L_ref; 0 where there is no length to compare with. Lengths and reference in tokens."""
    told = math.fsum(phi(w) * n for w, n in zip(weights, lengths, strict=True))
    return told / reference if reference > 0 else 0.0


def budgeted(weights: Sequence[float], kappa: float) -> tuple[float, ...]:
    """Weights within their budget, sum_i w_i <= kappa n: what is above 1 is scaled down to it, in one proportion.

    Whoever calls everything needed has said nothing, and pays for that. kappa 5: no budget.
    """
    over = math.fsum(w - LEAST for w in weights)
    room = (kappa - LEAST) * len(weights)
    if over <= room:
        return tuple(weights)
    return tuple(LEAST + (w - LEAST) * room / over for w in weights)


def degenerate(weights: Sequence[float]) -> bool:
    """Whether four pieces or more all have the same weight: a histogram of one bar."""
    return len(weights) >= FEWEST and len(set(weights)) == 1


@dataclass(frozen=True, slots=True)
class CompressionSpec:
    """How long texts are made shorter in training.

    Attributes:
        method: "scma": by what of them counts; "uniform": by their length.
        alpha: R = R_outcome - alpha * valid * Pen, for all roles of the run alike.
        scorer: who weighs: "joint" (a role in training), "frozen" (the same role of the starting weights) or
            "leave_one_out" (what following text loses in log-probability without the piece).
        reference: L_ref: "group", the mean length in the runs of the same question, or a number of tokens.
        kappa: the score budget, mean weight; 5: none.
        degenerate: what a scorer pays whose four or more weights are all the same.

    Raises:
        ConfigError: CONFIG_VALUE. UsageError: UNKNOWN_COMPRESSION, UNKNOWN_SCORER.
    """

    method: Method = "scma"
    alpha: float = 0.3
    scorer: By = "joint"
    reference: Literal["group"] | float = "group"
    kappa: float = 4.5
    degenerate: float = 0.05

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise unknown("way to compress", self.method, get_args(Method), code="UNKNOWN_COMPRESSION")
        if self.scorer not in get_args(By):
            raise unknown("scorer", self.scorer, get_args(By), code="UNKNOWN_SCORER")
        reference = 1.0 if self.reference == "group" else self.reference
        wrong = (
            ("alpha", self.alpha, self.alpha >= 0, "a finite number of at least 0"),
            ("degenerate", self.degenerate, self.degenerate >= 0, "a finite number of at least 0"),
            ("kappa", self.kappa, LEAST <= self.kappa <= MOST, "a mean weight, 1 to 5"),
            ("reference", self.reference, not isinstance(reference, str) and reference > 0, '"group" or tokens'),
        )
        for name, value, right, wanted in wrong:
            if not right or (isinstance(value, int | float) and not math.isfinite(value)):
                raise ConfigError(f"compression: {name} is {value!r}: {wanted} is needed.", code="CONFIG_VALUE")

    @property
    def how(self) -> How:
        """Who judges the runs, as the engine names it."""
        return "uniform" if self.method == "uniform" else self.scorer

    @property
    def trains(self) -> frozenset[str]:
        """Codes of the judging roles that learn."""
        known: dict[How, frozenset[str]] = {
            "joint": frozenset({SEGMENTER, SCORER}),
            "frozen": frozenset({SEGMENTER}),
            "leave_one_out": frozenset({SEGMENTER}),
        }
        return known.get(self.how, frozenset())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def weights(self, text: Judged) -> tuple[float, ...]:
        """What the pieces of a valid text weigh, within the budget. Of a uniform penalty all weigh 1."""
        if self.method == "uniform":
            return (float(LEAST),) * len(text.pieces)
        return budgeted(text.weights or (), self.kappa)

    def scored(self, runs: Sequence[Run], scored: Mapping[str, Scored]) -> dict[str, Scored]:
        """The scores with `-alpha * Pen` among the terms of every scored run, and what degenerate scorers pay."""
        reference = self.references(runs)
        found = dict(scored)
        for run in runs:
            score = found.get(run.id)
            if score is None or score.outcome is None:
                continue
            cost = 0.0 - self.alpha * self.of(run, reference[run.id])
            outcome = {**score.outcome, TERM: cost} if self.alpha else score.outcome
            found[run.id] = replace(score, outcome=outcome, actions=self._judges(run, score))
        return found

    def references(self, runs: Sequence[Run]) -> dict[str, float]:
        """L_ref of every run, in tokens, by its id."""
        if self.reference != "group":
            return {run.id: float(self.reference) for run in runs}
        lengths: dict[str, list[int]] = defaultdict(list)
        for run in runs:
            lengths[run.question_id].append(length_of(run))
        return {run.id: math.fsum(own) / len(own) for run in runs if (own := lengths[run.question_id])}

    def of(self, run: Run, reference: float) -> float:
        """Pen of a run: the sum over its valid texts."""
        valid = [text for text in judged(run) if text.valid]
        return math.fsum(penalty(self.weights(text), text.lengths, reference) for text in valid)

    def _judges(self, run: Run, score: Scored) -> tuple[Mapping[str, float], ...]:
        if not self.degenerate or self.how not in ("joint",):
            return score.actions
        flat = {text.seq for text in judged(run) if text.valid and degenerate(text.weights or ())}
        return tuple(
            {**own, DEGENERATE: 0.0 - self.degenerate} if t.role == SCORER and t.judges in flat and t.learns else own
            for t, own in zip(run.transitions, score.actions, strict=True)
        )


def reward(run: Run, question: Question) -> float | None:
    """The reward `compression`: minus Pen of a judged run, its texts' lengths in shares of what the actions could have
    had (L_ref is their limit on tokens). None: the run was not judged."""
    del question
    texts = judged(run)
    if not texts and "compression" not in run.metadata:
        return None
    valid = [text for text in texts if text.valid and text.weights is not None]
    return 0.0 - math.fsum(penalty(text.weights or (), text.lengths, text.limit) for text in valid)


def length_of(run: Run) -> int:
    """Tokens of the run's long texts, judged or not."""
    return sum(text.tokens for text in judged(run))


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """What to log of judged runs; the guards' figures with it.

    `tokens`: of the long texts, a run; `pieces`: of a cut text; `valid`: share of texts; `weight`: mean of all pieces;
    `histogram`: pieces by rounded weight; `same`: share of the weights that are the commonest; `degenerate`: share of
    the texts of four pieces or more that have one weight; `calls`: that judging took, a run; `why`: what was wrong with
    texts, counted.
    """
    texts = [text for run in runs for text in judged(run)]
    weighed = [text for text in texts if text.valid and text.weights is not None]
    weights = [w for text in weighed for w in text.weights or ()]
    bars = Counter(round(w) for w in weights)
    many = [text for text in weighed if len(text.pieces) >= FEWEST]
    flat = sum(degenerate(text.weights or ()) for text in many)
    judges = sum(t.judges is not None for run in runs for t in run.transitions)
    return {
        "runs": len(runs),
        "tokens": sum(map(length_of, runs)) / len(runs) if runs else None,
        "texts": len(texts),
        "valid": len(weighed) / len(texts) if texts else None,
        "pieces": sum(len(text.pieces) for text in weighed) / len(weighed) if weighed else None,
        "weight": math.fsum(weights) / len(weights) if weights else None,
        "histogram": {str(bar): bars.get(bar, 0) for bar in range(LEAST, MOST + 1)},
        "same": max(bars.values()) / len(weights) if weights else None,
        "degenerate": flat / len(many) if many else None,
        "calls": judges / len(runs) if runs else None,
        "why": dict(Counter(text.why for text in texts if text.why).most_common()),
    }
