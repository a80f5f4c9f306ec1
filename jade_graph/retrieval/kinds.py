"""Files of each kind as documents: text, markup, PDF, notebooks; tables and JSON in `entries`, offices' in `office`.

Invariant: a reader yields documents with where they stand, and says through `Found` what it leaves out and guesses; it
raises nothing but `UnreadableError` and `OSError`.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jade_graph.retrieval import entries, office
from jade_graph.retrieval.html import TooDeepError, html_to_markdown
from jade_graph.retrieval.reading import Document, Found, UnreadableError, parsed, read_bytes, text_of
from jade_graph.retrieval.sections import first_title, unix_lines
from jade_graph.retrieval.words import whole

Reader = Callable[[Path, str, Found], Iterator[tuple[Document, str]]]


def read_kind(path: Path, source: str, found: Found) -> Iterator[tuple[Document, str]]:
    """(document, where it stands) of one file. Raises `UnreadableError`, `OSError`."""
    suffix = suffix_of(path.name)
    if not suffix:
        raise UnreadableError(f"of no known kind ({', '.join(SUFFIXES)})")
    for document, where in KINDS[suffix](path, source, found):
        text, title = whole(unix_lines(document.text)), whole(" ".join(document.title.split()))
        yield replace(document, id=whole(document.id), text=text, title=title), where


def suffix_of(name: str) -> str:
    """The known suffix of a file's name, the longest there is; empty for a file of no known kind."""
    return next((s for s in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")


def _one(read: Callable[[bytes, str, Found], tuple[str, str, bool]]) -> Reader:
    """A reader of files that are one document: bytes to (text, title, whether it is Markdown)."""

    def reader(path: Path, source: str, found: Found) -> Iterator[tuple[Document, str]]:
        text, title, markdown = read(read_bytes(path, found), source, found)
        if not text.strip():
            raise UnreadableError(
                "no text in it" + (" (a scan needs OCR first)" if source.lower().endswith(".pdf") else "")
            )
        stem = source.rpartition("/")[2].rpartition(".")[0]
        yield Document(source, text, title or stem, source, markdown), source

    return reader


def _text(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    return text_of(data, source, found), "", False


def _markdown(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    text = text_of(data, source, found)
    return text, first_title(text), True


def _html(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    text = text_of(data, source, found, markup=True)
    xml = source.lower().endswith((".xhtml", ".xht"))
    return page(text, source, found, xml=xml)


def page(text: str, source: str, found: Found, *, xml: bool = False) -> tuple[str, str, bool]:
    try:
        read = html_to_markdown(text, xml=xml)
    except TooDeepError as error:
        raise UnreadableError(str(error)) from error
    found.note(source, read.note)
    return read.text, read.title, True


def _rst(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    """reStructuredText, by docutils; directives that it does not know (Sphinx's) stay as they are written."""
    from docutils import core, nodes

    text = text_of(data, source, found)
    quiet = {
        "report_level": 1, "halt_level": 5, "warning_stream": io.StringIO(), "file_insertion_enabled": False,
        "raw_enabled": False, "_disable_config": True, "syntax_highlight": "none", "embed_stylesheet": False,
        "stylesheet_path": None, "math_output": "LaTeX", "doctitle_xform": False, "smart_quotes": False,
        "initial_header_level": "1",
    }  # fmt: skip
    try:
        tree = core.publish_doctree(text, settings_overrides=quiet)
        for message in list(tree.findall(nodes.system_message)):
            kept = [child for child in message.children if isinstance(child, nodes.literal_block)]
            message.parent.replace(message, kept)
        html = core.publish_from_doctree(
            tree, writer="html5", settings_overrides={**quiet, "output_encoding": "unicode"}
        )
    except Exception as error:  # an odd document fails anywhere in the parser
        found.note(source, f"read as plain text: {type(error).__name__}: {error}")
        return text, "", False
    read, _, _ = page(re.sub(r"<title>.*?</title>", "", str(html), count=1, flags=re.DOTALL), source, found)
    return read, first_title(read), True


_ORG_HEADLINE = re.compile(r"^(\*+)[ \t]+(?:(?:TODO|DONE)[ \t]+)?(.*?)(?:[ \t]+:[\w@#%:]+:)?[ \t]*$")


def _org(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    """Org mode: headlines become headings, blocks are fenced, drawers and settings left out."""
    title, fence, drawer = "", False, False
    out = []
    for line in unix_lines(text_of(data, source, found)).split("\n"):
        key = line.strip().lower()
        if key.startswith("#+begin_"):
            fence = True
            out.append("\n~~~~")
        elif key.startswith("#+end_"):
            fence = False
            out.append("~~~~\n")
        elif fence:
            out.append(line)
        elif drawer or key in (":properties:", ":logbook:"):
            drawer = key != ":end:"
        elif key.startswith("#+title:"):
            title = line.strip()[8:].strip()
        elif key.startswith(("#+", "# ")) or key == "#":  # settings and comments
            continue
        elif (headline := _ORG_HEADLINE.match(line)) is not None:
            out.append(f"\n{'#' * min(6, len(headline[1]))} {headline[2]}\n")
        else:
            out.append(line)
    return "\n".join(out), title, True


def _notebook(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    """Jupyter: its texts, its code, and what the code printed."""
    record = parsed(text_of(data, source, found))
    cells = record.get("cells") if isinstance(record, dict) else None
    if not isinstance(cells, list):
        raise UnreadableError("no notebook of format 4: it has no cells")
    parts = []
    for cell in (c for c in cells if isinstance(c, dict)):
        body = _lines(cell.get("source"))
        if cell.get("cell_type") == "code":
            printed = [o for o in cell.get("outputs") or () if isinstance(o, dict)]
            shown = [_lines(o.get("text") or (o.get("data") or {}).get("text/plain")) for o in printed]
            parts += [f"~~~~\n{part}\n~~~~" for part in (body, *shown) if part.strip()]
        else:
            parts.append(body)
    text = "\n\n".join(parts)
    return text, first_title(text), True


def _lines(value: Any) -> str:
    if isinstance(value, list):
        return "".join(str(line) for line in value)
    return value if isinstance(value, str) else ""


def _pdf(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    from pypdf import PdfReader

    log = logging.getLogger("pypdf")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns about every oddity of a file it reads well
    pages: list[str] = []
    failed: dict[int, str] = {}
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("encrypted")
        for number, sheet in enumerate(reader.pages, start=1):
            try:
                pages.append(_unbroken(sheet.extract_text()).strip())
            except Exception as error:  # one page's fonts or streams may be damaged, and the others whole
                pages.append("")
                failed[number] = f"{type(error).__name__}: {error}"
        title = str((reader.metadata.title or "") if reader.metadata else "").strip()
    except UnreadableError:
        raise
    except Exception as error:  # a damaged file fails anywhere in the parser, with whatever comes up there
        raise UnreadableError(f"not a readable PDF ({type(error).__name__}: {error})") from error
    finally:
        log.setLevel(level)
    if any(pages):
        bare = [n for n, text in enumerate(pages, start=1) if not text and n not in failed]
        if bare:
            found.note(source, f"no text on {_pages(bare)} of {len(pages)} (a scan or a picture needs OCR first)")
        for number, why in failed.items():
            found.note(source, f"page {number} of {len(pages)} cannot be read ({why})")
    return "\n\n".join(pages), title, False


def _pages(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] == n - 1:
            runs[-1][1:] = [n]
        else:
            runs.append([n])
    told = ", ".join("-".join(map(str, run)) for run in runs)
    return ("page " if len(numbers) == 1 else "pages ") + told


def _unbroken(sheet: str) -> str:
    """Lines of a PDF are lines of print: join them, and mend words broken at the end of a line."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", sheet))


def _epub(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    title, chapters = office.chapters(data, found.max_bytes)
    texts = [page(text_of(chapter, source, found, markup=True), source, found, xml=True)[0] for chapter in chapters]
    return "\n\n".join(texts), title, True


def _docx(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:
    text, title, markdown = page(office.docx_html(data, found.max_bytes), source, found)
    return text, title, markdown


def _pptx(data: bytes, source: str, found: Found) -> tuple[str, str, bool]:  # noqa: ARG001 - readers are alike
    return office.slides(data, found.max_bytes), "", True


KINDS: dict[str, Reader] = {
    ".txt": _one(_text), ".text": _one(_text),
    ".md": _one(_markdown), ".markdown": _one(_markdown),
    ".html": _one(_html), ".htm": _one(_html), ".xhtml": _one(_html), ".xht": _one(_html),
    ".pdf": _one(_pdf),
    ".jsonl": entries.json_lines, ".jsonl.gz": entries.json_lines,
    ".json": entries.json_file, ".csv": entries.table, ".tsv": entries.table, ".xlsx": entries.workbook,
    ".ipynb": _one(_notebook), ".rst": _one(_rst), ".org": _one(_org),
    ".epub": _one(_epub), ".docx": _one(_docx), ".pptx": _one(_pptx),
}  # fmt: skip

SUFFIXES = tuple(KINDS)
