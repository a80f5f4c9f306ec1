"""Warm start: supervised fine-tuning on actions that were good, before anything is learned from rewards.

Invariant: only action tokens are learned; ids are those that the engine gives and the model emits, the end token
included, and nothing is tokenised again here.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jade_graph.errors import ConfigError, DataError
from jade_training.supervised.batches import Pair, collate, digest, grouped, held_out_loss
from jade_training.supervised.entrodrop import Dropping, EntroDrop, eligible, entropies
from jade_training.supervised.keeping import keeping

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored
    from jade_graph.types import Run, Transition
    from jade_training.learner.ppo import Lora
    from jade_training.supervised.demonstrations import Demonstration


Schedule = Literal["linear", "constant"]

CHECKPOINT = "checkpoint"
"""Of a run that was cut off, in its `out`."""
FIGURES = ("loss", "learning_rate", "grad_norm")


def examples_of(
    runs: Sequence[Run], scored: Mapping[str, Scored], minimum: float, *, roles: frozenset[str] | None = None
) -> list[Pair]:
    """The legal, finished actions of runs whose outcome is at least `minimum`; each (prompt, action) once.

    Args:
        scored: by run id; an unscored run gives nothing.
        roles: only these (None: every trainable role).
    """
    good = good_actions(runs, scored, minimum, roles=roles)
    return list(dict.fromkeys((tuple(t.prompt_token_ids), tuple(t.action_token_ids)) for t in good))


def good_actions(
    runs: Sequence[Run], scored: Mapping[str, Scored], minimum: float, *, roles: frozenset[str] | None = None
) -> Iterator[Transition]:
    """What `examples_of` takes, as it was recorded; an action may come more than once."""
    for run in runs:
        score = scored.get(run.id)
        if score is None or score.outcome is None or math.fsum(score.outcome.values()) < minimum:
            continue
        for t in run.transitions:
            if t.learns and t.valid and not t.truncated and (roles is None or t.role in roles):
                yield t


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
    log: Callable[[Mapping[str, float], int], None] | None = None,
    save_every: int | None = None,
    keep: int = 0,
    schedule: Schedule = "linear",
    entrodrop: EntroDrop | None = None,
    cache: Path | None = None,
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
        micro_tokens: instead of `micro_rows`: a step's examples of like length together, at most so many tokens with
            their padding at a time.
        learning_rate: of AdamW, after `warmup_steps`; None: `learning_rate_for`.
        schedule: whether the rate falls, linearly to 0, or stays, to be merged afterwards (docs: wsm).
        lora: train adapters beside the weights instead of these.
        bf16: mixed precision; with `lora` the weights themselves are held in bfloat16.
        held_out: examples by role: their loss before and after is told, and nothing is learned from them.
        profile: prompt profile of the examples, written beside the model; None: that of the start.
        progress: called with (steps, all).
        log: called with figures (loss, nats a token; learning_rate; grad_norm) and the step.
        save_every: steps between checkpoints in `out/checkpoint`: the same call goes on from the last one, and comes to
            the same weights. It is taken away at the end.
        keep: how many models of the last checkpoints stay in `out/models`, by step: `jade merge out`. With `lora` they
            are adapters.
        entrodrop: hide predictable action tokens, more of them as training goes on; None: hide none.
        cache: folder in which the start's entropies are kept, by content.
        seed: of the order.

    Returns:
        examples, tokens, steps, learning_rate, loss (nats a token, mean over the training; of this process's steps
        where it went on), padding (share of the places that a model reads), seconds; `held_out ROLE` and
        `held_out ROLE before`, nats a token; with `entrodrop` what `Dropping.figures` says.

    Raises:
        DataError: SFT_EMPTY, no examples, or one without prompt or action.
        ConfigError: SFT_CHANGED, `out` holds a checkpoint of other settings, examples or another start.
        BackboneError: the folder holds no model that loads. UsageError: UNKNOWN_TARGET.
    """
    import torch
    from datasets import Dataset

    from jade_graph.backbones.folders import content_version
    from jade_graph.backbones.merging import answers, merged, require_like
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
    name = "" if source is None else content_version(source)
    dropping = None
    if entrodrop is not None:
        special = frozenset(getattr(tokenizer, "all_special_ids", ()))
        found = entropies(model, examples, name=name, cache=cache)
        dropping = Dropping(entrodrop, eligible(entrodrop, found, examples, special), seed)
    with random_state_kept():
        torch.manual_seed(seed)  # what adapters begin with
        model = trainable(model, lora)
    rate = learning_rate_for(sum(p.numel() for p in model.parameters()), lora is not None)
    cache = getattr(model.config, "use_cache", None)
    groups, accumulated = None, 1
    if micro_tokens:
        passes = math.ceil(epochs) if steps is None else math.ceil(steps * batch_rows / len(examples)) + 1
        groups, accumulated = grouped(examples, micro_tokens, batch_rows, seed, passes=passes)
    padded = _padding(examples, groups) if groups else 0.0
    table = Dataset.from_dict(
        {
            "input_ids": [[*prompt, *action] for prompt, action in examples],
            "labels": [[-100] * len(prompt) + list(action) for prompt, action in examples],
            **(dropping.columns(examples) if dropping is not None else {}),
        }
    )
    micro = micro_rows or batch_rows
    if groups is None:
        accumulated = max(1, batch_rows // micro)
    else:
        steps = steps or max(1, round(len(groups) / accumulated * epochs / passes))
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
    facts = {"settings": chosen, "lora": None if lora is None else asdict(lora), "examples": digest(examples)}
    facts |= {"start": name or None}
    if entrodrop is not None:
        facts["entrodrop"] = asdict(entrodrop)
    if schedule == "constant":
        chosen["lr_scheduler_type"] = "constant_with_warmup"
    kept, resumed = _checkpoint(out, save_every, facts)
    if kept is not None:
        chosen |= {"output_dir": str(kept), "save_strategy": "steps", "save_steps": save_every, "save_total_limit": 1}
    if log is not None:
        chosen |= {"logging_strategy": "steps", "logging_steps": 1}
    told = held_out_loss(model, held_out or {}, bf16, " before")
    with random_state_kept(), _no_bars(), quiet():
        trainer: Any = SupervisedTrainer(
            model=model,
            args=arguments(supervised=True, saves=kept is not None, **chosen),
            train_dataset=table,
            processing_class=tokenizer,
            data_collator=collate,
        )
        trainer.callback_handler.callbacks = [
            c for c in trainer.callback_handler.callbacks if type(c).__name__ == "DefaultFlowCallback"
        ]
        trainer.dropping = dropping
        before = _seconds(kept)
        if keep and out is not None and save_every is not None:
            save = partial(_keep, model, tokenizer, source, profile)
            trainer.add_callback(keeping(Path(out), keep, save_every, save))
        trainer.add_callback(_watch(progress, log, kept, before))
        if groups is not None:
            ordered(trainer, groups)
        result = trainer.train(resume_from_checkpoint=resumed)
    vars(model).pop("forward", None)  # TRL's fused head, which is not used
    model.eval()
    if cache is not None:
        model.config.use_cache = cache
    told |= held_out_loss(model, held_out or {}, bf16)
    if out is not None:
        if lora is not None:
            with quiet():
                model.save_pretrained(Path(out) / "adapter", safe_serialization=True)
        wanted = answers(model)
        model = merged(model) if lora is not None else model
        _save(model.to(stored) if source is not None and lora else model, tokenizer, source, Path(out))
        require_like(Path(out), wanted)
        _speak(Path(out), profile)
    if kept is not None:
        shutil.rmtree(kept)
    return {
        "examples": float(len(examples)),
        "tokens": float(sum(len(prompt) + len(action) for prompt, action in examples)),
        "steps": float(result.global_step),
        "learning_rate": float(chosen["learning_rate"]),
        "loss": float(result.training_loss),
        "padding": padded,
        "seconds": before + float(result.metrics["train_runtime"]),
        **told,
        **(dropping.figures() if dropping is not None else {}),
    }


def _padding(examples: Sequence[Pair], groups: Sequence[Sequence[int]]) -> float:
    """Share of the places in groups that hold padding."""
    lengths = [[len(examples[i][0]) + len(examples[i][1]) for i in group] for group in groups]
    return 1.0 - sum(map(sum, lengths)) / sum(max(group) * len(group) for group in lengths)


def _checkpoint(out: Path | str | None, every: int | None, facts: Mapping[str, Any]) -> tuple[Path | None, str | None]:
    """Where checkpoints go, and the one to go on from. Raises `ConfigError` SFT_CHANGED."""
    if out is None or every is None:
        return None, None
    folder = Path(out) / CHECKPOINT
    about = folder / "facts.json"
    now = json.loads(json.dumps(facts, default=str))
    if about.exists():
        if json.loads(about.read_text("utf-8")) != now:
            raise ConfigError(
                f"{str(folder)!r} is a checkpoint of other settings, examples or another start.",
                code="SFT_CHANGED",
                hint="another --out folder, or --fresh to begin again",
            )
        return folder, _last(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
    return folder, None


def _last(folder: Path) -> str | None:
    """The newest checkpoint that is whole: its state is written last."""
    found = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def _seconds(folder: Path | None) -> float:
    """What the steps up to the last checkpoint took, in all processes that made them."""
    path = None if folder is None else folder / "seconds"
    return float(path.read_text("utf-8")) if path is not None and path.exists() else 0.0


def _watch(
    progress: Callable[[int, int], None] | None,
    log: Callable[[Mapping[str, float], int], None] | None,
    kept: Path | None,
    before: float,
) -> Any:
    from transformers import TrainerCallback

    began = time.monotonic()

    class Watch(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            del args, state, control, rest
            if kept is not None:
                (kept / "seconds").write_text(f"{before + time.monotonic() - began:.1f}\n", "utf-8")

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            del args, control, rest
            if progress is not None:
                progress(state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            del args, control, rest
            if log is not None:
                log({k: v for k, v in (logs or {}).items() if k in FIGURES}, state.global_step)

    return Watch()


def _save(model: Any, tokenizer: Any, source: Path | None, out: Path) -> None:
    from jade_graph.backbones.weights import quiet

    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(out, safe_serialization=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    if source is not None and (source / "jade.json").is_file() and source.resolve() != out.resolve():
        shutil.copy(source / "jade.json", out / "jade.json")


def _keep(model: Any, tokenizer: Any, source: Path | None, profile: str | None, out: Path) -> None:
    """A model on the way: of adapters these alone."""
    _save(model, tokenizer, source, out)
    _speak(out, profile)


def _speak(out: Path, profile: str | None) -> None:
    """Write down which prompt profile the model was taught in."""
    from jade_graph.backbones.codec import read_json

    if profile is not None:
        about = {**read_json(out / "jade.json"), "profile": profile}
        (out / "jade.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")


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
