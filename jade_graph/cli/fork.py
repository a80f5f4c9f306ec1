"""`jade fork`: a recorded run taken up again from one of its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single
from jade_graph.errors import StoreError, UsageError

if TYPE_CHECKING:
    from jade_graph.types import Run

app = single()


@command(app)
def fork(
    cli: Cli,
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it; last: the newest.")],
    at: Annotated[str, typer.Option(help="The action: its number, or QUESTION:ROLE as in 0.2:QR.")],
    plan: Annotated[str | None, typer.Option(help="Instead of a planner's: R,AG ..")] = None,
    query: Annotated[str | None, typer.Option(help="Instead of a rewriter's.")] = None,
    documents: Annotated[
        str | None, typer.Option(metavar="0,2", help="Instead of a selector's; of a search: those to keep.")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Instead of an answerer's or a summarizer's.")] = None,
    question: Annotated[list[str] | None, typer.Option(help="Instead of a decomposer's; may be repeated.")] = None,
    text: Annotated[str | None, typer.Option(help="What the role writes, exactly; it may be illegal.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the actions from there on; default: the run's.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Of the actions from there on.")] = None,
    backbone: Annotated[str | None, typer.Option(help="tiny, a hub id, a folder, or openai:URL#MODEL.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to search; default: the run's, where it is here.")] = None,
) -> None:
    """Replay a recorded run up to an action, do something else there, and run on live.

    What came before is taken from the record, token for token. Without an edit the model is asked anew, which with
    another seed, temperature or model is another draw. The new run names its parent.
    """
    from jade_graph.cli.indexing import indexing
    from jade_graph.langchain.session import open_session
    from jade_graph.workflow.replay import first_difference

    found = recorded(cli, run)
    cli.put("backbone", backbone)
    cli.put("corpus", corpus or _corpus_of(cli, found))
    edit = {"plan": plan, "query": query, "answer": answer, "text": text, "questions": question or None}
    options: dict[str, Any] = {name: value for name, value in edit.items() if value is not None}
    if documents is not None:
        options["documents"] = _places(documents)
    if temperature is not None:
        options["sampling"] = {"temperature": temperature}
    with indexing(cli) as progress:
        session = open_session(cli.config, preset=found.preset, progress=progress)
    with session:
        new = session.graph.fork(found, at=at, seed=seed, **options)
    pair = first_difference(found, new)
    value = {
        "run_id": new.id,
        "parent": found.id,
        "status": new.status,
        "answer": new.answer,
        "error": new.error,
        "error_message": new.error_message,
        "fork": new.metadata["fork"],
        "replayed": sum("replayed" in t.sampling for t in new.transitions),
        "first_difference": [
            None if t is None else {"seq": t.seq, "role": t.role, "action": t.action_text} for t in pair
        ],
    }
    cli.out.result(value, lambda: _show(found, new))
    if new.status == "failed":
        raise typer.Exit(1)


def recorded(cli: Cli, wanted: str) -> Run:
    """A run of the store. Raises `StoreError` RUN_NOT_FOUND, RUN_AMBIGUOUS."""
    from jade_graph.runs.store import RunStore

    where = cli.settings.store_url
    missing = StoreError("no run is recorded yet.", code="RUN_NOT_FOUND", hint='jade ask "a question"')
    if not isinstance(where, str) and not where.exists():  # to look must not make a store
        raise missing
    with RunStore(where) as store:
        if wanted == "last":
            newest = store.list_runs(limit=1)
            if not newest:
                raise missing
            wanted = str(newest[0]["id"])
        return store.get(wanted)


def _corpus_of(cli: Cli, run: Run) -> str | None:
    from jade_graph.retrieval.manifest import list_corpora

    found = list_corpora(cli.settings.data_path)
    return next((m.name for m in found if run.corpus_id and m.corpus_id == run.corpus_id), None)


def _places(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"{text!r} is no list of documents.", code="FORK_EDIT", hint="--documents 0,2") from None


def _show(parent: Run, new: Run) -> list[Any]:
    from rich.text import Text

    from jade_graph.picture.terminal import run_tree

    head = Text(f"forked from {parent.id[:12]} at action {new.metadata['fork']['at']}", style="dim")
    return [head, run_tree(new)]
