"""What the registry holds, for the pages: versions, promotions, and names of models to choose from.

Invariant: reading only, and never in a page's way: what was read is kept for seconds, a registry that is not there or
does not answer is a sentence, and MLflow is not loaded where no registry was made.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jade_graph.errors import JadeError
from jade_graph.picture.text import clean

if TYPE_CHECKING:
    from jade_graph.registry import Registry
    from jade_graph.registry.versions import ModelVersion, Promotion
    from jade_graph.settings.fields import Settings

_FRESH_S, _AWAY_S, _PATIENCE_S = 8.0, 60.0, 3.0


@dataclass(frozen=True, slots=True)
class Known:
    """What was read: newest first. `trouble`: why nothing could be."""

    versions: tuple[ModelVersion, ...] = ()
    history: tuple[Promotion, ...] = ()
    trouble: str = ""

    def find(self, name: str) -> ModelVersion | None:
        """The version that a number, an alias or `models:/..` names; None where none does."""
        from jade_graph.registry.versions import Reference

        try:
            wanted = Reference.parse(name.strip())
        except JadeError:
            return None
        found = (v for v in self.versions if wanted.name in (None, v.name))
        return next((v for v in found if v.number == wanted.number or wanted.alias in v.aliases), None)


class Registered:
    """The registry of these settings; `read` asks it at most every few seconds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known, self._until = Known(), 0.0
        self._lock = threading.Lock()

    @property
    def registry(self) -> Registry:
        """Raises `UsageError` REGISTRY_URI, REGISTRY_NAME."""
        from jade_graph.registry import Registry

        return Registry.of(self._settings)

    def read(self) -> Known:
        """What it holds now, or held seconds ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                try:
                    registry = self.registry
                    self._known = Known(tuple(registry.versions()), tuple(registry.history()))
                except JadeError as error:
                    self._known = Known(trouble=str(error))
                self._until = time.monotonic() + (_AWAY_S if self._known.trouble else _FRESH_S)
            return self._known

    async def soon(self) -> Known:
        """`read`, or what was known before where that takes long: for a form that waits for nobody."""
        reading = asyncio.create_task(asyncio.to_thread(self.read))
        try:
            return await asyncio.wait_for(asyncio.shield(reading), _PATIENCE_S)
        except TimeoutError:
            return self._known


def models(settings: Settings, known: Known, recorded: str = "") -> dict[str, str]:
    """Models to choose from, each with what it is.

    Args:
        recorded: the version that a run recorded; what loads the same weights is called the run's own.
    """
    from jade_graph.backbones.folders import BUNDLED

    mine = recorded.rpartition("@")[2]
    out = dict(_named(settings, known))
    for name, told in list(out.items()):
        own = BUNDLED.get(name)
        version = known.find(name) if name.startswith("models:") else None
        loads = version.hashes if version else {_weights(own)} if own else set()
        same = bool(mine) and mine in loads
        out[name] = clean(" · ".join(filter(None, (name, told, "the run's own" if same else ""))))
    return out


def _named(settings: Settings, known: Known) -> Iterator[tuple[str, str]]:
    from jade_graph.backbones.folders import BUNDLED

    yield settings.backbone, "of the settings"
    for version in known.versions:
        for alias in version.aliases:
            yield f"models:/{version.name}@{alias}", f"version {version.number} now"
    for version in known.versions[:50]:
        yield version.uri, f"of {version.created:%Y-%m-%d %H:%M}"
    for name in BUNDLED:
        if name != settings.backbone:
            yield name, "bundled"


def _weights(folder: Path) -> str:
    from jade_graph.backbones.folders import content_version

    try:
        return content_version(folder).rpartition("@")[2]
    except (JadeError, OSError):  # not in this installation
        return ""


def described(known: Known) -> dict[str, str]:
    """The versions by number, as the page Compare offers them."""
    out = {}
    for v in known.versions:
        names = f" ({', '.join(v.aliases)})" if v.aliases else ""
        out[str(v.number)] = clean(f"version {v.number}{names} · {v.content}")
    return out


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a version. `at`: the iteration of a learning run meanwhile, None outside of it."""

    when: float
    what: str
    version: int
    text: str
    at: float | None = None
    after: bool = False

    @property
    def where(self) -> str:
        if self.at is not None:
            return f"iteration {self.at:.1f}"
        return "after its last iteration" if self.after else "before it began"


def moments(known: Known, begun: Sequence[tuple[float, float]] = ()) -> list[Moment]:
    """Registrations and promotions, the newest first.

    Args:
        begun: (iteration, when it began in seconds since 1970) of a learning run, in order.
    """
    found: list[tuple[float, str, int, str]] = [
        (
            v.created.timestamp(),
            "registered",
            v.number,
            f"version {v.number} registered: {v.content}{_made_of(v, known)}",
        )
        for v in known.versions
    ]
    words = {"promote": "became champion by the gate", "first": "became the first champion",
             "force": "was made champion past the gate", "rollback": "is champion again"}  # fmt: skip
    for p in known.history:
        why = p.reason or p.summary
        text = f"version {p.to_version} {words.get(p.kind, p.kind)}" + (f": {why}" if why else "")
        found.append((p.when.timestamp(), p.kind, p.to_version, text))
    last = begun[-1][1] if begun else float("inf")
    out = [
        Moment(when, what, number, clean(text), _iteration(when, begun), when > last)
        for when, what, number, text in found
    ]
    return sorted(out, key=lambda m: -m.when)


def _made_of(version: ModelVersion, known: Known) -> str:
    """Where a version came from, by the numbers of its parents where these are registered."""
    if not version.parents:
        return ""
    weigh = {p["content"]: p["coefficient"] for p in (version.merge or {"parents": []})["parents"]}
    told = []
    for parent in version.parents:
        own = parent.rpartition("@")[2]
        number = next((v.number for v in known.versions if own in v.hashes), None)
        name = parent if number is None else f"version {number}"
        told.append(f"{name} ({weigh[parent]:.3g})" if parent in weigh else name)
    how = f"merged ({version.merge['decay']}) from" if version.merge else "made from"
    return f", {how} {', '.join(told)}"


def _iteration(when: float, begun: Sequence[tuple[float, float]]) -> float | None:
    """Between which iterations something happened, with the last one as long as the one before it."""
    if not begun or when < begun[0][1]:
        return None
    ends = [*begun[1:]]
    if len(begun) > 1:
        (i, a), (j, b) = begun[-2:]
        ends.append((j + (j - i), b + (b - a)))
    for (i, a), (j, b) in zip(begun, ends, strict=False):
        if a <= when < b:
            return i + (j - i) * (when - a) / (b - a)
    return None


__all__ = ["Known", "Moment", "Registered", "described", "models", "moments"]
