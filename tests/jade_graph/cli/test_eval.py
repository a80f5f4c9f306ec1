"""`jade eval` and `jade bounds`: what is searched, what is compared, which file is read."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jade_graph.cli.eval import _show
from jade_graph.scoring.keeping import RowFile

POLICY = """
ACTIONS = {"PL": "<workflow>R,AG</workflow>", "AG": "<answer>Ann Lee</answer>"}

def policy(ask):
    return ACTIONS[ask.role]
"""
FAST = ("--set", "encoder=hash:64", "--set", "retrieval=bm25", "--set", "seed=3", "--json")


def hotpot(count: int, made_by: str = "Ann Lee") -> str:
    context = [["Film", [f"The film was made by {made_by}."]], ["Other", ["A river runs through the town."]]]
    records = [
        {"_id": f"q{i}", "question": f"Who made film {i}?", "answer": made_by, "type": "bridge", "context": context,
         "supporting_facts": [["Film", 0]]}
        for i in range(count)
    ]  # fmt: skip
    return json.dumps(records)


@pytest.fixture
def evaluated(jade: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`evaluated(DATASET, OPTION..)`: `jade eval` with a scripted backbone."""
    Path("eval_policy.py").write_text(POLICY)
    monkeypatch.syspath_prepend(".")
    return lambda *args: jade("eval", *args, "--backbone", "scripted:eval_policy", *FAST)


def test_the_manifest_says_what_the_figures_were_made_with(evaluated: Any) -> None:
    Path("dev.json").write_text(hotpot(3))
    done = evaluated("dev.json", "--limit", "2", "--preset", "jade", "--set", "limits.rounds=5")
    assert done.code == 0, done.err
    assert (done.json["overall"]["f1"], done.json["overall"]["n"]) == (1.0, 2)
    facts = done.json["manifest"]
    assert (facts["preset"], facts["backbone_version"], facts["questions"]) == ("jade", "scripted:eval_policy", 2)
    assert facts["sampling"] == {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": None}
    assert (facts["limits_set"], facts["limits"]["rounds"], facts["limits"]["depth"]) == ({"rounds": 5}, 5, 2)
    assert (facts["constrained"], facts["k"], facts["seed"], facts["limit"]) == (False, 5, 3, 2)
    assert facts["graph_hash"]
    assert facts["corpus_id"]


def test_saved_evaluations_are_compared_across_methods_and_not_across_settings(evaluated: Any) -> None:
    Path("dev.json").write_text(hotpot(3))
    assert evaluated("dev.json", "--preset", "jade", "--out", "jade.jsonl").code == 0
    other = evaluated("dev.json", "--preset", "vanilla-rag", "--against", "jade.jsonl").json["against"]
    assert other["manifest"]["preset"] == "jade"
    assert other["differences"]["f1"]["difference"] == 0.0
    fresh = evaluated("dev.json", "--preset", "vanilla-rag", "--against", "jade").json["against"]
    assert fresh["manifest"]["graph_hash"] == other["manifest"]["graph_hash"]
    for change in ("sampling.temperature=1.0", "k=2", "limits.rounds=4", "constrained=true"):
        told = evaluated("dev.json", "--set", change, "--against", "jade.jsonl").json["error"]
        assert told["code"] == "MANIFEST_DIFFERS"
        assert change.partition("=")[0].partition(".")[0] in told["message"]
    assert evaluated("dev.json", "--against", "jaed").json["error"]["code"] == "UNKNOWN_PRESET"


@pytest.mark.parametrize("command", ["eval", "bounds"])
def test_a_data_set_without_passages_needs_a_corpus(jade: Any, command: str) -> None:
    Path("qa.jsonl").write_text(json.dumps({"id": "1", "question": "Who?", "golden_answers": ["Ann"]}))
    told = jade(command, "qa.jsonl", "--json").json["error"]
    assert told["code"] == "NO_CORPUS_FOR_DATASET"
    assert "--corpus" in told["hint"]
    named = jade(command, "qa.jsonl", "--corpus", "mine", "--json").json["error"]
    assert named["code"] == "UNKNOWN_CORPUS"


def test_microworld_questions_without_passages_are_asked_over_microworld(monkeypatch: pytest.MonkeyPatch) -> None:
    from jade_graph.assembly import corpora
    from jade_graph.data import Dataset
    from jade_graph.settings.config import load_config
    from jade_graph.types import Question

    monkeypatch.setattr(corpora, "open_retriever", lambda settings, progress: settings.corpus)
    data = Dataset("microworld:test?n=1", [Question("1", "?")])
    assert corpora.open_retriever_for(load_config(), data) == "microworld"


def test_split_and_format_name_what_is_read(jade: Any) -> None:
    folder = Path("set")
    folder.mkdir()
    (folder / "train.json").write_text(hotpot(4))
    (folder / "dev.json").write_text(hotpot(2))
    assert jade("bounds", "set", *FAST).json["error"]["code"] == "DATASET_SPLIT"
    found = jade("bounds", "set", "--split", "dev", *FAST)
    assert found.json["manifest"]["questions"] == 2
    wrong = jade("bounds", "set/dev.json", "--format", "musique", *FAST).json["error"]
    assert wrong["code"].startswith("DATASET_")
    assert jade("eval", "set", "--split", "tset", *FAST).json["error"]["code"] == "DATASET_SPLIT"
    assert jade("eval", "set/dev.json", "--format", "hotpto", *FAST).json["error"]["code"] == "UNKNOWN_DATASET_FORMAT"
    assert jade("eval", "microworld:test?n=1", "--format", "hotpot", *FAST).json["error"]["code"] == "DATASET_OPTION"


@pytest.mark.parametrize(("seed", "name"), [(0, "microworld"), (4, "microworld-4")])
def test_the_demo_leaves_the_shared_corpus_to_seed_0(seed: int, name: str) -> None:
    from jade_graph.cli.command import Cli
    from jade_graph.cli.demo import _index
    from jade_graph.microworld.world import Difficulty, make_world
    from jade_graph.retrieval.corpus import list_corpora

    cli = Cli(overrides=["encoder=hash:64", "retrieval=bm25"])
    cli.out.quiet = True
    world = make_world("test", seed, Difficulty(scale=0.05))
    assert len(_index(cli, world, seed).passages) == len(world.passages)  # type: ignore[attr-defined]
    assert [found.name for found in list_corpora(cli.settings.data_path)] == [name]


def test_questions_without_kinds_have_one_line_that_says_what_came_out(evaluated: Any) -> None:
    lines = [{"id": str(i), "question": f"Who made the film {i}?", "answers": ["Ann Lee"]} for i in range(3)]
    Path("dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("corpus.jsonl").write_text(json.dumps({"id": "a", "title": "Film", "text": "Ann Lee made the film."}) + "\n")
    done = evaluated("dev.jsonl", "--preset", "vanilla-rag")
    assert set(done.json["by_type"]) == {"all"}
    shown = Console(record=True, width=160, file=io.StringIO())
    shown.print(*_show(done.json, "vanilla-rag", "dev.jsonl"))
    assert re.search(r"all +3 ", shown.export_text())


# --- an evaluation that was cut off, samples, several data sets -------------------------------------------------------
def test_an_evaluation_that_was_cut_off_goes_on_where_it_stopped(evaluated: Any, monkeypatch: Any) -> None:
    Path("dev.json").write_text(hotpot(6))
    asked: list[str] = []
    keep = RowFile.keep

    def full(file: RowFile, row: Any) -> None:
        if len(asked) == 4:
            raise OSError("no space left on device")
        asked.append(row.question_id)
        keep(file, row)

    monkeypatch.setattr(RowFile, "keep", full)
    options = ("dev.json", "--preset", "vanilla-rag", "--concurrency", "1", "--no-record")
    assert evaluated(*options, "--out", "rows.jsonl").code != 0
    part = Path("rows.jsonl.part")
    assert not Path("rows.jsonl").exists()
    assert len(part.read_text().splitlines()) == 5
    part.write_text(part.read_text()[:-20])  # the line that was being written when the machine went down
    monkeypatch.setattr(RowFile, "keep", lambda file, row: (asked.append(row.question_id), keep(file, row))[1])
    asked.clear()
    assert evaluated(*options, "--out", "rows.jsonl", "--set", "k=2").json["error"]["code"] == "EVAL_CHANGED"
    done = evaluated(*options, "--out", "rows.jsonl")
    assert done.code == 0
    assert set(asked) == {"q3", "q4", "q5"}
    assert done.json["overall"]["n"] == 6
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()[1:]]
    assert [row["question_id"] for row in rows] == [f"q{i}" for i in range(6)]
    assert not part.exists()
    asked.clear()
    part.write_text("other\n")
    assert evaluated(*options, "--out", "rows.jsonl", "--fresh", "--limit", "2").code == 0
    assert sorted(asked) == ["q0", "q1"]


def test_a_sample_is_drawn_with_the_seed_and_a_larger_one_holds_it(evaluated: Any) -> None:
    Path("dev.json").write_text(hotpot(9))

    def drawn(*options: str) -> list[str]:
        done = evaluated("dev.json", "--preset", "vanilla-rag", "--no-record", "--out", "rows.jsonl", *options)
        assert done.code == 0
        return [json.loads(line)["question_id"] for line in Path("rows.jsonl").read_text().splitlines()[1:]]

    three, five, other = drawn("--sample", "3"), drawn("--sample", "5"), drawn("--sample", "5", "--seed", "4")
    assert (len(three), len(five), len(other)) == (3, 5, 5)
    assert set(three) < set(five) != set(other)
    assert drawn("--sample", "99") == [f"q{i}" for i in range(9)]


def test_several_data_sets_have_figures_each_and_rows_that_are_told_apart(evaluated: Any) -> None:
    Path("dev.json").write_text(hotpot(3))
    Path("other.json").write_text(hotpot(4, "Bo Ek"))
    done = evaluated(
        "dev.json", "other.json", "--preset", "vanilla-rag", "--against", "vanilla-rag", "--out", "r.jsonl"
    )
    assert done.code == 0, done.err
    by = done.json["by_dataset"]
    assert {name: (each["n"], each["f1"]) for name, each in by.items()} == {
        "dev.json": (3, 1.0),
        "other.json": (4, 0.0),
    }
    assert done.json["overall"]["n"] == 7
    assert done.json["against"]["differences"]["f1"]["difference"] == 0.0
    assert " + " in done.json["manifest"]["dataset_id"]
    rows = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()[1:]]
    assert len({row["question_id"] for row in rows}) == 7
