"""How well merged experts foretell trained mixtures, on a warm start of this framework's own.

The warm start is the one that teaches jade-tiny-hasty the searching roles (`pretrain.ask_stage`). Its data have three
parts: evidence (M-ASK's summaries of what was found), searching (M-ASK's other roles, and Search-R1's), replay (JADE's
own roles, that they are not forgotten). An expert is trained on each alone; merges of the experts, and models really
trained on the same shares, are scored by the same held-out demonstrations.

Invariant: every arm begins from the same weights, takes as many steps of as many rows, and is scored alike; what was
measured is written down at once, and the same call goes on from it.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jade_graph.bench.rollout import one_thread
from jade_graph.scoring.stats import spearman
from jade_training.bench.kept import Kept
from jade_training.merging.linear import combine
from jade_training.mixing.simplex import design, grid
from jade_training.mixing.surface import Surface
from jade_training.pretrain.batches import Row, encode
from jade_training.supervised.demonstrations import Demonstration

PARTS = ("evidence", "searching", "replay")
ROWS_OF = {"evidence": 96, "searching": 68, "replay": 36}
"""Demonstrations a step of each part in the stage as it is: the mixture in use."""
IN_USE = tuple(n / sum(ROWS_OF.values()) for n in ROWS_OF.values())
_POOL, _HELD_OUT, _ROWS = 1200, 160, 32


def run(
    *, seeds: int = 1, steps: int = 60, rate: float = 3e-4, quick: bool = False, out: str | None = None
) -> dict[str, float]:
    """Rank correlation of merged against trained mixtures, regret of the searched one, and what it gains.

    Args:
        seeds: of data and order.
        steps: of each expert and of each trained mixture, at a constant `rate`.
        quick: few steps and points.
        out: a folder: the same call goes on from what stands there, and leaves `mix.json` with every point.

    Returns:
        Means over seeds: `drift` (largest of the experts), `mixtures` (that were really trained), `spearman_utility`
        and `spearman_PART` between merges and trained mixtures at the same shares, `regret` (what the trained mixture
        at the searched shares has less than the best trained one, as a share of their spread; 0 where it is the best),
        `regret_in_use` (the same of the mixture in use), `regret_middle` (of equal shares), `searched_PART` (shares),
        and `loss_PART_searched`, `loss_PART_in_use`, nats an action token of held-out demonstrations.
    """
    seeds = 1 if quick else seeds
    with one_thread():
        found = [
            _seed(seed, 3 if quick else steps, rate, quick, None if out is None else Path(out)) for seed in range(seeds)
        ]
    figures = {name: statistics.fmean(f[name] for f in found) for name in found[0]}
    if seeds > 1:
        figures["spearman_utility_least"] = min(f["spearman_utility"] for f in found)
        figures["regret_most"] = max(f["regret"] for f in found)
    if out is not None:
        (Path(out) / "mix.json").write_text(json.dumps({"seeds": found}, indent=1) + "\n", "utf-8")
    return {**figures, "seeds": float(seeds)}


def _seed(seed: int, steps: int, rate: float, quick: bool, out: Path | None) -> dict[str, float]:
    lab = Lab(seed, warm=2 if quick else 120, steps=steps, rate=rate, **({"pool": 60, "held_out": 12} if quick else {}))
    kept = Kept(None if out is None else out / f"seed-{seed}.jsonl", {"steps": steps, "rate": rate, "quick": quick})
    corners = np.eye(len(PARTS))
    experts = [lab.trained(corner) for corner in corners]
    points = grid(len(PARTS), 2) if quick else grid(len(PARTS), 4)  # 15, corners and the multiples of a quarter
    merged, trained = [], []
    for i, point in enumerate(points):
        merged.append(lab.score(combine(experts, list(map(float, point)))))
        trained.append(kept.get(("trained", *point), partial(lab.measured, point)))
        lab.tell(f"mixture {i + 1} of {len(points)}")
    # The search itself: merges at points of its own.
    searched_at = design(len(PARTS), 6 if quick else 39, seed)
    scores = [lab.score(combine(experts, list(map(float, at)))) for at in searched_at]
    surface = Surface(searched_at, {part: [s[part] for s in scores] for part in PARTS}, seed=seed)
    best = surface.best(seed=seed)
    others = {"searched": best, "in_use": np.asarray(IN_USE), "middle": np.full(len(PARTS), 1 / len(PARTS))}
    really = {name: kept.get((name, *at), partial(lab.measured, at)) for name, at in others.items()}
    # Utility as the search has it, of the trained ones on the scale of the trained ones.
    low = {part: min(t[part] for t in trained) for part in PARTS}
    spread = {part: max(t[part] for t in trained) - low[part] for part in PARTS}

    def utility(score: Mapping[str, float]) -> float:
        return statistics.fmean((score[part] - low[part]) / spread[part] for part in PARTS)

    values = [utility(t) for t in trained]
    top, width = max(values), max(values) - min(values)
    figures = {
        "drift": max(lab.drift(expert) for expert in experts),
        "mixtures": float(len(points)),
        "spearman_utility": _ranked([float(surface.utility(m)) for m in merged], values),
        **{f"spearman_{part}": _ranked([m[part] for m in merged], [t[part] for t in trained]) for part in PARTS},
        **{f"regret{'' if name == 'searched' else '_' + name}": max(0.0, top - utility(score)) / width
           for name, score in really.items()},
        **{f"searched_{part}": float(share) for part, share in zip(PARTS, best, strict=True)},
    }  # fmt: skip
    for name in ("searched", "in_use"):
        figures |= {f"loss_{part}_{name}": -really[name][part] for part in PARTS}
    if out is not None:
        about = {"points": points.tolist(), "merged": merged, "trained": trained, "really": really,
                 "searched": best.tolist(), "figures": figures}  # fmt: skip
        (out / f"seed-{seed}.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    return figures


class Lab:
    """A start, data by part, and what trains and scores.

    Args:
        warm: steps of the stage as it is before anything is measured, so that new tags are words.
        steps, rate: of each training.
        pool, held_out: demonstrations of each part to learn from, and to be scored by.
    """

    def __init__(
        self, seed: int, *, warm: int, steps: int, rate: float, pool: int = _POOL, held_out: int = _HELD_OUT
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from jade_graph.backbones.folders import BUNDLED
        from jade_training.pretrain.ask_stage import extend
        from jade_training.pretrain.model import hold_constant
        from jade_training.pretrain.tokenizer import build_tokenizer

        self.seed, self.steps, self.rate = seed, steps, rate
        self.tokenizer = build_tokenizer(asking=True)
        source = BUNDLED["tiny-hasty"]
        self.model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        extend(self.model, AutoTokenizer.from_pretrained(str(source), local_files_only=True), self.tokenizer, seed=seed)
        hold_constant(self.model)
        self.pools = self._encoded(parts(self.tokenizer, 7000 + seed, pool))
        self.held_out = self._encoded(parts(self.tokenizer, 9000 + seed, held_out))
        self.start = self._state()
        self.start = self.trained(np.asarray(IN_USE), steps=warm, rate=1e-3)

    def _encoded(self, shown: Mapping[str, Sequence[Demonstration]]) -> dict[str, list[Row]]:
        return {part: [row for d in found for row in encode(self.tokenizer, [d])] for part, found in shown.items()}

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def trained(
        self, shares: Sequence[float] | Any, *, steps: int | None = None, rate: float | None = None
    ) -> dict[str, torch.Tensor]:
        """The weights after training from the start on rows in these shares, at a constant rate."""
        from jade_training.pretrain.steps import optimizer_of, take

        self.model.load_state_dict(self.start)
        # Every mixture draws from the same orders, so that two alike mixtures see alike rows.
        drawn = {part: random.Random(f"mix {self.seed} {part}") for part in PARTS}
        share = dict(zip(PARTS, map(float, shares), strict=True))

        def rows(_: int) -> list[Row]:
            edges = np.rint(np.cumsum([0.0, *share.values()]) * _ROWS).astype(int)
            return [
                row
                for part, low, high in zip(PARTS, edges, edges[1:], strict=False)
                for row in drawn[part].choices(self.pools[part], k=int(high - low))
            ]

        given = rate or self.rate
        take(
            self.model, optimizer_of(self.model, 0.01), rows, lambda step: given * min(1.0, (step + 1) / 5),
            steps=self.steps if steps is None else steps, clip=1.0, bf16=False, phase="mixture",
        )  # fmt: skip
        return self._state()

    def measured(self, shares: Sequence[float] | Any) -> dict[str, float]:
        """The scores of a model that was really trained on these shares."""
        return self.score(self.trained(shares))

    def score(self, state: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """By part, minus the mean loss of a held-out action, in nats a token."""
        self.model.load_state_dict(state)
        found = {}
        for part, rows in self.held_out.items():
            total, actions = 0.0, 0
            for log, ids, of in self.expected(rows):
                losses, tokens = -log.gather(-1, ids[:, None])[:, 0], torch.bincount(of)
                total, actions = total + float((losses / tokens[of]).sum()), actions + len(tokens)
            found[part] = -total / actions
        return found

    def expected(self, rows: Sequence[Row]) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """What the model expects at every action token of the rows, by batches; whether it trains is left as it is.

        Log-probabilities (tokens, vocabulary), the tokens that stand there (tokens,), and which action each is of.
        """
        from jade_training.pretrain.loss import action_logits, chunks

        training = self.model.training
        self.model.train(False)
        with torch.inference_mode():
            found = [action_logits(self.model, chunk) for chunk in chunks(rows, 4096)]
        self.model.train(training)
        return [(logits.float().log_softmax(-1), ids, of) for logits, ids, of in found]

    def drift(self, state: Mapping[str, torch.Tensor]) -> float:
        """||state - start|| / ||start||."""
        moved = sum(float((state[n].double() - t.double()).square().sum()) for n, t in self.start.items())
        norm = sum(float(t.double().square().sum()) for t in self.start.values())
        return float((moved / norm) ** 0.5)

    def tell(self, text: str) -> None:
        import sys

        print(f"seed {self.seed}: {text}", file=sys.stderr, flush=True)


def _ranked(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's correlation; 0 where one side does not vary, which ranks nothing."""
    return spearman(np.asarray(a), np.asarray(b)) or 0.0


def parts(tokenizer: Any, seed: int, count: int) -> dict[str, list[Demonstration]]:
    """`count` demonstrations of each part of the searching roles' stage, from a training world of their own."""
    from jade_training.pretrain.asking import AskCurriculum, EvidenceDemonstrator

    curriculum = AskCurriculum(tokenizer, seed, 1, asked=max(20, count // 4))
    demonstrator = EvidenceDemonstrator(seed, hasty=curriculum.hasty)
    demonstrator.rng = rng = random.Random(f"parts {seed}")
    found: dict[str, list[Demonstration]] = {part: [] for part in PARTS}
    while len(found["evidence"]) < count:
        found["evidence"] += demonstrator.evidence(rng.randint(1, 4), 4)
    while len(found["replay"]) < count:
        found["replay"] += demonstrator.reading(rng.randint(2, 4), 4)
        found["replay"] += [demonstrator.short() for _ in range(2)]
    knowing, alone = (curriculum.of_runs(demonstrator, preset, 0) for preset in ("m-ask", "search-r1"))
    knowing = [d for d in knowing if d.role != "KE"]
    whole = curriculum.knowing + curriculum.monolithic
    found["searching"] = rng.choices(knowing, k=count * curriculum.knowing // whole)
    found["searching"] += rng.choices(alone, k=count - len(found["searching"]))
    return {part: rng.sample(shown, count) for part, shown in found.items()}


__all__ = ["IN_USE", "PARTS", "Lab", "parts", "run"]
