"""The gate's look inside: which heads judge a document in champion and challenger.

Invariant: a report alone. Whatever is found, or goes wrong, the rule passes and says what it saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from jade_graph.errors import JadeError
from jade_graph.gate.verdict import Finding
from jade_graph.types import Backbone

if TYPE_CHECKING:
    from jade_graph.gate.policy import Policy
    from jade_graph.registry import ModelVersion
    from jade_graph.settings.config import Config


def inside(champion: Backbone, challenger: Backbone, dataset: str, pairs: int) -> Finding:
    """Both versions judge a supporting passage against one that was only found, over so many questions."""
    from jade_graph.data import load_dataset
    from jade_graph.patching import look
    from jade_graph.patching.judging import contrasts, judgements
    from jade_graph.patching.takeover import takeover
    from jade_graph.patching.telling import model_of
    from jade_graph.retrieval.memory import MemoryRetriever

    try:
        data = load_dataset(dataset)
        found = contrasts(data, MemoryRetriever(data.passages), count=pairs)
        with model_of(champion) as (before, codec, _), model_of(challenger) as (after, other, _):
            asked, again = (list(judgements(each, found, "pointwise")) for each in (codec, other))
            if [pair.clean for pair in asked] != [pair.clean for pair in again]:
                return Finding("look", True, "not told: the two versions read other tokens")
            told = takeover(*(look(model, asked, sites=("head",)) for model in (before, after)))
    except JadeError as error:
        return Finding("look", True, f"not told: {error.message}")
    took = ", ".join(head["head"] for head in told["took_over"]) or "none"
    return Finding(
        "look", True,
        f"of the {len(told['top_a'])} heads that judge documents {len(told['shared'])} are the same; took over: {took} "
        f"({told['n']} pairs; a report, not a rule)",
        "", {name: told[name] for name in ("n", "overlap", "top_a", "top_b", "ld")},
    )  # fmt: skip


def reported(versions: Sequence[ModelVersion], policy: Policy, config: Config) -> list[Finding]:
    """The report, where the policy asks for one and there is a champion to compare with."""
    from jade_graph.assembly.models import open_backbone

    if not policy.look.pairs or len(versions) < 2:
        return []
    with ExitStack() as stack:
        opened = []
        for version in versions:
            opened.append(open_backbone(config.settings, f"models:/{version.name}/{version.number}"))
            stack.callback(_close, opened[-1])
        return [inside(opened[0], opened[1], policy.questions.dataset, policy.look.pairs)]


def _close(backbone: Backbone) -> None:
    from jade_graph.sync import run_sync

    run_sync(backbone.aclose())
