"""`JadeGraph`, the front door: an engine as a LangChain `Runnable`, which an app composes, streams and traces.

Invariant: it *has* an engine and adds nothing to how a question is run; it turns what an app hands in into the engine's
parts, and closes what it opened itself and nothing else. A run that fails is an output with a named error, unless asked
to raise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import AddableDict, ConfigurableFieldSpec
from langgraph.types import Command, Durability, RetryPolicy

from jade_graph import plugins
from jade_graph.assembly import configured, open_parts
from jade_graph.langchain import options
from jade_graph.langchain.adapting import as_backbone, as_retriever
from jade_graph.langchain.announcing import Announcer
from jade_graph.langchain.delegation import EngineAttribute, engine_method
from jade_graph.langchain.outputs import JadeInput, JadeOutput
from jade_graph.langchain.streaming import unfold
from jade_graph.langchain.tool import JadeTool
from jade_graph.settings.config import Config
from jade_graph.sync import iterate_sync, run_sync
from jade_graph.types import Backbone, Event, Limits, Preset, Recorder, Retriever, Run, Sampling
from jade_graph.workflow.approval import Approve
from jade_graph.workflow.engine import Engine
from jade_graph.workflow.parts import Parts, limits_of, require_roles

REGISTERED = "models:/jade-backbone@champion"
_MOST_VARIANTS = 32


class JadeGraph(Runnable[Any, JadeOutput]):
    """One method (`preset`) over one backbone and one corpus: a LangChain `Runnable`, with `graph` inside.

    Args:
        backbone: serves every trainable role. A `Backbone`, a name for `load_backbone`, or a LangChain chat model.
        backbones: other models for single roles, by code ("PL") or kind ("planner", "executor", "decomposer",
            "summarizer"). Their actions are greedy (a chat model's its own affair) and do not train.
        approve: let a person approve plans before they run: "root" the question's own, "all" those of sub-questions
            too. The graph then interrupts, and needs a checkpointer.
        preset: a `Preset` or the name of one (entry-point group `jade.presets`).
        retriever: where R searches: a `Retriever`, a LangChain retriever, or passages, documents or texts; None is
            right only for plans without R.
        frozen_backbone: serves the roles that the preset does not train, greedily; the backbone itself by default.
        limits: bounds of a run; default: `Limits()` with the preset's own on top.
        sampling: how trainable roles are sampled; default greedy. Its `max_new_tokens` and `seed` are not used: a role
            has its own, and each action's seed is derived from the run's.
        k: passages a retrieval brings.
        action_tokens: upper bound on the tokens of one action, below each role's own.
        constrained: let the planner write nothing but legal plans (constrained decoding).
        recorder: where runs are written as they happen, e.g. a `jade_graph.RunStore`.
        checkpointer: a LangGraph checkpointer for `graph`.
        retry_policy: when a search that failed is tried again; default: two more times, within the run's deadline.
        durability: when a run with a checkpointer is written: "async" (LangGraph's default: while the next step goes
            on), "sync" (before it), or "exit" (when the run ends or waits: cheapest, and lost if the process dies).

    Raises:
        UsageError: an unknown preset, role or plan. GraphError: parts that do not fit together.
    """

    def __init__(
        self,
        backbone: Backbone | Any,
        *,
        preset: str | Preset = "jade",
        retriever: Retriever | Any = None,
        frozen_backbone: Backbone | Any = None,
        backbones: Mapping[str, Backbone | Any] | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        k: int = 5,
        constrained: bool = False,
        action_tokens: int | None = None,
        recorder: Recorder | None = None,
        checkpointer: Any = None,
        approve: Approve | None = None,
        retry_policy: RetryPolicy | None = None,
        durability: Durability | None = None,
    ) -> None:
        method: Preset = plugins.load("jade.presets", preset) if isinstance(preset, str) else preset
        if backbones:  # before any of them is loaded
            require_roles(backbones, Parts(method, limits or limits_of(method)))
        self._given: dict[str, Any] = {
            "preset": method,
            "retriever": as_retriever(retriever),
            "frozen_backbone": None if frozen_backbone is None else as_backbone(frozen_backbone),
            "backbones": {role: as_backbone(model) for role, model in (backbones or {}).items()},
            "limits": limits,
            "sampling": sampling,
            "k": k,
            "constrained": constrained,
            "action_tokens": action_tokens,
            "recorder": recorder,
            "checkpointer": checkpointer,
            "approve": approve,
            "retry_policy": retry_policy,
            "durability": durability,
        }
        self.engine = Engine(as_backbone(backbone), **self._given, announcer=Announcer())
        self._given["frozen_backbone"] = self.engine.frozen_backbone
        self.name = method.name
        self._variants: dict[str, JadeGraph] = {}
        self._opened: Callable[[], None] | None = None

    @classmethod
    def from_config(
        cls,
        config: Config | str | Path | None = None,
        *,
        backbone: Any = None,
        corpus: Any = None,
        preset: Any = None,
        record: bool = True,
        settings: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> JadeGraph:
        """The graph that the settings describe: jade.toml here, the environment, and what is said here on top.

        Args:
            config: a TOML file, or settings that were loaded; None: as `load_config()` finds them.
            backbone: a name ("smol", a folder, "models:/jade-backbone@champion"), a `Backbone`, or a chat model; by
                default smol, or tiny over microworld.
            corpus: the name of a corpus, a `Retriever`, a LangChain retriever, or passages, documents or texts.
            preset: a name or a `Preset`.
            record: write runs to the store of the settings.
            settings: any other setting by its dotted name, e.g. `{"k": 3, "limits.deadline_s": 30}`.
            arguments: of `JadeGraph`, e.g. checkpointer, approve, backbones, recorder.

        Raises:
            ConfigError, UsageError, RetrievalError, BackboneError: what is named is not there, with what is.
        """
        said = {"backbone": backbone, "corpus": corpus, "preset": preset}
        named = {key: value for key, value in said.items() if isinstance(value, str)}
        parts = {"backbone": backbone, "retriever": corpus, "preset": preset}
        given = {key: value for key, value in parts.items() if value is not None and not isinstance(value, str)}
        found = configured(config, {**(settings or {}), **named})
        if "retriever" in given:
            found = found.reading_any_text()
        opened = open_parts(found, {**given, **arguments}, record=record)
        try:
            graph = cls(**opened.arguments)
        except BaseException:
            opened.close()
            raise
        graph._opened = opened.close
        return graph

    @classmethod
    def from_registry(cls, model: str = REGISTERED, *, corpus: Any = None, **options: Any) -> JadeGraph:
        """The graph over a registered version: "models:/NAME@ALIAS" or "models:/NAME/VERSION". `options` as for
        `from_config`.
        """
        return cls.from_config(backbone=model, corpus=corpus, **options)

    # --- the engine's own ---------------------------------------------------------------------------------------------
    arun = engine_method(Engine.arun)
    aresume = engine_method(Engine.aresume)
    run = engine_method(Engine.run)
    arun_many = engine_method(Engine.arun_many)
    afork = engine_method(Engine.afork)
    fork = engine_method(Engine.fork)
    check = engine_method(Engine.check)
    aclose = engine_method(Engine.aclose)

    graph = EngineAttribute(lambda engine: engine.graph)
    preset = EngineAttribute(lambda engine: engine.preset)
    backbone = EngineAttribute(lambda engine: engine.backbone)
    frozen_backbone = EngineAttribute(lambda engine: engine.frozen_backbone)
    backbones = EngineAttribute(lambda engine: engine.backbones)
    versions = EngineAttribute(lambda engine: engine.versions)
    retriever = EngineAttribute(lambda engine: engine.retriever)
    recorder = EngineAttribute(lambda engine: engine.recorder)
    limits = EngineAttribute(lambda engine: engine.limits)
    k = EngineAttribute(lambda engine: engine.k)
    roles = EngineAttribute(lambda engine: engine.roles)
    grammar = EngineAttribute(lambda engine: engine.grammar)
    graph_hash = EngineAttribute(lambda engine: engine.graph_hash)
    approve = EngineAttribute(lambda engine: engine.approve)

    def variant(self, **changes: Any) -> JadeGraph:
        """A graph like this one with other arguments (preset, k, ..) over the same models; made once for each."""
        changes = {name: value for name, value in changes.items() if self._given.get(name, ...) != value}
        if changes.get("preset") == self.preset.name:
            del changes["preset"]
        if not changes:
            return self
        key = repr(sorted(changes.items()))
        if key not in self._variants:
            while len(self._variants) >= _MOST_VARIANTS:
                self._variants.pop(next(iter(self._variants)))
            self._variants[key] = JadeGraph(self.backbone, **{**self._given, **changes})
        return self._variants[key]

    def __repr__(self) -> str:
        corpus = self.retriever.corpus_id if self.retriever else None
        others = f", backbones={self.versions!r}" if self.backbones else ""
        return (
            f"JadeGraph({self.backbone.version!r}, preset={self.preset.name!r}, corpus={corpus!r}, k={self.k}{others})"
        )

    def close(self) -> None:
        """Close what the graph opened: its models and its run store. Closing twice does nothing."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

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
        async for chunk in self._chunks(given, config, keywords, tokens=False):
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
        """The run as it unfolds: first its id, then every step and new document, and the answer while it is written.

        The chunks add up (`+`) to what `ainvoke` gives: each has under "answer" what is new of it; where that is an
        `Instead`, what came before is taken back. `astream_events` and `graph.astream` show what is inside.
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

    def _chunks(
        self, given: Any, config: RunnableConfig, keywords: dict[str, Any], *, tokens: bool = True
    ) -> AsyncGenerator[AddableDict]:
        """The run as chunks, its answer token by token where asked for; leaving early cancels it."""
        call = options.understand(given, config, keywords)
        graph = self.variant(**call.changes)

        def begin(watch: Callable[[Event], None]) -> Coroutine[Any, Any, Run]:
            if isinstance(given, Command):
                return graph.aresume(given, config, on_event=watch, tokens=tokens)
            bounds = call.bounds(graph.limits)
            told: dict[str, Any] = {"limits": bounds, "config": config, "on_event": watch, "tokens": tokens}
            return graph.arun(call.question, **call.run, **told)

        return unfold(begin, raise_on_failure=call.raise_on_failure)

    # --- as other things ----------------------------------------------------------------------------------------------
    def as_tool(  # type: ignore[override]  # ours has no schema to choose: the argument is a question
        self, *, name: str = "search_and_answer", description: str | None = None, **kwargs: Any
    ) -> JadeTool:
        """The graph as a tool for an agent (`langchain.agents.create_agent`). `kwargs` are fields of `JadeTool`."""
        told: dict[str, Any] = {"description": description} if description else {}
        return JadeTool(graph=self, name=name, **told, **kwargs)

    def __copy__(self) -> JadeGraph:
        return self

    def __deepcopy__(self, memo: Any) -> JadeGraph:
        """A graph holds a model and its worker: a copy of what refers to it refers to the same one."""
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "a JadeGraph holds a model and threads and cannot be pickled: send the settings, and make it there with "
            "JadeGraph.from_config(..)"
        )


__all__ = ["REGISTERED", "JadeGraph"]
