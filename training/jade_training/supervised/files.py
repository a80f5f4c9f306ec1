"""Demonstrations in a file: JSON lines, what they were made with first.

Invariant: what was written is read back as it was; a line that is no demonstration is an error with its number.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jade_graph.errors import DataError
from jade_graph.microworld.shown import Shown
from jade_graph.settings.lines import write_whole
from jade_graph.types import Message

if TYPE_CHECKING:
    from jade_graph.backbones.codec import Codec
    from jade_training.supervised.batches import Pair

_ROLES = ("system", "user", "assistant")


def write(path: Path, shown: Iterable[Shown], manifest: Mapping[str, Any]) -> None:
    """Write demonstrations, whole or not at all."""
    lines = [json.dumps({"manifest": dict(manifest)}, ensure_ascii=False)]
    lines += [
        json.dumps(
            {
                "question_id": each.question_id,
                "role": each.role,
                "messages": [{"role": m.role, "content": m.content} for m in each.messages],
                "action": each.action,
            },
            ensure_ascii=False,
        )
        for each in shown
    ]
    write_whole(path, lines)


def read(path: Path) -> tuple[list[Shown], dict[str, Any]]:
    """Demonstrations and what they were made with. Raises `DataError` DEMONSTRATIONS_FILE."""
    shown: list[Shown] = []
    number = 1
    try:
        first, *rest = path.read_text("utf-8").rstrip("\n").split("\n")  # texts may hold other breaks
        manifest = dict(json.loads(first)["manifest"])
        for line in rest:
            number += 1
            shown.append(_shown(json.loads(line)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{str(path)!r}, line {number}, is no demonstration: {type(error).__name__}: {error}",
            code="DEMONSTRATIONS_FILE",
            hint="jade demonstrations DATASET --out FILE",
        ) from error
    return shown, manifest


def _shown(record: Mapping[str, Any]) -> Shown:
    texts = [record[name] for name in ("question_id", "role", "action")]
    messages = tuple(Message(m["role"], m["content"]) for m in record["messages"])
    if not all(isinstance(text, str) for text in [*texts, *(m.content for m in messages)]) or not messages:
        raise ValueError("question_id, role, action and messages of texts are needed")
    if any(m.role not in _ROLES for m in messages):
        raise ValueError(f"a message's role is none of {_ROLES}")
    return Shown(texts[0], texts[1], messages, texts[2])


def held_out(shown: Sequence[Shown], share: float) -> tuple[list[Shown], list[Shown]]:
    """What is learned from, and what is held out: whole questions, so that none stands on both sides.

    Questions are taken by a hash of their ids, the parts of a question with it.
    """

    def drawn(each: Shown) -> float:
        name = each.question_id.partition(".")[0]
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64

    kept = [each for each in shown if drawn(each) >= share]
    return kept, [each for each in shown if drawn(each) < share]


def pairs(codec: Codec, shown: Iterable[Shown]) -> list[Pair]:
    """(prompt ids, action ids), as the engine gives them to a model with this codec."""
    return [(codec.encode(s.messages), [*codec.encode_text(s.action), codec.eos_token_id]) for s in shown]


def by_role(shown: Iterable[Shown]) -> dict[str, int]:
    """How many there are of each role, the most first."""
    return dict(Counter(each.role for each in shown).most_common())
