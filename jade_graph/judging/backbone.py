"""A backbone as a judge.

Invariant: the prompt is encoded by the backbone itself, and all voters of a level are asked at once. Voters differ by
their seeds alone, so the same search, judge and seed give the same votes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from jade_graph import plugins
from jade_graph.errors import UsageError
from jade_graph.judging.cascade import Ballot, Cascade, Vote
from jade_graph.judging.cases import SELECTOR, Case
from jade_graph.judging.prompt import VERSION, UsefulnessJudge, view_of
from jade_graph.types import Ask, Backbone, Role, Sampling
from jade_graph.workflow.context import thought_of
from jade_graph.workflow.reading import LONGEST, fit

_MORE = 48
"""Tokens by which a later prompt may exceed the first: headings of the examples."""


class BackboneJudge:
    """Any backbone votes.

    A model that is spoken to ("chat") gets the judge's own prompt, with behaviour and examples. One that was taught
    nothing but the roles of this package ("brief", "compact") acts as the selector on what is undecided: the one
    question of this kind that it knows. It sees neither the level nor the behaviour, so that a level says how soon a
    passage was picked.

    Args:
        temperature: of the voters; 0 makes them all one.
        max_new_tokens: of a vote.
    """

    def __init__(self, backbone: Backbone, *, temperature: float = 0.7, max_new_tokens: int | None = None) -> None:
        self.backbone, self.temperature = backbone, temperature
        if temperature < 0:
            raise UsageError(f"the judge's temperature is {temperature!r}: at least 0.", code="JUDGE_OPTION")
        self.form = "chat" if backbone.profile == "chat" else "selector"
        self.role: Role = UsefulnessJudge() if self.form == "chat" else plugins.load("jade.roles", SELECTOR)
        thought = thought_of(backbone)
        own = max_new_tokens or self.role.max_new_tokens
        self.tokens = own + (thought.tokens if thought is not None else 0)

    @property
    def about(self) -> Mapping[str, Any]:
        return {
            "judge": self.backbone.version,
            "form": self.form,
            "prompt": VERSION,
            "temperature": self.temperature,
            "max_new_tokens": self.tokens,
        }

    async def vote(self, ballots: Sequence[Ballot]) -> list[Vote]:
        """Raises `BackboneError`: CONTEXT_OVERFLOW, or what the backbone raises."""
        return list(await asyncio.gather(*map(self._one, ballots)))

    async def _one(self, ballot: Ballot) -> Vote:
        view = view_of(ballot)
        _, ids, _ = fit(self.role, view, self.backbone, self.tokens)
        sampling = Sampling(self.temperature, max_new_tokens=self.tokens, seed=ballot.seed)
        ask = Ask(self.role.code, view, ballot.case.question_id)
        done = await self.backbone.generate(ids, sampling, hint=ask)
        thought = thought_of(self.backbone)
        text = done.text if thought is None else thought.spoken(done.text)
        spent = (done.prompt_tokens or len(ids)) + (done.action_tokens or len(done.token_ids))
        parsed = self.role.parse(text, view) if len(text) <= LONGEST else None
        legal = parsed is not None and parsed.violation is None and parsed.value is not None
        return Vote(frozenset(parsed.value) if parsed is not None and legal else None, text, spent)

    def bound(self, cases: Sequence[Case], cascade: Cascade) -> int:
        """Tokens, prompts and votes together, that judging these searches takes at most.

        A prompt of a lower level shows the passages of the first, as examples or as undecided, or fewer.
        """
        total = 0
        for case in cases:
            first = Ballot(case, cascade.levels - 1, cascade.levels, tuple(range(len(case.candidates))), (), 0, 0)
            _, ids, _ = fit(self.role, view_of(first), self.backbone, self.tokens)
            longest = min(len(ids) + _MORE + self.tokens, self.backbone.max_context)
            total += cascade.calls * longest
        return total


__all__ = ["BackboneJudge"]
