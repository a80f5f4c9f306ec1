"""`jade fork`, the pictures of `jade runs show`, and what `jade studio` refuses."""

import json
from pathlib import Path

import pytest

POLICY = """
def policy(ask):
    return {"PL": "<workflow>QR,R,AG</workflow>", "QR": "<query>door</query>", "AG": "<answer>Ann</answer>"}[ask.role]
"""


@pytest.fixture
def recorded(jade, monkeypatch, tmp_path):
    """A run of a scripted model over a small corpus; returns the options that every command here needs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fork_policy.py").write_text(POLICY)
    Path("doc.txt").write_text("Ann stands at the door.")
    options = ["--set", "backbone=scripted:fork_policy:policy", "--set", "corpus=docs", "--set", "encoder=hash"]
    assert jade("index", "doc.txt", "--corpus", "docs", *options[4:]).code == 0
    done = jade("ask", "Who stands where?", "--json", *options)
    assert done.code == 0, done.err
    return done.json["run_id"], options


def test_a_fork_replays_edits_and_is_recorded(jade, recorded):
    run_id, options = recorded
    done = jade("fork", run_id[:8], "--at", "0:QR", "--query", "window", "--json", *options)
    assert done.code == 0, done.err
    told = done.json
    assert (told["parent"], told["replayed"], told["fork"]["edit"]) == (run_id, 1, {"text": "<query>window</query>"})
    assert told["first_difference"][1]["action"] == "<query>window</query>"
    shown = jade("runs", "show", told["run_id"], "--json").json
    assert shown["metadata"]["parent"] == run_id
    assert [t["sampling"].get("edited", False) for t in shown["transitions"]] == [False, True, False, False]
    assert "forked from" in jade("fork", "last", "--at", "3", *options).out


def test_wrong_forks_are_refused_with_a_code(jade, recorded):
    run_id, options = recorded
    for more, code in (
        (["--at", "9"], "FORK_AT"),
        (["--at", "1", "--query", " "], "FORK_EDIT"),
        (["--at", "2", "--documents", "a"], "FORK_EDIT"),
        (["--at", "0", "--plan", "AG,R"], "PLAN_ILLEGAL"),
    ):
        assert jade("fork", run_id, *more, "--json", *options).json["error"]["code"] == code
    assert jade("fork", "nope", "--at", "0", "--json").json["error"]["code"] == "RUN_NOT_FOUND"


def test_a_run_as_a_page_and_as_mermaid(jade, recorded):
    run_id, options = recorded
    assert jade("runs", "show", run_id, "--html", "run.html", *options).code == 0
    text = Path("run.html").read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "Who stands where?" in text
    drawn = jade("runs", "show", run_id, "--mermaid")
    assert drawn.out.startswith("flowchart TD\n")
    told = json.loads(jade("runs", "show", run_id, "--mermaid", "--json").out)
    assert told["mermaid"].strip() == drawn.out.strip()


def test_the_studio_lets_nobody_in_without_a_token(jade):
    done = jade("studio", "--host", "0.0.0.0", "--no-open", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "STUDIO_TOKEN")
    assert not Path(".jade").exists()
