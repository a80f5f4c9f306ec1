"""`jade register`, `versions`, `promote`, `rollback`, `history`, `diff`: the commands around a registry."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from jade_graph.scoring.keeping import save_rows
from jade_graph.testing.evaluations import simulate_pair

FACTS = {"dataset": "films", "dataset_id": "d1", "seed": 0, "schema": 1, "hardware": {"cores": 2}}


@pytest.fixture
def data(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path(".jade").mkdir()
    shutil.copy(empty_database, Path(".jade") / "mlflow.db")
    return Path(".jade")


def variant(folder: str) -> str:
    from safetensors.torch import load_file, save_file

    from jade_graph.backbones import TINY

    shutil.copytree(TINY, folder)
    values = load_file(Path(folder) / "model.safetensors")
    values["model.norm.weight"] = values["model.norm.weight"] * 1.5
    save_file(values, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    return folder


def evidence(contents: list[str], gain: float) -> list[str]:
    """Options that name saved evaluations: the champion's, the challenger's."""
    ours, theirs = simulate_pair(0, 400, gain=gain)
    options = []
    for i, (content, rows) in enumerate(zip(contents, [theirs, ours][-len(contents) :], strict=True)):
        save_rows(Path(f"{i}.jsonl"), rows, FACTS | {"backbone_version": content})
        options += ["--evidence", f"{i}.jsonl"]
    return options


def test_from_a_folder_to_the_champion_and_back(jade, data):
    Path("gate.toml").write_text("[gain]\nresamples = 1000\n")
    Path("strict.toml").write_text("[gain]\nresamples = 1000\n[first]\nleast = 0.99\n")
    assert "jade register" in jade("versions").out
    assert "jade promote" in jade("history").out
    first = jade("register", "tiny", "--json").json
    assert (first["number"], first["new"], first["aliases"]) == (1, True, ["challenger"])
    assert jade("register", "tiny", "--json").json["new"] is False
    poor = jade("promote", "1", *evidence([first["content"]], 0.0), "--policy", "strict.toml")
    assert (poor.code, "there is no champion still" in poor.out) == (9, True), poor.err
    assert jade("promote", "1", *evidence([first["content"]], 0.0)).code == 0
    second = jade("register", variant("better"), "--note", "norm times 1.5", "--json").json

    contents = [first["content"], second["content"]]
    refusal = jade("promote", *evidence(contents, 0.0))
    assert refusal.code == 9
    assert "REFUSED" in refusal.out
    assert "version 2 is refused" in refusal.out.lower()
    judged = jade("promote", "--dry-run", "--json", *evidence(contents, 0.15))
    assert (judged.code, judged.json["promoted"], judged.json["verdict"]["passed"]) == (0, False, True)
    done = jade("promote", "2", "--json", *evidence(contents, 0.15)).json
    assert done["promotion"]["from"] == 1
    assert jade("promote", "2", "--json").json["error"]["code"] == "PROMOTION_SAME"

    listed = jade("versions", "--json").json["versions"]
    assert [(v["number"], v["aliases"]) for v in listed] == [(2, ["champion"]), (1, [])]
    back = jade("rollback", "--reason", "worse", "--json").json
    assert (back["from"], back["to"], back["reason"]) == (2, 1, "worse")
    failed = jade("rollback")
    assert failed.code == 9
    assert "ROLLBACK_NOTHING" in failed.err
    log = jade("history", "--json").json
    assert log["champion"] == 1
    assert [p["kind"] for p in log["promotions"]] == ["rollback", "promote", "first"]
    assert "worse" in jade("history").out

    # The log compared the two: nothing has to be run.
    shown = jade("diff", "1", "models:/jade-backbone/2", "--markdown", "diff.md", "--show", "2")
    assert shown.code == 0, shown.err
    assert "answers turned right" in shown.out
    assert "| norm | 5" in Path("diff.md").read_text()
    assert jade("diff", "1", "2", "--weights-only", "--json").json["behaviour"] is None


def test_force_needs_a_reason(jade, data):
    jade("register", "tiny")
    refused = jade("promote", "1", "--force", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "PROMOTION_REASON")
    looked = jade("promote", "1", "--force", "--reason", "no time", "--dry-run")
    assert looked.code == 0
    assert "nothing was changed" in looked.out
    assert jade("promote", "1", "--force", "--reason", "no time", "--json").json["promotion"]["kind"] == "force"
    assert "Next" not in jade("register", "tiny").out, "the champion needs no promotion"


def test_the_policy_can_be_printed_and_read(jade, data):
    text = jade("promote", "--show-policy").out
    assert tomllib.loads(text)["gain"]["metric"] == "f1"
    assert all(line.isascii() for line in text.splitlines())
    Path("gate.toml").write_text(text.replace('metric = "f1"', 'metric = "em"'))
    assert jade("promote", "--show-policy", "--json").json["gain"]["metric"] == "em"
    Path("gate.toml").write_text("[gain]\nleats = 1\n")
    told = jade("promote", "--show-policy", "--json").json["error"]
    assert (told["code"], told["hint"]) == ("GATE_POLICY_KEY", "did you mean 'least'?")


def test_unknown_versions(jade, data):
    assert jade("promote", "--json").json["error"]["code"] == "VERSION_UNKNOWN"
    jade("register", "tiny")
    told = jade("diff", "1", "7", "--json")
    assert (told.code, told.json["error"]["code"]) == (9, "VERSION_UNKNOWN")
    assert "1" in told.json["error"]["known"]


@pytest.mark.slow
def test_versions_that_are_really_asked(jade, data, monkeypatch):
    monkeypatch.setenv("JADE_ENCODER", "hash")
    Path("gate.toml").write_text(
        '[questions]\ndataset = "microworld:validation?n=32"\nminimum = 20\n[latency]\nratio = 0\n'
    )
    jade("register", "tiny")
    first = jade("promote", "1", "--json")
    assert first.code == 0, first.err
    rules = {rule["rule"]: rule for rule in first.json["verdict"]["rules"]}
    assert rules["questions"]["figures"]["n"] == 32
    jade("register", variant("other"))
    second = jade("promote", "--json")
    assert second.json["verdict"]["n"] == 32
    assert second.json["manifest"]["backbone"] == "models:/jade-backbone/2"
    assert second.code == (0 if second.json["promoted"] else 9)
    # A norm that is 1.5 times larger sharpens the distribution: greedy answers are the same.
    assert second.json["verdict"]["rules"][2]["figures"]["difference"] == 0.0
    assert jade("diff", "1", "2", "--limit", "16", "--json").json["behaviour"]["same_answer"] == 1.0
    assert jade("ask", "Who directed it?", "--backbone", "models:/jade-backbone@champion").code == 0


def test_one_recorded_decision_is_looked_into_in_two_registered_versions(jade, data):
    from jade_graph.backbones.folders import BUNDLED

    for name in ("tiny", "tiny-hasty"):
        assert jade("register", str(BUNDLED[name])).code == 0
    asked = jade("ask", "Which company employs Dora Hopkins?", "--backbone", "tiny", "--plan", "R,DS,AG")
    assert asked.code == 0, asked.err
    looked = jade("diff", "1", "2", "--weights-only", "--look", "--json")
    assert looked.code == 0, looked.err
    seen = looked.json["look"]
    new = [head for head in seen["top_b"] if head not in seen["top_a"]]
    assert new
    assert [head["head"] for head in seen["took_over"]] == new
    assert seen["ld"]["a"] != seen["ld"]["b"]
    printed = jade("diff", "1", "2", "--weights-only", "--look")
    assert f"took over: {', '.join(new)}" in " ".join(printed.out.split())
