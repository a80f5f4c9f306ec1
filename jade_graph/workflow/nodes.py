"""The nodes of the state machine: select, one for each role and tool, finish.

Invariant: a node only moves state. What to do next is decided by `blackboard.choose`, what an action means by its role,
and every branch ends by writing its trace node and going back to `select`, so no branch is ever lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command, Overwrite, Send, interrupt

from jade_graph.types import END as LOOP_END
from jade_graph.types import Counters, Effect, Loop, Plan, Preset, Role, Status, Tool, TraceNode, View
from jade_graph.workflow import approval, blackboard, loops, native
from jade_graph.workflow.actor import Actor, Where
from jade_graph.workflow.context import RunContext
from jade_graph.workflow.invocation import under_way
from jade_graph.workflow.judging import Judging
from jade_graph.workflow.plans import PlanGrammar
from jade_graph.workflow.state import Branch, State

logger = logging.getLogger("jade_graph")

BEGIN, SELECT, FINISH, APPROVE, JUDGE = "begin", "select", "finish", "approve", "judge"


@dataclass(frozen=True, slots=True)
class Workflow:
    """Everything the nodes of one graph need: roles, grammar, preset, actor, and the contexts of running runs."""

    preset: Preset
    roles: Mapping[str, Role]
    tools: Mapping[str, Tool]
    planner: Role | None
    summarizer: Role | None
    grammar: PlanGrammar
    plan: Plan | None
    sub_plan: Plan | None
    actor: Actor
    context: Callable[[Mapping[str, Any]], RunContext]
    close: Callable[[RunContext], None]
    approve: approval.Approve | None = None
    loop: Loop | None = None
    announcer: native.Announcer | None = None
    judging: Judging | None = None  # of a graph that trains; one that serves has none, and no node for it

    @property
    def last(self) -> str:
        """The node that follows when everything is settled."""
        return FINISH if self.judging is None else JUDGE

    @property
    def executors(self) -> Mapping[str, str]:
        parts: Mapping[str, Role | Tool] = {**self.roles, **self.tools}
        codes = self.grammar.codes
        return {code: part.description for code, part in parts.items() if code in codes}

    @property
    def decomposers(self) -> frozenset[str]:
        return frozenset(code for code, role in self.roles.items() if role.kind == "decomposer")

    def part(self, code: str) -> Role | Tool:
        """The role or tool of a node."""
        return self.tools[code] if code in self.tools else self.roles[code]

    # --- nodes --------------------------------------------------------------------------------------------------------
    async def begin(self, state: State) -> dict[str, Any]:
        """A further question on a thread that has answered one: forget that one's run."""
        fresh = state["run_id"] if state["run_id"] != state["traced"] else ""
        return {
            "run_id": fresh,
            "attempt": 0,
            "seq": Overwrite(0),
            "versions": (),
            "trace": Overwrite({}),
            "counters": Overwrite(Counters()),
            "answer": "",
            "status": "running",
            "error": None,
        }

    async def select(self, state: State) -> Command[str]:
        """Choose what is ready: rounds on pending targets, summaries of solved decompositions, or the end."""
        ctx = self.context(state)
        trace = state.get("trace") or {}
        updates: dict[str, TraceNode] = {}
        if not trace:
            trace = updates = {blackboard.ROOT: TraceNode(blackboard.ROOT, state["question"])}
        left = ctx.limits.rounds - ctx.counters.rounds
        choice = blackboard.choose(trace, rounds_left=left, fatal=ctx.fatal or _late(ctx))
        if (choice.start or choice.summarize) and not steps_left(ctx):
            ctx.die("LIMIT_STEPS", _REASONS["LIMIT_STEPS"])
            choice = blackboard.choose(trace, rounds_left=left, fatal=ctx.fatal)
        trace = {**trace, **choice.updates}
        updates = {**updates, **choice.updates}
        if updates:
            ctx.changed(updates)
        sends = [self._round(ctx, state, trace, node) for node in choice.start]
        sends += [self._summary(ctx, state, trace, node) for node in choice.summarize]
        goto: list[Send | str] = [*sends, *([self.last] if choice.finished else [])]
        run = {"run_id": ctx.run.id, "traced": ctx.run.id, "attempt": ctx.run.attempt, "versions": ctx.versions}
        update: dict[str, Any] = {**run, "trace": updates}
        return Command(update=update | _spent(ctx), goto=goto)

    def _branch(
        self, ctx: RunContext, state: State, trace: blackboard.Trace, node: TraceNode, plan: tuple[str, ...]
    ) -> Branch:
        return {
            "run_id": ctx.run.id,
            "question_id": ctx.run.question_id,
            "seed": ctx.run.seed,
            "attempt": ctx.run.attempt,
            "seq": ctx.next_seq,
            "versions": ctx.versions,
            "counters": ctx.counters,
            "root": state["question"],
            "target": node,
            "siblings": blackboard.siblings_of(node, trace),
            "children": blackboard.children_of(node, trace),
            "round": ctx.take_round(),
            "step": 0,
            "plan": plan,
            "memory": {},
        }

    def _round(self, ctx: RunContext, state: State, trace: blackboard.Trace, node: TraceNode) -> Send:
        ctx.spend(rounds=1)
        if self.loop is not None:
            branch = self._branch(ctx, state, trace, node, (self.loop.name,))
            return Send(loops.codes(self.loop)[0], {**branch, "step": 1})
        fixed = self.plan if node.depth == 0 else self.sub_plan
        if ctx.root_plan is not None and node.depth == 0:
            fixed = self.grammar.require(ctx.root_plan)
        branch = self._branch(ctx, state, trace, node, fixed.steps if fixed else ())
        if fixed is None and self.planner is not None:
            return Send(self.planner.code, branch)
        return Send(branch["plan"][0], {**branch, "step": 1})

    def _summary(self, ctx: RunContext, state: State, trace: blackboard.Trace, node: TraceNode) -> Send:
        assert self.summarizer is not None  # the compiler of the graph saw to it
        branch = self._branch(ctx, state, trace, node, tuple(node.plan.split(",")))
        return Send(self.summarizer.code, {**branch, "step": 1})

    async def act(self, part: Role | Tool, branch: Branch, attempt: int = 1) -> Command[str]:
        """Let a role or tool act on the branch, then send it on, or commit what came out.

        Raises what a tool raised that is to be tried again, and `BackboneError` VERSION_GONE where a checkpoint's
        version is not in memory. Anything else that goes wrong ends the run by its name, whoever drives the graph.
        """
        ctx = self.context(branch)
        where = Where(branch["target"], branch["round"], branch["step"], ",".join(branch["plan"]))
        try:
            return await self._act(ctx, part, branch, where, attempt)
        except GraphBubbleUp:
            raise
        except Exception as error:
            if where.place in ctx.begun:  # to be tried again
                raise
            logger.exception("run %s failed at %s", ctx.run.id, part.code)
            ctx.die("INTERNAL", f"{type(error).__name__}: {error}")
            return self._commit(ctx, blackboard.fail(where.target, "INTERNAL", where.plan))

    async def _act(
        self, ctx: RunContext, part: Role | Tool, branch: Branch, where: Where, attempt: int
    ) -> Command[str]:
        target, plan = where.target, where.plan
        if ctx.fatal and where.place not in ctx.begun:  # what was begun is recorded, whatever became of the run
            return self._commit(ctx, blackboard.fail(target, ctx.fatal, plan))
        view = self._view(ctx, branch)
        if part.code in self.tools:
            tool = self.tools[part.code]
            async with native.searching(ctx, self.announcer, tool, view, self.actor.retriever) as found:
                effect = await self.actor.use(ctx, tool, view, where, attempt)
                found(effect)
        elif self._answers(part.code, branch):
            async with native.speaking(ctx, self.announcer) as speech:
                if speech is not None:
                    speech.begin(part.code, target.id)
                effect = await self.actor.act(ctx, self.roles[part.code], view, where, speech)
                if speech is not None and effect is not None and effect.answer is not None:
                    speech.settle(effect.answer)
        else:
            effect = await self.actor.act(ctx, self.roles[part.code], view, where)
        if effect is None:
            return self._commit(ctx, blackboard.fail(target, ctx.fatal or "ROLE_ERROR", plan))
        if effect.answer is not None:
            return self._commit(ctx, blackboard.solve(target, effect.answer, plan))
        if effect.children and self.loop is not None:
            ctx.die(
                "LOOP_ERROR", f"{part.code} split the question, and the loop {self.loop.name!r} has no sub-questions."
            )
            return self._commit(ctx, blackboard.fail(target, "LOOP_ERROR", plan))
        if effect.children:
            return self._expand(ctx, branch, effect)
        if self.loop is not None:
            return self._around(ctx, self.loop, part.code, {**branch, "memory": {**branch["memory"], **effect.memory}})
        return self._onward(ctx, branch, effect)

    def _answers(self, code: str, branch: Branch) -> bool:
        """Whether what this role writes may be the run's answer: of the question itself, the plan's last step, the
        summary, or a role of a loop that says where its answer stands.
        """
        if branch["target"].depth:
            return False
        role = self.roles[code]
        if self.loop is not None:
            return getattr(role, "answer_tag", None) is not None
        return role.kind == "summarizer" or (role.kind == "executor" and branch["step"] == len(branch["plan"]))

    def _onward(self, ctx: RunContext, branch: Branch, effect: Effect) -> Command[str]:
        memory = {**branch["memory"], **effect.memory}
        steps = branch["plan"]
        if not steps:  # the planner has just written it
            planned: Plan = memory["plan"]
            steps = planned.steps
            if self.approve == "all" or (self.approve == "root" and branch["target"].depth == 0):
                return self._send(ctx, APPROVE, {**branch, "memory": memory, "plan": steps})
        position = branch["step"]
        if position >= len(steps):
            return self._commit(ctx, blackboard.fail(branch["target"], "NO_ANSWER", ",".join(steps)))
        return self._send(ctx, steps[position], {**branch, "memory": memory, "plan": steps, "step": position + 1})

    def _around(self, ctx: RunContext, loop: Loop, code: str, branch: Branch) -> Command[str]:
        """Let the loop say who acts next: in this turn, in a new one while rounds are left, or nobody."""
        target, step = branch["target"], loops.step(loop, code, self._view(ctx, branch), last=not steps_left(ctx))
        if step.message:
            ctx.die(step.error, step.message)
        if step.error:
            return self._commit(ctx, blackboard.fail(target, step.error, loop.name))
        if step.after == LOOP_END:
            return self._commit(ctx, blackboard.solve(target, step.answer, loop.name))
        if step.turn:
            ctx.speech.take_back()  # what was said of an answer was none
            ctx.spend(rounds=1)
            return self._send(ctx, step.after, {**branch, "round": ctx.take_round(), "step": 1})
        return self._send(ctx, step.after, {**branch, "step": branch["step"] + 1})

    def _send(self, ctx: RunContext, node: str, branch: Branch) -> Command[str]:
        if not steps_left(ctx):
            return self._commit(ctx, blackboard.fail(branch["target"], "LIMIT_STEPS", ",".join(branch["plan"])))
        spent = _spent(ctx)
        onward: Branch = {**branch, "seq": ctx.next_seq, "counters": ctx.counters}
        return Command(update=spent, goto=Send(node, onward))

    async def ask(self, branch: Branch) -> Command[str]:
        """Show the plan to a person and wait: the graph stops here until it is resumed with an answer."""
        ctx = self.context(branch)
        target, planned = branch["target"], Plan(branch["plan"])
        view, problem = self._view(ctx, branch), ""
        while True:
            ctx.asking.add(target.id)
            said = interrupt(approval.question(view, planned, target.id, ctx.run.id, problem))
            ctx.asking.discard(target.id)
            found = approval.answer(said, planned, view)
            if not isinstance(found, str):
                break
            problem = found
        if (target.id, branch["round"]) in ctx.approved:  # asked of a checkpoint that this run has left behind
            raise under_way(ctx.run.id)
        ctx.approved.add((target.id, branch["round"]))
        if found is None:
            return self._commit(ctx, blackboard.fail(target, "PLAN_REJECTED", str(planned)))
        if found != planned:
            replaced = ctx.run.metadata.get(approval.REPLACED, {})
            more = {approval.REPLACED: {**replaced, target.id: [str(planned), str(found)]}}
            ctx.run.metadata = {**ctx.run.metadata, **more}
        memory = {**branch["memory"], "plan": found}
        return self._send(ctx, found.steps[0], {**branch, "memory": memory, "plan": found.steps, "step": 1})

    def _expand(self, ctx: RunContext, branch: Branch, effect: Effect) -> Command[str]:
        """Decompose the target; where no room is left for that, answer it by a plan that does not decompose."""
        target, plan = branch["target"], ",".join(branch["plan"])
        room = min(ctx.limits.decomposition_width, ctx.limits.sub_questions - ctx.counters.sub_questions)
        questions = effect.children[: max(room, 0)]
        if questions and target.depth < ctx.limits.depth:
            ctx.spend(sub_questions=len(questions))
            return self._commit(ctx, blackboard.expand(target, questions, effect.order or "serial", plan))
        others = [p for p in self.grammar.plans if not self.decomposers & set(p.steps)]
        if not others:
            return self._commit(
                ctx, blackboard.fail(target, "LIMIT_DEPTH" if questions else "LIMIT_SUB_QUESTIONS", plan)
            )
        instead = next((p for p in others if str(p) == "R,AG"), others[0])
        return self._send(ctx, instead.steps[0], {**branch, "memory": {}, "plan": instead.steps, "step": 1})

    def _commit(self, ctx: RunContext, nodes: Mapping[str, TraceNode]) -> Command[str]:
        ctx.changed(nodes)
        return Command(update={"trace": nodes} | _spent(ctx), goto=SELECT)

    def _view(self, ctx: RunContext, branch: Branch) -> View:
        target = branch["target"]
        may_split = target.depth < ctx.limits.depth and ctx.counters.sub_questions < ctx.limits.sub_questions
        grammar = self.grammar if may_split else self.grammar.without(self.decomposers)
        return View(
            question=target.text,
            root_question=branch["root"],
            level="root" if target.depth == 0 else "sub",
            memory=branch["memory"],
            siblings=branch["siblings"],
            children=branch["children"],
            plans=grammar.plans,
            executors=self.executors,
            counters=ctx.counters,
            limits=ctx.limits,
            depth=target.depth,
        )

    async def judge(self, state: State) -> dict[str, Any]:
        """In training: what the run wrote is judged, now that it is over."""
        ctx = self.context(state)
        if self.judging is not None:
            await self.judging(ctx)
        return {"seq": ctx.next_seq}

    async def finish(self, state: State) -> dict[str, Any]:
        """Name the outcome: the root's answer, or the reason why there is none."""
        ctx = self.context(state)
        root = state["trace"][blackboard.ROOT]
        solved = root.status is Status.SOLVED
        ctx.run.status = "answered" if solved else "failed"
        ctx.run.answer = root.answer
        ctx.run.error = None if solved else (root.error or ctx.fatal or "NO_ANSWER")
        ctx.run.error_message = "" if solved else ctx.fatal_message or _REASONS.get(str(ctx.run.error), "")
        # Most often all is said; not where the answer is a loop's own.
        async with native.speaking(ctx, self.announcer) as speech:
            if speech is not None and solved:
                speech.settle(ctx.run.answer)
            elif speech is not None:
                speech.take_back()
        self.close(ctx)
        return {"answer": ctx.run.answer, "status": ctx.run.status, "error": ctx.run.error}


_REASONS = {
    "LIMIT_ROUNDS": "no rounds were left (limits.rounds), and nothing was solved that could be summarized.",
    "LIMIT_STEPS": "whoever drives the graph left it too few steps (recursion_limit) to go on.",
    "LIMIT_DEPTH": "the plan decomposes deeper than limits.depth, and no other plan is legal.",
    "LIMIT_SUB_QUESTIONS": "no sub-questions were left (limits.sub_questions), and no other plan is legal.",
    "NO_ANSWER": "the workflow ended without an answer.",
    "PLAN_REJECTED": "a person rejected the plan.",
}


def steps_left(ctx: RunContext) -> bool:
    """Whether LangGraph's `recursion_limit`, which whoever drives the graph sets, leaves another node its step.

    A node is sent on only where it, `select` and `finish` have a step each, and one is left to find that it is over.
    """
    if ctx.alone:  # nobody counts
        return True
    counted = get_config()["configurable"].get("__pregel_scratchpad")
    return counted is None or counted.stop - counted.step >= 4


def _spent(ctx: RunContext) -> dict[str, Any]:
    """What the state keeps of the ledger."""
    return {"counters": ctx.counters, "seq": ctx.next_seq}


def _late(ctx: RunContext) -> str | None:
    if ctx.remaining_s > 0:
        return None
    ctx.die("LIMIT_DEADLINE", f"the deadline of {ctx.limits.deadline_s:g} s passed.")
    return ctx.fatal
