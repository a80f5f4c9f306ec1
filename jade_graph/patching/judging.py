"""Judgements of relevance as pairs of prompts: a passage that answers against one that only looks like it.

Invariant: both documents are cut to one length, in tokens, by putting token ids together; whatever else is in the
prompts is the same token for token. A model with a chat template is asked as in arXiv 2504.07898 and answers yes or no;
one that was taught the roles is asked as its document selector is, and names documents.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jade_graph.backbones.codec import Codec
from jade_graph.data import Dataset
from jade_graph.errors import DataError, unknown
from jade_graph.patching.pairs import Pair, make_pair
from jade_graph.types import Message, Passage, Question, Retriever

Form = Literal["pointwise", "pairwise"]
FORMS: tuple[Form, ...] = ("pointwise", "pairwise")
_POINTWISE = "Does the document answer the query? Only output 'yes' or 'no'."
_PAIRWISE = "Is document A more relevant to the query? Only output 'yes' or 'no'."
_HOLE = "\ue000"  # stands for the prompt while the template is rendered: a character that no text has


@dataclass(frozen=True, slots=True)
class Contrast:
    """A question with a passage that supports its answer and one that was found and does not."""

    question: Question
    positive: Passage
    negative: Passage


def contrasts(
    dataset: Dataset, retriever: Retriever, *, count: int, seed: int = 0, steps: bool = False, depth: int = 20
) -> list[Contrast]:
    """So many contrasts of a data set's own passages: a supporting one that is found for the question, and the first
    that is found and supports nothing (a hard negative).

    Args:
        steps: ask the first step of the data set's own decompositions instead, which one passage answers.

    Raises:
        DataError: LOOK_DATA where the data set names no supporting passages that are found.
    """
    out: list[Contrast] = []
    order = [asked for q in dataset.questions if (asked := _step(q) if steps else q) is not None]
    random.Random(f"look {seed}").shuffle(order)
    for question in order:
        if len(out) == count:
            break
        found = asyncio.run(retriever.search(question.question, depth))
        good = next((p for p in found if p.id in question.supporting), None)
        bad = next((p for p in found if p.id not in question.supporting), None)
        if good is not None and bad is not None:
            out.append(Contrast(question, good, bad))
    if not out:
        raise DataError(
            f"the data set {dataset.name!r} has no question with a supporting passage that is found"
            + (" for its first step." if steps else "."),
            code="LOOK_DATA",
            hint="a data set with passages and supporting ids, e.g. MuSiQue",
        )
    return out


def _step(question: Question) -> Question | None:
    """The first step of a question's decomposition, where that names its passage."""
    first = next(iter(question.decomposition), None)
    if first is None or not first.supporting or "#" in first.question:
        return None
    return replace(question, question=first.question, answers=(first.answer,), supporting=first.supporting)


def judgements(codec: Codec, found: Sequence[Contrast], form: Form, *, tokens: int = 64) -> Iterator[Pair]:
    """A pair of prompts for each contrast.

    Args:
        form: "pointwise": does this document answer (clean: the positive, corrupted: the negative)? "pairwise": which
            of two is better (clean: the positive first, corrupted: the two change places)?
        tokens: most of a document.

    Raises:
        UsageError: LOOK_FORM.
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS, code="LOOK_FORM")
    pieces, choices = (_asked if codec.conversations is not None else _selected)(codec, form)
    choice, other = (tuple(codec.encode_text(text)) for text in choices)
    if codec.conversations is None:
        choice, other = (*choice, codec.eos_token_id), (*other, codec.eos_token_id)
    for each in found:
        good, bad = (codec.encode_text(" " + " ".join(str(p).split())) for p in (each.positive, each.negative))
        size = min(len(good), len(bad), tokens)
        good, bad = good[:size], bad[:size]
        sides = ((good,), (bad,)) if form == "pointwise" else ((good, bad), (bad, good))
        (clean, groups), (corrupt, _) = (_joined(codec, pieces, each.question.question, d) for d in sides)
        if clean != corrupt:
            note = f"documents of {size} tokens"
            yield make_pair(clean, corrupt, choice, other, groups, name=each.question.id, notes=(note,))


Piece = tuple[str, str | int | None]
"""A group and its text; None: the question; a number: a document's tokens."""


def _asked(codec: Codec, form: Form) -> tuple[list[Piece], tuple[str, str]]:
    """In the words of the paper, within the chat template."""
    assert codec.conversations is not None
    before, _, behind = codec.conversations.render([Message("user", _HOLE)]).partition(_HOLE)
    if form == "pointwise":
        shown: list[Piece] = [("document", "Document:"), ("document", 0)]
    else:
        shown = [("document A", "Document A:"), ("document A", 0), ("document B", "\n\nDocument B:"), ("document B", 1)]
    told = _POINTWISE if form == "pointwise" else _PAIRWISE
    rest: list[Piece] = [
        ("query", "\n\nQuery: "),
        ("query", None),
        ("instruction", f"\n\n{told}"),
        ("template", behind),
    ]
    return [("template", before), *shown, *rest], ("yes", "no")


def _selected(codec: Codec, form: Form) -> tuple[list[Piece], tuple[str, str]]:
    """As the document selector is asked in the short profiles."""
    del codec
    shown: list[Piece] = []
    for i in range(1 if form == "pointwise" else 2):
        name = "document" if form == "pointwise" else f"document {'AB'[i]}"
        shown += [(name, f"Document{i} :"), (name, i), (name, "\n")]
    rest: list[Piece] = [("instruction", "select :"), ("query", " "), ("query", None), ("instruction", "\n")]
    first = "<id>Document0</id>"
    return [*shown, *rest], (first, "<id></id>" if form == "pointwise" else "<id>Document1</id>")


def _joined(
    codec: Codec, pieces: Sequence[Piece], question: str, documents: Sequence[list[int]]
) -> tuple[list[int], dict[str, list[int]]]:
    """Token ids and groups. Texts between two documents are encoded in one piece, so that tokens are the usual ones."""
    ids: list[int] = []
    groups: dict[str, list[int]] = {}
    run: list[tuple[str, str]] = []

    def flush() -> None:
        text = "".join(piece for _, piece in run)
        encoded = codec.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends, at = [], 0
        for name, piece in run:
            at += len(piece)
            ends.append((at, name))
        for token, (_, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            groups.setdefault(next(name for end, name in ends if stop <= end), []).append(len(ids))
            ids.append(token)
        run.clear()

    for name, piece in pieces:
        if isinstance(piece, int):
            flush()
            groups.setdefault(name, []).extend(range(len(ids), len(ids) + len(documents[piece])))
            ids += documents[piece]
        else:
            run.append((name, " ".join(question.split()) if piece is None else piece))
    flush()
    return ids, groups
