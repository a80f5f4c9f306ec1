"""What the learner's tests share: one thread, because tiny models only wait for two, and a random model's folder."""

import pytest
import torch

from jade_graph.testing.models import make_random_model


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("model"), width=16, heads=2)
