"""`jade demo`: the main job end to end on the bundled model: index a world, answer held-out questions, show figures.

Invariant: every figure shown is measured in this call, on questions about a world that the bundled model never saw.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jade_graph.evaluation import Row
    from jade_graph.types import Backbone, Question, Retriever

app = single()
PRESETS = ("vanilla-rag", "mmoa-rag", "jade")
SHOWN_KIND = "2hop"


@command(app)
def demo(
    cli: Cli,
    per_kind: Annotated[int, typer.Option(min=1, help="Questions of each kind.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the test world.")] = 0,
) -> None:
    """Index an invented world, answer held-out questions with jade-tiny and with the oracle, show one run as a tree."""
    from jade_graph.assembly import open_backbone
    from jade_graph.backbones.scripted import ScriptedBackbone
    from jade_graph.evaluation import report
    from jade_graph.manifest import manifest
    from jade_graph.microworld.oracle import OraclePolicy
    from jade_graph.microworld.questions import KINDS, make_questions
    from jade_graph.microworld.world import make_world

    began = time.monotonic()
    world = make_world("test", seed)
    questions = make_questions(world, per_kind * len(KINDS), seed=seed, kinds=dict.fromkeys(KINDS, 1.0))
    cli.out.log(f"1. a world of {len(world.passages):,} passages that jade-tiny has never seen")
    retriever = _index(cli, world, seed)
    cli.out.log(f"2. {len(questions)} held-out questions of {len(KINDS)} kinds, three methods, two backbones")
    oracle = OraclePolicy(world, questions)
    arms: dict[tuple[str, str], list[Row]] = {}
    for name in ("jade-tiny", "oracle"):
        backbone: Backbone = open_backbone(cli.settings, "tiny") if name == "jade-tiny" else ScriptedBackbone(oracle)
        for preset in PRESETS:
            arms[name, preset] = _answer(cli, preset, name, backbone, retriever, questions)
    shown = _pick(arms["jade-tiny", "jade"])
    run = _load(cli, shown.run_id)
    seconds = time.monotonic() - began
    facts = manifest(world=world.parameters, questions=len(questions), seed=seed, corpus_id=retriever.corpus_id)
    result = {
        "arms": {
            f"{name}/{preset}": {k: v for k, v in report(rows, {}, seed=seed).items() if k != "manifest"}
            for (name, preset), rows in arms.items()
        },
        "run_id": run.id,
        "seconds": round(seconds, 1),
        "manifest": facts,
    }
    cli.out.result(result, lambda: _show(arms, run, {q.id: q for q in questions}[run.question_id], seconds))


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
    from jade_graph.assembly import open_session
    from jade_graph.evaluation import evaluate
    from jade_graph.sync import run_sync

    session = open_session(cli.config, preset=preset, backbone=backbone, retriever=retriever)
    with cli.out.progress(f"{preset} with {name}") as tick:
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


def _pick(rows: Sequence[Row]) -> Row:
    """The run to show: a decomposed one, solved if there is one."""
    split = [r for r in rows if r.plan in ("QDS", "QDP")] or list(rows)
    return max(split, key=lambda r: ((r.em or 0.0), r.type == SHOWN_KIND, r.question_id))


def _load(cli: Cli, run_id: str) -> Any:
    from jade_graph.store import RunStore

    with RunStore(cli.settings.store_url) as store:
        return store.get(run_id)


def _show(arms: dict[tuple[str, str], list[Row]], run: Any, question: Question, seconds: float) -> list[Any]:
    from rich.text import Text

    from jade_graph.console import table
    from jade_graph.evaluation import summarize
    from jade_graph.microworld.questions import KINDS
    from jade_graph.render import run_tree

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
    return [
        table(columns, lines, title=title, right=" ".join(columns[2:])),
        Text("One run of jade with jade-tiny:", style="bold"),
        run_tree(run, documents=False),
        Text(f"gold    {' or '.join(question.answers)}", style="dim"),
        Text(""),
        Text(
            f"Done in {seconds:.0f} s. Next: jade runs list, jade runs show {run.id[:8]}, jade index PATH --corpus NAME"
        ),
    ]
