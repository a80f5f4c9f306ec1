"""Worlds: pure functions of their parameters, disjoint between splits, and truthful passages."""

import pytest

from jade_graph.errors import UsageError
from jade_graph.microworld import Difficulty, make_world
from jade_graph.microworld.relations import RELATIONS

SMALL = Difficulty(scale=0.1)


def test_the_same_parameters_give_the_same_world():
    one, two = make_world("train", 4, SMALL), make_world("train", 4, SMALL)
    assert one.passages == two.passages
    assert one.entities == two.entities
    assert make_world("train", 5, SMALL).passages != one.passages


def test_worlds_of_different_splits_share_no_entity():
    train, validation, test = (set(make_world(s, 1).entities) for s in ("train", "validation", "test"))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_a_full_world_has_thousands_of_short_passages():
    world = make_world("test", 0, Difficulty(scale=1.0))
    lengths = [len(p.text.split()) for p in world.passages]
    assert len(world.passages) > 3000
    assert 20 < sum(lengths) / len(lengths) < 40
    assert max(lengths) < 50


def test_every_passage_states_each_fact_of_its_edition_once():
    world = make_world("train", 2, SMALL)
    for entity in world.entities.values():
        editions = [(entity.passage, entity.facts), *zip(entity.old_passages, entity.old, strict=True)]
        for passage, facts in editions:
            text = world.by_id[passage].text
            assert entity.name in text
            assert all(text.count(value) >= 1 for value in facts.values())
            assert text.rstrip(".").count(". ") + 1 == len(facts) + entity.edited


def test_with_pronouns_a_name_may_stand_in_the_first_sentence_alone():
    plain, terse = (make_world("train", 2, Difficulty(scale=0.1, pronouns=p)) for p in (0.0, 1.0))
    for entity in terse.entities.values():
        assert terse.by_id[entity.passage].text.count(entity.name) == 1
    for entity in plain.entities.values():
        assert plain.by_id[entity.passage].text.count(entity.name) == len(entity.facts)


def test_old_editions_differ_in_what_can_change_and_agree_in_the_rest():
    world = make_world("train", 2, Difficulty(scale=0.2, edited=1.0, editions=2))
    edited = [e for e in world.entities.values() if e.edited]
    assert {e.kind for e in edited} == {"city", "company"}
    for entity in edited:
        assert len(entity.old) == 2
        for relation, value in entity.facts.items():
            values = {value, *(old[relation] for old in entity.old)}
            assert len(values) == (3 if RELATIONS[relation].mutable else 1)


def test_facts_lead_to_entities_of_the_right_kind():
    world = make_world("validation", 1, SMALL)
    for entity in world.entities.values():
        for name, value in entity.facts.items():
            relation = RELATIONS[name]
            assert relation.subject == entity.kind
            if relation.target:
                assert world.entities[value].kind == relation.target
            else:
                assert value in relation.values


@pytest.mark.parametrize("bad", [{"scale": 2.0}, {"paraphrases": 0}, {"prefix_facts": 9}, {"edited": -1.0}])
def test_a_difficulty_out_of_range_is_named(bad):
    with pytest.raises(UsageError, match="MICROWORLD_OPTION") as error:
        Difficulty(**bad)
    assert next(iter(bad)) in str(error.value)


def test_an_unknown_split_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"MICROWORLD_SPLIT.*train, validation, test"):
        make_world("dev")


def test_parameters_make_the_same_world_again():
    world = make_world("test", 6, Difficulty(scale=0.1, editions=1))
    split, seed = world.parameters["split"], world.parameters["seed"]
    difficulty = {k: v for k, v in world.parameters.items() if k not in ("split", "seed")}
    assert make_world(split, seed, Difficulty(**difficulty)).passages == world.passages
