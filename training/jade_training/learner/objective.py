"""What an update minimises: the numbers that its rows need, and the loss of any part of a mini-batch.

Invariant: what the old and the reference policy say is computed once an update, before any step; the losses of parts of
a mini-batch sum to that of the whole. Nothing here moves a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jade_training.learner import ppo
from jade_training.learner.advantages import Estimate
from jade_training.learner.logits import Packed, Pair, Reader, chunks, distribution, pack
from jade_training.learner.meter import Meter
from jade_training.learner.outcomes import expected
from jade_training.learner.planwise import Comparison, Noise, regression_loss
from jade_training.learner.ppo import PPOConfig
from jade_training.learner.rows import Row
from jade_training.learner.value import ValueHead

Values = dict[tuple[str, int], float]
"""V by (run id, sequence number)."""


class Objective:
    """Losses over the rows of one update at a time.

    Args:
        reader: runs the policy.
        value: the critic.
        config: the settings.
        reference: runs pi_ref; None: the policy without its adapters.
        replay, bank: see `PPOTrainer`.
        device: of the weights.
    """

    def __init__(
        self,
        reader: Reader,
        value: ValueHead,
        config: PPOConfig,
        *,
        reference: Reader | None = None,
        replay: Sequence[Pair] = (),
        bank: Sequence[Pair] = (),
        device: torch.device,
    ) -> None:
        self.reader, self.value, self.config, self.device = reader, value, config, device
        self.replay, self.bank = list(replay), list(bank)
        self.meter = Meter()
        self.rows: list[Row] = []
        self.plans: list[Comparison] = []
        self._noise = Noise([], 0.0)
        self._update = 0
        self._reference = reference
        self._bank_reference: dict[int, Tensor] = {}
        self._numbers: dict[str, Tensor] = {}
        self._reference_logprobs: list[Tensor] = []

    # --- an update's rows -----------------------------------------------------------------------------------------
    def begin(self, rows: Sequence[Row]) -> Any:
        """Take the rows of an update. Returns further rewards of each (KL to the reference, as "k1"), or None."""
        self.rows = list(rows)
        self.meter = Meter(sorted({r.role for r in rows}))
        self._reference_logprobs = self._referenced(rows)
        return self._penalties(rows)

    def compare(self, plans: Sequence[Comparison], update: int) -> None:
        """Take what the planner learns from in this update."""
        self.plans = expected(plans, self.config.plan_shrinkage, halflife=self.config.plan_halflife)
        self._update = update
        self._noise = Noise(self.plans, self.config.plan_noise)

    def credit(self, found: Estimate, values: Values | None) -> None:
        """Take advantages, returns, weights and old values of the rows."""
        self._numbers = self._tensors(self.rows, found, values)

    def loss(self, kind: str, at: Sequence[int], count: int, tokens: int) -> Tensor:
        """The share that some "rows", "plans", "replay" or "bank" pairs have in the loss of a mini-batch.

        Args:
            at: which of them.
            count, tokens: how many of the kind, and how many action tokens of rows, the whole mini-batch has.
        """
        if kind == "rows":
            return self._ppo_loss(at, count, tokens)
        return self._plan_loss(at, count) if kind == "plans" else self._held_loss(kind, at, count)

    def cut(self, kind: str, at: Sequence[int]) -> list[list[int]]:
        """Some "rows", "plans", "replay" or "bank" pairs in the groups in which they are read."""
        tokens = self.config.micro_tokens
        if kind == "plans":
            found = chunks([self.plans[i].length(self.reader.fast) for i in at], tokens)
        elif kind == "rows":
            found = self.reader.cut([(self.rows[i].prompt, self.rows[i].action) for i in at], tokens)
        else:
            found = self.reader.cut([(self.replay if kind == "replay" else self.bank)[i] for i in at], tokens)
        return [[at[i] for i in chunk] for chunk in found]

    def _tensors(self, rows: Sequence[Row], found: Estimate, values: Values | None) -> Any:
        """What the losses need, one number a row."""
        names = sorted({r.role for r in rows})
        numbers = {
            "advantages": found.advantages,
            "returns": found.returns,
            "weights": found.weights,
            "values": [values[r.run_id, r.seq] if values else 0.0 for r in rows],
            "off_policy": np.exp([-r.behaviour for r in rows]),
            "temperature": [r.temperature for r in rows],
            "entropy": [self.config.entropy_of(r.role) for r in rows],
        }
        tensors = {k: torch.tensor(np.asarray(v), dtype=torch.float32, device=self.device) for k, v in numbers.items()}
        tensors["role"] = torch.tensor([names.index(r.role) for r in rows], device=self.device)
        sequence = [self.config.ratio_of(r.role) == "sequence" for r in rows]
        return tensors | {"sequence": torch.tensor(sequence, device=self.device)}

    # --- passes without gradient --------------------------------------------------------------------------------------
    @torch.no_grad()
    def values(self, rows: Sequence[Row]) -> Values:
        """V of every row by (run id, seq), before the update. The first time the bias is the mean reward."""
        if not self.value.linear.weight.any() and not self.value.linear.bias.any():
            self.value.set_bias(float(np.mean([r.outcome for r in rows])) if rows else 0.0)
        if not self.value.linear.weight.any():  # every value is the bias: no need to read
            return {(r.run_id, r.seq): float(self.value.linear.bias) for r in rows}
        found: Values = {}
        for chunk in chunks([len(r.prompt) for r in rows], self.config.micro_tokens):
            packed = pack([(rows[i].prompt, rows[i].action[:1]) for i in chunk], self.device)
            values = self.value(self.reader.hidden(packed)).tolist()
            found |= {(rows[i].run_id, rows[i].seq): v for i, v in zip(chunk, values, strict=True)}
        return found

    @torch.no_grad()
    def _referenced(self, rows: Sequence[Row]) -> list[Tensor]:
        """log pi_ref of each row's action tokens, once an update; empty where nothing asks for it."""
        if not self.config.kl_coef:
            return []
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for chunk in self.reader.cut([(r.prompt, r.action) for r in rows], self.config.micro_tokens):
            pairs = [(rows[i].prompt, rows[i].action) for i in chunk]
            packed = pack(pairs, self.device)
            temperature = torch.tensor([rows[i].temperature for i in chunk], device=self.device)
            logs = self._reference_distribution(pairs, packed, temperature)
            own = logs.gather(-1, packed.targets[:, None]).squeeze(-1)
            for i, part in zip(chunk, torch.split(own, packed.lengths.tolist()), strict=True):
                found[i] = part
        return found

    def _reference_distribution(self, pairs: Sequence[Pair], packed: Packed, temperature: Tensor) -> Tensor:
        if self._reference is not None:
            logits, _ = self._reference.read(pairs, packed, self.config.micro_tokens)
        else:
            off: AbstractContextManager[Any] = (
                self.reader.model.disable_adapter() if self.config.lora else nullcontext()
            )
            with off:
                logits, _ = self.reader.read(pairs, packed, self.config.micro_tokens)
        return distribution(logits, temperature[packed.rows])

    def _penalties(self, rows: Sequence[Row]) -> Any:
        if not self.config.kl_coef or self.config.kl_estimator != "k1":
            return None
        old = [torch.tensor(r.old_logprobs, device=self.device) for r in rows]
        sums = [float((o - ref).sum()) for o, ref in zip(old, self._reference_logprobs, strict=True)]
        return -self.config.kl_coef * np.array(sums)

    def _ppo_loss(self, at: Sequence[int], count: int, tokens: int) -> Tensor:
        c, rows = self.config, [self.rows[i] for i in at]
        pairs = [(r.prompt, r.action) for r in rows]
        packed = pack(pairs, self.device)
        n = {k: v[at] for k, v in self._numbers.items()}
        logits, hidden = self.reader.read(pairs, packed, c.micro_tokens)
        logs = distribution(logits, n["temperature"][packed.rows])
        new = logs.gather(-1, packed.targets[:, None]).squeeze(-1)
        old = torch.tensor([x for r in rows for x in r.old_logprobs], device=self.device)
        plain, weights = (
            ppo.token_weights(packed.lengths, packed.rows, w, count=count, tokens=tokens, normalisation=c.normalisation)
            for w in (torch.ones_like(n["weights"]), n["weights"])
        )
        ratios = ppo.log_ratios(new, old, packed.rows, n["sequence"])
        off = n["off_policy"][packed.rows]
        policy, clipped = ppo.clipped_policy_loss(
            ratios, n["advantages"][packed.rows], weights, clip=c.clip, off_policy=off
        )
        coefficients = n["entropy"][packed.rows]
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(n["entropy"].tolist())):
            spread = ppo.entropy(logs)
        loss = policy - (plain * coefficients * spread).sum()
        reference = torch.cat([self._reference_logprobs[i] for i in at]) if self._reference_logprobs else None
        if reference is not None and c.kl_estimator != "k1":
            loss = loss + c.kl_coef * (plain * ppo.kl(new, reference, c.kl_estimator)).sum()
        error = torch.zeros((), device=self.device)
        if c.estimator == "gae" and c.value_coef:
            even = torch.full_like(n["returns"], 1.0 / count)
            error = ppo.value_loss(self.value(hidden), n["values"], n["returns"], even, clip=c.value_clip)
            loss = loss + c.value_coef * error
        self.meter.rows(
            new=new.detach(),
            old=old,
            reference=reference,
            log_ratio=ratios.detach(),
            clipped=clipped,
            entropy=spread.detach(),
            role=n["role"][packed.rows],
            policy=policy.detach(),
            value=error.detach(),
            read=sum(r.length for r in rows),
            computed=self.reader.computed(pairs, c.micro_tokens),
        )
        return loss

    def _plan_loss(self, at: Sequence[int], count: int) -> Tensor:
        # Noise depends on the step and the comparison, not on how the mini-batch is cut.
        step = (self.config.seed, self._update, self.meter.steps)
        batch = [self._noise(self.plans[i], *step, i) for i in at]
        eta = self.config.plan_temperature
        loss = regression_loss(self.reader, batch, eta or 1.0, self.device, self.config.plan_mass) / count
        self.meter.held("plans", loss.detach(), sum(c.length(self.reader.fast) for c in batch))
        return self.config.plan_coef * loss

    def _held_loss(self, kind: str, at: Sequence[int], count: int) -> Tensor:
        """What holds roles to what they knew: demonstrations, or the reference's distribution on fixed prompts."""
        pairs = [(self.replay if kind == "replay" else self.bank)[i] for i in at]
        packed = pack(pairs, self.device)
        one = torch.ones(len(pairs), device=self.device)
        logs = distribution(self.reader.read(pairs, packed, self.config.micro_tokens)[0], one[packed.rows])
        weights = ppo.token_weights(packed.lengths, packed.rows, one, count=count, tokens=1, normalisation="row")
        if kind == "replay":
            loss = -(weights * logs.gather(-1, packed.targets[:, None]).squeeze(-1)).sum()
        else:
            loss = (weights * ppo.full_kl(self._banked(at, pairs, packed, one), logs)).sum()
        self.meter.held(kind, loss.detach(), sum(len(p) + len(a) for p, a in pairs))
        return (self.config.replay_coef if kind == "replay" else self.config.bank_kl_coef) * loss

    @torch.no_grad()
    def _banked(self, at: Sequence[int], pairs: Sequence[Pair], packed: Packed, one: Tensor) -> Tensor:
        if any(i not in self._bank_reference for i in at):
            logs = self._reference_distribution(pairs, packed, one)
            parts = torch.split(logs, packed.lengths.tolist())
            self._bank_reference |= dict(zip(at, parts, strict=True))
        return torch.cat([self._bank_reference[i] for i in at])
