"""The reloader: a promotion or rollback reaches the pool, and whatever fails leaves the old version serving."""

from __future__ import annotations

import gc
import logging
import threading
import time
from typing import Any

import pytest

from jade_graph.errors import BackboneError
from tests.waiting import until

from .conftest import House, Source


async def test_promotion_and_rollback(following: Any, source: Source, house: House) -> None:
    backbone = following()
    backbone.follow(None)
    source.champion = 2
    await until(lambda: backbone.version == "v2" and house.open == 1)
    source.champion = 1
    await until(lambda: backbone.version == "v1" and house.open == 1)
    status = backbone.status()
    assert (status.swaps, status.active, status.ok, status.following) == (2, 1, True, True)
    assert status.as_dict()["held"] == {"1": 0}
    assert house.most == 2


async def test_nothing_is_followed_before_a_graph_asks(following: Any, source: Source) -> None:
    backbone = following()
    source.champion = 2
    calls = source.calls
    assert backbone.version == "v1"
    assert not backbone.status().following
    assert source.calls == calls


async def test_a_third_version_waits_for_the_oldest_and_goes_to_the_newest(
    following: Any, source: Source, house: House
) -> None:
    backbone = following()
    backbone.follow(None)
    lease = backbone.lease()
    source.champion = 2
    await until(lambda: backbone.version == "v2")
    source.champion = 3
    await until(lambda: backbone.status().waiting == 3)
    source.champion = 4
    await until(lambda: backbone.status().waiting == 4)
    assert lease.version == "v1"
    assert (house.open, backbone.version) == (2, "v2")
    lease.release()
    await until(lambda: backbone.version == "v4")
    assert 3 not in house.loaded
    assert house.most == 2


async def test_rollback_to_a_version_that_drains_loads_nothing(following: Any, source: Source, house: House) -> None:
    backbone = following()
    backbone.follow(None)
    lease = backbone.lease()
    source.champion = 2
    await until(lambda: backbone.version == "v2")
    source.champion = 1
    await until(lambda: backbone.version == "v1")
    assert house.loaded == [1, 2]
    assert lease.backbone is backbone.lease().backbone


async def test_a_version_that_does_not_load_is_refused_once(
    following: Any, source: Source, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = following()
    backbone.follow(None)
    house.broken = {2}
    with caplog.at_level(logging.ERROR, "jade_graph.versions"):
        source.champion = 2
        await until(lambda: not backbone.status().ok)
        calls = source.calls
        await until(lambda: source.calls > calls + 5)
    alarm = backbone.status().alarm
    assert (alarm.number, alarm.code) == (2, "BACKBONE_LOAD")
    assert backbone.version == "v1"
    assert source.fetched.count(2) == 1
    assert len(caplog.records) == 1
    assert "version 2 is refused, version 1 serves on" in caplog.text
    source.champion = 1
    await until(lambda: backbone.status().ok)
    source.champion, house.broken = 2, set()
    await until(lambda: not backbone.status().ok)  # refused for good ..
    backbone.reloader.retry()
    await until(lambda: backbone.version == "v2" and backbone.status().ok)  # .. unless somebody asks


async def test_a_loader_that_raises_anything_blames_the_version(
    following: Any, source: Source, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(number: int, folder: Any) -> Any:
        raise RuntimeError("a shape does not fit")

    backbone = following()
    monkeypatch.setattr(backbone.reloader, "_load", load)
    backbone.follow(None)
    source.champion = 2
    await until(lambda: backbone.status().alarm is not None)
    assert backbone.status().alarm.code == "BACKBONE_LOAD"
    assert "RuntimeError: a shape does not fit" in backbone.status().alarm.message
    assert backbone.status().outages == 0
    assert source.fetched.count(2) == 1


async def test_a_version_that_fails_its_check_is_closed(following: Any, source: Source, house: House) -> None:
    def check(backbone: Any) -> dict[str, float]:
        if backbone.version == "v2":
            raise BackboneError("it answers nothing.", code="SMOKE_NO_ANSWER")
        return {}

    backbone = following()
    backbone.follow(check)
    source.champion = 2
    await until(lambda: backbone.status().alarm is not None and house.open == 1)
    assert backbone.status().alarm.code == "SMOKE_NO_ANSWER"
    source.champion = 3
    await until(lambda: backbone.version == "v3" and backbone.status().ok)


def test_a_first_version_that_fails_its_check_is_not_served(following: Any) -> None:
    def check(backbone: Any) -> dict[str, float]:
        raise BackboneError("it answers nothing.", code="SMOKE_NO_ANSWER")

    backbone = following()
    with pytest.raises(BackboneError):
        backbone.follow(check)
    assert not backbone.status().following


def test_no_version_has_the_alias(following: Any, source: Source) -> None:
    source.champion = None
    with pytest.raises(BackboneError) as caught:
        following()
    assert caught.value.error_code == "VERSION_NO_ALIAS"


async def test_an_alias_that_is_taken_away_is_an_alarm(following: Any, source: Source) -> None:
    backbone = following()
    backbone.follow(None)
    source.champion = None
    await until(lambda: not backbone.status().ok)
    assert backbone.status().alarm.code == "VERSION_NO_ALIAS"
    assert backbone.version == "v1"


async def test_an_outage_is_survived_and_waited_out(following: Any, source: Source, house: House) -> None:
    backbone = following()
    backbone.follow(None)
    source.down = True
    await until(lambda: backbone.status().outages > 2)
    assert "no route" in backbone.status().outage
    assert backbone.status().ok
    assert backbone.version == "v1"
    source.champion, source.down = 2, False
    await until(lambda: backbone.version == "v2" and backbone.status().outages == 0)


def test_waits_grow_while_the_registry_is_away_and_end(following: Any, source: Source) -> None:
    backbone = following(poll_s=2.0)
    assert backbone.reloader.step() == 2.0
    source.down = True
    waits = [backbone.reloader.step() for _ in range(12)]
    assert 2.0 <= waits[0] <= 3.0
    assert 4.0 <= waits[1] <= 6.0
    assert waits[-1] == 60.0
    source.down = False
    assert backbone.reloader.step() == 2.0


async def test_an_outage_during_the_download_is_no_fault_of_the_version(
    following: Any, source: Source, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = source.fetch, [ConnectionError("cut off"), ConnectionError("cut off")]

    def fetch(reference: int) -> Any:
        if failures:
            raise failures.pop()
        return real(reference)

    backbone = following()
    monkeypatch.setattr(source, "fetch", fetch)
    backbone.follow(None)
    source.champion = 2
    await until(lambda: backbone.version == "v2")
    assert backbone.status().ok


async def test_an_alias_that_moves_on_during_the_load_is_believed(following: Any, source: Source, house: House) -> None:
    backbone = following()
    backbone.follow(None)
    house.loading_s = 0.05
    source.champion = 2
    await until(lambda: backbone.status().loading == 2)
    source.champion = 1  # rolled back before it ever served
    await until(lambda: backbone.status().loading is None and house.open == 1)
    assert backbone.status().swaps == 0


async def test_closing_ends_the_thread_and_every_version(following: Any, source: Source, house: House) -> None:
    backbone = following()
    backbone.follow(None)
    backbone.lease()
    source.champion = 2
    await until(lambda: backbone.version == "v2")
    await backbone.aclose()
    await backbone.aclose()
    assert house.open == 0
    assert not backbone.status().following
    with pytest.raises(BackboneError) as caught:
        backbone.lease()
    assert caught.value.error_code == "BACKBONE_CLOSED"


async def test_closing_during_a_load_leaves_nothing_open(following: Any, source: Source, house: House) -> None:
    backbone = following()
    backbone.follow(None)
    house.loading_s = 0.1
    source.champion = 2
    await until(lambda: backbone.status().loading == 2)
    await backbone.aclose()
    assert house.open == 0


def test_a_backbone_that_is_dropped_stops_its_thread(source: Source, house: House) -> None:
    from jade_graph.versions import VersionedBackbone

    backbone = VersionedBackbone.open(source, house, model="dropped", poll_s=0.002)
    backbone.follow(None)
    del backbone
    gc.collect()
    end = time.monotonic() + 10
    while any(t.name == "jade-reload-dropped" for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert house.open == 0
