"""Texts to the words that they are searched by, in any script.

Invariant: what English and other Latin text in composed form gives is what version 1 gave. Beyond it version 2 keeps
combining marks in their words, brings equal characters to one form (NFKC), and takes runs of scripts that are written
without blanks apart into pairs of characters (a single character finds what it stands in, too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any
from unicodedata import normalize

import regex

LATEST = 2
"""The version of what this module makes of a text; an index says which one it was made with."""

# Letters, digits and `_`, as `\\w` of version 1; marks belong to what they stand on.
_WORD = regex.compile(r"[\p{L}\p{N}\p{M}_\u00ad\u200c\u200d]+")
_UNSEEN = regex.compile(r"[\u00ad\u200c\u200d]+")

# Hangul has blanks, but between phrases rather than words: particles are part of the run.
_CLOSE = "".join(
    rf"\p{{Script={name}}}"
    for name in (
        *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Hangul", "Thai", "Lao", "Khmer", "Myanmar"),
        *("Tai_Tham", "Tai_Le", "New_Tai_Lue", "Tai_Viet", "Javanese", "Balinese"),
    )
)
_CLOSE_RUN = regex.compile(rf"[{_CLOSE}](?:[{_CLOSE}]|[\p{{M}}ーｰ々〆])*")
_CHARACTER = regex.compile(r"\X")


def tokenize(
    texts: Sequence[str], language: str = "english", *, version: int = LATEST, query: bool = False
) -> list[list[str]]:
    """Lower-cased words of two letters or more, stop words left out, stemmed; a list of words per text.

    Args:
        version: 1 or 2, see `LATEST`.
        query: of a run of characters without blanks the pairs alone, unless it is a single character.
    """
    import bm25s

    options: dict[str, Any] = {}
    given = [whole(text) for text in texts]
    if version > 1:
        given = [" ".join(_words(text, query=query)) for text in given]
        options["token_pattern"] = r"\S+"
    rows: list[list[str]] = bm25s.tokenize(
        given,
        stopwords=language,
        stemmer=_stemmer(language),
        return_ids=False,
        show_progress=False,
        allow_empty=False,
        **options,
    )
    return [[token for token in row if token] for row in rows]  # a text without words comes as [""]


def least_version(texts: Sequence[str], language: str = "english") -> int:
    """The least version that makes of these texts the words that the latest one makes: an index of them is the same."""
    odd = [text for text in texts if not text.isascii()]
    return 1 if tokenize(odd, language, version=1) == tokenize(odd, language) else LATEST


def query_words(query: str, language: str = "english", *, version: int = LATEST) -> list[str]:
    """What a query is looked up by in an index that was made with this version.

    Version 1 stands for itself and for texts that are the same in both: what only version 2 finds comes after.
    """
    latest = tokenize([query], language, query=True)[0]
    if version == LATEST:
        return latest
    first = tokenize([query], language, version=version)[0]
    return first + [word for word in latest if word not in first]


def _words(text: str, *, query: bool) -> Iterator[str]:
    lowered = normalize("NFC", text).lower().replace("i\u0307", "i")  # what Python makes of a Turkish capital I
    for run in _WORD.findall(lowered):
        word = run if run.isascii() else _folded(_UNSEEN.sub("", run))
        start = 0
        for close in () if word.isascii() else _CLOSE_RUN.finditer(word):
            yield from _long_enough(word[start : close.start()])
            yield from _pairs(close[0], query=query)
            start = close.end()
        yield from _long_enough(word[start:])


def _folded(word: str) -> str:
    folded = normalize("NFKC", word)
    return folded if _WORD.fullmatch(folded) else word  # fractions and a few others fall apart


def _long_enough(word: str) -> Iterator[str]:
    if len(word) > 1:
        yield word


def _pairs(run: str, *, query: bool) -> Iterator[str]:
    characters = _CHARACTER.findall(run)
    if len(characters) == 1 or not query:
        yield from characters
    for first, second in pairwise(characters):
        yield first + second


@cache
def _stemmer(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(language)


def whole(text: str) -> str:
    """The text as Unicode: halves of pairs (lone surrogates), which no encoding holds, become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
