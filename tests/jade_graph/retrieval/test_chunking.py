"""Chunks lose nothing, stay in size and cut where a reader would."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.errors import UsageError
from jade_graph.retrieval.chunking import Chunking, Reading, chunk_text

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


UNBLANKED = {
    "th": "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทย" * 100,
    "zh": "玛尔什是一位画家，出生在诺里奇，后来住在城里。" * 200,
    "ja": "東京タワーは港区にある赤い塔です。高さは三百三十三メートル。" * 200,
    "km": "រាជធានីភ្នំពេញស្ថិតនៅលើទន្លេមេគង្គនិងទន្លេសាប" * 100,
    "mixed": "Der iPhone手机 kostet 500元。" * 300,
}


@pytest.mark.parametrize("script", UNBLANKED)
def test_scripts_without_blanks_are_cut_and_kept_as_they_are(script: str) -> None:
    text = UNBLANKED[script]
    chunks = [c.text for c in chunk_text(text, Chunking(40, 0))]
    assert "".join(squeezed(c) for c in chunks) == squeezed(text)
    assert len(chunks) >= len(text) / 200
    assert max(map(len, chunks)) <= 40 * 8
    if " " not in text:
        assert not any(" " in c for c in chunks)
    assert not any(unicodedata.combining(c[0]) or unicodedata.category(c[0]) in ("Mn", "Mc") for c in chunks)


def test_cuts_of_chinese_fall_after_sentences() -> None:
    chunks = chunk_text(UNBLANKED["zh"], Chunking(40, 0))
    assert {c.text[-1] for c in chunks} == {"。"}
    assert chunk_text("他说：“我们现在一起走吧。”然后他离开了城市。", Chunking(8, 0))[0].text[-2:] == "。”"


def test_danda_ends_a_sentence() -> None:
    text = "मार्श एक चित्रकार है। वह नॉर्विक में पैदा हुआ। उसे नाव पसंद है।"
    assert [c.text for c in chunk_text(text, Chunking(8, 0))] == [
        "मार्श एक चित्रकार है।",
        "वह नॉर्विक में पैदा हुआ।",
        "उसे नाव पसंद है।",
    ]


def letters(texts: Sequence[str]) -> list[int]:
    return [len(squeezed(t)) for t in texts]


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400) | TEXT, st.text(max_size=30), st.integers(2, 60))
def test_no_chunk_is_longer_than_the_encoder_reads(text: str, title: str, most: int) -> None:
    reading = Reading(most, letters)
    chunks = chunk_text(text, Chunking(20, 0), title=title, reading=reading)
    assert "".join(squeezed(c.text) for c in chunks) == squeezed(text)
    assert all(letters([c.text])[0] <= max(1, reading.left(title)) for c in chunks)


@settings(max_examples=40, deadline=None)
@given(TEXT, SIZES, st.integers(4, 60))
def test_an_overlap_stays_within_what_is_read(text: str, sizes: tuple[int, int], most: int) -> None:
    for chunk in chunk_text(text, Chunking(*sizes), reading=Reading(most, letters)):
        assert letters([chunk.text])[0] <= most


def test_a_document_that_the_encoder_reads_whole_is_cut_as_without_one() -> None:
    text = "The first one has six words. The second one has six words. The third one has six words."
    assert chunk_text(text, Chunking(13, 6), reading=Reading(100, letters)) == chunk_text(text, Chunking(13, 6))


def test_lines_of_other_systems_make_paragraphs() -> None:
    text = "one two three four five six\r\n\r\nseven eight nine ten"
    assert [c.text for c in chunk_text(text, Chunking(12, 4))] == [
        "one two three four five six",
        "seven eight nine ten",
    ]
    assert [c.headings for c in chunk_text("# A\r\n\r\ntext\r\n## B\r\nmore", markdown=True)] == [("A",), ("A", "B")]
