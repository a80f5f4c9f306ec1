"""Graphs from settings and from the registry, and what they close."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda

from jade_graph import JadeGraph, Passage, RunStore, plugins
from jade_graph.assembly import Opened
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError, ConfigError, RetrievalError, UsageError
from jade_graph.langchain import JadeEmbeddings
from jade_graph.retrieval.encoder import HashingEncoder
from jade_graph.settings.config import load_config
from jade_graph.workflow.engine import Engine

TEXTS = [Passage("p", "Dune is by Ann Lee.", "Dune")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_settings_come_from_the_file_and_from_what_is_said(here: Path, scripted: Any) -> None:
    (here / "jade.toml").write_text('k = 2\npreset = "vanilla-rag"\n[limits]\ndeadline_s = 7\n')
    with JadeGraph.from_config(backbone=scripted(), corpus=TEXTS) as graph:
        assert (graph.k, graph.preset.name, graph.limits.deadline_s, graph.limits.depth) == (2, "vanilla-rag", 7, 0)
        assert graph.invoke("Dune?")["answer"] == "Ann Lee"
    with RunStore(here / ".jade" / "runs.db") as store:
        assert store.count() == 1
    with JadeGraph.from_config(
        backbone=scripted(), corpus=TEXTS, preset="jade", settings={"k": 4, "limits.rounds": 3}, record=False
    ) as graph:
        assert (graph.k, graph.preset.name, graph.limits.rounds, graph.recorder) == (4, "jade", 3, None)


async def test_what_was_opened_is_closed_and_nothing_else(here: Path, scripted: Any) -> None:
    mine = scripted()
    async with JadeGraph.from_config(backbone=mine, corpus=TEXTS, backbones={"AG": "tiny"}) as graph:
        loaded = graph.backbones["AG"]
    assert (await graph.arun("Dune?", plan="AG")).error == "BACKBONE_CLOSED"
    with pytest.raises(BackboneError, match="BACKBONE_CLOSED"):
        await loaded.generate([1], __import__("jade_graph").Sampling())
    assert (await JadeGraph(mine, retriever=TEXTS).arun("Dune?")).answer == "Ann Lee"
    graph.close()  # twice does nothing


def test_a_registered_version_is_a_backbone_by_its_uri(here: Path, scripted: Any, monkeypatch: Any) -> None:
    asked: list[str] = []
    whole = plugins.load

    def load(group: str, name: str) -> Any:
        if (group, name) == ("jade.backbones", "models"):
            return lambda rest, **options: asked.append(rest) or scripted({"version": "v7"})
        return whole(group, name)

    monkeypatch.setattr(plugins, "load", load)
    with JadeGraph.from_registry(corpus=TEXTS) as graph:
        assert graph.invoke("Dune?")["version"] == "v7"
    with JadeGraph.from_registry("models:/mine/3", corpus=TEXTS):
        pass
    assert asked == ["/jade-backbone@champion", "/mine/3"]


def test_what_is_not_there_is_named(here: Path, scripted: Any) -> None:
    with pytest.raises(RetrievalError, match="UNKNOWN_CORPUS"):
        JadeGraph.from_config(backbone=scripted(), corpus="nope")
    with pytest.raises(ConfigError, match="CONFIG_UNKNOWN_KEY"):
        JadeGraph.from_config(backbone=scripted(), settings={"kk": 3})
    with pytest.raises(UsageError, match="CONFIG_LOADED"):
        JadeGraph.from_config(load_config(), backbone="tiny")
    with pytest.raises(UsageError, match="UNKNOWN_PRESET"):
        JadeGraph.from_config(backbone=scripted(), preset="jad")


# --- embeddings -------------------------------------------------------------------------------------------------------
async def test_embeddings_are_the_encoders_own(here: Path) -> None:
    ours = JadeEmbeddings("hash:64")
    texts = ["Dune is by Ann Lee.", "", "Emma"]
    wanted = HashingEncoder(64).encode(texts)
    assert np.allclose(ours.embed_documents(texts), wanted)
    assert np.allclose(await ours.aembed_documents(texts), wanted)
    assert np.allclose(ours.embed_query("Emma"), wanted[2])
    assert ours.embed_documents([]) == []
    assert pickle.loads(pickle.dumps(ours)).embed_query("Emma") == await ours.aembed_query("Emma")
    assert repr(ours) == "JadeEmbeddings('hash-64-v1')"
    with pytest.raises(UsageError, match="UNKNOWN_ENCODER"):
        JadeEmbeddings("nope")


# --- the front door and its engine ------------------------------------------------------------------------------------
def test_what_the_engine_does_keeps_its_kind_its_words_and_its_signature(scripted: Any) -> None:
    graph = JadeGraph(scripted(), preset="vanilla-rag", retriever=["text"])
    for name in ("arun", "aresume", "afork", "aclose"):
        assert inspect.iscoroutinefunction(getattr(graph, name)), name
    assert inspect.isasyncgenfunction(graph.arun_many)
    for name in ("arun", "arun_many", "run", "fork", "check"):
        ours, theirs = getattr(JadeGraph, name), getattr(Engine, name)
        assert ours.__doc__ == theirs.__doc__
        assert inspect.signature(ours) == inspect.signature(theirs)
    assert asyncio.run(RunnableLambda(graph.arun).ainvoke("Who?")).status == "answered"


def test_a_graph_is_made_of_what_its_engine_is_made_of(scripted: Any) -> None:
    graph = JadeGraph(scripted(), preset="vanilla-rag", retriever=["text"], k=3)
    for name in (
        "preset",
        "backbone",
        "frozen_backbone",
        "retriever",
        "recorder",
        "limits",
        "k",
        "graph_hash",
        "graph",
    ):
        assert getattr(graph, name) is getattr(graph.engine, name), name
    with pytest.raises(AttributeError, match="variant"):
        graph.k = 4  # type: ignore[assignment]
    assert graph.variant(frozen_backbone=graph.frozen_backbone) is graph


def test_a_corpus_that_moves_on_is_recorded_as_it_was(scripted: Any) -> None:
    class Moving:
        corpus_id = "c1"

        async def search(self, query: str, k: int) -> list[Passage]:
            return [Passage("p", "text")]

    moving = Moving()
    graph = JadeGraph(scripted(), preset="vanilla-rag", retriever=moving)
    first = graph.run("Who?")
    moving.corpus_id = "c2"
    second = graph.run("Who?")
    assert (first.corpus_id, second.corpus_id) == ("c1", "c2")
    assert {t.corpus_id for t in second.transitions} == {"c2"}


def test_what_was_opened_is_closed_where_closing_a_part_of_it_fails(here: Path, scripted: Any) -> None:
    closed = []

    class Closing(ScriptedBackbone):
        async def aclose(self) -> None:
            closed.append(self.version)
            raise RuntimeError("stuck")

    opened = Opened({})
    for name in ("one", "two"):
        backbone = Closing(lambda ask: "", version=name)
        opened.models.callback(lambda b=backbone: asyncio.run(b.aclose()))
    opened.stores.callback(lambda: closed.append("store"))
    with pytest.raises(RuntimeError, match="stuck"):
        opened.close()
    assert closed == ["two", "one", "store"]
    opened.close()
    assert len(closed) == 3
