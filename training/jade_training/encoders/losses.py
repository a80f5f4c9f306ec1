"""The loss of E2Rank: a contrastive term for finding, a listwise term for ranking.

    L = InfoNCE(e(q), temperature .03) + 2 RankNet(q^, s_i = 10 cos(q^, d_i))

Invariant: pure functions of scores and labels. Both are (queries, documents); a label is NaN where a document does not
belong to the query's slate: it is then another negative for InfoNCE, and nothing to RankNet. The order of documents
changes nothing.
"""

from __future__ import annotations

import torch

TEMPERATURE, SCALE, WEIGHT = 0.03, 10.0, 2.0
_NOTHING = -1e9  # not -inf: where every document is a positive, its gradient would be NaN


def infonce(cosines: torch.Tensor, labels: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Mean over queries of -log softmax of the best document among all of the batch.

    Where several share the highest label (a question of two steps has two passages), each is the positive once, and
    the others are no negatives of it. A query without a label above 0 counts for nothing.
    """
    best = torch.nan_to_num(labels, nan=0.0).amax(1, keepdim=True)
    positive = (labels == best) & (best > 0)
    scores = cosines / temperature
    negatives = torch.logsumexp(scores.masked_fill(positive, _NOTHING), 1, keepdim=True)
    each = torch.logaddexp(scores, negatives) - scores
    counts = positive.sum(1)
    rows = torch.where(positive, each, 0.0).sum(1) / counts.clamp(min=1)
    return rows.sum() / (counts > 0).sum().clamp(min=1)


def ranknet(cosines: torch.Tensor, labels: torch.Tensor, scale: float = SCALE) -> torch.Tensor:
    """Mean over the pairs of a slate with label_i > label_j of log(1 + exp(-(s_i - s_j))), s = scale * cosine.

    Equal scores give log 2; without pairs 0.
    """
    scores = scale * cosines
    better = labels.unsqueeze(2) > labels.unsqueeze(1)  # NaN is above nothing, and nothing is above it
    losses = torch.nn.functional.softplus(scores.unsqueeze(1) - scores.unsqueeze(2))
    return torch.where(better, losses, 0.0).sum() / better.sum().clamp(min=1)
