"""`jade register`: a model becomes a version."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app, "register")
def register(
    cli: Cli,
    source: Annotated[
        str,
        typer.Argument(metavar="PATH|RUN", help="A model folder, a LoRA adapter, the folder of jade improve, tiny."),
    ],
    base: Annotated[str | None, typer.Option(help="Of an adapter: its base, instead of the one it names.")] = None,
    challenger: Annotated[bool, typer.Option(help="Point the alias challenger at a new version.")] = True,
    note: Annotated[str | None, typer.Option(help="A line for the version's manifest.")] = None,
) -> None:
    """Check a model and register it as a version, with tokenizer, prompt profile, manifest and model card.

    Broken models (cut off, not finite, another tokenizer) are refused. The same model twice is recognised. Of a
    learning run the best iteration is taken, with what it learned from.
    """
    from jade_graph.registry import Registry

    registry = Registry.of(cli.settings)
    facts = {} if note is None else {"note": note}
    known = {version.number for version in registry.versions()}
    version = registry.register(source, base=base, challenger=challenger, manifest=facts, tell=cli.out.log)
    result: dict[str, Any] = {**version.as_dict(), "new": version.number not in known, "registry": registry.place.shown}
    cli.out.result(result, lambda: _show(result))


def _show(result: dict[str, Any]) -> list[str]:
    what = "registered as" if result["new"] else "is the same model as"
    aliases = f" ({', '.join(result['aliases'])})" if result["aliases"] else ""
    told = [f"{what} version {result['number']}{aliases}: {result['uri']}, {result['content']}"]
    return told if "champion" in result["aliases"] else [*told, f"Next: jade promote {result['number']}"]
