"""The versions in memory and who uses them.

Invariant: a version is given up only when another one is active and nobody holds it, or, where its place is needed,
when its holders are past their time; at most `CAPACITY` are held. Every method is short, and safe from any thread or
event loop.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jade_graph.errors import BackboneError
from jade_graph.types import Backbone

CAPACITY = 2
_GRACE_S = 5.0  # after a run's deadline: its last request is withdrawn by then, and it can make no other


@dataclass(slots=True, eq=False)
class VersionLease:
    """One user's hold on one version: `backbone` stays open and the same until `release`.

    `until` (monotonic seconds) is for users that may never come back, such as a run that waits for a person: after it
    the version may be given up, but only when its place is needed for a newer one. `renew` puts it off.
    """

    number: int
    backbone: Backbone
    until: float
    _pool: Pool
    released: bool = False

    @property
    def version(self) -> str:
        return self.backbone.version

    def release(self) -> None:
        """Give the version back; doing so twice does nothing."""
        self._pool.release(self)

    def renew(self, seconds: float) -> None:
        """The user is still there and needs the version for so long. Raises `BackboneError` VERSION_GONE."""
        self._pool.renew(self, seconds)


@dataclass(slots=True)
class _Held:
    number: int
    backbone: Backbone
    leases: set[VersionLease] = field(default_factory=set)


class Pool:
    """Versions by number; one of them is active, the others drain.

    Args:
        number, backbone: the version to begin with.
    """

    def __init__(self, number: int, backbone: Backbone) -> None:
        self._lock = threading.Lock()
        self._held = {number: _Held(number, backbone)}
        self._active = number
        self._on_free: Callable[[], None] = lambda: None
        self._closed = False

    def notify(self, on_free: Callable[[], None]) -> None:
        """Call `on_free`, in whatever thread gives the last lease back, when a version may be given up."""
        self._on_free = on_free

    @property
    def active(self) -> int:
        return self._active

    @property
    def backbone(self) -> Backbone:
        """The active version's."""
        with self._lock:
            return self._held[self._active].backbone

    @property
    def full(self) -> bool:
        return len(self._held) >= CAPACITY

    def leases(self) -> dict[int, int]:
        """The versions in memory and how many hold each."""
        with self._lock:
            return {number: len(held.leases) for number, held in sorted(self._held.items())}

    def lease(self, *, seconds: float = math.inf, version: str = "") -> VersionLease:
        """Hold the active version, or the one that calls itself `version`.

        Args:
            seconds: how long the user can need it at most.

        Raises:
            BackboneError: VERSION_GONE, BACKBONE_CLOSED.
        """
        with self._lock:
            if self._closed:
                raise BackboneError("this backbone is closed.", code="BACKBONE_CLOSED", hint="open it again")
            held = self._held[self._active]
            if version and held.backbone.version != version:
                others = [h for h in self._held.values() if h.backbone.version == version]
                if not others:
                    raise self._gone(version)
                held = others[0]
            lease = VersionLease(held.number, held.backbone, time.monotonic() + seconds + _GRACE_S, self)
            held.leases.add(lease)
            return lease

    def _gone(self, version: str) -> BackboneError:
        return BackboneError(
            f"the run was begun with the version {version!r}, which is not in memory any more.",
            code="VERSION_GONE",
            known=sorted(h.backbone.version for h in self._held.values()),
            hint="ask the question again, or jade rollback and then resume",
        )

    def renew(self, lease: VersionLease, seconds: float) -> None:
        """See `VersionLease.renew`."""
        with self._lock:
            held = self._held.get(lease.number)
            if lease.released:
                return
            if held is None or held.backbone.version != lease.version:
                raise self._gone(lease.version)
            if lease not in held.leases:  # given up meanwhile, and loaded again by a rollback
                held.leases.add(lease)
                lease.backbone = held.backbone
            lease.until = time.monotonic() + seconds + _GRACE_S

    def release(self, lease: VersionLease) -> None:
        """See `VersionLease.release`."""
        with self._lock:
            lease.released = True
            held = self._held.get(lease.number)
            if held is None or lease not in held.leases:
                return
            held.leases.discard(lease)
            free = not held.leases and lease.number != self._active
        if free:
            self._on_free()

    def activate(self, number: int, backbone: Backbone | None = None) -> bool:
        """Make a version the active one: one that is held, or a new one. False: the pool was closed before.

        Raises `RuntimeError` where there is no room, or no such version: the caller's mistake.
        """
        with self._lock:
            if self._closed:
                return False
            if backbone is not None:
                if number in self._held or len(self._held) >= CAPACITY:
                    raise RuntimeError(f"no room for version {number} beside {sorted(self._held)}")
                self._held[number] = _Held(number, backbone)
            elif number not in self._held:
                raise RuntimeError(f"version {number} is not held")
            self._active = number
            return True

    def holds(self, number: int) -> bool:
        with self._lock:
            return number in self._held

    def drained(self, *, pressed: bool = False) -> Backbone | None:
        """Take out a version that nobody holds, for the caller to close; None: there is none.

        Args:
            pressed: its place is needed: leases that ran out do not keep it.
        """
        now = time.monotonic()
        with self._lock:
            for number, held in self._held.items():
                if number != self._active and all(pressed and lease.until < now for lease in held.leases):
                    del self._held[number]
                    return held.backbone
        return None

    def close(self) -> list[Backbone]:
        """Refuse new leases and hand out all versions, for the caller to close; the second time there are none."""
        with self._lock:
            first, self._closed = not self._closed, True
            return [held.backbone for held in self._held.values()] if first else []
