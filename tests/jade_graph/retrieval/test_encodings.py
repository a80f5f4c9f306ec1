"""Bytes become text as browsers read them; a fault costs a character, and a guess is said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.retrieval.encodings import NotTextError, decode


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-32", "cp1252"])
def test_encodings(encoding: str) -> None:
    text = "Café “naïve” – 10 €"
    data = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    found = decode(data)
    assert found.text == text
    assert bool(found.note) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("label", "encoding", "text"),
    [
        ("iso-8859-2", "iso-8859-2", "Łódź"),
        ("nonsense", "utf-8", "Łódź"),
        ("gb2312", "gb18030", "朱镕基是总理"),  # not in GB 2312 itself
        ("shift_jis", "cp932", "①髙島屋"),
        ("euc-kr", "cp949", "똠방각하"),
        ("iso-8859-1", "cp1252", "“smart” – 10 €"),
        ("latin1", "utf-8", "Zürich and Łódź"),
        ("UTF-16", "utf-8", "Zürich"),
        ("hex", "utf-8", "Zürich"),
        ("idna", "utf-8", "Zürich"),
        ("undefined", "cp1252", "Zürich, naïve"),
        ("unicode_escape", "utf-8", "a \\n Zürich"),
    ],
)
def test_a_label_means_what_it_means_in_browsers(label: str, encoding: str, text: str) -> None:
    for page in (f'<meta charset="{label}"><p>{text}', f'<?xml version="1.0" encoding="{label}"?><p>{text}'):
        assert decode(page.encode(encoding), markup=True).text == page


def test_a_stray_byte_costs_a_character() -> None:
    text = "Zürich liegt am See, Łódź nicht. " * 20
    data = text.encode()
    for at in (0, 333, len(data)):
        found = decode(data[:at] + b"\xff" + data[at:])
        assert found.encoding == "utf-8"
        assert found.text.count("\ufffd") <= 2
        assert found.text.count("Zürich") >= 19
        assert "1 places" in found.note or "2 places" in found.note


LEGACY = {
    "gb18030": "玛尔什是一位出生在诺里奇的画家。他喜欢船。",
    "big5": "瑪爾什是一位出生在諾里奇的畫家。他喜歡船和河流。",
    "cp932": "東京タワーは港区にある赤い塔です。",
    "euc_jp": "東京タワーは港区にある赤い塔です。高さは三百三十三メートル。",
    "iso2022_jp": "東京タワーは港区にある赤い塔です。",
    "cp949": "마르시는 서울에서 태어났다. 그는 화가이다.",
    "cp1251": "Марш был художником, родившимся в Норвиче. Он любит лодки.",
    "koi8_r": "Марш был художником, родившимся в Норвиче. Он любит лодки.",
    "iso8859_2": "Zażółć gęślą jaźń. Łódź jest miastem w środkowej Polsce, ma wiele fabryk.",
    "cp1253": "Ο Μαρς ήταν ζωγράφος που γεννήθηκε στο Νόργουικ.",
    "cp1256": "كان مارش رساما ولد في نورويتش وهو يحب القوارب",
    "cp874": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "cp1252": "Les élèves étaient très fatigués après l’été, à côté de la forêt.",
    "utf-16-le": "No mark in front of this text, Zürich.",
}


@pytest.mark.parametrize("encoding", LEGACY)
def test_unlabelled_text_is_guessed_and_the_guess_is_said(encoding: str) -> None:
    found = decode(LEGACY[encoding].encode(encoding))
    assert found.text == LEGACY[encoding]
    assert "guessed" in found.note


def test_binary_is_no_text() -> None:
    with pytest.raises(NotTextError):
        decode(b"\x00\x01\x02" * 50)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200).filter(lambda b: b"\x00" not in b), st.booleans())
def test_any_bytes_without_nul_become_text(data: bytes, markup: bool) -> None:
    assert isinstance(decode(data, markup=markup).text, str)
