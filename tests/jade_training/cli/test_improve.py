"""What `jade improve` says at its end."""

import shlex
from pathlib import Path

from jade_graph.cli.command import Cli
from jade_training.cli import improve
from jade_training.improve.improver import Improved

FIGURES = {
    "f1": 0.5, "score": 0.5, "f1_ci95": (0.4, 0.6), "f1_by_kind": {}, "calls": 3.0, "routing_bits": 0.0,
    "plans": {"R,AG": 1.0},
}  # fmt: skip


def result(illegal: float) -> Improved:
    folder = Path("my runs/improved")
    evaluations = {0: {**FIGURES, "illegal_rate": 0.9}, 1: {**FIGURES, "illegal_rate": illegal}}
    return Improved(folder, 1, [], evaluations, folder / "best", 1, folder / "last", None, 1.0)


def test_the_next_command_is_complete_and_quoted_for_the_shell():
    cli = Cli(overrides=["k=3"], config_file=Path("of mine.toml"))
    for name, value in (("preset", "m-ask"), ("backbone", "smol"), ("corpus", "my notes"), ("seed", None)):
        cli.put(name, value)
    line = improve.evaluated(cli, "held out.jsonl", result(0.0), limit=20)
    assert shlex.split(line) == [
        "jade", "eval", "held out.jsonl", "--backbone", "my runs/improved/best", "--preset", "m-ask",
        "--corpus", "my notes", "--set", "k=3", "--limit", "20", "--config", "of mine.toml",
    ]  # fmt: skip
    assert improve.evaluated(Cli(), "dev", result(0.0)) == "jade eval dev --backbone 'my runs/improved/best'"


def test_a_model_too_weak_for_its_roles_is_told_so():
    weak, able = result(0.8), result(0.1)  # of the start, which is not what is kept, nothing is said
    assert "80% of the actions were illegal" in improve.as_dict(weak)["advice"]
    assert any("jade sft" in str(line) for line in improve.show(weak, "jade eval"))
    assert improve.as_dict(able)["advice"] == ""
    assert not any("jade sft" in str(line) for line in improve.show(able, "jade eval"))
