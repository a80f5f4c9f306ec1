"""HTML to plain Markdown, by the standard library's parser.

Invariant: what a reader sees is kept, in order, with headings as `#` lines; scripts, styles and page furniture are
not. Broken markup never raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser

_HIDDEN = frozenset({"script", "style", "template", "noscript", "svg", "nav", "footer", "iframe", "select", "button"})
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt", "fieldset"}
    | {"figcaption", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li", "main", "ol"}
    | {"p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"}
)
_ROWS = frozenset({"li", "tr", "dt", "dd"})
_CELLS = frozenset({"td", "th"})
_VOID = frozenset({"br", "hr"})


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    text: str


def html_to_markdown(html: str) -> Page:
    """The page's title (<title>, else its first heading) and its visible text."""
    parser = _Reader()
    parser.feed(html)
    parser.close()
    text = "".join(parser.out)
    text = re.sub(r"[ \t\r\f\v\xa0]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"^#+ *$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    heading = re.search(r"^#+ (.+)$", text, re.MULTILINE)
    title = " ".join("".join(parser.title).split()) or (heading[1] if heading else "")
    return Page(title, text)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.title: list[str] = []
        self._hidden: list[str] = []
        self._in_title = False
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "title" and not self.title:
            self._in_title = True
        elif tag in _HIDDEN:
            self._hidden.append(tag)
        elif self._hidden:
            return
        elif tag in _CELLS:
            self.out.append(" ")
        elif tag == "pre":
            self._pre += 1
            self.out.append("\n\n```\n")  # fenced, so that a `#` comment in it is no heading
        elif tag in _BLOCKS:
            self.out.append("\n" if tag in _ROWS or tag == "br" else "\n\n")
            if re.fullmatch(r"h[1-6]", tag):
                self.out.append("#" * int(tag[1]) + " ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag in self._hidden:
            # Close up to the matching one: an unclosed inner tag must not hide the rest of the page.
            while self._hidden.pop() != tag:
                pass
        elif self._hidden:
            return
        elif tag == "pre" and self._pre:
            self._pre -= 1
            self.out.append("\n```\n\n")
        elif tag in _BLOCKS - _VOID - _ROWS - _CELLS:
            self.out.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._hidden:
            self.out.append(data if self._pre else re.sub(r"\s+", " ", data))
