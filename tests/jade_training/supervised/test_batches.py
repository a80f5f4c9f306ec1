"""Micro-batches: within their tokens, every example once a pass, something of everything in each step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jade_training.supervised.batches import collate, grouped


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), min_size=1, max_size=60),
    st.integers(8, 200),
    st.integers(1, 20),
    st.integers(1, 3),
)
def test_every_example_stands_once_in_a_pass_and_steps_are_equally_many(
    lengths: list[tuple[int, int]], tokens: int, rows: int, passes: int
) -> None:
    examples = [([0] * prompt, [0] * action) for prompt, action in lengths]
    groups, each = grouped(examples, tokens, rows, 0, passes=passes)
    assert len(groups) % each == 0
    assert sorted(i for group in groups for i in group) == sorted([*range(len(examples))] * passes)
    assert all(groups)
    assert grouped(examples, tokens, rows, 0, passes=passes) == (groups, each)


def test_a_step_mixes_what_is_long_and_what_is_short() -> None:
    examples = [([0] * (300 if i % 3 == 0 else 20), [0] * 5) for i in range(240)]
    groups, each = grouped(examples, 1000, 24, 0, passes=1)
    steps = [groups[i : i + each] for i in range(0, len(groups), each)]
    assert len(steps) == 10
    for step in steps:
        long = sum(i % 3 == 0 for group in step for i in group)
        assert 2 <= long <= 14
        assert all(max(len(examples[i][0]) + 5 for i in group) * len(group) <= 1000 for group in step)


def test_rows_end_together_and_padding_takes_no_position() -> None:
    rows = collate([{"input_ids": [7, 8, 9], "labels": [-100, 8, 9]}, {"input_ids": [5], "labels": [5]}])
    assert rows["input_ids"].tolist() == [[7, 8, 9], [0, 0, 5]]
    assert rows["labels"].tolist() == [[-100, 8, 9], [-100, -100, 5]]
    assert rows["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert rows["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
