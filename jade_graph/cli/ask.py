"""`jade ask`: a question, or one after another, answered over a corpus, each shown as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.backbones.folders import BUNDLED
from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.cli.living import living
from jade_graph.cli.taught import tell_smol, tell_weak, warn_untaught
from jade_graph.errors import JadeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jade_graph.langchain.session import Session
    from jade_graph.types import Run

LINES = "-"
app = single()


@command(app)
def ask(
    cli: Cli,
    question: Annotated[str, typer.Argument(help="The question; - reads questions from standard input, a line each.")],
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; made by jade index.")] = None,
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    backbone: Annotated[str | None, typer.Option(help="smol, tiny, a hub id, a folder, or openai:URL#MODEL.")] = None,
    plan: Annotated[str | None, typer.Option(help="Force this workflow, e.g. R,AG.")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print the answer alone.")] = False,
    record: Annotated[bool, typer.Option(help="Record the run.")] = True,
) -> None:
    """Answer a question and show how: plan, sub-questions, passages, answers, tokens, times.

    On a terminal the answer is shown while it is written.

    With - the model stays loaded, and each line of standard input is a question; with --json each answer is a line.
    """
    from jade_graph.langchain.session import open_session

    for name, value in (("corpus", corpus), ("preset", preset), ("backbone", backbone)):
        cli.put(name, value)
    if question != LINES:
        _must_read(cli, question)
    warn_untaught(cli)
    with indexing(cli) as progress:
        session = open_session(cli.config, record=record, progress=progress, follow=False)
    with session:
        if question == LINES:
            tell_smol(cli)
            failed = [not _answered(cli, session, text, plan, brief) for text in _lines(cli)]
            if any(failed):
                raise typer.Exit(1)
            return
        with living(cli.out) as heard:
            run = session.graph.run(question, seed=cli.settings.seed, plan=plan, **heard)
    cli.out.result(as_json(run), lambda: run.answer if brief and run.status == "answered" else _tree(run))
    tell_smol(cli)
    tell_weak(cli, run)
    if run.status == "failed":
        raise typer.Exit(1)


def _lines(cli: Cli) -> Iterator[str]:
    """Questions as they are typed or piped; empty lines are none."""
    import sys

    while True:
        if sys.stdin.isatty():
            cli.out.stderr.print("? ", end="", style="bold")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _answered(cli: Cli, session: Session, question: str, plan: str | None, brief: bool) -> bool:
    """Answer one of many: what is wrong with it is told, and the next one is read."""
    import sys

    from jade_graph.settings.plain import json_text

    try:
        _must_read(cli, question)
        with living(cli.out) as heard:
            run = session.graph.run(question, seed=cli.settings.seed, plan=plan, **heard)
    except JadeError as error:
        if cli.out.json:
            sys.stdout.write(json_text({"question": question, "error": error.as_dict()}) + "\n")
            sys.stdout.flush()
        else:
            cli.out.warn(str(error))
        return False
    if cli.out.json:
        sys.stdout.write(json_text(as_json(run)) + "\n")
        sys.stdout.flush()
    else:
        cli.out.result({}, lambda: run.answer if brief and run.status == "answered" else _tree(run))
        sys.stdout.flush()
    tell_weak(cli, run)
    return run.status != "failed"


def _tree(run: Run) -> Any:
    from jade_graph.picture.terminal import run_tree

    return run_tree(run)


def _must_read(cli: Cli, question: str) -> None:
    """The bundled model knows the words of microworld alone: say so instead of answering nonsense."""
    if cli.settings.backbone not in BUNDLED:
        return
    from jade_graph.microworld.vocabulary import is_foreign, unknown_words

    if is_foreign(question):
        words = ", ".join(repr(w) for w in dict.fromkeys(unknown_words(question)[:5])) or "no word at all"
        raise UsageError(
            f"the bundled model jade-tiny knows only the invented microworld and cannot read this question ({words}).",
            code="FOREIGN_QUESTION",
            hint="over your own documents: jade index FOLDER --corpus mine, then "
            f'jade ask "{question[:60]}" --corpus mine; for a microworld question: jade microworld show',
        )


def as_json(run: Run) -> dict[str, Any]:
    """A run as JSON, token ids and prompts left out (jade runs show --json has them)."""
    from jade_graph.scoring import weakness
    from jade_graph.settings.plain import jsonable

    return {
        "run_id": run.id,
        "question": run.question,
        "status": run.status,
        "answer": run.answer,
        "error": run.error,
        "error_message": run.error_message,
        "plan": run.plan,
        "counters": jsonable(run.counters),
        "wall_ms": run.wall_ms,
        "advice": weakness.of_run(run),
        "trace": jsonable(run.trace),
        "documents": [{"id": d.id, "title": d.title, "text": d.text, "score": d.score} for d in run.documents],
        "actions": [
            {
                "seq": t.seq,
                "trace_node": t.trace_node,
                "role": t.role,
                "action": t.action_text,
                "violation": t.violation,
                "fallback_used": t.fallback_used,
                "error": t.error,
                "latency_ms": t.latency_ms,
            }
            for t in run.transitions
        ],
        "backbone_version": run.backbone_version,
        "graph_hash": run.graph_hash,
        "corpus_id": run.corpus_id,
        "seed": run.seed,
    }
