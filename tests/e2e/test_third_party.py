"""A third party's package adds a role, a plan rule, a preset, a retriever and a command without touching the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[1] / "samples" / "expander"
PROGRAM = """
from jade_graph import JadeGraph, plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.testing.roles import check_role

check_role(plugins.load("jade.roles", "QE"))
prompts = []

def policy(ask):
    if ask.role == "PL":
        assert "QE" in ask.view.executors and "QE,R,AG" in [str(p) for p in ask.view.plans]
        return "<workflow>QE,R,AG</workflow>"
    if ask.role == "QE":
        return "<query>alpha</query><query>beta</query>"
    return f"<answer>{ask.view.evidence[0].id} {ask.view.evidence[1].id}</answer>"

retriever = plugins.load("jade.retrievers", "echo")("")
graph = JadeGraph(ScriptedBackbone(policy), preset="expander", retriever=retriever)
run = graph.run("Which letters?")
assert [t.role for t in run.transitions] == ["PL", "QE", "R", "AG"], run
assert graph.grammar.parse("<workflow>QE,AG</workflow>").violation == "NOT_ALLOWED"
print(run.plan, "|", run.answer)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sample package, really installed by pip into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", str(target), str(SAMPLE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(target), "COLUMNS": "120"}


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_role_rule_preset_and_retriever_work_on_the_engine(environment: dict[str, str]) -> None:
    assert run(environment, "-c", PROGRAM).strip() == "QE,R,AG | alpha-0 beta-0"


def test_its_command_and_parts_are_listed(environment: dict[str, str]) -> None:
    assert run(environment, "-m", "jade_graph.cli", "expander", "hello").strip() == "hello from the expander"
    listed = run(environment, "-m", "jade_graph.cli", "plugins", "list", "--json")
    assert "jade-expander" in listed
    assert '"QE"' in listed
