"""HTML to plain Markdown, by a parser that recovers as browsers do.

Invariant: what a reader sees is kept, in order, with headings as `#` lines; scripts, styles and page furniture are
not. An element that is never closed hides nothing that stands after it, and where it might have, that is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_RAW = frozenset({"script", "style", "textarea", "title", "iframe", "noembed", "noframes", "xmp"})
_HIDDEN = frozenset({"script", "style", "template", "noscript", "svg", "nav", "footer", "iframe", "select", "button"})
_BLOCKS = frozenset(
    {"address", "article", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt", "fieldset"}
    | {"figcaption", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li", "main", "ol"}
    | {"p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"}
)
_ROWS = frozenset({"li", "tr", "dt", "dd"})
_CELLS = frozenset({"td", "th"})
_VOID = frozenset({"br", "hr"})
_ENDLESS = frozenset(  # elements that need no end tag: they do not nest when it is left out
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
    | {"p", "li", "dt", "dd", "tr", "td", "th", "tbody", "thead", "tfoot", "option", "optgroup", "colgroup", "rp", "rt"}
)
_DEEPEST = 4000  # parsing takes the square of the depth: 0.2 s here; browsers stop at 512

_TAG = re.compile(r"<!--|<(/?)([a-z][a-z0-9]*)", re.IGNORECASE)
_SELF_CLOSED = re.compile(r"<([a-zA-Z][\w:.-]*)((?:\s[^<>]*)?)/>")
_MARK = "\x00"  # before lines that are Markdown by our making; in no text that was parsed
_LOOKS_LIKE_MARKDOWN = re.compile(r"#{1,6}(?:\s|$)|```|~~~|<(?:script|pre|style|textarea|\?|!)", re.IGNORECASE)
_UNDERLINE = re.compile(r"(?:=+|-+)$")


class TooDeepError(Exception):
    """Elements within elements without end."""


@dataclass(frozen=True, slots=True)
class Page:
    """`note` says what of the page may be missing or too much, empty where all was in order."""

    title: str
    text: str
    note: str = ""


def html_to_markdown(html: str, *, xml: bool = False) -> Page:
    """The page's title (<title>, else its first heading) and its visible text.

    Args:
        xml: XHTML, where `<script/>` is closed.

    Raises:
        TooDeepError: for elements nested thousands of levels deep, which no page has.
    """
    from selectolax.lexbor import LexborHTMLParser

    html = html.replace(_MARK, "")
    if xml:
        html = _SELF_CLOSED.sub(_closed, html)
    html, unclosed = _checked(html)
    writer = _Writer(_HIDDEN - unclosed.keys() | {"script", "style"})
    for kind, value in _events(LexborHTMLParser(html).root, writer.hidden):
        writer.take(kind, value)
    text = "".join(writer.out)
    text = re.sub(r"[ \t\r\f\v\xa0]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(rf"^{_MARK}#+ *$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    heading = re.search(rf"^{_MARK}#+ (.+)$", text, re.MULTILINE)
    title = " ".join(writer.title.split()) or (heading[1] if heading else "")
    note = ", ".join(f"<{tag}> is not closed" + (": " + said if said else "") for tag, said in sorted(unclosed.items()))
    return Page(title, "\n".join(_escaped(text)), note)


def _closed(tag: re.Match[str]) -> str:
    name = tag[1].lower()
    return tag[0] if name in _ENDLESS and name not in ("p", "li") else f"<{tag[1]}{tag[2]}></{tag[1]}>"


def _checked(html: str) -> tuple[str, dict[str, str]]:
    """The page without start tags that would make raw text of the rest, and what is not closed. In one pass."""
    lowered = html.lower()
    if len(lowered) != len(html):  # of a few capitals the small letter is two
        lowered = "".join(c.lower() if c.isascii() else c for c in html)
    opened: Counter[str] = Counter()
    unclosed: dict[str, str] = {}
    kept: list[str] = []
    depth = start = at = 0
    while (tag := _TAG.search(lowered, at)) is not None:
        at = tag.end()
        name = tag[2]
        if name is None:
            at = lowered.find("-->", at)
            if at < 0:
                break
        elif name in _RAW and not tag[1]:
            end = -1 if name in unclosed else lowered.find(f"</{name}", at)  # what is not there once is not there later
            if end >= 0:
                at = end + len(name) + 2
            elif name in ("script", "style"):
                unclosed[name] = "what follows it is left out"
                break
            else:
                unclosed[name] = "read as if it were not there"
                close = lowered.find(">", at)
                kept.append(html[start : tag.start()])
                start = at = len(html) if close < 0 else close + 1
        else:
            if name in _HIDDEN:
                opened[name] += -1 if tag[1] else 1
            if name not in _ENDLESS:
                depth = max(0, depth - 1) if tag[1] else depth + 1
                if depth > _DEEPEST:
                    raise TooDeepError(f"elements within elements, {_DEEPEST} deep")
    kept.append(html[start:])
    for name, count in opened.items():
        if count > 0:
            unclosed[name] = "all of that kind are kept, with what follows them"
    return "".join(kept), unclosed


def _events(root: Any, hidden: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """("start" or "end", node) and ("text", text) in the order of the page; nothing of hidden elements."""
    stack: list[tuple[str, Any]] = [("start", root)] if root is not None else []
    while stack:
        kind, node = stack.pop()
        if kind == "end":
            yield kind, node
        elif node.tag == "-text":
            yield "text", node.text_content or ""
        elif node.tag not in hidden and node.tag[:1] not in ("-", "!"):
            yield kind, node
            stack.append(("end", node))
            children = []
            child = node.first_child
            while child is not None:
                children.append(("start", child))
                child = child.next
            stack += reversed(children)


class _Writer:
    def __init__(self, hidden: frozenset[str]) -> None:
        self.hidden = hidden
        self.out: list[str] = []
        self.title = ""
        self._in_title = False
        self._fences: list[str] = []

    def take(self, kind: str, value: Any) -> None:
        if kind == "text":
            self._text(value)
        elif kind == "start":
            self._start(value)
        else:
            self._end(value.tag)

    def _start(self, node: Any) -> None:
        tag = node.tag
        if tag == "title":
            self._in_title = True
        elif tag in _CELLS:
            self.out.append(" ")
        elif tag == "pre":
            ticks = max(map(len, re.findall(r"`{3,}", node.text())), default=2)
            self._fences.append("`" * (ticks + 1))
            self.out.append(f"\n\n{_MARK}{self._fences[-1]}\n")  # fenced, so that a `#` comment in it is no heading
        elif tag in _BLOCKS:
            self.out.append("\n" if tag in _ROWS or tag == "br" else "\n\n")
            if re.fullmatch(r"h[1-6]", tag):
                self.out.append(_MARK + "#" * int(tag[1]) + " ")

    def _end(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag == "pre":
            self.out.append(f"\n{_MARK}{self._fences.pop()}\n\n")
        elif tag in _BLOCKS - _VOID - _ROWS - _CELLS:
            self.out.append("\n\n")

    def _text(self, data: str) -> None:
        if self._in_title:
            self.title = self.title or data
        else:
            self.out.append(data if self._fences else re.sub(r"\s+", " ", data))


def _escaped(text: str) -> Iterator[str]:
    """The lines, those of them that are Markdown by chance with a backslash in front."""
    fence = before = ""
    for line in text.split("\n"):
        made = line.startswith(_MARK)
        bare = line.replace(_MARK, "")
        if made and bare.startswith("```"):
            fence = "" if fence else bare
        elif not made and not fence:
            under = _UNDERLINE.match(bare) and (before or (not before and bare.startswith("---")))
            if under or _LOOKS_LIKE_MARKDOWN.match(bare):
                bare = "\\" + bare
        before = bare
        yield bare
