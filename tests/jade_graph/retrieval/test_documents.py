"""Folders of documents: what is read, what is left out, and that it is said."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.errors import DataError
from jade_graph.retrieval.documents import Document, Documents, decode, read_documents
from jade_graph.retrieval.html import html_to_markdown

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def pdf(*lines: str) -> bytes:
    """A PDF of one page, written by hand."""
    shown = "".join(f"({line}) Tj T* " for line in lines)
    stream = f"BT /F1 12 Tf 14 TL 50 700 Td {shown}ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(out)
    return out + b"xref\n0 5\n0000000000 65535 f \n" + table + trailer


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
    assert sorted(reasons) == ["binary.txt", "blank.md", "broken.pdf", "empty.txt", "large.txt", "scan.pdf"]
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-32", "cp1252"])
def test_encodings(encoding: str) -> None:
    text = "Café “naïve” – 10 €"
    data = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    assert decode(data) == text


def test_charset_of_a_page_is_heeded_unless_it_is_wrong() -> None:
    page = '<meta charset="iso-8859-2"><p>Łódź'
    assert decode(page.encode("iso-8859-2"), html=True) == page
    wrong = '<meta charset="nonsense"><p>Łódź'
    assert decode(wrong.encode(), html=True) == wrong


@given(st.binary(max_size=200).filter(lambda b: b"\x00" not in b))
def test_any_bytes_without_nul_become_text(data: bytes) -> None:
    assert isinstance(decode(data), str)


def test_html_keeps_what_a_reader_sees() -> None:
    page = html_to_markdown(
        "<html><head><title>T</title><style>p{}</style></head><body><nav>Menu</nav><script>x()</script>"
        "<h2>Part <b>one</b></h2><p>Hello\n big&nbsp;<i>world</i>.</p><ul><li>a<li>b</ul>"
        "<table><tr><th>k</th><td>v</td></tr></table><pre># code\n  y</pre>tail"
    )
    assert page.title == "T"
    assert page.text == "## Part one\n\nHello big world.\n\na\nb\n\nk v\n\n```\n# code\ny\n```\n\ntail"


def test_html_without_a_title_takes_its_first_heading() -> None:
    assert html_to_markdown("<h1>Head</h1>x").title == "Head"
    assert html_to_markdown("just text").title == ""


def test_an_unclosed_inner_tag_does_not_hide_the_rest() -> None:
    assert html_to_markdown("<nav><svg>menu</nav><p>body").text == "body"


@given(st.text(alphabet="<>/abph1!-&;'\" =", max_size=80))
def test_broken_markup_never_raises(html: str) -> None:
    assert isinstance(html_to_markdown(html).text, str)
