"""The folder of a long command: nothing of anybody else's is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from jade_graph.cli import main
from jade_graph.errors import UsageError
from jade_training.cli.workfolder import COMPARE, IMPROVE, taken


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_documents_is_refused_and_kept(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "handbook.md").write_text("mine")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.txt").write_text("mine too")
    with pytest.raises(UsageError, match=r"OUT_TAKEN.*handbook\.md"):
        taken(tmp_path, IMPROVE, fresh=fresh)
    assert (tmp_path / "models" / "a.txt").read_text() == "mine too"
    with pytest.raises(UsageError, match=r"OUT_TAKEN.*is no folder"):
        taken(tmp_path / "handbook.md", IMPROVE, fresh=fresh)
    assert (tmp_path / "handbook.md").read_text() == "mine"


@pytest.mark.parametrize("names", [IMPROVE, COMPARE])
def test_begun_again_all_but_what_was_added_goes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if "." in name or "-" in name:
            (tmp_path / name).write_text("x")
        else:
            (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    taken(tmp_path, names, fresh=False)
    assert {p.name for p in tmp_path.iterdir()} == {*names, "notes.txt"}
    taken(tmp_path, names, fresh=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_one_that_was_cut_off_before_its_state_was_written_is_its_own(tmp_path: Path) -> None:
    for name in ("runs.sqlite", "iterations"):
        (tmp_path / name).mkdir()
    taken(tmp_path, IMPROVE, fresh=False)
    taken(tmp_path / "new", IMPROVE, fresh=True)


@pytest.mark.parametrize("command", ["improve", "compare"])
def test_the_commands_keep_their_hands_off(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("mine")
    held = {"improve": ("--held-out", "microworld:validation?n=4&scale=0.1"), "compare": (
        "--dev", "microworld:validation?n=4&scale=0.1", "--test", "microworld:test?n=4&scale=0.1", "--train",
        "microworld:train?n=4&scale=0.1", "--quick",
    )}  # fmt: skip
    dataset = ("microworld:train?n=4&scale=0.1",) if command == "improve" else ()
    assert main([command, *dataset, *held[command], "--out", "docs", "--fresh"]) == 2
    assert "OUT_TAKEN" in capsys.readouterr().err
    assert (tmp_path / "docs" / "a.md").read_text() == "mine"


def test_questions_of_ones_own_need_held_out_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"id": "1", "question": "Who?", "answers": ["me"]}\n')
    assert main(["improve", "train.jsonl"]) == 2
    assert "NO_HELD_OUT" in capsys.readouterr().err
