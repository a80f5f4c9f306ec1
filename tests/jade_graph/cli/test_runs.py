from pathlib import Path

import pytest

from jade_graph import JadeGraph, RunStore
from jade_graph.backbones.scripted import ScriptedBackbone


def policy(ask):
    return {"AG": "<answer>[bold]Ann Lee</answer>"}.get(ask.role, "<workflow>AG</workflow>")


@pytest.fixture
def recorded() -> list[str]:
    with RunStore(Path(".jade/runs.db")) as store:
        graph = JadeGraph(ScriptedBackbone(policy), recorder=store)
        ids = [graph.run("Who wrote [red]X?", run_id=f"{i}{i}first").id for i in range(3)]
        graph.run("Who else?", run_id="failed1", limits=type(graph.limits)(tokens=1))
    return ids


def test_before_the_first_run_there_is_nothing_and_nothing_is_made(jade):
    assert jade("runs", "list", "--json").json == {"runs": [], "total": 0}
    assert "jade ask" in jade("runs", "list").out
    done = jade("runs", "show", "--json")
    assert (done.code, done.json["error"]["code"]) == (6, "RUN_NOT_FOUND")
    assert not Path(".jade").exists()


def test_listing_filters_and_pages(jade, recorded):
    assert jade("runs", "list", "--json").json["total"] == 4
    newest = jade("runs", "list", "--limit", "1", "--json").json
    assert (len(newest["runs"]), newest["total"]) == (1, 4)
    assert newest["runs"][0]["id"] == "failed1"
    older = jade("runs", "list", "--status", "answered", "--offset", "1", "--json").json
    assert [r["id"] for r in older["runs"]] == [recorded[1], recorded[0]]
    assert jade("runs", "list", "--text", "else", "--json").json["total"] == 1
    assert jade("runs", "list", "--preset", "nope", "--json").json["total"] == 0


def test_a_list_for_people_shows_text_as_text(jade, recorded):
    text = jade("runs", "list").out
    assert "[bold]Ann Lee" in text
    assert "LIMIT_TOKENS" in text
    assert "4 of 4 runs" in text


def test_a_run_by_the_beginning_of_its_id_and_the_newest(jade, recorded):
    shown = jade("runs", "show", "00", "--json").json
    assert shown["id"] == recorded[0]
    assert [t["role"] for t in shown["transitions"]] == ["PL", "AG"]
    assert all(len(t["old_logprobs"]) == len(t["action_token_ids"]) for t in shown["transitions"])
    assert "[bold]Ann Lee" in jade("runs", "show", "00").out
    assert jade("runs", "show", "--json").json["id"] == "failed1"


def test_ids_that_fit_none_or_many(jade, recorded):
    assert jade("runs", "show", "nope", "--json").json["error"]["code"] == "RUN_NOT_FOUND"
    assert jade("runs", "show", "", "--json").json["error"]["code"] == "RUN_AMBIGUOUS"


def test_pruning_counts_first_and_removes_when_it_is_told_to(jade, recorded):
    looked = jade("runs", "prune", "--keep", "1", "--json").json
    assert looked == {"removed": 0, "would_remove": 3, "runs": 4, "kept": {"running": 0, "rollouts": 0, "rated": 0}}
    told = jade("runs", "prune", "--keep", "1")
    assert told.out.startswith("3 of 4 runs would go, 1 stay.")
    assert "--yes" in told.err
    assert jade("runs", "list", "--json").json["total"] == 4
    assert jade("runs", "prune", "--keep", "1", "--yes", "--json").json["removed"] == 3
    assert [r["id"] for r in jade("runs", "list", "--json").json["runs"]] == ["failed1"]
    assert jade("runs", "prune", "--older-than", "1d", "--yes", "--json").json["removed"] == 0
    assert jade("runs", "prune", "--json").json["error"]["code"] == "PRUNE_RULE"


def test_a_backup_is_restored_elsewhere(jade, recorded):
    done = jade("backup", "b.tar", "--json").json
    assert (done["files"], done["left_out"]) == (1, [])
    assert jade("restore", "b.tar", "--into", "again").out.startswith("again: 1 files of ")
    assert jade("runs", "list", "--set", "data_dir=again", "--json").json["total"] == 4
    refused = jade("restore", "b.tar", "--into", "again", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (6, "RESTORE_EXISTS")
