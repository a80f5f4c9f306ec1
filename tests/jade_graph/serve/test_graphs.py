"""Which graph a model's name means; versions are loaded when asked for, shared, and given up when nobody holds them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from jade_graph import plugins
from jade_graph.errors import UsageError
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.serve.graphs import Graphs, offered
from jade_graph.serve.problems import RequestError


@dataclass(frozen=True)
class Version:
    number: int
    content: str
    aliases: tuple[str, ...] = ()


class Versions:
    """Three registered versions; `loaded` are the numbers in the order of loading."""

    def __init__(self, make) -> None:
        self.known = [Version(1, "m@one"), Version(2, "m@two", ("challenger",)), Version(3, "m@three", ("champion",))]
        self.make, self.loaded, self.backbones = make, [], []

    def list(self):
        return self.known

    def load(self, number):
        self.loaded.append(number)
        content = next(v.content for v in self.known if v.number == number)
        self.backbones.append(self.make({"version": content}))
        return self.backbones[-1]


@pytest.fixture
def versions(scripted):
    return Versions(scripted)


@pytest.fixture
def graphs(scripted, passages, versions):
    presets = [plugins.load("jade.presets", name) for name in ("jade", "vanilla-rag")]
    own = scripted({"version": "m@three"})

    def build(preset, backbone):
        return JadeGraph(backbone, preset=preset, retriever=passages)

    return Graphs(build, own, presets, versions=versions, own="champion", most=1)


async def answered_by(graphs, model):
    async with graphs.lease(model) as graph:
        run = await graph.arun("who?")
        return run.preset, run.backbone_version


async def test_a_name_is_a_preset_and_a_version(graphs, versions):
    for model, wanted in {
        "": ("jade", "m@three"),
        "vanilla-rag": ("vanilla-rag", "m@three"),
        "jade@champion": ("jade", "m@three"),
        "jade@3": ("jade", "m@three"),
        "jade@m@three": ("jade", "m@three"),
        "@3": ("jade", "m@three"),
    }.items():
        assert await answered_by(graphs, model) == wanted
    assert versions.loaded == []  # all of these are the server's own
    assert await answered_by(graphs, "vanilla-rag@challenger") == ("vanilla-rag", "m@two")
    assert await answered_by(graphs, "jade@2") == ("jade", "m@two")
    assert await answered_by(graphs, "jade@m@two") == ("jade", "m@two")
    assert versions.loaded == [2]  # one backbone for all its presets and names


@pytest.mark.parametrize("model", ["jaed", "jade@7", "jade@nobody", "jade@m@four", "jaed@3"])
async def test_names_that_mean_nothing_are_told_with_those_that_do(graphs, versions, model):
    with pytest.raises(RequestError) as caught:
        await answered_by(graphs, model)
    assert (caught.value.error_code, caught.value.param) == ("UNKNOWN_MODEL", "model")
    assert {"jade", "jade@champion", "vanilla-rag@2"} <= set(caught.value.known)
    assert versions.loaded == []


async def test_only_so_many_versions_are_held_and_none_that_is_in_use(graphs, versions):
    async with graphs.lease("jade@2"):
        with pytest.raises(RequestError) as caught:
            await answered_by(graphs, "jade@1")
        assert caught.value.error_code == "SERVER_BUSY"
        assert caught.value.headers["retry-after"]
    assert await answered_by(graphs, "jade@1") == ("jade", "m@one")
    assert versions.loaded == [2, 1]
    assert versions.backbones[0]._closed  # given up for the other
    assert await answered_by(graphs, "jade@1") == ("jade", "m@one")
    assert versions.loaded == [2, 1]
    await graphs.aclose()
    assert versions.backbones[1]._closed
    assert await answered_by(graphs, "jade") == ("jade", "m@three")  # the server's own is the caller's to close


async def test_requests_that_come_together_load_a_version_once(graphs, versions):
    found = await asyncio.gather(*(answered_by(graphs, "jade@2") for _ in range(8)))
    assert set(found) == {("jade", "m@two")}
    assert versions.loaded == [2]


async def test_the_list_names_every_version_and_alias(graphs):
    found = {entry["id"]: entry["jade"] for entry in await graphs.models()}
    keys = ("1", "2", "challenger", "3", "champion")
    assert set(found) == {name for p in ("jade", "vanilla-rag") for name in (p, *(f"{p}@{k}" for k in keys))}
    assert found["jade"]["version"] == "m@three"
    assert found["vanilla-rag@challenger"]["version"] == "m@two"


def test_presets_are_offered_by_name_the_default_first():
    default = plugins.load("jade.presets", "jade")
    assert [p.name for p in offered(default, "vanilla-rag, jade")] == ["jade", "vanilla-rag"]
    assert {"jade", "vanilla-rag"} <= {p.name for p in offered(default, None)}
    with pytest.raises(UsageError) as caught:
        offered(default, "vanila-rag")
    assert caught.value.error_code == "UNKNOWN_PRESET"
