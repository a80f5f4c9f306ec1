"""How `smol` is made: SmolLM2-135M-Instruct, taught every role of `jade` on real questions, as an adapter.

Invariant: every step leaves files that the next one reads; the same call goes on where it stopped, and comes to the
same weights. What ships has seen MuSiQue and 2WikiMultihopQA alone, and no question that figures are reported on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jade_graph.backbones.lora import CONFIG, WEIGHTS
from jade_graph.backbones.named import NAMED, SMOL, Taught, require_added
from jade_graph.data import Dataset
from jade_graph.microworld.shown import Shown
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.settings.manifest import manifest
from jade_graph.sync import run_sync
from jade_training.mixing.mixture import dataset_of
from jade_training.real.questions import SINGLE, counted, prepare
from jade_training.supervised import files, teaching
from jade_training.supervised.selecting import at_most
from jade_training.supervised.sft import sft

Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the adapter beside the data.

    Attributes:
        most: demonstrations of a role at most, as evenly from the data sets. The answerer's are two thirds of all
            tokens. Plans are counted apart ("PL QDS"): most prompts of a planner are of steps that are looked up, and
            a planner that saw them as they come decomposed 10 % of the test questions.
        ks: passages a search brings: fewer make shorter prompts, more make harder ones.
        rank: of the adapter, on every linear layer; alpha is twice that.
        learning_rate: falling linearly to 0.
        batch_rows, micro_tokens: demonstrations a step, and tokens at a time.
    """

    seed: int = 0
    most: Mapping[str, int] = field(
        default_factory=lambda: {
            "AG": 900,
            "PL QDS": 160,
            "PL QDP": 100,
            "PL R,AG": 240,
            "DS": 160,
            "QR": 280,
            "AS": 210,
            "QDS": 250,
            "QDP": 110,
        }
    )
    ks: tuple[int, ...] = (5, 3)
    rank: int = 16
    learning_rate: float = 3.5e-4
    warmup_steps: int = 4
    batch_rows: int = 24
    micro_tokens: int = 1536
    held_out: float = 0.04


_SMOL = NAMED[SMOL]
assert isinstance(_SMOL, Taught)
BASE, PROFILE, ASSET = _SMOL.base, _SMOL.profile, _SMOL.adapter
ADAPTER, FIGURES = "adapter", "figures.json"
ROLES = ("PL", "QDS", "QDP", "QR", "DS", "AG", "AS")


def make(data: Path, out: Path, models: Path, recipe: Recipe | None = None, *, tell: Tell) -> dict[str, Any]:
    """The model in `out/taught`, its adapter in `out/adapter` as it ships; figures of the training.

    Args:
        data: the folder with the data sets of `questions.SOURCES`.
        models: the data folder where the base was added.

    Raises:
        BackboneError: MODEL_NOT_ADDED. DataError: REAL_DATA. ConfigError: SFT_CHANGED.
    """
    recipe = recipe or Recipe()
    base = require_added(BASE, models)
    tell("splitting the questions", 0, 1)
    parts = prepare(data, out / "data", seed=recipe.seed)
    file = out / "demonstrations.jsonl"
    if not file.exists():
        demonstrate(parts["train"], file, recipe, tell)
    shown, about = files.read(file)
    trained = out / FIGURES
    if trained.exists():
        return dict(json.loads(trained.read_text("utf-8")))
    metrics = _train(base, shown, out, recipe, tell)
    _ship(out)
    figures = {
        "questions": counted(parts),
        "demonstrations": files.by_role(shown),
        "training": metrics,
        "manifest": manifest(seeds=[recipe.seed], recipe=asdict(recipe), base=BASE, demonstrations=about),
    }
    trained.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return figures


def demonstrate(train: Dataset, file: Path, recipe: Recipe, tell: Tell) -> None:
    """What is right for every role on the training questions and their sub-questions, over BM25 of the passages."""
    # The split's single questions are parts of others: they come with these.
    whole = (question for question in train.questions if question.type != SINGLE)
    lessons = [found for question in whole if (found := teaching.lesson(question))]
    lessons += teaching.single(lessons)
    retriever = MemoryRetriever(list(train.passages), "bm25")
    made = teaching.teach_over(
        lessons, retriever, recipe.ks, profile=PROFILE, seed=recipe.seed, progress=partial(tell, "teaching")
    )
    shown, _ = run_sync(made)
    by_source: dict[str, list[Shown]] = {}
    for each in shown:
        by_source.setdefault(dataset_of(each.question_id), []).append(each)
    kept = at_most(list(by_source.values()), recipe.most, seed=recipe.seed)
    files.write(file, kept, {"profile": PROFILE, "corpus_id": retriever.corpus_id, "dataset_id": train.dataset_id})


def _train(base: Path, shown: list[Shown], out: Path, recipe: Recipe, tell: Tell) -> dict[str, float]:
    from jade_graph.backbones.codec import Codec
    from jade_training.learner.ppo import Lora

    codec = Codec.from_folder(base, profile=PROFILE)
    learned, kept = files.held_out(shown, recipe.held_out)
    return sft(
        base,
        files.pairs(codec, learned),
        out / "taught",
        lora=Lora(rank=recipe.rank, alpha=2 * recipe.rank),
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        batch_rows=recipe.batch_rows,
        micro_tokens=recipe.micro_tokens,
        held_out={role: files.pairs(codec, [s for s in kept if s.role == role]) for role in files.by_role(kept)},
        profile=PROFILE,
        save_every=10,
        seed=recipe.seed,
        progress=lambda done, of: tell("training", done, of),
    )


def _ship(out: Path) -> None:
    """The adapter as the package carries it: bfloat16, with what its merged model says of itself."""
    import torch
    from safetensors.torch import load_file, save_file

    made, ships = out / "taught" / ADAPTER, out / ADAPTER
    ships.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(made / WEIGHTS).items()}
    save_file(tensors, ships / WEIGHTS, {"format": "pt"})
    config = json.loads((made / CONFIG).read_text("utf-8")) | {"base_model_name_or_path": BASE}
    (ships / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")
    (ships / "jade.json").write_text(json.dumps({"profile": PROFILE, "roles": list(ROLES)}, indent=1) + "\n", "utf-8")


def install(out: Path, into: Path, card: str) -> None:
    """Put a made adapter with its card where the package (or another folder) carries it."""
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted((out / ADAPTER).iterdir()):
        shutil.copyfile(path, into / path.name)
    shutil.copyfile(out / FIGURES, into / FIGURES)
    (into / "README.md").write_text(card, "utf-8")


__all__ = ["ADAPTER", "BASE", "FIGURES", "PROFILE", "Recipe", "demonstrate", "install", "make"]
