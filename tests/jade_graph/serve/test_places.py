"""Places: in the order of asking, never more than there are, none lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.serve.places import Places
from jade_graph.serve.problems import RequestError


async def test_places_are_given_in_the_order_of_asking():
    places, order = Places(1, 10), []

    async def one(i):
        await places.take()
        order.append(i)
        await asyncio.sleep(0)
        places.give(0.1)

    await asyncio.gather(*(one(i) for i in range(8)))
    assert order == list(range(8))
    assert (places.running, places.waiting) == (0, 0)


async def test_the_refusal_tells_a_wait_that_grows_with_the_queue():
    places = Places(1, 3)
    await places.take()
    for _ in range(20):
        places.give(10.0)
        await places.take()
    short = places.wait_s()
    waiting = [asyncio.create_task(places.take()) for _ in range(3)]
    await asyncio.sleep(0)
    assert places.wait_s() > short >= 1
    with pytest.raises(RequestError) as caught:
        await places.take()
    assert caught.value.headers["retry-after"] == str(places.wait_s())
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert places.waiting == 0


@given(st.lists(st.sampled_from(["ask", "ask late", "give", "cancel", "step"]), max_size=60), st.integers(1, 3))
def test_whatever_happens_no_place_is_lost_or_given_twice(actions, concurrency):
    async def play():
        places, asked, held = Places(concurrency, 2), [], 0
        for action in actions:
            if action.startswith("ask"):
                asked.append(asyncio.create_task(places.take(within_s=0 if action == "ask late" else 60)))
            elif action == "cancel" and asked:
                asked[-1].cancel()
            elif action == "give" and held:
                places.give(0.01)
                held -= 1
            if action == "step":
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            for task in [t for t in asked if t.done()]:
                asked.remove(task)
                held += not task.cancelled() and task.exception() is None
            assert held <= places.running <= concurrency
            assert places.waiting <= 2
        for task in asked:
            task.cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        held += sum(result is None for result in done)
        assert (places.running, places.waiting) == (held, 0)

    asyncio.run(play())
