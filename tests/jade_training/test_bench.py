"""The training benchmark's figures, and the numerical comparison with TRL as far as it runs without TRL 1.12.0."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from jade_graph import plugins
from jade_graph.errors import UsageError
from jade_graph.testing.models import make_random_model
from jade_training.bench import train as bench
from jade_training.learner.rows import Row

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_ppo.py"


def row(run, prompt, action=(1,)):
    return Row(run, "q", 0, "AG", tuple(prompt), tuple(action), (-1.0,) * len(action))


@pytest.mark.slow
def test_every_figure_is_there_and_finite(tmp_path):
    folder = make_random_model(tmp_path / "m", layers=1, width=16, heads=2, max_context=512)
    found = bench._measure(str(folder), rounds=1, count=3)
    for name in ("tokens_per_s", "rows_per_s", "floor_ratio", "matmul_gflops"):
        assert 0 < found[name] < float("inf")
        assert 0 < found[f"{name}_bf16"] < float("inf")
    assert found["tokens"] > found["action_tokens"] > found["rows"] / 2 > 0
    assert found["tokens_per_s"] / found["tokens"] == pytest.approx(found["rows_per_s"] / found["rows"])


def test_the_arithmetic_counts_what_an_update_multiplies():
    """Rows of 3 + 2 and 1 + 1 tokens through a layer of 3 x 4, their 3 action tokens through a head of 4 x 5."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, 5)

        def get_output_embeddings(self):
            return self.head

    assert bench.arithmetic(Model(), [row("a", (1, 2, 3), (4, 5)), row("a", (1,))]) == 6 * (12 * 7 + 20 * 3)


def test_prompts_share_beginnings_within_a_run_only():
    rows = [row("a", (1, 2, 3)), row("a", (1, 2, 4, 5)), row("b", (1, 2, 3)), row("a", (1, 2, 4))]
    assert bench.shared_prompt_share(rows) == pytest.approx((0 + 2 + 0 + 3) / 13)
    assert bench.shared_prompt_share([]) == 0


def test_only_models_of_this_process_can_be_measured():
    with pytest.raises(UsageError, match="BENCH_MODEL"):
        bench.run(model="scripted:os.path:join")


def test_it_is_found_by_name():
    assert plugins.load("jade.benchmarks", "train") is bench.run


# --- benchmarks/bench_ppo.py ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def ppo():
    spec = importlib.util.spec_from_file_location("bench_ppo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_comparison_fails_on_any_difference_and_on_missing_numbers(ppo, capsys):
    batch = ppo.make_batch()
    same = ppo.ours(batch)
    assert ppo.compare(batch, same, {}) == 0
    for name in same:
        assert ppo.compare(batch, {**same, name: same[name] + 2e-5}, {}) == 1
        assert ppo.compare(batch, {k: v for k, v in same.items() if k != name}, {}) == 1
        assert ppo.compare(batch, {**same, name: same[name] * np.nan}, {}) == 1
    assert "clipped policy loss" in capsys.readouterr().out


def test_the_batch_is_fixed_and_clipping_binds_in_it(ppo):
    one, two = ppo.make_batch(), ppo.make_batch()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert 0.1 < float(ppo.ours(one)["share of tokens clipped"]) < 0.9
    assert one["lengths"].min() == 1
    assert one["lengths"].max() == ppo.LENGTH - 1


def test_what_lies_past_a_responses_end_changes_nothing(ppo):
    batch, other = ppo.make_batch(), ppo.make_batch()
    past = np.arange(ppo.LENGTH) > batch["lengths"][:, None]
    for name in ("old", "new", "reference", "values", "predicted"):
        other[name] = np.where(past, -7.0, other[name]).astype(np.float32)
    found = ppo.ours(other)
    assert all(np.array_equal(found[name], value) for name, value in ppo.ours(batch).items())


def test_statements_are_found_by_what_they_assign(ppo, tmp_path):
    """Branches are run whole, what sets up a context is looked into, what assigns nothing is left out."""
    path = tmp_path / "trainer.py"
    path.write_text(
        "class PPOTrainer:\n"
        "    def train(self):\n"
        "        early = 1 / 0\n"
        "        with context:\n"
        "            x = start + 1\n"
        "            stop()\n"
        "            if x > 100:\n"
        "                x = 0\n"
        "            y = [x, 0]\n"
        "            y[1] += 2 * x\n"
        "        late = 1 / 0\n"
    )
    lines = ppo.Lines(path, {"start": 4})
    lines.run(("x", 0), ("y", 1))
    assert lines.names["y"] == [5, 10]
    assert lines.places == {"x": "trainer.py:5-8", "y": "trainer.py:9-10"}
    with pytest.raises(SystemExit, match="does not assign 'z'"):
        lines.run(("x", 0), ("z", 0))


def test_merging_is_measured_over_a_known_floor():
    from jade_training.bench import merge

    move, floor = merge.chain(0)
    assert torch.allclose(move.sum(1), torch.ones(len(move), dtype=torch.float64))
    drawn = merge.draw(move, 4000, torch.Generator().manual_seed(1))
    told = -move[drawn[:, 20], drawn[:, 21]].log().mean()  # what the chain itself loses, once it is mixed
    assert float(told) == pytest.approx(floor, abs=0.03)
    found = merge.run(quick=True, files=False)
    assert set(found) == {"excess_constant", "excess_last_2", "excess_last_5", "excess_last_10", "excess_last_21",
                          "excess_1_sqrt", "excess_decayed", "seeds"}  # fmt: skip
    assert all(value > 0 for value in found.values())
