"""What a chat template does with a conversation: found by rendering marked texts, never by its name.

Invariant: every message of a conversation that is rendered here stands in the text that comes out; where the template
would drop one, its text is folded into a message that is kept, or the conversation is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jade_graph.backbones.templates import ChatTemplate, TemplateRaisedError, refused
from jade_graph.types import Message, Thought

_ROLES = ("system", "user")
"""What roles say: the least that a template must carry."""
_MOST = 256
_OPENS = re.compile(
    r"<(?P<tag>think|thinking|thought|reasoning)>|\[(?P<mark>THINK)\]|<\|begin_of_(?P<named>thought)\|>"
)


@dataclass(frozen=True, slots=True)
class Way:
    """How messages are put to a template.

    Attributes:
        parts: contents as a list of text parts, as templates of models that see pictures read them.
        folded: the system's text opens the first message of the user.
        merged: neighbours of one role are one message.
    """

    parts: bool = False
    folded: bool = False
    merged: bool = False

    def conversation(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        put = fold_system(messages) if self.folded else list(messages)
        put = merge_neighbours(put) if self.merged else put
        return [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if self.parts else m.content} for m in put
        ]


_WAYS = tuple(
    Way(parts, folded, merged) for merged in (False, True) for folded in (False, True) for parts in (False, True)
)


class Conversations:
    """A template with the way in which it loses nothing, found once for each order of roles.

    Raises:
        BackboneError: BACKBONE_TEMPLATE where it carries no question of a role at all.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._ways: dict[tuple[str, ...], Way] = {}
        self.way(_ROLES)

    @property
    def folds_system(self) -> bool:
        return self.way(_ROLES).folded

    def way(self, roles: tuple[str, ...]) -> Way:
        """The first way in which each of these messages is kept. Raises `BackboneError` BACKBONE_TEMPLATE."""
        known = self._ways.get(roles)
        if known is None:
            if len(self._ways) >= _MOST:
                self._ways.clear()
            known = self._ways[roles] = self._found(roles)
        return known

    def render(self, messages: Sequence[Message], *, opens: bool = True) -> str:
        """Raises `BackboneError` BACKBONE_TEMPLATE."""
        way = self.way(tuple(message.role for message in messages))
        try:
            return self._template.render(way.conversation(messages), opens=opens)
        except TemplateRaisedError as error:
            raise refused(f"it raised {error}") from error

    def behind(self, roles: tuple[str, ...], which: int, *, opens: bool) -> str:
        """What the template writes after the text of message `which`, up to the next one's text or to the end."""
        texts = list(_marked(roles))
        text = self.render(texts, opens=opens)
        rest = text[text.rindex(texts[which].content) + len(texts[which].content) :]
        return min((rest.partition(other.content)[0] for other in texts), key=len)

    def _found(self, roles: tuple[str, ...]) -> Way:
        texts = list(_marked(roles))
        why = ""
        for way in _WAYS:
            try:
                text = self._template.render(way.conversation(texts))
            except TemplateRaisedError as error:
                why = why or f"it raised {error}"
                continue
            lost: list[str] = [message.role for message in texts if message.content not in text]
            if way.parts and "'type':" in text:  # it wrote the list itself
                lost = list(roles)
            if not lost:
                return way
            why = why or f"of the messages {', '.join(roles)} it drops that of the {' and that of the '.join(lost)}"
        raise refused(why)


def _marked(roles: Sequence[str]) -> Iterator[Message]:
    """Texts that no template writes by itself, long enough to be cut by one that cuts."""
    for number, role in enumerate(roles):
        yield Message(role, f"Marked{number}a {'every word of this counts ' * 20}marked{number}z")  # type: ignore[arg-type]


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """For templates that know no system role: its text opens the first user message."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    if rest and rest[0].role == "user":
        return [Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:]]
    return [Message("user", system), *rest]


def merge_neighbours(messages: Sequence[Message]) -> list[Message]:
    """For templates that want roles to alternate."""
    out: list[Message] = []
    for message in messages:
        if out and out[-1].role == message.role:
            out[-1] = Message(message.role, f"{out[-1].content}\n\n{message.content}")
        else:
            out.append(message)
    return out


def turn_end(conversations: Conversations, tokenizer: Any) -> int | None:
    """The control token that the template writes behind an assistant's turn; None where it writes none."""
    from jade_graph.errors import BackboneError

    for roles in (("user", "assistant", "user"), ("user", "assistant")):
        try:
            behind = conversations.behind(roles, 1, opens=False)
        except BackboneError:  # it carries no earlier turns: roles do not need them
            continue
        control = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", None) or ())
        for token in tokenizer.encode(behind, add_special_tokens=False):
            if token in control:
                return int(token)
            if tokenizer.decode([token]).strip():
                break
    return None


def thought(conversations: Conversations, source: str) -> Thought | None:
    """How the model thinks before it answers, as far as its template tells; None where it knows no thoughts."""
    opening = conversations.behind(_ROLES, 1, opens=True)
    found = list(_OPENS.finditer(opening))
    if found:
        opens, closes = found[-1][0], _closing(found[-1])
        return Thought(opens, closes, opened=closes not in opening[found[-1].end() :])
    known = {_closing(match): match[0] for match in _OPENS.finditer(source)}
    known = {closes: opens for closes, opens in known.items() if closes in source}
    known = known or ({"</think>": "<think>"} if "</think>" in source else {})
    return next((Thought(opens, closes, opened=False) for closes, opens in known.items()), None)


def _closing(match: re.Match[str]) -> str:
    if match["tag"]:
        return f"</{match['tag']}>"
    return f"[/{match['mark']}]" if match["mark"] else f"<|end_of_{match['named']}|>"
