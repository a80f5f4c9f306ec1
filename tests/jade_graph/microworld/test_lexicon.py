"""Names: disjoint between splits, unique, and told apart by their words."""

from itertools import combinations

import pytest

from jade_graph.microworld.lexicon import ENTITY_KINDS, SPLITS, names, words


@pytest.mark.parametrize("kind", ENTITY_KINDS)
def test_no_name_is_in_two_splits(kind):
    pools = [set(names(kind, split)) for split in SPLITS]
    assert all(not a & b for a, b in combinations(pools, 2))
    assert [len(names(kind, s)) for s in SPLITS] == [len(p) for p in pools]
    assert len(pools[0]) == pytest.approx(0.6 * sum(map(len, pools)), rel=0.01)


def test_kinds_share_no_name():
    pools = [{n for split in SPLITS for n in names(kind, split)} for kind in ENTITY_KINDS]
    assert all(not a & b for a, b in combinations(pools, 2))


def test_every_word_of_a_name_is_known():
    known = set(words())
    assert {w for kind in ENTITY_KINDS for split in SPLITS for n in names(kind, split) for w in n.split()} <= known
