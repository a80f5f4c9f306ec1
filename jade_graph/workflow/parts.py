"""The roles, tools and plans of a preset, put together and checked against each other.

Invariant: what does not fit is found here, before anything runs, with the known names listed; a fixed workflow that
could never reach an answer is not built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

from jade_graph import plugins
from jade_graph.errors import GraphError, unknown
from jade_graph.types import SCHEMA_VERSION, Backbone, Limits, Loop, Plan, Preset, Role, Tool
from jade_graph.workflow import loops
from jade_graph.workflow.judged import SCORER, SEGMENTER, How
from jade_graph.workflow.plans import PlanGrammar

PLANNER, SUMMARIZER = "PL", "AS"


def limits_of(preset: Preset, **overrides: Any) -> Limits:
    """The default limits with the preset's and then the given ones on top. Raises `UsageError` for an unknown name."""
    wanted = {**preset.limits, **overrides}
    fields = asdict(Limits())
    for name in wanted:
        if name not in fields:
            raise unknown("limit", name, fields, code="UNKNOWN_LIMIT")
    return replace(Limits(), **wanted)


class Parts:
    """The roles, tools and plans (or loop) of a preset, checked against each other."""

    plan: Plan | None
    sub_plan: Plan | None
    planner: Role | None
    summarizer: Role | None
    grammar: PlanGrammar
    tools: dict[str, Tool]
    roles: dict[str, Role]

    def __init__(self, preset: Preset, limits: Limits) -> None:
        self.preset = preset
        self.loop = self._looped() if preset.loop is not None else None
        if self.loop is None:
            self._planned(limits)
        else:
            self._loop_parts(self.loop)
        self._check_names()

    def _looped(self) -> Loop:
        """The preset's loop, checked. Raises `GraphError` GRAPH_LOOP."""
        named = self.preset.loop
        loop = plugins.load("jade.loops", named) if isinstance(named, str) else named
        if not isinstance(loop, Loop):
            raise GraphError(
                f"the preset {self.preset.name!r} names a {type(loop).__name__} as its loop.",
                code="GRAPH_LOOP",
                hint="see jade_graph.types.Loop",
            )
        if self.preset.plan or self.preset.sub_plan:
            raise GraphError(
                f"the preset {self.preset.name!r} has a loop and a plan: a workflow is one of them.",
                code="GRAPH_LOOP",
                hint="leave plan and sub_plan out",
            )
        loops.check(loop)
        return loop

    def _loop_parts(self, loop: Loop) -> None:
        """The parts of a loop. It has no plans, and none of its parts may plan or split: the loop is the workflow."""
        loaded = {loops.code_of(part): self._load(part) for part in loop.parts}
        self.plan = self.sub_plan = self.planner = self.summarizer = None
        self.grammar = PlanGrammar(())
        self.tools = {c: p for c, p in loaded.items() if not isinstance(p, Role)}
        self.roles = {c: p for c, p in loaded.items() if isinstance(p, Role)}
        for code, role in self.roles.items():
            if role.kind != "executor":
                raise GraphError(
                    f"the role {code!r} of the loop {loop.name!r} is a {role.kind}: the loop decides what follows.",
                    code="GRAPH_ROLE_KIND",
                    hint='kind = "executor"',
                )

    def _planned(self, limits: Limits) -> None:
        preset = self.preset
        full = PlanGrammar.of(plugins.load("jade.plan_rules", name) for name in preset.plan_rules)
        self.plan = full.require(preset.plan) if preset.plan else None
        self.sub_plan = full.require(preset.sub_plan) if preset.sub_plan else None
        loaded = {code: self._load(code) for code in sorted(full.codes)}
        decomposers = {c for c, p in loaded.items() if getattr(p, "kind", "tool") == "decomposer"}
        splits = bool(decomposers & (set(self.plan.steps) if self.plan else full.codes))
        self._check_depth(limits, decomposers, splits)
        planned = self.plan is None or (splits and self.sub_plan is None)
        fixed = tuple(dict.fromkeys(p for p in (self.plan, self.sub_plan) if p is not None))
        self.grammar = full if planned else PlanGrammar(fixed)
        self.planner = self._special(PLANNER, "planner") if planned else None
        self.summarizer = self._special(SUMMARIZER, "summarizer") if splits else None
        used = {code: part for code, part in loaded.items() if code in self.grammar.codes}
        specials = {r.code: r for r in (self.planner, self.summarizer) if r is not None}
        self.tools = {c: p for c, p in used.items() if not isinstance(p, Role)}
        self.roles = {c: p for c, p in used.items() if isinstance(p, Role)} | specials

    def _check_depth(self, limits: Limits, decomposers: set[str], splits: bool) -> None:
        """Fixed workflows must be able to reach an answer."""
        if self.plan and splits and limits.depth < 1:
            raise GraphError(
                f"the fixed plan {self.plan} decomposes, and limits.depth is {limits.depth}.",
                code="GRAPH_DEPTH",
                hint="limits.depth=1",
            )
        if self.sub_plan and decomposers & set(self.sub_plan.steps):
            raise GraphError(
                f"the fixed workflow of sub-questions {self.sub_plan} decomposes: no sub-question would be answered.",
                code="GRAPH_SUB_PLAN",
                hint='sub_plan="R,AG"',
            )

    def _load(self, named: str | Role | Tool) -> Role | Tool:
        """A part by its code, or one that is given itself, with the preset's options."""
        code = loops.code_of(named)
        part = plugins.load("jade.roles", code) if isinstance(named, str) else named
        if not isinstance(part, Role | Tool):
            raise GraphError(
                f"the part {code!r} is a {type(part).__name__}, neither a Role nor a Tool.",
                code="GRAPH_NOT_A_ROLE",
                hint="see jade_graph.types.Role; jade_graph.testing.roles.check_role names what is missing",
            )
        if part.code != code:
            raise GraphError(f"the role {part.code!r} is registered as {code!r}.", code="GRAPH_ROLE_NAME")
        options = self.preset.role_options.get(code)
        if not options:
            return part
        try:
            return replace(part, **options)  # type: ignore[type-var]
        except TypeError as error:
            raise GraphError(
                f"preset {self.preset.name!r}: role {code!r} takes no options {dict(options)!r}: {error}",
                code="GRAPH_ROLE_OPTION",
            ) from error

    def _special(self, code: str, kind: str) -> Role:
        part = self._load(code)
        if not isinstance(part, Role) or part.kind != kind:
            raise GraphError(f"the role {code!r} is no {kind}.", code="GRAPH_ROLE_KIND")
        return part

    def _check_names(self) -> None:
        known = {*plugins.names("jade.roles"), *self.roles, *self.tools}
        named = {*(self.preset.trainable or ()), *self.preset.role_options, *(set(self.preset.penalties) - {"*"})}
        named |= {*self.preset.compress}
        for code in sorted(named - known):
            raise unknown("role", code, known, code="UNKNOWN_ROLE")

    @property
    def kinds(self) -> dict[str, list[str]]:
        """The codes of the roles of every kind."""
        out: dict[str, list[str]] = {kind: [] for kind in ("planner", "executor", "decomposer", "summarizer")}
        for code, role in self.roles.items():
            out[role.kind].append(code)
        return out

    def judges(self, how: How | None) -> dict[str, Role]:
        """The roles that judge in training, by code; none for a graph that serves, and where nobody is asked."""
        codes = () if how in (None, "uniform") else (SEGMENTER,) if how == "leave_one_out" else (SEGMENTER, SCORER)
        found = {code: self._load(code) for code in codes}
        for code, part in found.items():
            if not isinstance(part, Role):
                raise GraphError(f"{code!r} is no role.", code="GRAPH_NOT_A_ROLE", hint="see jade_graph.types.Role")
        return {code: part for code, part in found.items() if isinstance(part, Role)}

    def hash(
        self,
        k: int,
        constrained: bool,
        action_tokens: int | None,
        judges: Mapping[str, Role] | None = None,
        how: How | None = None,
    ) -> str:
        """Names what the graph does: preset, roles with their options, plans, k."""
        parts: dict[str, Role | Tool] = {**self.roles, **self.tools, **(judges or {})}
        described = {
            "schema": SCHEMA_VERSION,
            "preset": {key: repr(value) for key, value in sorted(_fields(self.preset).items())},
            "parts": {code: _described(part) for code, part in sorted(parts.items())},
            "plans": [str(p) for p in self.grammar.plans],
            **({"loop": _described(self.loop)} if self.loop else {}),
            **({"compress": [how, *self.preset.compress]} if how else {}),
            "k": k,
            "constrained": constrained,
            "action_tokens": action_tokens,
        }
        text = json.dumps(described, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def require_roles(given: Iterable[str], parts: Parts) -> None:
    """Raise `UsageError` UNKNOWN_ROLE for what is neither a role's code nor a kind of roles."""
    known = {*plugins.names("jade.roles"), *parts.kinds} - set(parts.tools)
    for name in given:
        if name not in known:
            raise unknown("role", name, known, code="UNKNOWN_ROLE")


def role_backbones(given: Mapping[str, Backbone], parts: Parts) -> dict[str, Backbone]:
    """Role code to backbone: kinds spelled out, a code beats its kind. Raises `UsageError` UNKNOWN_ROLE."""
    require_roles(given, parts)
    spelled = {code: model for name, model in given.items() for code in parts.kinds.get(name, ())}
    return spelled | {name: model for name, model in given.items() if name in parts.roles}


def _described(part: Role | Tool | Loop) -> str:
    """A role as text that is the same in every process: its class and its settings."""
    kind = type(part)
    settings = {f.name: getattr(part, f.name) for f in fields(part)} if is_dataclass(part) else vars(part)
    return f"{kind.__module__}.{kind.__qualname__} {sorted((k, repr(v)) for k, v in settings.items())}"


def _fields(preset: Preset) -> dict[str, Any]:
    fields = asdict(replace(preset, loop=None))
    del fields["loop"]  # described by itself; a method without one keeps the hash that it had before there were loops
    del fields["compress"]  # of training alone: what serves is the same graph with and without it
    fields["trainable"] = sorted(preset.trainable) if preset.trainable is not None else None
    return fields
