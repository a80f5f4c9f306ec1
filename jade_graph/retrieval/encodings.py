"""Bytes to text: what a file says of itself, UTF-8, and what a detector makes of the rest.

Invariant: labels mean what they mean in browsers (WHATWG), a stray byte costs one character and not the file, and what
was guessed or repaired is said. Nothing but `NotTextError` is raised, whatever the bytes.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatch

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LABEL = re.compile(
    rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)|\A\s*<\?xml[^>]+encoding\s*=\s*[\"']([\w.:-]+)", re.IGNORECASE
)
_SAMPLE = 1 << 18  # bytes that the detector sees

# Encodings of the web that a detector chooses among; ties between the Latin ones go to the first.
_LATIN = ("cp1252", "cp1250", "iso8859_2", "cp1254")
_LEGACY = (
    *_LATIN, "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "cp866", "cp1253", "cp1255", "cp1256",
    "cp874", "iso2022_jp",
)  # fmt: skip


class NotTextError(Exception):
    """Binary data, which no encoding makes text."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text, without a byte-order mark; `note` says what was guessed or repaired, empty where nothing was."""

    text: str
    encoding: str
    note: str = ""


def decode(data: bytes, *, markup: bool = False) -> Decoded:
    """Bytes to text.

    Args:
        markup: HTML or XML, which may name its encoding.

    Raises:
        NotTextError: for binary data.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _repaired(data[len(mark) :], encoding)
    if b"\x00" in data[:8192]:
        return _wide(data)
    label = _LABEL.search(data, 0, 4096) if markup else None
    if label is not None:
        return _labelled(data, (label[1] or label[2]).decode("ascii", "replace"))
    return _unlabelled(data)


def _repaired(data: bytes, encoding: str, note: str = "") -> Decoded:
    """Decoded, whatever it takes; what could not be is counted."""
    try:
        return Decoded(data.decode(encoding), encoding, note)
    except UnicodeDecodeError as error:
        text = data.decode(encoding, errors="replace")
        count = text.count("\ufffd")
        damage = f"{count} places are no {encoding} (the first at byte {error.start})"
        return Decoded(text, encoding, f"{note}; {damage}" if note else damage)


def _wide(data: bytes) -> Decoded:
    """UTF-16 without its mark: every other byte of most texts is 0."""
    sample = data[: min(len(data), 8192) & ~1]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    for some, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if some > len(sample) // 5 and others == 0:
            return _repaired(data, encoding, f"read as {encoding} (guessed: it has no byte-order mark)")
    raise NotTextError("binary, not text")


def _labelled(data: bytes, label: str) -> Decoded:
    import webencodings

    found = webencodings.lookup(label)
    if found is None or found.name in ("replacement", "x-user-defined"):
        other = _unlabelled(data)
        return Decoded(
            other.text, other.encoding, other.note or f"read as {other.encoding}: no encoding {label!r} is known"
        )
    name = {"gbk": "gb18030", "utf-16le": "utf-8", "utf-16be": "utf-8"}.get(found.name, found.codec_info.name)
    if name == "utf-8":
        return _unlabelled(data)
    try:
        utf8: str | None = data.decode("utf-8")
    except UnicodeDecodeError:
        utf8 = None
    try:
        text = data.decode(name)
    except UnicodeDecodeError:
        text = None
    # A page of letters that are UTF-8 byte for byte, with a label of one byte a letter, is wrong about itself; pairs of
    # bytes may be both by chance.
    wrong = text is None or len(text) == len(data)
    if utf8 is not None and (data.isascii() or wrong):
        return Decoded(utf8, "utf-8", "" if data.isascii() else f"read as utf-8, not as {label!r}, which it says it is")
    return Decoded(text, name) if text is not None else _repaired(data, name)


def _unlabelled(data: bytes) -> Decoded:
    escapes = b"\x1b$" in data or b"\x1b(" in data  # ISO-2022-JP is 7 bits wide
    try:
        if not escapes:
            return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError as error:
        text = data.decode("utf-8", errors="replace")
        bad = text.count("\ufffd") - data.count("\ufffd".encode())
        if sum(c > "\x7f" for c in text) - text.count("\ufffd") > bad:  # more letters of several bytes than faults
            return Decoded(text, "utf-8", f"{bad} places are no utf-8 (the first at byte {error.start})")
    name = _guess(data[:_SAMPLE])
    if name == "utf-8":
        return Decoded(data.decode("utf-8", errors="replace"), "utf-8")
    return _repaired(data, name, f"read as {name} (guessed: it is no utf-8)")


def _guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    found = from_bytes(data, cp_isolation=list(_LEGACY)) if data.strip() else ()
    names = [match.encoding for match in found]
    if not names or data.isascii():
        return names[0] if names and names[0] == "iso2022_jp" else "utf-8" if data.isascii() else "cp1252"
    high = sum(b > 127 for b in data)
    letters = high + sum(chr(b).isalpha() for b in data if b < 128)
    if 2 * high > letters:  # no language of Latin letters has accents on most of them
        names = [name for name in names if name not in _LATIN] or names
    best = names[0]
    if best in _LATIN:
        return _latin(data, [match for match in found if match.encoding in _LATIN])
    return best


def _latin(data: bytes, found: list[CharsetMatch]) -> str:
    """Windows-1252, unless another one reads like its language."""
    likely: dict[str, float] = {}
    for match in found:
        for name in match.could_be_from_charset:  # those that give the same text
            likely.setdefault(name, match.coherence)
    name = max(_LATIN, key=lambda n: (likely.get(n, -1.0), -_LATIN.index(n)))
    if "cp1252" in likely and likely[name] <= likely["cp1252"] + 0.05:
        return "cp1252"
    if name == "cp1250" and not any(0x80 <= b < 0xA0 for b in data) and "iso8859_2" in likely:
        return "iso8859_2"
    return name
