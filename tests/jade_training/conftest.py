"""What the learner's tests share: one thread, because tiny models only wait for two, a random model's folder, and two
small worlds to learn from and to be measured on.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from jade_graph.microworld import make_questions, make_world
from jade_graph.microworld.search import WordSearch
from jade_graph.microworld.world import Difficulty
from jade_graph.testing.models import make_random_model
from jade_training.improve.improver import Data, Improver


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("model"), width=16, heads=2)


@pytest.fixture(scope="session")
def data() -> Callable[[Any, int], Data]:
    """`data("train", 9)`: so many questions of a small world of a split, with its search."""

    def made(split: Any, n: int) -> Data:
        world = make_world(split, 0, Difficulty(scale=0.1))
        return Data(f"microworld:{split}?n={n}", make_questions(world, n), WordSearch(world.passages))

    return made


@pytest.fixture(scope="module")
def sets(data: Callable[[Any, int], Data]) -> tuple[Data, Data]:
    return data("train", 9), data("validation", 6)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """`with cut_off(1): ..` is killed with the runs of iteration 1 recorded and its update not."""

    class CutError(Exception):
        pass

    @contextmanager
    def cutting(at: int) -> Iterator[None]:
        commit = Improver._commit

        def cut(self: Improver, trainer: Any, i: int, metrics: Any) -> None:
            if i == at:
                raise CutError
            commit(self, trainer, i, metrics)

        with monkeypatch.context() as patched:
            patched.setattr(Improver, "_commit", cut)
            with pytest.raises(CutError):
                yield

    return cutting
