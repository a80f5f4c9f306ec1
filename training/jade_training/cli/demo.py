"""The part of `jade demo` that learns: a few minutes of joint training of the bundled model, on a world of its own.

Invariant: it learns from `train` worlds and picks weights on a `validation` world; the demo's own questions are of
neither.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jade_graph.backbones import TINY
from jade_graph.backbones.codec import Codec
from jade_graph.errors import ConfigError
from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.sync import run_sync
from jade_training.improve.holding import microworld_replay
from jade_training.improve.improver import Data, Improver, Progress
from jade_training.improve.settings import ImproveSettings

ITERATIONS = 16
EVALUATIONS = 8
TRAIN_QUESTIONS, DEVELOPMENT_QUESTIONS = 1200, 105


def learn(
    out: Path, *, seed: int = 0, iterations: int = ITERATIONS, tell: Callable[[int, int, str], None] | None = None
) -> dict[str, Any]:
    """Train the bundled model with the preset `jade`.

    Args:
        out: folder of the learning run; one that is there is gone on with, and a finished one read back.
        tell: called with (done, of, what).

    Returns:
        `model` (folder of the best weights), `iterations`, `runs`, `seconds`, `history` (metrics by iteration).
    """
    settings = ImproveSettings(iterations=iterations, seed=seed, evaluate_every=max(1, iterations // EVALUATIONS))

    def progress(p: Progress) -> None:
        if tell is not None and p.phase in ("rollout", "done"):
            inside = p.done / p.of if p.of and p.phase == "rollout" else 1.0
            tell(int(100 * (p.iteration + inside)), 100 * p.iterations, f"learning, iteration {p.iteration + 1}")

    replay = microworld_replay(Codec.from_folder(TINY).tokenizer, seed=seed)
    train, dev = _data("train", TRAIN_QUESTIONS, seed), _data("validation", DEVELOPMENT_QUESTIONS, seed)

    def improver() -> Improver:
        return Improver(out, TINY, train, dev, settings, replay=replay, progress=progress)

    try:
        found = run_sync(improver().run())
    except ConfigError as error:
        if error.error_code != "IMPROVE_CHANGED":
            raise
        shutil.rmtree(out)  # the demo's own folder, of another version of the package
        found = run_sync(improver().run())
    runs = sum(int(h["runs"]) for h in found.history)
    return {
        "model": str(found.best),
        "iterations": found.iterations,
        "runs": runs,
        "seconds": found.seconds,
        "history": found.history,
    }


def _data(split: Any, n: int, seed: int) -> Data:
    world = make_world(split, seed)
    return Data(
        f"microworld:{split}?n={n}&seed={seed}", make_questions(world, n, seed=seed), WordSearch(world.passages)
    )
