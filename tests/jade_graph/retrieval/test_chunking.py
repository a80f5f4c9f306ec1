"""Chunks lose nothing, stay in size and cut where a reader would."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import UsageError
from jade_graph.retrieval.chunking import Chunking, chunk_text

SENTENCE = st.lists(st.sampled_from(["one", "two", "Three", "Dr.", "4.", "café", "a.b"]), min_size=1, max_size=30).map(
    " ".join
)
TEXT = st.lists(
    st.sampled_from([". ", "! ", "\n\n", "\n", " ", "? "]).flatmap(lambda s: SENTENCE.map(lambda t: t + s))
).map("".join)
SIZES = st.integers(8, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(st.text(max_size=400) | TEXT, st.integers(8, 40))
def test_without_overlap_the_chunks_are_the_text(text: str, size: int) -> None:
    chunks = chunk_text(text, Chunking(size, 0))
    assert "".join(squeezed(c.text) for c in chunks) == squeezed(text)


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from([". ", "!\n", "\n\n", "? ", "。"])), max_size=20), SIZES)
def test_chunks_are_runs_of_words_that_overlap_a_little(
    sentences: list[tuple[int, str]], sizes: tuple[int, int]
) -> None:
    size, overlap = sizes
    number = iter(range(10_000))
    text = "".join(" ".join(f"W{next(number)}" for _ in range(n)) + end for n, end in sentences)
    done = 0
    for chunk in chunk_text(text, Chunking(size, overlap)):
        words = [int(w) for w in re.findall(r"W(\d+)", chunk.text)]
        assert 0 < len(chunk.text.split()) <= size
        assert words == list(range(words[0], words[-1] + 1))
        assert done - overlap <= words[0] <= done < words[-1] + 1
        done = words[-1] + 1
    assert done == sum(n for n, _ in sentences)


@given(st.text(alphabet="# ab\n.`", max_size=200))
def test_markdown_keeps_every_word(text: str) -> None:
    kept = " ".join(" ".join([*c.headings, c.text]) for c in chunk_text(text, Chunking(8, 0), markdown=True))
    wanted = {word for word in text.replace("#", " ").split() if word.strip("`")}
    assert wanted <= set(kept.replace("#", " ").split())


def test_cuts_at_sentences_and_repeats_whole_ones() -> None:
    text = "The first one has six words. The second one has six words. The third one has six words."
    chunks = [c.text for c in chunk_text(text, Chunking(13, 6))]
    assert chunks == [
        "The first one has six words. The second one has six words.",
        "The second one has six words. The third one has six words.",
    ]


def test_abbreviations_and_initials_do_not_end_a_sentence() -> None:
    text = "He met Dr. Jones and J. R. Smith there at noon. Then they all went home by the late train."
    assert [c.text for c in chunk_text(text, Chunking(12, 0))] == [
        "He met Dr. Jones and J. R. Smith there at noon.",
        "Then they all went home by the late train.",
    ]


def test_a_chunk_that_is_half_full_ends_at_the_paragraph() -> None:
    text = "one two three four five six\n\nseven eight nine ten"
    assert [c.text for c in chunk_text(text, Chunking(12, 4))] == [
        "one two three four five six",
        "seven eight nine ten",
    ]
    assert [c.text for c in chunk_text(text, Chunking(16, 4))] == [
        "one two three four five six\n\nseven eight nine ten"
    ]


def test_a_sentence_longer_than_a_chunk_is_cut_and_so_is_a_word() -> None:
    chunks = chunk_text("word " * 25, Chunking(10, 5))
    assert [len(c.text.split()) for c in chunks] == [10, 10, 5]
    blob = chunk_text("x" * 5000, Chunking(8, 0))
    assert "".join(squeezed(c.text) for c in blob) == "x" * 5000
    assert max(len(c.text) for c in blob) <= 8 * 401


def test_headings_are_the_path_to_a_chunk() -> None:
    text = "intro\n# Guide\n## Install #\nRun it.\n### Deep\nMore.\n## Use\n```\n# no heading\n```\n# Other\nEnd."
    assert [(c.headings, c.text) for c in chunk_text(text, markdown=True)] == [
        ((), "intro"),
        (("Guide", "Install"), "Run it."),
        (("Guide", "Install", "Deep"), "More."),
        (("Guide", "Use"), "``` # no heading ```"),
        (("Other",), "End."),
    ]


def test_a_heading_with_nothing_under_it_is_text() -> None:
    text = "# Guide\n## Empty\n## Full\nText.\n# Last"
    assert [(c.headings, c.text) for c in chunk_text(text, markdown=True)] == [
        (("Guide",), "Empty"),
        (("Guide", "Full"), "Text."),
        ((), "Last"),
    ]


def test_plain_text_has_no_headings() -> None:
    assert chunk_text("# not a heading\ntext")[0].headings == ()
    assert chunk_text("") == chunk_text(" \n\n ") == []


@pytest.mark.parametrize(("size", "overlap"), [(7, 0), (10, 6), (10, -1)])
def test_bad_sizes_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(UsageError) as caught:
        Chunking(size, overlap)
    assert caught.value.error_code == "BAD_CHUNKING"
