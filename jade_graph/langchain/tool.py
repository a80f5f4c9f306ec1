"""The graph as a tool for an agent.

Invariant: what the agent reads is the answer with the names of its sources; the whole output (steps, documents, usage)
is the message's artifact. A run that failed or waits, and a question that cannot be asked, are tool errors that the
agent can read, never an answer, and never the agent's end.
"""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, ConfigDict, Field

from jade_graph.errors import JadeError
from jade_graph.langchain.outputs import JadeOutput
from jade_graph.sync import run_sync
from jade_graph.workflow.engine import Engine

DESCRIPTION = (
    "Answers a question from the indexed documents: it plans, searches in several steps where that is needed, and "
    "returns a short answer with its sources. Ask one whole question in natural language."
)


class JadeToolInput(BaseModel):
    question: str = Field(description="one whole question, with every name it needs")


class JadeTool(BaseTool):
    """`graph.as_tool()`; for `langchain.agents.create_agent(model, tools=[..])`.

    Called inside a LangGraph agent, the graph runs as a subgraph: its nodes are seen under
    `agent.stream(.., subgraphs=True)`.

    Args:
        graph: answers.
        sources: how many documents are named below the answer.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    graph: Any
    name: str = "search_and_answer"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = JadeToolInput
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    handle_validation_error: Any = Field(default_factory=lambda: _invalid)
    sources: int = 3

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not (isinstance(self.graph, Runnable) and isinstance(getattr(self.graph, "engine", None), Engine)):
            raise TypeError(f"JadeTool takes a JadeGraph, not {type(self.graph).__name__}: graph.as_tool()")

    async def _arun(
        self,
        question: str,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> tuple[str, JadeOutput]:
        del run_manager  # the config carries its child callbacks
        try:
            return self._told(await self.graph.ainvoke(question, config))
        except JadeError as error:
            raise ToolException(f"No answer ({error.error_code}): {_without_code(error)}") from error

    def _run(
        self, question: str, config: RunnableConfig, run_manager: CallbackManagerForToolRun | None = None
    ) -> tuple[str, JadeOutput]:
        del run_manager
        return run_sync(self._arun(question, config))

    def _told(self, out: JadeOutput) -> tuple[str, JadeOutput]:
        if out["status"] == "waiting":
            raise ToolException(f"No answer yet (RUN_WAITS): {waits(out['run_id'])}")
        if out["status"] == "failed":
            told = out["error_message"].removeprefix(f"[{out['error']}] ")
            raise ToolException(f"No answer ({out['error']}): {told or 'the run failed.'}")
        names = [str(d.metadata.get("title") or d.id) for d in out["documents"]]
        listed = list(dict.fromkeys(names))[: self.sources]
        return out["answer"] + (f"\nSources: {'; '.join(listed)}" if listed else ""), out


def waits(run_id: str) -> str:
    """What is told instead of an answer, while a person is asked."""
    return f"the plan of run {run_id!r} waits for a person's approval."


def _invalid(error: Any) -> str:
    """What is wrong with a call's arguments, each by its name."""
    found = [f"{'.'.join(map(str, e['loc'])) or 'the arguments'}: {e['msg']}" for e in error.errors()]
    return f"No answer (BAD_INPUT): {'; '.join(found)}. Call it with one text, the question."


def _without_code(error: JadeError) -> str:
    return str(error).removeprefix(f"[{error.error_code}] ")


__all__ = ["JadeTool", "JadeToolInput", "waits"]
