"""Tells when a bundled model was never taught the roles of the method that it is to play."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jade_graph.backbones.folders import BUNDLED, taught

if TYPE_CHECKING:
    from jade_graph.cli.command import Cli


def warn_untaught(cli: Cli) -> None:
    """One warning with the bundled model that was; everything still runs, for a bad action is data."""
    backbone, preset = cli.settings.backbone, cli.settings.preset
    known, wanted = taught(backbone), roles_of_loop(preset)
    missing = [code for code in wanted if code not in known]
    if not known or not missing:
        return
    able = next((name for name in BUNDLED if set(wanted) <= taught(name)), None)
    told = f"the bundled model {backbone} was never taught {', '.join(missing)}, roles of {preset}: expect bad answers."
    cli.out.warn(told + (f" Try --backbone {able}" if able else ""))


def roles_of_loop(preset: str) -> list[str]:
    """Codes of the language-model roles of a preset's loop; none for a preset without one.

    Raises what `plugins.load` raises for an unknown preset.
    """
    from jade_graph import plugins
    from jade_graph.workflow import loops

    loop = plugins.load("jade.presets", preset).loop
    if isinstance(loop, str):
        loop = plugins.load("jade.loops", loop)
    parts = [plugins.load("jade.roles", p) if isinstance(p, str) else p for p in loop.parts] if loop else []
    return [loops.code_of(part) for part in parts if hasattr(part, "render")]
