"""The promotion benchmark: what it calls mixed, and that it measures what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jade_graph.bench import promote
from jade_graph.types import Run


def test_a_run_is_mixed_when_its_actions_name_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Action:
        def __init__(self, version: str) -> None:
            self.backbone_version = version

    def run(*versions: str) -> Run:
        actions: Any = tuple(map(Action, versions))
        return replace(Run("r", "q?", "", "jade", 0, backbone_version="one"), transitions=actions)

    assert not promote.mixed(run("one", "", "one"))
    assert promote.mixed(run("one", "two"))
    assert promote.mixed(run("two"))


@pytest.mark.slow
def test_questions_in_flight_through_swaps() -> None:
    figures = promote.run(questions=60, swaps=2, concurrency=8, quick=True)
    assert figures["swaps"] == 2
    assert figures["runs"] >= 60
    assert figures["swap_failures"] == figures["mixed_version_runs"] == 0
    assert figures["runs_across_swaps"] > 0
    assert figures["versions_in_memory"] == 2
    names = ("create_s", "register_s", "gate_s", "promote_s", "reload_s", "rollback_s", "p95_ms", "swap_p95_ms")
    assert all(figures[name] > 0 for name in names)
    assert figures["added_p95_ms"] == pytest.approx(figures["swap_p95_ms"] - figures["p95_ms"])
    assert figures["swap_p95_ratio"] == pytest.approx(figures["swap_p95_ms"] / figures["p95_ms"])
    assert 0 < figures["two_versions_share"] <= 1
    assert 0 <= figures["loading_share"] <= 1
