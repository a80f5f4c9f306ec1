import json
import re
from pathlib import Path

import pytest

from jade_graph import JadeGraph, RunStore
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.types import Question
from jade_nodes.presets import MAO_ARAG

ACTIONS = {"QDS": "<q1>who drew it?</q1><q2>where?</q2>", "AG": "<answer>Bob</answer>", "AS": "Ann"}
FAILED = "0failed"


def policy(ask):
    plan = "QDS" if ask.view.level == "root" else "AG"
    return ACTIONS.get(ask.role, f"<workflow>{plan}</workflow>")


@pytest.fixture
def recorded() -> str:
    """A run PL QDS, PL AG, PL AG, AS whose summary lacks its tag; before it one that fails, one with its golds."""
    with RunStore(Path(".jade/runs.db")) as store:
        graph = JadeGraph(ScriptedBackbone(policy), recorder=store)
        graph.run("Who?", run_id=FAILED, limits=type(graph.limits)(tokens=1))
        graph.run(Question("q0", "Who?", ("Ann",)), run_id="golds")
        JadeGraph(ScriptedBackbone(policy), preset=MAO_ARAG, recorder=store).run("Who?", run_id="planner")
        return graph.run(Question("q7", "Who made [red]X?"), run_id="newest").id


def numbers(done, name):
    return [a[name] for a in done.json["actions"]]


def test_where_each_number_came_from(jade, recorded):
    done = jade("explain-credit", "--gold", "Ann Lee", "--alpha", "0.3", "--json")
    told = done.json
    assert (told["run"], told["mode"], told["golds"], told["golds_from"]) == ("newest", "terminal_gae", ["Ann Lee"],
                                                                              "--gold")  # fmt: skip
    assert told["outcome"] == pytest.approx({"f1": 2 / 3, "turn_cost": -0.3})
    assert numbers(done, "role") == ["PL", "QDS", "PL", "AG", "PL", "AG", "AS"]
    assert numbers(done, "round") == [1, 1, 2, 2, 3, 3, 4]
    assert numbers(done, "terms")[:-1] == [{}] * 6
    assert numbers(done, "terms")[-1] == pytest.approx({"f1": 2 / 3, "turn_cost": -0.3, "format": -1.0})
    assert numbers(done, "advantage") == pytest.approx([11 / 30] * 6 + [11 / 30 - 1])
    assert numbers(done, "return") == pytest.approx([11 / 30] * 7)
    assert told["total"] == pytest.approx(11 / 30 - 1)
    assert told["adds_up"].startswith("outcome 0.3667 = f1 0.6667 - turn_cost 0.3; it enters at action 6")


def test_for_people_by_round_with_text_as_text(jade, recorded):
    done = jade("explain-credit", "newest", "--gold", "Ann Lee", "--alpha", "0.3")
    text = done.out
    assert (done.code, done.err) == (0, "")
    assert "[red]X" in text
    assert re.search(r"^ ?4 +0 +6 +AS +Ann  NO_TAG +f1 \+0.667  turn_cost -0.3  format -1 +-0.6333", text, re.M)
    assert re.search(r"^ +3 +AG +<answer>Bob</answer> +0 +0.3667 +0.3667", text, re.M)
    assert "outcome 0.3667 = f1 0.6667 - turn_cost 0.3;" in text


@pytest.mark.parametrize(
    ("options", "rewards", "said"),
    [
        (["--mode", "broadcast"], [1, 1, 1, 1, 1, 1, 0], "each of the 7 learning actions gets all of it"),
        (["--mode", "split"], [1 / 7] * 6 + [1 / 7 - 1], "gets 1/7 of it"),
        (["--mode", "turn_delta"], [0] * 6 + [0], "0 in round 3, 1 in round 4"),
        (["--mode", "terminal_gae", "--inherit-penalties"], [0] * 7, "all flow back"),
        (["--penalty", "AS=-0.25", "--penalty", "*=-4"], [0] * 6 + [0.75], "outcome 1 = f1 1;"),
        (["--outcome", "em", "--beta", "1"], [0] * 7, "outcome 1 = em 1 - retrieval_cost 0;"),
        (["--call-cost", "0.1"], [0] * 6 + [-0.7], "outcome 0.3 = f1 1 - call_cost 0.7;"),
        (["--alpha", "0.3", "--cost-form", "code"], [0] * 6 + [-0.2], "outcome 0.8 = f1 1 - turn_cost 0.2;"),
    ],
)
def test_modes_and_weights(jade, recorded, options, rewards, said):
    done = jade("explain-credit", "--gold", "Ann", "--json", *options)
    assert numbers(done, "reward") == pytest.approx(rewards)
    assert said in done.json["adds_up"]


def test_a_discount_reaches_back(jade, recorded):
    done = jade("explain-credit", "--gold", "Ann", "--gamma", "0.5", "--json")
    assert numbers(done, "return") == pytest.approx([0.5**k for k in range(6, -1, -1)])
    assert numbers(jade("explain-credit", "--gold", "Ann", "--lam", "0", "--json"), "return") == [0] * 6 + [1]


def test_without_gold_answers_it_says_unscored_and_gives_no_number(jade, recorded):
    done = jade("explain-credit", "--json")
    assert (done.code, done.json["scored"], done.json["outcome"], done.json["total"]) == (0, False, None, None)
    assert numbers(done, "reward") == numbers(done, "advantage") == [None] * 7
    assert "--gold TEXT" in done.json["why_unscored"]
    shown = jade("explain-credit").out
    assert "unscored: no gold answer is known" in shown
    assert "the learner leaves the run out" in shown


def test_golds_recorded_with_the_run_and_a_failed_run(jade, recorded):
    told = jade("explain-credit", "golds", "--json").json
    assert (told["golds"], told["golds_from"], told["outcome"]) == (["Ann"], "the run", {"f1": 1.0})
    assert jade("explain-credit", "golds", "--gold", "Bob", "--json").json["outcome"] == {"f1": 0.0}
    failed = jade("explain-credit", FAILED, "--gold", "Ann", "--json").json
    assert (failed["status"], failed["outcome"], failed["actions"][0]["learns_not"]) == (
        "failed", {"f1": 0.0}, "LIMIT_TOKENS")  # fmt: skip
    assert failed["adds_up"] == "outcome 0 = f1 0; no action of this run learns."


def test_the_presets_own_mode_weights_and_frozen_roles(jade, recorded):
    done = jade("explain-credit", "planner", "--gold", "Ann", "--json")
    told = done.json
    assert (told["mode"], told["spec"]["alpha"]) == ("broadcast", 0.1)
    assert told["outcome"] == pytest.approx({"f1": 1.0, "turn_cost": -0.1, "retrieval_cost": 0.0})
    assert {a["role"] for a in told["actions"] if a["learns"]} == {"PL"}
    frozen = [a for a in told["actions"] if not a["learns"]]
    assert {a["learns_not"] for a in frozen} == {"frozen"}
    assert [a["reward"] for a in frozen] == [None] * len(frozen)
    assert "format" not in told["adds_up"]


def test_golds_from_a_data_set(jade, recorded):
    questions = [{"id": i, "question": "Who made [red]X?", "answers": [a]} for i, a in (("q6", "Bob"), ("q7", "Ann"))]
    Path("set.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    told = jade("explain-credit", "--dataset", "set.jsonl", "--json").json
    assert (told["golds"], told["golds_from"], told["total"]) == (["Ann"], "--dataset", 0.0)
    done = jade("explain-credit", "golds", "--dataset", "set.jsonl", "--json")
    assert (done.code, done.json["error"]["code"]) == (3, "CREDIT_QUESTION")


def test_a_run_of_something_that_is_no_installed_preset(jade, recorded):
    with RunStore("other.db") as store:
        run = JadeGraph(ScriptedBackbone(policy)).run("Who?", run_id="own")
        run.preset = "my-agent"
        store.run_started(run)
        for t in run.transitions:
            store.transition(t)
        store.run_finished(run)
    for where in ("other.db", "sqlite:///other.db"):
        told = jade("explain-credit", "--store", where, "--gold", "Ann", "--json").json
        assert (told["run"], told["preset"], told["mode"], told["total"]) == ("own", "my-agent", "terminal_gae", 0.0)


@pytest.mark.parametrize(
    ("args", "code", "exit_code"),
    [
        (["nope"], "RUN_NOT_FOUND", 6),
        (["--store", "sqlite:///no.db"], "RUN_NOT_FOUND", 6),
        (["--mode", "brodcast"], "UNKNOWN_CREDIT_MODE", 2),
        (["--gamma", "2"], "CREDIT_OPTION", 2),
        (["--alpha", "-1"], "REWARD_SPEC", 2),
        (["--cost-form", "pape"], "REWARD_SPEC", 2),
        (["--penalty", "DS"], "REWARD_SPEC", 2),
        (["--outcome", "f2"], "UNKNOWN_REWARD", 2),
        (["--dataset", "nowhere.jsonl"], "DATASET_NOT_FOUND", 3),
    ],
)
def test_what_cannot_be_explained(jade, recorded, args, code, exit_code):
    done = jade("explain-credit", *args, "--json")
    assert (done.code, done.json["error"]["code"]) == (exit_code, code)
    assert not Path("no.db").exists()


def test_looking_makes_no_store(jade):
    assert jade("explain-credit", "--json").json["error"]["code"] == "RUN_NOT_FOUND"
    assert not Path(".jade").exists()


def test_explaining_writes_nothing(jade, recorded):
    before = jade("runs", "show", "newest", "--json").json
    jade("explain-credit", "--gold", "Ann")
    assert jade("runs", "show", "newest", "--json").json == before
