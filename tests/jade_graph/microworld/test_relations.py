"""Wordings: enough of them, with their slots, and never shared between relations."""

from collections import Counter

import pytest

from jade_graph.microworld.lexicon import ENTITY_KINDS
from jade_graph.microworld.relations import RELATIONS, relations_of


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=lambda r: r.name)
def test_a_relation_has_paraphrases_with_their_slots(relation):
    assert len(relation.statements) >= 4
    assert len(relation.questions) >= 5
    assert all(s.count("{s}") == s.count("{v}") == 1 for s in relation.statements)
    assert all(q.count("{x}") == 1 for q in (*relation.questions, *relation.phrases))
    assert all(c.count("{v}") == 1 for c in relation.constraints)
    assert bool(relation.values) == (relation.target is None)


def test_no_two_relations_of_a_kind_share_a_wording():
    for kind in ENTITY_KINDS:
        counts = Counter(s for r in relations_of(kind) for s in r.statements)
        assert counts.most_common(1)[0][1] == 1
    counts = Counter(q for r in RELATIONS.values() for q in r.questions)
    assert counts.most_common(1)[0][1] == 1
