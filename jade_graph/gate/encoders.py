"""A new encoder against the one in use: the same questions over the same corpus, before anything serves.

Invariant: nothing that is read changes before the verdict: the corpus is embedded beside. Queries that the encoder
learned from are left out, and the comparison is paired on the rest; a corpus is swapped whole, after the alias moved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from jade_graph.data import Dataset
from jade_graph.data.labels import Labelled, query_hash
from jade_graph.errors import UsageError
from jade_graph.gate.verdict import Finding, Verdict
from jade_graph.registry import ModelVersion, Promotion, Registry
from jade_graph.registry.encoders import opened
from jade_graph.retrieval.corpus import Progress, open_corpus
from jade_graph.retrieval.local import LocalRetriever
from jade_graph.retrieval.pooling import ENCODER_FILE, read_json
from jade_graph.retrieval.reembedding import embed_beside, open_beside, swap_encoder
from jade_graph.scoring.ranking import ndcg, recall
from jade_graph.scoring.stats import Paired, paired_ci


@dataclass(frozen=True, slots=True)
class EncoderPolicy:
    """When an encoder passes.

    Attributes:
        least: the interval of the gain in nDCG@`ndcg_at` must lie above it.
        loss: the interval of the difference in recall@`recall_at` must lie above minus this.
        minimum: questions that decide.
    """

    least: float = 0.0
    loss: float = 0.02
    ndcg_at: int = 10
    recall_at: int = 5
    minimum: int = 50
    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A query with the labels of the corpus's passages, by their ids."""

    query: str
    labels: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Ranks:
    """What one encoder brought for one query."""

    query: str
    ndcg: float
    recall: float


@dataclass(frozen=True, slots=True)
class EncoderOutcome:
    """What came of it. `verdict`: None where the gate was passed by. `promotion`: None where the alias stayed."""

    version: ModelVersion
    corpus: str
    before: str
    verdict: Verdict | None
    promotion: Promotion | None = None
    swapped: bool = False
    left_out: int = 0
    rows: Mapping[str, Sequence[Ranks]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": self.version.as_dict(), "corpus": self.corpus, "encoder_before": self.before,
            "verdict": None if self.verdict is None else self.verdict.as_dict(),
            "promotion": None if self.promotion is None else self.promotion.as_dict(),
            "swapped": self.swapped, "left_out": self.left_out,
        }  # fmt: skip


def judged_of(dataset: Dataset, corpus: LocalRetriever) -> list[Judged]:
    """Questions of a data set whose supporting passages are in the corpus; found by their text, whatever their ids."""
    by_text = {(p.title, p.text): p.id for p in corpus.passages}
    ids = {p.id: by_text.get((p.title, p.text)) for p in dataset.passages} | {p.id: p.id for p in corpus.passages}
    out = []
    for question in dataset.questions:
        found = [ids.get(i) for i in question.supporting]
        if found and None not in found:
            out.append(Judged(question.question, {str(i): 1.0 for i in found}))
    return out


def judged_labels(rows: Iterable[Labelled], corpus: LocalRetriever) -> list[Judged]:
    """Labels whose useful documents are in the corpus, by id or by text."""
    known, by_text = {p.id for p in corpus.passages}, {(p.title, p.text): p.id for p in corpus.passages}
    out = []
    for row in rows:
        ids = {d: d.id if d.id in known else by_text.get((d.title, d.text)) for d in row.documents}
        useful = [d for d in row.documents if d.label > 0]
        if useful and all(ids[d] is not None for d in useful):
            out.append(Judged(row.query, {str(i): d.label for d, i in ids.items() if i is not None}))
    return out


def ranks(judged: Sequence[Judged], retriever: LocalRetriever, policy: EncoderPolicy) -> list[Ranks]:
    """What a retriever brings for every query."""
    k = max(policy.ndcg_at, policy.recall_at)
    out = []
    for one in judged:
        found = [p.id for p in retriever.search_sync(one.query, k)]
        gain, share = ndcg(found, one.labels, policy.ndcg_at), recall(found, one.labels, policy.recall_at)
        assert gain is not None  # each has a useful passage
        assert share is not None
        out.append(Ranks(one.query, gain, share))
    return out


def judge(new: Sequence[Ranks], old: Sequence[Ranks], policy: EncoderPolicy | None = None) -> Verdict:
    """Whether the new encoder may serve: a gain in nDCG, and no loss in recall, both by paired intervals.

    Raises `UsageError` EVAL_NOT_PAIRED when the two did not answer the same queries.
    """
    policy = policy or EncoderPolicy()
    if [r.query for r in new] != [r.query for r in old]:
        raise UsageError("the two encoders did not answer the same queries.", code="EVAL_NOT_PAIRED")
    n = len(new)
    short = policy.minimum - n
    findings = [
        Finding(
            "questions", short <= 0,
            f"{n} judged queries" + (f", {short} fewer than the {policy.minimum} that decide" if short > 0 else ""),
            "more held-out queries: --on", {"n": n, "minimum": policy.minimum},
        )
    ]  # fmt: skip
    if n >= 2:
        for rule, at, limit in (("ndcg", policy.ndcg_at, policy.least), ("recall", policy.recall_at, -policy.loss)):
            ours, theirs = [getattr(r, rule) for r in new], [getattr(r, rule) for r in old]
            seen = paired_ci(ours, theirs, seed=policy.seed, n=policy.resamples, level=policy.confidence)
            findings.append(_finding(rule, at, limit, seen, fmean(ours), fmean(theirs)))
    return Verdict(tuple(findings), n, f"ndcg@{policy.ndcg_at}")


def _finding(rule: str, at: int, limit: float, seen: Paired, ours: float, theirs: float) -> Finding:
    passed = seen.low > limit
    told = f"{rule}@{at} {theirs:.3f} -> {ours:.3f}, {seen.difference:+.3f} [{seen.low:+.3f}, {seen.high:+.3f}]"
    if not passed:
        told += f"; it must lie above {limit:g}"
    figures = {
        "difference": seen.difference, "ci": [seen.low, seen.high], "p": seen.p, "challenger": ours, "champion": theirs,
    }  # fmt: skip
    return Finding(rule, passed, told, "train on more labels, or judge on more queries", figures)


def promote_encoder(
    registry: Registry,
    reference: str | int,
    corpus: str,
    root: Path,
    judged: Callable[[LocalRetriever], Sequence[Judged]],
    *,
    mode: str = "hybrid",
    rerank: int = 0,
    policy: EncoderPolicy | None = None,
    force: bool = False,
    reason: str = "",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> EncoderOutcome:
    """Judge a registered encoder on a corpus, and let the corpus be searched with it if it passes.

    Args:
        judged: the held-out queries, given the corpus as it is.
        mode, rerank: how the corpus is searched: with both encoders alike.
        force: past the gate, with a reason: nothing is judged.

    Raises:
        UsageError: PROMOTION_REASON, NOTHING_JUDGED. RegistryError: as `Registry.fetch` and `promote`.
        RetrievalError: UNKNOWN_CORPUS, CORPUS_LOCKED, ENCODER_MISSING ..; ENCODER_SAME where it is in use already.
    """
    from jade_graph.errors import RetrievalError

    policy = policy or EncoderPolicy()
    if force and not reason.strip():
        raise UsageError(
            "a promotion past the gate needs a reason.", code="PROMOTION_REASON", hint="--force --reason TEXT"
        )
    version, new = registry.get(reference), opened(registry, reference)
    with_old = open_corpus(corpus, root, mode=mode, rerank=rerank)
    try:
        before = with_old.encoder_id or ""
        if before == new.id:
            raise RetrievalError(
                f"the corpus {corpus!r} is searched with version {version.number} already.", code="ENCODER_SAME"
            )
        embed_beside(corpus, root, new, progress=progress)
        verdict, rows, left_out = None, dict[str, Sequence[Ranks]](), 0
        if not force:
            asked = list(judged(with_old))
            learned = frozenset(read_json(new.folder / ENCODER_FILE).get("learned") or ())
            kept = [one for one in asked if query_hash(one.query) not in learned]
            left_out = len(asked) - len(kept)
            if not kept:
                raise UsageError(
                    f"of {len(asked)} queries none is there to judge by: their passages are not in the corpus "
                    f"{corpus!r}, or the encoder learned from them.",
                    code="NOTHING_JUDGED",
                    hint="--on DATASET or a file of labels that it did not learn from",
                )
            with_new = open_beside(corpus, root, new, mode=mode, rerank=rerank)
            try:
                rows = {"challenger": ranks(kept, with_new, policy), "champion": ranks(kept, with_old, policy)}
            finally:
                with_new.close()
            verdict = judge(rows["challenger"], rows["champion"], policy)
    finally:
        with_old.close()
    promotion, swapped = None, False
    if not dry_run and (force or (verdict is not None and verdict.passed)):
        if registry.current() != version.number:
            promotion = _promoted(registry, version, verdict, rows, reason)
        swap_encoder(corpus, root, new, progress=progress)
        swapped = True
    return EncoderOutcome(version, corpus, before, verdict, promotion, swapped, left_out, rows)


def _promoted(
    registry: Registry, version: ModelVersion, verdict: Verdict | None, rows: Mapping[str, Sequence[Ranks]], reason: str
) -> Promotion:
    files = {
        f"{name}.jsonl": "".join(
            json.dumps({"query": r.query, "ndcg": r.ndcg, "recall": r.recall}) + "\n" for r in each
        )
        for name, each in rows.items()
    }
    if verdict is not None:
        files["verdict.json"] = json.dumps(verdict.as_dict(), indent=1, default=str) + "\n"
    current = registry.current()
    return registry.promote(
        version.number,
        expected=current,
        kind="force" if verdict is None else "first" if current is None else "promote",
        reason=reason,
        summary="not judged" if verdict is None else verdict.summary,
        evidence=None if verdict is None else verdict.figures(),
        files=files,
    )
