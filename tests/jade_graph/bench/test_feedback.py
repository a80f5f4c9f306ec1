"""The benchmark of the estimators: every figure is there, and says what is known of the estimators."""

from __future__ import annotations

import numpy as np
import pytest

from jade_graph import plugins
from jade_graph.bench.feedback import ndcg, run, trained
from jade_graph.feedback.estimators import ESTIMATORS


def test_the_figures_of_a_quick_run(declared):
    assert plugins.load("jade.benchmarks", "feedback") is run
    found = run(quick=True)
    for name in ESTIMATORS:
        word = name.replace("-", "_")
        for figure in ("bias", "bias_se", "abs_bias", "max_abs_bias", "variance", "ndcg10"):
            assert np.isfinite(found[f"{figure}_{word}"])
    assert abs(found["bias_user_aware"]) < 3 * found["bias_se_user_aware"]
    assert found["variance_user_aware"] < found["variance_per_impression"]
    assert found["abs_bias_user_aware"] < 0.1 < min(found["abs_bias_oblivious"], found["abs_bias_naive"])
    assert found["ndcg10_naive"] < found["ndcg10_user_aware"] < found["ndcg10_truth"]


def test_ndcg_by_hand_and_a_ranker_finds_what_its_labels_say():
    assert ndcg(np.array([[1.0, 2.0]]), np.array([[3.0, 0.0]])) == pytest.approx(1 / np.log2(3))
    assert ndcg(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[0.0, 0.0], [4.0, 1.0]])) == 1.0
    x = np.random.default_rng(0).normal(size=(40, 6, 3))
    labels = (x[..., 1] == x[..., 1].max(axis=1, keepdims=True)).astype(float)
    weights = trained(x, labels)
    assert np.abs(weights).argmax() == 1
    assert weights[1] > 1
