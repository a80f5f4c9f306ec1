"""LangChain's own standard tests over our chat model, retriever, embeddings and tool.

Run by `make test-langchain` in an environment of their own, because `langchain-tests` pulls pins of its own; skipped
where that package is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="make test-langchain runs these in an environment of their own")

from langchain_tests.integration_tests import (
    ChatModelIntegrationTests,
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    ToolsIntegrationTests,
)
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests, ToolsUnitTests

from jade_graph import JadeGraph, Passage
from jade_graph.backbones.hf import HFBackbone
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.langchain import JadeChatModel, JadeEmbeddings, JadeRetriever
from jade_graph.testing.models import make_random_model

# Every value is a plain word; a random model writes any bytes, which is what a schema must hold out against.
_LOCAL: dict[str, Any] = {}


@pytest.fixture(scope="session", autouse=True)
def _model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A chat model of random weights with a byte tokenizer and a chat template: real ids, real log-probabilities."""
    folder = make_random_model(tmp_path_factory.mktemp("model") / "m", chat=True, max_context=2048)
    _LOCAL["backbone"] = HFBackbone.load(Path(folder))
    yield
    _LOCAL.clear()


class Chat:
    @property
    def chat_model_class(self) -> type[JadeChatModel]:
        return JadeChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"backbone": _LOCAL["backbone"]}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Of the standard ones those that a model in this process has: nothing is retried, and there is no key."""
        return {"temperature": 0, "max_tokens": 100, "timeout": 60, "stop": []}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestChatModelUnit(Chat, ChatModelUnitTests):
    pass


class TestChatModelIntegration(Chat, ChatModelIntegrationTests):
    pass


def graph() -> JadeGraph:
    texts = [Passage(f"p{i}", f"Passage {i} about the novel Dune by Frank Herbert.", f"T{i}") for i in range(8)]
    return JadeGraph(
        ScriptedBackbone(lambda a: "<answer>Frank Herbert</answer>" if a.role == "AG" else "<workflow>R,AG</workflow>"),
        retriever=texts,
    )


class TestRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[JadeRetriever]:
        return JadeRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"graph": graph()}

    @property
    def retriever_query_example(self) -> str:
        return "Who wrote Dune?"


class Vectors:
    @property
    def embeddings_class(self) -> type[JadeEmbeddings]:
        return JadeEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": "minilm"}


class TestEmbeddingsUnit(Vectors, EmbeddingsUnitTests):
    pass


class TestEmbeddingsIntegration(Vectors, EmbeddingsIntegrationTests):
    pass


class Tool:
    @property
    def tool_constructor(self) -> Any:
        return graph().as_tool()

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"question": "Who wrote Dune?"}


class TestToolUnit(Tool, ToolsUnitTests):
    pass


class TestToolIntegration(Tool, ToolsIntegrationTests):
    pass
