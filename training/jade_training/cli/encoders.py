"""`jade train-encoder`: the encoder that retrieves learns from labels, and learns to rerank.

Invariant: thin. The command parses its options, calls `encoders`, and prints what came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jade_graph.data.labels import Labelled

LISTED = {"train-encoder": ("Learn", "An encoder learns to retrieve and rerank from labels.")}
app = single()


@command(app, "train-encoder")
def train_encoder(
    cli: Cli,
    labels: Annotated[
        list[str],
        typer.Argument(
            metavar="LABELS...",
            help="Files of graded labels (a query with its documents on each line), or data sets whose questions name "
            "supporting passages.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the new encoder goes.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="The start: minilm, hf:FOLDER of an encoder or a causal model. [default: the setting]"),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.0, help="Passes over the queries.")] = 1.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of passes.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Queries a step: each other's negatives.")] = 8,
    slate: Annotated[int, typer.Option(min=2, help="Documents of a query that are scored.")] = 8,
    document_tokens: Annotated[
        int | None, typer.Option(min=8, help="Cut longer documents while learning. [default: what it reads]")
    ] = None,
    prompt_documents: Annotated[int, typer.Option(min=1, help="Documents that a prompt shows, also in use.")] = 20,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=32, help="Most tokens of a prompt, also in use. [default: what it can read]")
    ] = None,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Of AdamW, falling linearly.")] = 2e-5,
    rank_weight: Annotated[
        float, typer.Option(min=0.0, help="Of RankNet beside InfoNCE; 0: learn only to find.")
    ] = 2.0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision, where the processor has it.")] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
    register: Annotated[bool, typer.Option("--register", help="Register the encoder as a version.")] = False,
    mlflow: Annotated[bool, typer.Option(help="Log metrics to MLflow (MLFLOW_TRACKING_URI).")] = False,
    fresh: Annotated[bool, typer.Option(help="Begin again instead of going on from a checkpoint.")] = False,
) -> None:
    """Train a text encoder to retrieve and to rerank from graded labels (E2Rank), with sentence-transformers.

    Killed at any time, the same command goes on from its last checkpoint. jade encoders promote says whether the new
    encoder is better than the one in use, and gives a corpus its vectors.
    """
    import shutil
    from contextlib import ExitStack
    from dataclasses import asdict

    from jade_graph.registry.place import Place
    from jade_graph.retrieval.encoder import load_encoder
    from jade_training.encoders import training
    from jade_training.improve.tracking import tracked

    cli.put("encoder", encoder)
    start = training.trainable(load_encoder(cli.settings.encoder))
    recipe = training.Recipe(
        epochs=epochs, steps=steps, batch=batch, slate=slate, document_tokens=document_tokens,
        prompt_documents=prompt_documents, prompt_tokens=prompt_tokens, learning_rate=learning_rate,
        weight=rank_weight, bf16=bf16, seed=cli.settings.seed,
    )  # fmt: skip
    rows = _rows(cli, labels)
    if fresh:
        shutil.rmtree(out / training.CHECKPOINT, ignore_errors=True)
    place = Place.find(settings=cli.settings) if mlflow else None
    chosen = {"labels": ", ".join(labels), "queries": len(rows), "start": start.id, **asdict(recipe)}
    with ExitStack() as stack:
        log = stack.enter_context(tracked(place, out, chosen, tell=cli.out.log, experiment="jade-encoders"))
        tick = stack.enter_context(cli.out.progress(f"learning from {len(rows)} queries", "steps"))
        figures = training.train_encoder(
            start, rows, out, recipe, save_every=save_every, progress=tick, log=log if mlflow else None,
            tell=cli.out.log,
        )  # fmt: skip
    version = None
    if register:
        from jade_graph.registry import encoders

        version = encoders.register(encoders.encoders(cli.settings), out, tell=cli.out.log)
    told: dict[str, Any] = {"out": str(out), "encoder": f"hf:{out}", "figures": figures}
    told |= {"version": None if version is None else version.as_dict()}
    cli.out.result(told, lambda: _show(told))


def _rows(cli: Cli, labels: Sequence[str]) -> list[Labelled]:
    from jade_graph.assembly import open_dataset_corpus
    from jade_graph.cli.indexing import indexing
    from jade_graph.data import load_dataset
    from jade_graph.data.labels import holds_labels, read_labels
    from jade_graph.errors import DataError
    from jade_graph.retrieval.local import LocalRetriever
    from jade_training.encoders.gold import gold_labels

    out: list[Labelled] = []
    for name in labels:
        path = Path(name)
        if path.is_file() and holds_labels(path):
            out += read_labels(path)
            continue
        dataset = load_dataset(name)
        if not dataset.passages or not any(q.supporting for q in dataset.questions):
            raise DataError(
                f"the data set {dataset.name!r} has no passages that its questions name as supporting.",
                code="LABELS_EMPTY",
                hint="a file of labels, or a data set with gold passages",
            )
        with indexing(cli) as progress:
            corpus = open_dataset_corpus(cli.settings, dataset, progress)
        assert isinstance(corpus, LocalRetriever)
        with cli.out.progress("finding what is no gold passage", "questions") as tick:
            out += gold_labels(dataset, corpus, progress=tick)
        corpus.close()
    return out


def _show(told: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    rows = [(name.replace("_", " "), f"{value:,.4g}") for name, value in told["figures"].items()]
    following = "jade encoders promote --corpus NAME" if told["version"] else f"jade encoders register {told['out']}"
    return [table(("", ""), rows, title=f"saved {told['out']}", right=""), Text(f"Next: {following}", style="dim")]
