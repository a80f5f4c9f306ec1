"""`jade feedback` and `jade microworld users`: simulated clicks in, labels out, users forgotten."""

from __future__ import annotations

import json

import pytest

from jade_graph.cli import main
from jade_graph.microworld import parse
from jade_graph.retrieval.corpus import build_corpus

WORLD = "train?n=12&scale=0.5"


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What a command prints with --json; its exit code must be `code`."""
    monkeypatch.chdir(tmp_path)

    def call(*words, code=0):
        assert main([*words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


def test_from_simulated_users_to_labels_and_back(told, tmp_path):
    made = told("microworld", "users", WORLD, "--sessions", "200", "--truth", "truth.json", "--depth", "5")
    assert (made["events"], made["sessions"], made["queries"]) == (1000, 200, 12)
    assert json.loads((tmp_path / "truth.json").read_text()) == {"eta": made["eta"], "others": 1.0}
    assert made["with_evidence"] > 6

    assert told("feedback", "import", "clicks.jsonl")["new"] == 1000
    taken = told("feedback", "import", "clicks.jsonl")
    assert (taken["new"], taken["known"], taken["total"]) == (0, 1000, 1000)

    given = told("feedback", "diagnose", "--examination", "truth.json")
    assert given["counts"]["users"] == 5
    assert given["ranks"][1]["least"] == pytest.approx(2**-2.5)
    assert given["expected_bias"]["user-aware"] == 0 < given["expected_bias"]["oblivious"]
    assert told("feedback", "diagnose")["examination"]["how"] == "fitted"

    done = told("feedback", "fit", "--examination", "truth.json", "--corpus", f"microworld:{WORLD}")
    lines = [json.loads(line) for line in (tmp_path / done["file"]).read_text().splitlines()]
    assert len(lines) == done["queries"]
    assert sum(len(line["documents"]) for line in lines) == done["documents"]
    for line in lines:
        assert line["source"]["estimator"] == "user-aware"
        for document in line["documents"]:
            assert document["text"]
            low, high = document["interval"]
            assert 0 <= low <= document["label"] <= high <= 1
    told("feedback", "fit", "--interval", "bootstrap", "--resamples", "3", "--out", "naive.jsonl")
    assert "text" not in json.loads((tmp_path / "naive.jsonl").read_text().split("\n")[0])["documents"][0]

    assert told("feedback", "export")["events"] == 1000
    assert "user-1" not in (tmp_path / "feedback-events.jsonl").read_text()
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "feedback-events.jsonl").read_bytes())
    (tmp_path / "naive.jsonl").unlink()
    gone = told("feedback", "forget", "user-1", "--also", "copy.jsonl")
    assert gone["events"] > 0
    assert {each["file"].rpartition("/")[2] for each in gone["files"]} == {
        "copy.jsonl", "feedback-events.jsonl", "feedback-labels.jsonl"
    }  # fmt: skip
    assert [each["file"].rpartition("/")[2] for each in gone["missing"]] == ["naive.jsonl"]
    for name in ("copy.jsonl", "feedback-events.jsonl", "feedback-labels.jsonl"):
        assert gone["user"] not in (tmp_path / name).read_text()
    assert told("feedback", "diagnose", "--examination", "power:1")["counts"]["users"] == 4
    assert told("feedback", "forget", "--older-than", "0")["events"] == 1000 - gone["events"]


def test_lists_and_texts_come_from_a_corpus_too(told, tmp_path):
    passages = parse(WORLD)[0].passages[:40]
    build_corpus(passages, "some", tmp_path / ".jade", "hash")
    told("microworld", "users", WORLD, "--sessions", "30", "--corpus", "some", "--set", "retrieval=bm25")
    told("feedback", "import", "clicks.jsonl")
    with (tmp_path / "clicks.jsonl").open("a") as file:
        file.write('{"user": "x", "query": "more", "rank": 1, "document": "elsewhere"}\n')
    assert told("feedback", "import", "clicks.jsonl")["without_session"] == 1
    done = told("feedback", "fit", "--examination", "power:1", "--corpus", "some")
    assert done["without_text"] == 1
    texts = {p.id: str(p) for p in passages}
    for line in (tmp_path / "feedback-labels.jsonl").read_text().splitlines():
        assert all(d["text"] == texts[d["id"]] for d in json.loads(line)["documents"])


def test_lists_in_one_order_are_diagnosed_and_not_fitted(told):
    told("microworld", "users", WORLD, "--sessions", "50", "--shuffle", "0", "--depth", "3")
    told("feedback", "import", "clicks.jsonl")
    found = told("feedback", "diagnose")
    assert found["examination"] is None
    assert "cannot be told from relevance" in found["unclear"][0]
    assert told("feedback", "fit", code=3)["error"]["code"] == "FEEDBACK_UNLINKED"


def test_what_is_wrong_is_told_and_looking_makes_no_store(told, tmp_path):
    for words, code, exit_ in (
        (("diagnose",), "FEEDBACK_NONE", 3),
        (("fit",), "FEEDBACK_NONE", 3),
        (("export",), "FEEDBACK_NONE", 3),
        (("forget",), "FEEDBACK_FORGET", 2),
        (("forget", "ann", "--older-than", "3"), "FEEDBACK_FORGET", 2),
    ):
        assert told("feedback", *words, code=exit_)["error"]["code"] == code
    assert not (tmp_path / ".jade").exists()
    (tmp_path / "half.jsonl").write_text('{"user": "x", "query": "q", "rank": 1, "document": "d"}\n{"user": "x"}\n')
    assert told("feedback", "import", "half.jsonl", code=3)["error"]["code"] == "FEEDBACK_EVENT"
    assert not (tmp_path / ".jade").exists()
    assert told("feedback", "import", "nowhere", code=2)["error"]["code"] == "FEEDBACK_FILE"
    wrong = told("microworld", "users", WORLD, "--etas", "1,x", code=2)
    assert wrong["error"]["code"] == "MICROWORLD_USERS"


def test_people_read_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (
        ("microworld", "users", WORLD, "--sessions", "60", "--depth", "3"),
        ("feedback", "import", "clicks.jsonl"),
        ("feedback", "diagnose", "--examination", "power:1"),
        ("feedback", "fit", "--examination", "power:1"),
        ("feedback", "export"),
        ("feedback", "forget", "user-2"),
    ):
        assert main(list(words)) == 0
    shown = capsys.readouterr().out
    for text in ("180 events of 5 users", "180 events new", "Examination by user", "What these events cannot tell",
                 "labels of", "180 events in", "lines deleted"):  # fmt: skip
        assert text in shown
