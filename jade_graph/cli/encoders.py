"""`jade encoders`: versions of the text encoder, and the corpora that are searched with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

app = group("encoders", "Versions of the text encoder: register, judge, re-embed corpora.")
Corpus = Annotated[str, typer.Option("--corpus", help="A corpus; jade corpora list.")]


@command(app, "list")
def list_(cli: Cli) -> None:
    """List the registered encoders, the newest first, and the corpora that each serves."""
    from jade_graph.cli.console import table
    from jade_graph.registry.encoders import encoders
    from jade_graph.retrieval.manifest import list_corpora

    registry = encoders(cli.settings)
    found, corpora = registry.versions(), list_corpora(cli.settings.data_path)
    serves = {v.number: [c.name for c in corpora if c.encoder_spec == v.uri] for v in found}
    result = {
        "registry": registry.place.shown,
        "encoders": [{**v.as_dict(), "corpora": serves[v.number]} for v in found],
    }

    def show() -> Any:
        if not found:
            return (
                "No encoder is registered yet: jade train-encoder LABELS --out FOLDER, jade encoders register FOLDER."
            )
        rows = [
            (v.number, ", ".join(v.aliases), v.weights, f"{v.created:%Y-%m-%d %H:%M}", ", ".join(serves[v.number]))
            for v in found
        ]
        return table(("version", "aliases", "weights", "registered", "corpora"), rows, right="version")

    cli.out.result(result, show)


@command(app, "register")
def register(
    cli: Cli,
    folder: Annotated[Path, typer.Argument(help="The folder of jade train-encoder.")],
    challenger: Annotated[bool, typer.Option(help="Point the alias challenger at a new version.")] = True,
) -> None:
    """Check an encoder and register it as a version. The same encoder twice is recognised."""
    from jade_graph.registry import encoders

    registry = encoders.encoders(cli.settings)
    known = {version.number for version in registry.versions()}
    version = encoders.register(registry, folder, challenger=challenger, tell=cli.out.log)
    result = {**version.as_dict(), "new": version.number not in known}
    what = "registered as" if result["new"] else "is the same encoder as"
    following = f"Next: jade encoders promote {version.number} --corpus NAME --on DATASET"
    cli.out.result(result, lambda: [f"{what} version {version.number}: {version.uri}, {version.content}", following])


@command(app, "promote")
def promote(
    cli: Cli,
    corpus: Corpus,
    on: Annotated[
        str | None,
        typer.Option(help="Held-out queries: a file of labels, or a data set with supporting passages."),
    ] = None,
    version: Annotated[str, typer.Argument(help="A number, an alias, or models:/jade-encoder/NUMBER.")] = "challenger",
    mode: Annotated[str | None, typer.Option(help="hybrid or dense. [default: the setting retrieval]")] = None,
    rerank: Annotated[int | None, typer.Option(min=0, help="Rerank so many. [default: the setting rerank]")] = None,
    minimum: Annotated[int, typer.Option(min=2, help="Queries that decide.")] = 50,
    loss: Annotated[float, typer.Option(min=0.0, help="Loss of recall@5 that the interval may reach.")] = 0.02,
    force: Annotated[bool, typer.Option("--force", help="Promote past the gate; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; goes to the log.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and change nothing that is read.")] = False,
) -> None:
    """Judge an encoder against the one that a corpus is searched with; if it passes, the corpus is swapped.

    The corpus is embedded beside. It passes when the paired interval of nDCG@10 lies above 0 and that of recall@5 above
    minus --loss. A refusal exits with 9.
    """
    from jade_graph.cli.indexing import indexing
    from jade_graph.data import load_dataset
    from jade_graph.data.labels import holds_labels, read_labels
    from jade_graph.errors import UsageError
    from jade_graph.gate.encoders import EncoderPolicy, judged_labels, judged_of, promote_encoder
    from jade_graph.registry.encoders import encoders

    for name, value in (("retrieval", mode), ("rerank", rerank)):
        cli.put(name, value)
    if on is None and not force:
        raise UsageError(
            "nothing is named to judge by.", code="NOTHING_JUDGED", hint="--on DATASET, or a file of labels"
        )
    s = cli.settings

    def judged(retriever: Any) -> Any:
        assert on is not None
        if Path(on).is_file() and holds_labels(Path(on)):
            return judged_labels(read_labels(Path(on)), retriever)
        return judged_of(load_dataset(on), retriever)

    with indexing(cli) as progress:
        outcome = promote_encoder(
            encoders(s), version, corpus, s.data_path, judged, mode=s.retrieval, rerank=s.rerank,
            policy=EncoderPolicy(minimum=minimum, loss=loss), force=force, reason=reason, dry_run=dry_run,
            progress=progress,
        )  # fmt: skip
    cli.out.result(outcome.as_dict(), lambda: _told(outcome))
    if outcome.verdict is not None and not outcome.verdict.passed:
        raise typer.Exit(9)


@command(app, "rollback")
def rollback(cli: Cli, reason: Annotated[str, typer.Option(help="Why; goes to the log.")] = "") -> None:
    """Make the encoder before this one the champion again. Corpora follow by jade encoders reembed."""
    from jade_graph.registry.encoders import encoders

    done = encoders(cli.settings).rollback(reason=reason)
    told = f"Version {done.to_version} is the champion again, instead of version {done.from_version}."
    following = "Next: jade encoders reembed CORPUS --encoder models:/jade-encoder@champion"
    cli.out.result(done.as_dict(), lambda: [told, following])


@command(app, "reembed")
def reembed(
    cli: Cli,
    corpus: Annotated[str, typer.Argument(help="A corpus; jade corpora list.")],
    encoder: Annotated[
        str, typer.Option(help="minilm, hf:FOLDER, models:/jade-encoder@champion ..")
    ] = "models:/jade-encoder@champion",
    beside: Annotated[bool, typer.Option("--beside", help="Embed only: what is searched stays as it is.")] = False,
) -> None:
    """Embed a corpus with another encoder beside the old one, and swap it whole. Nothing is judged."""
    from jade_graph.cli.indexing import indexing
    from jade_graph.retrieval.corpus import encoder_named
    from jade_graph.retrieval.reembedding import embed_beside, swap_encoder

    used = encoder_named(encoder, cli.settings.data_path)
    with indexing(cli) as progress:
        made = (embed_beside if beside else swap_encoder)(corpus, cli.settings.data_path, used, progress=progress)
    what = "is embedded beside with" if beside else "is searched from now on with"
    told = f"The corpus {corpus} {what} {made.encoder} ({made.embedded} passages embedded, {made.reused} reused)."
    cli.out.result({**made.as_dict(), "swapped": not beside}, lambda: told)


def _told(outcome: Any) -> list[Any]:
    from jade_graph.cli.console import table

    out: list[Any] = []
    verdict, number = outcome.verdict, outcome.version.number
    if verdict is not None:
        rows = [(f.rule, "passes" if f.passed else "refuses", f.told) for f in verdict.findings]
        out.append(table(("rule", "", "seen"), rows, title=f"version {number} on {outcome.corpus}"))
    if outcome.left_out:
        out.append(f"{outcome.left_out} queries were left out: the encoder learned from them.")
    if outcome.swapped:
        out.append(f"The corpus {outcome.corpus} is searched with version {number} from now on.")
        out.append("Back: jade encoders reembed NAME --encoder ENCODER")
    elif verdict is not None and verdict.passed:
        out.append(f"Version {number} passes; nothing was changed (--dry-run).")
    else:
        out.append(f"Version {number} is not promoted; the corpus stays as it is.")
    return out
