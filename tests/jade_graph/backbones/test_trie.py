from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jade_graph.backbones.trie import Trie, trie_of

END = 0
SENTENCES = st.lists(st.lists(st.integers(1, 4), max_size=5), min_size=1, max_size=12)


def spell(trie: Trie, state: int = 0, prefix: tuple[int, ...] = ()) -> set[tuple[int, ...]]:
    if not trie.allowed[state]:
        return {prefix}
    return {s for t in trie.allowed[state] for s in spell(trie, trie.step[state][t], (*prefix, t))}


@given(SENTENCES)
def test_walks_spell_exactly_the_choices(sentences: list[list[int]]) -> None:
    choices = {(*sentence, END) for sentence in sentences}
    assert spell(Trie(sorted(choices))) == choices


def test_equal_choices_share_a_trie() -> None:
    assert trie_of(((1, 0), (2, 0))) is trie_of(((1, 0), (2, 0)))
