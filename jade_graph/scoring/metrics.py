"""Scores of answers and of retrieved passages.

Invariant: pure functions of text. What cannot be scored (no gold answer, no gold passage, a yes/no question's answer
looked for in a passage) is None, "unscored", and never 0.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from jade_graph.types import Passage

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_YES_NO = frozenset({"yes", "no"})
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class _Replace(dict[int, str]):
    """A table for `str.translate` that puts `by` in the place of punctuation, found out once per character."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self._by = by

    def __missing__(self, code: int) -> str:
        char = chr(code)
        punctuation = char in _ASCII_PUNCTUATION or unicodedata.category(char).startswith("P")
        self[code] = self._by if punctuation else char
        return self[code]


_DROP, _PART = _Replace(""), _Replace(" ")


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces (Rajpurkar et al., 2016).

    Beyond it: Unicode is composed (NFKC) and case-folded, punctuation outside ASCII counts too (dashes, quotation
    marks), and a text of nothing but articles or punctuation ("The The", "A", "!!!") keeps them, as it would vanish.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = folded.translate(_DROP)
    for form in (_ARTICLES.sub(" ", bare), bare, folded):
        words = " ".join(form.split())
        if words:
            return words
    return ""


def is_yes_no(golds: Iterable[str]) -> bool:
    """Whether the gold answer is yes or no, however it is written: ['yes'], 'YES', 'No.'."""
    normal = {normalize_answer(gold) for gold in golds}
    return bool(normal) and normal <= _YES_NO


def exact_match(prediction: str, golds: Iterable[str]) -> float | None:
    """1 if the normalised prediction equals a normalised gold answer, else 0; None without gold answers."""
    normal = {normalize_answer(gold) for gold in _answers(golds)} - {""}
    return float(normalize_answer(prediction) in normal) if normal else None


def token_f1(prediction: str, golds: Iterable[str], *, style_stripped: bool = False) -> float | None:
    """F1 over the bags of normalised words, at its best over the gold answers; None without gold answers.

    A gold answer that is yes or no is matched exactly: sharing a word with it is no partial success.

    Args:
        style_stripped: score what `strip_style` leaves of the prediction, so that a right answer in a full sentence is
            told from a wrong one.
    """
    normal = [normalize_answer(gold) for gold in _answers(golds)]
    normal = [gold for gold in normal if gold]
    if not normal:
        return None
    texts = {prediction, strip_style(prediction)} if style_stripped else {prediction}
    return max(_f1(normalize_answer(text), gold) for text in texts for gold in normal)


def _f1(prediction: str, gold: str) -> float:
    if gold in _YES_NO or prediction in _YES_NO:
        return float(prediction == gold)
    ours, theirs = Counter(prediction.split()), Counter(gold.split())
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total())


_LEAD = re.compile(
    r"""^\s*(?:(?:so|therefore|thus|hence|overall|based\ on\ [^,]{1,80}|according\ to\ [^,]{1,80}),?\s+)*
        (?:(?:the\s+)?(?:final\s+|correct\s+|short\s+)?answer\s*(?:is|would\s+be|:)\s*:?\s*
          |(?:it|this|that|he|she|they)\s+(?:is|was|are|were)\s+)?""",
    re.IGNORECASE | re.VERBOSE,
)
_TRAIL = re.compile(
    r"(?:[,;]\s+(?:because|since|as|which|who|where|according\s+to|so)\b.*|\s+\([^()]*\)|\s*[.!])\s*$", re.I | re.S
)
_YES_NO_LEAD = re.compile(r"^\s*(yes|no)\b\s*[,.;:!-]", re.IGNORECASE)


def strip_style(text: str) -> str:
    """The core of an answer: without "the answer is", "it was", trailing ", because ..", parentheses, full stops.

    "Yes, they are." is "yes". What would leave nothing is left alone.
    """
    verdict = _YES_NO_LEAD.match(text)
    if verdict:
        return verdict.group(1)
    core = _LEAD.sub("", text, count=1)
    while (shorter := _TRAIL.sub("", core)) != core and shorter.strip():
        core = shorter
    return core.strip() or text.strip()


def answer_recall(passages: Sequence[Passage], golds: Iterable[str]) -> float | None:
    """1 if a gold answer stands in one of the passages (title and text), whole words only, else 0.

    Both sides are normalised; punctuation either vanishes or parts words, so "Kansas-born" holds "Kansas" and "US"
    is found in "U.S.". None without gold answers, and for yes/no answers, which no passage states.
    """
    wanted = [gold for gold in _answers(golds) if gold.strip()]
    if not wanted or is_yes_no(wanted):
        return None
    for form in (normalize_answer, _spaced):
        needles = [f" {form(gold)} " for gold in wanted if form(gold)]
        for passage in passages:
            haystack = f" {form(str(passage))} "
            if any(needle in haystack for needle in needles):
                return 1.0
    return 0.0


def _spaced(text: str) -> str:
    parted = unicodedata.normalize("NFKC", text).casefold().translate(_PART)
    return " ".join(_ARTICLES.sub(" ", parted).split())


def support_recall(passages: Sequence[Passage], supporting: Sequence[str], k: int) -> float | None:
    """Share of the supporting passages' ids among the first `k` passages; None when the question names none."""
    gold = set(supporting)
    if not gold:
        return None
    return len(gold & {passage.id for passage in passages[:k]}) / len(gold)


def _answers(golds: Iterable[str]) -> list[str]:
    # A bare string is one answer, not a sequence of letters: a silent mistake otherwise.
    return [golds] if isinstance(golds, str) else list(golds)
