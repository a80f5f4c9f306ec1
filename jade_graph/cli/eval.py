"""`jade eval`: a method over a data set, with bootstrap intervals; paired against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.assembly.corpora import is_microworld
from jade_graph.assembly.models import usual_concurrency
from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.cli.taught import suit, tell_smol, warn_untaught

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jade_graph.data import Dataset
    from jade_graph.langchain.session import Session
    from jade_graph.scoring.evaluation import Row
    from jade_graph.scoring.keeping import RowFile
    from jade_graph.types import Question, Retriever

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
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET..", help="Data sets: files, folders, or microworld:test?n=200.")
    ],
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    backbone: Annotated[str | None, typer.Option(help="smol, tiny, a hub id, a folder, or openai:URL#MODEL.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the data set's own passages.")] = None,
    against: Annotated[str | None, typer.Option(help="A preset, or a file of --out: paired differences.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions of each.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="So many questions of each, drawn with the seed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sample, and of what is drawn while answering.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a folder with several: dev, test ..")] = None,
    format: Annotated[str | None, typer.Option(help="Where the data do not tell it: musique, hotpot ..")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; default: 64, or 8 of a large model on a CPU.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Save one line per question here, as they are answered.")] = None,
    fresh: Annotated[bool, typer.Option(help="Begin --out again instead of going on where it was cut off.")] = False,
    record: Annotated[bool, typer.Option(help="Record the runs.")] = True,
) -> None:
    """Answer every question of a data set and report scores, cost and plans, by question type and data set.

    F1, EM, recall of supporting passages and of answers in the passages, calls, retrievals, tokens, illegal actions,
    plan shares; 95 % bootstrap intervals. With --out, killed at any time, the same command goes on where it stopped.
    """
    from jade_graph.data import load_dataset
    from jade_graph.scoring import weakness
    from jade_graph.scoring.evaluation import compare, report, require_comparable
    from jade_graph.scoring.keeping import load_rows

    for name, value in (("preset", preset), ("backbone", backbone), ("corpus", corpus), ("seed", seed)):
        cli.put(name, value)
    data = [load_dataset(d, split=split, format=format).head(limit).sample(sample, cli.settings.seed) for d in datasets]
    cli.noted(*data)
    if any(not is_microworld(each.name) for each in data):
        suit(cli)
    warn_untaught(cli)
    asked = [_Asked(each, _retriever(cli, each), each.name if len(data) > 1 else "") for each in data]
    ours = _manifest(cli, asked, cli.settings.preset, limit, sample)
    other: list[Row] | None = None
    if against is not None:
        # Whatever cannot be compared is told before anything is evaluated.
        if Path(against).is_file():
            other, theirs = load_rows(Path(against))
            require_comparable(ours, theirs)
        else:
            theirs = _manifest(cli, asked, against, limit, sample)
    rows, manifest = _evaluate(cli, asked, cli.settings.preset, concurrency, record, ours, out, fresh)
    result = report(rows, manifest, seed=cli.settings.seed)
    illegal, calls = sum(row.illegal_actions for row in rows), sum(row.calls for row in rows)
    result["advice"] = weakness.told(illegal, calls, constrained=cli.settings.constrained)
    result["left_out"] = [{"dataset": a.name, **one} if a.name else one for a in asked for one in a.data.odd]
    if against is not None:
        if other is None:
            other, theirs = _evaluate(cli, asked, against, concurrency, record, theirs)
        differences = compare(rows, other, seed=cli.settings.seed)
        result["against"] = {"name": against, "differences": differences, "manifest": theirs}
    names = " + ".join(each.name for each in data)
    cli.out.result(result, lambda: _show(result, cli.settings.preset, names))
    late = sum(row.error == "LIMIT_DEADLINE" for row in rows)
    if late:
        cli.out.warn(
            f"{late} of {len(rows)} questions ran into the deadline of {cli.settings.limits.deadline_s:g} s and count "
            "as wrong: fewer at once (--concurrency 4), or --set limits.deadline_s=600"
        )
    if result["advice"]:
        cli.out.warn(result["advice"])
    tell_smol(cli)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A data set with what is searched. `name`: how its rows are told from others', where there are several."""

    data: Dataset
    retriever: Retriever
    name: str

    @property
    def questions(self) -> list[Question]:
        return [replace(q, id=self.name + ":" + q.id) if self.name else q for q in self.data.questions]


def _retriever(cli: Cli, data: Dataset) -> Retriever:
    from jade_graph.assembly import open_retriever_for

    with indexing(cli) as progress:
        return open_retriever_for(cli.config, data, progress)


def _manifest(cli: Cli, asked: Sequence[_Asked], preset: str, limit: int | None, sample: int | None) -> dict[str, Any]:
    """What the evaluation is made with; of several data sets the names and hashes, joined."""
    from jade_graph.scoring.evaluation import evaluation_manifest

    each = [
        evaluation_manifest(cli.config, a.data, a.retriever, preset=preset, limit=limit, sample=sample) for a in asked
    ]
    out = dict(each[0])
    if len(each) > 1:
        out |= {key: " + ".join(str(one[key]) for one in each) for key in ("dataset", "dataset_id", "corpus_id")}
        out["questions"] = sum(one["questions"] for one in each)
    return out


def _evaluate(
    cli: Cli,
    asked: Sequence[_Asked],
    preset: str,
    concurrency: int | None,
    record: bool,
    about: dict[str, Any],
    out: Path | None = None,
    fresh: bool = False,
) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and what made them: `about` with the weights and the graph."""
    from jade_graph.langchain.session import open_session
    from jade_graph.scoring.keeping import RowFile

    config = replace(cli.config, settings=replace(cli.settings, preset=preset))
    rows: list[Row] = []
    total = sum(len(each.data.questions) for each in asked)
    file: RowFile | None = None
    with ExitStack() as stack:
        tick = stack.enter_context(
            cli.out.progress(f"{preset} on {' + '.join(each.data.name for each in asked)}", "questions")
        )
        ticks = partial(tick, total=total)
        for each in asked:
            with open_session(config, retriever=each.retriever, record=record, follow=False) as session:
                about |= {"backbone_version": session.backbone.version, "graph_hash": session.graph.graph_hash}
                if out is not None and file is None:
                    file = stack.enter_context(RowFile(out, about, fresh=fresh))
                    if file.known:
                        cli.out.log(f"going on: {len(file.known)} of {total} questions are answered")
                rows += _rows(each, session, file, cli.settings.seed, concurrency, ticks, len(rows))
        if file is not None:
            file.whole(rows)
            cli.out.log(f"saved {len(rows)} rows to {out}")
    return rows, about


def _rows(
    asked: _Asked,
    session: Session,
    file: RowFile | None,
    seed: int,
    concurrency: int | None,
    tick: Callable[[int], None],
    before: int,
) -> list[Row]:
    """The rows of one data set; `before` of others are there."""
    from jade_graph.scoring.evaluation import evaluate
    from jade_graph.sync import run_sync

    questions = asked.questions
    known = file.known if file is not None else {}
    done = before + sum(q.id in known for q in questions)

    def keep(row: Row) -> None:
        nonlocal done
        done += 1
        tick(done)
        if file is not None:
            file.keep(replace(row, dataset=asked.name))

    at_once = concurrency or usual_concurrency(session.backbone)
    found = evaluate(session.graph, questions, seed=seed, concurrency=at_once, known=known, keep=keep)
    return [replace(row, dataset=asked.name) for row in run_sync(found)]


def _show(result: Mapping[str, Any], preset: str, dataset: str) -> list[Any]:
    from jade_graph.cli.console import table

    groups = {"all": result["overall"], **result.get("by_dataset", {})}
    groups |= result["by_type"] if len(result["by_type"]) > 1 else {}
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
