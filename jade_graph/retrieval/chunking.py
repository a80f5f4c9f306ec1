"""Cutting a text into passages.

Invariant: pure; every word of the text stands in some chunk, in order, and no chunk is longer than asked, nor than the
encoder reads. Cuts fall between paragraphs or sentences, and inside a sentence only when it is longer than a whole
chunk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import regex

from jade_graph.errors import UsageError
from jade_graph.retrieval.sections import sections, unix_lines

_PARAGRAPH = re.compile(r"\n[ \t]*\n+")
_SENTENCE = re.compile(
    r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-ZÀ-ÞА-Я0-9])"
    r"|(?<=[。！？｡])(?![。！？｡」』”’）])\s*|(?<=[。！？｡][」』”’）])\s*|(?<=[।॥။។።؟۔])\s*"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|no|vol|fig|inc|ltd|co|gen|col|lt|e\.g|i\.e)|\b[a-z])\.\Z", re.IGNORECASE
)
_LONGEST_WORD = 400  # characters; a run without blanks beyond that (base64, say) is cut

# Scripts without blanks between words, and how many of their characters make a word, about.
_DENSE = r"[ーｰ々〆\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Bopomofo}\p{Script=Yi}]"
_LOOSE = (
    r"[\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}\p{Script=Javanese}"
    r"\p{Script=Balinese}\p{Script=Tai_Tham}\p{Script=Tai_Le}\p{Script=New_Tai_Lue}\p{Script=Tai_Viet}]"
)
_UNBLANKED = regex.compile(rf"{_DENSE}|{_LOOSE}")
# A word of such a run: two ideographs, three clusters of the others; what stands between is part of it.
_PART = regex.compile(
    rf"(?:(?:{_DENSE}\p{{M}}*){{1,2}}|(?:{_LOOSE}\p{{M}}*){{1,3}}|(?:(?!{_DENSE}|{_LOOSE})\X)+)[、，；：,;ๆฯ]*"
)
_CLAUSE = "、，；：,;ๆฯ"


@dataclass(frozen=True, slots=True)
class Chunking:
    """Sizes in words. The default fills MiniLM's 256 tokens without being cut (about 1.3 tokens a word).

    Of scripts without blanks two ideographs, or three syllables of Thai and its like, count as a word.
    Where a cut falls inside a paragraph, at most `overlap` words, in whole sentences, are repeated from the end of one
    chunk at the start of the next.
    """

    size: int = 160
    overlap: int = 32

    def __post_init__(self) -> None:
        if self.size < 8 or not 0 <= self.overlap <= self.size // 2:
            raise UsageError(
                f"chunks of {self.size} words with an overlap of {self.overlap}: at least 8 words, and an overlap of "
                "at most half of that.",
                code="BAD_CHUNKING",
            )

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an encoder reads: at most so many tokens of a passage; the rest would never be found by its meaning.

    Args:
        tokens: of a text with its title.
        count: the tokens of each of some texts.
    """

    tokens: int
    count: Callable[[Sequence[str]], Sequence[int]]

    def left(self, title: str) -> int:
        """Tokens that a title leaves for the text under it: half of all at least."""
        return max(self.tokens // 2, self.tokens - self.count([title])[0]) if title else self.tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text and the Markdown headings above it, outermost first."""

    text: str
    headings: tuple[str, ...] = ()


class _Piece(NamedTuple):
    """A sentence or a part of one: what stands before it in its chunk, its words, its tokens (0: not counted)."""

    text: str
    before: str
    words: int
    tokens: int


def chunk_text(
    text: str,
    chunking: Chunking | None = None,
    *,
    markdown: bool = False,
    title: str = "",
    reading: Reading | None = None,
) -> list[Chunk]:
    """Cut a text; with `markdown`, every heading starts a new chunk and is kept as the path of titles above it.

    Args:
        title: what will stand above every chunk, beside the headings.
        reading: no chunk has more tokens than this leaves under its titles.

    Returns:
        Chunks in the order of the text, none empty; an empty text gives none.
    """
    chunking = chunking or Chunking()
    found: list[Chunk] = []
    for headings, body in sections(text) if markdown else [((), unix_lines(text))]:
        most = reading.left(titled(title, headings)) if reading is not None else 0
        pieces = _sentences(body, chunking.size)
        if reading is not None:
            pieces = _readable(list(pieces), most, reading.count)
        found += [Chunk(piece, headings) for piece in _pack(pieces, chunking, most)]
    return found


def titled(title: str, headings: Sequence[str]) -> str:
    """The title of a chunk: a document's and the headings on the way, each once."""
    return " > ".join(dict.fromkeys(t for t in (title, *headings) if t))


def _pack(pieces: Iterator[_Piece], chunking: Chunking, most: int) -> Iterator[str]:
    """Greedy: sentences are added while they fit; a chunk that is at least half full ends early at a paragraph."""
    held: list[_Piece] = []
    words = tokens = fresh = 0
    for piece in pieces:
        early = piece.before == "\n\n" and 2 * words >= chunking.size and fresh
        full = words + piece.words > chunking.size or (most and tokens + piece.tokens > most)
        if held and (full or early):
            if fresh:
                yield _joined(held)
            room = min(chunking.overlap, chunking.size - piece.words)
            held = _tail(held, room, most - piece.tokens) if not early else []
            words, tokens = sum(p.words for p in held), sum(p.tokens for p in held)
            fresh = 0
        held.append(piece)
        words += piece.words
        tokens += piece.tokens
        fresh += 1
    if fresh:
        yield _joined(held)


def _joined(held: list[_Piece]) -> str:
    return "".join([held[0].text, *(part for piece in held[1:] for part in (piece.before, piece.text))]).strip()


def _tail(held: list[_Piece], words: int, tokens: int) -> list[_Piece]:
    kept: list[_Piece] = []
    for piece in reversed(held):
        words, tokens = words - piece.words, tokens - piece.tokens
        if words < 0 or (piece.tokens and tokens < 0):
            break
        kept.insert(0, piece)
    return kept


def _sentences(text: str, size: int) -> Iterator[_Piece]:
    """Sentences in order, none longer than `size` words."""
    for paragraph in _PARAGRAPH.split(text):
        before = "\n\n"
        for sentence in _split_sentences(paragraph):
            words = _words(sentence)
            while words:
                end = _end(words, size)
                yield _Piece(_text(words[:end]), before, end, 0)
                words = words[end:]
                before = words[0][0] if words else ""
            if sentence[-1:].isspace():
                before = " "


def _readable(pieces: list[_Piece], most: int, count: Callable[[Sequence[str]], Sequence[int]]) -> Iterator[_Piece]:
    """The pieces with their tokens, those of too many in halves."""
    for piece, tokens in zip(pieces, count([piece.text for piece in pieces]), strict=True):
        if tokens <= most or len(piece.text) < 2:
            yield piece._replace(tokens=tokens)
            continue
        words = _words(piece.text)
        if len(words) > 1:
            half = _end(words, (len(words) + 1) // 2)
            parts = [
                (_text(words[:half]), piece.before, half),
                (_text(words[half:]), words[half][0], len(words) - half),
            ]
        else:
            half = len(piece.text) // 2
            parts = [(piece.text[:half], piece.before, 1), (piece.text[half:], "", 1)]
        yield from _readable([_Piece(*part, 0) for part in parts], most, count)


def _split_sentences(paragraph: str) -> Iterator[str]:
    """With the blanks that follow a sentence at its end."""
    start = 0
    for boundary in _SENTENCE.finditer(paragraph):
        if boundary.end() > start and not _ABBREVIATION.search(paragraph, start, boundary.start()):
            yield paragraph[start : boundary.end()]
            start = boundary.end()
    yield paragraph[start:]


def _words(text: str) -> list[tuple[str, str]]:
    """(what stands before it, the word), for every word of a sentence."""
    return [(before, part) for word in text.split() for before, part in _parts(word)]


def _parts(word: str) -> Iterator[tuple[str, str]]:
    if _UNBLANKED.search(word):
        before = " "
        for part in _PART.findall(word):
            for start in range(0, len(part), _LONGEST_WORD):
                yield before, part[start : start + _LONGEST_WORD]
                before = ""
        return
    for start in range(0, len(word), _LONGEST_WORD):
        yield " ", word[start : start + _LONGEST_WORD]


def _text(words: list[tuple[str, str]]) -> str:
    return "".join([words[0][1], *(part for pair in words[1:] for part in pair)])


def _end(words: list[tuple[str, str]], size: int) -> int:
    """Where to cut: after `size` words, or before, where a run without blanks has one or a clause ends."""
    if len(words) <= size or words[size][0]:
        return min(size, len(words))
    for end in range(size, size - size // 3, -1):
        if words[end][0] or words[end - 1][1][-1] in _CLAUSE:
            return end
    return size
