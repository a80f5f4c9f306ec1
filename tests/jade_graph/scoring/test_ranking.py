"""nDCG and recall against values computed by hand."""

from __future__ import annotations

import math

import pytest

from jade_graph.scoring.ranking import ndcg, recall

LABELS = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 1.0}


def test_ndcg_by_hand() -> None:
    best = 1 + 1 / math.log2(3) + 0.5 / 2
    assert ndcg(["a", "d", "b"], LABELS) == pytest.approx(1.0)
    assert ndcg(["c", "b", "x", "a"], LABELS) == pytest.approx((0.5 / math.log2(3) + 1 / math.log2(5)) / best)
    assert ndcg(["x", "a"], LABELS, 1) == 0.0
    assert ndcg(["b", "b", "a"], LABELS) == pytest.approx(ndcg(["b", "a"], LABELS))
    assert ndcg(["a"], {"a": 0.0}) is None


def test_recall_by_hand() -> None:
    assert recall(["a", "c", "x", "b"], LABELS, 3) == pytest.approx(1 / 3)
    assert recall(["a", "b", "d"], LABELS) == 1.0
    assert recall(["a", "a", "b"], LABELS, 2) == pytest.approx(2 / 3)
    assert recall(["a"], {}) is None
