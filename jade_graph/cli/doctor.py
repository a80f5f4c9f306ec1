"""`jade doctor`: what this installation has, what is missing, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import JadeError, masked

app = single()
State = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. "missing" keeps something from working; `fix` says what to do."""

    what: str
    state: State
    detail: str
    fix: str = ""


@command(app)
def doctor(
    cli: Cli,
    backbone: Annotated[str | None, typer.Option(help="A model to load and look at: what was found of it.")] = None,
) -> None:
    """Check Python, packages, devices, settings, folders, models and plug-ins. Exit code 1 if something is missing."""
    from jade_graph.settings.manifest import manifest

    cli.put("backbone", backbone)
    checks = (*CHECKS, _backbone) if backbone else CHECKS
    findings = [finding for check in checks for finding in _run(check, cli)]
    missing = [f for f in findings if f.state == "missing"]
    cli.out.result(
        {"ok": not missing, "findings": findings, "manifest": manifest()},
        lambda: _shown(findings, len(missing)),
    )
    if missing:
        raise typer.Exit(1)


def _run(check: Callable[[Cli], Iterator[Finding]], cli: Cli) -> list[Finding]:
    try:
        return list(check(cli))
    except JadeError as error:
        return [Finding(check.__name__.strip("_"), "missing", f"{error.error_code}: {error.message}", error.hint)]


def _python(_: Cli) -> Iterator[Finding]:
    import platform

    from jade_graph.settings import manifest

    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("jade-graph", "ok", manifest.version())


def _packages(_: Cli) -> Iterator[Finding]:
    from importlib import metadata

    from packaging.requirements import Requirement

    from jade_graph.settings.manifest import DISTRIBUTION, packages

    installed = packages()
    wanted = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or [] if "extra ==" not in text]
    lowered = {name.lower().replace("_", "-"): version for name, version in installed.items()}
    good = 0
    for requirement in wanted:
        version = lowered.get(requirement.name.lower().replace("_", "-"))
        if version is None:
            yield Finding(requirement.name, "missing", "not installed", f'pip install "{requirement}"')
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(
                requirement.name, "missing", f"{version}, needs {requirement.specifier}", f'pip install "{requirement}"'
            )
        else:
            good += 1
    yield Finding("packages", "ok", f"{good} of {len(wanted)} as required; jade version lists them")


def _devices(_: Cli) -> Iterator[Finding]:
    from jade_graph.settings import manifest

    flags = manifest.cpu_flags()
    yield Finding(
        "processor", "ok", f"{manifest.cpu_model() or 'unknown'}, {manifest.cores()} cores, {' '.join(flags)}"
    )
    memory = manifest.memory_gib()
    if memory is not None:
        low = memory < 4
        yield Finding(
            "memory", "note" if low else "ok", f"{memory:g} GiB", "4 GiB or more are comfortable" if low else ""
        )
    try:
        import torch
    except Exception as error:  # a broken build fails in many ways, and saying so is this command's job
        yield Finding("torch", "missing", f"{type(error).__name__}: {error}", "make setup")
        return
    found = [f"cuda {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    yield Finding(
        "torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads, {', '.join(found) or 'cpu only'}"
    )


def _settings(cli: Cli) -> Iterator[Finding]:
    files = ", ".join(str(path.absolute()) for path in cli.config.files)
    files = files or "no jade.toml here or above; defaults, JADE_* and --set"
    yield Finding("settings", "ok", files)


def _data_dir(cli: Cli) -> Iterator[Finding]:
    import os
    import shutil

    path = cli.settings.data_path
    base = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not os.access(base, os.W_OK) or not base.is_dir():
        yield Finding("data folder", "missing", f"{path} cannot be written", "--set data_dir=FOLDER")
        return
    free = shutil.disk_usage(base).free / 2**30
    low = free < 1
    there = "" if path.exists() else " (made when needed)"
    yield Finding(
        "data folder", "note" if low else "ok", f"{path}{there}, {free:.0f} GiB free", "free some disk" if low else ""
    )


def _model(_: Cli) -> Iterator[Finding]:
    from jade_graph.backbones import TINY

    if (TINY / "config.json").is_file():
        size = sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) / 2**20
        yield Finding("bundled model", "ok", f"jade-tiny, {size:.1f} MiB")
    else:
        yield Finding("bundled model", "note", "jade-tiny is not in this installation", "jade microworld pretrain")


def _named(cli: Cli) -> Iterator[Finding]:
    from jade_graph.backbones import named

    data = cli.settings.data_path
    for name in named.NAMED:
        about = named.described(name, data)
        if about["added"]:
            yield Finding(f"model {name}", "ok", about["folder"])
        elif name == named.SMOL:
            fetched = 0 if named.is_added(about["base"], data) else about["megabytes"]
            what = "made from smollm2 when it is first asked for" if not fetched else "not added"
            yield Finding(f"model {name}", "note", what, f"jade models add {name} ({fetched} MB)" if fetched else "")


def _corpora(cli: Cli) -> Iterator[Finding]:
    from jade_graph.retrieval.manifest import list_corpora

    found = [f"{m.name} ({m.passages:,} passages)" for m in list_corpora(cli.settings.data_path)]
    yield Finding("corpora", "ok", ", ".join(found) or "none yet; jade index PATH --corpus NAME makes one")


def _runs(cli: Cli) -> Iterator[Finding]:
    where = cli.settings.store_url
    if not isinstance(where, str) and not where.exists():
        yield Finding("runs", "ok", "none yet")
        return
    from jade_graph.runs.store import RunStore

    with RunStore(where) as store:
        yield Finding("runs", "ok", f"{store.count():,} in {masked(str(where))}")


def _plugins(_: Cli) -> Iterator[Finding]:
    from jade_graph.cli.packages import entries, owner
    from jade_graph.plugins import GROUPS

    count = 0
    for group in GROUPS:
        for name, found in entries(group).items():
            count += 1
            if len(found) > 1:
                owners = ", ".join(map(owner, found))
                yield Finding(f"{group} {name}", "note", f"brought by {owners}", "uninstall all but one")
    if count:
        yield Finding("plug-ins", "ok", f"{count} found; jade plugins list tries each")
    else:
        yield Finding("plug-ins", "missing", "none found, not even the stock roles", "make setup")


def _backbone(cli: Cli) -> Iterator[Finding]:
    from jade_graph.assembly.models import open_backbone
    from jade_graph.cli.model_facts import facts
    from jade_graph.sync import run_sync

    model = open_backbone(cli.settings)
    try:
        yield Finding("backbone", "ok", f"{model.version}, profile {model.profile}")
        for what, good, detail, fix in facts(model):
            yield Finding(what, "ok" if good else "note", detail, fix)
    finally:
        run_sync(model.aclose())


CHECKS: tuple[Callable[[Cli], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _devices,
    _settings,
    _data_dir,
    _model,
    _named,
    _corpora,
    _runs,
    _plugins,
)


def _shown(findings: list[Finding], missing: int) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table

    style = {"ok": "green", "note": "yellow", "missing": "bold red"}
    rows = [(f.what, Text(f.state, style=style[f.state]), f.detail, f.fix or "") for f in findings]
    end = (
        Text(f"{missing} missing", style="bold red") if missing else Text("Everything needed is there.", style="green")
    )
    columns = ("what", "state", "detail", "to do") if any(f.fix for f in findings) else ("what", "state", "detail")
    return [table(columns, [row[: len(columns)] for row in rows]), end]
