"""The verdict: each rule alone on rows made by hand, and error rates over simulated pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jade_graph.bench import gate
from jade_graph.bench.gate import promoted
from jade_graph.errors import ConfigError, UsageError
from jade_graph.gate import Policy, Verdict, judge, needed
from jade_graph.gate.verdict import level_of
from jade_graph.scoring.evaluation import Row
from jade_graph.testing.evaluations import CASES, TYPES, mean_score, simulate_pair


def rows(n: int = 100, f1: float | None = 0.0, *, types: tuple[str, ...] = ("all",), **changes) -> list[Row]:
    base = Row(
        question_id="", type="", run_id="", plan="R,AG", answer="", status="answered", error=None, f1=f1, em=f1,
        f1_style_stripped=f1, support_recall=None, answer_recall=None, calls=2.0, retrievals=1.0, tokens=100.0,
        latency_ms=50.0, illegal_rate=0.0, failed_rate=0.0,
    )  # fmt: skip
    return [replace(base, question_id=f"q{i}", type=types[i % len(types)], **changes) for i in range(n)]


def better(n: int = 100, right: int = 30, **changes) -> list[Row]:
    """As `rows`, with the first `right` answered."""
    made = rows(n, **changes)
    return [replace(row, f1=1.0, em=1.0) if i < right else row for i, row in enumerate(made)]


def refused(verdict: Verdict) -> list[str]:
    assert verdict.passed == (not [f for f in verdict.findings if not f.passed])
    return [f.rule for f in verdict.findings if not f.passed]


def finding(verdict: Verdict, rule: str):
    return next(f for f in verdict.findings if f.rule == rule)


def test_a_clear_gain_passes():
    verdict = judge(better(), rows())
    assert refused(verdict) == []
    gain = finding(verdict, "gain")
    assert gain.figures["difference"] == pytest.approx(0.3)
    assert gain.figures["ci"][0] > 0.2
    assert verdict.summary.startswith("passed: f1 +0.300 [+0.2")


def test_no_gain_is_refused_with_what_to_do():
    verdict = judge(rows(), rows())
    assert refused(verdict) == ["gain"]
    assert "alike" in finding(verdict, "gain").todo
    verdict = judge(rows(), better())
    assert refused(verdict) == ["gain", "types"]
    assert "no gain was seen" in finding(verdict, "gain").todo
    assert "0.3" in verdict.summary


def test_a_gain_that_is_not_significant_says_how_many_questions_would_show_it():
    ours = better(60, 9)
    theirs = [replace(row, f1=1.0) if 9 <= i < 12 else row for i, row in enumerate(rows(60))]
    verdict = judge(ours, theirs)
    assert refused(verdict) == ["gain"]
    gain = finding(verdict, "gain")
    sd = gain.figures["sd"]
    # By hand: difference 9/60 - 3/60 = .1, E[d^2] = 12/60, sd^2 = .2 - .01.
    assert sd == pytest.approx(0.19**0.5)
    assert gain.figures["questions_needed"] == needed(sd, 0.1, Policy()) == 150
    assert "about 150 questions" in gain.todo


def test_questions_needed_by_hand():
    # (1.95996 + 0.84162)^2 * .25 / .01 = 196.2
    assert needed(0.5, 0.1, Policy()) == 197
    assert needed(0.5, 0.0, Policy()) is None
    assert needed(0.5, -0.1, Policy()) is None
    assert needed(0.0, 0.1, Policy()) is None


def test_the_promised_number_of_questions_has_the_promised_power():
    policy = Policy.of({"gain": {"resamples": 1000}})
    sd = finding(judge(*simulate_pair(0, 2000, gain=0.1), policy), "gain").figures["sd"]
    n = needed(sd, 0.1, policy)
    assert n is not None
    passed = sum(finding(judge(*simulate_pair(s, n, gain=0.1), policy), "gain").passed for s in range(100))
    assert 68 <= passed <= 92, "80 of 100, within three standard deviations"


@pytest.mark.parametrize(
    ("changes", "rule", "told"),
    [
        ({"illegal_rate": 0.2}, "illegal", "15.00% above the limit"),
        ({"illegal_rate": 0.04}, "illegal", "4.00% above the champion's"),
        ({"failed_rate": 0.5, "status": "failed", "error": "LIMIT_TOKENS"}, "failed", "48.00% above"),
        ({"tokens": 400.0}, "cost", "tokens by 100.0 above 3 times"),
        ({"calls": 7.0}, "cost", "calls by 1.0 above 3 times"),
        ({"latency_ms": 200.0}, "latency", "50 ms above 3 times"),
    ],
)
def test_limits(changes, rule, told):
    verdict = judge(better(**changes), rows())
    assert refused(verdict) == [rule]
    assert told in finding(verdict, rule).told
    assert finding(verdict, rule).todo


def test_a_loss_on_one_type_is_not_hidden_by_the_mean():
    kinds = ("a", "b", "c", "d")
    ours = [replace(r, f1=0.0 if r.type == "d" else 1.0) for r in rows(200, types=kinds)]
    theirs = [replace(r, f1=1.0 if r.type == "d" else 0.0) for r in rows(200, types=kinds)]
    verdict = judge(ours, theirs)
    assert finding(verdict, "gain").passed
    assert refused(verdict) == ["types"]
    assert finding(verdict, "types").told.startswith("d -1.000")


def test_holms_correction_forgives_what_chance_makes_of_many_types():
    """One of 20 types lost 6 of its 20 answers, p = 2 / 2^6: among 20 types that is chance, alone it would count."""
    kinds = tuple(f"t{i:02d}" for i in range(20))
    ours, theirs = rows(400, 1.0, types=kinds), rows(400, 1.0, types=kinds)
    lost = [i for i, row in enumerate(ours) if row.type == "t03"][:6]
    ours = [replace(row, f1=0.0) if i in lost else row for i, row in enumerate(ours)]
    many = finding(judge(ours, theirs), "types")
    assert many.figures["t03"]["p"] < 0.05
    assert many.passed
    alone = judge([r for r in ours if r.type == "t03"], [r for r in theirs if r.type == "t03"])
    assert not finding(alone, "types").passed


def test_small_types_are_told_and_not_judged():
    kinds = ("a",) * 19 + ("rare",)
    ours = [replace(r, f1=0.0 if r.type == "rare" else 1.0) for r in rows(100, types=kinds)]
    theirs = [replace(r, f1=1.0 if r.type == "rare" else 0.0) for r in rows(100, types=kinds)]
    types = finding(judge(ours, theirs), "types")
    assert types.passed
    assert types.told.endswith("too small to be judged, with fewer than 10 questions: rare")
    few = rows(60, types=tuple("abcdefghijkl"))
    assert finding(judge(few, few), "types").told.startswith("no type was judged; too small")


def test_too_few_questions_decide_nothing():
    verdict = judge(better(49, 40), rows(49))
    assert refused(verdict) == ["questions"]
    assert "1 fewer than the 50" in finding(verdict, "questions").told
    unscored = [replace(row, f1=None) for row in rows(100)]
    assert "questions" in refused(judge(unscored, unscored))


def test_the_first_champion_needs_no_gain_but_must_answer_something():
    verdict = judge(better(), None)
    assert verdict.first
    assert refused(verdict) == []
    assert refused(judge(rows(), None)) == ["first"]
    assert refused(judge(better(illegal_rate=0.1), None)) == ["illegal"]
    limited = Policy.of({"latency": {"most_ms": 40.0}})
    assert refused(judge(better(), None, limited)) == ["latency"]


def test_latencies_of_two_machines_are_not_compared():
    verdict = judge(better(), rows(), same_machine=False)
    assert refused(verdict) == ["latency"]
    assert refused(judge(better(), rows(), Policy.of({"latency": {"ratio": 0.0}}), same_machine=False)) == []


def test_other_questions_are_no_comparison():
    with pytest.raises(UsageError) as error:
        judge(better(100), rows(99))
    assert error.value.error_code == "EVAL_NOT_PAIRED"


def test_the_order_of_rows_does_not_matter():
    ours, theirs = simulate_pair(3, 100, gain=0.1)
    assert judge(ours, theirs).as_dict() == judge(ours, list(reversed(theirs))).as_dict()


# --- error rates ------------------------------------------------------------------------------------------------------
def test_the_simulation_has_the_difference_that_it_says():
    for case, difference in (("equal", 0.0), ("gain", 0.1), ("gain_three", 0.1), ("loss_one", 0.1)):
        ours, theirs = simulate_pair(0, 60_000, **CASES[case])
        mean = sum((a.f1 or 0) - (b.f1 or 0) for a, b in zip(ours, theirs, strict=True)) / len(ours)
        assert mean == pytest.approx(difference, abs=0.006), case
    expected = sum(mean_score(p) for p in TYPES.values()) / len(TYPES)
    assert sum(r.f1 or 0 for r in theirs) / len(theirs) == pytest.approx(expected, abs=0.006)


def test_error_rates_of_a_few():
    quick = Policy.of({"gain": {"resamples": 1000}})
    assert promoted("equal", 40, policy=quick) <= 4
    assert promoted("gain", 25, policy=quick) >= 20


@pytest.mark.slow
def test_equal_models_are_promoted_at_most_once_in_twenty():
    assert gate.run(case="equal")["promoted_equal"] <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gain", "gain_three"])
def test_a_gain_of_a_tenth_is_promoted_four_times_in_five(case):
    assert gate.run(case=case)[f"promoted_{case}"] >= 0.8


@pytest.mark.slow
def test_a_true_loss_on_one_type_is_mostly_refused():
    assert gate.run(case="loss_one")["promoted_loss_one"] <= 0.2


def test_an_unknown_case_is_told():
    with pytest.raises(UsageError) as error:
        gate.run(case="other")
    assert "gain_three" in error.value.known


# --- looking more than once -------------------------------------------------------------------------------------------
def test_all_tries_together_spend_what_one_may():
    policy = Policy()
    tails = [(1 - level_of(policy, tries)) / 2 for tries in range(1, 10_000)]
    assert tails[0] == pytest.approx(0.025)
    assert tails == sorted(tails, reverse=True)
    assert sum(tails) == pytest.approx(0.05, abs=1e-5)  # however many there are
    assert sum(tails) <= 0.05
    assert level_of(Policy.of({"gain": {"peeking": "ignore"}}), 7) == 0.95
    with pytest.raises(ConfigError, match=r"gain\.peeking.*spend, ignore"):
        Policy.of({"gain": {"peeking": "often"}})


def test_a_further_try_needs_more():
    seen = [finding(judge(better(60, 8), rows(60), tries=tries), "gain") for tries in (1, 2, 3, 9, 40)]
    assert seen[0].passed
    assert not seen[-1].passed
    lows = [one.figures["ci"][0] for one in seen]
    assert lows == sorted(lows, reverse=True)
    assert "try 40 against this champion" in seen[-1].told
    assert "try" not in seen[0].told


@pytest.mark.slow
def test_peeking_promotes_no_more_equal_versions_than_one_look_may():
    """A small part of what `make reliability` counts: twelve looks at each of 40 learning runs that learn nothing."""
    quick = {"gain": {"resamples": 1000}}
    spent = gate.peeked(40, 12, 200, Policy.of(quick))
    ignored = gate.peeked(40, 12, 200, Policy.of({"gain": {"resamples": 1000, "peeking": "ignore"}}))
    assert spent <= 4
    assert ignored > spent
