from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jade_graph.backbones.prefixes import Stem, shared_stems

FAMILY = [[7] * 30, [8] * 40, [7] * 30 + [8] * 20]
PROMPTS = st.lists(
    st.builds(
        lambda family, length, end: FAMILY[family][:length] + end,
        st.integers(0, 2),
        st.integers(0, 50),
        st.lists(st.integers(1, 3), min_size=1, max_size=4),
    ),
    max_size=16,
)


@given(PROMPTS, st.integers(0, 200))
def test_stems_are_common_beginnings_and_rows_have_one_at_most(prompts: list[list[int]], worth: int) -> None:
    stems = shared_stems(prompts, worth)
    for stem in stems:
        beginnings = {tuple(prompts[row][: stem.length]) for row in stem.rows}
        assert len(beginnings) == 1
        assert all(len(prompts[row]) > stem.length for row in stem.rows), "a token is left to compute"
        assert len(stem.rows) > 1
        assert stem.saved == stem.length * (len(stem.rows) - 1) >= worth
    rows = [row for stem in stems for row in stem.rows]
    assert len(rows) == len(set(rows))


def test_equal_prompts_share_all_but_their_last_token() -> None:
    assert shared_stems([[5] * 40] * 4, 10) == [Stem(39, (0, 1, 2, 3))]


def test_a_long_stem_is_not_given_up_for_a_short_one() -> None:
    """Four equal prompts save 3 x 99; taking in a fifth that shares 20 tokens would save 4 x 20."""
    long, short = [9] * 100, [9] * 20 + [1] * 30
    assert shared_stems([long, short, long, long, long], 10) == [Stem(99, (0, 2, 3, 4))]
    assert shared_stems([long[:40], short, long[:30]], 10) == [Stem(20, (1, 2, 0))]


def test_what_saves_little_is_left_alone() -> None:
    prompts = [[4] * 20 + [1], [4] * 20 + [2]]
    assert shared_stems(prompts, 20) == [Stem(20, (0, 1))]
    assert shared_stems(prompts, 21) == []
    assert shared_stems([[4] * 15 + [1], [4] * 15 + [2]], 0) == [], "below the shortest stem"
    assert shared_stems([[4] * 90], 0) == []
    assert shared_stems([], 0) == []
