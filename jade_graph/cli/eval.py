"""`jade eval`: a method over a data set, with bootstrap intervals; paired against another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.cli.taught import warn_untaught

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jade_graph.data import Dataset
    from jade_graph.scoring.evaluation import Row
    from jade_graph.types import Retriever

app = single()
SHOWN = {
    "f1": "F1",
    "em": "EM",
    "support_recall": "support",
    "answer_recall": "answer@k",
    "calls": "calls",
    "retrievals": "searches",
    "tokens": "tokens",
    "illegal_rate": "illegal",
    "failed_rate": "failed",
}


@command(app, "eval")
def eval_(
    cli: Cli,
    dataset: Annotated[str, typer.Argument(help="A data set: a file, a folder, or microworld:test?n=200.")],
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    backbone: Annotated[str | None, typer.Option(help="tiny, a hub id, a folder, or openai:URL#MODEL.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the data set's own passages.")] = None,
    against: Annotated[str | None, typer.Option(help="A preset, or a file of --out: paired differences.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder with several: dev, test ..")] = None,
    format: Annotated[str | None, typer.Option(help="Where the data do not tell it: musique, hotpot ..")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Save one line per question here.")] = None,
    record: Annotated[bool, typer.Option(help="Record the runs.")] = True,
) -> None:
    """Answer every question of a data set and report scores, cost and plans, by question type.

    F1, EM, recall of supporting passages and of answers in the passages, calls, retrievals, tokens, illegal actions,
    plan shares; 95 % bootstrap intervals.
    """
    from jade_graph.assembly import open_retriever_for
    from jade_graph.data import load_dataset
    from jade_graph.scoring.evaluation import (
        compare,
        evaluation_manifest,
        load_rows,
        report,
        require_comparable,
        save_rows,
    )

    for name, value in (("preset", preset), ("backbone", backbone), ("corpus", corpus)):
        cli.put(name, value)
    warn_untaught(cli)
    data = load_dataset(dataset, limit=limit, split=split, format=format)
    with indexing(cli) as progress:
        retriever = open_retriever_for(cli.config, data, progress)
    ours = evaluation_manifest(cli.config, data, retriever, limit=limit)
    other: list[Row] | None = None
    if against is not None:
        # Whatever cannot be compared is told before anything is evaluated.
        if Path(against).is_file():
            other, theirs = load_rows(Path(against))
            require_comparable(ours, theirs)
        else:
            theirs = evaluation_manifest(cli.config, data, retriever, preset=against, limit=limit)
    rows, versions = _evaluate(cli, data, retriever, cli.settings.preset, concurrency, record)
    manifest = ours | versions
    if out is not None:
        save_rows(out, rows, manifest)
        cli.out.log(f"saved {len(rows)} rows to {out}")
    result = report(rows, manifest, seed=cli.settings.seed)
    if against is not None:
        if other is None:
            other, versions = _evaluate(cli, data, retriever, against, concurrency, record)
            theirs |= versions
        differences = compare(rows, other, seed=cli.settings.seed)
        result["against"] = {"name": against, "differences": differences, "manifest": theirs}
    cli.out.result(result, lambda: _show(result, cli.settings.preset, data.name))


def _evaluate(
    cli: Cli, data: Dataset, retriever: Retriever, preset: str, concurrency: int, record: bool
) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and which weights and graph made them."""
    from jade_graph.langchain.session import open_session
    from jade_graph.scoring.evaluation import evaluate
    from jade_graph.sync import run_sync

    config = replace(cli.config, settings=replace(cli.settings, preset=preset))
    session = open_session(config, retriever=retriever, record=record, follow=False)
    with session, cli.out.progress(f"{preset} on {data.name}") as tick:
        done = 0

        def count(run: Any) -> None:
            nonlocal done
            del run
            done += 1
            tick(done, len(data.questions))

        rows = run_sync(
            evaluate(session.graph, data.questions, seed=cli.settings.seed, concurrency=concurrency, progress=count)
        )
    return rows, {"backbone_version": session.backbone.version, "graph_hash": session.graph.graph_hash}


def _show(result: Mapping[str, Any], preset: str, dataset: str) -> list[Any]:
    from jade_graph.cli.console import table

    groups = {"all": result["overall"], **(result["by_type"] if len(result["by_type"]) > 1 else {})}
    columns = ("type", "n", *SHOWN.values(), "plans")
    rows = [(name, str(g["n"]), *(_figure(g, f) for f in SHOWN), _plans(g["plans"])) for name, g in groups.items()]
    shown: list[Any] = [table(columns, rows, title=f"{preset} on {dataset}", right="n " + " ".join(SHOWN.values()))]
    if "against" in result:
        other = result["against"]
        lines = [
            (name, f"{d['difference']:+.3f}", f"[{d['ci95'][0]:+.3f}, {d['ci95'][1]:+.3f}]", f"{d['p']:.3f}")
            for name, d in other["differences"].items()
        ]
        title = f"{preset} minus {other['name']}, paired"
        shown.append(table(("figure", "difference", "95 %", "p"), lines, title=title, right="difference p"))
    return shown


def _figure(group: Mapping[str, Any], name: str) -> str:
    value = group[name]
    if value is None:
        return "-"
    if name in ("calls", "retrievals"):
        return f"{value:.2f}"
    if name == "tokens":
        return f"{value:,.0f}"
    if name in ("f1", "em"):
        low, high = group["ci95"][name]
        return f"{value:.3f} ±{(high - low) / 2:.3f}"
    return f"{value:.1%}"


def _plans(shares: Mapping[str, float]) -> str:
    kept = [f"{plan} {share:.0%}" for plan, share in list(shares.items())[:3]]
    return "  ".join(kept) + ("  .." if len(shares) > 3 else "")
