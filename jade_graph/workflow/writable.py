"""Whether a model's tokenizer can write the plans that are to be written by force.

Invariant: a plan that does not come back from its own token ids (encoded, decoded, parsed) is neither forced nor
offered as a choice: the planner would be penalised for what its tokenizer did.
"""

from __future__ import annotations

from collections.abc import Iterable

from jade_graph.errors import GraphError
from jade_graph.types import Backbone, Plan
from jade_graph.workflow.plans import PlanGrammar, workflow


def unwritable(backbone: Backbone, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Those of the plans that are another text, or none, once they were token ids."""
    plans = tuple(plans)
    grammar = PlanGrammar(plans)
    return tuple(p for p in plans if grammar.parse(backbone.decode(backbone.encode_text(workflow(p)))).value != p)


def require_writable(backbone: Backbone, plans: Iterable[Plan]) -> None:
    """Raise `GraphError` GRAPH_PLAN_UNWRITABLE where the tokenizer cannot write one of the plans."""
    plans = tuple(plans)
    lost = unwritable(backbone, plans)
    if not lost:
        return
    said = backbone.decode(backbone.encode_text(workflow(lost[0])))
    fine = {code for plan in plans if plan not in lost for code in plan.steps}
    codes = sorted({code for plan in lost for code in plan.steps} - fine)
    raise GraphError(
        f"the tokenizer of {backbone.version!r} cannot write {len(lost)} of {len(plans)} plans: "
        f"{workflow(lost[0])!r} becomes {said!r}.",
        code="GRAPH_PLAN_UNWRITABLE",
        known=sorted(fine),
        hint=f"known tokens as the code instead of {', '.join(codes) or 'these'}, or a model whose tokenizer has it "
        "(tokenizer.add_tokens, model.resize_token_embeddings)",
    )


__all__ = ["require_writable", "unwritable"]
