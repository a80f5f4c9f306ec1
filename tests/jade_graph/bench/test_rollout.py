from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from jade_graph import plugins
from jade_graph.backbones.hf import HFBackbone
from jade_graph.bench import rollout
from jade_graph.errors import UsageError
from jade_graph.testing.models import make_random_model
from jade_graph.types import Sampling

SHARES = ("tokenizer_share", "retrieval_share", "recording_share", "graph_share")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_random_model(tmp_path_factory.mktemp("model"), layers=1, width=16, heads=2, max_context=512))


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, float]:
    return asyncio.run(rollout._measure(str(folder), rounds=2, distinct=6, copies=2, few=2, crews=1))


@pytest.mark.slow
def test_every_figure_is_there_and_finite(figures: dict[str, float]) -> None:
    assert set(figures) >= {
        "runs_per_s",
        "sequential_runs_per_s",
        "generate_runs_per_s",
        "speedup_over_sequential",
        "speedup_over_generate",
        "outside_model_share",
        "graph_and_recording_share",
        "floor_ratio",
        "cpu_ms_per_run",
    }
    assert all(isinstance(v, float) and v > 0 and v < float("inf") for v in figures.values())
    assert figures["runs"] == 2 * 6 * 2


@pytest.mark.slow
def test_the_shares_are_parts_of_one_whole(figures: dict[str, float]) -> None:
    assert all(0 < figures[name] < 1 for name in SHARES)
    assert sum(figures[name] for name in SHARES) == pytest.approx(figures["outside_model_share"])
    both = figures["graph_share"] + figures["recording_share"]
    assert figures["graph_and_recording_share"] == pytest.approx(both)


def test_cpu_time_goes_to_the_part_that_spends_it() -> None:
    clock = rollout._Clock()

    def work() -> int:
        return sum(i * i for i in range(200_000))

    assert clock.around("busy", work)() == work()
    clock.around("idle", lambda: None)()
    with pytest.raises(ZeroDivisionError):
        clock.around("failing", lambda: 1 / 0)()
    assert clock.seconds["busy"] > clock.seconds["idle"]
    assert "failing" in clock.seconds


async def test_the_plain_loop_samples_from_the_same_distribution(folder: Path) -> None:
    """The log-probabilities of what it drew are those of one plain forward pass at its temperature."""
    backbone = HFBackbone.load(folder, device="cpu")
    plain = rollout._Generate(backbone)
    prompt = list(range(5, 25))
    drawn = await plain.generate(prompt, Sampling(0.8, max_new_tokens=6, seed=3))
    again = await plain.generate(prompt, Sampling(0.8, max_new_tokens=6, seed=3))
    with torch.inference_mode():
        logits = backbone.model(torch.tensor([[*prompt, *drawn.token_ids]])).logits[0, len(prompt) - 1 : -1]
    await backbone.aclose()
    assert again == drawn
    assert len(drawn.token_ids) == 6 or drawn.finish_reason == "stop"
    own = torch.log_softmax(logits / 0.8, -1).gather(-1, torch.tensor(drawn.token_ids)[:, None])[:, 0]
    assert drawn.logprobs == pytest.approx(own.tolist(), abs=1e-4)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(UsageError, match="1 threads"), rollout.one_thread():
            raise UsageError(f"{torch.get_num_threads()} threads", code="X")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_only_models_of_this_process_can_be_measured() -> None:
    with pytest.raises(UsageError, match="BENCH_MODEL"):
        rollout.run(model="scripted:os.path:join", quick=True)


def test_it_is_found_by_name() -> None:
    assert plugins.load("jade.benchmarks", "rollout") is rollout.run
