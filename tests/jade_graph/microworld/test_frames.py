"""Meaning: every wording is understood, whatever stands before it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jade_graph.microworld import KINDS, frames, make_world
from jade_graph.microworld.frames import Bridge, Compare, Fact, Match
from jade_graph.microworld.questions import make_question
from jade_graph.microworld.world import Difficulty

WORLD = make_world("train", 1, Difficulty(scale=0.2))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10_000))
def test_a_question_means_the_same_in_every_wording(kind, seed):
    question = make_question(WORLD, kind, random.Random(seed), "q")
    if question is None:
        return
    frame = frames.meaning(question.question)
    for i in range(5):
        assert frames.understand(frames.reworded(frame, random.Random(i))) == frame
    assert frames.understand(frames.canonical(frame)) == frame


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("Where was Ada Novak born?", Fact("Ada Novak", "born_in")),
        ("Who runs the company Nova Motors as of this year?", Fact("Nova Motors", "head")),
        ("Who is the mayor of the birthplace of Ada Novak?", Bridge("Ada Novak", "born_in", "mayor")),
        ("Who is older, Ada Novak or Otto Burke?", Compare("first", "birth_year", "Ada Novak", "Otto Burke")),
        ("Which film was directed by Ada Novak?", Match("film", (("director", "Ada Novak"),))),
        ("I have just read the news. Ada Novak wrote Map of Kings. When did Silent Storm come out?",
         Fact("Silent Storm", "release_year")),
    ],
)  # fmt: skip
def test_examples(text, frame):
    assert frames.understand(text) == frame


@pytest.mark.parametrize("text", ["", "?", "What is the capital of France?", "Which film was painted by Ada Novak?"])
def test_what_microworld_cannot_ask_is_not_understood(text):
    assert frames.understand(text) is None
    with pytest.raises(ValueError, match="not a microworld question"):
        frames.meaning(text)


def test_combining_answers():
    first = Compare("first", "birth_year", "A", "B")
    assert frames.combine(first, ["1950", "1940"]) == "B"
    assert frames.combine(Compare("least", "birth_year", "A", "B"), ["1950", "1940"]) == "1940"
    assert frames.combine(Compare("same", "job", "A", "B"), ["cook", "cook"]) == "yes"
    assert frames.combine(Compare("same", "job", "A", "B"), ["cook", "miner"]) == "no"
    assert frames.combine(first, ["1950", "unknown"]) == "unknown"
    assert frames.combine(first, []) == "unknown"
    assert frames.combine(Bridge("A", "born_in", "mayor"), ["X", "Y"]) == "Y"


def test_no_sub_question_repeats_its_target():
    fact = Fact("Ada Novak", "job")
    target = frames.canonical(fact)
    assert frames.sub_questions(fact, "serial", target) != (target,)
    assert frames.understand(frames.sub_questions(fact, "serial", target)[0]) == fact
