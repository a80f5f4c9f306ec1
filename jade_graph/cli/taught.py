"""Tells what a small model of the package's own can be trusted with: roles that it was taught, text that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jade_graph.backbones.folders import BUNDLED, taught
from jade_graph.settings.fields import SMOL

if TYPE_CHECKING:
    from jade_graph.cli.command import Cli
    from jade_graph.types import Run


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


def tell_smol(cli: Cli) -> None:
    """A line about the model that answers where nobody named one."""
    if cli.settings.backbone == SMOL and cli.config.origin("backbone") == "default":
        cli.out.log(
            "answered by smol, a small model (135 M): right for look-ups of one fact that a passage states, weak "
            "beyond. A better one: --backbone with a hub id, a folder, or openai:URL#MODEL."
        )


def tell_weak(cli: Cli, run: Run) -> None:
    """Where most of what a model wrote was illegal: that, and what to do."""
    from jade_graph.scoring import weakness

    if said := weakness.of_run(run):
        cli.out.warn(said)


def suit(cli: Cli) -> None:
    """Let the default model be the one that reads more than microworld."""
    cli.config = cli.config.reading_any_text()


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
