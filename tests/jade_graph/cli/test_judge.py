"""`jade judge`: from recorded runs to labels, agreement and satisfaction."""

from __future__ import annotations

import json
import sys
import types

import pytest

from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.export import export_store
from jade_graph.runs.store import RunStore


@pytest.fixture
async def recorded(tmp_path, scripted, passages, monkeypatch):
    """Runs in the project's store, and a judge that can be named on a command line."""
    module = types.ModuleType("a_judge")
    module.asked = []

    def policy(ask):
        module.asked.append(ask.role)
        ids = [d.id for d in ask.view.memory["documents"]]
        return f"<id>Document{ids.index('p0')}</id>" if "p0" in ids else "<id></id>"

    module.policy = policy
    monkeypatch.setitem(sys.modules, "a_judge", module)
    with RunStore(tmp_path / "work" / ".jade" / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, recorder=store, k=3)
        runs = [await graph.arun(f"who wrote book {i}?") for i in range(3)]
        export_store(store, tmp_path / "export")
        yield runs, module


def test_runs_are_judged_once_and_labels_written(recorded, jade, tmp_path):
    _, module = recorded
    done = jade("judge", "--judge", "scripted:a_judge", "--out", "labels.jsonl", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert (told["searches"], told["passages"], told["labelled"], told["fresh"]) == (3, 9, 9, 3)
    assert told["levels"] == {"0": 6, "1": 0, "2": 0, "3": 0, "4": 3}
    assert told["bound"]["calls"] == 3 * 20 >= told["calls"] == len(module.asked) == 60
    assert told["tokens"] <= told["bound"]["tokens"]
    assert "at most 60 calls" in done.err  # said before
    assert done.err.index("at most 60 calls") < done.err.index("judging by")
    lines = [json.loads(line) for line in (tmp_path / "work" / "labels.jsonl").read_text().splitlines()]
    assert len(lines) == told["out"]["rows"] == 3
    again = jade("judge", "usefulness", "--judge", "scripted:a_judge", "--json").json
    assert (again["fresh"], again["levels"], len(module.asked)) == (0, told["levels"], 60)
    one = jade("judge", "--judge", "scripted:a_judge", "--voters", "1", "--json").json
    assert one["judge"] != told["judge"]
    assert len(module.asked) == 60 + 12


def test_an_export_and_single_runs_are_sources_too(recorded, jade, tmp_path):
    runs, module = recorded
    one = jade("judge", runs[0].id[:12], "--judge", "scripted:a_judge", "--json").json
    assert (one["searches"], one["fresh"]) == (1, 1)
    every = jade("judge", str(tmp_path / "export"), "--judge", "scripted:a_judge", "--json").json
    assert (every["searches"], every["fresh"]) == (3, 2)
    limited = jade("judge", "--limit", "2", "--judge", "scripted:a_judge", "--json").json
    assert limited["searches"] == 2
    assert len(module.asked) == 60


def test_agreement_with_people(recorded, jade, tmp_path):
    rows = [
        {"query": f"who wrote book {i}?", "id": f"p{k}", "label": float(k == 0)} for i in range(3) for k in range(3)
    ]
    (tmp_path / "work" / "people.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = jade("judge", "--judge", "scripted:a_judge", "--labels", "people.jsonl", "--json")
    told = done.json["agreement"]
    assert (told["n"], told["weighted_kappa"], told["spearman"], told["bias"]) == (9, 1.0, pytest.approx(1.0), 0.0)
    shown = jade("judge", "--judge", "scripted:a_judge", "--labels", "people.jsonl").out
    assert "against people, 9 passages" in shown


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["satisfation"], "JUDGE_RUNS"),
        (["--voters", "5", "--quorum", "6"], "JUDGE_OPTION"),
        (["--labels", "nowhere.jsonl"], "JUDGE_LABELS"),
        (["satisfaction"], "JUDGE_FEW"),
        (["satisfaction", "--target", "smile"], "JUDGE_TARGET"),
    ],
)
def test_wrong_words_are_told(recorded, jade, args, code):
    more = [] if args[0] == "satisfaction" else ["--judge", "scripted:a_judge"]
    done = jade("judge", *args, *more, "--json")
    assert done.json["error"]["code"] == code


def test_to_look_makes_no_store(jade, tmp_path):
    assert jade("judge", "satisfaction", "--json").json["error"]["code"] == "RUN_NOT_FOUND"
    assert not (tmp_path / "work" / ".jade").exists()
