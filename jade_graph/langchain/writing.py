"""A model's hand on a JSON text: it draws one of several texts, or writes a text or a number.

Invariant: what is drawn is legal at its place, and every draw has a seed of its own that the first one's names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from jade_graph.types import Backbone, Completion, Sampling

_MOST_DIGITS = 12
_REST = 96  # tokens kept free for the skeleton that is still to come
_PIECE = 16
DIGITS = tuple("0123456789")


@dataclass
class Pen:
    """Writes behind a prompt. `sampled` are the completions that the model was asked for, in order.

    Args:
        backbone: with token ids of its own.
        prompt: token ids before the JSON.
        sampling: how values are drawn; `max_new_tokens` bounds all free text together.
    """

    backbone: Backbone
    prompt: list[int]
    sampling: Sampling
    text: str = ""
    cut: bool = False
    sampled: list[Completion] = field(default_factory=list)

    async def string(self) -> None:
        """Free text and its closing quote."""
        self.write(json.dumps(await self.words(), ensure_ascii=False)[1:])

    async def words(self) -> str:
        """Free text of the model's own, which it writes as JSON; not written down."""
        start, body = list(self.ids()), ""
        left = self.left(start)
        ids: list[int] = []
        while left > 0:
            done = await self._draw([*start, *ids], min(_PIECE, left))
            ids += [t for t in done.token_ids if done.finish_reason == "length" or t != done.token_ids[-1]]
            left -= len(done.token_ids)
            body = self.backbone.decode(ids)
            if _closes(body) is not None or "\n" in body or done.finish_reason != "length":
                break
        else:
            self.cut = True
        end = _closes(body)
        body = body[: len(body) if end is None else end].split("\n", 1)[0]
        return _unescaped(body)

    def left(self, ids: list[int]) -> int:
        """Tokens that free text may still take: of the budget, and of the context less what the rest will need."""
        spent = sum(len(c.token_ids) for c in self.sampled)
        return min(self.sampling.max_new_tokens - spent, self.backbone.max_context - len(ids) - _REST)

    async def number(self, digits: str, fraction: bool) -> None:
        if digits == "-":
            digits += await self.pick(list(DIGITS))
        if digits.lstrip("-") == "0" and not fraction:
            return  # JSON has no leading zeros
        point = False
        for _ in range(_MOST_DIGITS):
            more = [] if digits.lstrip("-") == "0" else list(DIGITS)
            if fraction and not point:
                more.append(".")
            drawn = await self.pick([*more, " "], silent=" ")
            if drawn == " ":
                return
            digits += drawn
            if drawn == ".":
                point = True
                digits += await self.pick(list(DIGITS))

    # --- the model ----------------------------------------------------------------------------------------------------
    def ids(self) -> list[int]:
        return [*self.prompt, *(self.backbone.encode_text(self.text) if self.text else ())]

    def write(self, text: str) -> None:
        self.text += text

    async def pick(self, texts: list[str], *, silent: str = "") -> str:
        """One of the texts, drawn by the model where there is more than one; written down unless it is `silent`."""
        if len(texts) == 1:
            chosen = texts[0]
        else:
            end = self.backbone.eos_token_id
            choices = tuple((*self.backbone.encode_text(text), end) for text in texts)
            wanted = max(map(len, choices))
            done = await self._ask(replace(self.sampling, choices=choices, max_new_tokens=wanted), self.ids())
            chosen = texts[choices.index(done.token_ids)]
        if chosen != silent:
            self.write(chosen)
        return chosen

    async def _draw(self, ids: list[int], count: int) -> Completion:
        return await self._ask(replace(self.sampling, max_new_tokens=count), ids)

    async def _ask(self, sampling: Sampling, ids: list[int]) -> Completion:
        done = await self.backbone.generate(ids, replace(sampling, seed=sampling.seed + len(self.sampled)))
        self.sampled.append(done)
        return done


def _closes(body: str) -> int | None:
    """Where the first quote stands that no backslash hides."""
    escaped = False
    for index, letter in enumerate(body):
        if letter == '"' and not escaped:
            return index
        escaped = letter == "\\" and not escaped
    return None


def _unescaped(body: str) -> str:
    try:
        told = str(json.loads(f'"{body}"'))
    except ValueError:  # a stray backslash or control character: the text as it was written
        told = body
    return told.encode("utf-8", errors="replace").decode("utf-8")  # half a surrogate pair is no text
