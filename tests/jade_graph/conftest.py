"""Small parts shared by the engine's tests: a policy made of a dict, a retriever of numbered passages, PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.types import Ask, Passage
from tests.postgres import MissingError, postgres

DEFAULTS: dict[str, str] = {
    "PL": "<workflow>R,AG</workflow>",
    "QDS": "<q1>who made X?</q1><q2>when was #1 born?</q2>",
    "QDP": "<q1>left?</q1><q2>right?</q2>",
    "QR": "<query>rewritten</query>",
    "DS": "<id>Document0</id>",
    "AG": "<answer>Ann Lee</answer>",
    "AS": "<answer>1950</answer>",
}


class Passages:
    """A retriever that answers any query with passages p0, p1, .. and remembers what it was asked."""

    corpus_id = "numbered"

    def __init__(self) -> None:
        self.queries: list[str] = []

    async def search(self, query: str, k: int) -> list[Passage]:
        self.queries.append(query)
        return [Passage(f"p{i}", f"passage {i} about {query}", score=1.0 / (i + 1)) for i in range(k)]


@pytest.fixture
def passages() -> Passages:
    return Passages()


@pytest.fixture
def scripted() -> Callable[..., ScriptedBackbone]:
    """`scripted(PL=.., AG=..)`: an action per role, or a function of the ask; the rest are legal defaults."""

    def make(options: Mapping[str, Any] | None = None, **actions: str | Callable[[Ask], str]) -> ScriptedBackbone:
        script = {**DEFAULTS, **actions}

        def policy(ask: Ask) -> str:
            action = script[ask.role]
            return action if isinstance(action, str) else action(ask)

        return ScriptedBackbone(policy, **(options or {}))

    return make


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a fresh server on a loopback port; tests are skipped where there is none."""
    try:
        with postgres() as server:
            yield server.url
    except MissingError as error:
        pytest.skip(str(error))
