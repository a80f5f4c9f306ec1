"""Words of every script: what is found by what, and that English words are what they were."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.retrieval.bm25 import Bm25
from jade_graph.retrieval.corpus import build_corpus, open_corpus
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.retrieval.words import least_version, query_words, tokenize
from jade_graph.types import Passage

SCRIPTS = {
    "zh": ("玛尔什是一位出生在诺里奇的画家。", "玛尔什"),
    "zh, one character": ("龍宮是海底的宮殿。", "龍"),
    "ja": ("東京タワーは港区にある。", "タワー"),
    "ja, half width": ("ｶﾞﾗｽの塔", "ガラス"),
    "ko": ("마르시는 서울에서 태어났다.", "서울"),
    "th": ("กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "เมืองหลวง"),
    "km": ("រាជធានីភ្នំពេញស្ថិតនៅលើទន្លេ", "ភ្នំពេញ"),
    "hi": ("मार्श एक चित्रकार है", "मार्श"),
    "ta": ("மார்ஷ் ஒரு ஓவியர்", "ஓவியர்"),
    "ar, with marks": ("كِتَابٌ قَدِيمٌ", "كِتَابٌ"),
    "fa, joined": ("می\u200cخواهم بروم", "می\u200cخواهم"),
    "NFD": (unicodedata.normalize("NFD", "Zürich liegt am See"), "Zürich"),
    "asked in NFD": ("Zürich liegt am See", unicodedata.normalize("NFD", "ZÜRICH")),
    "full width": ("ＡＢＣ社の本社", "abc"),
    "tr": ("İstanbul bir şehirdir", "istanbul"),
    "soft hyphen": ("das Fluss\u00adufer", "Flussufer"),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_word_is_found_in_its_script(case: str) -> None:
    text, query = SCRIPTS[case]
    others = [other for name, (other, _) in SCRIPTS.items() if name.partition(",")[0] != case.partition(",")[0]][:3]
    index = Bm25.build(["An English text.", *others, text])
    assert index.search(query, 1)[0][0] == len(others) + 1


def test_what_is_not_in_a_text_is_not_found_by_its_characters() -> None:
    assert Bm25.build(["画家住在城里", "城市"]).search("里画", 5) == []


@given(st.text(alphabet=st.characters(max_codepoint=0x24F, categories=["L", "Nd", "P", "Z"]), max_size=60))
def test_latin_text_has_the_words_of_version_1(text: str) -> None:
    composed = unicodedata.normalize("NFKC", text)
    if composed == text and "\u00ad" not in text and "İ" not in text:
        assert tokenize([text]) == tokenize([text], version=1)
        assert least_version([text]) == 1


def test_an_english_index_is_the_same_as_before(tmp_path: Path) -> None:
    """The id was taken before there were versions of words; texts have quotes, dashes and accents of print."""
    world = [Passage("1", "It’s a naïve café — “open” since 1901… at 10 €.", "Café"), Passage("2", "Dune", "A book")]
    made = build_corpus(world, "w", tmp_path, "hash:16")
    assert (made.words, made.corpus_id) == (1, "37223908a6638c8d")
    (saved,) = (tmp_path / "corpora/w/bm25").glob("*/bm25.json")
    assert "words" not in json.loads(saved.read_text())


def test_another_version_of_words_is_another_corpus(tmp_path: Path) -> None:
    passages = [Passage("1", "玛尔什是一位画家。"), Passage("2", "An English text.")]
    made = build_corpus(passages, "w", tmp_path, "hash:16")
    assert made.words == 2
    for mode in ("bm25", "dense", "hybrid"):
        opened, memory = open_corpus("w", tmp_path, mode=mode), MemoryRetriever(passages, mode, "hash:16")
        assert opened.corpus_id == memory.corpus_id
        assert [p.id for p in opened.search_sync("玛尔什", 2)] == [p.id for p in memory.search_sync("玛尔什", 2)]
    assert open_corpus("w", tmp_path, mode="bm25").search_sync("玛尔什", 1)[0].id == "1"


def test_an_index_of_version_1_is_still_asked_in_its_own_words() -> None:
    assert query_words("Zu\u0308rich boats", version=1) == ["zu", "rich", "boat", "zürich"]
    assert query_words("two boats, two cats", version=1) == ["two", "boat", "two", "cat"]
