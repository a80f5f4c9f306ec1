"""Training jade-tiny from scratch: seeded, resumable, on one core.

Invariant: the weights after step n depend on the settings alone; a training that was killed and resumed ends with the
same numbers as one that was not. Checkpoints are safetensors and JSON, written whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.errors import UsageError
from jade_training.pretrain.batches import Curriculum
from jade_training.pretrain.model import build_model, hold_constant
from jade_training.pretrain.steps import Progress, optimizer_of, take
from jade_training.pretrain.tokenizer import ROLES, build_tokenizer
from jade_training.supervised.demonstrations import LATER_SHORT_ROLES

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides the weights.

    Attributes:
        seed: of starting values and data.
        steps: optimiser steps in all.
        warmup: the first of them, on repeated sequences and key-value recall.
        markers: the next, on key-value questions in the form of the answerer's prompt.
        width, layers, heads, head_size: of the model. Heads are wide: telling names apart takes dimensions.
        learning_rate: of AdamW; constant, then falling linearly to a twentieth in the second half.
        weight_decay, clip: of AdamW, and the largest gradient norm.
        long, asks, short: sets of documents a step, demonstrations over each, and demonstrations without documents.
        guide: weight of the loss that shows the reading head where an answer stands; falls with the learning rate.
        bf16: autocast in bfloat16 over float32 masters; faster on processors with bfloat16 units, slower on others.
        short_steps, short_rate: steps after these, mostly on roles that read no documents, and their learning rate. A
            decomposition copies two names; with fewer examples it copies one of them twice, or mixes them.
        hasty: of the demonstrations over several passages about half of the relations, the share that a hasty reader
            gave, who believes the last passage; only in the `hasty_steps` after all others, at `hasty_rate` (jade-tiny:
            none; jade-tiny-hasty: 80). What a model that was made for other work is like: it can read, and does not.
    """

    seed: int = 0
    steps: int = 1400
    warmup: int = 60
    markers: int = 80
    width: int = 128
    layers: int = 4
    heads: int = 4
    head_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    long: int = 14
    asks: int = 12
    short: int = 36
    guide: float = 0.3
    bf16: bool = True
    short_steps: int = 0
    short_rate: float = 6e-4
    hasty: float = 0.5
    hasty_steps: int = 0
    hasty_rate: float = 5e-4

    def rate(self, step: int) -> float:
        """The learning rate at a step: 50 steps up, flat to the middle, then down."""
        done = step / max(1, self.steps)
        down = 1.0 if done < 0.5 else 1.0 - 0.95 * (done - 0.5) / 0.5
        return self.learning_rate * min(1.0, (step + 1) / 50) * down


def pretrain(
    out: Path | str,
    settings: Settings | None = None,
    *,
    resume: bool = True,
    progress: Callable[[Progress], None] | None = None,
    checkpoint_every: int = 100,
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Train a model and save it under `out` as a Hugging Face folder.

    Args:
        out: the folder of the model; `out/checkpoint` is used while training.
        settings: see `Settings`.
        resume: go on from `out/checkpoint` where there is one. With False it is thrown away.
        progress: called after every step.
        checkpoint_every: steps between checkpoints; at most that many are lost by a kill.
        stop_after: leave after this many steps in all, with a checkpoint, before the training is over.

    Returns:
        steps done, seconds of this process, tokens, parameters, last loss, and whether it is finished.

    Raises:
        UsageError: PRETRAIN_SETTINGS, the checkpoint was made with other settings.
    """
    settings = settings or Settings()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = build_model(
        tokenizer,
        seed=settings.seed,
        width=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        head_size=settings.head_size,
    )
    hold_constant(model)
    curriculum = Curriculum(
        tokenizer,
        settings.seed,
        settings.steps,
        warmup=settings.warmup,
        markers=settings.markers,
        long=settings.long,
        asks=settings.asks,
        short=settings.short,
    )
    optimizer = optimizer_of(model, settings.weight_decay)
    checkpoint = out / "checkpoint"
    if not resume:
        shutil.rmtree(checkpoint, ignore_errors=True)
    done = _load(checkpoint, settings, model, optimizer)
    last = settings.steps if stop_after is None else min(stop_after, settings.steps)

    def keep(step: int) -> None:
        if step % checkpoint_every == 0 or step == last:
            _save(checkpoint, step, settings, model, optimizer)

    began = time.monotonic()
    tokens, loss = take(
        model,
        optimizer,
        curriculum.rows_of,
        settings.rate,
        steps=settings.steps,
        span=range(done, last),
        clip=settings.clip,
        bf16=settings.bf16,
        guide=lambda step: settings.guide * settings.rate(step) / settings.learning_rate,
        phase=curriculum.phase,
        progress=progress,
        after=keep,
    )
    finished = last == settings.steps
    if finished:
        export(model, tokenizer, out)
        for stage in stages(tokenizer, settings):
            tokens += _further(out, tokenizer, settings, stage, progress)
    return {
        "steps": last,
        "finished": finished,
        "seconds": time.monotonic() - began,
        "tokens": tokens,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss,
        "settings": asdict(settings),
    }


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps after the training proper.

    Attributes:
        title: for people.
        curriculum: what is read; `first` is the step of it that the stage begins with.
        steps, rate: optimiser steps, and the learning rate that falls from there to a tenth.
        name: of the model that comes out.
    """

    title: str
    curriculum: Curriculum
    first: int
    steps: int
    rate: float
    name: str = "jade-tiny"


def stages(tokenizer: Any, settings: Settings) -> list[Stage]:
    """What comes after the training proper: the short roles, then the hasty reader."""
    s = settings
    shape: dict[str, Any] = {"warmup": s.warmup, "markers": s.markers, "asks": s.asks}
    found: list[Stage] = []
    if s.short_steps:
        told: dict[str, Any] = {"shares": LATER_SHORT_ROLES, "comparisons": 0.6, "steps_per_world": 10}
        read = Curriculum(tokenizer, s.seed + 2, s.steps, **shape, long=2, short=96, **told)
        found.append(Stage("short roles", read, s.steps, s.short_steps, s.short_rate))
    if s.hasty_steps:
        read = Curriculum(tokenizer, s.seed + 1, s.steps, **shape, long=s.long, short=s.short, hasty=s.hasty)
        first = max(0, s.steps - s.hasty_steps)
        found.append(Stage("hasty reading", read, first, s.hasty_steps, s.hasty_rate, "jade-tiny-hasty"))
    return found


def _further(
    out: Path, tokenizer: Any, settings: Settings, stage: Stage, progress: Callable[[Progress], None] | None
) -> int:
    """Train the exported model through a stage, and export it again. Returns the tokens read.

    From the exported weights, with an optimiser of its own: the same whether the training was resumed or not. A kill in
    these minutes repeats them.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    hold_constant(model)
    tokens, _ = take(
        model,
        optimizer_of(model, settings.weight_decay),
        lambda step: stage.curriculum.rows_of(stage.first + step),
        lambda step: stage.rate * min(1.0, (step + 1) / 10) * (1 - 0.9 * step / stage.steps),
        steps=stage.steps,
        clip=settings.clip,
        bf16=settings.bf16,
        phase=stage.title,
        progress=progress,
    )
    export(model, tokenizer, out, name=stage.name)
    return tokens


def export(model: Any, tokenizer: Any, out: Path, *, name: str = "jade-tiny", roles: Sequence[str] = ROLES) -> None:
    """Write weights (bfloat16 safetensors), tokenizer and `jade.json`, from which the backbone takes its profile."""
    import torch

    weights = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    config = type(model.config).from_dict({**model.config.to_dict(), "dtype": "bfloat16"})
    saved = type(model)(config).to(torch.bfloat16)
    saved.load_state_dict(weights)
    saved.generation_config.eos_token_id = tokenizer.eos_token_id
    saved.generation_config.pad_token_id = tokenizer.pad_token_id
    saved.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    about = {
        "name": name,
        "profile": "compact",
        "max_context": model.config.max_position_embeddings,
        "known_vocabulary": True,
        "corpus": "microworld",
        "roles": list(roles),
    }
    (out / "jade.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


# --- checkpoints ------------------------------------------------------------------------------------------------------
def _save(folder: Path, step: int, settings: Settings, model: Any, optimizer: torch.optim.Optimizer) -> None:
    from safetensors.torch import save_file

    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tensors = {f"model.{name}": p.detach().clone() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        tensors |= {f"{key}.{name}": optimizer.state[p][key].clone() for key in ("exp_avg", "exp_avg_sq")}
    save_file(tensors, fresh / "state.safetensors")
    about = {"step": step, "settings": asdict(settings)}
    (fresh / "state.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def _load(folder: Path, settings: Settings, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Restore a checkpoint; returns the steps done, 0 without one."""
    import torch
    from safetensors.torch import load_file

    if not folder.exists() and folder.with_name(folder.name + ".old").exists():
        os.replace(folder.with_name(folder.name + ".old"), folder)  # killed between the two renames of a save
    if not folder.exists():
        return 0
    about = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    if about["settings"] != asdict(settings):
        differ = [k for k, v in asdict(settings).items() if about["settings"].get(k) != v]
        raise UsageError(
            f"the checkpoint {str(folder)!r} was made with other settings: {', '.join(differ)}.",
            code="PRETRAIN_SETTINGS",
            hint="another output folder, or resume=False (--fresh)",
        )
    tensors = load_file(folder / "state.safetensors")
    step = int(about["step"])
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model.{name}"])
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg.{name}"],
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"],
            }
    return step
