"""Documents that are archives: EPUB by the standard library; Word, PowerPoint and Excel by the extra "office".

Invariant: an archive is opened only after its sizes were summed up, so that a small file never becomes a large one.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from jade_graph.retrieval.reading import UnreadableError

_MOST_PARTS = 20_000


def chapters(data: bytes, max_bytes: int) -> tuple[str, list[bytes]]:
    """An EPUB's title and its pages, in the order of reading."""
    archive = _archive(data, max_bytes)
    try:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        where = next(e.attrib["full-path"] for e in container.iter() if e.tag.endswith("}rootfile"))
        package = ElementTree.fromstring(archive.read(where))
        items = {e.attrib["id"]: e.attrib["href"] for e in package.iter() if e.tag.endswith("}item")}
        order = [items[e.attrib["idref"]] for e in package.iter() if e.tag.endswith("}itemref")]
        title = next((e.text or "" for e in package.iter() if e.tag.endswith("}title")), "")
        folder = posixpath.dirname(where)
        pages = [archive.read(posixpath.normpath(posixpath.join(folder, unquote(href)))) for href in order]
    except (
        KeyError,
        StopIteration,
        ElementTree.ParseError,
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        raise UnreadableError(f"not a readable EPUB ({type(error).__name__}: {error})") from error
    return title, pages


def docx_html(data: bytes, max_bytes: int) -> str:
    """A Word document's text, headings, lists and tables as HTML; its pictures are left out."""
    mammoth = _part("mammoth")
    _archive(data, max_bytes)
    try:
        nothing = mammoth.images.img_element(lambda _: {"src": ""})
        return str(mammoth.convert_to_html(io.BytesIO(data), convert_image=nothing).value)
    except Exception as error:  # a damaged file fails anywhere in the parser
        raise UnreadableError(f"not a readable Word document ({type(error).__name__}: {error})") from error


def slides(data: bytes, max_bytes: int) -> str:
    """A presentation as Markdown: a heading for each slide, its texts, tables and notes."""
    pptx = _part("pptx")
    _archive(data, max_bytes)
    try:
        parts = []
        for number, slide in enumerate(pptx.Presentation(io.BytesIO(data)).slides, start=1):
            head = slide.shapes.title
            name = " ".join(head.text_frame.text.split()) if head is not None else ""
            parts.append(f"# {name or f'Slide {number}'}")
            skip = head.shape_id if head is not None else None
            parts += [text for shape in slide.shapes if shape.shape_id != skip for text in _texts(shape)]
            if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
                parts.append(slide.notes_slide.notes_text_frame.text)
    except Exception as error:
        raise UnreadableError(f"not a readable presentation ({type(error).__name__}: {error})") from error
    return "\n\n".join(part for part in parts if part.strip())


def _texts(shape: Any) -> Iterator[str]:
    if getattr(shape, "has_text_frame", False):
        yield shape.text_frame.text
    if getattr(shape, "has_table", False):
        for row in shape.table.rows:
            yield " | ".join(cell.text for cell in row.cells)
    for inner in getattr(shape, "shapes", ()):  # a group
        yield from _texts(inner)


def sheets(data: bytes, max_bytes: int) -> list[tuple[str, list[list[str]]]]:
    """(name, rows of texts) of each sheet of a workbook."""
    openpyxl = _part("openpyxl")
    _archive(data, max_bytes)
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        rows = [
            (sheet.title, [["" if v is None else str(v) for v in row] for row in sheet.iter_rows(values_only=True)])
            for sheet in book.worksheets
        ]
        book.close()
    except Exception as error:
        raise UnreadableError(f"not a readable workbook ({type(error).__name__}: {error})") from error
    return rows


def _archive(data: bytes, max_bytes: int) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UnreadableError(f"damaged: {error}") from error
    parts = archive.infolist()
    size = sum(part.file_size for part in parts)
    if size > 4 * max_bytes or len(parts) > _MOST_PARTS:
        raise UnreadableError(f"unpacks to {size / 2**20:.0f} MiB in {len(parts):,} parts, more than is read")
    return archive


def _part(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UnreadableError('needs another package: pip install "jade-graph[office]"') from None
