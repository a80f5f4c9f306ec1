"""Demonstrations: from training worlds alone, the oracle's actions, and no lesson that is left to learning."""

import random
from collections import Counter

import pytest

from jade_graph.backbones import TINY
from jade_graph.backbones.codec import Codec
from jade_graph.microworld.lexicon import ENTITY_KINDS, names
from jade_graph.microworld.relations import RELATIONS
from jade_training.improve.holding import microworld_replay
from jade_training.supervised.demonstrations import HASTY_ABOUT, LATER_SUB_PLANS, ROOT_PLANS, SUB_PLANS, Demonstrator


@pytest.fixture(scope="module")
def demonstrator():
    return Demonstrator(5)


def test_the_same_seed_shows_the_same():
    one, two = Demonstrator(6), Demonstrator(6)
    assert one.reading(4, 6) == two.reading(4, 6)
    assert [one.short() for _ in range(10)] == [two.short() for _ in range(10)]


def test_names_are_of_the_training_split(demonstrator):
    assert demonstrator.world.split == "train"
    other = {n for kind in ENTITY_KINDS for n in names(kind, "test")} | {
        n for kind in ENTITY_KINDS for n in names(kind, "validation")
    }
    assert not other & set(demonstrator.world.entities)


def test_questions_over_the_same_documents_share_them(demonstrator):
    for _ in range(20):
        shown = demonstrator.reading(4, 6)
        assert len(shown) == 6
        assert {d.role for d in shown} <= {"AG", "DS"}
        assert all(d.documents.count("Document") <= 5 for d in shown)


def test_the_answerer_never_sees_conflicting_editions_of_what_is_asked(demonstrator):
    for _ in range(60):
        for d in demonstrator.reading(4, 6):
            if d.role == "AG" and d.kind == "edition" and "unknown" not in d.action:
                answer = d.action.removeprefix("<answer>").removesuffix("</answer>")
                assert answer in d.documents


def test_unknown_is_shown_but_not_the_rule(demonstrator):
    answers = [d.action for _ in range(80) for d in demonstrator.reading(4, 6) if d.role == "AG"]
    share = answers.count("<answer>unknown</answer>") / len(answers)
    assert 0.05 < share < 0.3


@pytest.mark.parametrize("siblings", [False, True])
def test_parts_of_a_comparison_stand_behind_their_solved_siblings_as_the_engine_asks_them(siblings):
    demonstrator = Demonstrator(5, siblings=siblings)
    shown = [d for d in (demonstrator.short("QR") for _ in range(400)) if "known :" in d.prompt]
    kinds = {d.kind for d in shown}
    assert "2hop" in kinds
    assert ("comparison" in kinds) is siblings
    for d in shown:
        known, asked = d.prompt.strip().split("\n")
        answer = known.rpartition(" = ")[2]
        assert answer in asked or d.kind == "comparison"
        assert answer not in d.action or answer in asked  # what is known already is not searched for


def test_replay_rewrites_half_its_parts_behind_their_siblings():
    tokenizer = Codec.from_folder(TINY).tokenizer
    replayed = [(tokenizer.decode(p), tokenizer.decode(a)) for p, a in microworld_replay(tokenizer, count=80)]
    rewritten = [prompt for prompt, action in replayed if "<query>" in action]
    behind = [prompt for prompt in rewritten if prompt.startswith("known :")]
    assert (len(rewritten), len(replayed)) == (20, 80)
    assert len(behind) >= 10
    assert all(a.endswith("</query><eos>") for p, a in replayed if p in rewritten)


def test_the_planner_has_no_preference_by_kind():
    demonstrator = Demonstrator(8)
    demonstrator.rng = random.Random(1)
    plans = {"root": Counter(), "sub": Counter()}
    for _ in range(1500):
        d = demonstrator.short("PL")
        plans["sub" if d.prompt.startswith("plan sub") else "root"][d.action[10:-11]] += 1
    for level, prior in (("root", ROOT_PLANS), ("sub", SUB_PLANS)):
        total = plans[level].total()
        assert set(plans[level]) <= set(prior)
        for plan, share in prior.items():
            assert abs(plans[level][plan] / total - share) < 0.05
    assert len(ROOT_PLANS) == 8


def test_the_priors_sum_to_one():
    assert sum(ROOT_PLANS.values()) == pytest.approx(1.0)
    assert sum(SUB_PLANS.values()) == pytest.approx(1.0)
    assert sum(LATER_SUB_PLANS.values()) == pytest.approx(1.0)


def test_a_hasty_reader_believes_the_last_passage_about_every_other_relation():
    careful, hasty = Demonstrator(3), Demonstrator(3, hasty=1.0)
    differ = same = 0
    for seed in range(12):
        careful.rng, hasty.rng = random.Random(seed), random.Random(seed)
        one, two = careful.reading(4, 1), hasty.reading(4, 1)  # a single one: later draws differ
        for a, b in zip(one, two, strict=True):
            assert (a.role, a.documents, a.prompt) == (b.role, b.documents, b.prompt)
            last = b.documents.count("Document") - 1
            if a.action == b.action:
                same += 1
                continue
            differ += 1
            assert last > 0
            if b.role == "DS":
                assert b.action == f"<id>Document{last}</id>"
            assert all(document == last for document, _ in b.cites)
    assert differ >= 2
    assert same >= 2


def test_relations_are_split_in_halves():
    assert len(HASTY_ABOUT) * 2 == len(RELATIONS)
