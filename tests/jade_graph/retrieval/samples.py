"""One small file of each common kind, made here."""

from __future__ import annotations

import io
import json
import zipfile

RST = """\
Boats
=====

The *Aurora* is a boat.

.. versionadded:: 2.0
   It got a mast.

See :doc:`harbour`.
"""

ORG = """\
#+title: Boats
# a comment
* TODO The Aurora :wood:
:PROPERTIES:
:ID: 1
:END:
It is a boat.
#+begin_src sh
* no headline
#+end_src
"""


def zipped(parts: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return out.getvalue()


def epub() -> bytes:
    chapter = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>'
    return zipped(
        {
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OPS/book.opf"/></rootfiles></container>',
            "OPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata '
            'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Book</dc:title></metadata><manifest>'
            '<item id="b" href="text/two%20b.xhtml"/><item id="a" href="text/one.xhtml"/></manifest>'
            '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>',
            "OPS/text/one.xhtml": chapter + "<h1>One</h1><p>The Aurora sails.</p></body></html>",
            "OPS/text/two b.xhtml": chapter + "<h1>Two</h1><p>She sinks.</p></body></html>",
        }
    )


def docx() -> bytes:
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    rel = "http://schemas.openxmlformats.org"
    return zipped(
        {
            "[Content_Types].xml": f'<Types xmlns="{rel}/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{rel}/package/2006/relationships"><Relationship Id="r" '
            f'Type="{rel}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
            "</Relationships>",
            "word/document.xml": f'<w:document {w}><w:body><w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r>'
            "<w:t>Boats</w:t></w:r></w:p><w:p><w:r><w:t>The Aurora is a boat.</w:t></w:r></w:p></w:body></w:document>",
            "word/styles.xml": f'<w:styles {w}><w:style w:type="paragraph" w:styleId="Heading1">'
            '<w:name w:val="heading 1"/></w:style></w:styles>',
        }
    )


def pptx() -> bytes:
    from pptx import Presentation

    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Boats"
    slide.placeholders[1].text = "The Aurora is a boat."
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    out = io.BytesIO()
    deck.save(out)
    return out.getvalue()


def xlsx() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    book.active.title = "Ships"
    for row in (["name", "built"], ["Aurora", 1901], [None, None], ["Maria", 1920]):
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


NOTEBOOK = json.dumps(
    {
        "cells": [
            {"cell_type": "markdown", "source": ["# Boats\n", "The Aurora."]},
            {"cell_type": "code", "source": "# a comment\nprint(1)", "outputs": [{"text": ["1\n"]}]},
        ],
        "nbformat": 4,
    }
)

KINDS: dict[str, bytes] = {
    "a.txt": b"Plain text of the Aurora.",
    "b.md": b"Boats\n=====\n\nThe Aurora.",
    "c.html": b"<title>Boats</title><p>The Aurora.",
    "d.xhtml": b'<?xml version="1.0"?><html><head><title>Boats</title><script src="x"/></head><body>The Aurora.</body>'
    b"</html>",
    "f.rst": RST.encode(),
    "g.org": ORG.encode(),
    "h.csv": b"name;built\nAurora;1901\nMaria;1920\n",
    "i.tsv": b"id\ttext\n7\tThe Aurora.\n",
    "j.json": b'{"ships": [{"name": "Aurora", "built": 1901}, {"name": "Maria"}]}',
    "k.jsonl": b'{"id": "x", "title": "T", "text": "The Aurora."}\n{"question": "Which?", "answer": "The Aurora"}\n',
    "l.ipynb": NOTEBOOK.encode(),
    "m.epub": epub(),
    "n.docx": docx(),
    "o.pptx": pptx(),
    "p.xlsx": xlsx(),
}
