"""Smoke questions: whether a loaded version can do the work at all, asked before it serves anybody.

Invariant: the questions run through the same graph (preset, roles, grammar) as the real ones, greedily and unrecorded;
a version passes when every rule holds, and a failure names the rule, the question and what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from jade_graph.errors import BackboneError, RetrievalError

if TYPE_CHECKING:
    from jade_graph.types import Backbone, Question, Retriever, Run

PLAIN = ("What is the capital of France?", "Who wrote the novel Dune?", "Which is longer, a mile or a kilometre?")
"""Asked of models that read any English, over the graph's own corpus: it is the form of the answers that counts."""
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Smoke:
    """What a new version is asked, and what it must do.

    Args:
        questions: None: a few of microworld for models of the bundled kind (profile "compact"), else `PLAIN`.
        retriever: searched instead of the graph's own corpus.
        legal: least share of actions that obey their role's grammar.
        f1: least mean token F1 over the questions that have gold answers; 0 asks for none.
        seconds: deadline of each question.
    """

    questions: tuple[Question, ...] | None = None
    retriever: Retriever | None = None
    legal: float = 0.5
    f1: float = 0.0
    seconds: float = _SECONDS

    def check(self, runs: Sequence[Run]) -> dict[str, float]:
        """Judge the runs of the questions, in their order.

        Returns:
            `questions`, `legal` (share), and `f1` where a question has gold answers.

        Raises:
            BackboneError: SMOKE_NOT_FINITE, SMOKE_FAILED_RUN, SMOKE_NO_ANSWER, SMOKE_ILLEGAL, SMOKE_F1.
            RetrievalError: SMOKE_SEARCH, where a search failed and the version is not to blame.
        """
        from jade_graph.scoring.metrics import token_f1

        scores: list[float] = []
        actions = illegal = 0
        for run in runs:
            for t in run.transitions:
                if not all(map(math.isfinite, t.old_logprobs)):
                    raise _refused(f"{t.role} has log-probabilities that are not finite", run, code="SMOKE_NOT_FINITE")
                if t.role and t.action_token_ids:
                    actions, illegal = actions + 1, illegal + (t.violation is not None)
            if run.error == "BACKBONE_NOT_FINITE":
                raise _refused(run.error_message, run, code="SMOKE_NOT_FINITE")
            if run.status != "answered" and any(t.error and not t.sampling for t in run.transitions):
                # A tool's failure says nothing of the version: it is asked again later.
                raise RetrievalError(f"smoke question {run.question!r}: {run.error_message}", code="SMOKE_SEARCH")
            if run.status != "answered":
                raise _refused(f"the run failed with {run.error}: {run.error_message}", run, code="SMOKE_FAILED_RUN")
            if not run.answer.strip():
                raise _refused("the answer is empty", run, code="SMOKE_NO_ANSWER")
            if golds := run.metadata.get("answers"):
                scores.append(token_f1(run.answer, golds) or 0.0)
        legal = 1 - illegal / actions if actions else 0.0
        if legal < self.legal:
            told = f"{legal:.0%} of {actions} actions are legal, {self.legal:.0%} are needed"
            raise _refused(told, code="SMOKE_ILLEGAL")
        figures = {"questions": float(len(runs)), "legal": legal}
        if scores:
            figures["f1"] = sum(scores) / len(scores)
            if figures["f1"] < self.f1:
                raise _refused(f"the mean F1 is {figures['f1']:.2f}, {self.f1:.2f} is needed", code="SMOKE_F1")
        return figures


Check = Callable[["Backbone"], Mapping[str, float]]
"""Asks a backbone its smoke questions, in the calling thread; raises `BackboneError` when it fails them."""


@dataclass(frozen=True)
class GraphCheck:
    """The smoke questions through a graph like the one that will serve.

    Args:
        smoke: questions and rules.
        graph: keyword arguments of `JadeGraph` beside the backbone.
    """

    smoke: Smoke
    graph: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, backbone: Backbone) -> Mapping[str, float]:
        """Raises what `Smoke.check` does."""
        import asyncio

        from jade_graph.versions.apart import run_apart
        from jade_graph.workflow.engine import Engine
        from jade_graph.workflow.parts import limits_of

        questions, retriever = _asked(self.smoke, backbone, self.graph.get("retriever"))
        options = {**self.graph, "retriever": retriever}
        graph = Engine(backbone, **options)
        limits = replace(options.get("limits") or limits_of(graph.preset), deadline_s=self.smoke.seconds)

        async def ask() -> list[Run]:
            runs = [
                graph.arun(q, limits=limits, metadata={"answers": list(q.answers)} if q.answers else None)
                for q in questions
            ]
            return list(await asyncio.gather(*runs))

        return self.smoke.check(run_apart(ask()))


def _asked(
    smoke: Smoke, backbone: Backbone, retriever: Retriever | None
) -> tuple[tuple[Question, ...], Retriever | None]:
    """The questions and what they are asked over."""
    from jade_graph.types import Question

    if smoke.questions is not None:
        return smoke.questions, smoke.retriever or retriever
    if backbone.profile != "compact":
        return tuple(Question(f"smoke-{i}", text) for i, text in enumerate(PLAIN)), smoke.retriever or retriever
    questions, words = _microworld()
    return questions, smoke.retriever or words


@cache
def _microworld() -> tuple[tuple[Question, ...], Retriever]:
    from jade_graph.microworld import make_questions, make_world
    from jade_graph.microworld.search import WordSearch

    world = make_world("validation", 0)
    return tuple(make_questions(world, 4, seed=0)), WordSearch(world.passages)


def _refused(what: str, run: Run | None = None, *, code: str) -> BackboneError:
    where = f" (smoke question {run.question!r})" if run is not None else ""
    return BackboneError(f"{what}{where}.", code=code, hint="jade rollback, or register a version that is whole")
