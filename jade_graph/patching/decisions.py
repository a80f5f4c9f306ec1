"""A recorded action that ends in a fixed choice, as a clean and a corrupted prompt.

Invariant: the clean prompt is the recorded one, token for token, or that with the swapped text cut (which the pair's
notes say); the corrupted one differs in the swapped text alone. Lengths are equalised by cutting the longer text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jade_graph import plugins
from jade_graph.backbones.codec import Codec
from jade_graph.errors import UsageError
from jade_graph.patching.pairs import Pair, make_pair
from jade_graph.patching.spans import Spans, spans_of
from jade_graph.types import Alternative, Chooses, Run, Transition

_NAME = re.compile(r"(?<=[\w,;:] )[^\W\d_a-z][\w'’-]*(?: (?:of |the |de )?[^\W\d_a-z][\w'’-]*)*")
_FEW = 3
"""Tokens of a name that are too few to be one, in a document's title, are still taken; this many candidates are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to look at, where it is not the first choice and the usual swap.

    Attributes:
        document: the document whose keeping is looked at, and that is swapped.
        instead: the document of the same prompt that is put in its place.
        swap: (old, new): a text of the prompt and what is put in its place.
        against: the alternative, where there are several: a plan.
    """

    document: int | None = None
    instead: int | None = None
    swap: tuple[str, str] | None = None
    against: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, and what is swapped. `spans` are those of the recorded prompt."""

    pair: Pair
    chosen: Alternative
    transition: Transition
    old: str
    new: str
    recorded: bool


def decisions(codec: Codec, run: Run, t: Transition, asked: Asked = Asked()) -> list[Decision]:
    """The decision of an action, against each alternative (of a planner: each other plan), the same swap in all.

    Raises:
        UsageError: LOOK_ROLE, LOOK_PROMPT, LOOK_DOCUMENT, LOOK_SWAP, LOOK_AGAINST, and what `make_pair` raises.
    """
    spans = spans_of(codec, t.prompt_messages, t.prompt_token_ids, _questions(run, t))
    chosen = _alternatives(t, spans, asked)
    old, new, told = _swap(codec, run, t, spans, chosen[0], asked)
    size = min(len(old), len(new))
    swapped = old[:size]
    keep = [i for i in range(len(spans.ids)) if i not in set(old[size:])]  # without what is cut
    place = {position: at for at, position in enumerate(keep)}
    clean = [spans.ids[i] for i in keep]
    corrupt = list(clean)
    for position, token in zip(swapped, new, strict=False):
        corrupt[place[position]] = token
    groups: dict[str, list[int]] = {}
    for position, group in _owners(spans, swapped, chosen[0]).items():
        if position in place:
            groups.setdefault(group, []).append(place[position])
    notes = [told]
    if len(old) > size:
        notes.append(f"the text that is replaced is cut from {len(old)} to {size} tokens, in both prompts")
    if len(new) > size:
        notes.append(f"the text that is put in is cut from {len(new)} to {size} tokens")
    out = []
    for each in chosen:
        choice, other = _continuations(codec, t, each)
        pair = make_pair(clean, corrupt, choice, other, groups, name=each.name, notes=notes)
        before, after = codec.decode([spans.ids[i] for i in swapped]), codec.decode(new[:size])
        out.append(Decision(pair, each, t, before.strip(), after.strip(), recorded=len(old) == size))
    return out


def _alternatives(t: Transition, spans: Spans, asked: Asked) -> list[Alternative]:
    role = plugins.load("jade.roles", t.role) if t.role in plugins.names("jade.roles") else None
    if not isinstance(role, Chooses) or not t.action_token_ids or t.error is not None or t.parsed is None:
        able = [name for name in plugins.names("jade.roles") if isinstance(plugins.load("jade.roles", name), Chooses)]
        why = "did not come to a choice" if isinstance(role, Chooses) else "ends in no fixed choice"
        raise UsageError(
            f"action {t.seq} ({t.role}) {why}: there are no two continuations to compare.", code="LOOK_ROLE", known=able
        )
    found = list(role.alternatives(t.action_text, t.parsed, len(spans.documents)))
    if asked.document is not None:
        found = [a for a in found if a.document == asked.document]
        if not found:
            raise UsageError(
                f"action {t.seq} ({t.role}) makes no choice about document {asked.document}.",
                code="LOOK_DOCUMENT",
                known=[str(i) for i in range(len(spans.documents))],
            )
    if asked.against:
        near = [a for a in found if asked.against in (a.other, a.name) or f">{asked.against}<" in a.other]
        if not near:
            raise UsageError(
                f"{asked.against!r} is no alternative to what action {t.seq} ({t.role}) chose.",
                code="LOOK_AGAINST",
                known=[a.other for a in found],
            )
        found = near
    if not found:
        raise UsageError(f"action {t.seq} ({t.role}) had nothing to choose from.", code="LOOK_ROLE")
    return found[:1] if found[0].document is not None else found


def _continuations(codec: Codec, t: Transition, each: Alternative) -> tuple[list[int], list[int]]:
    """Token ids of both; the recorded ones where the action was written just so."""
    end = [codec.eos_token_id] if each.ends else []
    choice = codec.encode_text(each.choice) + end
    if each.ends and t.action_text == each.choice:
        choice = list(t.action_token_ids)
        choice += end if choice[-1] not in codec.eos_token_ids else []
    return choice, codec.encode_text(each.other) + end


# --- what is swapped --------------------------------------------------------------------------------------------------
def _swap(
    codec: Codec, run: Run, t: Transition, spans: Spans, chosen: Alternative, asked: Asked
) -> tuple[tuple[int, ...], list[int], str]:
    """Positions that are replaced, token ids that are put there, and what this is in words."""
    if asked.swap is not None:
        return _texts(codec, t, spans, *asked.swap)
    if chosen.document is not None:
        return _document(spans, chosen, t, asked)
    for name in sorted(set(_NAME.findall(_question(run, t))), key=len, reverse=True):
        others = [n for n in _names(run, spans) if n.lower() not in name.lower() and name.lower() not in n.lower()]
        positions = _find(spans, name)
        if not positions or not others:
            continue
        size = len(positions)
        titles = {d.title for d in run.documents}
        best = min(others, key=lambda n: (abs(len(codec.encode_text(f" {n}")) - size), n not in titles, n))
        return _texts(codec, t, spans, name, best)
    raise UsageError(
        f"the question of action {t.seq} ({t.role}) has no name for which the run knows another.",
        code="LOOK_SWAP",
        hint='--swap "OLD=NEW": a text of the prompt, and what is put in its place',
    )


def _document(spans: Spans, chosen: Alternative, t: Transition, asked: Asked) -> tuple[tuple[int, ...], list[int], str]:
    """Another document of the same prompt in its place: one of the opposite fate, of a length as near as there is."""
    which = chosen.document
    assert which is not None
    old = spans.documents[which]
    kept = set(t.parsed) if isinstance(t.parsed, list) else set()
    others = [i for i in range(len(spans.documents)) if i != which and spans.documents[i]]
    if asked.instead is not None:
        others = [i for i in others if i == asked.instead]
    others = [i for i in others if (i in kept) != (which in kept)] or others
    if not others or not old:
        raise UsageError(
            f"no other document of the prompt can stand for document {which}.",
            code="LOOK_DOCUMENT",
            known=[str(i) for i in range(len(spans.documents)) if i != which],
            hint='--swap "OLD=NEW": a text of the prompt, and what is put in its place',
        )
    best = min(others, key=lambda i: (max(0, len(old) - len(spans.documents[i])), i))
    return old, [spans.ids[i] for i in spans.documents[best]], f"document {which} is replaced by document {best}"


def _texts(codec: Codec, t: Transition, spans: Spans, old: str, new: str) -> tuple[tuple[int, ...], list[int], str]:
    positions = _find(spans, old)
    if not positions or not new.strip():
        raise UsageError(
            f"{old!r} is nowhere in the prompt of action {t.seq} ({t.role})."
            if new.strip()
            else f"nothing is put in the place of {old!r}.",
            code="LOOK_SWAP",
            hint="a text as the prompt has it: jade runs show RUN, or the studio's node pane",
        )
    start = spans.offsets[positions[0]][0]
    blank = " " if start < len(spans.text) and spans.text[start] == " " else ""
    blank = blank or (" " if start and spans.text[start - 1] == " " else "")
    return positions, codec.encode_text(blank + new.strip()), f"{old!r} is replaced by {new.strip()!r}"


def _find(spans: Spans, text: str) -> tuple[int, ...]:
    """Where a text stands: in the question, else where it is last."""
    asked = [spans.offsets[p] for p in spans.question]
    at = spans.text.find(text, max(0, asked[0][0] - 1), asked[-1][1]) if asked else -1
    at = at if at >= 0 else spans.text.rfind(text)
    return spans.within(at, at + len(text)) if at >= 0 and text else ()


def _questions(run: Run, t: Transition) -> list[str]:
    """Texts that stand for the question in a prompt: the last query, the target's, the user's."""
    own = sorted((o for o in run.transitions if o.trace_node == t.trace_node and o.seq < t.seq), key=lambda o: o.seq)
    out: list[str] = []
    for o in reversed(own):
        value: Any = o.parsed
        value = value.get("queries") if isinstance(value, dict) else value if o.role == "QR" else None
        out += [q for q in value if isinstance(q, str)] if isinstance(value, list) else []
    return [*out, _question(run, t), run.question]


def _question(run: Run, t: Transition) -> str:
    node = next((n for n in run.trace if n.id == t.trace_node), None)
    return node.text if node is not None else run.question


def _names(run: Run, spans: Spans) -> list[str]:
    """Names that the run knows: titles of its documents, and what is written as a name in questions and documents."""
    found = dict.fromkeys(d.title for d in run.documents if d.title)
    for text in (*(d.text for d in run.documents), *(n.text for n in run.trace), spans.text):
        found |= dict.fromkeys(_NAME.findall(text))
    return [name for name in found if len(name) >= _FEW]


def _owners(spans: Spans, swapped: Sequence[int], chosen: Alternative) -> dict[int, str]:
    """Which group each position is of; what is in none is the template's."""
    out = dict.fromkeys(spans.instruction, "instruction")
    out |= dict.fromkeys(spans.markers, "documents")
    for i, document in enumerate(spans.documents):
        out |= dict.fromkeys(document, f"document {i}" if i == chosen.document else "documents")
    out |= dict.fromkeys(spans.question, "question")
    return out | dict.fromkeys(swapped, "swapped")


__all__ = ["Asked", "Decision", "decisions"]
