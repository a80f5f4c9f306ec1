"""The gate's report of what judges documents: it tells, and refuses nothing."""

from __future__ import annotations

from jade_graph.backbones.hf import HFBackbone
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.gate import Policy
from jade_graph.gate.inside import inside

TINY = "microworld:validation?n=12"


def test_a_version_against_itself_has_the_same_heads_and_what_goes_wrong_is_told(monkeypatch):
    from jade_graph.backbones.folders import BUNDLED

    one = HFBackbone.load(BUNDLED["tiny"], device="cpu")
    found = inside(one, one, TINY, 2)
    assert found.passed
    assert found.figures["overlap"] == 1.0
    assert found.figures["n"] == 2
    assert "took over: none" in found.told
    scripted = inside(one, ScriptedBackbone(lambda ask: "x"), TINY, 1)
    assert scripted.passed
    assert scripted.told.startswith("not told:")


def test_of_two_different_versions_it_names_the_heads_that_took_over_and_refuses_nothing():
    from jade_graph.backbones.folders import BUNDLED

    before, after = (HFBackbone.load(BUNDLED[name], device="cpu") for name in ("tiny", "tiny-hasty"))
    found = inside(before, after, TINY, 2)
    new = [head for head in found.figures["top_b"] if head not in found.figures["top_a"]]
    assert found.passed
    assert new
    assert f"took over: {', '.join(new)} (2 pairs" in found.told
    assert found.figures["overlap"] == 1 - len(new) / 5
    assert found.figures["ld"]["a"] != found.figures["ld"]["b"]


def test_no_report_unless_the_policy_asks_for_one():
    assert Policy().look.pairs == 0
    assert Policy.of({"look": {"pairs": 5}}).look.pairs == 5
    assert "[look]\npairs = 0" in Policy().toml()
