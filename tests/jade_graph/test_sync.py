"""Synchronous calls: on one loop, never waiting for themselves, also after a fork."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jade_graph.errors import UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.sync import iterate_sync, run_sync


async def loop_id() -> int:
    return id(asyncio.get_running_loop())


def test_all_calls_share_one_loop_in_a_thread_of_its_own() -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(run_sync(loop_id()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert set(found) == {run_sync(loop_id())}


def test_errors_come_through() -> None:
    async def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run_sync(fail())


async def test_a_callers_own_loop_is_not_used() -> None:
    assert run_sync(loop_id()) != await loop_id()


def test_a_call_from_the_loop_itself_is_an_error_and_no_deadlock() -> None:
    async def inner() -> int:
        return run_sync(loop_id())

    async def outer() -> int:
        return await asyncio.wait_for(inner(), 10)

    with pytest.raises(UsageError, match=r"SYNC_IN_LOOP.*await graph\.arun"):
        run_sync(outer())
    assert run_sync(loop_id())  # and the loop still serves


def test_a_role_that_runs_a_graph_gets_the_error_in_its_run(scripted: Any, passages: Any) -> None:
    inner = JadeGraph(scripted(), retriever=passages)
    codes: list[str] = []

    def answer(ask: Any) -> str:
        try:
            inner.run("Inner?")
        except UsageError as error:
            codes.append(error.error_code)
        return "<answer>outer</answer>"

    run = JadeGraph(scripted(AG=answer), retriever=passages).run("Outer?")
    assert (run.answer, codes) == ("outer", ["SYNC_IN_LOOP"])


FORK = """
import asyncio, os
from jade_graph.sync import run_sync

async def pid():
    await asyncio.sleep(0)
    return os.getpid()

assert run_sync(pid()) == os.getpid()
child = os.fork()
if child == 0:
    os._exit(0 if run_sync(pid()) == os.getpid() else 1)
assert os.waitpid(child, 0)[1] == 0
assert run_sync(pid()) == os.getpid()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    """In a process of its own, so that nothing else is copied; a child that waits for ever ends by the alarm."""
    script = "import signal; signal.alarm(60)\n" + FORK.replace("child == 0:", "child == 0:\n    signal.alarm(30)")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("streamed", [False, True])
def test_an_interrupt_that_another_thread_is_given_ends_the_wait(streamed: bool) -> None:
    """The waiting thread sleeps on: nothing but the end of its wait lets it see the signal."""
    done: list[bool] = []

    async def interrupted() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        await asyncio.sleep(30)
        done.append(True)

    async def items() -> AsyncIterator[int]:
        await interrupted()
        yield 1

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(iterate_sync(items())) if streamed else run_sync(interrupted())
    finally:
        signal.signal(signal.SIGINT, before)
    assert not done
