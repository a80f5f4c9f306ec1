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

from jade_graph.backbones.trie import trie_of
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


def move_rows(tensor: Tensor, holes: Tensor, movers: Tensor, count: int) -> Tensor:
    """Fill the `holes` with the rows `movers` in place and keep the first `count` rows."""
    if holes.numel():
        tensor[holes] = tensor[movers]
    return tensor[:count]


class Sampler:
    """The sampling state of a batch of n rows.

    Args:
        samplings: one per row.
        device: where the logits live. The inverse CDF runs in float64, on the CPU where the device has none (MPS).
    """

    def __init__(self, samplings: Sequence[Sampling], device: torch.device) -> None:
        self.device = torch.device("cpu") if device.type == "mps" else device
        longest = max(s.max_new_tokens for s in samplings)
        table = np.zeros((len(samplings), longest))
        numbers = Uniforms()
        for row, s in enumerate(samplings):
            if s.temperature > 0:
                table[row, : s.max_new_tokens] = numbers.draw(s.seed, s.max_new_tokens)
        self._uniforms = torch.from_numpy(table).to(self.device)
        temperatures = [[s.temperature or 1.0] for s in samplings]
        self._temperature = torch.tensor(temperatures, dtype=torch.float32, device=self.device)
        self._greedy = torch.tensor([s.temperature == 0 for s in samplings], device=self.device)
        self._top_p = torch.tensor([[s.top_p] for s in samplings], device=self.device, dtype=torch.float64)
        self._tries = [trie_of(s.choices) if s.choices is not None else None for s in samplings]
        self._states = [0] * len(samplings)
        self._any_tempered = any(s.temperature not in (0.0, 1.0) for s in samplings)
        self._any_greedy = any(s.temperature == 0 for s in samplings)
        self._all_greedy = all(s.temperature == 0 for s in samplings)
        self._any_nucleus = any(s.top_p < 1 for s in samplings)
        self._any_trie = any(trie is not None for trie in self._tries)
        self._any_forced = any(s.forced is not None for s in samplings)
        if self._any_forced:
            forced = torch.full((len(samplings), longest), -1, dtype=torch.long)
            for row, s in enumerate(samplings):
                forced[row, : len(s.forced or ())] = torch.tensor(s.forced or (), dtype=torch.long)
            self._forced = forced.to(self.device)

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

    def draw(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The tokens (n,) drawn at this step and their log-probabilities (n,), float32."""
        logprobs = self.distribution(logits)
        if self._all_greedy:
            tokens = logprobs.argmax(dim=-1)
        else:
            tokens = self._invert(logprobs, self._uniforms[:, step])
            if self._any_greedy:
                tokens = torch.where(self._greedy, logprobs.argmax(dim=-1), tokens)
        if self._any_forced:
            tokens = torch.where(self._forced[:, step] < 0, tokens, self._forced[:, step])
        if self._any_trie:
            for row, token in enumerate(tokens.tolist()):
                trie = self._tries[row]
                if trie is not None:
                    self._states[row] = trie.step[self._states[row]].get(token, 0)
        return tokens, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def drop(self, holes: Tensor, movers: Tensor, count: int) -> None:
        """Forget finished rows: see `move_rows`."""
        for name in ("_uniforms", "_temperature", "_greedy", "_top_p", *(("_forced",) if self._any_forced else ())):
            setattr(self, name, move_rows(getattr(self, name), holes, movers, count))
        if self._any_trie:
            for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
                self._tries[hole], self._states[hole] = self._tries[mover], self._states[mover]
            del self._tries[count:], self._states[count:]

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
