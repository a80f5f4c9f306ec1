"""Parts of a data set that know nothing of each other: to learn from, to choose with, and to report on.

Invariant: questions whose gold facts share a passage, a title or a named answer stand in one part; the part that is
learned from has no gold passage of another. The same arguments give the same parts.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jade_graph.data.dataset import Dataset
from jade_graph.errors import UsageError
from jade_graph.types import Passage, Question

REST = "train"


def split(dataset: Dataset, shares: Mapping[str, float], *, seed: int = 0) -> dict[str, Dataset]:
    """Parts by name; what no share takes is "train". Passages are those of the whole set, but for the gold passages of
    the other parts, which "train" does without.

    Groups of questions that share a fact are drawn whole, in an order of hashes, until a part has its share: a part may
    be larger by the rest of its last group.

    Args:
        shares: of the questions, by part: `{"test": 0.2, "dev": 0.1}`.

    Raises:
        UsageError: BAD_SPLIT where shares are below 0 or leave nothing, or a part would be empty.
    """
    total = math.fsum(shares.values())
    if not shares or REST in shares or any(not 0.0 < share < 1.0 for share in shares.values()) or total >= 1.0:
        raise UsageError(
            f"{dict(shares)!r} are no shares: each above 0, less than 1 together, and none named {REST!r}.",
            code="BAD_SPLIT",
            hint="--share test=.2 --share dev=.1",
        )
    groups = sorted(_groups(dataset), key=lambda group: _drawn(seed, group))
    parts: dict[str, list[Question]] = {name: [] for name in (*shares, REST)}
    rest = iter(groups)
    for name, share in shares.items():
        wanted = round(share * len(dataset.questions))
        while len(parts[name]) < wanted and (group := next(rest, None)) is not None:
            parts[name] += group
    for group in rest:
        parts[REST] += group
    empty = [name for name, questions in parts.items() if not questions]
    if empty:
        raise UsageError(
            f"{empty[0]!r} of {dataset.name!r} would have no question: the {len(dataset.questions)} questions make "
            f"{len(groups)} groups that share facts, the largest of {max(map(len, groups))}.",
            code="BAD_SPLIT",
            hint="other shares, or more questions",
        )
    order = {question.id: i for i, question in enumerate(dataset.questions)}
    golds = {id for name in shares for question in parts[name] for id in _supporting(question)}
    kept = [passage for passage in dataset.passages if passage.id not in golds]
    return {
        name: Dataset(
            f"{dataset.name}-{name}",
            sorted(questions, key=lambda q: order[q.id]),
            kept if name == REST else dataset.passages,
            format="jade",
        )
        for name, questions in parts.items()
    }


def together(name: str, datasets: Mapping[str, Dataset]) -> Dataset:
    """Several data sets as one, asked over all their passages. A question's type is the name of its data set."""
    questions = [
        replace(question, id=f"{of}:{question.id}", type=of)
        for of, dataset in datasets.items()
        for question in dataset.questions
    ]
    passages = {passage.id: passage for dataset in datasets.values() for passage in dataset.passages}
    return Dataset(name, questions, list(passages.values()), format="jade")


def without_facts_of(learned: Dataset, others: Iterable[Dataset]) -> Dataset:
    """A data set without the questions that share a fact with one of the others, and without the gold passages of
    these.
    """
    others = list(others)
    everything = [*learned.passages, *(passage for other in others for passage in other.passages)]
    titles = {passage.id: passage.title.casefold() for passage in everything if passage.title}
    named = frozenset(titles.values())
    known = {fact for other in others for question in other.questions for fact in _facts(question, titles, named)}
    kept = [q for q in learned.questions if known.isdisjoint(_facts(q, titles, named))]
    golds = {id for other in others for question in other.questions for id in _supporting(question)}
    return Dataset(learned.name, kept, [p for p in learned.passages if p.id not in golds], format=learned.format)


def save_dataset(dataset: Dataset, folder: Path, *, manifest: Mapping[str, Any] | None = None) -> None:
    """Write a data set in this project's own schema (docs/howto/evaluate.md), compressed, byte for byte the same."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "questions.jsonl.gz", map(_question, dataset.questions))
    _write(folder / "corpus.jsonl.gz", map(_passage, dataset.passages))
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(dict(manifest), indent=1) + "\n", "utf-8")


def _groups(dataset: Dataset) -> list[list[Question]]:
    """Questions that are joined, directly or through others, by a fact."""
    titles = {passage.id: passage.title.casefold() for passage in dataset.passages if passage.title}
    named = frozenset(titles.values())
    first: dict[str, int] = {}
    leader = list(range(len(dataset.questions)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = i = leader[leader[i]]
        return i

    for i, question in enumerate(dataset.questions):
        for fact in _facts(question, titles, named):
            leader[find(i)] = find(first.setdefault(fact, i))
    found: dict[int, list[Question]] = {}
    for i, question in enumerate(dataset.questions):
        found.setdefault(find(i), []).append(question)
    return list(found.values())


def _facts(question: Question, titles: Mapping[str, str], named: frozenset[str]) -> Iterator[str]:
    for id in _supporting(question):
        yield id
        if id in titles:
            yield "title " + titles[id]
    for answer in (*question.answers, *(part.answer for part in question.decomposition)):
        if answer.casefold() in named:
            yield "title " + answer.casefold()


def _supporting(question: Question) -> set[str]:
    return {*question.supporting, *(id for part in question.decomposition for id in part.supporting)}


def _drawn(seed: int, group: Sequence[Question]) -> str:
    least = min(question.id for question in group)
    return hashlib.sha256(f"split {seed} {least}".encode()).hexdigest()


def _question(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "question": question.question,
        "answers": list(question.answers),
        "type": question.type,
        "hops": question.hops,
        "supporting": list(question.supporting),
        "decomposition": [
            {"question": part.question, "answer": part.answer, "supporting": list(part.supporting)}
            for part in question.decomposition
        ],
        **({"metadata": dict(question.metadata)} if question.metadata else {}),
    }


def _passage(passage: Passage) -> dict[str, Any]:
    about = {"id": passage.id, "title": passage.title, "text": passage.text}
    return {**about, **({"metadata": dict(passage.metadata)} if passage.metadata else {})}


def _write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


__all__ = ["REST", "save_dataset", "split", "together", "without_facts_of"]
