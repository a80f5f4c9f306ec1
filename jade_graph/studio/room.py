"""Where the studio's own runs happen: graphs opened on first use, each question on a thread of its own.

Invariant: starting a run returns at once with its id; whatever goes wrong before the run has begun is in `note` under
that id, as the error's own words. Runs of one graph meet in its backbone's batches.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jade_graph.backbones.folders import BUNDLED
from jade_graph.errors import JadeError, UsageError

if TYPE_CHECKING:
    from jade_graph.langchain.session import Session
    from jade_graph.settings.config import Config
    from jade_graph.types import Event, Run

Configured = Callable[[Sequence[str]], "Config"]
"""The settings with these KEY=VALUE put on top."""


@dataclass
class Job:
    """A run that was asked for. `note`: what is being done, or what went wrong; `said`: of its answer, so far."""

    run_id: str
    note: str = "loading the model"
    failed: bool = False
    said: str = ""
    over: bool = False

    def hear(self, event: Event) -> None:
        if event.kind == "token":
            self.said += event.text
        elif event.kind == "retract":
            self.said = ""


@dataclass
class Room:
    """Opens graphs and starts runs.

    Args:
        configured: the settings.
        limit: graphs that stay open; the one that was used longest ago is closed.
    """

    configured: Configured
    limit: int = 3
    jobs: dict[str, Job] = field(default_factory=dict)
    _sessions: dict[tuple[str, ...], Session] = field(default_factory=dict)
    _busy: dict[tuple[str, ...], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def ask(
        self, question: str, *, backbone: str = "", preset: str = "", corpus: str = "", plan: str = "", seed: int = 0
    ) -> str:
        """Start a run; returns its id. Raises `UsageError` EMPTY_QUESTION."""
        if not question.strip():
            raise UsageError("the question is empty.", code="EMPTY_QUESTION", hint="write one")
        changes = {"backbone": backbone, "preset": preset, "corpus": corpus}
        _must_read(question, backbone or self.configured([]).settings.backbone)

        def go(session: Session, job: Job) -> None:
            session.graph.run(question, seed=seed, run_id=job.run_id, plan=plan or None, on_event=job.hear, tokens=True)

        return self._start(changes, go)

    def fork(
        self,
        run: Run,
        *,
        at: int,
        edit: Mapping[str, Any],
        backbone: str = "",
        corpus: str = "",
        seed: int | None = None,
    ) -> str:
        """Start a fork of a run; returns the new run's id."""
        from jade_graph import plugins

        plugins.load("jade.presets", run.preset)  # a foreign graph's run is refused here, with the known names
        changes = {"backbone": backbone, "preset": run.preset, "corpus": corpus or self._corpus_of(run)}

        def go(session: Session, job: Job) -> None:
            session.graph.fork(run, at=at, run_id=job.run_id, seed=seed, on_event=job.hear, tokens=True, **edit)

        return self._start(changes, go)

    def close(self) -> None:
        """Wait for what runs, then close every graph."""
        for thread in self._threads:
            thread.join()
        for session in self._sessions.values():
            session.__exit__(None, None, None)
        self._sessions.clear()

    def _corpus_of(self, run: Run) -> str:
        """The name of the corpus that the run searched, where it is in the data folder; else the settings' own."""
        from jade_graph.retrieval.manifest import list_corpora

        found = list_corpora(self.configured([]).settings.data_path)
        return next((m.name for m in found if run.corpus_id and run.corpus_id == m.corpus_id), "")

    def _start(self, changes: Mapping[str, str], go: Callable[[Session, Job], None]) -> str:
        run_id = uuid.uuid4().hex
        job = self.jobs[run_id] = Job(run_id)
        key = tuple(f"{name}={value}" for name, value in sorted(changes.items()) if value)

        def work() -> None:
            try:
                session = self._open(key, job)
                try:
                    go(session, job)
                finally:
                    with self._lock:
                        self._busy[key] -= 1
            except JadeError as error:
                job.note, job.failed = str(error), True
            except Exception as error:
                job.note, job.failed = f"{type(error).__name__}: {error}", True
            finally:
                job.over = True

        thread = threading.Thread(target=work, name=f"studio-{run_id[:6]}", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()
        return run_id

    def _open(self, key: tuple[str, ...], job: Job) -> Session:
        from jade_graph.langchain.session import open_session

        def progress(phase: str, done: int, total: int) -> None:
            job.note = f"making the corpus: {phase} {done}/{total}"

        with self._lock:  # two questions at once wait for one model
            session = self._sessions.pop(key, None)
            if session is None:
                job.note = "loading the model"
                session = open_session(self.configured(key), progress=progress)
            self._sessions[key] = session
            self._busy[key] = self._busy.get(key, 0) + 1
            for old in list(self._sessions):
                if len(self._sessions) > self.limit and not self._busy.get(old):
                    self._sessions.pop(old).__exit__(None, None, None)
        job.note = "starting"
        return session


def _must_read(question: str, backbone: str) -> None:
    """The bundled model knows the words of microworld alone. Raises `UsageError` FOREIGN_QUESTION."""
    if backbone not in BUNDLED:
        return
    from jade_graph.microworld.vocabulary import is_foreign, unknown_words

    if is_foreign(question):
        words = ", ".join(repr(w) for w in dict.fromkeys(unknown_words(question)[:5])) or "no word at all"
        raise UsageError(
            f"the bundled model {backbone!r} knows only the invented microworld and cannot read this question "
            f"({words}).",
            code="FOREIGN_QUESTION",
            hint="another model above, or a question of jade microworld show",
        )
