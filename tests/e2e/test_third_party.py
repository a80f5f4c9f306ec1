"""Third parties' packages add parts without touching the engine: `expander` a role, a plan rule, a preset, a retriever
and a command, `second_look` a loop and a reward.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "samples"
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
LOOPING = """
from jade_graph import JadeGraph, Passage, Question, plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.scoring.credit import assign
from jade_graph.scoring.rewards import RewardSpec, score_run
from jade_graph.testing.roles import check_role

check_role(plugins.load("jade.roles", "RD"))

class Shelf:
    corpus_id = "shelf"

    async def search(self, query, k):
        if "Dune" in query:
            return [Passage("2", "Frank Herbert wrote it in 1965.", "Writing")]
        return [Passage("1", "-", "Dune")]

def policy(ask):
    return f"<answer>{'Frank Herbert' if 'Herbert' in ask.view.evidence[0].text else 'unknown'}</answer>"

graph = JadeGraph(ScriptedBackbone(policy), preset="second-look", retriever=Shelf())
question = Question("q", "Who wrote the desert novel?")
run = graph.run(question)
assert [t.role for t in run.transitions] == ["R", "RD", "R", "RD"], run
scored = score_run(run, question, RewardSpec(outcome="grounded"))
rewards = [t.reward for t in assign(run, scored, mode="terminal_gae")]
print(run.answer, run.counters.rounds, scored.outcome, rewards)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sample packages, really installed by pip into a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    samples = [str(SAMPLES / name) for name in ("expander", "second_look")]
    done = subprocess.run([*command, "--target", str(target), *samples], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(target), "COLUMNS": "120"}


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_role_a_rule_a_preset_and_a_retriever_work_on_the_engine(environment: dict[str, str]) -> None:
    assert run(environment, "-c", PROGRAM).strip() == "QE,R,AG | alpha-0 beta-0"


def test_a_loop_and_a_reward_work_on_the_engine(environment: dict[str, str]) -> None:
    told = run(environment, "-c", LOOPING).strip()
    assert told == "Frank Herbert 2 {'grounded': 1.0} [None, 0.0, None, 1.0]"


def test_a_command_and_all_parts_are_listed(environment: dict[str, str]) -> None:
    assert run(environment, "-m", "jade_graph.cli", "expander", "hello").strip() == "hello from the expander"
    listed = run(environment, "-m", "jade_graph.cli", "plugins", "list", "--json")
    assert "jade-expander" in listed
    assert all(f'"{part}"' in listed for part in ("QE", "RD", "second-look", "grounded"))


def test_the_loop_and_the_reward_take_less_than_sixty_lines() -> None:
    (module,) = (SAMPLES / "second_look").rglob("*.py")
    assert len(module.read_text("utf-8").splitlines()) < 60
