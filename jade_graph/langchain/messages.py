"""LangChain messages as a backbone takes them.

Invariant: text alone goes in; what a text model cannot read (images, calls of tools) is refused by name, not dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage

from jade_graph.errors import UsageError
from jade_graph.types import Message

_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    **{"system": "system", "developer": "system", "user": "user", "human": "user"},
    **{"assistant": "assistant", "ai": "assistant"},
}


def to_backbone(messages: Sequence[BaseMessage]) -> list[Message]:
    """System, user and assistant texts; neighbours of one role become one, as chat templates want it.

    Raises `UsageError` CHAT_MESSAGE.
    """
    out: list[Message] = []
    for message in messages:
        one = Message(_role(message), _text(message))
        if out and out[-1].role == one.role:
            out[-1] = Message(one.role, f"{out[-1].content}\n{one.content}")
        else:
            out.append(one)
    if not out:
        raise UsageError("there are no messages.", code="CHAT_MESSAGE", hint='model.invoke("Who wrote Dune?")')
    return out


def _role(message: BaseMessage) -> Literal["system", "user", "assistant"]:
    if isinstance(message, AIMessage) and message.tool_calls:
        raise _refused("a call of a tool", message)
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, ChatMessage) and message.role in _ROLES:
        return _ROLES[message.role]
    raise _refused(f"a message of type {message.type!r}", message)


def _text(message: BaseMessage) -> str:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    for block in blocks:
        if not isinstance(block, str) and block.get("type") != "text":
            raise _refused(f"content of type {block.get('type')!r}", message)
    return str(message.text)


def _refused(what: str, message: BaseMessage) -> UsageError:
    return UsageError(
        f"{what} is nothing that this model can read: {str(message.content)[:80]!r}.",
        code="CHAT_MESSAGE",
        known=["system, human and ai messages with text"],
        hint="for an agent with tools take a model that calls tools, and give it graph.as_tool()",
    )
