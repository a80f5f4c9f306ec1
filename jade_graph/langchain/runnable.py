"""A graph as a LangChain `Runnable`: what an app composes, streams and traces.

Invariant: the chunks of a stream add up to what `invoke` returns, so a graph keeps its meaning between `|` on both
sides, under stream and astream_events too. A run that fails is an output with a named error, unless asked to raise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, NotRequired

from langchain_core.callbacks import AsyncCallbackManagerForChainRun
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import AddableDict, ConfigurableFieldSpec
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from jade_graph.errors import JadeError
from jade_graph.langchain import options
from jade_graph.sync import iterate_sync, run_sync
from jade_graph.types import Limits, Passage, Run, Transition

if TYPE_CHECKING:
    from jade_graph.langchain.tool import JadeTool
    from jade_graph.workflow.context import Event
    from jade_graph.workflow.engine import JadeGraph


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


class JadeRunnable(Runnable[Any, JadeOutput]):
    """The Runnable side of `JadeGraph`."""

    graph: CompiledStateGraph[Any, Any, Any, Any]
    limits: Limits

    # --- what the graph brings ----------------------------------------------------------------------------------------
    if TYPE_CHECKING:

        async def arun(self, *args: Any, **kwargs: Any) -> Run: ...

        async def aresume(self, *args: Any, **kwargs: Any) -> Run: ...

        def variant(self, **changes: Any) -> JadeGraph: ...

    # --- schemas ------------------------------------------------------------------------------------------------------
    @property
    def InputType(self) -> Any:  # noqa: N802  LangChain's name
        return str | JadeInput

    @property
    def OutputType(self) -> type[JadeOutput]:  # noqa: N802  LangChain's name
        return JadeOutput

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return options.specs()

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """The drawing of the state machine, not of a single box."""
        return self.graph.get_graph(config)

    # --- running ------------------------------------------------------------------------------------------------------
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> JadeOutput:
        """Answer a question.

        Args:
            input: a text, or a mapping with "question" (see `JadeInput`), or `Command(resume=..)` for a run that waits
                on the config's thread.
            kwargs: for this call: preset, k, seed, limits, sampling, plan, run_id, metadata, raise_on_failure. All but
                the last three also under `config["configurable"]`.

        Raises:
            UsageError: what the options say. JadeError with the run's error code, where `raise_on_failure` is set.
        """
        return await self._acall_with_config(self._ended, input, config, **kwargs)

    async def _ended(
        self, given: Any, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig, **keywords: Any
    ) -> JadeOutput:
        del run_manager
        out = AddableDict()
        async for chunk in self._chunks(given, config, keywords):
            out = out + chunk
        return out  # type: ignore[return-value]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> JadeOutput:
        """`ainvoke` for code without an event loop, or in a notebook's cell: it runs on a thread of its own."""
        return run_sync(self.ainvoke(input, config, **kwargs))

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[JadeOutput]:
        """The run as it unfolds: first its id, then every step and new document, then the answer.

        The chunks add up (`+`) to what `ainvoke` gives. `astream_events` and `graph.astream` show what is inside.
        """

        async def once() -> AsyncIterator[Any]:
            yield input

        # Closed at once when the caller leaves: that is what cancels the run.
        async with contextlib.aclosing(
            self._atransform_stream_with_config(once(), self._streamed, config, **kwargs)  # type: ignore[type-var]
        ) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _streamed(
        self,
        given: AsyncIterator[Any],
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **keywords: Any,
    ) -> AsyncIterator[JadeOutput]:
        del run_manager
        async for each in given:
            async with contextlib.aclosing(self._chunks(each, config, keywords)) as chunks:
                async for chunk in chunks:
                    yield chunk  # type: ignore[misc]

    def stream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[JadeOutput]:
        """`astream` for code without an event loop."""
        return iterate_sync(self.astream(input, config, **kwargs))

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[JadeOutput]:
        """Many questions at once: their model calls are batched together. `max_concurrency` of the config bounds it."""
        return run_sync(self.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs))

    async def _chunks(
        self, given: Any, config: RunnableConfig, keywords: dict[str, Any]
    ) -> AsyncGenerator[AddableDict]:
        """The run as chunks; leaving early cancels it."""
        call = options.understand(given, config, keywords)
        graph = self.variant(**call.changes)
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        watch = events.put_nowait
        if isinstance(given, Command):
            work = graph.aresume(given, config, on_event=watch)
        else:
            bounds = call.bounds(graph.limits)
            work = graph.arun(call.question, **call.run, limits=bounds, config=config, on_event=watch)
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: events.put_nowait(None))
        story = _Story()
        try:
            while (event := await events.get()) is not None:
                for chunk in story.told(event):
                    yield chunk
            run = await task
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        for chunk in story.ended(run):
            yield chunk
        if call.raise_on_failure and run.status == "failed":
            raise failure_of(run)

    # --- as other things ----------------------------------------------------------------------------------------------
    def as_tool(  # type: ignore[override]  # ours has no schema to choose: the argument is a question
        self, *, name: str = "search_and_answer", description: str | None = None, **kwargs: Any
    ) -> JadeTool:
        """The graph as a tool for an agent (`langchain.agents.create_agent`). `kwargs` are fields of `JadeTool`."""
        from jade_graph.langchain.tool import JadeTool

        told: dict[str, Any] = {"description": description} if description else {}
        return JadeTool(graph=self, name=name, **told, **kwargs)

    def __copy__(self) -> JadeRunnable:
        return self

    def __deepcopy__(self, memo: Any) -> JadeRunnable:
        """A graph holds a model and its worker: a copy of what refers to it refers to the same one."""
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "a JadeGraph holds a model and threads and cannot be pickled: send the settings, and make it there with "
            "JadeGraph.from_config(..)"
        )


def failure_of(run: Run) -> JadeError:
    """The error of a failed run, for those who want one raised."""
    code = run.error or "INTERNAL"
    return JadeError(run.error_message.removeprefix(f"[{code}] ") or "the run failed.", code=code)


class _Story:
    """Turns the events of one run into chunks that add up to its output."""

    def __init__(self) -> None:
        self._begun = False
        self._seen: set[str] = set()
        self._waiting: tuple[Any, ...] = ()
        self._told: set[int] = set()

    def told(self, event: Event) -> Iterator[AddableDict]:
        if event.transition is not None:
            yield from self._begin(event.run_id)
            yield from self._step(event.transition)
        self._waiting = event.waiting or self._waiting

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
        yield AddableDict(question=run.question, **_end(run))


def output_of(run: Run) -> JadeOutput:
    """A finished run as the Runnable's output: what `invoke` returns for it, also for one read back from a store."""
    story = _Story()
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


def document_of(passage: Passage) -> Document:
    """A LangChain document: the passage's own metadata, with title and score beside it."""
    own = {"title": passage.title, "score": passage.score} if passage.title else {"score": passage.score}
    return Document(id=passage.id, page_content=passage.text, metadata={**own, **passage.metadata})


__all__ = [
    "JadeInput",
    "JadeOutput",
    "JadeRunnable",
    "Step",
    "document_of",
    "failure_of",
    "output_of",
    "step_of",
]
