"""Finds roles, presets, plan rules, retrievers, encoders, backbones, data sets and commands by entry points.

Invariant: the engine knows only names. The stock parts are found exactly as a third party's package would provide
them; nothing is imported until its name is asked for.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from jade_graph.errors import PluginError, unknown

GROUPS = (
    "jade.roles",
    "jade.presets",
    "jade.plan_rules",
    "jade.loops",
    "jade.backbones",
    "jade.retrievers",
    "jade.encoders",
    "jade.datasets",
    "jade.benchmarks",
    "jade.commands",
    "jade.rewards",
    "jade.demos",
    "jade.watchdogs",
)


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    return {ep.name: ep for ep in entry_points(group=group)}


def refresh() -> None:
    """Forget what was found: after a package was installed while this process ran."""
    _found.cache_clear()


def names(group: str) -> list[str]:
    return sorted(_found(group))


def load(group: str, name: str) -> Any:
    """The object behind `name`. Raises `UsageError` (unknown name) or `PluginError` (it does not import)."""
    found = _found(group)
    what = group.removeprefix("jade.").rstrip("s").replace("_", " ")
    if name not in found:
        raise unknown(what, name, found, code=f"UNKNOWN_{what.upper().replace(' ', '_')}")
    try:
        return found[name].load()
    except Exception as error:
        ep = found[name]
        owner = ep.dist.name if ep.dist else "?"
        raise PluginError(
            f"the {what} {name!r} of package {owner!r} ({ep.value}) does not load: {type(error).__name__}: {error}",
            code="PLUGIN_LOAD",
            hint=f"pip install --force-reinstall {owner}",
        ) from error
