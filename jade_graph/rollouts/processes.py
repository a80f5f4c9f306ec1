"""Work in processes of its own, for what Python's threads cannot do at once.

Invariant: a process ends with the one that began it, however that one ended; what it raises comes back as it was; and
leaving the context leaves none behind.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from jade_graph.errors import JadeError
from jade_graph.settings.manifest import cores

Tell = Callable[[Any], None]
Work = Callable[[Tell], None]
"""What a process does. It is pickled, so: a function of a module, a `functools.partial` of one. It is called with a
function that sends whatever can be pickled to the process that began it."""

WATCH_S = 0.5


class ProcessError(JadeError):
    """A process ended without a word."""

    code = "PROCESS_DIED"


@dataclass
class Processes:
    """Pieces of work, each in a fresh interpreter, `at_once` of them at a time; they share torch's threads out.

    A script that uses this needs `if __name__ == "__main__"`, as any does that begins processes.
    """

    work: Sequence[Work]
    at_once: int
    running: dict[int, BaseProcess] = field(default_factory=dict)
    _begun: int = 0
    _told: Any = None

    def __enter__(self) -> Self:
        # Not forked: a fork of a process with threads, as every one with a model is, may hang at its first lock.
        self._told = multiprocessing.get_context("spawn").Queue()
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.join()
        self.running.clear()
        self._told.close()

    def told(self, timeout: float) -> Any:
        """The next thing that a process sent; None when `timeout` seconds passed without, or a process ended.

        Raises:
            Exception: whatever a process raised. ProcessError: PROCESS_DIED, a process was killed.
        """
        try:
            number, kind, what = self._told.get(timeout=timeout)
        except queue.Empty:
            for process in self.running.values():
                if process.exitcode is not None and self._told.empty():
                    raise ProcessError(
                        f"a process ended with code {process.exitcode} in the middle of its work.",
                        hint="the same command again goes on; with fewer processes where memory was short",
                    ) from None
            return None
        if kind == "told":
            return what
        self.running.pop(number).join()
        if kind == "raised":
            raise what
        self._begin()
        return None

    def _begin(self) -> None:
        threads = max(1, cores() // self.at_once)
        while len(self.running) < self.at_once and self._begun < len(self.work):
            arguments = (self.work[self._begun], self._begun, self._told, os.getpid(), threads)
            process = multiprocessing.get_context("spawn").Process(target=_main, args=arguments)
            process.start()
            self.running[self._begun] = process
            self._begun += 1


def _main(work: Work, number: int, told: Any, parent: int, threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C is the parent's to act on
    threading.Thread(target=_watch, args=(parent,), name="jade-parent", daemon=True).start()
    try:
        work(lambda what: told.put((number, "told", what)))
    except BaseException as error:
        told.put((number, "raised", _sendable(error)))
    else:
        told.put((number, "ended", None))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
