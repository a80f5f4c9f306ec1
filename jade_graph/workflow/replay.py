"""Forks: a recorded run taken up again from any of its actions, with another action there, another seed or model.

Invariant: what came before the fork is taken from the record, token for token, and no model is asked for it; what comes
after is drawn live. Actions that were replayed or written by a person are recorded and never train. A record that no
longer fits the graph ends the new run with REPLAY_DIVERGED: it is never bent to fit.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jade_graph.errors import JadeError, UsageError
from jade_graph.types import Completion, Message, Passage, Question, Run, Transition
from jade_graph.workflow.plans import PlanGrammar, workflow


class ReplayError(JadeError):
    """The recorded actions cannot be carried out again by this graph."""

    code = "REPLAY_DIVERGED"


@dataclass(frozen=True, slots=True)
class Edit:
    """What stands in the place of an action: the text that a role would have written, or the places (from 0) of the
    passages that are kept of a search, with the passages. `legal`: the text was made here and must be a legal action.
    """

    text: str | None = None
    kept: tuple[int, ...] | None = None
    legal: bool = True
    documents: tuple[Passage, ...] | None = None

    @property
    def drawn(self) -> dict[str, Any]:
        return {"edited": True}

    def told(self) -> dict[str, Any]:
        return {"documents": list(self.kept)} if self.kept is not None else {"text": self.text}


@dataclass(frozen=True, slots=True)
class Again:
    """A recorded action, to be carried out without its model or tool."""

    recorded: Transition

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.recorded.prompt_messages

    @property
    def done(self) -> Completion:
        t = self.recorded
        finish: Any = t.finish_reason
        return Completion(t.action_text, t.action_token_ids, t.old_logprobs, finish, t.backbone_version)

    @property
    def drawn(self) -> dict[str, Any]:
        """How it was drawn then, and that it is a copy."""
        return {**self.recorded.sampling, "replayed": self.recorded.seq}

    @property
    def documents(self) -> tuple[Passage, ...] | None:
        """What a recorded search brought; None where the record does not say."""
        return passages_of(self.recorded)

    def check(self, parsed: Any) -> None:
        """Raise `ReplayError` where the same text now means something else."""
        if json.dumps(parsed, sort_keys=True) != json.dumps(self.recorded.parsed, sort_keys=True):
            t = self.recorded
            raise ReplayError(
                f"action {t.seq} ({t.role}) was read as {t.parsed!r:.200} and is now read as {parsed!r:.200}.",
                hint="fork with the preset and the roles that recorded the run",
            )


class Replay:
    """The record up to an action, handed out action by action; question by question, as the graph asks for them.

    Args:
        at: the action at which the new run parts from the record. Those that had begun before it are replayed.
        edit: what is done there instead; None: the model is asked.
    """

    def __init__(self, run: Run, at: Transition, edit: Edit | None = None) -> None:
        self._at, self._edit = at, edit
        self._left: dict[str, deque[Transition]] = {}
        for t in sorted(run.transitions, key=lambda t: t.seq):
            if t.seq < at.seq:
                self._left.setdefault(t.trace_node, deque()).append(t)

    def take(self, trace_node: str, role: str) -> Again | Edit | None:
        """What the next action of a question is; None: it is live. Raises `ReplayError`."""
        left = self._left.get(trace_node)
        if left:
            if left[0].role != role:
                raise ReplayError(
                    f"the record has {left[0].role} as action {left[0].seq}, and this graph asks {role}.",
                    hint="fork with the preset that recorded the run",
                )
            return Again(left.popleft())
        if (trace_node, role) == (self._at.trace_node, self._at.role) and self._edit is not None:
            edit, self._edit = self._edit, None
            return edit
        return None


def passages_of(t: Transition) -> tuple[Passage, ...] | None:
    """The passages of a recorded search."""
    found = t.parsed.get("documents") if isinstance(t.parsed, Mapping) else None
    if found is None:
        return None
    return tuple(
        Passage(d["id"], d.get("text", ""), d.get("title", ""), d.get("score", 0.0), d.get("metadata") or {})
        for d in found
    )


@dataclass(frozen=True, slots=True)
class Fork:
    """A recorded run taken up again: what `arun` is given for it."""

    question: Question
    plan: str | None
    metadata: Mapping[str, Any]
    replay: Replay


def forked(
    run: Run,
    at: int | str,
    edit: Mapping[str, Any],
    *,
    preset: str,
    grammar: PlanGrammar,
    planner: str | None,
) -> Fork:
    """What a fork of this run is asked: see `Engine.afork`.

    Args:
        edit: what is done instead, as `edit_of` takes it.
        preset, grammar, planner: of the graph that is to carry it out; planner is its role's code.

    Raises:
        UsageError: FORK_PRESET, FORK_AT, FORK_EDIT.
    """
    if run.preset != preset:
        raise UsageError(
            f"run {run.id!r} is of {run.preset!r}, and this graph is of {preset!r}.",
            code="FORK_PRESET",
            hint=f"JadeGraph(.., preset={run.preset!r})",
        )
    where = action_at(run, at)
    instead = edit_of(where, edit, grammar)
    golds = run.metadata.get("answers")
    told = {
        **({"answers": golds} if golds else {}),
        "parent": run.id,
        "fork": {
            "at": where.seq,
            "role": where.role,
            "trace_node": where.trace_node,
            "edit": None if instead is None else instead.told(),
        },
    }
    planned = planner is None or any(t.trace_node == "0" and t.role == planner for t in run.transitions)
    # The parent's plan was given, not written.
    forced = run.trace[0].plan or None if not planned and run.trace else None
    asked = Question(run.question_id, run.question, tuple(golds or ()), str(run.metadata.get("type") or ""))
    return Fork(asked, forced, told, Replay(run, where, instead))


def action_at(run: Run, at: int | str) -> Transition:
    """The action with this `seq`, or the first of a role at a question ("0.2:QR"). Raises `UsageError` FORK_AT."""
    text = str(at).strip()
    node, _, role = text.partition(":")
    for t in sorted(run.transitions, key=lambda t: t.seq):
        if (str(t.seq) == text) if not role else (t.trace_node == node and t.role.lower() == role.lower()):
            return t
    raise UsageError(
        f"run {run.id!r} has no action {text!r}.",
        code="FORK_AT",
        known=[f"{t.seq} ({t.trace_node}:{t.role})" for t in run.transitions],
        hint=f"jade runs show {run.id[:8]}",
    )


def edit_of(t: Transition, given: Mapping[str, Any], grammar: PlanGrammar | None = None) -> Edit | None:
    """What is done instead of this action; None where nothing is given. Raises `UsageError` FORK_EDIT."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        return None
    if len(chosen) > 1:
        raise _bad(f"{' and '.join(chosen)} are given: an action is one thing.", "only one of them")
    ((name, value),) = chosen.items()
    if t.finish_reason in ("tool", "error") and passages_of(t) is not None:
        if name != "documents":
            raise _bad(f"{t.role} is a tool: its {name} cannot be edited.", "documents=(0, 2)")
        found = passages_of(t) or ()
        kept = _places(value, len(found))
        return Edit(kept=kept, documents=tuple(found[i] for i in kept))
    if name == "text":
        return Edit(text=str(value), legal=False)
    if name == "plan":
        plan = str(grammar.require(str(value))) if grammar is not None else str(value)
        return Edit(text=workflow(plan))
    if name == "documents":
        return Edit(text="<id>" + ",".join(f"Document{i}" for i in _places(value, 10_000)) + "</id>")
    if name == "questions":
        parts = [_line(q) for q in value]
        if not parts:
            raise _bad("there are no sub-questions.", 'questions=("Who ..?", "When ..?")')
        return Edit(text="".join(f"<q{i}>{q}</q{i}>" for i, q in enumerate(parts, 1)))
    return Edit(text=f"<{name}>{_line(value)}</{name}>")


def _places(value: Sequence[int], count: int) -> tuple[int, ...]:
    places = tuple(dict.fromkeys(int(i) for i in value))
    if any(not 0 <= i < count for i in places):
        raise _bad(f"documents {list(places)} are not all among the {count} of the search.", "places from 0")
    return tuple(sorted(places))


def _line(value: Any) -> str:
    line = " ".join(str(value).split())
    if not line:
        raise _bad("the edit is empty.", "a text")
    return line


def _bad(message: str, hint: str) -> UsageError:
    return UsageError(message, code="FORK_EDIT", hint=hint)


def first_difference(a: Run, b: Run) -> tuple[Transition | None, Transition | None]:
    """The first action (in the order of `a`) in which two runs of a question part, in each; None where one has none.

    Actions are paired by question and by place in it; what they wrote, or brought, is compared.
    """
    theirs: dict[str, list[Transition]] = {}
    for t in sorted(b.transitions, key=lambda t: t.seq):
        theirs.setdefault(t.trace_node, []).append(t)
    seen: dict[str, int] = {}
    for t in sorted(a.transitions, key=lambda t: t.seq):
        place = seen.get(t.trace_node, 0)
        seen[t.trace_node] = place + 1
        listed = theirs.get(t.trace_node, [])
        other = listed[place] if place < len(listed) else None
        if other is None or (t.role, t.action_text, t.error) != (other.role, other.action_text, other.error):
            return t, other
    rest = [t for t in b.transitions if theirs[t.trace_node].index(t) >= seen.get(t.trace_node, 0)]
    return None, min(rest, key=lambda t: t.seq, default=None)


__all__ = ["Again", "Edit", "Fork", "Replay", "ReplayError", "action_at", "edit_of", "first_difference", "forked"]
