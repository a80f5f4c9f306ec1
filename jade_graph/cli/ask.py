"""`jade ask`: one question, answered over a corpus, shown as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.backbones.folders import BUNDLED
from jade_graph.cli.command import Cli, command, single
from jade_graph.cli.indexing import indexing
from jade_graph.cli.taught import warn_untaught
from jade_graph.errors import UsageError

if TYPE_CHECKING:
    from jade_graph.types import Run

app = single()


@command(app)
def ask(
    cli: Cli,
    question: Annotated[str, typer.Argument(help="The question.")],
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; made by jade index.")] = None,
    preset: Annotated[str | None, typer.Option(help="Method; jade presets list.")] = None,
    backbone: Annotated[str | None, typer.Option(help="tiny, a hub id, a folder, or openai:URL#MODEL.")] = None,
    plan: Annotated[str | None, typer.Option(help="Force this workflow, e.g. R,AG.")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print the answer alone.")] = False,
    record: Annotated[bool, typer.Option(help="Record the run.")] = True,
) -> None:
    """Answer a question and show how: plan, sub-questions, passages, answers, tokens, times."""
    from jade_graph.langchain.session import open_session

    for name, value in (("corpus", corpus), ("preset", preset), ("backbone", backbone)):
        cli.put(name, value)
    _must_read(cli, question)
    warn_untaught(cli)
    with indexing(cli) as progress:
        session = open_session(cli.config, record=record, progress=progress, follow=False)
    with session:
        run = session.graph.run(question, seed=cli.settings.seed, plan=plan)
    cli.out.result(as_json(run), lambda: run.answer if brief and run.status == "answered" else _tree(run))
    if run.status == "failed":
        raise typer.Exit(1)


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
            hint=f'jade ask "{question[:60]}" --corpus NAME --backbone Qwen/Qwen2.5-1.5B-Instruct '
            "(or a local folder, or openai:http://host/v1#model); for a microworld question: jade microworld show",
        )


def as_json(run: Run) -> dict[str, Any]:
    """A run as JSON, token ids and prompts left out (jade runs show --json has them)."""
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
