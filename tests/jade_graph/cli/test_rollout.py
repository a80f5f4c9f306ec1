"""`jade rollout` and `jade export`: one command after the other, going on, being interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

POLICY = """
import os, signal, threading
from jade_graph.cli.console import Output

ACTIONS = {"PL": "<workflow>R,AG</workflow>", "AG": "<answer>Ann Lee</answer>"}
INTERRUPTED = True

def policy(ask):
    return ACTIONS[ask.role]

def stopped(ask):
    if INTERRUPTED and ask.role == "AG" and ask.question_id == "q2":
        heard, warn = threading.Event(), Output.warn

        def tell(self, text):
            warn(self, text)
            heard.set()

        Output.warn = tell
        os.kill(os.getpid(), signal.SIGINT)
        heard.wait(60)  # the run goes on no further before the interrupt is told
    return ACTIONS[ask.role]
"""
FAST = ("--set", "encoder=hash:64", "--set", "retrieval=bm25")


def hotpot(count: int) -> str:
    context = [["Film", ["The film was made by Ann Lee."]], ["Other", ["A river runs through the town."]]]
    records = [
        {"_id": f"q{i}", "question": f"Who made film {i}?", "answer": "Ann Lee", "type": "bridge", "context": context,
         "supporting_facts": [["Film", 0]]}
        for i in range(count)
    ]  # fmt: skip
    return json.dumps(records)


@pytest.fixture
def rolled(jade: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`rolled(OPTION..)`: `jade rollout dev.json` with a scripted backbone."""
    Path("rollout_policy.py").write_text(POLICY)
    Path("dev.json").write_text(hotpot(4))
    monkeypatch.syspath_prepend(".")
    return lambda *args: jade("rollout", "dev.json", "--backbone", "scripted:rollout_policy", *FAST, *args)


def test_a_rollout_is_recorded_and_exported(jade: Any, rolled: Any) -> None:
    from jade_graph.runs.export import read_export

    done = rolled("--runs-per-question", "2", "--seed", "3", "--limit", "2", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert (told["runs"], told["fresh"], told["failed"], told["unscored"], told["f1"]) == (4, 4, 0, 0, 1.0)
    assert (told["plans"], told["calls"]) == ({"R,AG": 1.0}, 2.0)
    assert told["made_with"]["sampling"] == {"temperature": 1.0, "top_p": 1.0}
    assert told["next"].startswith(f"jade export {told['id']} ")
    exported = jade("export", told["id"], "--out", "out", "--json")
    assert exported.code == 0, exported.err
    assert exported.json["counts"]["runs"] == 4
    runs = read_export("out").runs
    assert {run.metadata["rollout"] for run in runs} == {told["id"]}
    assert {run.question_id for run in runs} == {"q0", "q1"}
    assert jade("export", told["id"], "--out", "out", "--json").json["error"]["code"] == "EXPORT_EXISTS"
    assert jade("export", told["id"], "--out", "out", "--force").code == 0
    assert "content hash" in jade("export", "--out", "all", "--preset", "jade").out


def test_the_same_command_goes_on_and_another_one_begins_anew(rolled: Any) -> None:
    first = rolled("--json", "--limit", "2").json
    more = rolled("--json").json
    assert (more["id"], more["runs"], more["fresh"]) == (first["id"], 4, 2)
    for change in (("--seed", "9"), ("--temperature", "0.5"), ("--preset", "vanilla-rag"), ("--set", "k=2")):
        assert rolled("--json", "--limit", "1", *change).json["id"] != first["id"]
    assert rolled("--id", first["id"], "--seed", "9", "--json").json["error"]["code"] == "ROLLOUT_CHANGED"


def test_the_temperature_is_the_options_then_the_settings_then_one(rolled: Any) -> None:
    assert rolled("--json", "--limit", "1").json["made_with"]["sampling"]["temperature"] == 1.0
    settings = ("--json", "--limit", "1", "--set", "sampling.temperature=0.7")
    assert rolled(*settings).json["made_with"]["sampling"]["temperature"] == 0.7
    assert rolled(*settings, "--temperature", "0.2").json["made_with"]["sampling"]["temperature"] == 0.2
    assert "all runs of a question are the same" in rolled("--temperature", "0", "--runs-per-question", "2").err


def test_the_table_shows_the_figures_and_the_next_command(rolled: Any) -> None:
    done = rolled("--id", "mine", "--store", "sqlite:///here.db")
    assert done.code == 0, done.err
    assert Path("here.db").exists()
    assert "rollout mine" in done.out
    assert "R,AG 100%" in done.out
    assert "jade export mine --out mine --set store.url=sqlite:///here.db" in done.out


def test_several_processes_make_the_same_rollout(jade: Any, rolled: Any) -> None:
    """The data set's own passages are indexed once; each process opens the corpus that the command made."""
    done = rolled("--runs-per-question", "2", "--workers", "2", "--id", "mine", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert (told["fresh"], told["failed"]) == (told["runs"], 0)
    again = rolled("--runs-per-question", "2", "--id", "mine", "--json").json
    assert (again["fresh"], again["runs"], again["f1"]) == (0, told["runs"], told["f1"])


def test_nothing_recorded_and_unknown_rollouts_are_errors(jade: Any, rolled: Any) -> None:
    assert jade("export", "--out", "out", "--json").json["error"]["code"] == "EXPORT_EMPTY"
    assert not any(Path(os.environ["HOME"]).rglob("runs.db"))
    rolled("--id", "mine", "--limit", "1")
    told = jade("export", "mien", "--out", "out", "--json").json["error"]
    assert (told["code"], told["known"], told["hint"]) == ("UNKNOWN_ROLLOUT", ["mine"], "did you mean 'mine'?")
    assert jade("export", "mine", "--out", "out", "--version", "x", "--json").json["error"]["code"] == "EXPORT_EMPTY"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_interrupted_rollout_says_how_to_go_on(rolled: Any) -> None:
    command = [sys.executable, "-m", "jade_graph.cli", "rollout", "dev.json", *FAST, "--id", "mine"]
    stopped = subprocess.run(
        [*command, "--backbone", "scripted:rollout_policy:stopped", "--concurrency", "1"],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": "."},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    assert stopped.returncode == 130, stopped.stderr
    assert "2 of 4 runs are recorded" in stopped.stderr
    assert "--id mine" in stopped.stderr
    # The version of a scripted backbone is its name.
    told = rolled("--id", "mine", "--json").json["error"]
    assert told["code"] == "ROLLOUT_CHANGED"
    Path("rollout_policy.py").write_text(POLICY.replace("INTERRUPTED = True", "INTERRUPTED = False"))
    done = subprocess.run(
        [*command, "--backbone", "scripted:rollout_policy:stopped", "--json"],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["runs"], json.loads(done.stdout)["fresh"]) == (4, 2)
