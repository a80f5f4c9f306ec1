"""The graph as an agent's tool: what the agent reads, what a watcher sees, what a failure looks like."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver

from jade_graph import JadeGraph, Passage
from jade_graph.errors import UsageError
from jade_graph.langchain import JadeRetriever, JadeTool

CALL = {"name": "search_and_answer", "args": {"question": "Who wrote Dune?"}, "id": "1", "type": "tool_call"}
ASKED: Any = {"messages": [("user", "Who wrote Dune?")]}


class Model(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@pytest.fixture
def graph(scripted: Any) -> JadeGraph:
    return JadeGraph(scripted(), retriever=[Passage("p", "Dune is by Ann Lee.", "Dune")])


def agent(graph: JadeGraph) -> Any:
    replies = [AIMessage("", tool_calls=[CALL]), AIMessage("Ann Lee wrote it.")]  # type: ignore[list-item]
    return create_agent(Model(messages=iter(replies)), tools=[graph.as_tool()])


def test_an_agent_reads_the_answer_and_its_sources(graph: JadeGraph) -> None:
    messages = agent(graph).invoke(ASKED)["messages"]
    (told,) = [m for m in messages if isinstance(m, ToolMessage)]
    assert told.content == "Ann Lee\nSources: Dune"
    assert told.artifact["plan"] == "R,AG"
    assert [d.id for d in told.artifact["documents"]] == ["p"]
    assert messages[-1].content == "Ann Lee wrote it."


async def test_inner_nodes_are_seen_in_subgraph_streams(graph: JadeGraph) -> None:
    wanted = ["select", "PL", "R", "AG", "select", "finish"]
    seen = [(ns, list(u)) async for ns, u in agent(graph).astream(ASKED, stream_mode="updates", subgraphs=True)]
    assert [nodes[0] for ns, nodes in seen if ns] == wanted
    assert all(ns[0].startswith("tools:") for ns, _ in seen if ns)


def test_inner_nodes_are_seen_from_code_without_a_loop(graph: JadeGraph) -> None:
    seen = [nodes for ns, u in agent(graph).stream(ASKED, stream_mode="updates", subgraphs=True) if ns for nodes in u]
    assert seen == ["select", "PL", "R", "AG", "select", "finish"]


def test_a_failed_run_is_an_error_that_the_agent_can_read(scripted: Any) -> None:
    told = JadeGraph(scripted()).as_tool().invoke(CALL)
    assert (told.status, told.content[:23]) == ("error", "No answer (NO_CORPUS): ")
    assert told.content.count("NO_CORPUS") == 1


def test_name_description_and_schema(graph: JadeGraph) -> None:
    tool = graph.as_tool(name="ask_the_handbook", description="Answers from the handbook.", sources=0)
    described = convert_to_openai_tool(tool)["function"]
    assert (described["name"], described["description"]) == ("ask_the_handbook", "Answers from the handbook.")
    assert list(described["parameters"]["properties"]) == ["question"]
    assert tool.invoke({"question": "Who?"}) == "Ann Lee"
    with pytest.raises(TypeError, match="takes a JadeGraph"):
        JadeTool(graph=graph.graph)


@pytest.mark.parametrize("args", [{"question": "   "}, {"question": ""}, {}, {"question": ["x"]}, {"query": "x"}])
def test_what_cannot_be_asked_is_an_error_that_the_agent_can_read(graph: JadeGraph, args: Any) -> None:
    told = graph.as_tool().invoke({**CALL, "args": args})
    assert (told.status, "question" in told.content) == ("error", True)
    call = AIMessage("", tool_calls=[{**CALL, "args": args}])
    app = create_agent(Model(messages=iter([call, AIMessage("done")])), tools=[graph.as_tool()])
    messages = app.invoke(ASKED)["messages"]
    assert ([m.status for m in messages if isinstance(m, ToolMessage)], messages[-1].content) == (["error"], "done")


def test_a_run_that_waits_for_a_person_is_no_answer(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted(), retriever=passages, approve="root", checkpointer=InMemorySaver())
    told = graph.as_tool().invoke(CALL)
    assert (told.status, told.content[:27]) == ("error", "No answer yet (RUN_WAITS): ")
    with pytest.raises(UsageError, match="RUN_WAITS"):
        JadeRetriever(graph=graph).invoke("Who wrote Dune?")
    assert passages.queries == []
