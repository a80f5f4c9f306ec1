from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jade_graph import plugins
from jade_graph.bench.floor import arithmetic
from jade_graph.bench.generate import NEW_TOKENS, run
from jade_graph.errors import UsageError
from jade_graph.testing.models import make_random_model

FIGURES = {
    *(f"{name}_{n}" for name in ("calls_per_s", "speedup_at") for n in (1, 8, 64)),
    "sequential_calls_per_s",
    "floor_ratio",
    "prompt_tokens",
    "new_tokens",
    "parameters",
    "threads",
    "matmul_gflops",
}


def test_every_figure_is_there_and_positive(tmp_path: Path) -> None:
    figures = run(model=str(make_random_model(tmp_path / "m", layers=1, width=16, max_context=256)), quick=True)
    assert set(figures) == FIGURES
    assert all(isinstance(value, float) and value > 0 for value in figures.values())
    assert figures["new_tokens"] == NEW_TOKENS


def test_the_arithmetic_counts_what_a_forward_pass_multiplies() -> None:
    """One token through one linear layer of 3 x 4 weights and a head of 4 x 5, once."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, 5)

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.head

    assert arithmetic(Model(), 1, 1) == 2 * 12 + 2 * 20
    assert arithmetic(Model(), 10, 3) == 2 * 12 * 12 + 2 * 20 * 3


def test_only_models_of_this_process_can_be_measured() -> None:
    with pytest.raises(UsageError, match="BENCH_MODEL"):
        run(model="scripted:os.path:join")


def test_it_is_found_by_name() -> None:
    assert plugins.load("jade.benchmarks", "generate") is run
