"""The pool: who keeps a version in memory, and for how long."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError
from jade_graph.versions import Pool


def backbone(version: str) -> ScriptedBackbone:
    return ScriptedBackbone(lambda ask: "", version=version)


@pytest.fixture
def pool() -> Pool:
    return Pool(1, backbone("one"))


def test_a_lease_keeps_its_version_and_new_ones_get_the_active_one(pool: Pool) -> None:
    old = pool.lease()
    assert pool.activate(2, backbone("two"))
    assert (old.version, pool.lease().version) == ("one", "two")
    assert pool.drained() is None
    old.release()
    old.release()
    gone = pool.drained()
    assert gone is not None
    assert gone.version == "one"
    assert pool.leases() == {2: 1}


def test_never_more_than_two(pool: Pool) -> None:
    pool.lease()
    pool.activate(2, backbone("two"))
    assert pool.full
    with pytest.raises(RuntimeError, match="no room"):
        pool.activate(3, backbone("three"))


def test_the_active_version_is_never_given_up(pool: Pool) -> None:
    assert pool.drained(pressed=True) is None


def test_a_version_that_drains_can_be_made_active_again(pool: Pool) -> None:
    pool.lease()
    pool.activate(2, backbone("two"))
    pool.activate(1)
    assert pool.lease().version == "one"
    gone = pool.drained()
    assert gone is not None
    assert gone.version == "two"


def test_the_last_holder_wakes_whoever_waits(pool: Pool) -> None:
    woken: list[int] = []
    pool.notify(lambda: woken.append(1))
    first, second = pool.lease(), pool.lease()
    first.release()
    assert not woken
    pool.activate(2, backbone("two"))
    second.release()
    assert woken == [1]


def test_a_lease_past_its_time_keeps_its_version_until_the_place_is_needed(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("jade_graph.versions.pool.time.monotonic", lambda: now)
    lease = pool.lease(seconds=10)
    pool.activate(2, backbone("two"))
    now = 112.0  # within the grace
    assert pool.drained(pressed=True) is None
    now = 120.0
    lease.renew(10)
    assert pool.drained(pressed=True) is None
    now = 140.0
    assert pool.drained() is None
    gone = pool.drained(pressed=True)
    assert gone is not None
    assert gone.version == "one"
    with pytest.raises(BackboneError) as caught:
        lease.renew(10)
    assert caught.value.error_code == "VERSION_GONE"
    again = backbone("one")
    pool.activate(1, again)  # a rollback brings the same weights back
    lease.renew(10)
    assert lease.backbone is again
    pool.activate(2)
    assert pool.drained() is None


def test_a_lease_by_name(pool: Pool) -> None:
    kept = pool.lease()
    pool.activate(2, backbone("two"))
    assert pool.lease(version="one").number == 1
    assert pool.lease(version="two").number == 2
    with pytest.raises(BackboneError) as caught:
        pool.lease(version="zero")
    assert caught.value.error_code == "VERSION_GONE"
    assert caught.value.known == ("one", "two")
    kept.release()


def test_a_closed_pool_hands_everything_out_once(pool: Pool) -> None:
    lease = pool.lease()
    assert [b.version for b in pool.close()] == ["one"]
    assert pool.close() == []
    assert not pool.activate(2, backbone("two"))
    lease.release()
    with pytest.raises(BackboneError) as caught:
        pool.lease()
    assert caught.value.error_code == "BACKBONE_CLOSED"


def test_threads_leave_no_lease_behind(pool: Pool) -> None:
    seen: list[Any] = []

    def work() -> None:
        for _ in range(300):
            lease = pool.lease()
            if pool.leases().get(lease.number, 0) < 1:
                seen.append(lease)
            lease.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 200):
        if not pool.full:
            pool.activate(number, backbone(str(number)))
        pool.drained()
    for thread in threads:
        thread.join()
    assert not seen
    pool.drained()
    assert list(pool.leases().values()) == [0]
