"""How right a cascade of voters is: simulated passages, recorded runs whose gold passages are known, a real model.

Invariant: all ways of labelling see the same passages; a scripted voter's noise is drawn anew at every call. Nothing
is timed. A figure that is not defined is NaN, never 0.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.judging.agreement import agreement
from jade_graph.judging.backbone import BackboneJudge
from jade_graph.judging.cascade import Ballot, Cascade, Judge, Vote
from jade_graph.judging.cases import Behaviour, Candidate, Case, cases_of
from jade_graph.judging.making import judge_cases
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.microworld import Difficulty, OraclePolicy, World, make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.types import Passage, Question, Run

LEVELS = 5
NOISE = 0.92
"""Standard deviation of a voter, in levels: a direct call is then right as often as in CLUE's simulation (.53)."""

GOLD, OUTDATED, NAMED, OTHER = 4, 2, 1, 0
Truth = Mapping[tuple[tuple[str, int, int], str], int]
"""Level by search and passage."""
Labels = list[float | None]


def run(
    *,
    n: int = 20_000,
    questions: int = 200,
    noise: float = NOISE,
    model: str = "tiny",
    judged: int = 24,
    seed: int = 0,
    quick: bool = False,
) -> dict[str, float]:
    """Compare a cascade with five voters, with one, and direct labels (one call; the median of five).

    Args:
        n: passages of the simulation, their levels uniform over 0 .. 4.
        questions: of microworld, that the oracle answers; its runs are judged by voters with noise.
        noise: standard deviation of every voter, in levels.
        model: judges some of these runs too: tiny, a named model, a folder; "none": nobody does.
        judged: searches that the model judges.
        quick: a tenth of everything.

    Returns:
        By part (`sim`, `world`, `model`) and way (`direct`, `median5`, `cascade1`, `cascade5`): `spearman`, `kappa`
        (quadratic weights), `exact`, `bias` (mean label minus mean truth, in levels), `calibration_error` (mean
        distance of a level from the mean truth of what got it), `labelled` (share), `calls` (a search). Of the model,
        `direct` is one selection and `median5` the majority of five: it is asked for no numbers. Truth in `world`: 4
        for a gold passage, 2 for an outdated edition of it, 1 for an entity that the question names, else 0.
        `PART_passages`, `PART_mean_truth`.
    """
    if quick:
        n, questions, judged = n // 10, questions // 10, max(1, judged // 6)
    return asyncio.run(_measure(n, questions, noise, model, judged, seed))


async def _measure(n: int, questions: int, noise: float, model: str, judged: int, seed: int) -> dict[str, float]:
    case, truth = simulated(n, seed)
    figures = await _noisy("sim", [case], truth, noise, seed)
    world = make_world("test", seed, Difficulty(scale=0.2))
    asked = make_questions(world, questions, seed=seed)
    runs = await oracle_runs(world, asked)
    cases, truth = known_truth(world, asked, runs)
    figures |= await _noisy("world", cases, truth, noise, seed)
    if model != "none":
        figures |= await _by_model(model, cases[:judged], truth, seed)
    return figures


def simulated(n: int, seed: int) -> tuple[Case, Truth]:
    """One search with `n` passages of uniform levels."""
    levels = np.random.default_rng(seed).integers(0, LEVELS, n)
    found = tuple(Candidate(Passage(str(i), "text"), Behaviour(rank=i + 1)) for i in range(n))
    case = Case("simulated", 0, 0, "", "q", "q", "", found)
    return case, {(case.key, str(i)): int(level) for i, level in enumerate(levels)}


async def oracle_runs(world: World, questions: Sequence[Question]) -> list[Run]:
    """What microworld's oracle does with these questions, over all passages of the world."""
    graph = JadeGraph(
        ScriptedBackbone(OraclePolicy(world, questions)), preset="jade", retriever=WordSearch(world.passages), k=5
    )
    return [await graph.arun(q, run_id=q.id, seed=i) for i, q in enumerate(questions)]


def known_truth(world: World, questions: Iterable[Question], runs: Iterable[Run]) -> tuple[list[Case], Truth]:
    """The searches of runs whose question has gold passages, and the level of each of their passages."""
    by_id = {q.id: q for q in questions}
    cases, truth = [], {}
    for run_ in runs:
        question = by_id[run_.question_id]
        for case in cases_of(run_) if question.supporting else ():
            cases.append(case)
            for candidate in case.candidates:
                truth[case.key, candidate.passage.id] = _level(world, question, candidate.passage)
    return cases, truth


def _level(world: World, question: Question, passage: Passage) -> int:
    entity = world.entities.get(str(passage.metadata.get("entity")))
    if passage.id in question.supporting:
        return GOLD
    if entity is not None and entity.passage in question.supporting:
        return OUTDATED
    return NAMED if entity is not None and entity.name in question.question else OTHER


@dataclass
class NoisyJudge:
    """Sees the true level with normal noise, drawn anew for every ballot."""

    truth: Truth
    noise: float

    @property
    def about(self) -> Mapping[str, Any]:
        return {"judge": "noisy", "form": "function", "noise": self.noise}

    async def vote(self, ballots: Sequence[Ballot]) -> list[Vote]:
        return [Vote(frozenset(np.flatnonzero(self._seen(b) >= b.level - 0.5).tolist())) for b in ballots]

    def _seen(self, ballot: Ballot) -> Any:
        true = [self.truth[ballot.case.key, c.passage.id] for c in ballot.candidates]
        return np.asarray(true) + np.random.default_rng(ballot.seed).normal(0, self.noise, len(true))


def direct(cases: Sequence[Case], truth: Truth, noise: float, calls: int, seed: int) -> Labels:
    """The level that a noisy judge says outright; of several calls the median."""
    true = np.asarray([truth[case.key, c.passage.id] for case in cases for c in case.candidates])
    seen = true + np.random.default_rng([seed, calls]).normal(0, noise, (calls, len(true)))
    return list(np.median(np.clip(np.rint(seen), 0, LEVELS - 1), axis=0) / (LEVELS - 1))


async def _noisy(part: str, cases: Sequence[Case], truth: Truth, noise: float, seed: int) -> dict[str, float]:
    judge = NoisyJudge(truth, noise)
    ways: dict[str, tuple[Labels, float]] = {
        "direct": (direct(cases, truth, noise, 1, seed), 1.0),
        "median5": (direct(cases, truth, noise, 5, seed), 5.0),
    }
    for voters in (1, 5):
        ways[f"cascade{voters}"] = await _labels(cases, judge, Cascade(LEVELS, voters), seed)
    return _figures(part, cases, truth, ways)


async def _by_model(model: str, cases: Sequence[Case], truth: Truth, seed: int) -> dict[str, float]:
    from jade_graph.assembly.models import open_backbone, usual_concurrency
    from jade_graph.settings.config import load_config

    backbone = open_backbone(load_config().settings, model)
    try:
        judge = BackboneJudge(backbone)
        given: dict[str, Cascade] = {
            "direct": Cascade(2, 1), "median5": Cascade(2, 5), "cascade1": Cascade(LEVELS, 1),
            "cascade5": Cascade(LEVELS, 5),
        }  # fmt: skip
        at_once = max(1, usual_concurrency(backbone) // 5)
        ways = {name: await _labels(cases, judge, cascade, seed, at_once) for name, cascade in given.items()}
    finally:
        await backbone.aclose()
    return _figures("model", cases, truth, ways)


async def _labels(
    cases: Sequence[Case], judge: Judge, cascade: Cascade, seed: int, at_once: int = 8
) -> tuple[Labels, float]:
    """Labels of all passages, case by case, and the calls of a search."""
    found = await judge_cases(cases, judge, cascade, seed=seed, at_once=at_once)
    labels = [None if row.level is None else cascade.value(row.level) for each in found for row in each.labels]
    return labels, sum(each.calls for each in found) / max(1, len(found))


def _figures(
    part: str, cases: Sequence[Case], truth: Truth, ways: Mapping[str, tuple[Labels, float]]
) -> dict[str, float]:
    true = [truth[case.key, c.passage.id] / (LEVELS - 1) for case in cases for c in case.candidates]
    out = {
        f"{part}_passages": float(len(true)),
        f"{part}_mean_truth": (LEVELS - 1) * float(np.mean(true or [math.nan])),
    }
    for way, (labels, calls) in ways.items():
        pairs = [(a, b) for a, b in zip(true, labels, strict=True) if b is not None]
        found = agreement([a for a, _ in pairs], [b for _, b in pairs], levels=LEVELS, resamples=0)
        figure: Callable[[str], float] = partial(_number, found)
        out |= {
            f"{part}_{way}_spearman": figure("spearman"),
            f"{part}_{way}_kappa": figure("weighted_kappa"),
            f"{part}_{way}_exact": figure("exact"),
            f"{part}_{way}_bias": figure("bias"),
            f"{part}_{way}_calibration_error": _error(found["calibration"]),
            f"{part}_{way}_labelled": len(pairs) / len(true) if true else math.nan,
            f"{part}_{way}_calls": calls,
        }
    return out


def _number(found: Mapping[str, Any], name: str) -> float:
    return math.nan if found[name] is None else float(found[name])


def _error(calibration: Sequence[Mapping[str, float]]) -> float:
    total = sum(row["n"] for row in calibration)
    return sum(row["n"] * abs(row["level"] - row["mean_truth"]) for row in calibration) / total if total else math.nan
