"""Benchmarks that learn: their figures are there, and a call goes on from what stands in its folder."""

import json
import math

import pytest

from jade_graph.errors import ConfigError
from jade_training.bench import entrodrop, mix
from jade_training.bench.kept import Kept


def test_what_was_measured_is_not_measured_again(tmp_path):
    path, facts = tmp_path / "deep" / "seed-0.jsonl", {"steps": 3}
    assert Kept(path, facts).get(("a", 0.25), lambda: {"x": 1.0}) == {"x": 1.0}
    with path.open("a") as file:
        file.write('{"name": "b", "sco')  # killed while it wrote
    again = Kept(path, facts)
    assert again.get(("a", 0.25), lambda: pytest.fail("measured again")) == {"x": 1.0}
    assert again.get(("b",), lambda: {"x": 2.0}) == {"x": 2.0}
    assert Kept(path, facts).get(("b",), lambda: pytest.fail("measured again")) == {"x": 2.0}


def test_a_folder_of_other_settings_is_refused_and_stays(tmp_path):
    path = tmp_path / "seed-0.jsonl"
    Kept(path, {"steps": 3}).get(("a",), lambda: {"x": 1.0})
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="other settings") as caught:
        Kept(path, {"steps": 4})
    assert caught.value.error_code == "BENCH_CHANGED"
    assert path.read_bytes() == before


def test_the_mixture_in_use_is_that_of_the_stage():
    assert sum(mix.IN_USE) == pytest.approx(1.0)
    from jade_training.pretrain.asking import AskCurriculum

    stage = AskCurriculum(None, 0, 1)
    assert mix.ROWS_OF["evidence"] == stage.reads * stage.asks
    assert mix.ROWS_OF["searching"] == stage.knowing + stage.monolithic
    assert mix.ROWS_OF["replay"] == stage.replayed * (stage.asks // 2) + stage.short


@pytest.mark.slow
@pytest.mark.parametrize("bench", [mix, entrodrop])
def test_every_figure_is_there_and_finite(bench, tmp_path):
    found = bench.run(quick=True, out=str(tmp_path))
    assert found
    assert all(math.isfinite(value) for value in found.values())
    lines = (tmp_path / "seed-0.jsonl").read_text().splitlines()
    assert bench.run(quick=True, out=str(tmp_path)) == pytest.approx(found)
    assert (tmp_path / "seed-0.jsonl").read_text().splitlines() == lines
    assert all(json.loads(line) for line in lines)
