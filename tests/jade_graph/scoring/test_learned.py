from __future__ import annotations

from dataclasses import replace

import pytest

from jade_graph.scoring.compression import CompressionSpec
from jade_graph.scoring.learned import COMPRESSION, REWARD, compression_of, needs_peers, record, reward_of
from jade_graph.scoring.rewards import RewardSpec
from jade_graph.testing.runs import make_run
from jade_graph.types import Run


def run_with(**metadata: object) -> Run:
    return replace(make_run("r", [], 1.0)[0], metadata=metadata)


def test_what_is_recorded_is_read_back() -> None:
    spec = RewardSpec(outcome="em", call_cost=0.1, penalties={"DS": -0.5}, extra={"recall": 0.2})
    compression = CompressionSpec(alpha=0.2, reference=40.0)
    run = run_with(**record(spec, compression))
    assert (reward_of(run), compression_of(run)) == (spec, compression)
    assert not needs_peers(compression)
    assert needs_peers(CompressionSpec())
    assert not needs_peers(None)
    assert record(spec) == {REWARD: {**record(spec, compression)[REWARD]}}


@pytest.mark.parametrize("told", [None, 1, "f1", {"alpha": -1}, {"alpha": "much"}, {"extra": 3}])
def test_metadata_of_something_else_are_no_reward(told: object) -> None:
    run = run_with(**{REWARD: told, COMPRESSION: told})
    assert reward_of(run) is None
    assert compression_of(run) is None
    assert reward_of(run_with()) is None
