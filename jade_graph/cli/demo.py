"""`jade demo`: the main job end to end on the bundled model: index a world, answer questions, learn, answer them again,
put what was learned into service, and read a few real pages.

Invariant: every figure shown is measured in this call, on questions about a world that the bundled model never saw,
before and after learning. Learning and versions are found by entry point (group `jade.demos`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli import demo_reading
from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.errors import PluginError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jade_graph.scoring.evaluation import Row
    from jade_graph.types import Backbone, Question, Retriever

app = single()
PRESETS = ("vanilla-rag", "mmoa-rag", "jade")
BEFORE, AFTER = "jade-tiny", "trained"


@command(app)
def demo(
    cli: Cli,
    per_kind: Annotated[int, typer.Option(min=1, help="Questions of each kind.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the worlds, and of learning.")] = 0,
    iterations: Annotated[
        int | None, typer.Option(min=0, help="Rounds of rollout and update; 0: do not learn.")
    ] = None,
) -> None:
    """Index an invented world, answer held-out questions, learn for some minutes, answer them again.

    Shows figures before and after, what an oracle reaches, and one question whose answer turned right as two trees.
    What was learned is registered as a version, judged by the gate, promoted under a running graph and rolled back. At
    the end smol answers a question about a few pages of real text.
    """
    from jade_graph.assembly import open_backbone
    from jade_graph.backbones.scripted import ScriptedBackbone
    from jade_graph.microworld.oracle import OraclePolicy
    from jade_graph.microworld.questions import KINDS, make_questions
    from jade_graph.microworld.world import make_world
    from jade_graph.scoring.evaluation import report
    from jade_graph.settings.manifest import manifest

    began = time.monotonic()
    world = make_world("test", seed)
    questions = make_questions(world, per_kind * len(KINDS), seed=seed, kinds=dict.fromkeys(KINDS, 1.0))
    cli.out.log(f"1. a world of {len(world.passages):,} passages that jade-tiny has never seen")
    retriever = _index(cli, world, seed)
    cli.out.log(f"2. {len(questions)} held-out questions of {len(KINDS)} kinds, three methods, two backbones")
    oracle = OraclePolicy(world, questions)
    arms: dict[tuple[str, str], list[Row]] = {}
    for preset in PRESETS:
        arms[BEFORE, preset] = _answer(cli, preset, BEFORE, open_backbone(cli.settings, "tiny"), retriever, questions)
    learned = _learn(cli, seed, iterations)
    if learned is not None:
        trained = open_backbone(cli.settings, learned["model"])
        arms[AFTER, "jade"] = _answer(cli, "jade", AFTER, trained, retriever, questions)
    for preset in PRESETS:
        arms["oracle", preset] = _answer(cli, preset, "oracle", ScriptedBackbone(oracle), retriever, questions)
    runs = [_load(cli, row.run_id) for row in _pick(arms[BEFORE, "jade"], arms.get((AFTER, "jade")))]
    seconds = time.monotonic() - began
    facts = manifest(world=world.parameters, questions=len(questions), seed=seed, corpus_id=retriever.corpus_id)
    shipped = None
    if learned is not None:
        both = arms[BEFORE, "jade"], arms[AFTER, "jade"]
        shipped = _ship(cli, learned, both, questions, retriever, facts | {"preset": "jade"})
    read = demo_reading.read_pages(cli)
    seconds = time.monotonic() - began
    result = {
        "arms": {
            f"{name}/{preset}": {k: v for k, v in report(rows, {}, seed=seed).items() if k != "manifest"}
            for (name, preset), rows in arms.items()
        },
        "run_ids": [run.id for run in runs],
        "learned": learned,
        "shipped": shipped,
        "reading": None if read is None else demo_reading.told(read),
        "seconds": round(seconds, 1),
        "manifest": facts,
    }
    question = next(q for q in questions if q.id == runs[0].question_id)
    cli.out.result(result, lambda: _show(arms, runs, question, learned, shipped, read, seconds))


def _index(cli: Cli, world: Any, seed: int) -> Retriever:
    from jade_graph.assembly import MICROWORLD, open_named
    from jade_graph.retrieval.corpus import build_corpus

    # `microworld` is what the other commands search, and holds the world of seed 0.
    name = MICROWORLD if seed == 0 else f"{MICROWORLD}-{seed}"
    with indexing(cli) as progress:
        build_corpus(world.passages, name, cli.settings.data_path, cli.settings.encoder, progress=progress)
    return open_named(cli.settings, name)


def _answer(
    cli: Cli, preset: str, name: str, backbone: Backbone, retriever: Retriever, questions: Sequence[Question]
) -> list[Row]:
    from jade_graph.langchain.session import open_session
    from jade_graph.scoring.evaluation import evaluate
    from jade_graph.sync import run_sync

    session = open_session(cli.config, preset=preset, backbone=backbone, retriever=retriever)
    with cli.out.progress(f"{preset} with {name}", "questions") as tick:
        done = 0

        def count(run: Any) -> None:
            nonlocal done
            del run
            done += 1
            tick(done, len(questions))

        try:
            return run_sync(evaluate(session.graph, questions, progress=count))
        finally:
            if session.store is not None:
                session.store.close()


def _learn(cli: Cli, seed: int, iterations: int | None) -> dict[str, Any] | None:
    """What learning came to; None where it was not asked for, or its packages are not installed."""
    from jade_graph import plugins

    if iterations == 0 or "learning" not in plugins.names("jade.demos"):
        return None
    out = cli.settings.data_path / f"demo-learning-{seed}"
    options = {} if iterations is None else {"iterations": iterations}
    try:
        learn = plugins.load("jade.demos", "learning")
    except PluginError as error:
        cli.out.warn(f'no learning: {error} Install it with: pip install "jade-graph[train]"')
        return None
    cli.out.log("3. learning from its own runs, on another world, all roles at once")
    with cli.out.progress("learning", "%") as tick:
        found: dict[str, Any] = learn(out, seed=seed, tell=tick, **options)
    return found


def _ship(
    cli: Cli,
    learned: dict[str, Any],
    both: tuple[list[Row], list[Row]],
    questions: Sequence[Question],
    retriever: Retriever,
    facts: dict[str, Any],
) -> dict[str, Any] | None:
    """What came of putting the learned weights into service; None where its packages are not installed."""
    from pathlib import Path

    from jade_graph import plugins

    cli.out.log("4. what it learned becomes version 2: registered, judged, promoted under a running graph, rolled back")
    world = f"microworld:test?n={len(questions)}&seed={facts['seed']}"
    try:
        ship = plugins.load("jade.demos", "versions")
        found: dict[str, Any] = ship(
            cli.settings.data_path,
            Path(learned["model"]),
            *both,
            dataset=world,
            questions=questions,
            retriever=retriever,
            manifest=facts,
            tell=lambda line: cli.out.log(f"   {line}"),
        )
    except (PluginError, RegistryError) as error:
        if isinstance(error, RegistryError) and error.error_code != "REGISTRY_MISSING_PACKAGE":
            raise
        cli.out.warn(f'no versions: {error} Install them with: pip install "jade-graph[registry]"')
        return None
    return found


def _shipped(shipped: dict[str, Any]) -> list[str]:
    """What became of version 2, in a few lines."""
    numbers = list(shipped["registered"])
    lines = [f"registered  version {numbers[-1]} ({shipped['registered'][numbers[-1]]})"]
    lines.append(f"gate        {shipped['verdict']['summary']}")
    if not shipped["promoted"]:
        lines += [f"            {r['rule']}: {r['todo']}" for r in shipped["verdict"]["rules"] if not r["passed"]]
        return [*lines, "not promoted: the champion stays"]
    for name, label in (("switched", "promoted"), ("rolled_back", "rolled back")):
        to = shipped[name]
        lines.append(f"{label:<12}new runs on {to['version']} after {to['seconds']:.1f} s")
    runs = ", ".join(f"{count} on {version}" for version, count in shipped["runs"].items())
    lines.append(f"meanwhile   {runs}; {shipped['failed']} failed, {shipped['mixed']} with two versions")
    return lines


def _pick(before: Sequence[Row], after: Sequence[Row] | None) -> list[Row]:
    """The runs to show: of one question before and after, turned right and decomposed if there is such a one."""
    if after is None:
        return [max(before, key=lambda r: (r.plan in ("QDS", "QDP"), r.em or 0.0, r.question_id))]

    def gain(pair: tuple[Row, Row]) -> tuple[float, bool, bool, str]:
        was, now = pair
        return (now.em or 0.0) - (was.em or 0.0), now.plan in ("QDS", "QDP"), now.type == "2hop", now.question_id

    pairs: list[tuple[Row, Row]] = list(zip(before, after, strict=True))
    was, now = max(pairs, key=gain)
    return [was, now]


def _load(cli: Cli, run_id: str) -> Any:
    from jade_graph.runs.store import RunStore

    with RunStore(cli.settings.store_url) as store:
        return store.get(run_id)


def _show(
    arms: dict[tuple[str, str], list[Row]],
    runs: Sequence[Any],
    question: Question,
    learned: dict[str, Any] | None,
    shipped: dict[str, Any] | None,
    read: Any,
    seconds: float,
) -> list[Any]:
    from rich.text import Text

    from jade_graph.cli.console import table
    from jade_graph.microworld.questions import KINDS
    from jade_graph.picture.terminal import run_tree
    from jade_graph.scoring.evaluation import summarize

    lines = []
    for (name, preset), rows in arms.items():
        overall = summarize(rows)
        low, high = overall["ci95"]["f1"]
        by_kind = [summarize([r for r in rows if r.type == kind])["f1"] for kind in KINDS]
        lines.append(
            (
                name, preset, f"{overall['f1']:.2f} ±{(high - low) / 2:.2f}", *(f"{f1:.2f}" for f1 in by_kind),
                f"{overall['calls']:.1f}", f"{overall['retrievals']:.1f}", f"{overall['illegal_rate']:.1%}",
            )
        )  # fmt: skip
    columns = ("backbone", "preset", "F1", *KINDS, "calls", "searches", "illegal")
    title = "F1 on questions about an unseen world, by kind of question"
    shown: list[Any] = [table(columns, lines, title=title, right=" ".join(columns[2:]))]
    if learned is not None:
        told = f"{learned['runs']:,} runs of another world, {learned['iterations']} updates, {learned['seconds']:.0f} s"
        shown.append(Text(f"Trained on {told}.", style="dim"))
    for run, when in zip(runs, ("before", "after"), strict=False):
        label = f"One question, {when} learning:" if learned is not None else "One run of jade with jade-tiny:"
        shown += [Text(""), Text(label, style="bold"), run_tree(run, documents=False)]
    shown.append(Text(f"gold    {' or '.join(question.answers)}", style="dim"))
    if shipped is not None:
        shown += [Text(""), Text("The learned model as a version:", style="bold"), *map(Text, _shipped(shipped))]
        shown.append(Text(f"See it: mlflow server --backend-store-uri {shipped['registry']}", style="dim"))
    if read is not None:
        shown += demo_reading.shown(read)
    following = ["jade runs list", f"jade runs show {runs[-1].id[:8]}"]
    following.append(f'jade ask "..." --backbone {learned["model"]}' if learned else "jade index PATH --corpus NAME")
    return [
        *shown,
        Text(""),
        Text(f"Done in {seconds:.0f} s. Next: {', '.join(following)}"),
    ]
