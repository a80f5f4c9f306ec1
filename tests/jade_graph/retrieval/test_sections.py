"""Markdown is read as CommonMark says: what is a heading, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.retrieval.sections import first_title, headings, sections


def told(text: str) -> list[tuple[int, str]]:
    return [(h.level, h.title) for h in headings(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("# One #\n\n## Two ##\n\n#not\n\n####### seven", [(1, "One"), (2, "Two")]),
        ("Title\n=====\n\nPart\n----\n\ntext", [(1, "Title"), (2, "Part")]),
        ("````md\n```\n# no\n```\n# no\n````\n# Yes", [(1, "Yes")]),
        ("~~~\n```\n# no\n~~~\n# Yes", [(1, "Yes")]),
        ("```sh\n# comment\n```\n", []),
        ("    # indented code\n\n  # Yes", [(1, "Yes")]),
        ("```\n# never closed\n", []),
        ("<!--\n# no\n-->\n\n# Yes", [(1, "Yes")]),
        ("<pre>\n\n# no\n</pre>\n\n# Yes", [(1, "Yes")]),
        ("> # quoted\n\n- # in a list\n\n# Yes", [(1, "Yes")]),
        ("---\ntitle: X\n# comment\n---\n# Yes", [(1, "Yes")]),
        ("text\n\n---\n\nmore", []),
        ("A " + "long paragraph " * 30 + "\n---\n", []),
    ],
)
def test_headings_are_commonmarks(text: str, wanted: list[tuple[int, str]]) -> None:
    assert told(text) == wanted
    assert told(text.replace("\n", "\r\n").replace("\r\n", "\n")) == wanted


def test_a_title_is_no_comment_of_a_code_block() -> None:
    assert first_title("```sh\n# install it\n```\n\nGuide\n=====\n") == "Guide"
    assert first_title("```sh\r\n# install it\r\n```\r\n\r\n# Guide\r\n") == "Guide"
    assert first_title("## only second\n") == ""
    assert first_title("---\ntitle: 'Front: matter'\ntags: [x]\n---\n\n# Heading\n") == "Front: matter"
    assert first_title('---\r\ntitle: "It\'s"\r\n---\r\nText\r\n') == "It's"
    assert first_title("---\ntitle:\n---\n\n# Heading\n") == "Heading"
    assert first_title("# Heading\n\n---\ntitle: no front\n---\n") == "Heading"


def test_lines_under_headings_stay_as_they_were() -> None:
    text = "intro\n\nTitle\n=====\n\n````\n```\n# no\n```\n````\nPart\n----\n1. a\n   > b\n"
    assert sections(text) == [
        ((), "intro"),
        (("Title",), "````\n```\n# no\n```\n````"),
        (("Title", "Part"), "1. a\n   > b"),
    ]


@given(st.text(alphabet="#=-~`>ab <!\n\r\t", max_size=120))
def test_every_word_is_in_a_title_or_a_body(text: str) -> None:
    kept = " ".join(" ".join([*titles, body]) for titles, body in sections(text))
    assert words(text) <= words(kept)


def words(text: str) -> set[str]:
    return set(text.translate(dict.fromkeys(map(ord, "#=-"), " ")).split())
