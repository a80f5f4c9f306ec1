"""`jade doctor`: what this installation has, what is missing, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from jade_graph import private
from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import JadeError, masked
from jade_graph.settings.fields import Settings

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
    ask: Annotated[
        bool,
        typer.Option("--ask", help="Load the configured model too and ask it five questions (seconds to minutes)."),
    ] = False,
) -> None:
    """Check packages, extras, settings, store, registry, corpora, models and plug-ins. Exit code 1 if one is missing.

    Each line says what to do. --ask shows the share of legal actions that the model writes.
    """
    from jade_graph.settings.manifest import manifest

    cli.put("backbone", backbone)
    checks = (*CHECKS, *((_backbone,) if backbone else ()), *((_answers,) if ask else ()))
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


def _extras(_: Cli) -> Iterator[Finding]:
    from importlib import metadata

    from packaging.requirements import Requirement

    from jade_graph.settings.manifest import DISTRIBUTION

    wanted = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    for extra in metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        if extra in ("dev", "docs"):
            continue
        needed = [r.name for r in wanted if r.marker is not None and r.marker.evaluate({"extra": extra})]
        lacking = [name for name in needed if not _installed(name)]
        fix = f'pip install "{DISTRIBUTION}[{extra}]"' if lacking else ""
        told = f"not installed: {', '.join(lacking)}" if lacking else "installed"
        yield Finding(f"extra {extra}", "note" if lacking else "ok", told, fix)


def _installed(name: str) -> bool:
    from importlib import metadata

    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


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
    if private.is_open(path):
        yield Finding("privacy", "note", f"others may enter {path}, which holds prompts", f"chmod -R go= {path}")


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
    from jade_graph.settings.fields import MICROWORLD

    found = list_corpora(cli.settings.data_path)
    for m in found:
        yield Finding(f"corpus {m.name}", "ok", f"{m.passages:,} passages, {m.encoder}")
    wanted = cli.settings.corpus
    if wanted != MICROWORLD and wanted not in {m.name for m in found}:
        yield Finding(f"corpus {wanted}", "missing", "configured, and not there", f"jade index PATH --corpus {wanted}")
    elif not found:
        yield Finding("corpora", "ok", "none yet; jade index PATH --corpus NAME makes one")


def _runs(cli: Cli) -> Iterator[Finding]:
    where = cli.settings.store_url
    if not isinstance(where, str) and not where.exists():
        yield Finding("runs", "ok", "none yet")
        return
    from jade_graph.runs.migrations import HEAD
    from jade_graph.runs.store import RunStore

    with RunStore(where) as store:
        yield Finding("runs", "ok", f"{store.count():,} in {masked(str(where))}, revision {HEAD}")


def _registry(cli: Cli) -> Iterator[Finding]:
    from jade_graph.registry import CHAMPION, Registry
    from jade_graph.registry.place import installed

    if not installed():
        return  # the extra's own line says so
    registry = Registry.of(cli.settings)
    versions = registry.versions()
    if not versions:
        yield Finding("registry", "ok", f"no version yet in {registry.place.shown}; jade register PATH makes one")
        return
    yield Finding("registry", "ok", f"{len(versions)} versions of {registry.model} in {registry.place.shown}")
    champion = registry.current()
    if champion is not None:
        registry.fetch(champion)  # its files are there, with the hashes that were registered
        yield Finding("champion", "ok", f"version {champion}, its files are whole")
    else:
        needed = cli.settings.backbone.endswith(f"@{CHAMPION}")
        state: State = "missing" if needed else "note"
        yield Finding("champion", state, "no version is the champion", f"jade promote {versions[0].number}")


def _in_use(cli: Cli) -> Settings:
    """The settings with the model that the configured corpus is read by where none is named."""
    from jade_graph.settings.fields import MICROWORLD

    return (cli.config if cli.settings.corpus == MICROWORLD else cli.config.reading_any_text()).settings


def _configured(cli: Cli) -> Iterator[Finding]:
    """The model of the settings, without loading it."""
    from pathlib import Path

    from jade_graph.assembly.models import placed
    from jade_graph.backbones.folders import BUNDLED

    name = _in_use(cli).backbone
    where = placed(cli.settings, name)
    if name in BUNDLED or ":" in name or where != name:
        yield Finding("configured model", "ok", f"{masked(name)}; jade doctor --ask asks it")
    elif Path(where).expanduser().is_dir():
        whole = (Path(where).expanduser() / "config.json").is_file()
        told = name if whole else f"{name} has no config.json"
        yield Finding("configured model", "ok" if whole else "missing", told, "" if whole else "--set backbone=FOLDER")
    else:
        yield Finding("configured model", "ok", f"{name}, of the hub; jade doctor --ask loads and asks it")


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


_FACTS = (
    ("What is the capital of France?", "Paris", "Paris is the capital of France."),
    ("Who wrote the novel Dune?", "Frank Herbert", "Dune is a novel written by Frank Herbert."),
    ("In which year did the Berlin Wall fall?", "1989", "The Berlin Wall fell in 1989."),
    ("Which river flows through London?", "Thames", "London lies on the river Thames."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci", "The Mona Lisa was painted by Leonardo da Vinci."),
)


def _answers(cli: Cli) -> Iterator[Finding]:
    """Five questions through the configured preset; of the invented world where the model knows no other."""
    from jade_graph.assembly.models import open_backbone
    from jade_graph.plugins import load
    from jade_graph.retrieval.memory import MemoryRetriever
    from jade_graph.scoring import weakness
    from jade_graph.sync import run_sync
    from jade_graph.types import Passage, Question, Retriever
    from jade_graph.versions.smoke import GraphCheck, Smoke

    model = open_backbone(_in_use(cli))
    try:
        retriever: Retriever = MemoryRetriever([Passage(str(i), text) for i, (*_, text) in enumerate(_FACTS)])
        questions = tuple(Question(f"doctor-{i}", q, answers=(a,)) for i, (q, a, _) in enumerate(_FACTS))
        if model.profile == "compact":
            from jade_graph.microworld import make_questions, make_world

            world = make_world("validation", 0)
            retriever, questions = MemoryRetriever(world.passages), tuple(make_questions(world, 5, seed=0))
        preset = load("jade.presets", cli.settings.preset)
        options = {"preset": preset, "constrained": cli.settings.constrained}
        seconds = cli.settings.limits.deadline_s
        told = GraphCheck(Smoke(questions, retriever, legal=0.0, seconds=seconds), options)(model)
    finally:
        run_sync(model.aclose())
    weak = weakness.of_share(1 - told["legal"])
    yield Finding(
        "model answers",
        "note" if weak else "ok",
        f"{model.version}: five of five runs ended, {told['legal']:.0%} of actions legal, F1 {told.get('f1', 0.0):.2f}",
        weak,
    )


CHECKS: tuple[Callable[[Cli], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _extras,
    _devices,
    _settings,
    _data_dir,
    _model,
    _named,
    _configured,
    _corpora,
    _runs,
    _registry,
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
