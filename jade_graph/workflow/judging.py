"""Training's look at the texts that a run wrote: cut and weighed by two roles that no served graph has (SCMA).

Invariant: a run is over when it is judged, and stays as it is: what judging spends is on an account of its own, and
what goes wrong with it costs the judgement, never the answer. Its calls are transitions like any other's, after the
run's own, each with the number of the action that it judges.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, get_args

from jade_graph.errors import BackboneError, GraphError, unknown
from jade_graph.types import Ask, Backbone, Counters, Message, Preset, Role, Sampling, TraceNode, Transition, View
from jade_graph.workflow import judged
from jade_graph.workflow.actor import Actor, Where
from jade_graph.workflow.context import DeadlineError, RunContext, generate, in_time
from jade_graph.workflow.judged import LEAST, MOST, SCORER, SEGMENTER, How, Judged

ENOUGH = 10**9
"""Tokens that judging may spend: the run's own limit is not touched."""
REACH = 1.0
"""Nats that a piece must be worth to what followed, to weigh the most."""


def checked(how: str | None, preset: Preset) -> How | None:
    """Raises `UsageError` UNKNOWN_SCORER, `GraphError` GRAPH_COMPRESS for a preset that names no text."""
    if how is None:
        return None
    known: tuple[How, ...] = get_args(How)
    if how not in known:
        raise unknown("scorer", how, known, code="UNKNOWN_SCORER")
    if not preset.compress:
        raise GraphError(
            f"the preset {preset.name!r} names no role whose text could be compressed.",
            code="GRAPH_COMPRESS",
            hint='Preset(.., compress=("AG",))',
        )
    return next(each for each in known if each == how)


@dataclass(frozen=True, slots=True)
class Judging:
    """Judges the runs of one graph.

    Attributes:
        how: "uniform" measures lengths and asks nobody; "joint" cuts and weighs with the model in training; "frozen"
            weighs with the frozen one; "leave_one_out" cuts, and weighs each piece by what following text loses
            without it.
        texts: role codes whose texts are judged.
        roles: the two roles, by code.
        actor: carries out their actions.
    """

    how: How
    texts: frozenset[str]
    roles: Mapping[str, Role]
    actor: Actor

    @classmethod
    def of(cls, how: How, preset: Preset, roles: Mapping[str, Role], actor: Actor) -> Judging:
        own = replace(actor.trainable)
        scorer = replace(actor.frozen, trainable=False) if how == "frozen" else own
        served = {SEGMENTER: own, SCORER: scorer}
        own_actor = replace(actor, trainable_roles=None, others=served, action_tokens=None, constrained=False)
        return cls(how, frozenset(preset.compress), roles, own_actor)

    @property
    def asks(self) -> tuple[str, ...]:
        """Codes of the roles that act."""
        return {"uniform": (), "leave_one_out": (SEGMENTER,)}.get(self.how, (SEGMENTER, SCORER))

    async def __call__(self, ctx: RunContext) -> None:
        """Judge what the run wrote, and put it into the run's metadata."""
        side = replace(
            ctx,
            limits=replace(ctx.limits, tokens=ENOUGH, deadline_s=ctx.elapsed_ms() / 1000 + ctx.limits.deadline_s),
            counters=Counters(),
            reserved=0,
            fatal=None,
            fatal_message="",
            paused_at=None,
            replay=None,
            explore=0.0,
            begun={},
        )
        try:
            texts = await self._texts(side)
        finally:
            ctx.next_seq = side.next_seq
        told = {"how": self.how, "texts": [text.as_dict() for text in texts]}
        ctx.run.metadata = {**ctx.run.metadata, judged.KEY: told}

    async def _texts(self, ctx: RunContext) -> list[Judged]:
        found = judged.texts_of(ctx.transitions, self.texts)
        backbone = self.actor.trainable.backbone
        try:
            backbone = ctx.leased(backbone)
        except BackboneError as failure:
            return [Judged(t.seq, t.role, _limit(t), (text,), (0,), why=failure.error_code) for t, text in found]
        whole = [
            Judged(t.seq, t.role, _limit(t), (text,), (len(backbone.encode_text(text)),), (float(LEAST),), True)
            for t, text in found
        ]
        if self.how == "uniform" or not found:
            return whole
        # A text with our tags in it could be cut by nobody: it is not spared for that.
        cut = await asyncio.gather(
            *(
                _whole(replace(each, why="TAGGED")) if judged.cannot_be_cut(text) else self._cut(ctx, t, text, each)
                for each, (t, text) in zip(whole, found, strict=True)
            )
        )
        measured = [
            replace(each, lengths=lengths_of(each.pieces, backbone)) if len(each.pieces) > 1 else each for each in cut
        ]
        weigh = self._left_out if self.how == "leave_one_out" else self._weighed
        return list(
            await asyncio.gather(
                *(
                    weigh(ctx, t, each, backbone) if each.valid and each.why != "TAGGED" else _whole(each)
                    for each, (t, _) in zip(measured, found, strict=True)
                )
            )
        )

    # --- the two roles ------------------------------------------------------------------------------------------------
    async def _cut(self, ctx: RunContext, t: Transition, text: str, whole: Judged) -> Judged:
        role = _with_room(self.roles[SEGMENTER], 2 * whole.tokens + 64)
        memory, violation = await self._act(ctx, role, t, {"text": text})
        pieces = tuple(memory.get("pieces") or ())
        if violation or not judged.lossless(pieces, text):
            return replace(whole, weights=None, valid=False, why=violation or "NOT_LOSSLESS")
        return replace(whole, pieces=pieces, weights=None)

    async def _weighed(self, ctx: RunContext, t: Transition, cut: Judged, backbone: Backbone) -> Judged:
        most = "".join(f"<score>{MOST}</score>" for _ in cut.pieces)
        role = _with_room(self.roles[SCORER], len(backbone.encode_text(most)) + 8)
        memory, violation = await self._act(ctx, role, t, {"pieces": cut.pieces})
        weights = tuple(memory.get("weights") or ())
        if violation or len(weights) != len(cut.pieces) or not all(LEAST <= w <= MOST for w in weights):
            return replace(cut, valid=False, why=violation or "COUNT")
        return replace(cut, weights=tuple(map(float, weights)))

    async def _act(
        self, ctx: RunContext, role: Role, t: Transition, memory: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], str]:
        """What the role wrote into its memory, and what was wrong with its action; never raises for either."""
        target = ctx.trace.get(t.trace_node) or TraceNode(t.trace_node, ctx.run.question)
        where = Where(target, t.round, t.step, t.plan, judges=t.seq)
        view = View(target.text, ctx.run.question, "sub" if target.depth else "root", memory, depth=target.depth)
        effect = await self.actor.act(ctx, role, view, where)
        own = next((x for x in reversed(ctx.transitions) if x.role == role.code and x.judges == t.seq), None)
        if effect is None or own is None:
            return {}, (own.error if own is not None and own.error else "FAILED")
        return effect.memory, own.violation or ""

    # --- leaving out --------------------------------------------------------------------------------------------------
    async def _left_out(self, ctx: RunContext, t: Transition, cut: Judged, backbone: Backbone) -> Judged:
        """Weights from what the text led to: how much less probable it is without each piece. One batch."""
        asked = _without_each(ctx.transitions, t, cut.pieces, backbone)
        if asked is None:
            return replace(cut, valid=False, why="NOTHING_FOLLOWS")
        contexts, target = asked
        sampling = Sampling(max_new_tokens=len(target), forced=target)
        hint = Ask(t.role, View(ctx.run.question, ctx.run.question, "root"), t.question_id, t.trace_node)
        try:
            done = await in_time(
                ctx, asyncio.gather(*(generate(ctx, backbone, ids, sampling, hint) for ids in contexts))
            )
        except (DeadlineError, BackboneError) as failure:
            code = failure.error_code if isinstance(failure, BackboneError) else "LIMIT_DEADLINE"
            return replace(cut, valid=False, why=code)
        logs = [math.fsum(each.logprobs) for each in done]
        drops = tuple(logs[0] - each for each in logs[1:])
        return replace(cut, weights=tuple(weight_of(drop) for drop in drops), drops=drops)


def weight_of(drop: float, reach: float = REACH) -> float:
    """The weight of a piece without which the log-probability of what followed is `drop` nats lower: from 1 (nothing,
    or better so) to 5 (`reach` or more)."""
    return LEAST + (MOST - LEAST) * min(1.0, max(0.0, drop / reach))


def lengths_of(pieces: Sequence[str], backbone: Backbone) -> tuple[int, ...]:
    """Tokens of each piece, as they add to the text's: they sum to the number of tokens of the whole."""
    total = len(backbone.encode_text("".join(pieces)))
    ends, text = [0], ""
    for piece in pieces[:-1]:
        text += piece
        ends.append(min(total, max(ends[-1], len(backbone.encode_text(text)))))
    return tuple(b - a for a, b in itertools.pairwise([*ends, total]))


def _without_each(
    done: Sequence[Transition], t: Transition, pieces: Sequence[str], backbone: Backbone
) -> tuple[list[list[int]], tuple[int, ...]] | None:
    """Prompts with the whole text and without each of its pieces, and the ids of what the text led to: the rest of its
    own action, else the last action that read it; None where there is neither."""
    start, end = judged.long_part(t.action_text)
    texts = ["".join(pieces), *("".join(p for j, p in enumerate(pieces) if j != i) for i in range(len(pieces)))]
    rest = t.action_text[end:]
    if "</think>" in rest.lower() and rest.lower().partition("</think>")[2].strip():
        before = list(t.prompt_token_ids)
        target = (*backbone.encode_text(rest), backbone.eos_token_id)
        return [before + list(backbone.encode_text(t.action_text[:start] + text)) for text in texts], target
    flat = [" ".join(text.split()) for text in texts]
    readers = [x for x in done if x.seq > t.seq and x.judges is None and x.action_token_ids and x.error is None]
    for x in reversed(readers):
        for shown in (texts, flat):
            if any(shown[0] in m.content for m in x.prompt_messages):
                prompts = [
                    [Message(m.role, m.content.replace(shown[0], text)) for m in x.prompt_messages] for text in shown
                ]
                return [list(backbone.encode(messages)) for messages in prompts], tuple(x.action_token_ids)
    return None


def _with_room(role: Role, tokens: int) -> Role:
    """The role with room for an action of so many tokens, and no more: prompt and room share the model's context."""
    if not is_dataclass(role) or isinstance(role, type):
        return role
    made: Role = replace(role, max_new_tokens=max(8, min(tokens, role.max_new_tokens)))
    return made


def _limit(t: Transition) -> int:
    return int(t.sampling.get("max_new_tokens") or len(t.action_token_ids))


async def _whole(text: Judged) -> Judged:
    return text
