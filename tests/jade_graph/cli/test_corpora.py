"""index, search and corpora, with an encoder that needs no weights."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def notes() -> Path:
    folder = Path("My Notes")
    folder.mkdir()
    (folder / "ships.md").write_text(
        "# Ships\n\nThe Aurora was built in Oslo by [bold]Nils Berg[/]. It carried timber.\n"
    )
    (folder / "people.txt").write_text("Nils Berg was a shipwright born in Bergen.\n")
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 nothing")
    return folder


@pytest.fixture
def index(jade):
    return lambda *args: jade("index", *args, "--encoder", "hash:64", "--json")


def test_a_folder_becomes_a_corpus_named_after_it(jade, index, notes):
    done = index(str(notes))
    assert done.code == 0
    made = done.json
    assert (made["name"], made["passages"], made["documents"], made["embedded"]) == ("my-notes", 2, 2, 2)
    assert made["encoder_spec"] == "hash:64"
    assert [s["source"] for s in made["skipped"]] == ["torn.pdf"]
    assert "torn.pdf" in done.err
    assert "torn.pdf" in jade("corpora", "show", "my-notes").out


def test_indexing_again_does_only_what_has_changed(index, notes):
    index(str(notes), "--corpus", "n")
    assert index(str(notes), "--corpus", "n").json["embedded"] == 0
    (notes / "people.txt").write_text("Ann Lee was born in Rome.\n")
    again = index(str(notes), "--corpus", "n").json
    assert (again["embedded"], again["reused"], again["removed"]) == (1, 1, 1)


def test_passages_are_cut_as_asked(index, tmp_path):
    Path("long.txt").write_text(" ".join(f"Sentence {i} has five words." for i in range(40)))
    assert index("long.txt", "--words", "20", "--overlap", "5").json["passages"] > 5
    assert index("long.txt", "--words", "20", "--overlap", "19").json["error"]["code"] == "BAD_CHUNKING"


def test_a_data_set_is_recognised_and_its_passages_indexed(index):
    folder = Path("set")
    folder.mkdir()
    passages = [{"id": f"p{i}", "title": f"T{i}", "text": f"Fact number {i}."} for i in range(3)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, passages)))
    (folder / "questions.jsonl").write_text(
        json.dumps(
            {"id": "q", "question": "Which fact?", "answers": ["1"], "type": "1hop", "hops": 1, "supporting": ["p1"]}
        )
    )
    assert index("set").json["passages"] == 3


@pytest.mark.parametrize(
    ("path", "code"),
    [("nowhere", "DOCUMENTS_NOT_FOUND"), ("nope:x", "DATASET_NOT_FOUND"), (".", "DOCUMENTS_UNREADABLE")],
)
def test_what_cannot_be_indexed(index, path, code):
    done = index(path, "--corpus", "c")
    assert (done.code, done.json["error"]["code"]) == (3, code)


def test_another_encoder_is_refused_unless_asked_for(jade, index, notes):
    index(str(notes), "--corpus", "n")
    other = ("index", str(notes), "--corpus", "n", "--encoder", "hash:32", "--json")
    assert jade(*other).json["error"]["code"] == "ENCODER_MISMATCH"
    assert jade(*other, "--replace-encoder").json["encoder_spec"] == "hash:32"


def test_searching_tells_every_rank(jade, index, notes):
    index(str(notes), "--corpus", "n")
    done = jade("search", "n", "who built the Aurora", "-k", "1", "--json").json
    (first,) = done["results"]
    assert (first["rank"], first["title"]) == (1, "Ships")
    assert (first["bm25_rank"], first["dense_rank"]) == (1, 1)
    words = jade("search", "n", "Bergen", "--mode", "bm25", "--json").json
    assert [r["dense_rank"] for r in words["results"]] == [None]
    assert words["mode"] == "bm25"


def test_a_search_for_people_shows_text_as_text_and_cuts_it(jade, index, notes):
    index(str(notes), "--corpus", "n")
    assert "[bold]Nils Berg[/]" in jade("search", "n", "Aurora").out
    cut = jade("search", "n", "Aurora", "--width", "10", "-k", "1").out
    assert "The Auror…" in cut
    assert "No passage" in jade("search", "n", "xyzzy", "--mode", "bm25").out


def test_listing_and_removing(jade, index, notes):
    assert jade("corpora", "list", "--json").json == {"corpora": []}
    assert "jade index" in jade("corpora", "list").out
    index(str(notes), "--corpus", "n")
    assert [c["name"] for c in jade("corpora", "list", "--json").json["corpora"]] == ["n"]
    assert "My Notes" in jade("corpora", "list").out
    assert jade("corpora", "remove", "n", "--yes", "--json").json == {"removed": "n", "passages": 2}
    assert jade("corpora", "list", "--json").json == {"corpora": []}
    for command in (("corpora", "show"), ("corpora", "remove")):
        assert jade(*command, "n", "--json").json["error"]["code"] == "UNKNOWN_CORPUS"
    assert jade("search", "n", "x", "--json").code == 4


def test_removing_asks_first(jade, index, notes, monkeypatch):
    index(str(notes), "--corpus", "n")
    monkeypatch.setattr("typer.confirm", lambda *a, **k: False)
    assert jade("corpora", "remove", "n").code == 1
    assert len(jade("corpora", "list", "--json").json["corpora"]) == 1


def test_every_common_file_is_read_or_named_with_its_reason(jade, index):
    from ..retrieval.samples import KINDS

    folder = Path("all")
    (folder / ".git").mkdir(parents=True)
    for name, data in KINDS.items():
        (folder / name).write_bytes(data)
    left = {"x.doc": b"old", "y.png": b"\x89PNG", "z": b"?", "torn.docx": b"PK", "empty.md": b""}
    for name, data in left.items():
        (folder / name).write_bytes(data)
    (folder / "legacy.txt").write_bytes("Марш был художником, родившимся в Норвиче.".encode("cp1251"))
    (folder / "away").symlink_to("/tmp")
    done = index("all")
    made = done.json
    assert made["files"] == len(KINDS) + 1
    reasons = {s["source"]: s["reason"] for s in made["skipped"]}
    assert sorted(reasons) == sorted([*left, ".git/", "away/"])
    assert reasons["x.doc"] == "of no known kind (.doc)"
    assert reasons["z"] == "of no known kind (no suffix)"
    assert [n["source"] for n in made["notes"]] == ["legacy.txt"]
    read = {
        p["metadata"]["source"]
        for p in jade("corpora", "show", "all", "--passages", "--limit", "0", "--json").json["cut"]
    }
    assert read == {*KINDS, "legacy.txt"}
    assert {p.name for p in folder.iterdir()} == read | {name.rstrip("/") for name in reasons}
    for told in (
        "torn.docx",
        "1 .doc",
        "x.doc",
        "away/",
        "hidden",
        "guessed",
        f"read {made['files']} files, left out 7",
    ):
        assert told in done.err, told


def test_passages_are_shown_as_they_were_cut(jade, index, notes):
    index(str(notes), "--corpus", "n")
    shown = jade("corpora", "show", "n", "--passages")
    assert "2 of 2 passages" in shown.out
    assert "shipwright born in Bergen" in shown.out
    one = jade("corpora", "show", "n", "--of", "ships.md", "--json").json
    assert (one["found"], [p["title"] for p in one["cut"]]) == (1, ["Ships"])
    assert "cut" not in jade("corpora", "show", "n", "--json").json


def test_questions_with_answers_alone_are_documents(index):
    Path("faq.jsonl").write_text(json.dumps({"question": "Who built it?", "answer": "Berg"}) + "\n")
    assert index("faq.jsonl", "--corpus", "faq").json["passages"] == 1
