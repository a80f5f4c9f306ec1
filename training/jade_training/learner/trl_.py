"""Every import from TRL, and nothing else that knows it.

Invariant: TRL's private base classes are named here only. Where TRL is missing, or has moved one,
`transformers.Trainer` takes its place and the numbers stay the same; nothing is sent home either way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
import transformers


def _found(module: str, name: str, otherwise: Any) -> Any:
    """`module.name`, or `otherwise` where this version of TRL (or none) does not have it."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return otherwise


def _disable_dropout(model: torch.nn.Module) -> None:
    """Set the probability of every dropout layer to 0."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


_Base: Any = _found("trl.trainer.base_trainer", "_BaseTrainer", transformers.Trainer)
_Supervised: Any = _found("trl.trainer.sft_trainer", "SFTTrainer", transformers.Trainer)
_SupervisedConfig: Any = _found("trl.trainer.sft_config", "SFTConfig", transformers.TrainingArguments)
disable_dropout: Any = _found("trl.trainer.utils", "disable_dropout_in_model", _disable_dropout)

SUPERVISED_BY_TRL = _Supervised is not transformers.Trainer


class BaseTrainer(_Base):  # type: ignore[misc]
    """TRL's base trainer (or `transformers.Trainer`) that sends no telemetry, whatever the environment says."""

    def _send_telemetry(self) -> None:
        return None


class SupervisedTrainer(_Supervised):  # type: ignore[misc]
    """TRL's SFTTrainer (or `transformers.Trainer`) without telemetry, and with a loss that reads no prompt's logits.

    Rows are padded on the left, so that actions end together: the head works at their places alone. On a vocabulary of
    49,152 the fused head of TRL took 40 % of a step.
    """

    dropping: Any = None
    """Hides tokens from the model (`jade_training.supervised.entrodrop.Dropping`)."""

    def _send_telemetry(self) -> None:
        return None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of the action tokens' losses over their number in the whole batch, all micro-batches together."""
        if self.dropping is not None:
            inputs = self.dropping.apply(model, inputs, self.state.global_step, self.state.max_steps)
        given = {name: value for name, value in inputs.items() if name != "labels"}
        labels = inputs["labels"]
        learned = labels.ne(-100)
        first = int(learned.any(0).nonzero()[0]) if bool(learned.any()) else labels.shape[1] - 1
        kept = labels.shape[1] - first
        outputs = model(**given, logits_to_keep=kept + 1, use_cache=False)
        logits = outputs.logits[:, -kept - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, -kept:].flatten(), ignore_index=-100, reduction="sum"
        )
        count = learned.sum() if num_items_in_batch is None else num_items_in_batch
        loss = loss / torch.as_tensor(count).clamp(min=1)
        return (loss, outputs) if return_outputs else loss


def _quiet(config: Any) -> Any:
    """The class of arguments, for a trainer whose caller saves and logs: no folder is made."""

    class Quiet(config):  # type: ignore[misc]
        @property
        def should_save(self) -> bool:
            return False

    return Quiet


_Arguments, _SupervisedArguments = _quiet(transformers.TrainingArguments), _quiet(_SupervisedConfig)


def arguments(*, supervised: bool = False, saves: bool = False, **chosen: Any) -> Any:
    """Training arguments in which all that would log, save, report, recompute or cast by default is off.

    Args:
        supervised: of the class that `SupervisedTrainer` takes.
        saves: write checkpoints, as `chosen` says.
        chosen: what differs: seed, use_cpu, learning_rate..
    """
    own: dict[str, Any] = {
        "output_dir": "unused",
        "bf16": False,
        "fp16": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "logging_nan_inf_filter": False,
    }
    if saves:
        build = _SupervisedConfig if supervised else transformers.TrainingArguments
    else:
        build = _SupervisedArguments if supervised else _Arguments
    new, old = "activation_checkpointing", "gradient_checkpointing"  # renamed in transformers 5
    own[new if new in build.__dataclass_fields__ else old] = False
    if supervised and SUPERVISED_BY_TRL:
        own["max_length"] = None
    return build(**{**own, **chosen})


class _Places(torch.utils.data.Sampler[list[int]]):
    """Batches that were made beforehand."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self._batches = [list(batch) for batch in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


def ordered(trainer: Any, batches: Sequence[Sequence[int]]) -> None:
    """Let a trainer take these batches (places in its data set), in this order, instead of drawing its own."""

    def loader() -> Any:
        made = torch.utils.data.DataLoader(
            trainer.train_dataset, batch_sampler=_Places(batches), collate_fn=trainer.data_collator
        )
        return trainer.accelerator.prepare(made)

    trainer.get_train_dataloader = loader
