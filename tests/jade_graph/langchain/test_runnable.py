"""JadeGraph as a Runnable: composition, streams, events, options, schemas, and what goes wrong."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.runnables.utils import aadd, add

from jade_graph import JadeGraph, Limits, Passage, Question, RunStore
from jade_graph.errors import JadeError, UsageError
from jade_graph.langchain.outputs import output_of


@pytest.fixture
def graph(scripted: Any, passages: Any) -> JadeGraph:
    return JadeGraph(scripted(), retriever=passages)


def same(one: Any, other: Any) -> bool:
    """Equal but for what differs between two runs: id and times."""

    def plain(out: Any) -> Any:
        steps = [{k: v for k, v in step.items() if k != "ms"} for step in out["steps"]]
        return {**out, "run_id": "", "steps": steps}

    return bool(plain(one) == plain(other))


# --- what comes out ---------------------------------------------------------------------------------------------------
async def test_the_output_says_how_the_run_ended(graph: JadeGraph) -> None:
    out = await graph.ainvoke("Who?")
    assert (out["answer"], out["status"], out["error"], out["plan"]) == ("Ann Lee", "answered", None, "R,AG")
    assert [step["role"] for step in out["steps"]] == ["PL", "R", "AG"]
    assert [d.id for d in out["documents"]] == [f"p{i}" for i in range(5)]
    assert out["documents"][0].metadata["score"] == 1.0
    assert out["usage"]["calls"] == 2
    assert out["usage"]["total_tokens"] == out["usage"]["input_tokens"] + out["usage"]["output_tokens"]


async def test_metadata_of_documents_is_kept(scripted: Any) -> None:
    texts = [Passage("a", "Dune is by Ann Lee", "Dune", metadata={"source": "x.txt", "page": 3})]
    store = JadeGraph(scripted(), retriever=texts)
    (document,) = (await store.ainvoke("Dune?"))["documents"]
    assert (document.id, document.page_content) == ("a", "Dune is by Ann Lee")
    assert (document.metadata["source"], document.metadata["page"], document.metadata["title"]) == ("x.txt", 3, "Dune")


async def test_the_chunks_of_a_stream_add_up_to_what_invoke_returns(graph: JadeGraph) -> None:
    whole = await graph.ainvoke("Who?")
    chunks = [chunk async for chunk in graph.astream("Who?")]
    assert len(chunks) > 4
    assert set(chunks[0]) == {"run_id", "documents", "steps"}
    assert same(add(chunks), whole)
    assert same(await aadd(graph.astream("Who?")), whole)
    assert same(add(graph.stream("Who?")), graph.invoke("Who?"))


def test_a_recorded_run_reads_as_the_output_it_had(scripted: Any, passages: Any, tmp_path: Any) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, recorder=store)
        out = graph.invoke("Who?", metadata={"user": "u1"}, config={"tags": ["t"], "metadata": {"app": "a"}})
        run = store.get(out["run_id"])
    assert same(output_of(run), out)
    assert run.metadata["user"] == "u1"
    assert run.metadata["config"] == {"tags": ["t"], "app": "a"}


# --- composition ------------------------------------------------------------------------------------------------------
def chain_of(graph: JadeGraph) -> Any:
    return RunnableLambda(lambda x: x["asked"]) | graph | RunnableLambda(lambda out: out["answer"].upper())


async def test_between_bars_under_every_way_of_running(graph: JadeGraph) -> None:
    chain, asked = chain_of(graph), {"asked": "Who?"}
    assert chain.invoke(asked) == await chain.ainvoke(asked) == "ANN LEE"
    assert list(chain.stream(asked)) == ["ANN LEE"]
    assert [c async for c in chain.astream(asked)] == ["ANN LEE"]
    assert chain.batch([asked] * 3) == ["ANN LEE"] * 3
    ends = [e async for e in chain.astream_events(asked) if e["event"] == "on_chain_end"]
    assert ends[-1]["data"]["output"] == "ANN LEE"


async def test_events_show_what_is_inside(graph: JadeGraph) -> None:
    config: Any = {"tags": ["mine"], "metadata": {"who": "me"}, "run_name": "asking"}
    events = [e async for e in chain_of(graph).with_config(config).astream_events({"asked": "Who?"})]
    inner = [e for e in events if e["event"] == "on_chain_start" and e["name"] in ("PL", "R", "AG")]
    assert [e["name"] for e in inner] == ["PL", "R", "AG"]
    assert all("mine" in e["tags"] and e["metadata"]["who"] == "me" for e in inner)
    (own,) = [
        e for e in events if e["event"] == "on_chain_end" and e["name"] == "jade" and "steps" in e["data"]["output"]
    ]
    assert own["data"]["output"]["answer"] == "Ann Lee"
    assert own["run_id"] in inner[0]["parent_ids"]


async def test_callbacks_and_configurable_reach_the_nodes(graph: JadeGraph) -> None:
    class Names(BaseCallbackHandler):
        def __init__(self) -> None:
            self.names: list[Any] = []

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.names.append(kwargs.get("name"))

    seen = Names()
    await graph.ainvoke("Who?", {"callbacks": [seen], "configurable": {"somebody_elses": 1}})
    assert {"jade", "PL", "R", "AG", "finish"} <= set(seen.names)


def test_parts_of_the_output_and_parallel_branches(graph: JadeGraph) -> None:
    both = RunnableParallel(answer=graph.pick("answer"), documents=graph.pick("documents"))
    out = both.invoke("Who?")
    assert out["answer"] == "Ann Lee"
    assert all(isinstance(d, Document) for d in out["documents"])


@pytest.mark.parametrize(
    "given",
    [
        "Who?",
        {"question": "Who?"},
        Question("q", "Who?"),
        HumanMessage("Who?"),
        PromptTemplate.from_template("{q}").invoke({"q": "Who?"}),
    ],
)
def test_questions_come_in_many_forms(graph: JadeGraph, given: Any) -> None:
    assert graph.invoke(given)["question"] == "Who?"


# --- options of one call ----------------------------------------------------------------------------------------------
def test_options_by_keyword_bound_and_configurable(graph: JadeGraph) -> None:
    assert len(graph.invoke("Who?", k=2)["documents"]) == 2
    assert len(graph.with_config(configurable={"k": 3}).invoke("Who?")["documents"]) == 3
    assert len(graph.with_config(configurable={"k": 3}).bind(k=1).invoke("Who?")["documents"]) == 1
    assert [s["role"] for s in graph.invoke("Who?", preset="vanilla-rag")["steps"]] == ["R", "AG"]
    assert graph.invoke("Who?", plan="AG")["plan"] == "AG"
    failed = graph.invoke("Who?", limits={"tokens": 10})
    assert (failed["status"], failed["error"]) == ("failed", "LIMIT_TOKENS")
    assert graph.limits == Limits()


def test_limits_go_on_top_of_those_of_the_preset_that_is_asked_for(graph: JadeGraph) -> None:
    """vanilla-rag allows no depth; naming another limit leaves that alone."""
    variant = graph.variant(preset="vanilla-rag")
    assert variant.limits.depth == 0
    assert graph.variant(preset="vanilla-rag") is variant
    assert variant.backbone is graph.backbone
    assert graph.variant(k=5) is graph
    assert graph.invoke("Who?", preset="vanilla-rag", limits={"deadline_s": 9})["status"] == "answered"


def test_the_seed_reaches_the_run(scripted: Any, passages: Any, tmp_path: Any) -> None:
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(scripted(), retriever=passages, recorder=store)
        for call in (
            lambda: graph.invoke("Who?", seed=7),
            lambda: graph.invoke({"question": "Who?", "seed": 7}),
            lambda: graph.invoke("Who?", {"configurable": {"seed": 7}}),
        ):
            assert store.get(call()["run_id"]).seed == 7


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda g: g.invoke(3), "BAD_INPUT"),
        (lambda g: g.invoke({"asked": "Who?"}), "BAD_INPUT"),
        (lambda g: g.invoke({"question": "Who?", "sede": 1}), "UNKNOWN_OPTION"),
        (lambda g: g.invoke("Who?", sede=1), "UNKNOWN_OPTION"),
        (lambda g: g.invoke("Who?", limits={"deadline": 1}), "UNKNOWN_LIMIT"),
        (lambda g: g.invoke("Who?", limits={"deadline_s": "1"}), "BAD_OPTION"),
        (lambda g: g.invoke("Who?", k="5"), "BAD_OPTION"),
        (lambda g: g.invoke("Who?", k=0), "BAD_K"),
        (lambda g: g.invoke("Who?", preset="jad"), "UNKNOWN_PRESET"),
        (lambda g: g.invoke("Who?", plan="DS"), "PLAN_ILLEGAL"),
        (lambda g: g.invoke(" "), "EMPTY_QUESTION"),
        (lambda g: list(g.stream("Who?", sede=1)), "UNKNOWN_OPTION"),
        (lambda g: JadeGraph(3), "NOT_A_BACKBONE"),
        (lambda g: JadeGraph(g.backbone, retriever=3), "NOT_A_RETRIEVER"),
        (lambda g: JadeGraph(g.backbone, backbones={"XX": g.backbone}), "UNKNOWN_ROLE"),
        (lambda g: JadeGraph(g.backbone, approve="root"), "GRAPH_NO_CHECKPOINTER"),
    ],
)
def test_wrong_arguments_have_names(graph: JadeGraph, call: Callable[[JadeGraph], Any], code: str) -> None:
    with pytest.raises(JadeError) as caught:
        call(graph)
    assert caught.value.error_code == code


# --- failures ---------------------------------------------------------------------------------------------------------
def test_a_failed_run_is_an_output_or_an_exception_for_fallbacks(scripted: Any, graph: JadeGraph) -> None:
    without = JadeGraph(scripted())
    out = without.invoke("Who?")
    assert (out["status"], out["error"], out["answer"]) == ("failed", "NO_CORPUS", "")
    with pytest.raises(JadeError, match=r"^\[NO_CORPUS\] the plan retrieves"):
        without.invoke("Who?", raise_on_failure=True)
    rescued = without.bind(raise_on_failure=True).with_fallbacks([graph])
    assert rescued.invoke("Who?")["answer"] == "Ann Lee"


def test_batches_hold_exceptions_apart(graph: JadeGraph) -> None:
    good, bad = graph.batch(["Who?", ""], return_exceptions=True)
    assert good["answer"] == "Ann Lee"
    assert isinstance(bad, UsageError)


async def test_leaving_a_stream_early_cancels_the_run(scripted: Any, passages: Any) -> None:
    graph = JadeGraph(scripted({"latency_s": 0.05}), retriever=passages)
    stream = graph.astream("Who?")
    await anext(stream)
    (ctx,) = graph.engine.contexts.running.values()
    await stream.aclose()
    assert not graph.engine.contexts.running
    assert (ctx.run.status, ctx.run.error) == ("failed", "CANCELLED")


# --- schemas, drawing, copying ----------------------------------------------------------------------------------------
def test_schemas_are_typed(graph: JadeGraph) -> None:
    given, out = graph.get_input_jsonschema(), graph.get_output_jsonschema()
    assert {"type": "string"} in given["anyOf"]
    assert given["$defs"]["JadeInput"]["required"] == ["question"]
    assert {"answer", "documents", "steps", "status", "error"} <= set(out["$defs"]["JadeOutput"]["properties"])
    assert {s.id for s in graph.config_specs} == {"preset", "k", "seed", "limits", "sampling", "plan"}
    assert (graph | RunnableLambda(str)).config_schema().model_json_schema()
    assert {"PL", "AG"} <= set(graph.get_graph().nodes)


def test_copies_share_the_graph_and_pickling_says_what_to_do(graph: JadeGraph) -> None:
    bound = graph.bind(seed=1)
    assert copy.deepcopy(bound).bound is graph
    with pytest.raises(TypeError, match="from_config"):
        pickle.dumps(graph)
    assert pickle.loads(pickle.dumps(graph.limits)) == graph.limits
    assert repr(graph) == "JadeGraph('scripted', preset='jade', corpus='numbered', k=5)"


async def test_synchronous_calls_inside_a_running_loop(graph: JadeGraph) -> None:
    """As in a notebook's cell."""
    assert graph.invoke("Who?")["answer"] == "Ann Lee"
    assert same(add(graph.stream("Who?")), graph.batch(["Who?"])[0])


def test_calls_from_many_threads(graph: JadeGraph) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(graph.invoke("Who?")["answer"])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["Ann Lee"] * 16


async def test_a_batch_runs_at_once_within_its_bound(scripted: Any, passages: Any) -> None:
    active, most = 0, 0

    class Slow(type(passages)):  # type: ignore[misc]
        async def search(self, query: str, k: int) -> Any:
            nonlocal active, most
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.01)
            active -= 1
            return await super().search(query, k)

    graph = JadeGraph(scripted(), retriever=Slow())
    await graph.abatch([f"{i}?" for i in range(12)])
    assert most > 4
    most = 0
    await graph.abatch([f"{i}?" for i in range(12)], {"max_concurrency": 2})
    assert most <= 2
