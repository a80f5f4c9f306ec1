"""Draws one token per row and says exactly how likely it was.

Invariant: a row's draws depend on its own logits, parameters and seed, never on its batch mates; the log-probability
returned is that of the drawn token under the very distribution it was drawn from (temperature, nucleus and choices
applied, nothing hidden), and under temperature 1 where the row is greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jade_graph.backbones.trie import Trie, trie_of
from jade_graph.types import Sampling

_MASK64 = 2**64 - 1


class Uniforms:
    """Numbers in [0, 1) by seed: counter-based (Philox 4x64), equal on every machine. Not for several threads.

    `draw(seed, n)` is `Generator(Philox(key=seed)).random(n)`; giving one bit generator a new key is five times
    faster than making one.
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._state: Any = self._bits.state

    def draw(self, seed: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """A longer draw begins with the shorter one: `max_new_tokens` does not change the tokens before the cut."""
        self._state["state"]["key"][0] = seed & _MASK64
        self._bits.state = self._state
        return np.asarray((self._bits.random_raw(count) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def stack_rows(above: Tensor, below: Tensor, fill: float = 0) -> Tensor:
    """The rows of both matrices, the narrower one filled up."""
    missing = below.shape[1] - above.shape[1]
    if missing > 0:
        above = functional.pad(above, (0, missing), value=fill)
    elif missing < 0:
        below = functional.pad(below, (0, -missing), value=fill)
    return torch.cat([above, below])


def move_rows(tensor: Tensor, holes: Tensor, movers: Tensor, count: int) -> Tensor:
    """Fill the `holes` with the rows `movers` in place and keep the first `count` rows."""
    if holes.numel():
        tensor[holes] = tensor[movers]
    return tensor[:count]


class Sampler:
    """The sampling state of a batch of n rows, which `join` it and are `drop`ped.

    Args:
        samplings: one per row.
        device: where the logits live. The inverse CDF runs in float64, on the CPU where the device has none (MPS).
    """

    def __init__(self, samplings: Sequence[Sampling], device: torch.device) -> None:
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._rows: list[Sampling] = []
        self._numbers = Uniforms()
        self._uniforms = torch.zeros(0, 0, dtype=torch.float64, device=self.device)
        self._forced = torch.zeros(0, 0, dtype=torch.long, device=self.device)
        self._temperature = torch.zeros(0, 1, dtype=torch.float32, device=self.device)
        self._top_p = torch.zeros(0, 1, dtype=torch.float64, device=self.device)
        self._greedy = torch.zeros(0, dtype=torch.bool, device=self.device)
        self._tries: list[Trie | None] = []
        self._states: list[int] = []
        self.join(samplings)

    def join(self, samplings: Sequence[Sampling]) -> None:
        """Rows more, behind the others."""
        longest = max(s.max_new_tokens for s in samplings)
        table = np.zeros((len(samplings), longest))
        for row, s in enumerate(samplings):
            if s.temperature > 0:
                table[row, : s.max_new_tokens] = self._numbers.draw(s.seed, s.drawn + s.max_new_tokens)[s.drawn :]
        self._uniforms = stack_rows(self._uniforms, torch.from_numpy(table).to(self.device))
        temperature = torch.tensor([[s.temperature or 1.0] for s in samplings], dtype=torch.float32)
        self._temperature = stack_rows(self._temperature, temperature.to(self.device))
        top_p = torch.tensor([[s.top_p] for s in samplings], dtype=torch.float64)
        self._top_p = stack_rows(self._top_p, top_p.to(self.device))
        greedy = torch.tensor([s.temperature == 0 for s in samplings])
        self._greedy = torch.cat([self._greedy, greedy.to(self.device)])
        self._tries += [trie_of(s.choices) if s.choices is not None else None for s in samplings]
        self._states += [0] * len(samplings)
        forced = torch.full((len(samplings), max(len(s.forced or ()) for s in samplings)), -1, dtype=torch.long)
        for row, s in enumerate(samplings):
            if s.forced:
                forced[row, : len(s.forced)] = torch.tensor(s.forced, dtype=torch.long)
        self._forced = stack_rows(self._forced, forced.to(self.device), -1)
        self._rows += samplings
        self._look()

    def _look(self) -> None:
        """What the rows at hand need at all."""
        rows = self._rows
        self._any_tempered = any(s.temperature not in (0.0, 1.0) for s in rows)
        self._any_greedy = any(s.temperature == 0 for s in rows)
        self._all_greedy = all(s.temperature == 0 for s in rows)
        self._any_nucleus = any(s.top_p < 1 for s in rows)
        self._any_trie = any(s.choices is not None for s in rows)
        self._any_forced = any(s.forced is not None for s in rows)

    def distribution(self, logits: Tensor) -> Tensor:
        """Log-probabilities (n, vocabulary), float32, of what the next draw is made from."""
        logits = logits.to(self.device, torch.float32)
        if self._any_trie:
            logits = self._restrict(logits)
        if self._any_tempered:
            logits = logits / self._temperature
        if self._any_nucleus:
            logits = self._truncate(logits)
        return torch.log_softmax(logits, dim=-1)

    def draw(self, logits: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """The tokens (n,) drawn at this step of each row and their log-probabilities (n,), float32.

        Args:
            step: how many tokens the rows have: one number, or one per row (n,).
        """
        steps = torch.full((len(self._rows), 1), step) if isinstance(step, int) else step.unsqueeze(1)
        steps = steps.to(self.device)
        logprobs = self.distribution(logits)
        if self._all_greedy:
            tokens = logprobs.argmax(dim=-1)
        else:
            tokens = self._invert(logprobs, self._uniforms.gather(1, steps).squeeze(1))
            if self._any_greedy:
                tokens = torch.where(self._greedy, logprobs.argmax(dim=-1), tokens)
        if self._any_forced:
            # Behind a forced action's end nothing is forced, nor drawn: its row is over.
            forced = self._forced.gather(1, steps.clamp(max=self._forced.shape[1] - 1)).squeeze(1)
            tokens = torch.where(forced < 0, tokens, forced)
        if self._any_trie:
            for row, token in enumerate(tokens.tolist()):
                trie = self._tries[row]
                if trie is not None:
                    self._states[row] = trie.step[self._states[row]].get(token, 0)
        return tokens, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        """Forget finished rows: see `move_rows`."""
        for name in ("_uniforms", "_temperature", "_greedy", "_top_p", "_forced"):
            setattr(self, name, move_rows(getattr(self, name), holes, movers, count))
        for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
            for rows in (self._rows, self._tries, self._states):
                rows[hole] = rows[mover]
        del self._rows[count:], self._tries[count:], self._states[count:]
        self._look()

    @staticmethod
    def _invert(logprobs: Tensor, uniform: Tensor) -> Tensor:
        cdf = logprobs.double().exp_().cumsum_(dim=-1)
        total = cdf[:, -1]
        # Strictly below the total: the first index whose CDF exceeds the target then always has probability above 0.
        target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
        index = torch.searchsorted(cdf, target.unsqueeze(-1), right=True).squeeze(-1)
        return index.clamp_(max=logprobs.shape[-1] - 1)

    def _restrict(self, logits: Tensor) -> Tensor:
        rows: list[int] = []
        columns: list[int] = []
        constrained: list[int] = []
        for row, trie in enumerate(self._tries):
            if trie is not None:
                allowed = trie.allowed[self._states[row]]
                constrained.append(row)
                rows.extend([row] * len(allowed))
                columns.extend(allowed)
        mask = torch.zeros_like(logits, dtype=torch.bool)
        mask[constrained] = True
        mask[rows, columns] = False
        return logits.masked_fill(mask, float("-inf"))

    def _truncate(self, logits: Tensor) -> Tensor:
        probabilities, order = torch.softmax(logits.double(), dim=-1).sort(dim=-1, descending=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        # The smallest set that reaches top_p; a row with top_p 1 keeps everything, rounding or not.
        outside = (before >= self._top_p) & (self._top_p < 1)
        mask = torch.zeros_like(outside).scatter_(-1, order, outside)
        return logits.masked_fill(mask, float("-inf"))
