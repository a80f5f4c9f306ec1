"""The critic: one linear layer on what the shared backbone knows after reading a prompt.

Invariant: it works in float32 whatever the backbone's precision, starts at the same value for every prompt (weights 0),
and is saved apart from the policy, which stays a plain causal LM.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

FILE = "value_head.safetensors"


class ValueHead(nn.Module):
    """V(prompt) = w h + c, with h (width,) the backbone's last hidden state at the last prompt token."""

    def __init__(self, width: int, bias: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        self.set_bias(bias)

    def set_bias(self, bias: float) -> None:
        """The value of every prompt before training; the mean reward of the first batch is a good one."""
        nn.init.constant_(self.linear.bias, bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Values (R,) of hidden states (R, width)."""
        # Out of autocast: its bfloat16 keeps 3 digits of a return.
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = self.linear(hidden.float()).squeeze(-1)
        return values

    def save(self, folder: Path | str) -> None:
        """Write `folder/value_head.safetensors`."""
        from safetensors.torch import save_file

        save_file({k: v.detach().cpu().clone() for k, v in self.state_dict().items()}, Path(folder) / FILE)

    def load(self, folder: Path | str) -> None:
        """Read it back. Raises `FileNotFoundError`, or `RuntimeError` for a head of another width."""
        from safetensors.torch import load_file

        self.load_state_dict(load_file(Path(folder) / FILE))
