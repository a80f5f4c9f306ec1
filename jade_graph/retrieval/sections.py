"""Markdown as sections under headings, by a CommonMark parser.

Invariant: pure; every line of the text stands in the body of one section or is a heading's, in order. Lines that only
look like headings (in code, in comments, in front matter) are text.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:.*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_TITLED = re.compile(r"""^title:[ \t]*(["']?)(\S.*?)\1[ \t]*$""", re.MULTILINE)
LONGEST = 240
"""Characters of a title: a paragraph with a line of dashes right under it is still one."""


class Heading(NamedTuple):
    """Its level (1 to 6), its text, and the lines [start, end) that it takes."""

    level: int
    title: str
    start: int
    end: int


def unix_lines(text: str) -> str:
    """The text with every end of a line as one line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def headings(text: str) -> list[Heading]:
    """The headings of a text with unix lines; those within lists and quotations are part of these."""
    if matter := _FRONT_MATTER.match(text):  # as blank lines, so that the numbers of the others stay
        text = "\n" * matter[0].count("\n") + text[matter.end() :]
    found = []
    tokens = _parser().parse(text)
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            title = " ".join(tokens[i + 1].content.split())
            if len(title) <= LONGEST:
                found.append(Heading(int(token.tag[1]), title, *token.map))
    return found


def first_title(text: str) -> str:
    """The title in the front matter, else the first heading of the first level; empty where there is neither."""
    text = unix_lines(text)
    if (matter := _FRONT_MATTER.match(text)) and (named := _TITLED.search(matter[0])):
        return named[2]
    return next((h.title for h in headings(text) if h.level == 1 and h.title), "")


def sections(text: str) -> list[tuple[tuple[str, ...], str]]:
    """(titles above, outermost first; body), in order. A heading with nothing under it is a body itself."""
    text = unix_lines(text)
    lines = text.split("\n")
    found: list[tuple[int, tuple[str, ...], list[str]]] = [(0, (), [])]
    path: list[tuple[int, str]] = []
    done = 0
    for level, title, start, end in headings(text):
        found[-1][2].extend(lines[done:start])
        done = end
        path = [(above, name) for above, name in path if above < level] + [(level, title)]
        found.append((level, tuple(name for _, name in path), []))
    found[-1][2].extend(lines[done:])
    kept = []
    for i, (level, titles, body_lines) in enumerate(found):
        body = "\n".join(body_lines).strip()
        parent = i + 1 < len(found) and found[i + 1][0] > level  # then the titles live on in what is under it
        if body:
            kept.append((titles, body))
        elif titles and titles[-1] and not parent:
            kept.append((titles[:-1], titles[-1]))
    return kept


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])  # what is within a line stays as it was written
    return parser
