"""The gate itself: rows of two versions in, a verdict out.

Invariant: pure. The same rows and policy give the same verdict on every machine; a rule that cannot be judged does not
pass silently: it says so. Both versions answered the same questions, and every comparison is paired on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist, fmean, pstdev
from typing import Any

import numpy as np

from jade_graph.errors import UsageError
from jade_graph.gate.policy import Policy
from jade_graph.scoring.evaluation import Row
from jade_graph.scoring.stats import Paired, mean_ci, paired_ci

_FEW = 50  # resamples beyond both ends of an interval


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says.

    Attributes:
        rule: its name in the policy.
        passed: whether the challenger may pass by it.
        told: what was seen, and by how much it is within or beyond the limit.
        todo: what to do about it, when it refuses.
        figures: the numbers.
    """

    rule: str
    passed: bool
    told: str
    todo: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings; it passes when each does. `first`: there was no champion to compare with."""

    findings: tuple[Finding, ...]
    n: int
    metric: str
    first: bool = False

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def summary(self) -> str:
        """One line for the log."""
        wrong = [finding for finding in self.findings if not finding.passed]
        if wrong:
            return "refused: " + "; ".join(f"{finding.rule}: {finding.told}" for finding in wrong)
        return "passed: " + next((f.told for f in self.findings if f.rule in ("gain", "first")), f"{self.n} questions")

    def figures(self) -> dict[str, Any]:
        """By rule; what the promotion log keeps as its evidence."""
        return {"n": self.n, "metric": self.metric, **{f.rule: dict(f.figures) for f in self.findings}}

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed, "first": self.first, "n": self.n, "metric": self.metric, "summary": self.summary,
            "rules": [
                {"rule": f.rule, "passed": f.passed, "told": f.told, "todo": f.todo, "figures": dict(f.figures)}
                for f in self.findings
            ],
        }  # fmt: skip


def judge(
    challenger: Sequence[Row],
    champion: Sequence[Row] | None,
    policy: Policy | None = None,
    *,
    same_machine: bool = True,
    tries: int = 1,
    before: Sequence[Finding] = (),
) -> Verdict:
    """Whether the challenger becomes champion.

    Args:
        challenger, champion: a row per question; None: there is no champion, and only the absolute limits apply.
        same_machine: whether both were measured on one machine; otherwise their latencies say nothing.
        tries: which try against this champion it is, counted from 1; see `level_of`.
        before: findings of whoever calls, such as what the challenger learned from.

    Raises:
        UsageError: EVAL_NOT_PAIRED when the two did not answer the same questions.
    """
    policy = policy or Policy()
    metric = policy.gain.metric
    pairs = _pairs(challenger, champion, metric)
    findings = [*before, _enough(len(pairs), policy)]
    if len(pairs) >= 2 and champion is None:
        findings.append(_first([_score(ours, metric) for ours, _ in pairs], policy))
    elif len(pairs) >= 2:
        findings += [_gain(pairs, policy, tries), _types(pairs, policy)]
    findings += [_illegal(challenger, champion, policy), _failed(challenger, policy)]
    if champion is not None:
        findings.append(_cost(challenger, champion, policy))
    findings.append(_latency(challenger, champion, policy, same_machine))
    return Verdict(tuple(findings), len(pairs), metric, champion is None)


Pairs = Sequence[tuple[Row, Row]]


def _pairs(challenger: Sequence[Row], champion: Sequence[Row] | None, metric: str) -> list[tuple[Row, Row]]:
    """Questions that both were scored on. Without a champion each row is paired with itself."""
    other = {row.question_id: row for row in (challenger if champion is None else champion)}
    if set(other) != {row.question_id for row in challenger} or len(other) != len(challenger):
        raise UsageError(
            "the two versions did not answer the same questions.",
            code="EVAL_NOT_PAIRED",
            hint="evaluate both with the same data set, --limit and --seed",
        )
    both = ((ours, other[ours.question_id]) for ours in challenger)
    return [(a, b) for a, b in both if getattr(a, metric) is not None and getattr(b, metric) is not None]


def _score(row: Row, metric: str) -> float:
    return float(getattr(row, metric))


def _compare(pairs: Pairs, policy: Policy, level: float) -> Paired:
    ours, theirs = zip(*((_score(a, policy.gain.metric), _score(b, policy.gain.metric)) for a, b in pairs), strict=True)
    return paired_ci(ours, theirs, seed=policy.questions.seed, n=policy.gain.resamples, level=level)


def _enough(n: int, policy: Policy) -> Finding:
    least = policy.questions.minimum
    return Finding(
        "questions",
        n >= least,
        f"{n} scored questions" + ("" if n >= least else f", {least - n} fewer than the {least} that decide"),
        f"a data set of {least} questions or more: --dataset, --limit, or [questions] minimum",
        {"n": n, "minimum": least},
    )


def needed(sd: float, effect: float, policy: Policy) -> int | None:
    """Questions that would show a mean gain of `effect` with the policy's power; None where there is none to show.

    None too where the two answered alike (sd 0). By the normal approximation, n = ((z_confidence + z_power) sd /
    effect)^2 with sd that of the paired differences.
    """
    if effect <= 0 or sd == 0:
        return None
    normal = NormalDist()
    z = normal.inv_cdf((1 + policy.gain.confidence) / 2) + normal.inv_cdf(policy.gain.power)
    return max(policy.questions.minimum, math.ceil((z * sd / effect) ** 2))


def level_of(policy: Policy, tries: int) -> float:
    """The confidence that the gain's interval must have at this try against one champion.

    Let alpha = 1 - confidence. An equal version passes the first try with alpha / 2, the tail that lies above. The j-th
    gets alpha / (2 j (j - 1)), and 1/(1 2) + 1/(2 3) + .. = 1: all tries together, however many there are, whenever one
    stops and however much alike the versions are, promote an equal version with at most alpha (the union bound).
    """
    alpha = 1 - policy.gain.confidence
    return 1 - alpha / (1 if tries < 2 or policy.gain.peeking == "ignore" else tries * (tries - 1))


def _gain(pairs: Pairs, policy: Policy, tries: int) -> Finding:
    g = policy.gain
    level = level_of(policy, tries)
    seen = _compare(pairs, policy, level)
    sd = pstdev([_score(a, g.metric) - _score(b, g.metric) for a, b in pairs])
    if (1 - level) * g.resamples < _FEW:  # resamples cannot tell so far out: the normal's tail where it is wider
        reach = NormalDist().inv_cdf((1 + level) / 2) * sd / math.sqrt(len(pairs))
        low, high = min(seen.low, seen.difference - reach), max(seen.high, seen.difference + reach)
        seen = replace(seen, low=low, high=high)
    passed = seen.low > g.least
    interval = f"[{seen.low:+.3f}, {seen.high:+.3f}]"
    told = f"{g.metric} {seen.difference:+.3f} {interval} over {seen.n} questions"
    at_seen, at_worth = needed(sd, seen.difference - g.least, policy), needed(sd, g.worth, policy)
    todo = ""
    if not passed:
        told += f"; it must lie above {g.least:g}, {g.least - seen.low:.3f} are missing"
        if sd == 0:
            todo = "both answer every question alike: train further"
        elif seen.difference - g.least >= g.worth / 2 and at_seen is not None:
            todo = f"a gain of {seen.difference:.3f} would take about {at_seen:,} questions; "
        elif seen.difference <= g.least:
            todo = "no gain was seen: train further; "
        if at_worth is not None:
            todo += f"{at_worth:,} questions would show a gain of {g.worth:g}"
    if tries > 1 and level != g.confidence:
        told += f"; try {tries} against this champion, at {level:.4%} confidence"
    figures = {
        "difference": seen.difference, "ci": [seen.low, seen.high], "confidence": level, "p": seen.p, "tries": tries,
        "sd": sd, "questions_needed": at_seen, "questions_needed_for_worth": at_worth,
        "challenger": fmean(_score(a, g.metric) for a, _ in pairs),
        "champion": fmean(_score(b, g.metric) for _, b in pairs),
    }  # fmt: skip
    return Finding("gain", passed, told, todo, figures)


def _types(pairs: Pairs, policy: Policy) -> Finding:
    """No type is significantly worse: sign-flip tests, Holm's correction over the types that are judged."""
    t, metric = policy.types, policy.gain.metric
    groups: dict[str, list[tuple[Row, Row]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].type, []).append(pair)
    seen = {name: _compare(group, policy, t.confidence) for name, group in sorted(groups.items()) if len(group) > 1}
    judged = sorted((s.p, name) for name, s in seen.items() if s.n >= t.minimum)
    worse: dict[str, float] = {}
    running = 0.0
    for rank, (p, name) in enumerate(judged):
        running = max(running, min(1.0, p * (len(judged) - rank)))
        if running <= 1 - t.confidence and seen[name].difference < 0:
            worse[name] = running
    small = [name for name, group in sorted(groups.items()) if len(group) < t.minimum]
    told = "; ".join(
        f"{name} {seen[name].difference:+.3f} [{seen[name].low:+.3f}, {seen[name].high:+.3f}], corrected p {p:.4f}"
        for name, p in worse.items()
    )
    if not worse:
        told = f"none of {len(judged)} types is significantly worse" if judged else "no type was judged"
        if small:
            told += f"; too small to be judged, with fewer than {t.minimum} questions: {', '.join(small)}"
    figures = {
        name: {"n": s.n, "difference": s.difference, "ci": [s.low, s.high], "p": s.p, "worse": name in worse}
        for name, s in seen.items()
    }
    todo = f"look at these questions: jade diff; more of them in training; or [types] confidence ({metric})"
    return Finding("types", not worse, told, todo if worse else "", figures)


def _first(scores: Sequence[float], policy: Policy) -> Finding:
    seen = mean_ci(scores, seed=policy.questions.seed, n=policy.gain.resamples, level=policy.gain.confidence)
    passed = seen.low > policy.first.least
    told = f"no champion to compare with; {policy.gain.metric} {seen.mean:.3f} [{seen.low:.3f}, {seen.high:.3f}]"
    if not passed:
        told += f", the interval's lower end is not above {policy.first.least:g}"
    todo = "" if passed else "a model that answers something; or [first] least"
    return Finding("first", passed, told, todo, {"mean": seen.mean, "ci": [seen.low, seen.high]})


def _mean(rows: Sequence[Row], name: str) -> float:
    return fmean(float(getattr(row, name)) for row in rows) if rows else 0.0


def _illegal_share(rows: Sequence[Row]) -> float:
    """Illegal actions per action, over all runs."""
    calls = sum(row.calls for row in rows)
    return sum(row.illegal_actions for row in rows) / calls if calls else 0.0


def _illegal(challenger: Sequence[Row], champion: Sequence[Row] | None, policy: Policy) -> Finding:
    ours = _illegal_share(challenger)
    theirs = _illegal_share(champion) if champion is not None else None
    wrong = []
    if ours > policy.illegal.most:
        wrong.append(f"{ours - policy.illegal.most:.2%} above the limit of {policy.illegal.most:.2%}")
    if theirs is not None and ours - theirs > policy.illegal.rise:
        wrong.append(f"{ours - theirs:.2%} above the champion's {theirs:.2%}, {policy.illegal.rise:.2%} is allowed")
    return Finding(
        "illegal",
        not wrong,
        f"{ours:.2%} of the actions are illegal" + (": " + "; ".join(wrong) if wrong else ""),
        "a higher format penalty in training, or --set constrained=true for plans; or [illegal]" if wrong else "",
        {"challenger": ours, "champion": theirs},
    )


def _failed(challenger: Sequence[Row], policy: Policy) -> Finding:
    rate = _mean(challenger, "failed_rate")
    passed = rate <= policy.failed.most
    told = f"{rate:.2%} of the runs failed"
    if not passed:
        told += f", {rate - policy.failed.most:.2%} above the limit of {policy.failed.most:.2%}"
    codes = sorted({row.error for row in challenger if row.error})
    todo = "" if passed else f"jade runs list shows them ({', '.join(codes) or 'no code'}); or [failed] most"
    return Finding("failed", passed, told, todo, {"challenger": rate, "codes": codes})


def _cost(challenger: Sequence[Row], champion: Sequence[Row], policy: Policy) -> Finding:
    figures: dict[str, Any] = {}
    parts, wrong = [], []
    for name in ("tokens", "calls"):
        ours, theirs, most = _mean(challenger, name), _mean(champion, name), getattr(policy.cost, name)
        ratio = ours / theirs if theirs else (1.0 if not ours else math.inf)
        figures[name] = {"challenger": ours, "champion": theirs, "ratio": ratio, "most": most}
        parts.append(f"{name} {ours:,.1f}, {ratio:.2f} times the champion's")
        if ratio > most:
            wrong.append(f"{name} by {ours - most * theirs:,.1f} above {most:g} times")
    told = "; ".join(parts) + (": " + "; ".join(wrong) if wrong else "")
    todo = "train with a higher --call-cost; or [cost] " + ", ".join(("tokens", "calls")) if wrong else ""
    return Finding("cost", not wrong, told, todo, figures)


def _latency(challenger: Sequence[Row], champion: Sequence[Row] | None, policy: Policy, same_machine: bool) -> Finding:
    at = policy.latency
    name = f"p{at.quantile * 100:g}"
    ours = float(np.quantile([row.latency_ms for row in challenger], at.quantile)) if challenger else 0.0
    figures: dict[str, Any] = {"quantile": at.quantile, "challenger_ms": ours}
    told, wrong = f"{name} {ours:,.0f} ms", []
    if champion is not None:
        theirs = float(np.quantile([row.latency_ms for row in champion], at.quantile))
        ratio = ours / theirs if theirs else (1.0 if not ours else math.inf)
        figures |= {"champion_ms": theirs, "ratio": ratio}
        if at.ratio and not same_machine:
            wrong.append("measured on other hardware than the champion's: it cannot be compared")
        elif at.ratio:
            told += f", {ratio:.2f} times the champion's"
            if ratio > at.ratio:
                wrong.append(f"{ours - at.ratio * theirs:,.0f} ms above {at.ratio:g} times")
    if at.most_ms and ours > at.most_ms:
        wrong.append(f"{ours - at.most_ms:,.0f} ms above the limit of {at.most_ms:,.0f}")
    todo = "measure both in one go (jade promote VERSION), on an idle machine; or [latency]" if wrong else ""
    return Finding("latency", not wrong, told + (": " + "; ".join(wrong) if wrong else ""), todo, figures)
