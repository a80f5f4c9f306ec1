"""The PPO trainer: recorded runs in, better weights out, one `update` an iteration.

Invariant: the weights after an update depend on the start weights, the settings and the rows alone: not on the order of
the runs, the size of the micro-batches, or whether training was stopped and resumed in between. Weights of roles are
shared; rows of roles that are not trained enter no gradient.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jade_graph.backbones.weights import choose_device, load_model, quiet
from jade_graph.errors import ConfigError, DataError
from jade_training.learner import saving
from jade_training.learner.adapters import trainable
from jade_training.learner.advantages import estimate
from jade_training.learner.allocator import handed_back
from jade_training.learner.logits import Pair, Reader, few_threads, random_state_kept, without_dropout
from jade_training.learner.meter import Writer, describe
from jade_training.learner.objective import Objective
from jade_training.learner.planwise import Comparison, comparisons
from jade_training.learner.ppo import PPOConfig
from jade_training.learner.rows import PLANNER, rows_of
from jade_training.learner.trl_ import BaseTrainer, arguments
from jade_training.learner.value import ValueHead

if TYPE_CHECKING:
    from jade_graph.scoring.rewards import Scored
    from jade_graph.types import Run


class Clipped(NamedTuple):
    """Gradients in the order of the parameters, scaled down to `max_grad_norm`, and their norm before that."""

    gradients: list[Tensor | None]
    norm: float


class PPOTrainer(BaseTrainer):
    """Trains one causal LM on the actions of its roles.

    Args:
        model: a transformers causal LM, changed in place (full weights: cast to float32), or its folder.
        config: see `PPOConfig`.
        tokenizer: only to be exported with the weights; of a folder it is found there.
        out: where `metrics.jsonl` grows; None: nowhere.
        roles: whose rows train (None: all). The others' are left out.
        replay: demonstrations (prompt ids, action ids), for `replay_coef`.
        bank: prompts with an action of the reference, all roles', for `bank_kl_coef`.
        reference: pi_ref; None: the model as it is now (with adapters: the model without them).
        mlflow: log metrics to the MLflow run that is active.
        device: "cuda" or "cpu"; None: what there is.

    Raises:
        ConfigError: TRAIN_SHARDED, weights that are sharded over processes (FSDP, DeepSpeed).
        BackboneError: the folder holds no model that loads, or there is no such device.
    """

    def __init__(
        self,
        model: Any,
        config: PPOConfig | None = None,
        *,
        tokenizer: Any = None,
        out: Path | str | None = None,
        roles: frozenset[str] | None = None,
        replay: Sequence[Pair] = (),
        bank: Sequence[Pair] = (),
        reference: Any = None,
        mlflow: bool = False,
        device: str | None = None,
    ) -> None:
        self.settings = config or PPOConfig()
        self.roles = roles
        self.source: Path | None = None
        target = choose_device(device)
        if isinstance(model, str | Path):
            from transformers import AutoTokenizer

            self.source = Path(model)
            model = load_model(self.source, target, torch.float32)
            with quiet():
                tokenizer = tokenizer or AutoTokenizer.from_pretrained(str(self.source), local_files_only=True)
        cache = getattr(model.config, "use_cache", None)
        wanted = self.settings.kl_coef > 0 or (self.settings.bank_kl_coef > 0 and bool(bank))
        if reference is None and wanted and self.settings.lora is None:
            reference = copy.deepcopy(model)
        with random_state_kept():
            torch.manual_seed(self.settings.seed)  # of what adapters start from
            model = trainable(model, self.settings.lora)
            self.value = ValueHead(_width(model))
            chosen: dict[str, Any] = {"seed": self.settings.seed, "use_cpu": target.type == "cpu", "max_grad_norm": 0.0}
            super().__init__(model=model, args=arguments(per_device_train_batch_size=1, num_train_epochs=1, **chosen))
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                "weights sharded over processes are not supported: each holds the whole model.",
                code="TRAIN_SHARDED",
                hint="accelerate launch --multi_gpu, or lora",
            )
        if cache is not None:
            self.model.config.use_cache = cache
        self.tokenizer = tokenizer
        without_dropout(self.model)
        if not any(getattr(m, "gradient_checkpointing", False) for m in self.model.modules()):
            self.model.eval()
        self.device = next(self.model.parameters()).device
        self.value.to(self.device)
        bf16 = self.settings.bf16
        if reference is not None:
            reference = Reader(reference.to(self.device).eval().requires_grad_(False), bf16=bf16)
        self.objective = Objective(
            Reader(self.model, bf16=bf16),
            self.value,
            self.settings,
            reference=reference,
            replay=replay,
            bank=bank,
            device=self.device,
        )
        self.updates = 0
        self.comparisons: list[Comparison] = []
        self.rng = np.random.default_rng(self.settings.seed)
        self.optimizer, self.lr_scheduler = self._optimizer()
        # Adam divides by the size of past gradients, and those of compared plans are many times those of rows: with one
        # state for both, what carries out plans would learn at a fraction of the rate.
        self.plan_optimizer, _ = self._optimizer()
        self._writer = Writer(Path(out) if out is not None else None, mlflow=mlflow)
        # Trainer frees what a former loop left: here nothing, for a full garbage collection an update.
        self.accelerator.free_memory = lambda *objects: list(objects)
        # Printing, progress bars and flow by epochs belong to the caller.
        self.callback_handler.callbacks = self.callback_handler.callbacks[:0]

    # --- one iteration ------------------------------------------------------------------------------------------------
    def update(
        self,
        runs: Sequence[Run],
        scored: Mapping[str, Scored],
        *,
        version: str | None = None,
        step: int | None = None,
    ) -> dict[str, float]:
        """Train on the runs of one iteration.

        Args:
            runs, scored: recorded runs and what they earned; unscored ones are left out.
            version: the backbone version that these weights have, if stale rows are to be refused.
            step: number for the metrics; None: updates done before.

        Returns:
            metrics by name, as `meter.describe` lists them. Also a line of metrics.jsonl.

        Raises:
            DataError: those of `rows_of`; ROWS_EMPTY (nothing to train on); LOGPROBS_DIFFER (the rows were not sampled
                from these weights at this temperature); TRAIN_NOT_FINITE (loss or gradient). The weights are then
                those of the last good optimiser step.
        """
        with few_threads(self.model), handed_back():
            return self._update(runs, scored, version, step)

    def _update(
        self, runs: Sequence[Run], scored: Mapping[str, Scored], version: str | None, step: int | None
    ) -> dict[str, float]:
        began = time.monotonic()
        every = rows_of(runs, scored, version=version)
        rows = [r for r in every if self.roles is None or r.role in self.roles]
        plans: list[Comparison] = []
        if self.settings.plan_temperature is not None:
            recent = [c for c in self.comparisons if c.update > self.updates - self.settings.plan_memory]
            plans = [*recent, *comparisons(rows, self.updates)]
            rows = [r for r in rows if r.role != PLANNER]
        if not rows and not plans:
            raise DataError(
                f"{len(runs)} runs give no row to train on.",
                code="ROWS_EMPTY",
                hint="score the runs, and check which roles are trainable",
            )
        for group in [*self.optimizer.param_groups, *self.plan_optimizer.param_groups]:
            group["lr"] = group["initial_lr"] * self.settings.rate(self.updates)
        objective = self.objective
        values = objective.values(every) if self.settings.estimator == "gae" else None
        penalties = objective.begin(rows)
        found = estimate(rows, runs, scored, self.settings, values=values, penalties=penalties)
        objective.credit(found, values)
        self.comparisons = plans
        objective.compare(plans, self.updates)
        self.train_dataset = self._minibatches(len(rows))
        self.train()
        self.updates += 1
        seconds = time.monotonic() - began
        metrics = {
            **describe(objective.meter, rows, runs, scored, found, values),
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": seconds,
            "tokens_per_s": objective.meter.read / seconds,
            "update": float(self.updates),
        }
        if self.is_world_process_zero():
            self._writer(metrics, self.updates - 1 if step is None else step)
        self.train_dataset = []
        return metrics

    def _minibatches(self, rows: int) -> list[dict[str, list[int]]]:
        """Indices of the rows, demonstrations and bank prompts of each mini-batch, drawn by the trainer's generator."""
        c, found = self.settings, list[dict[str, list[int]]]()
        for _ in range(c.epochs):
            count = -(-rows // c.minibatch_rows) if c.minibatch_rows else c.minibatches
            for part in self._parted(rows, count):
                replay = self._drawn(len(self.objective.replay), c.replay_rows if c.replay_coef else 0)
                bank = self._drawn(len(self.objective.bank), c.bank_rows if c.bank_kl_coef else 0)
                plans = self._drawn(len(self.objective.plans), c.plan_questions)
                found.append({"rows": part, "plans": plans, "replay": replay, "bank": bank})
        return found

    def _parted(self, rows: int, count: int) -> list[list[int]]:
        """All rows in so many parts of like size (fewer, where there are fewer rows or questions), in random order."""
        if not self.settings.by_question:
            order = self.rng.permutation(rows)
            return [part.tolist() for part in np.array_split(order, min(count, rows) or count)]
        own: dict[str, list[int]] = {}
        for i, row in enumerate(self.objective.rows):
            own.setdefault(row.question_id, []).append(i)
        questions = [list(own.values())[i] for i in self.rng.permutation(len(own))]
        parts = np.array_split(np.arange(len(own)), min(count, len(own)) or count)
        return [[i for q in part for i in questions[q]] for part in parts]

    def _drawn(self, size: int, count: int) -> list[int]:
        return self.rng.choice(size, min(count, size), replace=False).tolist() if size and count else []

    # --- one optimiser step: a whole mini-batch, in as many micro-batches as memory wants ---------------------------
    def training_step(self, model: Any, inputs: Mapping[str, Any], num_items_in_batch: Any = None) -> Tensor:
        del num_items_in_batch
        self.optimizer.zero_grad(set_to_none=True)
        c, rank, world = self.settings, self.accelerator.process_index, self.accelerator.num_processes
        o = self.objective
        tokens = sum(len(o.rows[i].action) for i in inputs["rows"])
        parts: list[dict[str, Any]] = []
        for kind in ("rows", "plans", "replay", "bank"):
            shared = {"kind": kind, "count": len(inputs[kind]), "tokens": tokens}
            parts += [{**shared, "at": at} for at in o.cut(kind, inputs[kind][rank::world])]
        o.meter.open()
        loss, plans = torch.zeros((), device=self.device), Clipped([], 0.0)
        if inputs["plans"]:
            loss += self._gradient(model, [part for part in parts if part["kind"] == "plans"])
            norm = torch.nn.utils.clip_grad_norm_(self._parameters(), c.max_grad_norm)
            plans = Clipped([p.grad for p in self._parameters()], float(norm))
            self.optimizer.zero_grad(set_to_none=True)
        loss += self._gradient(model, [part for part in parts if part["kind"] != "plans"])
        if world > 1:
            self._reduce(*o.meter.sums())
        planned = sum(len(plan) for i in inputs["plans"] for plan in o.plans[i].plans)
        self._step_or_stop(loss, plans, len(inputs["rows"]), tokens + planned)
        return loss

    def _gradient(self, model: Any, parts: Sequence[Mapping[str, Any]]) -> Tensor:
        """Add the gradient of some micro-batches to the parameters'. Returns their loss."""
        total = torch.zeros((), device=self.device)
        for part in parts:
            loss = self.compute_loss(model, part)
            self.accelerator.backward(loss)
            total += loss.detach()
        if self.accelerator.num_processes > 1:
            for p in self._parameters():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                self._reduce(p.grad)
            self._reduce(total)
        return total

    def _step_or_stop(self, loss: Tensor, plans: Clipped, rows: int, tokens: int) -> None:
        """Check the mini-batch before anything is moved, and step on the gradient of its plans.

        The step on the rest, which is the parameters' gradient now, is the base class's. Both gradients are of the same
        weights.
        """
        c, meter = self.settings, self.objective.meter
        seen = meter.minibatch()
        if meter.steps == 0 and c.logprob_tolerance is not None and seen["drift"] > c.logprob_tolerance:
            raise DataError(
                f"log-probabilities differ from the recorded ones by {seen['drift']:.3g} nats a token on average "
                "before any training.",
                code="LOGPROBS_DIFFER",
                hint="train the very weights that sampled, at the same temperature (logprob_tolerance to allow it)",
            )
        if c.target_kl is not None and meter.steps > 0 and seen["kl"] > c.target_kl:
            self.optimizer.zero_grad(set_to_none=True)  # parameters without gradient are left as they are
            self.control.should_training_stop = True
            meter.stopped = True
            return
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters(), c.max_grad_norm))
        if not all(map(math.isfinite, (float(loss), norm, plans.norm))):
            self.optimizer.zero_grad(set_to_none=True)
            raise DataError(
                f"loss {float(loss):g} or gradient norm {max(norm, plans.norm):g} is no finite number.",
                code="TRAIN_NOT_FINITE",
                hint="a smaller learning_rate, or float32 (bf16 off)",
            )
        if plans.gradients:
            own = [p.grad for p in self._parameters()]
            self._put(plans.gradients)
            self.plan_optimizer.step()
            self._put(own)
        meter.close(norm, plans.norm, rows, tokens)

    def _put(self, gradients: Sequence[Tensor | None]) -> None:
        for p, gradient in zip(self._parameters(), gradients, strict=True):
            p.grad = gradient

    @staticmethod
    def _reduce(*tensors: Tensor) -> None:
        """Several processes had a share of the mini-batch each: sum what they found, in place."""
        import torch.distributed as dist

        for tensor in tensors:
            dist.all_reduce(tensor)

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The part of a mini-batch's loss that one micro-batch makes; the parts sum to the whole."""
        del model, return_outputs, num_items_in_batch
        return self.objective.loss(**inputs)

    # --- weights ------------------------------------------------------------------------------------------------------
    def save_checkpoint(self, folder: Path | str) -> None:
        """Write all that `load_checkpoint` needs to go on with the same numbers; whole or not at all."""
        saving.save(Path(folder), self)

    def load_checkpoint(self, folder: Path | str) -> None:
        """Go on from a checkpoint. The trainer must be made from the same start model, which stays the reference.

        Raises:
            DataError: CHECKPOINT_MISSING, CHECKPOINT_DIFFERS (other weights: another model, or other adapters).
        """
        saving.load(Path(folder), self)

    def export(self, folder: Path | str, *, dtype: str = "float32", model: Any = None) -> Path:
        """Write the policy (or `model` in its place, such as a merge of its checkpoints) as a Hugging Face folder:
        adapters merged, with tokenizer, jade.json and value head.

        Raises `BackboneError` EXPORT_DIFFERS where what was written computes other numbers than what was trained.
        """
        return saving.export(Path(folder), self, dtype, model)

    def named_trainable(self) -> dict[str, Tensor]:
        """Every tensor that the optimiser moves, by name."""
        found = {f"policy.{n}": p for n, p in self.model.named_parameters() if p.requires_grad}
        return found | {f"value.{n}": p for n, p in self.value.named_parameters()}

    def _parameters(self) -> list[Tensor]:
        return list(self.named_trainable().values())

    def _optimizer(self) -> tuple[torch.optim.Optimizer, Any]:
        c, named = self.settings, self.named_trainable()
        policy = [p for n, p in named.items() if n.startswith("policy.")]
        groups = [
            {"params": [p for p in policy if p.ndim > 1], "weight_decay": c.weight_decay, "lr": c.learning_rate},
            {"params": [p for p in policy if p.ndim < 2], "weight_decay": 0.0, "lr": c.learning_rate},
            {
                "params": list(self.value.parameters()),
                "weight_decay": 0.0,
                "lr": c.value_learning_rate or c.learning_rate,
            },
        ]
        groups = [g for g in groups if g["params"]]
        optimizer = torch.optim.AdamW(groups, betas=c.betas, fused=self.device.type in ("cpu", "cuda"))
        # Within an update the rate is constant: the schedule counts updates, so every step gives the same factor.
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: c.rate(self.updates))

    # --- what of the base class's loop is not wanted ----------------------------------------------------------------
    def get_train_dataloader(self) -> Any:
        """Whole mini-batches, in order. Not handed to accelerate: `training_step` shares each among the processes."""
        batches: Any = self.train_dataset
        return torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        del max_steps, resume_from_checkpoint  # no wrapper: gradients are summed in `_reduce`
        return self.model, train_dataloader

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        del model, grad_norm
        return 0.0

    def floating_point_ops(self, inputs: Any) -> int:
        del inputs
        return 0

    def log(self, logs: Any, start_time: float | None = None) -> None:
        """Metrics are returned and written by `update`."""


def _width(model: Any) -> int:
    return int(model.config.get_text_config().hidden_size)
