"""What holds prompts is its owner's alone, whatever the umask is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jade_graph import private
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.retrieval.lock import write_lock
from jade_graph.runs.store import RunStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")


@pytest.fixture
def generous() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _modes(root: Path) -> dict[str, int]:
    return {p.relative_to(root).as_posix(): p.stat().st_mode & 0o777 for p in (root, *root.rglob("*"))}


def test_a_store_that_python_makes(tmp_path: Path, generous: None, scripted: Any, passages: Any) -> None:
    data = tmp_path / "new" / ".jade"
    with RunStore(data / "runs.db") as store:
        JadeGraph(scripted(), retriever=passages, recorder=store).run("Who?")
        let = store.claim("r")
        assert let is not None
        modes = _modes(data)
        let()
    assert (data / "runs.db-wal").name in modes
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077 and "claims/" not in name} == {}
    assert modes["runs.db-claims"] == 0o700


def test_a_corpus(tmp_path: Path, generous: None) -> None:
    with write_lock(tmp_path / "data" / "corpora" / "notes"):
        pass
    assert {(tmp_path / "data").stat().st_mode & 0o777, (tmp_path / "data/corpora").stat().st_mode & 0o777} == {0o700}


def test_the_command_line_whatever_the_umask_is(tmp_path: Path) -> None:
    """A file that nobody thought of: the process's own umask is narrow before a command runs."""
    code = "import os; os.umask(0); import jade_graph.cli as c; c.main = lambda: open('f', 'w').close() or 0; c.entry()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_what_was_there_keeps_its_rights(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    private.folder(shared / "data")
    assert [shared.stat().st_mode & 0o777, (shared / "data").stat().st_mode & 0o777] == [0o750, 0o700]
    assert private.is_open(shared)
    assert not private.is_open(shared / "data")
    with pytest.raises(FileExistsError):
        private.folder(private.file(tmp_path / "file"))
