"""`jade bench`: benchmarks by entry point (group "jade.benchmarks"), printed as figures with their manifest."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args

import typer

from jade_graph.cli.command import Cli, command, single

app = single()
GROUP = "jade.benchmarks"


@command(app)
def bench(
    cli: Cli,
    name: Annotated[str | None, typer.Argument(help="A benchmark; none: list them.")] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Its options, e.g. quick=true.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Run every benchmark.")] = False,
) -> None:
    """Run a benchmark and print its figures.

    With --json: {"name", "figures": {snake_case: number}, "manifest"}.
    """
    from jade_graph import plugins

    if all_:
        results = [_measure(cli, each, ()) for each in plugins.names(GROUP)]
        cli.out.result({"benchmarks": results}, lambda: [_table(result) for result in results])
    elif name is None:
        _list(cli)
    else:
        result = _measure(cli, name, options or ())
        cli.out.result(result, lambda: _table(result))


def _measure(cli: Cli, name: str, options: Sequence[str]) -> dict[str, Any]:
    from jade_graph import plugins
    from jade_graph.settings.manifest import manifest

    run = plugins.load(GROUP, name)
    given = parse_options(name, run, options)
    cli.out.log(f"measuring {name} ..")
    figures = check_figures(name, run(**given))
    return {"name": name, "figures": figures, "manifest": manifest(benchmark=name, options=given or None)}


def parse_options(name: str, run: Callable[..., Any], options: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as keyword arguments of `run`, typed by its annotations.

    Raises `UsageError` BENCH_OPTION.
    """
    from jade_graph.errors import UsageError

    known = inspect.signature(run, eval_str=True).parameters
    out: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not equals or key not in known:
            raise UsageError(
                f"the benchmark {name!r} has no option {text!r}.",
                code="BENCH_OPTION",
                known=[f"{p.name}={p.default}" for p in known.values()],
                hint=f"jade bench {name} KEY=VALUE",
            )
        try:
            out[key] = _typed(value, known[key].annotation)
        except ValueError:
            raise UsageError(
                f"{key}={value!r}: the benchmark {name!r} needs a value like {known[key].default!r}.",
                code="BENCH_OPTION",
            ) from None
    return out


def _typed(value: str, annotation: Any) -> Any:
    kinds = get_args(annotation) or (annotation,)
    if value.lower() == "none" and type(None) in kinds:
        return None
    if bool in kinds:
        if value.lower() not in ("true", "false"):
            raise ValueError(value)
        return value.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            return kind(value)
    return value


def check_figures(name: str, figures: Any) -> dict[str, float]:
    """What a benchmark returned, if it is numbers under snake_case names. Raises `PluginError` BENCH_FIGURES."""
    from jade_graph.errors import PluginError

    numbers = isinstance(figures, Mapping) and all(
        isinstance(k, str) and k.isidentifier() and isinstance(v, int | float) for k, v in figures.items()
    )
    if not numbers:
        raise PluginError(
            f"the benchmark {name!r} returned {figures!r:.200}.",
            code="BENCH_FIGURES",
            hint="return a dict of snake_case names and numbers",
        )
    return dict(figures)


def _list(cli: Cli) -> None:
    from jade_graph.cli.console import table
    from jade_graph.cli.packages import entries, owner, summary

    rows = [(name, summary(found[-1].module), owner(found[-1])) for name, found in entries(GROUP).items()]
    value = {"benchmarks": [{"name": n, "measures": m, "package": p} for n, m, p in rows]}
    cli.out.result(value, lambda: table(("benchmark", "measures", "package"), rows))


def _table(result: Mapping[str, Any]) -> Any:
    from jade_graph.cli.console import table

    return table(("figure", "value"), list(result["figures"].items()), title=result["name"], right="value")
