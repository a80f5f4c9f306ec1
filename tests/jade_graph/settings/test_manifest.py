import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jade_graph.errors import UsageError
from jade_graph.settings import manifest as m


def test_a_manifest_is_json_and_says_what_matters():
    made = json.loads(json.dumps(m.manifest(seeds=[1, 2], corpus_id="c", k=5, encoder=None)))
    assert made["schema"] == 1
    assert made["jade"] == m.version()
    assert made["seeds"] == [1, 2]
    assert (made["corpus_id"], made["k"]) == ("c", 5)
    assert "encoder" not in made
    assert made["hardware"]["cores"] >= 1
    assert {"torch", "transformers", "langgraph"} <= set(made["packages"])
    assert abs(datetime.now(UTC) - datetime.fromisoformat(made["time"])) < timedelta(minutes=1)


def test_without_seeds_there_are_none():
    assert "seeds" not in m.manifest()


def test_packages_are_the_direct_ones_and_no_extras():
    assert "pytest" not in m.packages()
    assert "rich" in m.packages()


def test_the_checkout_that_the_package_is_in_is_found():
    root = Path(__file__).resolve().parents[3]
    assert m._checkout() == (root if (root / ".git").exists() else None)
    assert (root / "jade_graph" / "settings" / "manifest.py").samefile(m.__file__)


def test_the_commit_of_a_checkout_and_whether_it_was_changed(tmp_path):
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "-m", "one")
    assert m._commit.__wrapped__(tmp_path) == {"commit": git("rev-parse", "HEAD"), "modified": False}
    (tmp_path / "a").write_text("2")
    (tmp_path / "untracked").write_text("x")
    assert m._commit.__wrapped__(tmp_path)["modified"] is True


def test_outside_a_checkout_nothing_is_guessed(tmp_path: Path):
    assert m._commit.__wrapped__(tmp_path) == {}
    assert m._commit(None) == {}


def test_differences_name_both_values_of_unlike_keys_only():
    a = {"k": 5, "hardware": {"cores": 2}, "corpus_id": "x", "time": 1}
    b = {"k": 3, "hardware": {"cores": 2}, "time": 2}
    assert m.differences(a, b, ["k", "hardware.cores", "corpus_id", "neither"]) == {
        "k": (5, 3),
        "corpus_id": ("x", None),
    }
    assert m.differences(a, a) == {}
    assert m.differences(a, b, ["k.deep"]) == {}


def test_comparing_unlike_manifests_is_refused_with_what_differs():
    m.require_alike({"k": 5, "time": 1}, {"k": 5, "time": 2})
    with pytest.raises(UsageError, match=r"MANIFEST_DIFFERS.*k: 5 and 3"):
        m.require_alike({"k": 5}, {"k": 3})


def test_flags_are_a_choice_of_the_machines_own():
    assert set(m.cpu_flags()) <= set((m._cpuinfo().get("flags") or m._cpuinfo().get("Features") or "").split())
