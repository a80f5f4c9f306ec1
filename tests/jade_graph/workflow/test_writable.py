"""Plans that a tokenizer cannot write are neither forced on a planner nor offered to it."""

import pytest

from jade_graph import JadeGraph
from jade_graph.backbones import load_backbone
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import GraphError
from jade_graph.types import Plan
from jade_graph.workflow.writable import require_writable, unwritable

PLANS = (Plan(("R", "AG")), Plan(("R", "RANK", "AG")), Plan(("QR", "R", "AG")))


class Forgetful(ScriptedBackbone):
    """Its tokenizer does not have the word QDP."""

    def encode_text(self, text: str) -> list[int]:
        return super().encode_text(text.replace("QDP", ""))


def test_a_code_that_the_bundled_tokenizer_lacks_is_named():
    backbone = load_backbone("tiny")
    assert unwritable(backbone, PLANS) == (PLANS[1],)
    with pytest.raises(GraphError) as caught:
        require_writable(backbone, PLANS)
    error = caught.value
    assert error.error_code == "GRAPH_PLAN_UNWRITABLE"
    assert "'<workflow>R,RANK,AG</workflow>' becomes '<workflow>R,,AG</workflow>'" in str(error)
    assert "instead of RANK," in error.hint
    assert "add_tokens" in error.hint


def test_such_a_plan_is_refused_where_it_would_be_forced(passages):
    backbone = Forgetful(lambda ask: "<workflow>R,AG</workflow>" if ask.role == "PL" else "<answer>x</answer>")
    with pytest.raises(GraphError, match="QDP"):
        JadeGraph(backbone, retriever=passages, constrained=True)
    graph = JadeGraph(backbone, retriever=passages)
    with pytest.raises(GraphError, match="QDP"):
        graph.run("Who made X?", explore=0.5)
    assert graph.run("Who made X?").answer == "x"  # left alone, the planner may write what it can


def test_every_plan_of_the_bundled_presets_can_be_written(passages):
    backbone = load_backbone("tiny")
    assert unwritable(backbone, JadeGraph(backbone, retriever=passages).grammar.plans) == ()
