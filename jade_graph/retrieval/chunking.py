"""Cutting a text into passages.

Invariant: pure; every word of the text stands in some chunk, in order, and no chunk is longer than asked. Cuts fall
between paragraphs or sentences, and inside a sentence only when it is longer than a whole chunk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from jade_graph.errors import UsageError

_PARAGRAPH = re.compile(r"\n[ \t]*\n+")
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-ZÀ-ÞА-Я0-9])|(?<=[。！？])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|no|vol|fig|inc|ltd|co|gen|col|lt|e\.g|i\.e)|\b[a-z])\.\Z", re.IGNORECASE
)
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*?)[ \t]*#*$")
_FENCE = re.compile(r"^[ \t]*(```|~~~)")
_LONGEST_WORD = 400  # characters; a run without blanks beyond that (base64, some scripts) is cut


@dataclass(frozen=True, slots=True)
class Chunking:
    """Sizes in words. The default fills MiniLM's 256 tokens without being cut (about 1.3 tokens a word).

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
class Chunk:
    """A piece of a text and the Markdown headings above it, outermost first."""

    text: str
    headings: tuple[str, ...] = ()


def chunk_text(text: str, chunking: Chunking | None = None, *, markdown: bool = False) -> list[Chunk]:
    """Cut a text; with `markdown`, every heading starts a new chunk and is kept as the path of titles above it.

    Returns:
        Chunks in the order of the text, none empty; an empty text gives none.
    """
    chunking = chunking or Chunking()
    sections = _sections(text) if markdown else [((), text)]
    return [Chunk(piece, headings) for headings, body in sections for piece in _pack(body, chunking)]


def _sections(text: str) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[int, tuple[str, ...], list[str]]] = [(0, (), [])]
    path: list[tuple[int, str]] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line)
        if heading is None:
            found[-1][2].append(line)
            continue
        level, title = len(heading[1]), heading[2].strip()
        path = [(above, name) for above, name in path if above < level] + [(level, title)]
        found.append((level, tuple(name for _, name in path), []))
    sections = []
    for i, (level, titles, lines) in enumerate(found):
        body = "\n".join(lines).strip()
        parent = i + 1 < len(found) and found[i + 1][0] > level  # then the titles live on in what is under it
        if body:
            sections.append((titles, body))
        elif titles and titles[-1] and not parent:
            sections.append((titles[:-1], titles[-1]))
    return sections


def _pack(text: str, chunking: Chunking) -> Iterator[str]:
    """Greedy: sentences are added while they fit; a chunk that is at least half full ends early at a paragraph."""
    held: list[tuple[str, int]] = []
    words = fresh = 0
    for sentence, count, new_paragraph in _sentences(text, chunking.size):
        early = new_paragraph and 2 * words >= chunking.size and fresh
        if held and (words + count > chunking.size or early):
            if fresh:
                yield _joined(held)
            held = _tail(held, min(chunking.overlap, chunking.size - count)) if not early else []
            words = sum(n for _, n in held)
            fresh = 0
        held.append((f"\n\n{sentence}" if new_paragraph and held else sentence, count))
        words += count
        fresh += 1
    if fresh:
        yield _joined(held)


def _joined(held: list[tuple[str, int]]) -> str:
    return re.sub(r" ?\n\n", "\n\n", " ".join(s for s, _ in held)).strip()


def _tail(held: list[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    kept: list[tuple[str, int]] = []
    for sentence, count in reversed(held):
        if sum(n for _, n in kept) + count > most:
            break
        kept.insert(0, (sentence, count))
    return kept


def _sentences(text: str, size: int) -> Iterator[tuple[str, int, bool]]:
    """(sentence, words, starts a paragraph), no sentence longer than `size` words."""
    for paragraph in _PARAGRAPH.split(text):
        first = True
        for sentence in _split_sentences(paragraph):
            words = [part for word in sentence.split() for part in _parts(word)]
            for start in range(0, len(words), size):
                piece = words[start : start + size]
                yield " ".join(piece), len(piece), first
                first = False


def _split_sentences(paragraph: str) -> Iterator[str]:
    start = 0
    for boundary in _SENTENCE.finditer(paragraph):
        if not _ABBREVIATION.search(paragraph, start, boundary.start()):
            yield paragraph[start : boundary.end()]
            start = boundary.end()
    yield paragraph[start:]


def _parts(word: str) -> list[str]:
    return [word[i : i + _LONGEST_WORD] for i in range(0, len(word), _LONGEST_WORD)]
