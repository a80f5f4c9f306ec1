"""A model that is too weak for its roles is told so, by what it wrote."""

import json

import pytest

from jade_graph import JadeGraph
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.scoring import weakness
from jade_graph.serve import replies


def answered(passages, **said):
    """A run in which each role writes this, or gibberish."""
    return JadeGraph(ScriptedBackbone(lambda ask: said.get(ask.role, "gibberish")), retriever=passages).run(
        "Who made X?"
    )


def test_most_actions_illegal_is_weak_and_half_is_not(passages):
    weak = answered(passages)
    searches = sum(t.role == "R" for t in weak.transitions)
    assert searches > 0  # a tool's: no model wrote them
    n = len(weak.transitions) - searches
    assert (weak.illegal_actions, weak.counters.calls) == (n, n)
    assert weakness.of_run(weak).startswith(f"{n} of {n} actions were illegal: this model does not write what its")
    half = answered(passages, PL="<workflow>R,AG</workflow>")
    assert (half.illegal_actions, half.counters.calls) == (1, 2)
    assert weakness.of_run(half) == ""
    good = answered(passages, PL="<workflow>R,AG</workflow>", AG="<answer>x</answer>")
    assert weakness.of_run(good) == ""


def test_nothing_done_says_nothing():
    assert weakness.told(0, 0) == ""


def test_what_is_done_already_is_no_advice():
    assert "constrained" in weakness.told(3, 4)
    assert "constrained" not in weakness.told(3, 4, constrained=True)
    assert "jade sft" in weakness.told(3, 4, constrained=True)


@pytest.mark.parametrize("steps", [False, True])
def test_a_served_answer_says_it(passages, steps):
    assert replies.completion(answered(passages), [], steps=steps)["jade"]["advice"] == weakness.of_run(
        answered(passages)
    )
    good = answered(passages, PL="<workflow>R,AG</workflow>", AG="<answer>x</answer>")
    assert replies.completion(good, [], steps=steps)["jade"]["advice"] == ""
    assert json.dumps(replies.completion(good, [], steps=steps))
