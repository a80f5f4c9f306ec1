"""Checkpoints and exports of the learner.

Invariant: safetensors and JSON only, nothing that could run when it is read; a checkpoint is there whole or not at all,
also when the process dies between two system calls.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jade_graph.backbones.merging import answers, merged, require_like
from jade_graph.backbones.weights import quiet
from jade_graph.errors import DataError
from jade_training.learner.planwise import Comparison

if TYPE_CHECKING:
    from jade_training.learner.trainer import PPOTrainer

VERSION = 1
WEIGHTS, OPTIMIZER, ABOUT = "policy.safetensors", "optimizer.safetensors", "trainer.json"


def save(folder: Path, trainer: PPOTrainer) -> None:
    """Write weights that are trained, value head, optimiser, random state and counters to `folder`."""
    from safetensors.torch import save_file

    fresh, old = (folder.with_name(f"{folder.name}.{end}") for end in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    named = trainer.named_trainable()
    save_file({n: _plain(p) for n, p in named.items() if n.startswith("policy.")}, fresh / WEIGHTS)
    moments: dict[str, Tensor] = {}
    for start, optimizer in _optimizers(trainer):
        for name, p in named.items():
            moments |= {f"{start}{key}.{name}": _plain(v) for key, v in optimizer.state.get(p, {}).items()}
    save_file(moments, fresh / OPTIMIZER)
    trainer.value.save(fresh)
    about = {
        "version": VERSION,
        "updates": trainer.updates,
        "rng": trainer.rng.bit_generator.state,
        "settings": trainer.settings.as_dict(),
        "comparisons": [c.as_dict() for c in trainer.comparisons],
    }
    (fresh / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, trainer: PPOTrainer) -> None:
    """Restore what `save` wrote. Raises `DataError` CHECKPOINT_MISSING or CHECKPOINT_DIFFERS."""
    from safetensors.torch import load_file

    old = folder.with_name(f"{folder.name}.old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)  # killed between the two renames of a save
    if not (folder / ABOUT).is_file():
        raise DataError(
            f"there is no checkpoint in {str(folder)!r}.",
            code="CHECKPOINT_MISSING",
            hint="a folder that save_checkpoint wrote",
        )
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    weights, moments = load_file(folder / WEIGHTS), load_file(folder / OPTIMIZER)
    named = trainer.named_trainable()
    policy = {n: p for n, p in named.items() if n.startswith("policy.")}
    differ = sorted(n for n in policy.keys() | weights.keys() if _shape(policy.get(n)) != _shape(weights.get(n)))
    if differ or about["version"] != VERSION:
        raise DataError(
            f"the checkpoint {str(folder)!r} is of another model: {', '.join(differ[:3]) or 'another version'}.",
            code="CHECKPOINT_DIFFERS",
            hint="make the trainer from the same start model and settings",
        )
    with torch.no_grad():
        for name, p in policy.items():
            p.copy_(weights[name])
    trainer.value.load(folder)
    for start, optimizer in _optimizers(trainer):
        optimizer.state.clear()
        for name, p in named.items():
            keys = {key: f"{start}{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq")}
            own = {key: moments[where].to(p.device) for key, where in keys.items() if where in moments}
            if own:
                optimizer.state[p] = own
    trainer.updates = int(about["updates"])
    trainer.rng.bit_generator.state = about["rng"]
    # Those of an older version do not say of which level they are.
    trainer.comparisons = [Comparison.from_dict(c) for c in about["comparisons"] if "root" in c]


def _optimizers(trainer: PPOTrainer) -> list[tuple[str, torch.optim.Optimizer]]:
    """What the names of their moments begin with, and the optimisers."""
    return [("", trainer.optimizer), ("plans.", trainer.plan_optimizer)]


def drop_checkpoint(folder: Path, *, weights: bool) -> None:
    """Take away a checkpoint that nobody goes on from; its trained weights too, or all but these."""
    if weights or not (folder / WEIGHTS).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name != WEIGHTS:
            path.unlink()


def export(folder: Path, trainer: PPOTrainer, dtype: str, model: Any = None) -> Path:
    """Write the policy, or a plain model in its place, as a Hugging Face folder: see `PPOTrainer.export`."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: Any = copy.deepcopy(trainer.model if model is None else model)
    wanted = answers(kept)
    if hasattr(kept, "merge_and_unload"):
        kept = merged(kept)
    with quiet():
        kept.to(getattr(torch, dtype)).save_pretrained(folder, safe_serialization=True)
    del kept
    require_like(folder, wanted)
    trainer.value.save(folder)
    if trainer.tokenizer is not None:
        trainer.tokenizer.save_pretrained(folder)
    if trainer.source is not None and (trainer.source / "jade.json").is_file():
        shutil.copy(trainer.source / "jade.json", folder / "jade.json")
    return folder


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)
