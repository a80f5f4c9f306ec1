"""Text that fits: widths, line breaks, and what markup needs escaped.

Invariant: `width` never says less than what a browser's sans-serif font takes: it measures by DejaVu Sans, the widest
of those in common use. So nothing that was broken to a width is cut by a box of that width.
"""

from __future__ import annotations

import re
import unicodedata
from xml.sax.saxutils import escape as _escape

# Advance widths of DejaVu Sans, hundredths of the font size, for the characters 32 to 126.
_PLAIN = (
    32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 84,
    84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68, 99, 69,
    61, 69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63, 41, 52, 39, 63,
    59, 82, 59, 59, 52, 64, 34, 64, 84,
)  # fmt: skip
_BOLD = 1.12
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Pixels that the text takes at a font size, never too few."""
    total = sum(map(_advance, text))
    return total * size / 100 * (_BOLD if bold else 1.0)


def _advance(character: str) -> int:
    code = ord(character)
    if 32 <= code < 127:
        return _PLAIN[code - 32]
    if unicodedata.combining(character):
        return 0
    return 110 if unicodedata.east_asian_width(character) in "WF" or code > 0x2E7F else 84


def clean(text: str) -> str:
    """The text as a document can hold it: control and direction-changing characters become visible replacements."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)


def xml(text: str) -> str:
    """Escaped for element content and for attributes in double or single quotes."""
    return _escape(clean(text), {'"': "&quot;", "'": "&#39;"})


def shortened(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """One line of at most `room` pixels, with an ellipsis where something was left out."""
    flat = " ".join(clean(text).split())
    if width(flat, size, bold=bold) <= room:
        return flat
    while flat and width(flat + "…", size, bold=bold) > room:
        flat = flat[:-1]
    return flat.rstrip() + "…"


def wrapped(text: str, room: float, size: float, lines: int, *, bold: bool = False) -> tuple[str, ...]:
    """At most `lines` lines of at most `room` pixels; words longer than a line are broken; the last may end in "…"."""
    out: list[str] = []
    words = clean(text).split()
    line = ""
    while words:
        word = words.pop(0)
        wider = f"{line} {word}" if line else word
        if width(wider, size, bold=bold) <= room:
            line = wider
            continue
        if len(out) == lines - 1:  # the rest belongs to the last line, which says that it is not all
            rest = " ".join([wider, *words[:40]])
            out.append(shortened(rest, room, size, bold=bold))
            return tuple(out)
        if line:
            out.append(line)
            line = ""
            words.insert(0, word)
            continue
        head = len(word)
        while head > 1 and width(word[:head], size, bold=bold) > room:
            head -= 1
        out.append(word[:head])
        words.insert(0, word[head:])
    if line:
        out.append(line)
    return tuple(out)


def milliseconds(ms: float) -> str:
    """A duration as people read it."""
    if ms < 1:
        return "<1 ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.2f} s" if ms < 10_000 else f"{ms / 1000:.1f} s"


__all__ = ["clean", "milliseconds", "shortened", "width", "wrapped", "xml"]
