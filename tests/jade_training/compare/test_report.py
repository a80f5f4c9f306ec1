"""The report over results made up here: what it claims follows from the rows alone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jade_graph.errors import UsageError
from jade_graph.scoring.evaluation import Row
from jade_training.compare import plots, report, turns
from jade_training.compare.arms import QUICK, all_arms, chosen, suites, turn_arms
from jade_training.compare.run import Price, Result, plans_by_kind
from jade_training.compare.statistics import by_question, difference, summary
from jade_training.improve.settings import ImproveSettings

FACTS: dict[str, Any] = {
    "start": "tiny@1", "train": "a", "dev": "b", "test": "c",
    "settings": {"improve": {"iterations": 3, "questions": 4, "runs_per_question": 2}},
}  # fmt: skip


def row(question: str, kind: str, f1: float, plan: str = "R,AG", calls: float = 2.0) -> Row:
    return Row(
        question, kind, "r", plan, "x", "answered", None, f1, float(f1 == 1), f1, None, None, calls, 1, 9, 1, 0, 0
    )


def result(arm: str, seed: int, p: float, *, calls: float = 2.0, n: int = 80) -> Result:
    """An arm that is right with probability `p`."""
    rng = random.Random(f"{arm} {seed}")
    kinds = ("1hop", "edition")
    rows = [row(f"w-{kinds[i % 2]}-{i}", kinds[i % 2], float(rng.random() < p), calls=calls) for i in range(n)]
    f1 = sum(r.f1 or 0.0 for r in rows) / n
    figures = {
        "f1": f1,
        "routing_bits": 0.5,
        "plans": {"R,AG": 1.0},
        "calls": calls,
        "plans_by_kind": plans_by_kind(rows),
    }
    curve = {"0": {"f1": 0.1}, "3": {"f1": f1}}
    return Result(arm, seed, rows, figures, {"AG": 0.5}, [{"iteration": 0}], curve, 100.0, 1.0, "m")


@pytest.fixture(scope="module")
def results() -> list[Result]:
    shares = {
        "start": 0.2,
        "decoupled": 0.4,
        "static R,AG": 0.3,
        "static QR,R,AG": 0.35,
        "static QR,R,DS,AG": 0.5,
        "joint": 0.9,
    }
    found = [result(arm, seed, p) for arm, p in shares.items() for seed in (0, 1)]
    return [*found, result("start QR,R,AG", 0, 0.3), result("start QR,R,DS,AG", 0, 0.1)]


def test_figures_are_means_over_seeds_per_question() -> None:
    one, two = (
        Result("a", seed, [row("q", "1hop", f1)], {}, {}, [], {}, 0, 0, "m") for seed, f1 in ((0, 1.0), (1, 0.0))
    )
    assert by_question([one, two], "f1") == {"q": 0.5}


def test_differences_are_paired_and_signed(results: list[Result]) -> None:
    joint = [r for r in results if r.arm == "joint"]
    other = [r for r in results if r.arm == "decoupled"]
    found = difference(joint, other)
    assert found["difference"] == pytest.approx(summary(joint)["f1"]["mean"] - summary(other)["f1"]["mean"])
    assert found["ci95"][0] > 0
    assert difference(other, joint)["difference"] == pytest.approx(-found["difference"])
    assert difference(joint, joint)["difference"] == 0.0


def test_claims_hold_where_they_hold(results: list[Result]) -> None:
    arms = list(all_arms().values())
    told = report.compared(arms, results, {})
    assert {c["against"]: c["holds"] for c in told["claims"]} == {
        "decoupled": True,
        "start": True,
        "static QR,R,DS,AG": True,
    }
    assert [c["against"] for c in told["claims"] if c["best_fixed"]] == ["static QR,R,DS,AG"]
    worse = [
        result("joint", 0, 0.3) if r.arm == "joint" and r.seed == 0 else r
        for r in results
        if (r.arm, r.seed) != ("joint", 1)
    ]
    assert not any(c["holds"] for c in report.compared(arms, worse, {})["claims"] if c["against"] != "start")


def test_the_json_names_the_best_fixed_graph(results: list[Result]) -> None:
    told = report.compared(list(all_arms().values()), results, {})
    short = report.summarized({**told, "ceiling": 1.0, "report": "r", "manifest": {}})
    assert set(short["arms"]) == {"none", "decoupled", "joint", "static"}
    assert short["arms"]["static"]["graph"] == "QR,R,DS,AG"
    assert set(short["static"]) == {"R,AG", "QR,R,AG", "QR,R,DS,AG"}
    assert short["differences"]["decoupled"]["f1"]["difference"] > 0


def test_a_fixed_graph_is_met_by_the_best_joint_point_that_calls_no_more() -> None:
    calls = {"static R,AG": 1.0, "static QR,R,DS,AG": 3.0, "joint": 5.0}
    found = [result(arm, seed, 0.5, calls=n) for arm, n in calls.items() for seed in (0, 1)]
    prices = {
        Price("call_cost", 0.06): (0.9, 2.5),
        Price("call_cost", 0.08): (0.6, 2.0),
        Price("alpha", 0.3): (1.0, 4.0),
    }
    swept = {p: [result(p.named("joint"), 0, f1, calls=n)] for p, (f1, n) in prices.items()}
    none, met = report.compared(list(all_arms().values()), found, swept)["front"]
    assert (none["graph"], none["point"]) == ("static R,AG", None)
    assert (met["graph"], met["point"], met["point_calls"], met["seeds"]) == (
        "static QR,R,DS,AG", "joint call cost 0.06", 2.5, 1,
    )  # fmt: skip
    assert met["difference"]["ci95"][0] > 0
    assert met["point_f1"] - met["f1"] == pytest.approx(met["difference"]["difference"])


def test_the_selector_harms_when_frozen_and_helps_when_trained(results: list[Result]) -> None:
    told = report.compared(list(all_arms().values()), results, {})["ds"]
    assert told["frozen"]["difference"] < 0 < told["trained"]["difference"]
    assert told["trained"]["edition"] > 0


def test_the_report_says_what_was_found(results: list[Result], tmp_path: Path) -> None:
    arms = list(all_arms().values())
    swept = {Price("alpha", 0.1): 0.4, Price("call_cost", 0.04): 0.45, Price("call_cost", 0.0): 0.5}
    told = report.compared(arms, results, {p: [result(p.named("joint"), 0, f1)] for p, f1 in swept.items()})
    assert {of: list(points) for of, points in told["sweep"].items()} == {"alpha": ["0.1"], "call_cost": ["0.04", "0"]}
    text = report.markdown(told, FACTS, "jade compare", 1.0)
    for name in ("**joint**", "decoupled", "static QR,R,DS,AG"):
        assert f"| {name} |" in text
    assert "Holds" in text
    assert "executors frozen: -" in text
    assert "| static QR,R,DS,AG | " in text.partition("## At no more calls")[2]
    assert text.index("## The cost of turns") < text.index("## The cost of calls") < text.index("| 0.04 |")
    assert "`jade compare`" in text
    plots.curves(results, tmp_path / "curves.png")
    plots.front(told["arms"], tmp_path / "plain.png")
    plots.front(told["arms"], tmp_path / "front.png", sweeps=told["sweep"])
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "front.png").read_bytes()
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("curves.png", "front.png"))


@pytest.mark.parametrize(
    ("price", "alpha", "call"), [(Price("alpha", 0.3), 0.3, 0.0), (Price("call_cost", 0.06), None, 0.06)]
)
def test_a_price_stands_in_place_of_the_usual_costs(price: Price, alpha: float | None, call: float) -> None:
    found = price.put(ImproveSettings(alpha=0.2))
    assert (found.alpha, found.call_cost) == (alpha, call)


def test_arms_differ_in_the_preset_alone() -> None:
    arms = all_arms()
    assert arms["decoupled"].preset.trainable == {"PL"}
    assert arms["joint"].preset.trainable is None
    assert "PL" not in (arms["executors"].preset.trainable or ())
    assert all(arm.preset.plan for arm in arms.values() if arm.fixed)
    assert [arm.name for arm in chosen(None, quick=True)] == list(QUICK)
    assert [arm.name for arm in chosen("joint; static R,AG", quick=False)] == ["static R,AG", "joint"]
    with pytest.raises(UsageError, match=r"UNKNOWN_ARM.*'jont'"):
        chosen("jont", quick=False)


def test_plans_by_kind_are_shares() -> None:
    rows = [
        row("1", "1hop", 1, "R,AG"),
        row("2", "1hop", 1, "QDS"),
        row("3", "1hop", 1, "R,AG"),
        row("4", "2hop", 1, "QDS"),
    ]
    assert plans_by_kind(rows) == {"1hop": {"R,AG": 2 / 3, "QDS": 1 / 3}, "2hop": {"QDS": 1.0}}


# --- turn loops -------------------------------------------------------------------------------------------------------
def turned(arm: str, seed: int, p: float, *, first: float | None = None, curve: tuple[float, ...] = ()) -> Result:
    found = result(arm, seed, p)
    found.rows = [replace(r, first_f1=first, prompt_tokens=100.0 * (seed + 1)) for r in found.rows]
    found.history = [{"legal": 0.99}] if curve else []
    found.evaluations = {str(4 * i): {"f1": f1} for i, f1 in enumerate(curve)}
    return found


@pytest.mark.parametrize(
    ("curve", "legal", "stopped", "why"),
    [
        ((0.2, 0.5, 0.45), 0.99, None, ""),
        ((0.2, 0.5, 0.35), 0.99, None, "fell from 0.500 to 0.350"),
        ((0.3, 0.15), 0.99, None, "fell from 0.300"),
        ((0.2, 0.5), 0.7, None, "30% of the actions are illegal"),
        ((0.2, 0.5), 0.99, "KL is 3", "stopped: KL is 3"),
    ],
)
def test_a_collapse_has_a_stated_criterion(
    curve: tuple[float, ...], legal: float, stopped: str | None, why: str
) -> None:
    found = turned("m-ask turn", 0, 0.5, curve=curve)
    found.history, found.stopped = [{"legal": legal}], stopped
    told = turns.collapse(found)
    assert why in told if why else not told


def test_the_report_of_turn_loops() -> None:
    arms = [a for name, a in turn_arms().items() if name != "jade start"]
    shares = {"m-ask turn": 0.7, "m-ask return_to_go": 0.8, "m-ask final": 0.5, "search-r1": 0.4, "vanilla-rag": 0.3}
    found = [turned("m-ask start", 0, 0.2, first=0.1), turned("search-r1 start", 0, 0.3)]
    for arm, p in shares.items():
        first = 0.1 if arm.startswith("m-ask") else None
        found += [turned(arm, seed, p, first=first, curve=(0.2, p)) for seed in (0, 1)]
    told = turns.compared(arms, found)
    assert list(told["arms"]) == ["m-ask start", "search-r1 start", *shares]
    assert told["arms"]["m-ask turn"]["prompt_tokens"]["mean"] == 150.0
    assert told["arms"]["m-ask turn"]["first_f1"] == pytest.approx(0.1)
    assert told["arms"]["search-r1"]["first_f1"] is None
    assert told["arms"]["m-ask start"]["collapses"] == {}
    assert told["arms"]["m-ask turn"]["searches_by_kind"] == {"1hop": 1.0, "edition": 1.0}
    pairs = {(c["ours"], c["against"]): c["f1"] for c in told["claims"]}
    assert pairs["m-ask turn", "its plan's own first answer"]["ci95"][0] > 0.3
    assert pairs["m-ask turn", "vanilla-rag"]["difference"] > 0.2
    assert pairs["m-ask turn", "m-ask return_to_go"]["difference"] < 0
    assert not any(other == "jade" for _, other in pairs)  # it did not run
    facts = {**FACTS, "settings": {"improve": {**FACTS["settings"]["improve"], "call_cost": 0.0}}}
    text = turns.markdown(told, facts, "jade compare --suite m-ask", 1.0)
    assert "| m-ask final |" in text
    assert "0 of 2" in text
    assert "`jade compare --suite m-ask`" in text


def test_suites_have_arms_of_their_own() -> None:
    assert [a.name for a in chosen("m-ask turn; jade", quick=False, suite="m-ask")] == ["m-ask turn", "jade"]
    credits = {a.preset.credit for a in chosen(None, quick=False, suite="m-ask") if a.name.startswith("m-ask ")}
    assert credits == {"turn", "return_to_go", "final"}
    with pytest.raises(UsageError, match=r"UNKNOWN_ARM.*'m-ask turn'"):
        chosen("m-ask turn", quick=False)
    with pytest.raises(UsageError, match=r"UNKNOWN_SUITE.*'ask'"):
        chosen(None, quick=False, suite="ask")
    for suite in suites().values():
        assert set(suite.quick) <= set(suite.arms)


def test_arms_of_one_preset_differ_in_the_settings_that_they_name() -> None:
    base, arms = ImproveSettings(seed=3), suites()["wsm"].arms
    put = {name: arm.put(base) for name, arm in arms.items()}
    assert put["joint"] == base
    assert (put["constant"].ppo.schedule, put["constant"].merge) == ("constant", None)
    assert (put["merged 1-sqrt"].ppo.schedule, put["merged 1-sqrt"].merge) == ("constant", "1-sqrt:8")
    assert replace(put["merged mean"], merge=None, ppo=base.ppo) == base
    assert {arm.preset.name for arm in arms.values()} == {"jade"}
