"""What an app may set for one call: by keyword, or under `configurable` of a LangChain config.

Invariant: a keyword that is no option is an error; under `configurable` only our own names are read, the rest belongs
to others. A keyword beats `configurable`, which beats the input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langgraph.types import Command

from jade_graph.errors import UsageError, unknown
from jade_graph.types import Limits, Preset, Question

OPTIONS: Mapping[str, tuple[Any, str]] = {
    "preset": (str, "method to run, by name"),
    "k": (int, "passages per retrieval"),
    "seed": (int, "seed of the run"),
    "limits": (dict[str, Any], "bounds of the run, those that differ from the graph's"),
    "sampling": (dict[str, float], "temperature and top_p of the trainable roles"),
    "plan": (str, "force this workflow on the question"),
}
_ONLY_KEYWORDS = ("run_id", "metadata", "raise_on_failure")
_INPUT = ("question", "question_id", "run_id", "seed", "metadata")
_FOREIGN = ("langgraph_", "checkpoint_", "ls_", "lc_", "__")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, understood: what is asked, which graph is wanted (preset, k), and the options of its `arun`."""

    question: Question
    preset: str | Preset | None = None
    k: int | None = None
    limits: Mapping[str, Any] | Limits | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    raise_on_failure: bool = False

    @property
    def changes(self) -> dict[str, Any]:
        """What makes another graph of it: for `variant`."""
        return {k: v for k, v in (("preset", self.preset), ("k", self.k)) if v is not None}

    def bounds(self, own: Limits) -> Limits:
        """The limits of this call, on top of those of the graph that carries it out."""
        return self.limits if isinstance(self.limits, Limits) else replace(own, **(self.limits or {}))


def specs() -> list[ConfigurableFieldSpec]:
    """The options for `config_specs` and `config_schema`."""
    return [
        ConfigurableFieldSpec(name, kind | None, name, meaning, None, is_shared=True)
        for name, (kind, meaning) in OPTIONS.items()
    ]


def understand(given: Any, config: RunnableConfig, keywords: Mapping[str, Any]) -> Call:
    """Input, config and keywords as one `Call`.

    Args:
        given: a text, a `Question`, or a mapping with "question" and, if wanted, question_id, run_id, seed, metadata;
            a `Command` asks nothing.

    Raises:
        UsageError: BAD_INPUT, UNKNOWN_OPTION, UNKNOWN_LIMIT, BAD_OPTION.
    """
    for name in keywords:
        if name not in OPTIONS and name not in _ONLY_KEYWORDS:
            raise unknown("option", name, (*OPTIONS, *_ONLY_KEYWORDS), code="UNKNOWN_OPTION")
    question, more = _asked(given)
    configured = {k: v for k, v in (config.get("configurable") or {}).items() if k in OPTIONS and v is not None}
    chosen = {**more, **configured, **{k: v for k, v in keywords.items() if v is not None}}
    _check(chosen)
    run: dict[str, Any] = {k: chosen[k] for k in ("seed", "run_id", "sampling", "plan") if k in chosen}
    about = _about(config)
    run["metadata"] = {**({"config": about} if about else {}), **(chosen.get("metadata") or {})}
    limits = chosen.get("limits")
    if limits is not None and not isinstance(limits, Limits):
        _check_limits(limits)
    raising = bool(chosen.get("raise_on_failure", False))
    return Call(question, chosen.get("preset"), chosen.get("k"), limits, run, raising)


def _asked(given: Any) -> tuple[Question, dict[str, Any]]:
    if isinstance(given, Question):
        return given, {}
    if isinstance(given, Command):
        return Question("", ""), {}
    if isinstance(given, str):
        return Question("", given), {}
    if isinstance(given, Mapping) and isinstance(given.get("question"), str):
        for name in given:
            if name not in _INPUT:
                raise unknown("input key", str(name), _INPUT, code="UNKNOWN_OPTION")
        more = {k: v for k, v in given.items() if k in ("run_id", "seed", "metadata") and v is not None}
        return Question(str(given.get("question_id") or ""), given["question"]), more
    text = getattr(given, "text", None) or getattr(given, "content", None)  # a message
    if isinstance(text, str):
        return Question("", str(text)), {}
    messages = given.to_messages() if hasattr(given, "to_messages") else None  # a prompt value
    if messages:
        return Question("", str(messages[-1].text)), {}
    raise UsageError(
        f"{given!r} is no question.",
        code="BAD_INPUT",
        known=["a text", 'a mapping with "question"', "a Question", "a message"],
        hint='graph.invoke("Who wrote Dune?")',
    )


def _check(chosen: Mapping[str, Any]) -> None:
    kinds: Mapping[str, Any] = {
        **{"k": int, "seed": int, "preset": (str, Preset), "plan": str, "run_id": str},
        **{"limits": (Mapping, Limits), "sampling": Mapping, "metadata": Mapping},
    }
    for name, kind in kinds.items():
        value = chosen.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UsageError(f"{name} is {value!r}.", code="BAD_OPTION", hint=_EXAMPLES[name])


_EXAMPLES = {
    "k": "k=5",
    "seed": "seed=1",
    "preset": 'preset="vanilla-rag"',
    "plan": 'plan="R,AG"',
    "run_id": 'run_id="r-1"',
    "limits": 'limits={"deadline_s": 30}',
    "sampling": 'sampling={"temperature": 1.0}',
    "metadata": 'metadata={"user": "u1"}',
}


def _check_limits(wanted: Mapping[str, Any]) -> None:
    known = asdict(Limits())
    for name, value in wanted.items():
        if name not in known:
            raise unknown("limit", str(name), known, code="UNKNOWN_LIMIT")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"limits.{name} is {value!r}, no number.", code="BAD_OPTION", hint=_EXAMPLES["limits"])


def _about(config: RunnableConfig) -> dict[str, Any]:
    """Tags, thread and the app's own metadata, as far as JSON can hold them: they are recorded with the run."""
    found: dict[str, Any] = {}
    if tags := [t for t in config.get("tags") or () if not t.startswith(("seq:", "map:", "graph:", "langsmith:"))]:
        found["tags"] = tags
    if thread := (config.get("configurable") or {}).get("thread_id"):
        found["thread_id"] = str(thread)
    own = (config.get("metadata") or {}).items()
    return found | {k: v for k, v in own if not k.startswith(_FOREIGN) and k not in OPTIONS and _plain(v)}


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
