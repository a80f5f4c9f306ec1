"""Shares of training data: read, written, drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import ConfigError
from jade_graph.types import Question
from jade_training.improve.improver import Data
from jade_training.improve.inputs import mixed
from jade_training.improve.settings import ImproveSettings
from jade_training.mixing.mixture import Mixture


def test_a_mixture_is_read_as_it_was_written(tmp_path):
    mixture = Mixture({"PL+QDS": 0.25, 'A "quoted" part': 0.75}, "dataset")
    mixture.write(tmp_path / "m.toml", about=["utility .9"])
    assert Mixture.read(tmp_path / "m.toml") == mixture
    assert (tmp_path / "m.toml").read_text().startswith("# utility .9\n")


@pytest.mark.parametrize(
    "text",
    [
        "", "shares = 3", "[shares]", "[shares]\nAG = 0.5", "[shares]\nAG = 1.5\nPL = -0.5", '[shares]\nAG = "x"',
        'by = "colour"\n[shares]\nAG = 1', '[shares]\n"AG+PL" = 0.5\nPL = 0.5', "[shares]\nAG = nan", "[shares", "\x00",
    ],
)  # fmt: skip
def test_what_is_no_mixture_is_told(tmp_path, text):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        Mixture.read(tmp_path / "m.toml")
    assert error.value.error_code == "BAD_MIXTURE"
    with pytest.raises(ConfigError, match="BAD_MIXTURE"):
        Mixture.read(tmp_path / "none.toml")


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4),
    st.integers(0, 3),
)
def test_shares_are_kept_as_closely_as_whole_examples_allow(sizes, raw, seed):
    items = [(f"p{i}", j) for i, size in enumerate(sizes) for j in range(size)] + [("other", 0)]
    weights = raw[: len(sizes)]
    mixture = Mixture({f"p{i}": w / sum(weights) for i, w in enumerate(weights)})
    drawn = mixture.drawn(items, lambda item: item[0], seed=seed)
    assert drawn == mixture.drawn(items, lambda item: item[0], seed=seed)
    assert len(drawn) == len(items)
    counts = Counter(part for part, _ in drawn)
    assert "other" not in counts
    for part, share in mixture.shares.items():
        assert abs(counts[part] - share * len(items)) < 1
    # Nothing comes twice before everything of its part came once.
    for part in mixture.shares:
        times = Counter(item for item in drawn if item[0] == part)
        here = [times[item] for item in items if item[0] == part]
        assert max(here) - min(here) <= 1


def test_a_share_of_nothing_is_told_with_what_there_is():
    with pytest.raises(ConfigError) as error:
        Mixture({"AG": 0.5, "KP": 0.5}).drawn(["AG", "PL"], str)
    assert error.value.error_code == "BAD_MIXTURE"
    assert "AG, PL" in str(error.value)
    assert Mixture({"AG": 1.0, "KP": 0.0}).drawn(["AG", "PL"], str) == ["AG", "AG"]


def test_improve_takes_kinds_data_sets_and_roles():
    questions = [
        Question(f"{'m' if i % 4 else 'w'}:{i}", f"q{i}?", ("a",), type="hard" if i % 4 else "easy") for i in range(40)
    ]
    train, settings = Data("both", questions, None), ImproveSettings()
    by_type, same = mixed(train, settings, Mixture({"easy": 0.5, "hard": 0.5}, "type"))
    assert Counter(q.type for q in by_type.questions) == {"easy": 20, "hard": 20}
    assert by_type.name == "both (type: easy 0.5, hard 0.5)"  # another run than without
    assert same == settings
    by_set, _ = mixed(train, settings, Mixture({"m": 0.25, "w": 0.75}, "dataset"))
    assert Counter(q.id[0] for q in by_set.questions) == {"w": 30, "m": 10}
    same_data, weighed = mixed(train, settings, Mixture({"AG+AS": 0.75, "PL": 0.25}))
    assert same_data is train
    assert weighed == replace(settings, ppo=replace(settings.ppo, role_weights={"AG": 1.5, "AS": 1.5, "PL": 0.5}))
