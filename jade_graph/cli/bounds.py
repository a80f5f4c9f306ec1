"""`jade bounds`: single-shot retrieval against an oracle that decomposes, through the graph, without a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.cli.leaving import left_out

app = single()


@command(app)
def bounds(
    cli: Cli,
    dataset: Annotated[str, typer.Argument(help="A data set with supporting passages: a file or folder.")],
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the data set's own passages.")] = None,
    budget: Annotated[int, typer.Option(min=1, help="Passages that both sides may show.")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder with several: dev, test ..")] = None,
    format: Annotated[str | None, typer.Option(help="Where the data do not tell it: musique, hotpot ..")] = None,
) -> None:
    """Measure what decomposition can gain on a data set: recall of one search against the gold sub-questions.

    The oracle takes the data set's own decompositions and gold intermediate answers; both sides get the same number of
    passages. Needs no language model.
    """
    from jade_graph.assembly import open_retriever_for
    from jade_graph.data import load_dataset
    from jade_graph.scoring.oracle import graph_bounds
    from jade_graph.settings.manifest import manifest
    from jade_graph.sync import run_sync

    cli.put("corpus", corpus)
    data = load_dataset(dataset, limit=limit, split=split, format=format)
    cli.noted(data)
    with indexing(cli) as progress:
        retriever = open_retriever_for(cli.config, data, progress)
    with cli.out.progress(f"bounds of {data.name}", "questions") as tick:
        found = run_sync(graph_bounds(data, retriever, budget=budget, progress=lambda d, t: tick(d, t)))
    facts = manifest(
        dataset=data.name, dataset_id=data.dataset_id, limit=limit, corpus_id=retriever.corpus_id, budget=budget,
        encoder=getattr(retriever, "encoder_id", None), retrieval=cli.settings.retrieval,
        questions=found["questions"], decomposed=found["decomposed"], left_out=len(found["left_out"]),
    )  # fmt: skip
    sides = {"single_shot": found["single_shot"], "oracle": found["oracle"]}
    result = {**sides, "left_out": [*data.odd, *found["left_out"]], "manifest": facts}
    cli.out.result(result, lambda: _show(result, data.name, found))


def _show(result: dict[str, Any], name: str, found: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    sides = [(label, result[key]) for label, key in (("one search", "single_shot"), ("oracle decomposition", "oracle"))]
    rows = [
        (label, *(f"{value:.1f}" if value is not None else "-" for value in figures.values()))
        for label, figures in sides
        if figures
    ]
    columns = (
        "",
        *(key.replace("_recall_at_", "@").replace("_support_at_", " support@") for key in result["single_shot"]),
    )
    shown: list[Any] = [
        table(columns, rows, title=f"{name}: percent, {found['questions']} questions", right=" ".join(columns))
    ]
    shown += left_out(found["left_out"], "left out of both sides, for what they hold is no bound")
    if not result["oracle"]:
        shown.append(Text("This data set has no decompositions: there is no oracle to compare with.", style="dim"))
    return shown
