"""Warm start: supervised fine-tuning on actions that were good, before anything is learned from rewards.

Invariant: only action tokens are learned; ids are those that the engine gives and the model emits, the end token
included, and nothing is tokenised again here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.errors import DataError

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored
    from jade_graph.types import Run
    from jade_training.supervised.demonstrations import Demonstration

Pair = tuple[Sequence[int], Sequence[int]]
"""Prompt ids and action ids."""


def examples_of(
    runs: Sequence[Run], scored: Mapping[str, Scored], minimum: float, *, roles: frozenset[str] | None = None
) -> list[Pair]:
    """The legal, finished actions of runs whose outcome is at least `minimum`; each (prompt, action) once.

    Args:
        scored: by run id; an unscored run gives nothing.
        roles: only these (None: every trainable role).
    """
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], None] = {}
    for run in runs:
        score = scored.get(run.id)
        if score is None or score.outcome is None or math.fsum(score.outcome.values()) < minimum:
            continue
        for t in run.transitions:
            if t.learns and t.valid and not t.truncated and (roles is None or t.role in roles):
                found[tuple(t.prompt_token_ids), tuple(t.action_token_ids)] = None
    return list(found)


def encoded(tokenizer: Any, shown: Sequence[Demonstration]) -> list[Pair]:
    """Demonstrations as (prompt ids, action ids), as the engine gives them to a model with a "compact" profile."""
    prompts = tokenizer([d.documents + d.prompt for d in shown], add_special_tokens=False)["input_ids"]
    actions = tokenizer([d.action for d in shown], add_special_tokens=False)["input_ids"]
    return [(p, [*a, tokenizer.eos_token_id]) for p, a in zip(prompts, actions, strict=True)]


def demonstrations(tokenizer: Any, count: int, *, seed: int = 0, distractors: int = 4) -> list[Pair]:
    """At least `count` (prompt ids, action ids) from a training world of microworld, all roles, three ways:

    half of roles that read no documents, half of the answerer and the selector over the same documents.
    """
    from jade_training.supervised.demonstrations import Demonstrator

    demonstrator, shown = Demonstrator(seed), list[Any]()
    rng = random.Random(f"sft {seed}")
    while len(shown) < count:
        shown += demonstrator.reading(rng.randint(0, distractors), 4)
        shown += [demonstrator.short() for _ in range(4)]
    return encoded(tokenizer, shown)


def sft(
    model: Any,
    examples: Sequence[Pair],
    out: Path | str | None = None,
    *,
    tokenizer: Any = None,
    epochs: float = 1.0,
    steps: int | None = None,
    batch_rows: int = 32,
    micro_rows: int | None = None,
    learning_rate: float = 5e-4,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    bf16: bool = False,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, float]:
    """Fine-tune a causal LM on examples with TRL's SFTTrainer; the loss is the mean over action tokens of a batch.

    Args:
        model: a transformers causal LM, trained in place in float32, or its folder.
        examples: (prompt ids, action ids); an action ends with its end token.
        out: folder to save the model and tokenizer to; None: nowhere.
        tokenizer: of a model that was given in memory; of a folder it is found there.
        epochs: passes over the examples, unless `steps` (optimiser steps) says otherwise.
        batch_rows: examples a step, `micro_rows` of them at a time (None: all).
        learning_rate: of AdamW, falling linearly to 0 after `warmup_steps`.
        bf16: mixed precision.
        seed: of the order.

    Returns:
        examples, steps, loss (nats a token, mean over the training), seconds.

    Raises:
        DataError: SFT_EMPTY, no examples, or one without prompt or action.
        BackboneError: the folder holds no model that loads.
    """
    import torch
    from datasets import Dataset

    from jade_graph.backbones.weights import choose_device, load_model, quiet
    from jade_training.learner.logits import random_state_kept
    from jade_training.learner.trl_ import SupervisedTrainer, arguments

    if not examples or not all(len(prompt) and len(action) for prompt, action in examples):
        raise DataError(
            f"{len(examples)} examples, and each needs a prompt and an action.",
            code="SFT_EMPTY",
            hint="a lower minimum reward, or microworld demonstrations",
        )
    target = choose_device(device)
    source = Path(model) if isinstance(model, str | Path) else None
    if source is not None:
        from transformers import AutoTokenizer

        model = load_model(source, target, torch.float32)
        with quiet():
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    model = model.float().requires_grad_(True)
    cache = getattr(model.config, "use_cache", None)
    table = Dataset.from_dict(
        {
            "input_ids": [[*prompt, *action] for prompt, action in examples],
            "labels": [[-100] * len(prompt) + list(action) for prompt, action in examples],
        }
    )
    chosen: dict[str, Any] = {
        "per_device_train_batch_size": micro_rows or batch_rows,
        "gradient_accumulation_steps": max(1, batch_rows // (micro_rows or batch_rows)),
        "num_train_epochs": epochs,
        "max_steps": steps or -1,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "bf16": bf16,
        "seed": seed,
        "use_cpu": target.type == "cpu",
    }
    with random_state_kept(), _no_bars():
        trainer: Any = SupervisedTrainer(
            model=model,
            args=arguments(supervised=True, **chosen),
            train_dataset=table,
            processing_class=tokenizer,
            data_collator=_collate,
        )
        trainer.callback_handler.callbacks = [
            c for c in trainer.callback_handler.callbacks if type(c).__name__ == "DefaultFlowCallback"
        ]
        result = trainer.train()
    vars(model).pop("forward", None)  # TRL's fused head
    model.eval()
    if cache is not None:
        model.config.use_cache = cache
    if out is not None:
        _save(model, tokenizer, source, Path(out))
    return {
        "examples": float(len(examples)),
        "steps": float(result.global_step),
        "loss": float(result.training_loss),
        "seconds": float(result.metrics["train_runtime"]),
    }


def _collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows padded on the right; what padding holds is neither attended to nor learned."""
    import torch

    longest = max(len(e["input_ids"]) for e in examples)

    def padded(name: str, fill: int) -> Any:
        return torch.tensor([[*e[name], *[fill] * (longest - len(e[name]))] for e in examples])

    mask = [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples]
    return {
        "input_ids": padded("input_ids", 0),
        "labels": padded("labels", -100),
        "attention_mask": torch.tensor(mask),
    }


def _save(model: Any, tokenizer: Any, source: Path | None, out: Path) -> None:
    import shutil

    from jade_graph.backbones.weights import quiet

    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(out, safe_serialization=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    if source is not None and (source / "jade.json").is_file() and source.resolve() != out.resolve():
        shutil.copy(source / "jade.json", out / "jade.json")


@contextmanager
def _no_bars() -> Iterator[None]:
    """No progress bars from datasets: standard error belongs to the caller."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
