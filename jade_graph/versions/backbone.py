"""`VersionedBackbone`: the backbone `models:/jade-backbone@champion`.

Invariant: it is a `Backbone` like any other to whoever asks it one thing at a time; a run leases, and then sees one
version to its end.
"""

from __future__ import annotations

import asyncio
import math
import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.errors import BackboneError
from jade_graph.types import Ask, Backbone, Completion, Message, Sampling, Watch
from jade_graph.versions.pool import Pool, VersionLease
from jade_graph.versions.reloader import POLL_S, Loader, Reloader, ReloadStatus
from jade_graph.versions.smoke import Check, GraphCheck, Smoke
from jade_graph.versions.source import VersionSource
from jade_graph.workflow.context import counts_draws, streams, watched

if TYPE_CHECKING:
    from jade_graph.registry import Registry


class VersionedBackbone:
    """A backbone that follows an alias of a registry. Use `open` or `connect` to make one.

    It begins to follow when the first `JadeGraph` is built on it (or at `follow`); until then, and for whoever asks it
    without a graph, it is the version that it was opened with.

    Args:
        pool: the versions in memory.
        reloader: keeps the pool at the alias.
        smoke: what new versions are asked.
    """

    def __init__(self, pool: Pool, reloader: Reloader, smoke: Smoke | None = None) -> None:
        self._pool, self._reloader, self._smoke = pool, reloader, smoke or Smoke()
        # One that is dropped, or alive at exit, stops its thread all the same.
        self._finalizer = weakref.finalize(self, reloader.stop)

    @classmethod
    def open(
        cls,
        source: VersionSource,
        load: Loader,
        *,
        model: str = "jade-backbone",
        alias: str = "champion",
        poll_s: float = POLL_S,
        smoke: Smoke | None = None,
    ) -> VersionedBackbone:
        """The version behind the alias now, fetched and loaded.

        Raises:
            BackboneError: VERSION_NO_ALIAS, and what `load` raises. Whatever the source raises.
        """
        number = source.current(alias)
        if number is None:
            raise BackboneError(
                f"no version of {model!r} has the alias {alias!r}.",
                code="VERSION_NO_ALIAS",
                hint="jade register PATH, then jade promote VERSION",
            )
        pool = Pool(number, load(*source.fetch(number)))
        reloader = Reloader(source, pool, load, model=model, alias=alias, poll_s=poll_s)
        pool.notify(reloader.wake)
        return cls(pool, reloader, smoke)

    # --- versions -----------------------------------------------------------------------------------------------------
    @property
    def reloader(self) -> Reloader:
        return self._reloader

    def status(self) -> ReloadStatus:
        """Which version serves, which is coming, and what is wrong."""
        return self._reloader.status()

    def lease(self, *, seconds: float = math.inf, version: str = "") -> VersionLease:
        """Hold one version: see `Pool.lease`."""
        return self._pool.lease(seconds=seconds, version=version)

    def follow(self, graph: Mapping[str, Any] | Check | None = None) -> None:
        """Begin to follow the alias; later calls do nothing.

        The version that is there is asked its smoke questions first, so that a graph is not built on a broken one.

        Args:
            graph: keyword arguments of the `JadeGraph` that will serve: smoke questions go through one like it; or the
                check itself; None: what loads is good enough.

        Raises:
            BackboneError: as `Smoke.check`.
        """
        if self._reloader.following:
            return
        check = GraphCheck(self._smoke, graph) if isinstance(graph, Mapping) else graph
        if check is not None:
            check(self._pool.backbone)
        self._reloader.start(check)

    # --- Backbone: the active version ---------------------------------------------------------------------------------
    @property
    def version(self) -> str:
        return self._pool.backbone.version

    @property
    def counts_draws(self) -> bool:
        return counts_draws(self._pool.backbone)

    @property
    def streams(self) -> bool:
        return streams(self._pool.backbone)

    @property
    def profile(self) -> str:
        return self._pool.backbone.profile

    @property
    def thought(self) -> Any:
        """How the active version thinks before it answers (`types.Thought`), where it says so."""
        return getattr(self._pool.backbone, "thought", None)

    @property
    def max_context(self) -> int:
        return self._pool.backbone.max_context

    @property
    def eos_token_id(self) -> int:
        return self._pool.backbone.eos_token_id

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._pool.backbone.encode(messages)

    def encode_text(self, text: str) -> list[int]:
        return self._pool.backbone.encode_text(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._pool.backbone.decode(token_ids)

    async def generate(
        self,
        prompt_token_ids: Sequence[int],
        sampling: Sampling,
        *,
        hint: Ask | None = None,
        watch: Watch | None = None,
    ) -> Completion:
        """One action of the version that is active now. For more than one action, `lease`."""
        lease = self.lease()
        try:
            heard = watched(lease.backbone, watch)
            return await lease.backbone.generate(prompt_token_ids, sampling, hint=hint, **heard)
        finally:
            lease.release()

    async def aclose(self) -> None:
        """Stop following and close every version; requests in flight fail with BACKBONE_CLOSED."""
        await asyncio.to_thread(self._finalizer)


def connect(
    rest: str,
    *,
    registry: Registry | VersionSource | str | None = None,
    data_dir: Path | None = None,
    follow: bool = True,
    poll_s: float = POLL_S,
    smoke: Smoke | None = None,
    **options: Any,
) -> Backbone:
    """The factory behind `models:/NAME@ALIAS` (followed) and `models:/NAME/NUMBER` (fixed).

    Args:
        registry: a registry, its URI, or None: the one of the settings.
        data_dir: where fetched versions are kept; None: the setting.
        follow: False takes the version that the alias points at now, for good.
        poll_s: seconds between two looks at the alias.
        smoke: what a new version is asked before it serves.
        options: keyword arguments of `HFBackbone.load`.

    Raises:
        UsageError: VERSION_REFERENCE. BackboneError: VERSION_NO_ALIAS. RegistryError and what loading raises.
    """
    from jade_graph.registry.versions import Reference

    # Left to itself MLflow tries for minutes before it says that a server is away, and would notice its return as late.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    reference = Reference.parse(f"models:{rest}")
    model = str(reference.name)
    source = _source(model, registry, data_dir)

    def load(described: Any, folder: Path) -> Backbone:
        del described
        from jade_graph.backbones.hf import HFBackbone

        return HFBackbone.load(folder, **options)

    if follow and reference.alias is not None:
        return VersionedBackbone.open(source, load, model=model, alias=reference.alias, poll_s=poll_s, smoke=smoke)
    return load(*source.fetch(f"models:{rest}"))


def _source(model: str, registry: Registry | VersionSource | str | None, data_dir: Path | None) -> Any:
    if registry is not None and not isinstance(registry, str):
        return registry
    from jade_graph.registry import Registry

    return Registry(registry, model=model, data_dir=data_dir)
