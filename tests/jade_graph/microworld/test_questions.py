"""Questions: one right answer each, evidence that states it, decompositions that lead to it, and evidence in reach."""

import random
from collections import Counter

import pytest

from jade_graph.errors import UsageError
from jade_graph.microworld import BEST_PLAN, KINDS, Difficulty, frames, make_questions, make_world
from jade_graph.workflow.references import resolve_references


def test_the_same_seed_asks_the_same_questions(world):
    assert make_questions(world, 50, seed=1) == make_questions(world, 50, seed=1)
    assert make_questions(world, 50, seed=1) != make_questions(world, 50, seed=2)


def test_all_kinds_are_asked_in_proportion_and_never_twice(world):
    asked = make_questions(world, 100, seed=2)
    assert Counter(q.type for q in asked) == {
        "1hop": 20, "noisy": 15, "2hop": 20, "comparison": 13, "context": 12, "conjunction": 10, "edition": 10,
    }  # fmt: skip
    assert len({q.question for q in asked}) == len({q.id for q in asked}) == 100


def test_the_answer_follows_from_the_meaning_alone(world, questions):
    for q in questions:
        meant = frames.meaning(q.question)
        assert q.answers == (q.metadata["premise"] or frames.answer(meant, world),)
        assert frames.UNKNOWN not in q.answers


def test_a_premise_contradicts_the_world(world, questions):
    contexts = [q for q in questions if q.type == "context"]
    assert contexts
    for q in contexts:
        assert q.answers[0] != frames.answer(frames.meaning(q.question), world)
        assert q.answers[0] in q.question
        assert q.supporting == ()


def test_evidence_states_the_answer(world, questions):
    for q in questions:
        texts = [world.by_id[i].text for i in q.supporting]
        if q.type == "context" or q.answers[0] in ("yes", "no"):
            continue
        assert any(q.answers[0] in text for text in texts), q


def test_evidence_of_an_edited_entity_is_the_current_edition(world, questions):
    for q in (q for q in questions if q.type == "edition"):
        assert [world.by_id[i].metadata["edition"] for i in q.supporting] == ["current"]


def test_decompositions_lead_to_the_answer(world, questions):
    several = [q for q in questions if q.decomposition]
    assert {q.type for q in several} == {"2hop", "comparison"}
    for q in several:
        answers = []
        for step in q.decomposition:
            asked = resolve_references(step.question, answers)
            assert frames.answer(frames.meaning(asked), world) == step.answer
            answers.append(step.answer)
        assert frames.combine(frames.meaning(q.question), answers) == q.answers[0]


def test_a_conjunction_has_one_answer_where_its_parts_have_several(world, questions):
    for q in (q for q in questions if q.type == "conjunction"):
        meant = frames.meaning(q.question)
        assert len(frames.matches(meant, world)) == 1
        assert all(len(frames.matches(frames.Match(meant.kind, (c,)), world)) > 2 for c in meant.constraints)


def test_no_user_question_has_the_canonical_wording(questions):
    for q in questions:
        assert frames.canonical(frames.meaning(q.question)) != q.question


async def test_the_evidence_is_in_reach_of_the_right_query(questions, search):
    found = {kind: [] for kind in KINDS}
    for q in questions:
        for name, query in (("raw", q.question), ("query", q.metadata["query"])):
            ids = {p.id for p in await search.search(query, 5)}
            found[q.type].append((name, bool(q.supporting) and set(q.supporting) <= ids))

    def share(kind, name):
        hits = [hit for n, hit in found[kind] if n == name]
        return sum(hits) / len(hits)

    for kind in ("1hop", "conjunction", "comparison"):
        assert share(kind, "raw") >= 0.9
    for kind in ("1hop", "noisy", "conjunction", "comparison"):
        assert share(kind, "query") >= 0.95
    assert share("edition", "query") >= 0.85
    assert share("noisy", "raw") <= 0.6
    assert share("2hop", "raw") <= 0.1


async def test_each_step_of_a_decomposition_finds_its_evidence(questions, search):
    hits = []
    for q in questions:
        answers = []
        for step in q.decomposition:
            ids = {p.id for p in await search.search(resolve_references(step.question, answers), 5)}
            hits.append(set(step.supporting) <= ids)
            answers.append(step.answer)
    assert sum(hits) / len(hits) >= 0.95


def test_every_kind_has_a_plan_and_only_some_need_retrieval():
    assert set(BEST_PLAN) == set(KINDS)
    assert len(set(BEST_PLAN.values())) >= 5


def test_an_unknown_kind_and_a_world_too_small_are_named(world):
    with pytest.raises(UsageError, match=r"MICROWORLD_KIND.*3hop"):
        make_questions(world, 10, kinds={"3hop": 1.0})
    with pytest.raises(UsageError, match=r"MICROWORLD_TOO_SMALL.*edition"):
        make_questions(make_world("test", 0, Difficulty(scale=0.1, edited=0.0)), 10, kinds={"edition": 1.0})


def test_without_prefix_facts_noisy_questions_are_plain():
    world = make_world("validation", 0, Difficulty(scale=0.1, prefix_facts=0))
    asked = make_questions(world, 10, kinds={"noisy": 1.0})
    assert all(q.question.count(".") == 0 for q in asked)


def test_fewer_paraphrases_mean_fewer_wordings():
    world = make_world("validation", 0, Difficulty(scale=0.1, paraphrases=2))
    wordings = {frames.reworded(frames.Fact("Ada Novak", "job"), random.Random(i), 2) for i in range(20)}
    assert wordings == {"What does Ada Novak do for a living?"}
    assert all(p.text for p in world.passages)
