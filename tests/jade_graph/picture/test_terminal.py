"""A run as a tree: everything that happened is on it, and text stays text."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.picture.terminal import run_svg, run_tree
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.types import Limits, Passage, Run


def shown(run: Run, **options: Any) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(run_tree(run, **options))
    return console.export_text()


def test_the_tree_names_plans_answers_documents_and_fallbacks(scripted: Any, passages: Any) -> None:
    backbone = scripted(
        PL=lambda a: f"<workflow>{'QDS' if a.view.level == 'root' else 'QR,R,DS,AG'}</workflow>", QR="no tags"
    )
    text = shown(JadeGraph(backbone, retriever=passages).run("When was the maker of X born?"))
    for part in ("QDS", "0.2 when was Ann Lee born?", "→ Ann Lee", "NO_TAG → fallback", "keeps Document0",
                 "5 passages for no tags", "Document4 passage 4", "answer  1950", "backbone scripted"):  # fmt: skip
        assert part in text, part


def test_a_failed_run_says_why(scripted: Any, passages: Any) -> None:
    run = JadeGraph(scripted(), retriever=passages, limits=Limits(tokens=5)).run("Q?")
    text = shown(run)
    assert "failed" in text
    assert "LIMIT_TOKENS: " in text
    assert "try  Raise --set limits.tokens=60000" in " ".join(text.split(" "))


def test_markup_in_texts_has_no_effect(scripted: Any, passages: Any) -> None:
    run = JadeGraph(scripted(AG="<answer>[bold]x[/bold] [link=http://a]y[/]</answer>"), retriever=passages).run(
        "[red]Q?"
    )
    text = shown(run)
    assert "[red]Q?" in text
    assert "[bold]x[/bold] [link=http://a]y[/]" in text


def test_the_picture_is_svg(scripted: Any, passages: Any) -> None:
    picture = run_svg(JadeGraph(scripted(), retriever=passages).run("Q <script>?"))
    assert picture.startswith("<svg")
    assert "<script>" not in picture
    assert "url(" not in picture.replace("url(#", "")  # nothing is fetched


def test_a_picture_is_xml_whatever_the_texts_hold(scripted: Any) -> None:
    from xml.etree import ElementTree

    passages = MemoryRetriever([Passage("1", "a \x1b[2J boat\x00", "T\x07")])
    run = JadeGraph(scripted(), retriever=passages).run("Q \x1b]0;x\x07 \x0b boat \ufffe?")
    for documents in (True, False):
        ElementTree.fromstring(run_svg(run, documents=documents))
