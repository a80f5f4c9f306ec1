"""`jade judge`: which passages of recorded runs helped, and whether their users will be content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.classes import extended
from jade_graph.cli.command import Cli, command

if TYPE_CHECKING:
    from jade_graph.judging.cascade import Cascade, Judgement
    from jade_graph.judging.cases import Case
    from jade_graph.types import Backbone

HELP = "Which passages of recorded runs helped, and whether their users will be content."
DEFAULT = "usefulness"


class _Judge(extended("judge")):  # type: ignore[misc]
    """`jade judge RUNS ..` is `jade judge usefulness RUNS ..`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        named = args and (args[0] in self.list_commands(ctx) or args[0] in ("--help", "-h"))
        return super().parse_args(ctx, args if named or not args else [DEFAULT, *args])


app = typer.Typer(cls=_Judge, help=HELP, no_args_is_help=True, add_completion=False)
Runs = Annotated[
    list[str] | None,
    typer.Argument(help="Rollouts, ids of runs, folders of jade export; none: all recorded runs."),
]
Preset = Annotated[str | None, typer.Option(help="Only runs of this preset.")]
Version = Annotated[str | None, typer.Option(help="Only runs of this backbone version.")]


@app.callback(help=HELP)
def _group() -> None:
    """A group does nothing by itself."""


@command(app, DEFAULT)
def usefulness(
    cli: Cli,
    runs: Runs = None,
    judge: Annotated[
        str | None, typer.Option(metavar="BACKBONE", help="Who judges: smol, a hub id, a folder, openai:URL#MODEL ..")
    ] = None,
    levels: Annotated[int, typer.Option(metavar="N", help="Levels of usefulness.")] = 5,
    voters: Annotated[int, typer.Option(metavar="N", help="Voters at each level; 1 is faster, and biased upward.")] = 5,
    quorum: Annotated[
        int | None, typer.Option(metavar="N", help="Voters that have to agree; default: more than half.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the voters.")] = 0.7,
    seed: Annotated[int | None, typer.Option(help="Seeds of the voters come from it.")] = None,
    documents: Annotated[int, typer.Option(min=1, help="Passages of a search that are judged, the first ones.")] = 20,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many searches.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write labels to train an encoder on.")] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="People's labels of the same passages, to compare with.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Votes at once; default: by the model.")] = None,
    preset: Preset = None,
    version: Version = None,
) -> None:
    """Label the passages of recorded searches by how useful they were: a cascade of voters, from the top level down.

    Labels are kept in the run store. The same command again goes on where it stopped, however it stopped.
    """
    from jade_graph.errors import UsageError
    from jade_graph.judging import labels as files
    from jade_graph.judging.backbone import BackboneJudge
    from jade_graph.judging.cascade import Cascade, counted, name_of, provenance
    from jade_graph.judging.making import judge_cases, known
    from jade_graph.runs.store import RunStore
    from jade_graph.sync import run_sync

    cascade = Cascade(levels, voters, quorum)
    cli.put("seed", seed)
    people = files.read(labels) if labels is not None else None
    with RunStore(_where(cli, runs)) as store:
        cases = _cases(store, runs or (), preset, version, documents)[:limit]
        if not cases:
            raise UsageError(
                "no search of these runs found a text: there is nothing to judge.",
                code="JUDGE_RUNS",
                hint="jade rollout DATASET",
            )
        with _opened(cli, judge) as backbone:
            voter = BackboneJudge(backbone, temperature=temperature)
            if voter.form != "chat":
                cli.out.warn(
                    "this model was taught the roles alone and judges as the selector: a level says how soon a passage "
                    "was picked. A model that is spoken to judges by its own prompt."
                )
            if not temperature and voters > 1:
                cli.out.warn("at temperature 0 all voters are one.")
            about = provenance(voter, cascade, cli.settings.seed)
            before = known(store.engine, cases, about)
            left = [case for case in cases if case.key not in before]
            bound = {"searches": len(left), "calls": cascade.calls * len(left), "tokens": voter.bound(left, cascade)}
            told = f", {len(before)} are judged already" if before else ""
            cli.out.log(
                f"{len(cases)} searches{told}: at most {bound['calls']:,} calls and {bound['tokens']:,} tokens "
                f"({cascade.levels - 1} levels x {cascade.voters} voters)"
            )
            at_once = max(1, (concurrency or _usual(backbone)) // voters)
            with cli.out.progress(f"judging by {backbone.version[:40]}", "runs") as tick:
                options: dict[str, Any] = {
                    "seed": cli.settings.seed,
                    "engine": store.engine,
                    "at_once": at_once,
                    "progress": tick,
                }
                found = run_sync(judge_cases(cases, voter, cascade, **options))
    result: dict[str, Any] = {
        "judge": name_of(about),
        "about": about,
        **counted(found),
        "fresh": len(left),
        "bound": bound,
        "levels": _shares(found, cascade),
        "agreement": None if people is None else _agreement(cases, found, people, cascade, cli.settings.seed),
        "out": None if out is None else {"file": str(out), "rows": files.write(out, files.training_rows(cases, found))},
    }
    cli.out.result(result, lambda: _show(result))
    if lost := result["passages"] - result["labelled"]:
        cli.out.warn(f"{lost} of {result['passages']} passages have no label: too few votes on them could be read.")


@command(app)
def satisfaction(
    cli: Cli,
    runs: Runs = None,
    target: Annotated[str, typer.Option(metavar="f1|rating", help="What contentment is: F1, or ratings.")] = "f1",
    threshold: Annotated[
        float | None, typer.Option(help="F1 from which (.5), or rating above which (0), a user is content.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of the cross-validation; questions stay whole.")] = 5,
    resamples: Annotated[int, typer.Option(min=20, help="Of the intervals.")] = 200,
    preset: Preset = None,
    version: Version = None,
) -> None:
    """Predict contentment from the usefulness of what was read, beside relevance alone: logistic regression, AUC.

    Judge the runs first. Without a judge's labels of what it read, a run is left out and counted.
    """
    from jade_graph.judging.recorded import runs_of
    from jade_graph.judging.satisfaction import predict, rows_of
    from jade_graph.runs.filters import RunFilter
    from jade_graph.runs.store import RunStore

    with RunStore(_where(cli, runs)) as store:
        found = runs_of(store, runs or (), RunFilter(preset=preset, version=version))
        rows, left_out = rows_of(found, target=target, threshold=threshold)  # type: ignore[arg-type]
    for why, n in left_out.items():
        cli.out.log(f"left out, {why}: {n} runs")
    result = {"target": target, "left_out": left_out}
    result |= predict(rows, folds=folds, resamples=resamples, seed=cli.settings.seed)
    cli.out.result(result, lambda: _show_satisfaction(result))


# --- what is meant ----------------------------------------------------------------------------------------------------
def _where(cli: Cli, runs: Sequence[str] | None) -> str | Path:
    """The run store; to look must not make one, but for the judgements of an export."""
    from jade_graph.errors import StoreError

    where = cli.settings.store_url
    exported = any(Path(name).is_dir() for name in runs or ())
    if not (isinstance(where, str) or where.exists() or exported):
        raise StoreError("no run is recorded yet.", code="RUN_NOT_FOUND", hint="jade rollout DATASET")
    return where


def _cases(store: Any, names: Sequence[str], preset: str | None, version: str | None, most: int) -> list[Case]:
    from jade_graph.judging.cases import cases_of
    from jade_graph.judging.recorded import runs_of
    from jade_graph.runs.filters import RunFilter

    found = runs_of(store, names, RunFilter(preset=preset, version=version))
    return [case for run in found for case in cases_of(run, most=most)]


@contextmanager
def _opened(cli: Cli, name: str | None) -> Iterator[Backbone]:
    from jade_graph.assembly.models import open_backbone
    from jade_graph.sync import run_sync

    backbone = open_backbone(cli.settings, name)
    try:
        yield backbone
    finally:
        run_sync(backbone.aclose())


def _usual(backbone: Backbone) -> int:
    from jade_graph.assembly.models import usual_concurrency

    return usual_concurrency(backbone)


# --- what is said -----------------------------------------------------------------------------------------------------
def _shares(found: Sequence[Judgement], cascade: Cascade) -> dict[str, int]:
    """How many passages have each level."""
    counts = Counter(label.level for each in found for label in each.labels)
    return {str(level): counts[level] for level in range(cascade.levels)}


def _agreement(
    cases: Sequence[Case],
    found: Sequence[Judgement],
    people: Mapping[tuple[str, str], float],
    cascade: Cascade,
    seed: int,
) -> dict[str, Any]:
    """Against people, passage by passage; queries are resampled whole."""
    from jade_graph.judging.agreement import agreement

    pairs = [
        (case.query, people[case.query, label.id], cascade.value(label.level))
        for case, each in zip(cases, found, strict=True)
        for label in each.labels
        if label.level is not None and (case.query, label.id) in people
    ]
    queries, truth, said = zip(*pairs, strict=True) if pairs else ((), (), ())
    return agreement(truth, said, levels=cascade.levels, groups=queries, seed=seed)


def _show(result: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    shares = [(f"level {level}", n, f"{n / max(1, result['labelled']):.0%}") for level, n in result["levels"].items()]
    head = f"{result['searches']} searches, {result['labelled']} of {result['passages']} passages labelled"
    out: list[Any] = [table(("", "passages", "share"), shares[::-1], title=head, right="passages share")]
    spent = f"{result['calls']:,} calls, {result['tokens']:,} tokens, {result['unreadable']} votes could not be read"
    out.append(Text(f"{spent}; judge {result['judge']}", style="dim"))
    if (told := result["agreement"]) is not None:
        names = {
            "weighted_kappa": "weighted kappa",
            "spearman": "Spearman",
            "exact": "exact",
            "bias": "bias, in levels",
        }
        rows = [(label, told[name], _interval(told[f"{name}_ci95"])) for name, label in names.items()]
        out.append(table(("", "value", "95 %"), rows, title=f"against people, {told['n']} passages", right="value"))
    if result["out"] is not None:
        out.append(Text(f"{result['out']['rows']} lines in {result['out']['file']}", style="dim"))
    return out


def _show_satisfaction(result: Mapping[str, Any]) -> list[Any]:
    from jade_graph.cli.console import table

    rows = [
        (label, result[name], _interval(result[f"{name}_ci95"]))
        for name, label in (
            ("auc_usefulness", "AUC from usefulness"),
            ("auc_relevance", "AUC from relevance"),
            ("auc_gain", "difference"),
        )
    ]
    each = [(name, c["value"], _interval(c["ci95"])) for name, c in result["coefficients"].items()]
    title = f"{result['n']} runs of {result['questions']} questions, {result['content']:.0%} content"
    return [
        table(("", "value", "95 %"), rows, title=title, right="value"),
        table(("usefulness, a standard deviation", "log-odds", "95 %"), each, right="log-odds"),
    ]


def _interval(found: Sequence[float] | None) -> str:
    return "-" if found is None else f"[{found[0]:+.3f}, {found[1]:+.3f}]"
