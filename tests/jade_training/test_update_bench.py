from __future__ import annotations

from typing import Any

import pytest
import torch

from jade_graph import plugins
from jade_graph.errors import UsageError
from jade_graph.testing.models import make_random_model
from jade_training.bench.update import WAYS, run
from jade_training.learner.logits import Reader

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_random_model(tmp_path_factory.mktemp("model"), layers=2, width=16, heads=2, max_context=512))


def test_every_figure_is_there_and_positive(model: str) -> None:
    figures = run(model=model, quick=True)
    own = {f"{way}_tokens_per_s" for way in WAYS} | {f"over_{way}" for way in WAYS[1:]} | {"floor_ratio"}
    rest = {"repeated_share", "rows", "tokens", "matmul_gflops", "parameters"}
    assert figures.keys() == {f"{what}_{name}" for what in ("full", "lora") for name in own} | rest
    assert all(value > 0 for value in figures.values())
    assert 0.5 < figures["repeated_share"] < 1
    assert plugins.load("jade.benchmarks", "update") is run


def test_ways_that_differ_are_no_comparison(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Reader.read

    def wrong(self: Reader, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logits, hidden = whole(self, *given)
        return (1.01 * logits if self.shares else logits), hidden

    monkeypatch.setattr(Reader, "read", wrong)
    with pytest.raises(UsageError, match=r"BENCH_DIFFERS.*norms"):
        run(model=model, quick=True)


def test_only_models_of_this_process() -> None:
    with pytest.raises(UsageError, match="BENCH_MODEL"):
        run(model="scripted:os.path:join")
