"""Parsers that are not the house's own: a slow one holds up its own run alone, and none holds up the event loop."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from jade_graph import JadeGraph, Limits, plugins
from jade_graph.types import Parsed, View
from jade_graph.workflow import apart
from jade_nodes.answer import GENERATOR, AnswerGenerator


@dataclass(frozen=True)
class Slow(AnswerGenerator):
    """Reads once somebody lets it."""

    linear: ClassVar[bool] = False
    may: threading.Event = field(default_factory=threading.Event)
    reading: threading.Event = field(default_factory=threading.Event)

    def parse(self, text: str, view: View) -> Parsed:
        self.reading.set()
        if not self.may.wait(20):  # on the loop nobody could let it
            raise TimeoutError("nobody let it")
        return super().parse(text, view)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    role, load = Slow(), plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda group, name: role if (group, name) == ("jade.roles", "AG") else load(group, name)
    )
    return role


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 20)


async def test_a_slow_parser_holds_up_its_own_run_alone(slow: Slow, scripted: Any, passages: Any) -> None:
    held = asyncio.create_task(JadeGraph(scripted(), retriever=passages).arun("Who?"))
    await until(slow.reading)
    assert await asyncio.sleep(0, "the loop goes on") == "the loop goes on"
    slow.may.set()
    run = await held
    assert (run.status, run.answer) == ("answered", "Ann Lee")


async def test_a_parser_that_never_ends_fails_its_run_by_the_deadline(slow: Slow, scripted: Any, passages: Any) -> None:
    run = await JadeGraph(scripted(), retriever=passages, limits=Limits(deadline_s=0.3)).arun("Who?")
    slow.may.set()
    assert (run.status, run.error, run.transitions[-1].error) == ("failed", "LIMIT_DEADLINE", "LIMIT_DEADLINE")
    assert "being read" in run.error_message
    assert run.transitions[-1].action_text == "<answer>Ann Lee</answer>"


async def test_a_parser_has_a_time_of_its_own(
    slow: Slow, scripted: Any, passages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "PARSE_S", 0.05)
    run = await JadeGraph(scripted(), retriever=passages).arun("Who?")
    slow.may.set()
    assert (run.status, run.error) == ("failed", "ROLE_ERROR")
    assert "more than 0.05 s" in run.error_message


async def test_what_a_parser_raises_is_its_run_s_error(slow: Slow, scripted: Any, passages: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        await apart.apart(lambda: 1 // 0)


def test_the_house_s_own_roles_are_read_at_once() -> None:
    roles = [plugins.load("jade.roles", code) for code in plugins.names("jade.roles")]
    own = [role for role in roles if hasattr(role, "parse") and type(role).__module__.startswith("jade_nodes")]
    assert len(own) >= 12
    assert all(map(apart.is_linear, own))
    assert apart.is_linear(GENERATOR)
