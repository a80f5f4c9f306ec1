"""The end of `jade demo`: a question about a few real pages, answered by `smol`.

Invariant: what is shown is a run that was made in this call; without the model the demo says how to add it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.backbones.named import SMOL, is_added, source

if TYPE_CHECKING:
    from jade_graph.cli.command import Cli
    from jade_graph.types import Run

PAGES = Path(__file__).parent.parent / "assets" / "lighthouses"
QUESTION, GOLD = "Who built the Bell Rock Lighthouse?", "Robert Stevenson"
CORPUS = "lighthouses"


def read_pages(cli: Cli) -> Run | None:
    """Index the pages, ask the question; None where `smol` is not there."""
    from jade_graph.assembly import open_backbone, open_named
    from jade_graph.cli.indexing import indexing
    from jade_graph.langchain.session import open_session
    from jade_graph.retrieval.corpus import build_corpus
    from jade_graph.retrieval.documents import read_documents

    data = cli.settings.data_path
    if not is_added(SMOL, data) and not is_added("smollm2", data):
        megabytes = source(SMOL).megabytes
        cli.out.log(f"5. left out: a question about real pages needs smol: jade models add smol ({megabytes} MB)")
        return None
    cli.out.log("5. a question about four pages of real text, answered by smol")
    with indexing(cli) as progress:
        build_corpus(read_documents(PAGES).documents, CORPUS, data, cli.settings.encoder, progress=progress)
    settings = replace(cli.settings, backbone=SMOL, corpus=CORPUS)
    config = replace(cli.config, settings=settings)
    session = open_session(
        config, preset="jade", backbone=open_backbone(settings), retriever=open_named(settings, CORPUS), follow=False
    )
    with session:
        return session.graph.run(QUESTION, seed=settings.seed)


def told(run: Run) -> dict[str, Any]:
    """What `jade demo --json` says of it."""
    return {
        "question": QUESTION, "gold": GOLD, "answer": run.answer, "run_id": run.id, "plan": run.plan,
        "seconds": round(run.wall_ms / 1000, 1), "backbone_version": run.backbone_version,
    }  # fmt: skip


def shown(run: Run) -> list[Any]:
    """The run as a tree, and how to ask about one's own pages."""
    from rich.text import Text

    from jade_graph.picture.terminal import run_tree

    return [
        Text(""),
        Text("A question about four pages of real text, by smol (135 M parameters):", style="bold"),
        run_tree(run, documents=False),
        Text(f"gold    {GOLD}", style="dim"),
        Text('Your own pages: jade index FOLDER --corpus mine, then jade ask "..." --corpus mine', style="dim"),
    ]


__all__ = ["read_pages", "shown", "told"]
