"""Folders of documents: what is read, what is left out, and that it is said."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jade_graph.errors import DataError
from jade_graph.retrieval.chunking import Chunking
from jade_graph.retrieval.corpus import build_corpus, open_corpus
from jade_graph.retrieval.documents import Document, Documents, read_documents

from .samples import KINDS, zipped

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def pdf(*lines: str, pages: Sequence[Sequence[str]] = ()) -> bytes:
    """A PDF written by hand: of one page, or of several."""
    sheets = pages or [lines]
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(len(sheets)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(sheets)} >>".encode(),
    ]
    for i, sheet in enumerate(sheets):
        shown = "".join(f"({line}) Tj T* " for line in sheet)
        stream = f"BT /F1 12 Tf 14 TL 50 700 Td {shown}ET".encode()
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>" % (4 + 2 * i),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + trailer


def by_source(found: Documents) -> dict[str, Document]:
    return {d.source: d for d in found.documents}


def test_every_kind_is_read(put: Put, tmp_path: Path) -> None:
    put("a.txt", "Plain text.")
    put("sub/b.md", "# Guide #\n\nHow to.")
    put("c.html", "<title>Page &amp; more</title><body><h1>Big</h1><p>Hello.</p>")
    put("d.pdf", pdf("A line of a docu-", "ment on paper."))
    put("e.jsonl", '{"id": 7, "title": "T", "text": "Body."}\n')
    found = read_documents(tmp_path)
    documents = by_source(found)
    assert sorted(documents) == ["a.txt", "c.html", "d.pdf", "e.jsonl", "sub/b.md"]
    assert (documents["a.txt"].title, documents["a.txt"].text, documents["a.txt"].id) == ("a", "Plain text.", "a.txt")
    assert (documents["sub/b.md"].title, documents["sub/b.md"].markdown) == ("Guide", True)
    assert documents["c.html"].title == "Page & more"
    assert documents["c.html"].text == "# Big\n\nHello."
    assert documents["d.pdf"].text == "A line of a document on paper."
    assert (documents["e.jsonl"].id, documents["e.jsonl"].title, documents["e.jsonl"].text) == ("7", "T", "Body.")
    assert (found.files, found.skipped) == (5, ())


def test_bad_files_are_named_and_the_rest_is_read(put: Put, tmp_path: Path) -> None:
    put("good.txt", "Text.")
    put("empty.txt", "")
    put("blank.md", " \n \n")
    put("binary.txt", b"\x00\x01\x02" * 50)
    put("broken.pdf", b"%PDF-1.4 nothing more")
    put("scan.pdf", pdf())
    put("large.txt", "x" * 2000)
    put("picture.png", b"\x89PNG")
    put(".hidden.txt", "secret")
    put(".git/config.txt", "secret")
    seen: list[tuple[int, int]] = []
    found = read_documents(tmp_path, max_bytes=1000, progress=lambda done, total: seen.append((done, total)))
    assert [d.source for d in found.documents] == ["good.txt"]
    reasons = {s.source: s.reason for s in found.skipped}
    wanted = [".git/", ".hidden.txt", "binary.txt", "blank.md", "broken.pdf", "empty.txt", "large.txt"]
    assert sorted(reasons) == [*wanted, "picture.png", "scan.pdf"]
    assert reasons["picture.png"] == "of no known kind (.png)"
    assert "binary" in reasons["binary.txt"]
    assert "limit" in reasons["large.txt"]
    assert "PDF" in reasons["broken.pdf"]
    assert "OCR" in reasons["scan.pdf"]
    assert seen[-1] == (7, 7)


def test_an_unreadable_file_is_named(put: Put, tmp_path: Path) -> None:
    put("good.txt", "Text.")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    found = read_documents(tmp_path)
    assert [s.source for s in found.skipped] == ["gone.txt"]


def test_json_lines_with_faults(put: Put, tmp_path: Path) -> None:
    lines = [
        '{"_id": "a", "contents": "\\"Title\\"\\nBody of it."}',
        "not json",
        "",
        "[1, 2]",
        '{"id": "b"}',
        '{"id": "c", "text": "  "}',
        '{"text": "no id", "metadata": {"year": 1990}}',
    ]
    put("x.jsonl", "\n".join(lines))
    found = read_documents(tmp_path / "x.jsonl")
    first, last = found.documents
    assert (first.id, first.title, first.text) == ("a", "Title", "Body of it.")
    assert (last.id, last.metadata) == ("x.jsonl:7", {"year": 1990})
    assert [s.source for s in found.skipped] == ["x.jsonl:2", "x.jsonl:4", "x.jsonl:5", "x.jsonl:6"]


def test_a_cut_off_gzip_file_keeps_what_came_before(put: Put, tmp_path: Path) -> None:
    whole = gzip.compress(
        "".join(json.dumps({"id": i, "text": f"text {i * 7919}"}) + "\n" for i in range(5000)).encode()
    )
    put("x.jsonl.gz", whole[: len(whole) // 2])
    found = read_documents(tmp_path)
    assert 0 < len(found.documents) < 5000
    assert "damaged after line" in found.skipped[-1].reason


def test_nothing_readable_is_an_error_that_says_why(put: Put, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_documents(tmp_path / "missing")
    assert caught.value.error_code == "DOCUMENTS_NOT_FOUND"
    put("a.png", b"x")
    with pytest.raises(DataError, match="no file of a known kind") as caught:
        read_documents(tmp_path)
    assert caught.value.error_code == "DOCUMENTS_UNREADABLE"
    put("b.txt", b"")
    with pytest.raises(DataError, match=r"b\.txt: empty"):
        read_documents(tmp_path)
    with pytest.raises(DataError, match="of no known kind"):
        read_documents(tmp_path / "a.png")


def test_a_document_of_each_common_kind_is_read(put: Put, tmp_path: Path) -> None:
    for name, data in KINDS.items():
        put(name, data)
    put("e.pdf", pdf("The Aurora."))
    found = read_documents(tmp_path)
    assert (found.skipped, found.notes) == ((), ())
    assert found.files == len(KINDS) + 1
    texts = {d.id: (d.title, d.text) for d in found.documents}
    assert all("Aurora" in text or "Maria" in text or "Aurora" in title for title, text in texts.values())
    assert texts["b.md"][0] == texts["d.xhtml"][0] == texts["f.rst"][0] == texts["g.org"][0] == "Boats"
    assert texts["n.docx"] == ("Boats", "# Boats\n\nThe Aurora is a boat.")
    assert texts["o.pptx"][1] == "# Boats\n\nThe Aurora is a boat.\n\nSay it slowly."
    assert texts["m.epub"] == ("The Book", "# One\n\nThe Aurora sails.\n\n# Two\n\nShe sinks.")
    assert texts["l.ipynb"] == ("Boats", "# Boats\nThe Aurora.\n\n~~~~\n# a comment\nprint(1)\n~~~~\n\n~~~~\n1\n\n~~~~")
    assert texts["h.csv:2"] == ("Aurora", "name: Aurora\nbuilt: 1901")
    assert texts["p.xlsx:Ships!4"] == ("Maria", "name: Maria\nbuilt: 1920")
    assert texts["7"] == ("i", "The Aurora.") or texts["7"] == ("", "The Aurora.")
    assert texts["j.json: item 0"] == ("Aurora", "name: Aurora\nbuilt: 1901")
    assert texts["k.jsonl:2"] == ("Which?", "The Aurora")
    assert "It got a mast." in texts["f.rst"][1]  # a directive of Sphinx's
    assert "# The Aurora\n" in texts["g.org"][1]
    assert "~~~~\n* no headline\n~~~~" in texts["g.org"][1]


def test_kinds_of_a_missing_package_are_named(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.txt", "Text.")
    for name in ("n.docx", "o.pptx", "p.xlsx"):
        put(name, KINDS[name])
    for package in ("mammoth", "pptx", "openpyxl"):
        monkeypatch.setitem(sys.modules, package, None)
    reasons = {s.source: s.reason for s in read_documents(tmp_path).skipped}
    assert sorted(reasons) == ["n.docx", "o.pptx", "p.xlsx"]
    assert all("jade-graph[office]" in reason for reason in reasons.values())


@pytest.mark.parametrize("name", ["m.epub", "n.docx", "o.pptx", "p.xlsx", "l.ipynb", "j.json"])
def test_damaged_archives_are_named(name: str, put: Put, tmp_path: Path) -> None:
    put("a.txt", "Text.")
    put(name, KINDS[name][: len(KINDS[name]) // 2])
    (left,) = read_documents(tmp_path).skipped
    assert left.source == name


def test_pipes_devices_and_links_are_named_and_not_opened(put: Put, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    outside = put("outside.txt", "secret")
    put("elsewhere/x.txt", "secret")
    put("in/a.txt", "Text.")
    put("in/sub/b.txt", "More.")
    os.mkfifo(folder / "pipe.txt")
    (folder / "device.txt").symlink_to("/dev/zero")
    (folder / "passwd.txt").symlink_to("/etc/passwd")
    (folder / "out.txt").symlink_to(outside)
    (folder / "round.txt").symlink_to(folder / "round.txt")
    (folder / "within.md").symlink_to("a.txt")
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(folder)
    found = read_documents(folder)
    assert [d.source for d in found.documents] == ["a.txt", "sub/b.txt", "within.md"]
    reasons = {s.source: s.reason for s in found.skipped}
    assert sorted(reasons) == ["away/", "device.txt", "out.txt", "passwd.txt", "pipe.txt", "round.txt", "up/"]
    assert reasons["pipe.txt"] == "a pipe, not a file"
    assert "leads out of the folder" in reasons["passwd.txt"]
    assert "not followed" in reasons["away/"]
    with pytest.raises(DataError, match="not a regular file"):
        read_documents(folder / "pipe.txt")


def test_a_folder_that_cannot_be_opened_is_named(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.txt", "Text.")
    put("shut/b.txt", "More.")
    scan = os.scandir

    def refused(path: Any = ".") -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    (left,) = read_documents(tmp_path).skipped
    assert (left.source, left.reason) == ("shut/", "permission denied")


def test_a_name_that_is_no_utf_8_can_be_stored(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("Text.")
    (tmp_path / os.fsdecode(b"b\xff.png")).write_text("x")
    found = read_documents(tmp_path)
    assert [d.id for d in found.documents] == ["caf\\xe9.txt"]
    assert [s.source for s in found.skipped] == ["b\\xff.png"]
    manifest = build_corpus(found.documents, "w", tmp_path / "data", "hash:16", skipped=found.skipped)
    assert manifest.skipped[0]["source"] == "b\\xff.png"


def test_one_odd_line_costs_a_line(put: Put, tmp_path: Path) -> None:
    lines = [
        b'{"id": "good", "text": "A boat."}',
        b"[" * 200_000,
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"id": "half \\ud800", "title": "\\udc00", "text": "an \\ud83d\\ude00 and \\ud800 half"}',
        b"\xff\xfe not utf-8",
        b'{"text": "' + b"x" * 3000 + b'"}',
        b'{"id": "last", "text": "Another boat."}',
    ]
    put("x.jsonl", b"\xef\xbb\xbf" + b"\n".join(lines))
    found = read_documents(tmp_path / "x.jsonl", max_bytes=250_000)
    assert [d.id for d in found.documents] == ["good", "half \ufffd", "x.jsonl:6", "last"]
    assert found.documents[1].text == "an 😀 and \ufffd half"
    assert [s.source for s in found.skipped] == ["x.jsonl:2", "x.jsonl:3", "x.jsonl:5"]
    assert "nested too deeply" in found.skipped[0].reason
    long = read_documents(tmp_path / "x.jsonl", max_bytes=2000)
    assert [d.id for d in long.documents] == ["good", "half \ufffd", "last"]
    assert build_corpus(found.documents, "w", tmp_path / "data", "hash:16").passages >= 4
    assert open_corpus("w", tmp_path / "data").search_sync("half \ud800", 1)


@pytest.mark.parametrize("name", ["deep.json", "deep.ipynb"])
def test_json_without_end_is_named(name: str, put: Put, tmp_path: Path) -> None:
    put("a.txt", "Text.")
    put(name, "[" * 200_000)
    assert "nested too deeply" in read_documents(tmp_path).skipped[0].reason


def test_a_small_archive_does_not_become_a_large_one(put: Put, tmp_path: Path) -> None:
    put("a.txt", "Text.")
    put("bomb.jsonl.gz", gzip.compress(b'{"text": "x"}\n' + b"\n" * 3_000_000))
    put("bomb.epub", zipped({"META-INF/container.xml": "x" * 3_000_000}))
    put("bomb.docx", zipped({"word/document.xml": "x" * 3_000_000}))
    found = read_documents(tmp_path, max_bytes=100_000)
    reasons = {s.source.partition(":")[0]: s.reason for s in found.skipped}
    assert "100 times its size" in reasons["bomb.jsonl.gz"]
    assert "unpacks to" in reasons["bomb.epub"]
    assert "unpacks to" in reasons["bomb.docx"]
    assert [d.id for d in found.documents] == ["a.txt", "bomb.jsonl.gz:1"]


def test_one_id_in_two_files_keeps_both_texts_and_names_the_lines(put: Put, tmp_path: Path) -> None:
    put("a.jsonl", '{"id": 1, "text": "The first."}\n{"id": 2, "text": "Same."}\n')
    put("b.jsonl", '{"id": 2, "text": "Same."}\n{"id": 1, "text": "Another."}\n')
    found = read_documents(tmp_path)
    assert [(d.id, d.text) for d in found.documents] == [
        ("1", "The first."),
        ("2", "Same."),
        ("2", "Same."),
        ("b.jsonl:2", "Another."),
    ]
    (note,) = found.notes
    assert note.source == "b.jsonl:2"
    assert "a.jsonl:1" in note.text
    assert build_corpus(found.documents, "w", tmp_path / "data", "hash:16").passages == 3


def test_an_id_like_that_of_a_passage_is_no_clash(tmp_path: Path) -> None:
    long = Document("a.txt", "One two three four five six seven eight. " * 5, "a")
    line = Document("a.txt#2", "A line of its own.", "b")
    made = build_corpus([long, line], "w", tmp_path, "hash:16", chunking=Chunking(8, 0))
    assert made.passages == 6


def test_pages_without_text_are_named(put: Put, tmp_path: Path) -> None:
    put("a.pdf", pdf(pages=[["One."], [], ["Three."], [], []]))
    found = read_documents(tmp_path)
    assert found.documents[0].text.split() == ["One.", "Three."]
    assert [n.text for n in found.notes] == ["no text on pages 2, 4-5 of 5 (a scan or a picture needs OCR first)"]


def test_a_guessed_encoding_and_an_unclosed_tag_are_noted(put: Put, tmp_path: Path) -> None:
    put("a.txt", "Марш был художником, родившимся в Норвиче.".encode("cp1251"))
    put("b.html", "<p>a<footer>b<p>c")
    notes = {n.source: n.text for n in read_documents(tmp_path).notes}
    assert "cp1251 (guessed" in notes["a.txt"]
    assert "<footer> is not closed" in notes["b.html"]
