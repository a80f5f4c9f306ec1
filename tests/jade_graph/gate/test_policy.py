"""The policy file: every rule documented, defaults kept, mistakes told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import ConfigError, UsageError
from jade_graph.gate import Policy


def test_what_a_file_leaves_out_keeps_its_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Policy.load() == Policy()
    (tmp_path / "gate.toml").write_text('[gain]\nmetric = "em"\nleast = 0\n')
    policy = Policy.load()
    assert policy.gain.metric == "em"
    assert policy.cost == Policy().cost
    assert Policy.load(tmp_path / "gate.toml") == policy


@given(st.integers(2, 500), st.floats(0, 1), st.sampled_from(["f1", "em"]))
def test_the_file_that_is_printed_is_the_policy(minimum, least, metric):
    policy = Policy.of({"questions": {"minimum": minimum}, "gain": {"least": least, "metric": metric}})
    text = policy.toml()
    assert Policy.of(tomllib.loads(text)) == policy
    assert all("# " in line for line in text.splitlines() if " = " in line), "every rule says what it means"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"gains": {}}, "GATE_POLICY_KEY"),
        ({"gain": {"metrik": "f1"}}, "GATE_POLICY_KEY"),
        ({"gain": 3}, "GATE_POLICY"),
        ({"gain": {"metric": "rouge"}}, "GATE_POLICY"),
        ({"gain": {"confidence": 1.0}}, "GATE_POLICY"),
        ({"gain": {"confidence": "0.95"}}, "GATE_POLICY"),
        ({"gain": {"least": True}}, "GATE_POLICY"),
        ({"questions": {"minimum": 1}}, "GATE_POLICY"),
        ({"questions": {"minimum": 50.0}}, "GATE_POLICY"),
        ({"illegal": {"most": 1.5}}, "GATE_POLICY"),
    ],
)
def test_mistakes(values, code):
    with pytest.raises((ConfigError, UsageError)) as error:
        Policy.of(values)
    assert error.value.error_code == code


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.toml").write_text("[gain\n")
    for path in (tmp_path / "bad.toml", tmp_path / "none.toml", Path(tmp_path)):
        with pytest.raises(ConfigError) as error:
            Policy.load(path)
        assert error.value.error_code == "GATE_POLICY"
