"""What a judge is shown of a recorded run: a search, what it found, and how the run made use of that.

Invariant: pure functions of the record. Behaviour is read from prompts and actions, whatever role wrote them, and does
not depend on which of two parallel branches ended first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jade_graph.runs.feedback import KEY as FEEDBACK
from jade_graph.scoring.metrics import answer_recall, normalize_answer
from jade_graph.types import Passage, Run, Transition

SEARCH, SELECTOR = "R", "DS"
MOST = 20
"""Passages of a search that are judged, the first ones."""
_PHRASE = 10
"""Words up to which a text that a reader wrote must stand in a passage as it is; of longer ones most words must."""
_MOST_WORDS = 0.75
_NOTHING = frozenset({"", "unknown", "yes", "no"})


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a run made use of a passage that it found.

    Attributes:
        rank: in its search, from 1.
        order: the how manieth its first reader read, from 1; None: no reader was shown it. A reader is any action but a
            search or a selection whose prompt holds the passage, in the same sub-question.
        reads: prompts of readers that hold it.
        words: of the passage.
        selected: whether the selector kept it; None: none acted, or what it wrote could not be read.
        cited: what a reader wrote stands in it.
        reused: further rounds of the run that were shown it, or what was taken from it.
        clicked, used: people said so (feedback).
    """

    rank: int
    order: int | None = None
    reads: int = 0
    words: int = 0
    selected: bool | None = None
    cited: bool = False
    reused: int = 0
    clicked: bool = False
    used: bool = False

    @property
    def chosen(self) -> bool:
        """The run itself picked it out: selected, or cited."""
        return bool(self.selected) or self.cited

    def __str__(self) -> str:
        said = [f"rank {self.rank}", "not read" if self.order is None else f"read as number {self.order}"]
        if self.reads > 1:
            said.append(f"read {self.reads} times")
        if self.selected is not None:
            said.append("selected" if self.selected else "not selected")
        if self.order is not None:
            said.append("cited" if self.cited else "not cited")
        if self.reused:
            said.append(f"used again in {self.reused} later step{'s' if self.reused > 1 else ''}")
        said += [
            word for word, true in (("clicked by the user", self.clicked), ("used by the user", self.used)) if true
        ]
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Candidate:
    passage: Passage
    behaviour: Behaviour


@dataclass(frozen=True, slots=True)
class Case:
    """One search of a run: what is judged together.

    `query` is what was searched for, `question` the whole run's, `answer` what the run answered. `(run_id, attempt,
    seq)` names the search.
    """

    run_id: str
    attempt: int
    seq: int
    question_id: str
    query: str
    question: str
    answer: str
    candidates: tuple[Candidate, ...]
    corpus_id: str = ""
    version: str = ""

    @property
    def key(self) -> tuple[str, int, int]:
        return self.run_id, self.attempt, self.seq


def cases_of(run: Run, *, most: int = MOST) -> list[Case]:
    """The searches of a run that found a text, in order. Passages of which the record has no text are left out."""
    prompts = {t.seq: _key(" ".join(m.content for m in t.prompt_messages)) for t in run.transitions if not _search(t)}
    told = run.metadata.get(FEEDBACK)
    said: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    out = []
    for t in run.transitions:
        if not _search(t) or t.error is not None or not isinstance(t.parsed, Mapping):
            continue
        found = [_passage(d) for d in t.parsed.get("documents", ()) if d.get("text", "").strip()][:most]
        if found:
            used = _use(run, t, found, prompts, said)
            queries = t.parsed.get("queries") or [m.content for m in t.prompt_messages]
            out.append(
                Case(
                    run.id,
                    run.attempt,
                    t.seq,
                    run.question_id,
                    str(queries[0]) if queries else run.question,
                    run.question,
                    run.answer,
                    tuple(Candidate(p, b) for p, b in zip(found, used, strict=True)),
                    t.corpus_id,
                    run.backbone_version,
                )
            )
    return out


def _use(
    run: Run, search: Transition, found: Sequence[Passage], prompts: Mapping[int, str], said: Mapping[str, Any]
) -> list[Behaviour]:
    """What became of the passages of one search."""
    keys = [_key(p.text) for p in found]
    after = [t for t in run.transitions if t.seq > search.seq and t.trace_node == search.trace_node and not _search(t)]
    readers = [t for t in after if t.role != SELECTOR and any(k in prompts[t.seq] for k in keys if k)]
    kept = _kept(run, search)
    order = _order(prompts[readers[0].seq], keys) if readers else {}
    asked = _key(run.question)
    out = []
    for i, (passage, key) in enumerate(zip(found, keys, strict=True)):
        mine = [t for t in readers if key and key in prompts[t.seq]]
        taken = [text for t in mine if (text := _written(t)) and stands_in(passage, text)]
        home = (mine[0].trace_node, mine[0].round) if mine else (search.trace_node, search.round)
        again = {
            (t.trace_node, t.round)
            for t in run.transitions
            if t.seq in prompts
            and t.role != SELECTOR
            and (key in prompts[t.seq] or _flowed(taken, mine, t, prompts, asked))
        }
        out.append(
            Behaviour(
                rank=i + 1,
                order=order.get(i),
                reads=len(mine),
                words=len(passage.text.split()),
                selected=None if kept is None else i in kept,
                cited=bool(taken),
                reused=len(again - {home}),
                clicked=passage.id in (said.get("clicked") or ()),
                used=passage.id in (said.get("used") or ()),
            )
        )
    return out


def _kept(run: Run, search: Transition) -> frozenset[int] | None:
    """Which passages of the search the next selector of its round kept."""
    for t in run.transitions:
        if t.seq > search.seq and (t.trace_node, t.round) == (search.trace_node, search.round):
            if t.role == SEARCH:
                return None
            if t.role == SELECTOR:
                legal = t.error is None and not t.fallback_used and isinstance(t.parsed, list | tuple)
                return frozenset(i for i in t.parsed if isinstance(i, int)) if legal else None
    return None


def _order(prompt: str, keys: Sequence[str]) -> dict[int, int]:
    """Passage to place, from 1, in which a prompt shows them."""
    places = sorted((prompt.index(key), i) for i, key in enumerate(keys) if key and key in prompt)
    return {i: place for place, (_, i) in enumerate(places, 1)}


def _flowed(
    taken: Sequence[str], readers: Sequence[Transition], t: Transition, prompts: Mapping[int, str], asked: str
) -> bool:
    """Whether a later prompt holds what was taken from a passage, and the question did not say it already."""
    marks = (key for text in taken if (key := _key(text)) and key not in asked)
    return any(mark in prompts[t.seq] for mark in marks) and t.seq > min(r.seq for r in readers)


def _written(t: Transition) -> str:
    """The text that an action gave, as its role read it; empty where there is none."""
    value = t.predicted if t.predicted is not None else t.parsed
    text = value if isinstance(value, str) and t.error is None else ""
    return "" if normalize_answer(text) in _NOTHING else text


def stands_in(passage: Passage, text: str) -> bool:
    """Whether a passage says what was written: word for word where that is short, else most of its words."""
    words = normalize_answer(text).split()
    if len(words) <= _PHRASE:
        return answer_recall([passage], [text]) == 1.0
    there = set(normalize_answer(str(passage)).split())
    return sum(word in there for word in set(words)) >= _MOST_WORDS * len(set(words))


def _search(t: Transition) -> bool:
    return t.role == SEARCH


def _passage(document: Mapping[str, Any]) -> Passage:
    told = document.get("metadata") or {}
    return Passage(document["id"], document["text"], document.get("title", ""), document.get("score", 0.0), told)


def _key(text: str) -> str:
    """Letters and digits alone: prompts quote texts and join their lines."""
    return re.sub(r"[\W_]+", "", text.casefold())


__all__ = ["Behaviour", "Candidate", "Case", "cases_of", "stands_in"]
