"""QE, a query expander: asks the question in several ways at once, then searches them all."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from jade_graph import Passage, Plan, Preset
from jade_graph.types import Effect, Message, Parsed, View
from jade_graph.workflow import tags


@dataclass(frozen=True)
class QueryExpander:
    code = "QE"
    name = "Query Expander"
    kind = "executor"
    description = "asks the question in several ways at once (before R)"
    violations = ("NO_TAG", "EMPTY_ITEM")
    max_new_tokens: int = 64

    def render(self, view: View, profile: str) -> tuple[Message, ...]:
        return (Message("user", f"expand : {view.question}\n"),)

    def parse(self, text: str, view: View) -> Parsed:
        found = tags.find(text, "query").texts
        if not found:
            return Parsed(None, "NO_TAG")
        return Parsed(found) if all(found) else Parsed(None, "EMPTY_ITEM")

    def fallback(self, text: str, view: View) -> tuple[str, ...]:
        return (view.question,)

    def effect(self, value: tuple[str, ...], view: View) -> Effect:
        return Effect(memory={"queries": tuple(value)})


EXPANDER = QueryExpander()


def expand_rule(plans: frozenset[Plan]) -> frozenset[Plan]:
    """QE may stand before R in place of QR."""
    with_qr = (p for p in plans if p.steps[0] == "QR" and "R" in p.steps)
    return plans | {Plan(("QE", *p.steps[1:])) for p in with_qr}


PRESET = Preset("expander", "JADE with a query expander", plan_rules=("jade", "expand"))


class Echo:
    corpus_id = "echo"

    async def search(self, query: str, k: int) -> list[Passage]:
        return [Passage(f"{query}-{i}", f"{query} {i}") for i in range(k)]


def echo_retriever(rest: str) -> Echo:
    return Echo()


app = typer.Typer(help="Commands of the expander package.")


@app.callback()
def _root() -> None:
    """Commands of the expander package."""


@app.command()
def hello() -> None:
    """Say hello."""
    typer.echo("hello from the expander")
