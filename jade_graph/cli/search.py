"""`jade search`: what a corpus brings for a query, and why it stands where it does."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jade_graph.cli.command import Cli, command, single

app = single()


@command(app)
def search(
    cli: Cli,
    corpus: Annotated[str, typer.Argument(help="A corpus; jade corpora list.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int | None, typer.Option("--top", "-k", help="Passages. [default: the setting k]")] = None,
    mode: Annotated[str | None, typer.Option(help="hybrid, dense or bm25. [default: the setting retrieval]")] = None,
    rerank: Annotated[
        int | None,
        typer.Option(min=0, help="Rank so many of the first again by a listwise prompt. [default: the setting rerank]"),
    ] = None,
    width: Annotated[int, typer.Option(min=0, help="Show so many characters of each text; 0: all.")] = 160,
) -> None:
    """Search a corpus; show each passage's rank by words (BM25), by meaning (vectors) and fused."""
    from jade_graph.cli.console import table
    from jade_graph.retrieval.corpus import open_corpus

    cli.put("k", k)
    cli.put("retrieval", mode)
    cli.put("rerank", rerank)
    s = cli.settings
    retriever = open_corpus(corpus, s.data_path, mode=s.retrieval, rerank=s.rerank)
    try:
        ranked = retriever.explain(query, cli.settings.k)
    finally:
        retriever.close()
    value = {
        "corpus": corpus,
        "corpus_id": retriever.corpus_id,
        "mode": retriever.mode,
        "rerank": retriever.reranked,
        "query": query,
        "results": [
            {
                "rank": r.rank,
                "id": r.passage.id,
                "title": r.passage.title,
                "text": r.passage.text,
                "score": r.passage.score,
                "bm25_rank": r.bm25_rank,
                "bm25_score": r.bm25_score,
                "dense_rank": r.dense_rank,
                "dense_score": r.dense_score,
                "first_rank": r.first_rank,
            }
            for r in ranked
        ],
    }

    def show() -> Any:
        again = bool(retriever.reranked)
        columns = ("rank", *(("before",) if again else ()), "words", "meaning", "passage")
        return table(columns, [_row(r, width, again) for r in ranked], right="rank before words meaning")

    cli.out.result(value, show if ranked else lambda: "No passage has any of these words.")


def _row(ranked: Any, width: int, again: bool) -> tuple[Any, ...]:
    from rich.text import Text

    flat = " ".join(ranked.passage.text.split())
    shown = flat if not width or len(flat) <= width else flat[: width - 1] + "…"
    title = f"{ranked.passage.title}\n" if ranked.passage.title else ""
    places = (ranked.rank, *((ranked.first_rank,) if again else ()), ranked.bm25_rank, ranked.dense_rank)
    return *places, Text.assemble((title, "bold"), shown)
