"""Which graph a request's `model` means: PRESET, or PRESET@VERSION.

Invariant: all presets of one version share its backbone; the server's own backbone is never given up, and of the other
registered versions at most `serve.versions` are in memory, none given up while a request holds it.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from jade_graph import plugins
from jade_graph.errors import JadeError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.serve.problems import RequestError
from jade_graph.types import Backbone, Preset

logger = logging.getLogger("jade_graph.serve")


class Version(Protocol):
    """A registered version as the list of models shows it; `registry.ModelVersion` is one."""

    @property
    def number(self) -> int: ...
    @property
    def content(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...


class Versions(Protocol):
    """The registered versions of the backbone. Both methods may block: they are called in a thread."""

    def list(self) -> Sequence[Version]: ...

    def load(self, number: int) -> Backbone:
        """Raises `JadeError`."""
        ...


Build = Callable[[Preset, Backbone], JadeGraph]


@dataclass(slots=True)
class _Held:
    """A version in memory with its graphs, and how many requests hold it."""

    backbone: Backbone
    graphs: Mapping[str, JadeGraph]
    users: int = 0


class Graphs:
    """The graphs that a server offers.

    Args:
        presets: what is offered, the default first.
        strict: every one of them was asked for: one that cannot be built is an error. Else it is left out, with a
            line in the log.
        own: which number or alias of `versions` the server's own backbone is, where it is one of them.
        most: other versions in memory at once.
    """

    def __init__(
        self,
        build: Build,
        backbone: Backbone,
        presets: Sequence[Preset],
        *,
        versions: Versions | None = None,
        own: str = "",
        most: int = 1,
        strict: bool = False,
    ) -> None:
        self._build = build
        self.default = presets[0].name
        graphs = {}
        for preset in presets:
            try:
                graphs[preset.name] = build(preset, backbone)
            except JadeError as error:
                if strict or preset is presets[0]:
                    raise
                logger.warning("the preset %s is not offered: %s", preset.name, error)
        self.presets = {preset.name: preset for preset in presets if preset.name in graphs}
        self._own = _Held(backbone, graphs)
        self._versions = versions
        self._own_name = own
        self._most = most
        self._others: dict[int, _Held] = {}  # the longest unused first
        self._loading = asyncio.Lock()

    @property
    def backbone(self) -> Backbone:
        return self._own.backbone

    @property
    def main(self) -> JadeGraph:
        """The graph of the default preset on the server's own backbone."""
        return self._own.graphs[self.default]

    def all(self) -> list[JadeGraph]:
        """One graph for each preset, on the server's own backbone."""
        return list(self._own.graphs.values())

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[JadeGraph]:
        """The graph behind a name, held for the time of the block.

        Raises:
            RequestError: UNKNOWN_MODEL, SERVER_BUSY (every place for a version is in use).
            JadeError: the version cannot be loaded.
        """
        preset, _, version = model.partition("@")
        preset = preset or self.default
        if preset not in self.presets:
            raise await self._unknown(model)
        held = self._own if self._is_own(version) else await self._other(model, version)
        held.users += 1
        try:
            yield held.graphs[preset]
        finally:
            held.users -= 1

    async def models(self) -> list[dict[str, Any]]:
        """The entries of `GET /v1/models`: every preset by itself, then with each alias and version."""
        versions = await asyncio.to_thread(self._versions.list) if self._versions is not None else ()
        out = []
        for name, preset in self.presets.items():
            about = {"preset": name, "title": preset.title}
            out.append(_entry(name, about | {"version": self.backbone.version}))
            if self._versions is None:
                out.append(_entry(f"{name}@{self.backbone.version}", about | {"version": self.backbone.version}))
            for v in versions:
                more = about | {"version": v.content, "number": v.number, "aliases": list(v.aliases)}
                created = getattr(v, "created", None)
                seconds = int(created.timestamp()) if created is not None and created.year > 1970 else 0
                out += [_entry(f"{name}@{key}", more, seconds) for key in (*v.aliases, v.number)]
        return out

    async def aclose(self) -> None:
        """Close the versions that were loaded here; the server's own backbone belongs to the caller."""
        for held in self._others.values():
            await held.backbone.aclose()
        self._others.clear()

    def _is_own(self, version: str) -> bool:
        return version in ("", self._own_name) or version == self.backbone.version

    async def _other(self, model: str, version: str) -> _Held:
        if self._versions is None:
            raise await self._unknown(model)
        versions = await asyncio.to_thread(self._versions.list)
        found = next((v for v in versions if version in (str(v.number), v.content, *v.aliases)), None)
        if found is None:
            raise await self._unknown(model)
        if found.content == self.backbone.version:
            return self._own
        async with self._loading:
            held = self._others.pop(found.number, None)
            if held is None:
                await self._make_room()
                backbone = await asyncio.to_thread(self._versions.load, found.number)
                held = _Held(backbone, {n: self._build(preset, backbone) for n, preset in self.presets.items()})
                logger.info("version %s is loaded", found.number)
            self._others[found.number] = held
        return held

    async def _make_room(self) -> None:
        while len(self._others) >= max(self._most, 1):
            number = next((n for n, held in self._others.items() if not held.users), None)
            if number is None:
                raise RequestError(
                    f"{len(self._others)} versions are in memory and in use: no other can be loaded now.",
                    code="SERVER_BUSY",
                    hint="try again soon, or raise serve.versions",
                    headers={"retry-after": "5"},
                )
            await self._others.pop(number).backbone.aclose()
            logger.info("version %s is given up", number)

    async def _unknown(self, model: str) -> RequestError:
        names = [str(entry["id"]) for entry in await self.models()]
        near = difflib.get_close_matches(model, names, n=1)
        return RequestError(
            f"there is no model {model!r} here.",
            code="UNKNOWN_MODEL",
            known=names[:40],
            hint=f"did you mean {near[0]!r}?" if near else "GET /v1/models",
            param="model",
        )


def offered(default: Preset, names: str | None) -> list[Preset]:
    """The presets of the setting `serve.presets` (None: all), the default first. Raises `UsageError` UNKNOWN_PRESET."""
    chosen = plugins.names("jade.presets") if names is None else [n.strip() for n in names.split(",") if n.strip()]
    return [default, *(plugins.load("jade.presets", name) for name in chosen if name != default.name)]


def _entry(name: str, about: Mapping[str, Any], created: int = 0) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "jade-graph", "jade": dict(about)}


__all__ = ["Graphs", "Version", "Versions", "offered"]
