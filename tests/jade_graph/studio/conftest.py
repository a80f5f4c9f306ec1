"""A store with runs of every kind, and a studio in a process of its own with a scripted model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jade_graph import JadeGraph, RunStore
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.retrieval.corpus import build_corpus
from jade_graph.testing.browser import Browser, find
from jade_graph.testing.studio import serving
from jade_graph.types import Limits, Passage, Question

HOSTILE = (
    "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>{{constructor.constructor('window.pwned=1')()}}"
)

# The model of the studio's own runs: a module in the folder where it is started.
POLICY = """
import time


def policy(ask):
    time.sleep(0.12)
    root = ask.view.level == "root"
    plan = "QDP" if root and "parts" in ask.view.question else "R,DS,AG"
    return {
        "PL": f"<workflow>{plan}</workflow>",
        "QDP": "<q1>Who is left?</q1><q2>Who is right?</q2>",
        "QR": "<query>rewritten</query>",
        "DS": "<id>Document0</id>",
        "AG": "<answer>Ann Lee</answer>",
        "AS": "<answer>both</answer>",
    }[ask.role]
"""

PASSAGES = (
    Passage("p0", "Ann Lee is left of the door. She was born in 1950.", "Left"),
    Passage("p1", f"Bo Kim is right of the door. {HOSTILE}", HOSTILE),
    Passage("p2", "The door was made by a carpenter of parts.", "Door"),
    Passage("p3", "Parts of a question are asked at once.", "Parts"),
)

MISSING = "no Chromium on this machine: the studio's pages were NOT tested in a browser (apt-get install chromium)"


def pytest_terminal_summary(terminalreporter) -> None:
    """A quiet run prints no reasons of skipped tests: this one is to be seen."""
    if find() is None:
        terminalreporter.write_line(MISSING, yellow=True)


@dataclass(frozen=True)
class Seeded:
    """Where the studio was started, and the ids of runs in its store."""

    folder: Path
    ids: dict[str, str]


def scripted(plan: str, *, version: str = "one", **more: str) -> ScriptedBackbone:
    def policy(ask):
        root = ask.view.level == "root"
        actions = {
            "PL": f"<workflow>{plan if root else 'R,AG'}</workflow>",
            "QDP": "<q1>Who is left?</q1><q2>Who is right?</q2>",
            "QDS": "<q1>Who is left?</q1><q2>When was #1 born?</q2>",
            "QR": "<query>who is where</query>",
            "DS": "<id>Document0</id>",
            "AG": "<answer>Ann Lee</answer>",
            "AS": "<answer>Ann Lee</answer>",
            **more,
        }
        return actions[ask.role]

    return ScriptedBackbone(policy, version=version)


class Fixed:
    corpus_id = "fixed"

    async def search(self, query: str, k: int) -> list[Passage]:
        return list(PASSAGES[:k])


def fill(folder: Path) -> dict[str, str]:
    """Runs of two versions over six questions, a failed one, a hostile one."""
    questions = [
        Question(
            f"q{i}", f"Who is where, number {i}?", ("Ann Lee" if i % 2 else "Bo Kim",), type="1hop" if i < 3 else "2hop"
        )
        for i in range(6)
    ]
    ids = {}
    with RunStore(folder / ".jade" / "runs.db") as store:
        for version, plan, answer in (("one", "R,AG", "Ann Lee"), ("two", "QDP", "Bo Kim")):
            backbone = scripted(plan, version=version, AS=f"<answer>{answer}</answer>")
            graph = JadeGraph(backbone, retriever=Fixed(), recorder=store)
            for q in questions:
                about = {"answers": list(q.answers)}
                ids[f"{version}-{q.id}"] = graph.run(q, metadata=about, run_id=f"{version}{q.id}".ljust(32, "0")).id
        graph = JadeGraph(scripted("R,DS,AG"), retriever=Fixed(), recorder=store)
        failed = graph.run("Which question has no tokens?", limits=Limits(tokens=120), run_id="failed".ljust(32, "0"))
        assert failed.status == "failed", failed.counters
        ids["failed"] = failed.id
        evil = JadeGraph(
            scripted("R,AG", AG=f"<answer>{HOSTILE}</answer>", version=HOSTILE), retriever=Fixed(), recorder=store
        )
        ids["hostile"] = evil.run(
            f"What about {HOSTILE}?", metadata={"type": HOSTILE}, run_id="hostile".ljust(32, "0")
        ).id
    return ids


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    folder = tmp_path_factory.mktemp("studio")
    (folder / "studio_policy.py").write_text(POLICY)
    build_corpus(PASSAGES, "doors", folder / ".jade", "hash")
    return Seeded(folder, fill(folder))


OPTIONS = ("--set", "corpus=doors", "--set", "backbone=scripted:studio_policy:policy")


@pytest.fixture(scope="session")
def studio(seeded: Seeded) -> Iterator[str]:
    """The address of a running studio."""
    with serving(seeded.folder, *OPTIONS) as base:
        yield base


@pytest.fixture(scope="session")
def chromium(studio: str) -> Iterator[Browser]:
    if find() is None:
        pytest.skip(MISSING)
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, studio: str) -> Iterator[Browser]:
    """A page of the studio. Whatever the test did, no request left the machine and no script of a stranger ran."""
    chromium.requests.clear()
    chromium.errors.clear()
    yield chromium
    assert chromium.run("window.pwned") is None
    assert chromium.requests
    assert chromium.strangers(studio, studio.replace("http:", "ws:")) == []
    assert chromium.errors == []
