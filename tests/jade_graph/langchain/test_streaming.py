"""Tokens through LangChain's and LangGraph's own doors."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, TypedDict

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables.utils import AddableDict
from langgraph.graph import START, StateGraph

from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain.outputs import Instead
from jade_graph.langchain.runnable import JadeGraph

ILLEGAL = "It is <answer>Ann Lee"  # shown as "Ann Lee", read as "It is Ann Lee"


class S(TypedDict, total=False):
    question: str
    answer: str


def around(node: Any) -> Any:
    builder = StateGraph(S)
    builder.add_node("qa", node)
    builder.add_edge(START, "qa")
    return builder.compile()


@pytest.fixture
def graph(scripted: Any, passages: Any) -> JadeGraph:
    return JadeGraph(scripted(), retriever=passages)


@pytest.fixture
def illegal(scripted: Any, passages: Any) -> JadeGraph:
    return JadeGraph(scripted(AG=ILLEGAL), retriever=passages)


async def chunks_of(graph: JadeGraph, question: Any = "who?", **options: Any) -> list[Any]:
    return [chunk async for chunk in graph.astream(question, **options)]


def summed(chunks: list[Any]) -> Any:
    out = AddableDict()
    for chunk in chunks:
        out = out + chunk
    return out


VARYING = ("run_id", "steps")


async def test_the_chunks_of_a_stream_add_up_to_what_invoke_gives(graph: JadeGraph, illegal: JadeGraph) -> None:
    for each in (graph, illegal):
        chunks, whole = await chunks_of(each), await each.ainvoke("who?")
        out = summed(chunks)
        assert {k: v for k, v in out.items() if k not in VARYING} == {
            k: v for k, v in whole.items() if k not in VARYING
        }
        assert type(out["answer"]) is str
        assert len([c for c in chunks if c.get("answer")]) > 1


async def test_an_answer_comes_in_pieces_before_its_step_and_is_taken_back_by_an_instead(
    graph: JadeGraph, illegal: JadeGraph
) -> None:
    chunks = await chunks_of(graph)
    answers = [c["answer"] for c in chunks if "answer" in c]
    assert "".join(answers) == "Ann Lee"
    assert not any(isinstance(a, Instead) for a in answers)
    step = next(n for n, c in enumerate(chunks) if any(s["role"] == "AG" for s in c.get("steps", ())))
    assert "".join(c.get("answer", "") for c in chunks[:step]) == "Ann Lee"
    answers = [c["answer"] for c in await chunks_of(illegal) if "answer" in c]
    back = next(n for n, a in enumerate(answers) if isinstance(a, Instead))
    assert ("".join(answers[:back]), "".join(answers[back:])) == ("Ann Lee", "It is Ann Lee")


def test_an_instead_is_a_text_that_takes_the_place_of_what_it_is_added_to() -> None:
    assert "old" + Instead("new") == "new"
    assert type("old" + Instead("new")) is str
    assert Instead("new") + "er" == "newer"


def test_streams_without_an_event_loop_come_in_pieces_too(graph: JadeGraph) -> None:
    assert "".join(graph.pick("answer").stream("who?")) == "Ann Lee"


async def test_a_stream_that_is_left_ends_its_run_as_cancelled(passages: Any) -> None:
    """The answer stops within its tokens, until the stream is left: only that ends it."""
    ended: list[BaseException] = []

    class Stuck(ScriptedBackbone):
        async def generate(self, *args: Any, watch: Any = None, **more: Any) -> Any:
            if watch is None:
                return await super().generate(*args, **more)
            watch("<answer>Ann")
            try:
                await asyncio.Event().wait()
            except BaseException as error:
                ended.append(error)
                raise

    class Notes:
        def __init__(self) -> None:
            self.runs: list[Any] = []

        def run_started(self, run: Any) -> None: ...
        def transition(self, transition: Any) -> None: ...
        def trace_nodes(self, *args: Any) -> None: ...
        def run_resumed(self, *args: Any) -> None: ...
        def run_finished(self, run: Any) -> None:
            self.runs.append(run)

        async def flushed(self, run_id: str) -> None: ...

    notes = Notes()
    graph = JadeGraph(Stuck(lambda ask: "<workflow>R,AG</workflow>"), retriever=passages, recorder=notes)
    async with aclosing(graph.astream("who?")) as chunks:
        async for chunk in chunks:
            if chunk.get("answer"):
                break
    (run,) = notes.runs
    assert (run.status, run.error) == ("failed", "CANCELLED")
    assert [type(error) for error in ended] == [asyncio.CancelledError]


async def test_two_streams_at_once_do_not_mix(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(AG=lambda ask: f"<answer>{ask.view.question} it is</answer>"), retriever=passages)
    names = [f"name {n}" for n in range(5)]
    for name, chunks in zip(names, await asyncio.gather(*(chunks_of(graph, n) for n in names)), strict=True):
        assert "".join(c.get("answer", "") for c in chunks) == f"{name} it is"
        assert len({c["run_id"] for c in chunks if "run_id" in c}) == 1


# --- events -----------------------------------------------------------------------------------------------------------
async def test_events_hold_the_answers_tokens_and_the_searches(graph: JadeGraph) -> None:
    events = [e async for e in graph.astream_events("who?") if "chat_model" in e["event"] or "retriever" in e["event"]]
    kinds = [(e["event"], e["name"], e["metadata"]["langgraph_node"]) for e in events]
    assert kinds[:3] == [
        ("on_retriever_start", "R", "R"),
        ("on_retriever_end", "R", "R"),
        ("on_chat_model_start", "AG", "AG"),
    ]
    assert kinds[-1] == ("on_chat_model_end", "AG", "AG")
    assert events[0]["data"]["input"] == {"query": "who?"}
    assert [d.id for d in events[1]["data"]["output"]] == ["p0", "p1", "p2", "p3", "p4"]
    assert "passage 0" in str(events[2]["data"]["input"])  # what the role was asked
    stream = [e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(stream) == "Ann Lee" == events[-1]["data"]["output"].content
    assert len(stream) > 1
    assert len({e["run_id"] for e in events[2:]}) == 1
    assert set(events[2]["parent_ids"]) >= set(events[0]["parent_ids"][:1])  # below the same run


async def test_a_search_that_fails_is_an_error_of_the_retriever(scripted: Any) -> None:
    class Broken:
        corpus_id = "broken"

        async def search(self, query: str, k: int) -> Any:
            raise ZeroDivisionError("no index")

    from langchain_core.callbacks import AsyncCallbackHandler

    class Seen(AsyncCallbackHandler):
        errors: list[str] = []  # noqa: RUF012

        async def on_retriever_error(self, error: BaseException, **more: Any) -> None:
            self.errors.append(type(error).__name__)

    out = await JadeGraph(scripted(), retriever=Broken()).ainvoke("who?", {"callbacks": [Seen()]})
    assert out["status"] == "failed"
    assert Seen.errors
    assert set(Seen.errors) <= {"ZeroDivisionError", "JadeError"}


async def test_a_langchain_retriever_tells_of_its_searches_once(scripted: Any) -> None:
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class Own(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [Document("about it")]

    graph = JadeGraph(scripted(), retriever=Own())
    names = [e["name"] async for e in graph.astream_events("who?") if e["event"] == "on_retriever_end"]
    assert names == ["Own"]


# --- LangGraph's stream modes -----------------------------------------------------------------------------------------
def pieces(streamed: list[Any]) -> list[tuple[str, str]]:
    """Messages as (id, text), put together by id; a message that was taken back is left out."""
    texts: dict[str, str] = {}
    for message, _ in streamed:
        if (message.response_metadata.get("jade") or {}).get("event") == "retract":
            del texts[message.id]
        else:
            texts[message.id] = texts.get(message.id, "") + message.content
    return list(texts.items())


@pytest.mark.parametrize("where", ["itself", "node", "subgraph"])
async def test_messages_are_the_answer_by_any_door(graph: JadeGraph, illegal: JadeGraph, where: str) -> None:
    for each, answer in ((graph, "Ann Lee"), (illegal, "It is Ann Lee")):
        app = {"itself": each.graph, "node": around(each), "subgraph": around(each.graph)}[where]
        got = app.astream({"question": "who?"}, stream_mode="messages", subgraphs=where == "subgraph")
        streamed = [part[1] if where == "subgraph" else part async for part in got]
        assert [text for _, text in pieces(streamed)] == [answer]
        assert len(streamed) > 2
        assert {meta["langgraph_node"] for _, meta in streamed} == {"qa" if where == "node" else "AG"}
        assert any(m.response_metadata for m, _ in streamed) is (each is illegal)


@pytest.mark.parametrize("where", ["itself", "node", "subgraph"])
async def test_custom_holds_the_runs_typed_events(graph: JadeGraph, illegal: JadeGraph, where: str) -> None:
    for each, answer in ((graph, "Ann Lee"), (illegal, "It is Ann Lee")):
        app = {"itself": each.graph, "node": around(each), "subgraph": around(each.graph)}[where]
        got = app.astream({"question": "who?"}, stream_mode="custom", subgraphs=where == "subgraph")
        told = [part[1] if where == "subgraph" else part async for part in got]
        assert [e["role"] for e in told if e["event"] == "step"] == ["PL", "R", "AG"]
        said = ""
        for event in told:
            said = "" if event["event"] == "retract" else said + event.get("text", "") * (event["event"] == "token")
        assert said == answer == told[-1]["answer"]
        assert told[-1]["event"] == "end"
        assert any(e["event"] == "retract" for e in told) is (each is illegal)
        assert {e["role"] for e in told if e["event"] == "token"} == {"AG"}
        assert len({e["run_id"] for e in told}) == 1


async def test_other_stream_modes_are_as_they_were(graph: JadeGraph) -> None:
    updates = [u async for u in around(graph).astream({"question": "who?"}, stream_mode="updates")]
    assert updates == [{"qa": {"question": "who?", "answer": "Ann Lee"}}]


async def test_a_chat_model_in_a_role_is_heard_within_its_tags(scripted: Any, passages: Any) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("<answer>Ann of the Lees</answer>")] * 9))
    graph = JadeGraph(scripted(), retriever=passages, backbones={"AG": model})
    answers = [c["answer"] for c in await chunks_of(graph) if c.get("answer")]
    assert "".join(answers) == "Ann of the Lees"
    assert len(answers) > 1
    got = graph.graph.astream({"question": "who?"}, stream_mode="messages")
    assert [text for _, text in pieces([part async for part in got])] == ["Ann of the Lees"]
