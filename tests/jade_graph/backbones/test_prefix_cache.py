"""What the cache says of a prompt is what was written for the same tokens at the same places."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from jade_graph.backbones.prefix_cache import PrefixCache, Recalled, Slots, count, cut, joined

PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=60), min_size=1, max_size=12)


def cache(capacity: int) -> PrefixCache:
    return PrefixCache(1, 1, 1, capacity)


def write(known: PrefixCache, prompt: list[int], found: Recalled) -> None:
    """For keys, a number that tells a token and all before it."""
    for column, slot in enumerate(places(found.fresh), found.at):
        known.kv[0, :, :, slot] = mark(prompt, column)


def places(slots: Slots) -> list[int]:
    return [slot for each in slots for slot in each]


def mark(prompt: list[int], column: int) -> float:
    return float(hash(tuple(prompt[: column + 1])) % 2**23)


@given(st.lists(PROMPTS, min_size=1, max_size=8), st.integers(1, 300))
def test_what_is_recalled_was_written_for_the_same_beginning(admissions: list[list[list[int]]], capacity: int) -> None:
    known = cache(capacity)
    for prompts in admissions:
        recalled = known.recall(prompts)
        for prompt, found in zip(prompts, recalled, strict=True):  # as a session does: in order, writing on the way
            write(known, prompt, found)
            assert count(found.known) == 0 or 16 <= count(found.known) < len(prompt)
            marks = [mark(prompt, column) for column in range(count(found.known))]
            assert known.kv[0, 0, 0, places(found.known)].flatten().tolist() == marks
        fresh = [slot for found in recalled for slot in places(found.fresh)]
        assert len(fresh) == len(set(fresh)), "no slot is given twice"
        assert len(known) <= known.kv.shape[3] <= capacity


def test_the_longest_beginning_is_found_and_one_token_is_left() -> None:
    known = cache(1000)
    prompt = list(range(50))
    assert known.recall([prompt[:30]]) == [Recalled([], 0, [range(30)])]
    assert known.recall([prompt[:40]]) == [Recalled([range(30)], 30, [range(30, 40)])]
    again = known.recall([prompt])[0]
    assert (count(again.known), again.at, count(again.fresh)) == (40, 40, 10)
    assert [count(found.known) for found in known.recall([prompt, prompt[:20], prompt[:16]])] == [49, 19, 0]
    assert len(known) == 50, "each token is held once"
    branch = known.recall([[*prompt[:25], 99, 98]])[0]
    assert (count(branch.known), branch.at, count(branch.fresh)) == (25, 25, 2)
    whole = places(known.recall([prompt])[0].known)
    assert whole == [*places(again.known), *places(again.fresh)[:-1]], "what was cut in two is still whole"


def test_equal_prompts_of_one_admission_are_computed_once() -> None:
    one, other = cache(100).recall([list(range(20))] * 2)
    assert (one.known, one.fresh) == ([], [range(20)])
    assert (other.known, other.fresh) == ([range(19)], [])


def test_the_longest_unused_is_forgotten_first() -> None:
    known = cache(60)
    old, used, new = ([base + n for n in range(20)] for base in (100, 200, 300))
    for prompt in (old, used, new, used):
        known.recall([prompt])
    known.recall([[400 + n for n in range(20)]])
    assert [count(known.recall([prompt])[0].known) for prompt in (used, new)] == [19, 19]
    assert known.recall([old])[0].known == []


def test_what_an_admission_reads_is_not_forgotten_in_it() -> None:
    known = cache(40)
    kept = list(range(20))
    known.recall([kept])
    one, other = known.recall([[*kept, 50], [900 + n for n in range(60)]])
    assert (count(one.known), count(one.fresh)) == (20, 1)
    assert (other.known, count(other.fresh)) == ([], 19), "as much of it is remembered as there is room for"
    assert not {*places(other.fresh)} & {*places(one.known), *places(one.fresh)}


def test_clearing_forgets_and_keeps_the_memory() -> None:
    known = cache(2000)
    prompt = list(range(30))
    known.recall([prompt])
    room = known.nbytes
    known.clear()
    assert (len(known), known.nbytes) == (0, room)
    assert known.recall([prompt])[0].known == []


def test_memory_grows_with_use_up_to_its_bound() -> None:
    known = PrefixCache(2, 3, 4, 3000, torch.bfloat16)
    assert known.nbytes == 0
    known.recall([list(range(10))])
    assert known.kv.shape == (2, 2, 3, 1024, 4)
    known.kv[:, :, :, 9] = 7
    rooms = []
    for first in (1000, 2000, 3000):
        known.recall([list(range(first, first + 1000))])
        rooms.append(known.kv.shape[3])
    assert rooms == [1024, 2048, 3000]
    assert bool((known.kv[:, :, :, 9] == 7).all())


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(0, 60))
def test_slots_are_cut_and_joined_without_loss(sizes: list[int], at: int) -> None:
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    slots = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    above, below = cut(slots, at)
    assert places(above) == places(slots)[:at]
    assert places(below) == places(slots)[at:]
    assert all(above)
    assert all(below)
    assert joined([*below, *above]) == ([range(ends[-1])] if slots else [])
    apart = [range(each.start * 2, each.start * 2 + 1) for each in slots]
    assert joined(reversed(apart)) == apart
