"""Graphs made from settings or from the registry, in one line, and closed again.

Invariant: a graph closes what it opened itself (model, run store) and nothing that was handed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jade_graph.sync import run_sync

if TYPE_CHECKING:
    from jade_graph.settings.config import Config
    from jade_graph.workflow.engine import JadeGraph

REGISTERED = "models:/jade-backbone@champion"


class Openable:
    """`from_config`, `from_registry` and closing, for `JadeGraph`."""

    _opened: tuple[Callable[[], Any], ...] = ()

    if TYPE_CHECKING:

        async def aclose(self) -> None: ...

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
            backbone: a name ("tiny", a folder, "models:/jade-backbone@champion"), a `Backbone`, or a chat model.
            corpus: the name of a corpus, a `Retriever`, a LangChain retriever, or passages, documents or texts.
            preset: a name or a `Preset`.
            record: write runs to the store of the settings.
            settings: any other setting by its dotted name, e.g. `{"k": 3, "limits.deadline_s": 30}`.
            arguments: of `JadeGraph`, e.g. checkpointer, approve, backbones, recorder.

        Raises:
            ConfigError, UsageError, RetrievalError, BackboneError: what is named is not there, with what is.
        """
        from jade_graph.assembly.opening import open_graph

        given = {"backbone": backbone, "corpus": corpus, "preset": preset, "record": record}
        return open_graph(config, settings=settings or {}, arguments=arguments, **given)

    @classmethod
    def from_registry(cls, model: str = REGISTERED, *, corpus: Any = None, **options: Any) -> JadeGraph:
        """The graph over a registered version: "models:/NAME@ALIAS" or "models:/NAME/VERSION". `options` as for
        `from_config`.
        """
        return cls.from_config(backbone=model, corpus=corpus, **options)

    def close(self) -> None:
        """Close what the graph opened: its models and its run store. Closing twice does nothing."""
        opened, self._opened = self._opened, ()
        for shut in opened:
            shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)


def closing_models(models: list[Any]) -> Callable[[], None]:
    """Closes backbones that a graph loaded itself."""

    def shut() -> None:
        for model in models:
            run_sync(model.aclose())

    return shut
