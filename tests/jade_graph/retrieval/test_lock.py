"""One writer, in threads and processes; a dead one locks nobody out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jade_graph.errors import RetrievalError
from jade_graph.retrieval.lock import LOCK_FILE, holder, write_lock

HOLD = """
import sys, pathlib, time
from jade_graph.retrieval.lock import write_lock
with write_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_in_this_process_is_refused(tmp_path: Path) -> None:
    with write_lock(tmp_path):
        assert f"process {os.getpid()}" in (holder(tmp_path) or "")
        with pytest.raises(RetrievalError) as caught, write_lock(tmp_path):
            pass
    assert caught.value.error_code == "CORPUS_LOCKED"
    assert f"process {os.getpid()}" in str(caught.value)
    assert holder(tmp_path) is None


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), write_lock(tmp_path):
        raise KeyError
    with write_lock(tmp_path):
        assert holder(tmp_path) is not None


def test_a_writer_in_another_process_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RetrievalError, match=f"process {other.pid} on"), write_lock(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == other.pid  # its name stayed behind
    with write_lock(tmp_path):
        assert f"process {os.getpid()}" in (holder(tmp_path) or "")


def test_a_lock_file_with_nonsense_in_it_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("nonsense")
    assert holder(tmp_path) is None
    with write_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("nonsense")
        assert holder(tmp_path) == "another process"


def test_a_folder_nobody_wrote_in_has_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert not (tmp_path / LOCK_FILE).exists()
