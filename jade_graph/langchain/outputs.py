"""What the graph takes and gives as a LangChain Runnable, and how the events of a run become it.

Invariant: the chunks of a run add up to its output: what `stream` tells piece by piece `invoke` tells at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NotRequired

from langchain_core.documents import Document
from langchain_core.runnables.utils import AddableDict
from typing_extensions import TypedDict

from jade_graph.errors import JadeError
from jade_graph.langchain.announcing import document_of
from jade_graph.types import Event, Passage, Run, Transition


class JadeInput(TypedDict):
    """A question. A plain text will do as well."""

    question: str
    question_id: NotRequired[str]
    run_id: NotRequired[str]
    seed: NotRequired[int]
    metadata: NotRequired[dict[str, Any]]


class Step(TypedDict):
    """One action of a role or tool, as it happened. `text` is what the model wrote, `parsed` what was made of it."""

    seq: int
    role: str
    trace_node: str
    text: str
    parsed: Any
    violation: str | None
    error: str | None
    ms: float
    version: str


class JadeOutput(TypedDict, total=False):
    """How a run ended. `status`: "answered", "failed" (see `error`), or "waiting" for a person (see `interrupts`)."""

    run_id: str
    question: str
    documents: list[Document]
    steps: list[Step]
    answer: str
    status: str
    error: str | None
    error_message: str
    plan: str
    usage: dict[str, int]
    version: str
    interrupts: list[Any]


def failure_of(run: Run) -> JadeError:
    """The error of a failed run, for those who want one raised."""
    code = run.error or "INTERNAL"
    return JadeError(run.error_message.removeprefix(f"[{code}] ") or "the run failed.", code=code)


class Instead(str):
    """An answer that takes the place of what was streamed of it: added to that it is itself.

    In a chunk it says that the tokens before it were taken back. As a value it is a text like any other.
    """

    __slots__ = ()

    def __radd__(self, other: str) -> str:
        return str(self)


class Story:
    """Turns the events of one run into chunks that add up to its output."""

    def __init__(self) -> None:
        self._said: str | None = None
        self._begun = False
        self._seen: set[str] = set()
        self._waiting: tuple[Any, ...] = ()
        self._told: set[int] = set()

    def told(self, event: Event) -> Iterator[AddableDict]:
        if event.transition is not None:
            yield from self._begin(event.run_id)
            yield from self._step(event.transition)
        elif event.kind == "token":
            yield from self._begin(event.run_id)
            yield AddableDict(answer=self._answer(event.text))
        elif event.kind == "retract":
            self._said = ""
            yield AddableDict(answer=Instead(""))
        self._waiting = event.waiting or self._waiting

    def _answer(self, text: str) -> str:
        self._said = (self._said or "") + text
        return text

    def _begin(self, run_id: str) -> Iterator[AddableDict]:
        if not self._begun:
            self._begun = True
            yield AddableDict(run_id=run_id, documents=[], steps=[])

    def _step(self, t: Transition) -> Iterator[AddableDict]:
        self._told.add(t.seq)
        yield AddableDict(steps=[step_of(t)])
        found = (t.parsed or {}).get("documents", ()) if t.role == "R" and t.error is None else ()
        fresh = [d for d in found if d["id"] not in self._seen]
        self._seen.update(d["id"] for d in fresh)
        if fresh:
            yield AddableDict(documents=[document_of(passage_of(d)) for d in fresh])

    def ended(self, run: Run) -> Iterator[AddableDict]:
        yield from self._begin(run.id)
        if run.status == "running":
            yield AddableDict(question=run.question, status="waiting", interrupts=list(self._waiting))
            return
        end = _end(run)
        if self._said is not None:  # it was told as it came
            goes_on = run.answer.startswith(self._said)
            end["answer"] = run.answer[len(self._said) :] if goes_on else Instead(run.answer)
        yield AddableDict(question=run.question, **end)


def output_of(run: Run) -> JadeOutput:
    """A finished run as the Runnable's output: what `invoke` returns for it, also for one read back from a store."""
    story = Story()
    out = AddableDict()
    for part in (story._begin(run.id), *(story._step(t) for t in run.transitions), story.ended(run)):
        for chunk in part:
            out = out + chunk
    return out  # type: ignore[return-value]


def _end(run: Run) -> dict[str, Any]:
    c = run.counters
    spent = {"calls": c.calls, "retrievals": c.retrievals, "rounds": c.rounds}
    return {
        "answer": run.answer,
        "status": run.status,
        "error": run.error,
        "error_message": run.error_message,
        "plan": run.plan,
        "usage": {**spent, "input_tokens": c.prompt_tokens, "output_tokens": c.action_tokens, "total_tokens": c.tokens},
        "version": run.backbone_version,
    }


def step_of(t: Transition) -> Step:
    return {
        "seq": t.seq,
        "role": t.role,
        "trace_node": t.trace_node,
        "text": t.action_text,
        "parsed": t.parsed,
        "violation": t.violation,
        "error": t.error,
        "ms": round(t.latency_ms, 3),
        "version": t.backbone_version,
    }


def passage_of(record: dict[str, Any]) -> Passage:
    """A passage as a transition records it."""
    return Passage(
        record["id"], record.get("text", ""), record.get("title", ""), record["score"], record.get("metadata") or {}
    )


__all__ = [
    "Instead",
    "JadeInput",
    "JadeOutput",
    "Step",
    "Story",
    "document_of",
    "failure_of",
    "output_of",
    "passage_of",
    "step_of",
]
