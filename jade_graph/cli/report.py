"""`jade report`: what was found in many runs, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, group

app = group("report", "What was found in many runs: how texts were compressed.")


@command(app)
def compression(
    cli: Cli,
    runs: Annotated[
        list[str],
        typer.Argument(help="Folders of jade improve --compress; or ids of rollouts or runs that were judged."),
    ],
) -> None:
    """Length against accuracy of texts that were made shorter, and how their pieces were weighed.

    With --json: {"learning": [{"name", "compress", "points", "last"}], "recorded": [{"name", "figures", "bands"}]}.
    """
    from jade_graph.scoring.compressed import is_learning, of_learning, of_runs

    found: dict[str, list[dict[str, Any]]] = {"learning": [], "recorded": []}
    for name in runs:
        if is_learning(Path(name)):
            found["learning"].append(of_learning(Path(name)))
        else:
            found["recorded"].append(of_runs(name, _recorded(cli, name)))
    cli.out.result(found, lambda: _show(found))


def _recorded(cli: Cli, name: str) -> list[Any]:
    """The runs of a rollout, or the one run, of this name. Raises `StoreError` RUN_NOT_FOUND."""
    from jade_graph.errors import StoreError
    from jade_graph.runs.store import RunStore

    where = cli.settings.store_url
    if not (isinstance(where, str) or where.exists()):  # to look must not make one
        raise StoreError(
            f"{name!r} is no folder of a learning run, and nothing is recorded.",
            code="RUN_NOT_FOUND",
            hint="jade report compression FOLDER",
        )
    with RunStore(where) as store:
        own = list(store.iter_runs(rollout=name))
        return own or [store.get(name)]


def _show(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    out: list[Any] = []
    lines: list[tuple[Any, ...]]
    columns: tuple[str, ...]
    if found["learning"]:
        lines = [
            (
                each["name"], each["compress"]["method"], f"{each['compress']['alpha']:g}", point["iteration"],
                _number(point["tokens"], 1), _interval(point),
            )
            for each in found["learning"]
            for point in each["points"]
        ]  # fmt: skip
        columns = ("run", "penalty", "alpha", "iteration", "tokens", "F1")
        out.append(
            table(columns, lines, title="length against accuracy, greedy, held out", right="alpha iteration tokens F1")
        )
    for each in found["recorded"]:
        bands = [(f"{b['from']} to {b['to']}", b["runs"], f"{b['f1']:.3f}") for b in each["bands"]]
        out.append(table(("tokens", "runs", "F1"), bands, title=each["name"], right="runs F1"))
    told = [(e["name"], e["last"]) for e in found["learning"] if e["last"]]
    told += [(e["name"], e["figures"]) for e in found["recorded"]]
    weighed = [(name, f) for name, f in told if any(f["histogram"].values())]
    if weighed:
        rows = [
            (
                name, f["texts"], _percent(f["valid"]), _number(f["pieces"], 1),
                *(_percent(n / sum(f["histogram"].values())) for n in f["histogram"].values()),
                _number(f["weight"], 2), _percent(f["degenerate"]),
            )
            for name, f in weighed
        ]  # fmt: skip
        columns = ("run", "texts", "valid", "pieces", "1", "2", "3", "4", "5", "mean", "all alike")
        out.append(table(columns, rows, title="weights of pieces, last rollout", right=" ".join(columns[1:-1])))
    problems = [(name, why, n) for name, f in told for why, n in f["why"].items()]
    if problems:
        out.append(Text("Not weighed: " + ", ".join(f"{name} {why} {n}" for name, why, n in problems), style="dim"))
    return out


def _interval(point: Mapping[str, Any]) -> str:
    low, high = point["f1_ci95"] or (None, None)
    return _number(point["f1"], 3) + ("" if low is None else f" ±{(high - low) / 2:.3f}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
