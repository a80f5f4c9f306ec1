"""The public multi-hop and retrieval data sets, each read from its own format.

Invariant: a reader turns a path into a `Dataset` and invents nothing: what a format does not state (answers of a test
split, decompositions) stays empty; records that cannot be used are counted in the notes, or left out and named (`odd`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from jade_graph.data.dataset import Dataset, PassagePool
from jade_graph.data.odd import read_questions
from jade_graph.data.records import Record, open_text, read_records
from jade_graph.errors import DataError
from jade_graph.types import Passage, Question, SubQuestion


def read_musique(path: Path, name: str) -> Dataset:
    """MuSiQue (Trivedi et al., TACL 2022), JSON lines: `paragraphs`, `question_decomposition`, `answer_aliases`.

    Questions marked `answerable: false` (MuSiQue-Full) have no answer in their passages and are left out.
    """
    pool = PassagePool()
    unanswerable = 0

    def question(record: Record) -> Question | None:
        nonlocal unanswerable
        paragraphs = record.objects("paragraphs")
        ids = [pool.add(p.get("title", str, ""), p.need("paragraph_text", str)) for p in paragraphs]
        if not record.get("answerable", bool, True):
            unanswerable += 1
            return None
        by_index = {p.get("idx", int, i): ids[i] for i, p in enumerate(paragraphs)}
        steps = []
        for step in record.objects("question_decomposition"):
            support = step.get("paragraph_support_idx", int, -1)
            steps.append(
                SubQuestion(
                    step.need("question", str),
                    " ".join(step.texts("answer")),
                    (by_index[support],) if support in by_index else (),
                )
            )
        key = record.identifier("id")
        return Question(
            id=key,
            question=record.need("question", str),
            answers=_distinct([*record.texts("answer"), *record.texts("answer_aliases")]),
            type=key.partition("__")[0] if "hop" in key.partition("__")[0] else "",
            hops=max(1, len(steps)),
            supporting=_distinct(ids[i] for i, p in enumerate(paragraphs) if p.get("is_supporting", bool, False)),
            decomposition=tuple(steps),
        )

    questions, odd = read_questions(path, question)
    notes = [f"{unanswerable} unanswerable questions left out"] if unanswerable else []
    return Dataset(name, questions, pool.passages, format="musique", notes=notes, left_out=odd)


def read_hotpot(path: Path, name: str) -> Dataset:
    """HotpotQA, distractor setting (Yang et al., EMNLP 2018): JSON with `context` and `supporting_facts`."""
    return _read_contexts(path, name, "hotpot")


def read_2wiki(path: Path, name: str) -> Dataset:
    """2WikiMultihopQA (Ho et al., COLING 2020): HotpotQA's format and `evidences`, triples that become sub-questions.

    A triple's subject that an earlier triple found is written as a reference to it (`#1 date of birth`).
    """
    return _read_contexts(path, name, "2wiki")


def read_flashrag(path: Path, name: str) -> Dataset:
    """FlashRAG (Jin et al., WWW 2025), JSON lines: `id`, `question`, `golden_answers`, `metadata`.

    Passages come from `metadata.context` where it is there (the multi-hop sets); most sets bring none.
    """
    pool = PassagePool()

    def question(record: Record) -> Question:
        extra = record.within("metadata")
        supporting = _supporting(extra, _context(extra, pool))
        steps = tuple(
            SubQuestion(step.need("question", str), " ".join(step.texts("answer")))
            for step in extra.objects("question_decomposition")
        )
        return Question(
            id=record.identifier("id"),
            question=record.need("question", str),
            answers=record.texts("golden_answers"),
            type=extra.get("type", str, ""),
            hops=max(1, len(steps), len(supporting)),
            supporting=supporting,
            decomposition=steps,
        )

    questions, odd = read_questions(path, question)
    return Dataset(name, questions, pool.passages, format="flashrag", left_out=odd)


ANSWERS = ("golden_answers", "answers", "answer", "possible_answers")
"""What the sets of open questions call their gold answers: FlashRAG, WebQuestions, NQ-open, PopQA."""


def read_open(path: Path, name: str) -> Dataset:
    """Open questions without passages, as NQ-open, TriviaQA, PopQA, WebQuestions or SQuAD have them: `question` and one
    of `ANSWERS`, a list, a text, `{"value", "aliases"}` or `{"text": [..]}`. Records without an id are numbered.
    """
    numbers = itertools.count(1)

    def question(record: Record) -> Question:
        number = next(numbers)
        field = next((f for f in ANSWERS if record.data.get(f) is not None), ANSWERS[0])
        if isinstance(record.data.get(field), dict):
            inner = record.within(field)
            answers = _distinct([*inner.texts("value"), *inner.texts("aliases"), *inner.texts("text")])
        else:
            answers = record.texts(field)
        named = any(record.data.get(f) not in (None, "") for f in ("id", "_id", "question_id"))
        key = record.identifier("id", "_id", "question_id") if named else str(number)
        return Question(id=key, question=record.need("question", str), answers=answers)

    questions, odd = read_questions(path, question)
    return Dataset(name, questions, format="open", left_out=odd)


def read_beir(folder: Path, name: str, split: str = "test") -> Dataset:
    """A BEIR folder (Thakur et al., NeurIPS 2021): corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.

    Supporting passages are those judged above 0. BEIR has no answers, but `metadata.answer` is used where it is there.
    Queries without a judgement in the split are left out.
    """
    judged = _qrels(folder, split)

    def question(record: Record) -> Question | None:
        key = record.identifier("_id", "id")
        if key not in judged:
            return None
        extra = record.within("metadata")
        return Question(
            id=key,
            question=record.need("text", str),
            answers=_distinct([*extra.texts("answer"), *extra.texts("answers")]),
            supporting=judged[key],
        )

    questions, odd = read_questions(one_of(folder, "queries.jsonl"), question)

    def passages() -> Iterable[Passage]:
        for record in read_records(one_of(folder, "corpus.jsonl")):
            yield Passage(record.identifier("_id", "id"), record.need("text", str), record.get("title", str, ""))

    return Dataset(name, questions, passages, format="beir", left_out=odd)


def read_jade(path: Path, name: str) -> Dataset:
    """This project's own schema: a folder of questions.jsonl and corpus.jsonl (or .gz), or the questions' file alone.

    Questions: `id, question, answers[], type, hops, supporting[], decomposition[{question, answer, supporting[],
    text?}]`; passages: `id, title, text`. A step's `text`, a natural wording of its `question`, is what will be asked.
    """
    folder = path if path.is_dir() else path.parent

    def question(record: Record) -> Question:
        if "answer" in record.data:  # a slip that would leave every run unscored
            record.need("answers", list)
        steps = [
            SubQuestion(
                step.get("text", str, "") or step.need("question", str),
                " ".join(step.texts("answer")),
                step.texts("supporting"),
            )
            for step in record.objects("decomposition")
        ]
        return Question(
            id=record.identifier("id"),
            question=record.need("question", str),
            answers=record.texts("answers"),
            type=record.get("type", str, ""),
            hops=record.get("hops", int, 1),
            supporting=record.texts("supporting"),
            decomposition=tuple(steps),
            metadata=record.get("metadata", dict, {}),
        )

    questions, odd = read_questions(one_of(folder, "questions.jsonl") if path.is_dir() else path, question)

    def passages() -> Iterable[Passage]:
        for record in read_records(one_of(folder, "corpus.jsonl")):
            yield Passage(
                record.identifier("id"),
                record.need("text", str),
                record.get("title", str, ""),
                metadata=record.get("metadata", dict, {}),
            )

    alone = not path.is_dir() and _found(folder, "corpus.jsonl") is None
    return Dataset(name, questions, () if alone else passages, format="jade", left_out=odd)


def one_of(folder: Path, name: str) -> Path:
    """The file, or its gzip form. Raises `DataError` DATASET_FILE."""
    if (found := _found(folder, name)) is not None:
        return found
    raise DataError(
        f"{str(folder)!r} has no {name} (or {name}.gz).",
        code="DATASET_FILE",
        known=sorted(p.name for p in folder.iterdir()) if folder.is_dir() else (),
    )


def _found(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_contexts(path: Path, name: str, format: str) -> Dataset:
    pool = PassagePool()

    def question(record: Record) -> Question:
        if record.data.get("context") is None:
            record.need("context", list)
        titles = _context(record, pool)
        supporting = _supporting(record, titles)
        steps = _evidences(record, titles, supporting)
        return Question(
            id=record.identifier("_id", "id"),
            question=record.need("question", str),
            answers=_distinct([*record.texts("answer"), *record.texts("answer_aliases")]),
            type=record.get("type", str, ""),
            hops=max(2, len(steps)),
            supporting=supporting,
            decomposition=steps,
        )

    questions, odd = read_questions(path, question)
    return Dataset(name, questions, pool.passages, format=format, left_out=odd)


def _context(record: Record, pool: PassagePool) -> dict[str, list[str]]:
    """Passages' ids by title, from `[[title, [sentence..]]..]` or `{"title": [..], "sentences" or "content": [..]}`."""
    value = record.data.get("context")
    if value is None:
        return {}
    if isinstance(value, dict):
        inner = record.within("context")
        bodies = inner.get("sentences", list, []) or inner.need("content", list)
        pairs: list[object] = [list(pair) for pair in zip(inner.need("title", list), bodies, strict=False)]
    else:
        pairs = record.get("context", list, [])
    titles: dict[str, list[str]] = {}
    for i, pair in enumerate(pairs):
        match pair:
            case [str(title), str() | list() as body]:
                text = body if isinstance(body, str) else " ".join(str(sentence) for sentence in body)
                titles.setdefault(title, []).append(pool.add(title, text))
            case _:
                raise record.bad(f"context[{i}]", "a pair of title and sentences", pair)
    return titles


def _supporting(record: Record, titles: dict[str, list[str]]) -> tuple[str, ...]:
    value = record.data.get("supporting_facts")
    if isinstance(value, dict):
        named = list(record.within("supporting_facts").texts("title"))
    else:
        facts = record.get("supporting_facts", list, [])
        if any(not isinstance(fact, list) or not fact for fact in facts):
            raise record.bad("supporting_facts", "a list of pairs of title and sentence number", value)
        named = [str(fact[0]) for fact in facts]
    return _distinct(key for title in named for key in titles.get(title, ()))


def _evidences(record: Record, titles: dict[str, list[str]], supporting: tuple[str, ...]) -> tuple[SubQuestion, ...]:
    steps: list[SubQuestion] = []
    for i, triple in enumerate(record.get("evidences", list, [])):
        match triple:
            case [str(subject), str(relation), str(found)]:
                earlier = [n for n, step in enumerate(steps, start=1) if step.answer.casefold() == subject.casefold()]
                asked = f"#{earlier[-1]}" if earlier else subject
                passages = tuple(key for key in titles.get(subject, ()) if key in supporting)
                steps.append(SubQuestion(f"{asked} {relation}", found, passages))
            case _:
                raise record.bad(f"evidences[{i}]", "a triple of texts", triple)
    return tuple(steps)


def _qrels(folder: Path, split: str) -> dict[str, tuple[str, ...]]:
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        raise DataError(
            f"{str(folder)!r} has no split {split!r}.",
            code="DATASET_SPLIT",
            known=sorted(p.stem for p in (folder / "qrels").glob("*.tsv")),
            hint="--split NAME",
        )
    judged: dict[str, list[str]] = {}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\n").split("\t")
            if not line.strip() or (number == 1 and fields[-1] == "score"):
                continue
            try:
                query, passage, score = fields[0], fields[-2], float(fields[-1])
            except (IndexError, ValueError) as error:
                raise DataError(
                    f"{path.name}:{number}: not 'query-id<tab>corpus-id<tab>score': {line.rstrip()[:80]!r}.",
                    code="DATASET_FIELD",
                ) from error
            if score > 0:
                judged.setdefault(query, []).append(passage)
    return {query: _distinct(passages) for query, passages in judged.items()}


def _distinct(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
