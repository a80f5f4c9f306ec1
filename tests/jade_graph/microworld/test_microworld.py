"""The data set behind `microworld:`, and telling foreign questions."""

import pytest

from jade_graph.data import load_dataset
from jade_graph.errors import UsageError
from jade_graph.microworld import dataset, is_foreign, parse, vocabulary
from jade_graph.microworld.vocabulary import split, unknown_words


def test_a_spec_names_world_and_questions():
    data = load_dataset("microworld:test?n=20&seed=3&scale=0.1")
    world, questions, name = parse("test?n=20&seed=3&scale=0.1")
    assert data.name == name == "microworld:test?n=20&scale=0.1&seed=3"
    assert data.questions == questions
    assert len(data.questions) == 20
    assert world.split == "test"
    assert world.seed == 3


def test_options_by_keyword_equal_those_in_the_spec():
    one = dataset("validation?n=12&scale=0.1&kinds=1hop,2hop")
    two = dataset(split="validation", limit=12, scale=0.1, kinds="1hop,2hop")
    assert one.questions == two.questions
    assert {q.type for q in one.questions} == {"1hop", "2hop"}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("test?size=3", "UNKNOWN_MICROWORLD_OPTION"),
        ("test?n=many", "MICROWORLD_OPTION"),
        ("test?scale=7", "MICROWORLD_OPTION"),
        ("dev", "MICROWORLD_SPLIT"),
        ("test?kinds=4hop", "MICROWORLD_KIND"),
    ],
)
def test_a_wrong_spec_is_named(spec, code):
    with pytest.raises(UsageError, match=code):
        parse(spec)


def test_the_vocabulary_covers_whatever_is_generated():
    known = vocabulary()
    for split_name in ("train", "test"):
        world, questions, _ = parse(f"{split_name}?n=100&scale=0.3&seed=9")
        texts = [p.text for p in world.passages] + [q.question for q in questions]
        texts += [t for q in questions for t in (*q.answers, q.metadata["query"], *q.metadata["serial"])]
        assert {token for text in texts for token in split(text)} <= known
        assert not any(is_foreign(q.question) for q in questions)


@pytest.mark.parametrize(
    "text", ["What is the capital of France?", "Who directed The Godfather?", "Quel est le nom?", "", "???"]
)
def test_other_questions_are_foreign(text):
    assert is_foreign(text)


def test_unknown_words_are_listed():
    assert unknown_words("Who directed the Godfather?") == ["Godfather"]
