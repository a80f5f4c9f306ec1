"""Retrieving and reranking on real questions: BM25, one encoder in its uses, and a cross-encoder on the same labels.

Invariant: an encoder is measured on a data set that it never learned from; all methods answer the same questions over
the same passages, and are compared question by question. Latencies are taken in turn, one query of each method after
another, so that a busy machine slows all alike.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jade_graph.assembly import corpus_name
from jade_graph.data import Dataset, load_dataset
from jade_graph.data.labels import Labelled
from jade_graph.retrieval.corpus import build_corpus, open_corpus
from jade_graph.retrieval.encoder import TransformerEncoder, load_encoder
from jade_graph.retrieval.local import LocalRetriever
from jade_graph.scoring.ranking import ndcg, recall
from jade_graph.scoring.stats import mean_ci, paired_ci
from jade_graph.types import Passage, Question

SETS = ("2wiki_train500", "hotpot_train100", "musique_train100")
DEPTH = 100
Search = Callable[[str], Sequence[str]]


def run(
    *,
    data: str = "../shared/data",
    encoder: str = "minilm",
    tests: str = "",
    seeds: int = 1,
    questions: int = 100,
    rows: int = 200,
    slate: int = 8,
    batch: int = 8,
    document_tokens: int = 128,
    prompt_tokens: int = 512,
    prompt_documents: int = 20,
    learning_rate: float = 2e-5,
    cross: bool = True,
    cross_depth: int = DEPTH,
    out: str = ".jade/bench-rerank",
    quick: bool = False,
) -> dict[str, float]:
    """Train on two data sets, test on the third.

    Args:
        data: folder of the data sets; any of JADE's format with supporting passages.
        tests: the sets that are tested on, separated by commas; "": each in turn.
        seeds: of the training, each measured.
        questions, rows: most that are tested on and learned from.
        slate .. learning_rate: of the training.
        cross, cross_depth: train and measure the cross-encoder, which reads so many pairs a query.
        out: folder of encoders and results: what is there is not made again.
        quick: one set, ten questions, four steps.

    Returns:
        For each tested set and method `SET_METHOD_ndcg10`, `.._recall5`, `.._ms` (median of a query); of each method
        against `rrf` the paired interval `.._recall5_over_rrf`, `.._low`, `.._high`, and `.._ms_over_rrf`; over all
        sets the same with `all_`. Methods: bm25, dense, rrf, e2rank (dense, reranked), rrf_e2rank (rrf, reranked);
        of the trained encoder trained_dense, trained_rrf, trained_e2rank, trained_rrf_e2rank; cross (rrf, reranked).

    Raises:
        UsageError: BENCH_OPTION.
    """
    from jade_graph.errors import UsageError

    names = [n.strip() for n in tests.split(",") if n.strip()] or list(SETS)
    if unknown := [n for n in names if not (Path(data) / n).is_dir()]:
        raise UsageError(f"{data!r} has no set {unknown[0]!r}.", code="BENCH_OPTION", known=SETS, hint="data=FOLDER")
    if quick:
        names, seeds, questions, rows, slate, batch = names[-1:], 1, min(questions, 10), 8, 4, 2
        document_tokens, prompt_tokens, cross_depth = 48, 128, min(cross_depth, 10)
    from jade_training.encoders.training import Recipe, trainable

    recipe = Recipe(
        batch=batch, slate=slate, document_tokens=document_tokens, prompt_tokens=prompt_tokens,
        prompt_documents=prompt_documents, learning_rate=learning_rate,
    )  # fmt: skip
    base = trainable(load_encoder(encoder))
    bench = _Bench(Path(data), Path(out), base, recipe, questions, rows, cross_depth if cross else 0)
    seen: dict[str, dict[str, list[list[float]]]] = {}
    for name in names:
        for seed in range(seeds):
            for method, values in bench.measured(name, seed).items():
                seen.setdefault(name, {}).setdefault(method, []).extend(values)
    return _figures(seen)


class _Bench:
    """One set-up: the data, the encoder, how it learns, and where what was made is kept."""

    def __init__(
        self, data: Path, out: Path, base: TransformerEncoder, recipe: Any, questions: int, rows: int, cross: int
    ) -> None:
        self.data, self.out, self.base, self.recipe = data, out, base, recipe
        self.questions, self.rows, self.cross = questions, rows, cross
        self._retrievers: dict[str, LocalRetriever] = {}

    def measured(self, name: str, seed: int) -> dict[str, list[list[float]]]:
        """[nDCG@10, recall@5, milliseconds] of every question, by method."""
        from jade_graph.data.labels import digest

        labels = self._labels(name)
        recipe = replace(self.recipe, seed=seed)
        key = f"{name}-{seed}-{_short([digest(labels), _plain(recipe), self.base.id])}"
        folder = self.out / key
        kept = folder / f"result-{self.questions}-{self.cross}.json"
        if kept.is_file():
            found: dict[str, list[list[float]]] = json.loads(kept.read_text("utf-8"))
            return found
        trained = self._trained(labels, recipe, folder / "encoder")
        methods = self._methods(name, trained, folder)
        if self.cross:
            methods["cross"] = self._crossed(name, labels, recipe, folder / "cross")
        measured = self._asked(self._dataset(name), methods)
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(measured), encoding="utf-8")
        return measured

    def _dataset(self, name: str) -> Dataset:
        return load_dataset(self.data / name)

    def _retriever(self, name: str) -> LocalRetriever:
        if name not in self._retrievers:
            self._retrievers[name] = self._corpus(name, self.base, self.out / f"base-{_short(self.base.id)}")
        return self._retrievers[name]

    def _corpus(self, name: str, encoder: TransformerEncoder, root: Path) -> LocalRetriever:
        corpus = corpus_name(name)
        build_corpus(self._dataset(name).passages, corpus, root, encoder)
        return open_corpus(corpus, root, encoder)

    def _labels(self, tested: str) -> list[Labelled]:
        """Gold labels of the other sets, as many of each as there are."""
        from jade_training.encoders.gold import gold_labels

        others = [n for n in SETS if n != tested and (self.data / n).is_dir()]
        out: list[Labelled] = []
        for name in others:
            taken = load_dataset(self.data / name, limit=self.rows // len(others))
            out += gold_labels(taken, self._retriever(name))
        return out

    def _trained(self, labels: Sequence[Labelled], recipe: Any, folder: Path) -> TransformerEncoder:
        from jade_training.encoders.training import train_encoder, trainable

        if not (folder / "manifest.json").is_file():
            train_encoder(self.base, labels, folder, recipe, save_every=10)
        return trainable(load_encoder(f"hf:{folder}"))

    def _methods(self, name: str, trained: TransformerEncoder, folder: Path) -> dict[str, Search]:
        """Every retriever by its name; the base's share one matrix of vectors, and so do the trained one's."""
        ours = self._retriever(name)
        theirs = self._corpus(name, trained, folder)
        out = {"bm25": _search(_like(ours, "bm25", 0))}
        for prefix, source in (("", ours), ("trained_", theirs)):
            out[f"{prefix}dense"] = _search(_like(source, "dense", 0))
            out[f"{prefix}rrf"] = _search(_like(source, "hybrid", 0))
            out[f"{prefix}e2rank"] = _search(_like(source, "dense", DEPTH))
            out[f"{prefix}rrf_e2rank"] = _search(_like(source, "hybrid", DEPTH))
        return out

    def _crossed(self, name: str, labels: Sequence[Labelled], recipe: Any, folder: Path) -> Search:
        from jade_training.encoders.cross import train_cross
        from jade_training.encoders.slates import slates

        model = train_cross(self.base, slates(labels, self.base, recipe.slate), recipe, folder)
        found = _like(self._retriever(name), "hybrid", 0)

        def search(query: str) -> list[str]:
            passages = found.search_sync(query, self.cross)
            scores = model.predict([(query, str(p)) for p in passages], show_progress_bar=False)
            return [p.id for _, p in sorted(zip(scores, passages, strict=True), key=lambda pair: -float(pair[0]))]

        return search

    def _asked(self, dataset: Dataset, methods: Mapping[str, Search]) -> dict[str, list[list[float]]]:
        known = {p.id for p in dataset.passages}
        asked: list[Question] = [q for q in dataset.questions if q.supporting and set(q.supporting) <= known]
        out: dict[str, list[list[float]]] = {name: [] for name in methods}
        for search in methods.values():
            search("who was it?")  # weights are loaded before anything is timed
        for question in asked[: self.questions]:
            labels = dict.fromkeys(question.supporting, 1.0)
            for name, search in methods.items():
                began = time.perf_counter()
                ranked = search(question.question)
                ms = 1000 * (time.perf_counter() - began)
                out[name].append([ndcg(ranked, labels) or 0.0, recall(ranked, labels) or 0.0, ms])
        return out


def _like(source: LocalRetriever, mode: Any, rerank: int) -> LocalRetriever:
    """A retriever over the same passages and vectors, which remembers no query of the others."""
    return LocalRetriever(
        source.passages,
        corpus_id=f"{source.corpus_id}-{mode}-{rerank}",
        mode=mode,
        bm25=source._bm25,
        vectors=source._vectors,
        encoder=source._encoder,
        rerank=rerank,
    )


def _search(retriever: LocalRetriever) -> Search:
    def search(query: str) -> list[str]:
        found: list[Passage] = retriever.search_sync(query, 10)
        return [p.id for p in found]

    return search


def _plain(recipe: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(recipe)


def _short(value: Any) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _figures(seen: Mapping[str, Mapping[str, list[list[float]]]]) -> dict[str, float]:
    out: dict[str, float] = {}
    together: dict[str, list[list[float]]] = {}
    for name, methods in seen.items():
        out |= _of(name.partition("_")[0], methods)
        for method, values in methods.items():
            together.setdefault(method, []).extend(values)
    return out | (_of("all", together) if len(seen) > 1 else {})


def _of(name: str, methods: Mapping[str, list[list[float]]]) -> dict[str, float]:
    out: dict[str, float] = {}
    columns = {method: list(zip(*values, strict=True)) for method, values in methods.items()}
    base = columns["rrf"]
    for method, (gains, recalls, times) in columns.items():
        at = f"{name}_{method}"
        seen = mean_ci(recalls)
        out |= {f"{at}_ndcg10": statistics.fmean(gains), f"{at}_recall5": seen.mean}
        out |= {f"{at}_recall5_half": (seen.high - seen.low) / 2, f"{at}_ms": statistics.median(times)}
        if method != "rrf":
            against = paired_ci(recalls, base[1])
            out |= {f"{at}_recall5_over_rrf": against.difference}
            out |= {f"{at}_recall5_over_rrf_low": against.low, f"{at}_recall5_over_rrf_high": against.high}
            gain = paired_ci(gains, base[0])
            out |= {f"{at}_ndcg10_over_rrf": gain.difference}
            out |= {f"{at}_ndcg10_over_rrf_low": gain.low, f"{at}_ndcg10_over_rrf_high": gain.high}
            out[f"{at}_ms_over_rrf"] = statistics.median(times) / statistics.median(base[2])
    out[f"{name}_questions"] = float(len(base[0]))
    return out
