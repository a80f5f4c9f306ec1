"""What every token of a recorded prompt is: a document's, the question's, an instruction's, the template's.

Invariant: the tokens are the recorded ones: a tokenizer that reads the prompt in other tokens is an error. Documents
are found by the markers that number them, which roles defuse wherever else they stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jade_graph.backbones.codec import Codec
from jade_graph.errors import UsageError
from jade_graph.types import Message

_MARKER = re.compile(r"(?m)^Document(\d+) ?: ?")
_BEHIND = re.compile(r"\n\n(?=(?:Question|Query)s?: )")


@dataclass(frozen=True, slots=True)
class Spans:
    """Positions by what they are. `documents`: of each document's text, its marker apart."""

    ids: tuple[int, ...]
    text: str
    offsets: tuple[tuple[int, int], ...]
    documents: tuple[tuple[int, ...], ...]
    markers: tuple[int, ...]
    question: tuple[int, ...]
    instruction: tuple[int, ...]

    def within(self, start: int, end: int) -> tuple[int, ...]:
        """Tokens of a stretch of the text; the blank in front of it may be part of the first."""
        return tuple(i for i, (a, b) in enumerate(self.offsets) if start < b <= end and a >= start - 1)


def spans_of(codec: Codec, messages: Sequence[Message], recorded: Sequence[int], questions: Sequence[str]) -> Spans:
    """The spans of a recorded prompt.

    Args:
        questions: texts that the question may have; the first that the prompt has is it.

    Raises:
        UsageError: LOOK_PROMPT.
    """
    text, ids, offsets = codec.spelled(messages)
    if tuple(ids) != tuple(recorded):
        raise UsageError(
            f"the model at hand reads the recorded prompt in {len(ids)} tokens, it had {len(recorded)}: other tokens, "
            "so it is not the model that wrote this.",
            code="LOOK_PROMPT",
            hint="--backbone with the model of the run",
        )
    made = Spans(tuple(ids), text, tuple(offsets), (), (), (), ())
    documents: list[tuple[int, ...]] = []
    markers: list[int] = []
    question: tuple[int, ...] = ()
    instruction: list[int] = []
    at = 0
    for message in messages:
        begin = text.find(message.content, at)
        if begin < 0:  # defused control tokens, or a template that changes texts: nothing of it is told apart
            continue
        end = at = begin + len(message.content)
        instruction += made.within(begin, end)
        if message.role == "system":
            continue
        last = begin
        for head, a, b in _documents(text, begin, end):
            documents.append(made.within(a, b))
            markers += made.within(head, a)
            last = b
        for asked in questions:
            spelled = " ".join(asked.split())
            where = text.rfind(spelled, last, end) if spelled else -1
            where = text.find(spelled, begin, end) if where < 0 and spelled else where
            if where >= 0 and not question:
                question = made.within(where, where + len(spelled))
    inside = {p for d in documents for p in d}
    question = tuple(p for p in question if p not in inside)
    return Spans(
        made.ids, text, made.offsets, tuple(documents), tuple(p for p in markers if p not in inside), question,
        tuple(p for p in instruction if p not in inside),
    )  # fmt: skip


def _documents(text: str, begin: int, end: int) -> list[tuple[int, int, int]]:
    """(marker, start, end) of every document in a message; in the short profiles one a line."""
    found = list(_MARKER.finditer(text, begin, end))
    out = []
    for m, following in zip(found, [*(n.start() for n in found[1:]), end], strict=False):
        if m[0].rstrip().endswith(" :"):
            stop = text.find("\n", m.end(), end)
            stop = end if stop < 0 else stop
        else:
            behind = [b.start() for b in _BEHIND.finditer(text, m.end(), following)]
            stop = behind[-1] if behind and following == end else following
        out.append((m.start(), m.end(), len(text[:stop].rstrip())))
    return out
