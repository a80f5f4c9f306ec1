"""Triples are asked in words: the subject stands as it stood, and the question is one."""

from __future__ import annotations

import re

import pytest

from jade_graph.data import load_dataset
from jade_training.supervised.wording import asked


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Hello Love >> performer", "Who performed Hello Love?"),
        ("#1 >> place of birth", "Where was #1 born?"),
        ("#2 >> located in the administrative territorial entity", "In which state, county or district is #2?"),
        ("Silver {} Dagger >> author", "Who is the author of Silver {} Dagger?"),
        ("Rome >> mascot", "What is the mascot of Rome?"),
        ("#1 >> distributed by", "What is #1 distributed by?"),
        ("#1 >> currency used in", "What is #1 the currency used in?"),
        ("A >> B >> spouse", "What is the B >> spouse of A?"),
        ("Who wrote Dune?", "Who wrote Dune?"),
        ("is 3 > 2", "is 3 > 2"),
    ],
)
def test_a_triple_is_a_question(text: str, question: str) -> None:
    assert asked(text) == question


def test_every_triple_of_real_data_is_asked_with_its_subject_whole(shared_data) -> None:
    seen = 0
    for question in load_dataset(shared_data / "musique_train100").questions:
        for part in question.decomposition:
            subject, mark, _ = part.question.partition(" >> ")
            if mark:
                seen += 1
                text = asked(part.question)
                assert subject.strip() in text
                assert re.fullmatch(r"[A-Z].*\?", text)
                assert ">>" not in text
    assert seen > 50
