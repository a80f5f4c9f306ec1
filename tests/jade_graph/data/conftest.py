"""A small invented data set in every format that the loaders know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[str, Any], Path]

MUSIQUE = {
    "id": "2hop__1_2",
    "paragraphs": [
        {"idx": 0, "title": "Red Boat", "paragraph_text": "Red Boat is a film by Ann Lee.", "is_supporting": True},
        {"idx": 1, "title": "Pell", "paragraph_text": "Pell is a  town.", "is_supporting": False},
        {"idx": 2, "title": "Ann Lee", "paragraph_text": "Ann Lee was born in Ostby.", "is_supporting": True},
    ],
    "question": "Where was the director of Red Boat born?",
    "question_decomposition": [
        {"id": 1, "question": "Red Boat >> director", "answer": "Ann Lee", "paragraph_support_idx": 0},
        {"id": 2, "question": "Where was #1 born?", "answer": "Ostby", "paragraph_support_idx": 2},
    ],
    "answer": "Ostby",
    "answer_aliases": ["Ostby Town", "Ostby"],
    "answerable": True,
}

HOTPOT = {
    "_id": "h1",
    "question": "Are Red Boat and Blue Lamp films?",
    "answer": "yes",
    "type": "comparison",
    "level": "easy",
    "supporting_facts": [["Red Boat", 0], ["Blue Lamp", 0], ["Red Boat", 1]],
    "context": [
        ["Red Boat", ["Red Boat is a film.", " It is long."]],
        ["Pell", ["Pell is a town."]],
        ["Blue Lamp", ["Blue Lamp is a film."]],
    ],
}

TWOWIKI = {
    **HOTPOT,
    "_id": "w1",
    "question": "Where was the director of Red Boat born?",
    "answer": "Ostby",
    "type": "compositional",
    "evidences": [["Red Boat", "director", "Ann Lee"], ["ann lee", "place of birth", "Ostby"]],
}

FLASHRAG = {
    "id": "dev_0",
    "question": "Are Red Boat and Blue Lamp films?",
    "golden_answers": ["yes"],
    "metadata": {
        "type": "comparison",
        "supporting_facts": {"title": ["Red Boat", "Blue Lamp"], "sent_id": [0, 0]},
        "context": {
            "title": ["Red Boat", "Pell", "Blue Lamp"],
            "content": [["Red Boat is a film.", "It is long."], ["Pell is a town."], ["Blue Lamp is a film."]],
        },
    },
}

JADE = {
    "id": "q1",
    "question": "Where was the director of Red Boat born?",
    "answers": ["Ostby"],
    "type": "bridge",
    "hops": 2,
    "supporting": ["a", "b"],
    "decomposition": [
        {"question": "Red Boat director", "answer": "Ann Lee", "supporting": ["a"], "text": "Who directed Red Boat?"},
        {"question": "Where was #1 born?", "answer": "Ostby", "supporting": ["b"]},
    ],
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write text, JSON lines (a list) or JSON (a dict) under a name; gives the path."""

    def put(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        elif isinstance(content, dict):
            content = json.dumps(content)
        path.write_text(content, encoding="utf-8")
        return path

    return put


@pytest.fixture
def jade_folder(write: Write) -> Path:
    write("set/corpus.jsonl", [{"id": "a", "title": "Red Boat", "text": "By Ann Lee."}, {"id": "b", "text": "Ostby."}])
    return write("set/questions.jsonl", [JADE]).parent


@pytest.fixture
def beir_folder(write: Write) -> Path:
    write("beir/corpus.jsonl", [{"_id": f"d{i}", "title": f"T{i}", "text": f"text {i}"} for i in range(3)])
    write(
        "beir/queries.jsonl",
        [
            {"_id": "1", "text": "first?", "metadata": {"answer": "x"}},
            {"_id": "2", "text": "second?"},
            {"_id": "3", "text": "unjudged?"},
        ],
    )
    write("beir/qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td0\t1\n1\td1\t0\n1\td2\t2\n2\td1\t1\n")
    return write("beir/qrels/dev.tsv", "query-id\tcorpus-id\tscore\n2\td2\t1\n").parent.parent


@pytest.fixture
def samples() -> dict[str, dict[str, Any]]:
    """A record of each format."""
    return {"musique": MUSIQUE, "hotpot": HOTPOT, "2wiki": TWOWIKI, "flashrag": FLASHRAG, "jade": JADE}
