import pytest

from jade_graph.microworld import Difficulty, make_questions, make_world
from jade_graph.microworld.search import WordSearch


@pytest.fixture(scope="session")
def world():
    return make_world("validation", 3, Difficulty(scale=0.5))


@pytest.fixture(scope="session")
def questions(world):
    return make_questions(world, 210, seed=5, kinds=dict.fromkeys(_kinds(), 1.0))


@pytest.fixture(scope="session")
def search(world):
    return WordSearch(world.passages)


def _kinds():
    from jade_graph.microworld import KINDS

    return KINDS
