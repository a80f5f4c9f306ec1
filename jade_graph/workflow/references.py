"""`#k` references between sub-questions.

Invariant: only references to answers that are known are replaced, in one pass, so that text inside an answer is never
read as a reference; everything else in the text stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_REFERENCE = re.compile(r"#([1-9][0-9]?)(?![0-9])")


def resolve_references(text: str, answers: Sequence[str] | Mapping[int, str]) -> str:
    """Put earlier answers in the place of `#1`, `#2`, ..

    Args:
        text: a sub-question, e.g. "Who founded #1?".
        answers: the answers so far: the first stands for `#1`; or a mapping from the number to the answer.

    Returns:
        The text with every reference to a known, non-empty answer replaced; the others are left as they stand.
    """

    def answer(match: re.Match[str]) -> str:
        number = int(match.group(1))
        if isinstance(answers, Mapping):
            known = answers.get(number, "")
        else:
            known = answers[number - 1] if number <= len(answers) else ""
        return known or match.group(0)

    return _REFERENCE.sub(answer, text)


def references(text: str) -> tuple[int, ...]:
    """The numbers that `text` refers to, in order of first sight."""
    return tuple(dict.fromkeys(int(number) for number in _REFERENCE.findall(text)))
