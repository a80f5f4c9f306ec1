"""Follows an alias: fetches what it points at, checks it, and makes it the version that new runs lease.

Invariant: all of it happens in one thread of its own, never on an event loop. Whatever fails (registry, download,
load, smoke questions), the active version goes on serving; a version becomes active only when it passed everything and
the alias still points at it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jade_graph.errors import JadeError, RetrievalError
from jade_graph.types import Backbone
from jade_graph.versions.apart import run_apart
from jade_graph.versions.pool import Pool
from jade_graph.versions.smoke import Check
from jade_graph.versions.source import VersionSource

POLL_S = 2.0
_MOST_WAIT_S = 60.0
_STOP_S = 30.0

logger = logging.getLogger("jade_graph.versions")

Loader = Callable[[Any, Path], Backbone]
"""Opens the fetched version (the source's own description, and its folder)."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A version that the alias points at and that does not serve: which, why (an error code), and since when (Unix)."""

    number: int | None
    code: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """What follows the alias is doing.

    Attributes:
        model, alias: what is followed.
        active: the version that new runs lease, and `version`, as runs record it.
        held: versions in memory and the runs that hold each.
        loading: a version that is being fetched, loaded or asked its smoke questions.
        waiting: a version that waits until an older one is drained.
        alarm: why the version behind the alias does not serve; None: it does, or will.
        swaps: how often another version became active.
        swapped_at, polled_at: Unix seconds of the last swap and of the last answer of the registry; None: none yet.
        outage: what the registry's last failure was; "" while it answers. `outages`: failures in a row.
        following: whether the alias is being watched.
    """

    model: str
    alias: str
    active: int
    version: str
    held: Mapping[int, int]
    loading: int | None = None
    waiting: int | None = None
    alarm: Alarm | None = None
    swaps: int = 0
    swapped_at: float | None = None
    polled_at: float | None = None
    outage: str = ""
    outages: int = 0
    following: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing needs a person: no version was refused. An outage of the registry does not count."""
        return self.alarm is None

    def as_dict(self) -> dict[str, Any]:
        """The status as JSON can hold it, with `ok`."""
        return {**asdict(self), "held": {str(k): v for k, v in self.held.items()}, "ok": self.ok}


class Reloader:
    """Keeps a pool at the version behind an alias.

    Args:
        source: the registry.
        pool: what it keeps; its first version is trusted unless `check_first` is called.
        load: opens a fetched version.
        model, alias: what is followed.
        poll_s: seconds between two looks at the alias; doubled, with some chance, while the registry fails, up to a
            minute.
    """

    def __init__(
        self,
        source: VersionSource,
        pool: Pool,
        load: Loader,
        *,
        model: str = "jade-backbone",
        alias: str = "champion",
        poll_s: float = POLL_S,
    ) -> None:
        self._source, self._pool, self._load = source, pool, load
        self._model, self._alias, self._poll_s = model, alias, poll_s
        self._check: Check | None = None
        self._refused: dict[int, Alarm] = {}
        self._alarm: Alarm | None = None
        self._loading: int | None = None
        self._waiting: int | None = None
        self._swaps = 0
        self._swapped_at: float | None = None
        self._polled_at: float | None = None
        self._outage, self._outages = "", 0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    # --- from any thread ----------------------------------------------------------------------------------------------
    def start(self, check: Check | None = None) -> None:
        """Begin to follow; later calls do nothing.

        Args:
            check: asks a version its smoke questions; None: what loads is good enough.
        """
        with self._lock:
            if self._thread is not None or self._stopping.is_set():
                return
            self._check = check
            self._thread = threading.Thread(target=self._work, name=f"jade-reload-{self._model}", daemon=True)
            self._thread.start()

    @property
    def following(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._stopping.is_set()

    def wake(self) -> None:
        """Look now instead of at the next poll."""
        self._wake.set()

    def retry(self) -> None:
        """Forget which versions were refused, and try again."""
        self._refused.clear()
        self._wake.set()

    def stop(self) -> None:
        """Stop following and close every version. A download or load that has begun is waited for, `_STOP_S` at most;
        what it brings later is closed at once.
        """
        self._stopping.set()
        self._wake.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_S)
            if thread.is_alive():
                logger.warning("version %s of %s is still being loaded; it is closed when it is", self._loading, self)
        for backbone in self._pool.close():
            _close(backbone)

    def status(self) -> ReloadStatus:
        """What it is doing now."""
        backbone = self._pool.backbone
        return ReloadStatus(
            model=self._model,
            alias=self._alias,
            active=self._pool.active,
            version=backbone.version,
            held=self._pool.leases(),
            loading=self._loading,
            waiting=self._waiting,
            alarm=self._alarm,
            swaps=self._swaps,
            swapped_at=self._swapped_at,
            polled_at=self._polled_at,
            outage=self._outage,
            outages=self._outages,
            following=self.following,
        )

    def __str__(self) -> str:
        return f"{self._model}@{self._alias}"

    # --- in its own thread --------------------------------------------------------------------------------------------
    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                wait = self.step()
            except Exception:  # a bug must not end the watch: the next look may go well
                logger.exception("following %s failed", self)
                wait = self._poll_s
            self._wake.wait(wait)
            self._wake.clear()

    def step(self) -> float:
        """Look once and do what is to be done; returns the seconds until the next look."""
        self._give_up(self._pool.drained())
        try:
            wanted = self._source.current(self._alias)
            self._polled_at = time.time()
            if wanted is None:
                self._alert(Alarm(None, "VERSION_NO_ALIAS", f"no version has the alias {self._alias!r}", time.time()))
            else:
                self._go_to(wanted)
        except Exception as error:  # whatever a registry's client raises; the active version goes on serving
            return self._failed(error)
        if self._outages:
            logger.info("%s: the registry answers again", self)
        self._outage, self._outages = "", 0
        return self._poll_s

    def _go_to(self, wanted: int) -> None:
        """Raises what is not the version's fault: the next look tries again."""
        self._waiting = None
        if wanted == self._pool.active:
            self._alarm = None
        elif self._pool.holds(wanted):  # a rollback while runs of the older version are still there
            self._activate(wanted)
        elif wanted in self._refused:
            self._alarm = self._refused[wanted]
        else:
            if self._pool.full:
                self._give_up(self._pool.drained(pressed=True))
            if self._pool.full:
                self._waiting = wanted
            else:
                self._bring(wanted)

    def _give_up(self, drained: Backbone | None) -> None:
        if drained is not None:
            logger.info("%s: %s has no run left and is given up", self, drained.version)
            _close(drained)

    def _bring(self, number: int) -> None:
        """Fetch, load and check a version; make it active when it passes, refuse it when it does not."""
        self._loading = number
        backbone: Backbone | None = None
        try:
            fetched = False
            try:
                described, folder = self._source.fetch(number)
                fetched = True
                backbone = self._load(described, folder)
                if self._check is not None:
                    self._check(backbone)
            except Exception as error:
                if not blames_version(error, fetched):
                    raise
                self._refuse(number, error)
                return
            if self._stopping.is_set() or self._moved(number):
                return
            if self._activate(number, backbone):
                backbone = None
        finally:
            self._loading = None
            if backbone is not None:
                _close(backbone)

    def _moved(self, number: int) -> bool:
        """Whether the alias has left the version meanwhile. Where the registry does not say, it has not."""
        try:
            now = self._source.current(self._alias)
        except Exception:
            return False
        if now == number:
            return False
        logger.info("%s: went on to version %s while version %s was loaded", self, now, number)
        self._wake.set()
        return True

    def _activate(self, number: int, backbone: Backbone | None = None) -> bool:
        before = self._pool.active
        if not self._pool.activate(number, backbone):
            return False
        self._swaps, self._swapped_at, self._alarm = self._swaps + 1, time.time(), None
        logger.info("%s: version %s serves new runs, after version %s", self, number, before)
        self._wake.set()  # the former version may have no run at all
        return True

    def _refuse(self, number: int, error: Exception) -> None:
        code = error.error_code if isinstance(error, JadeError) else "BACKBONE_LOAD"
        told = str(error) if isinstance(error, JadeError) else f"{type(error).__name__}: {error}"
        alarm = Alarm(number, code, told, time.time())
        self._refused[number] = alarm
        self._alert(alarm)

    def _alert(self, alarm: Alarm) -> None:
        if self._alarm is None or (alarm.number, alarm.code) != (self._alarm.number, self._alarm.code):
            self._alarm = alarm
            what = f"version {alarm.number} is refused" if alarm.number is not None else "nothing to follow"
            logger.error("%s: %s, version %s serves on: %s", self, what, self._pool.active, alarm.message)

    def _failed(self, error: Exception) -> float:
        self._outages += 1
        told = f"{type(error).__name__}: {error}"
        if told != self._outage:
            logger.warning("%s: the registry does not answer, version %s serves on: %s", self, self._pool.active, told)
        self._outage = told
        # Up to half as long again, so that servers who failed together do not return together.
        wait = self._poll_s * 2.0 ** min(self._outages - 1, 16) * (1 + random.random() / 2)
        return min(wait, max(_MOST_WAIT_S, self._poll_s))


TEMPORARY = frozenset(
    {"SMOKE_SEARCH", "REGISTRY_BUSY", "REGISTRY_FAILED", "REGISTRY_MISSING_PACKAGE", "REGISTRY_UNREACHABLE"}
)
"""Codes of errors that another try may not meet."""


def blames_version(error: Exception, fetched: bool) -> bool:
    """Whether an error while a version was brought in is the version's own, so that trying again is of no use.

    Args:
        fetched: it happened after the download: what has no type then is the version's fault, before it the network's.
    """
    if isinstance(error, RetrievalError):
        return False
    return error.error_code not in TEMPORARY if isinstance(error, JadeError) else fetched


def _close(backbone: Backbone) -> None:
    """Close a version that nobody uses. What it raises then is of interest to the log alone."""
    if not threading.main_thread().is_alive():
        return  # the interpreter is ending: no thread can be started any more, and nothing is left to free
    try:
        run_apart(backbone.aclose())
    except Exception:
        logger.exception("version %s did not close", backbone.version)
