"""M-ASK and Search-R1 on microworld, with an oracle for every role: graph, record, pictures, commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from jade_graph import JadeGraph, RunStore
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.cli import main
from jade_graph.microworld import OraclePolicy, parse
from jade_graph.microworld.search import WordSearch
from jade_graph.microworld.shown import demonstrations
from jade_graph.picture.terminal import run_svg
from jade_graph.picture.topology import topology_svg
from jade_graph.picture.view import view
from jade_graph.scoring.credit import assign
from jade_graph.scoring.metrics import token_f1
from jade_graph.scoring.rewards import RewardSpec, score_run
from jade_graph.types import Limits, Run
from jade_nodes.m_ask.loop import PLANNED
from jade_nodes.presets import M_ASK, SEARCH_R1

pytestmark = pytest.mark.usefixtures("declared")
SPEC = "test?n=21&seed=1"
WORLD, QUESTIONS, _ = parse(SPEC)
PASSAGES = WordSearch(WORLD.passages)
HOPS = next(q for q in QUESTIONS if q.type == "2hop")
TURN = ["KS", "R", "KE", "KU", "KA"]


def graph(preset: Any = "m-ask", profile: str = "compact", **options: Any) -> JadeGraph:
    oracle = ScriptedBackbone(OraclePolicy(WORLD, QUESTIONS), profile=profile)
    return JadeGraph(oracle, preset=preset, retriever=PASSAGES, **options)


@pytest.fixture
def run(declared: None) -> Run:
    """A 2-hop question: the first turn finds the bridge, the second the answer, the third ends."""
    return graph().run(HOPS, metadata={"answers": list(HOPS.answers)})


@pytest.mark.parametrize("preset", ["m-ask", "search-r1"])
@pytest.mark.parametrize("profile", ["compact", "chat"])
async def test_the_oracle_answers_every_kind_of_question(preset: str, profile: str) -> None:
    scores = []
    async for run in graph(preset, profile).arun_many(QUESTIONS):
        question = next(q for q in QUESTIONS if q.id == run.question_id)
        scores.append(token_f1(run.answer, question.answers))
        assert (run.status, run.illegal_actions, run.preset) == ("answered", 0, preset)
    assert sum(scores) / len(scores) > 0.95


def test_a_run_is_recorded_turn_by_turn(run: Run) -> None:
    assert [t.role for t in run.transitions] == ["KP", "KA", *TURN, *TURN, "KS"]
    assert [t.round for t in run.transitions] == [1, 1, *[2] * 5, *[3] * 5, 4]
    assert [t.agent_trainable for t in run.transitions].count(False) == 2  # the searches
    assert run.answer == HOPS.answers[0]
    assert all(len(t.old_logprobs) == len(t.action_token_ids) for t in run.transitions)
    assert (run.counters.rounds, run.counters.retrievals, run.counters.calls) == (4, 2, 11)


def test_credit_of_a_recorded_run(run: Run, tmp_path: Path) -> None:
    scored = score_run(run, HOPS, RewardSpec.of_preset(M_ASK))
    rows = {mode: assign(run, scored, mode=mode) for mode in ("turn", "return_to_go")}
    hop = [t.seq for t in run.transitions if t.round == 2 and t.role in ("KS", "KE", "KU")]
    assert [rows["turn"][i].reward for i in hop] == [0.0] * 3
    assert [rows["return_to_go"][i].reward for i in hop] == [1.0] * 3
    assert [t.reward for t in rows["turn"] if t.round == 3] == [1.0, None, 1.0, 1.0, 1.0]


def test_the_plans_own_answer_may_stand_first() -> None:
    planned = graph(replace(M_ASK, loop=PLANNED)).run(HOPS)
    assert [t.role for t in planned.transitions] == ["KP", *TURN, *TURN, "KS"]
    assert (planned.answer, planned.counters.rounds) == (HOPS.answers[0], 4)


def test_limits_answer_with_what_is_predicted() -> None:
    short = graph().run(HOPS, limits=Limits(rounds=3, depth=0))
    assert ([t.role for t in short.transitions][-1], short.answer) == ("KA", HOPS.answers[0])
    blind = graph().run(HOPS, limits=Limits(rounds=3, retrievals=0))
    assert (blind.status, blind.answer) == ("answered", "unknown")
    forced = graph("search-r1").run(HOPS, limits=Limits(rounds=2))
    assert [t.role for t in forced.transitions] == ["SR", "R", "SR"]
    assert (forced.status, forced.answer, forced.illegal_actions) == ("answered", "unknown", 0)


async def test_it_resumes_from_any_checkpoint(run: Run) -> None:
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    await graph(checkpointer=saver).arun(HOPS, config=config)
    history = [s async for s in graph(checkpointer=saver).graph.aget_state_history(config)]
    assert len(history) >= len(run.transitions)
    for snapshot in history[1:-1:3]:
        out = await graph(checkpointer=saver).graph.ainvoke(None, snapshot.config)
        assert (out["status"], out["answer"]) == ("answered", run.answer)


def test_a_fork_with_another_query_goes_its_own_way(run: Run) -> None:
    forked = graph().fork(run, at="0:KS", text="<end>")
    assert [t.role for t in forked.transitions] == ["KP", "KA", "KS"]
    assert (forked.status, forked.answer) == ("answered", "unknown")


def test_a_run_is_drawn(run: Run) -> None:
    seen = view(run)
    assert seen["steps"] == len(run.transitions)
    picture = topology_svg(run)
    for name in ("KP", "KS", "KE", "KU", "KA", ">R<"):
        assert name in picture
    assert picture.count("jg-taken") == 8  # every edge of the loop
    assert "×2" in picture
    tree = run_svg(run, documents=False)
    for round_ in range(1, 5):
        assert f"round&#160;{round_}" in tree or f"round {round_}" in tree


@pytest.mark.parametrize("preset", ["m-ask", "search-r1"])
def test_demonstrations_come_from_legal_runs(preset: str) -> None:
    shown = demonstrations(WORLD, QUESTIONS[:7], preset=preset)
    assert {s.role for s in shown} == ({"KP", "KS", "KE", "KU", "KA"} if preset == "m-ask" else {"SR"})
    assert all(s.messages and s.action for s in shown)
    assert shown == demonstrations(WORLD, QUESTIONS[:7], preset=preset)


# --- commands ---------------------------------------------------------------------------------------------------------
FAST = ("--set", "encoder=hash:64", "--set", "retrieval=bm25", "--json")
ORACLE = ("--preset", "m-ask", "--backbone", "scripted:m_ask_oracle")


def test_the_commands_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    Path("m_ask_oracle.py").write_text(
        "from jade_graph.microworld import OraclePolicy, parse\n"
        f"world, questions, _ = parse({SPEC!r})\npolicy = OraclePolicy(world, questions)\n"
    )
    monkeypatch.syspath_prepend(".")

    def jade(*args: str) -> str:
        capsys.readouterr()
        code = main(list(args))
        done = capsys.readouterr()
        assert code == 0, done.err
        return str(done.out)

    data = f"microworld:{SPEC}"
    figures = json.loads(jade("eval", data, *ORACLE, *FAST))["overall"]
    assert (figures["n"], figures["f1"] > 0.95) == (21, True)
    rolled = json.loads(jade("rollout", data, "--limit", "3", *ORACLE, *FAST))
    assert rolled
    with RunStore(Path(".jade/runs.db")) as store:
        recorded = [store.get(str(row["id"])) for row in store.list_runs(limit=100)]
    longest = max(recorded, key=lambda r: r.counters.rounds)
    golds = next(q.answers for q in QUESTIONS if q.id == longest.question_id)
    told = json.loads(jade("explain-credit", longest.id, "--gold", golds[0], "--json"))
    assert told["mode"] == "turn"
    assert sum(t["gain"] for t in told["turns"]) == pytest.approx(told["turns"][-1]["after"]) == pytest.approx(1.0)
    drawn = jade("explain-credit", longest.id, "--gold", golds[0])
    assert "▼ round 1" in drawn
    assert "│ +1" in drawn
    shown = json.loads(jade("presets", "show", "m-ask", "--json"))
    assert "m-ask" in json.dumps(shown)


def test_the_presets_name_their_loops() -> None:
    assert (M_ASK.loop, SEARCH_R1.loop) == ("m-ask", "search-r1")
