"""Warm start: supervised fine-tuning on actions that were good, before anything is learned from rewards.

Invariant: only action tokens are learned; ids are those that the engine gives and the model emits, the end token
included, and nothing is tokenised again here.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.errors import DataError

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored
    from jade_graph.types import Run
    from jade_training.learner.ppo import Lora
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


def learning_rate_for(parameters: int, lora: bool) -> float:
    """The rate that is taken where none is given: it falls with the size of the model.

    All weights: 5e-4 up to 3 M parameters, then with the root of the size (135 M: 7.5e-5, 1.5 B: 2.2e-5). Adapters:
    4e-4 at 135 M, with the fourth root (7 B: 1.5e-4).
    """
    if lora:
        return float(4e-4 * (135e6 / max(parameters, 1)) ** 0.25)
    return float(5e-4 * min(1.0, (3e6 / max(parameters, 1)) ** 0.5))


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
    micro_tokens: int | None = None,
    learning_rate: float | None = None,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    lora: Lora | None = None,
    bf16: bool = False,
    held_out: Mapping[str, Sequence[Pair]] | None = None,
    profile: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, float]:
    """Fine-tune a causal LM on examples with TRL's SFTTrainer; the loss is the mean over action tokens of a batch.

    Args:
        model: a transformers causal LM, trained in place in float32, or its folder.
        examples: (prompt ids, action ids); an action ends with its end token.
        out: folder to save the model and tokenizer to; None: nowhere. With `lora` the adapters stand in `out/adapter`,
            and `out` is the model with them merged in.
        tokenizer: of a model that was given in memory; of a folder it is found there.
        epochs: passes over the examples, unless `steps` (optimiser steps) says otherwise.
        batch_rows: examples a step, `micro_rows` of them at a time (None: all).
        micro_tokens: instead of `micro_rows`: examples of like length together, at most so many tokens with their
            padding at a time; a step takes about `batch_rows` examples.
        learning_rate: of AdamW, falling linearly to 0 after `warmup_steps`; None: `learning_rate_for`.
        lora: train adapters beside the weights instead of these.
        bf16: mixed precision; with `lora` the weights themselves are held in bfloat16.
        held_out: examples by role: their loss before and after is told, and nothing is learned from them.
        profile: prompt profile of the examples, written beside the model; None: that of the start.
        progress: called with (steps, all).
        seed: of the order.

    Returns:
        examples, tokens, steps, learning_rate, loss (nats a token, mean over the training), seconds; `held_out ROLE`
        and `held_out ROLE before`, nats a token.

    Raises:
        DataError: SFT_EMPTY, no examples, or one without prompt or action.
        BackboneError: the folder holds no model that loads. UsageError: UNKNOWN_TARGET.
    """
    import torch
    from datasets import Dataset

    from jade_graph.backbones.codec import read_json
    from jade_graph.backbones.weights import choose_device, load_model, quiet
    from jade_training.learner.adapters import trainable
    from jade_training.learner.logits import random_state_kept
    from jade_training.learner.trl_ import SupervisedTrainer, arguments, ordered

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

        model = load_model(source, target, torch.bfloat16 if lora and bf16 else torch.float32)
        with quiet():
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    stored = getattr(model.config, "dtype", None) or torch.float32
    with random_state_kept():
        torch.manual_seed(seed)  # what adapters begin with
        model = trainable(model, lora)
    rate = learning_rate_for(sum(p.numel() for p in model.parameters()), lora is not None)
    cache = getattr(model.config, "use_cache", None)
    groups = _groups(examples, micro_tokens, seed, passes=math.ceil(epochs)) if micro_tokens else None
    table = Dataset.from_dict(
        {
            "input_ids": [[*prompt, *action] for prompt, action in examples],
            "labels": [[-100] * len(prompt) + list(action) for prompt, action in examples],
        }
    )
    micro = micro_rows or batch_rows
    accumulated = max(1, batch_rows // micro)
    if groups is not None:
        mean_rows = sum(map(len, groups)) / len(groups)
        accumulated = max(1, round(batch_rows / mean_rows))
        steps = steps or max(1, round(len(groups) * epochs / math.ceil(epochs) / accumulated))
    chosen: dict[str, Any] = {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulated,
        "num_train_epochs": epochs,
        "max_steps": steps or -1,
        "learning_rate": rate if learning_rate is None else learning_rate,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "bf16": bf16,
        "seed": seed,
        "use_cpu": target.type == "cpu",
    }
    told = _held_out(model, held_out or {}, bf16, " before")
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
        if progress is not None:
            trainer.add_callback(_watch(progress))
        if groups is not None:
            ordered(trainer, groups)
        result = trainer.train()
    vars(model).pop("forward", None)  # TRL's fused head
    model.eval()
    if cache is not None:
        model.config.use_cache = cache
    told |= _held_out(model, held_out or {}, bf16)
    if out is not None:
        if lora is not None:
            with quiet():
                model.save_pretrained(Path(out) / "adapter", safe_serialization=True)
            model = model.merge_and_unload()
        _save(model.to(stored) if source is not None and lora else model, tokenizer, source, Path(out))
        if profile is not None:
            about = {**read_json(Path(out) / "jade.json"), "profile": profile}
            (Path(out) / "jade.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    return {
        "examples": float(len(examples)),
        "tokens": float(sum(len(prompt) + len(action) for prompt, action in examples)),
        "steps": float(result.global_step),
        "learning_rate": float(chosen["learning_rate"]),
        "loss": float(result.training_loss),
        "seconds": float(result.metrics["train_runtime"]),
        **told,
    }


def _groups(examples: Sequence[Pair], tokens: int, seed: int, *, passes: int) -> list[list[int]]:
    """Places of examples of like length, at most so many tokens with padding together; in a random order, each pass
    anew.
    """
    rng = random.Random(f"sft groups {seed}")
    out: list[list[int]] = []
    for _ in range(passes):
        # A little noise, so that examples of like length do not meet the same neighbours in every pass.
        length = [(len(p) + len(a)) * rng.uniform(0.9, 1.1) for p, a in examples]
        groups: list[list[int]] = [[]]
        longest = 0
        for i in sorted(range(len(examples)), key=length.__getitem__):
            longest = max(longest, len(examples[i][0]) + len(examples[i][1]))
            if groups[-1] and longest * (len(groups[-1]) + 1) > tokens:
                groups.append([])
                longest = len(examples[i][0]) + len(examples[i][1])
            groups[-1].append(i)
        rng.shuffle(groups)
        out += groups
    return out


def _held_out(model: Any, by_role: Mapping[str, Sequence[Pair]], bf16: bool, suffix: str = "") -> dict[str, float]:
    """Mean loss of each role's action tokens, in nats."""
    import torch

    out: dict[str, float] = {}
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for role, pairs in sorted(by_role.items()):
            total, count = 0.0, 0
            for prompt, action in pairs:
                ids = torch.tensor([[*prompt, *action]], device=device)
                logits = model(ids, logits_to_keep=len(action) + 1, use_cache=False).logits[0, :-1].float()
                total -= logits.log_softmax(-1).gather(-1, ids[0, -len(action) :, None]).sum().item()
                count += len(action)
            out[f"held_out {role}{suffix}"] = total / max(count, 1)
    return out


def _watch(progress: Callable[[int, int], None]) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            del args, control, rest
            progress(state.global_step, state.max_steps)

    return Watch()


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
