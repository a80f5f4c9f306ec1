"""Judging recorded runs: kept, gone on with, written as labels, a reward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jade_graph import plugins
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import BackboneError, DataError, PluginError, UsageError
from jade_graph.judging import labels
from jade_graph.judging.agreement import agreement
from jade_graph.judging.backbone import BackboneJudge
from jade_graph.judging.cascade import Cascade, FunctionJudge, counted, name_of
from jade_graph.judging.cases import cases_of
from jade_graph.judging.making import judge_cases
from jade_graph.judging.reward import usefulness
from jade_graph.langchain.runnable import JadeGraph
from jade_graph.runs.export import export_store, read_export
from jade_graph.runs.judgements import KEY
from jade_graph.runs.store import RunStore
from jade_graph.scoring.rewards import RewardSpec, score_run
from jade_graph.types import Question

TRUTH = {"p0": 4, "p1": 2, "p2": 0}


@pytest.fixture
async def recorded(tmp_path: Path, scripted, passages):
    backbone = scripted(PL="<workflow>R,DS,AG</workflow>", DS="<id>Document0,Document1</id>")
    with RunStore(tmp_path / "runs.db") as store:
        graph = JadeGraph(backbone, retriever=passages, recorder=store, k=3)
        for i in range(4):
            await graph.arun(f"who wrote book {i}?")
        yield store


def cases(store):
    return [case for run in store.iter_runs() for case in cases_of(run)]


def truthful(ballot):
    return [c.passage.id for c in ballot.candidates if TRUTH[c.passage.id] >= ballot.level]


async def test_labels_are_kept_and_read_back_with_their_run(recorded, tmp_path):
    found = await judge_cases(cases(recorded), FunctionJudge(truthful, "true"), engine=recorded.engine, seed=3)
    assert [{row.id: row.level for row in each.labels} for each in found] == [TRUTH] * 4
    run = next(iter(recorded.iter_runs()))
    told = run.metadata[KEY]
    assert told["about"] == {"method": "cascade", "judge": "true", "form": "function", "levels": 5, "voters": 5,
                             "quorum": 3, "seed": 3}  # fmt: skip
    assert told["judge"] == name_of(told["about"])
    assert told["searches"][0]["labels"][1] == {"id": "p1", "label": 0.5, "level": 2, "votes": [0, 0, 5]}
    export_store(recorded, tmp_path / "export")
    assert read_export(tmp_path / "export").runs[0].metadata[KEY] == told
    assert recorded.get(run.id).metadata[KEY] == told


async def test_what_was_judged_is_not_judged_again(recorded):
    asked = []

    def dies(ballot):
        asked.append(ballot.case.run_id)
        if len(set(asked)) > 2:
            raise RuntimeError("killed")
        return truthful(ballot)

    every = cases(recorded)
    with pytest.raises(PluginError):
        await judge_cases(every, FunctionJudge(dies, "true"), engine=recorded.engine, at_once=1)
    left: list[str] = []
    told: list[tuple[int, int]] = []

    def goes_on(ballot):
        left.append(ballot.case.run_id)
        return truthful(ballot)

    judge = FunctionJudge(goes_on, "true")
    found = await judge_cases(every, judge, engine=recorded.engine, progress=lambda *p: told.append(p))
    assert set(left) == {case.run_id for case in every[2:]}
    assert told == [(2, 4), (3, 4), (4, 4)]
    assert [each.key for each in found] == [case.key for case in every]
    assert {tuple(row.level for row in each.labels) for each in found} == {(4, 2, 0)}
    await judge_cases(every, judge, engine=recorded.engine, seed=1)  # another seed is another judge
    assert set(left) == {case.run_id for case in every}


async def test_an_error_of_the_judge_comes_as_it_is(recorded):
    def policy(ask):
        raise ValueError("no")

    with pytest.raises(BackboneError) as caught:
        await judge_cases(cases(recorded), BackboneJudge(ScriptedBackbone(policy, profile="chat")))
    assert caught.value.error_code == "BACKBONE_POLICY"


async def test_a_backbone_votes_in_one_batch_within_the_bound(recorded):
    batches, prompts = [], []

    class Counting(BackboneJudge):
        async def vote(self, ballots):
            batches.append(len(ballots))
            return await super().vote(ballots)

    def policy(ask):
        m = ask.view.memory
        prompts.append((ask.role, m["level"], m["voter"]))
        chosen = [i for i, d in enumerate(m["documents"], 1) if TRUTH[d.id] >= m["level"]]
        return "Because. Chosen: " + ("".join(f"[{i}]" for i in chosen) or "none")

    judge = Counting(ScriptedBackbone(policy, profile="chat", version="sage"))
    every = cases(recorded)[:1]
    [found] = await judge_cases(every, judge)
    assert [row.level for row in found.labels] == [4, 2, 0]
    assert batches == [5, 5, 5, 5]
    assert set(prompts) == {("JUDGE", level, voter) for level in (1, 2, 3, 4) for voter in range(5)}
    assert 0 < found.tokens <= judge.bound(every, Cascade())
    assert found.about["judge"] == "sage"
    assert found.about["temperature"] == 0.7


async def test_a_model_that_knows_only_roles_acts_as_the_selector(recorded):
    def policy(ask):
        assert ask.role == "DS"
        ids = [d.id for d in ask.view.memory["documents"]]
        return f"<id>Document{ids.index('p0')}</id>" if "p0" in ids else "<id></id>" if len(ids) == 2 else "?"

    [found, *_] = await judge_cases(cases(recorded), BackboneJudge(ScriptedBackbone(policy)))
    assert [row.level for row in found.labels] == [4, 0, 0]
    assert found.about["form"] == "selector"
    silent = BackboneJudge(ScriptedBackbone(lambda ask: "?"))
    [found, *_] = await judge_cases(cases(recorded), silent)
    assert [row.level for row in found.labels] == [None] * 3
    assert (found.calls, found.unreadable) == (5, 5)
    assert counted([found])["labelled"] == 0
    assert list(labels.training_rows(cases(recorded)[:1], [found])) == []


async def test_training_labels_are_what_an_encoder_reads(recorded, tmp_path):
    every = cases(recorded)
    found = await judge_cases(every, FunctionJudge(truthful, "true"))
    assert labels.write(tmp_path / "deep" / "labels.jsonl", labels.training_rows(every, found)) == 4
    lines = [json.loads(line) for line in (tmp_path / "deep" / "labels.jsonl").read_text().splitlines()]
    assert {tuple(sorted(line)) for line in lines} == {("documents", "query", "source")}
    by_query = {line["query"]: line for line in lines}
    first = by_query["who wrote book 0?"]
    assert [(d["id"], d["label"], d["level"], d["votes"]) for d in first["documents"]] == [
        ("p0", 1.0, 4, [5]), ("p1", 0.5, 2, [0, 0, 5]), ("p2", 0.0, 0, [0, 0, 0, 0]),
    ]  # fmt: skip
    assert first["documents"][0]["text"] == "passage 0 about who wrote book 0?"
    assert first["source"]["judge"] == "true"
    assert first["source"]["corpus_id"] == "numbered"
    read = labels.read(tmp_path / "deep" / "labels.jsonl")
    assert read["who wrote book 0?", "p1"] == 0.5


@pytest.mark.parametrize(
    "line",
    ["no json", "[]", '{"query": "q", "id": "a"}', '{"query": "q", "id": "a", "label": 3}',
     '{"query": "q", "documents": [{"id": "a", "label": NaN}]}', '{"query": "q", "id": "a", "label": true}', ""],
)  # fmt: skip
def test_labels_that_are_none_are_named_with_their_line(tmp_path, line):
    file = tmp_path / "people.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError) as caught:
        labels.read(file)
    assert caught.value.error_code == "JUDGE_LABELS"
    assert "people.jsonl" in str(caught.value)


def test_several_peoples_labels_are_averaged(tmp_path):
    file = tmp_path / "people.jsonl"
    file.write_text('{"query": "q", "id": "a", "label": 1}\n{"query": "q", "documents": [{"id": "a", "label": 0.5}]}\n')
    assert labels.read(file) == {("q", "a"): 0.75}


async def test_the_reward_is_of_what_the_run_picked_and_never_a_silent_zero(recorded, declared):
    assert plugins.load("jade.rewards", "usefulness") is usefulness
    spec = RewardSpec(outcome="usefulness")

    def scored():
        run = next(iter(recorded.iter_runs()))
        found = score_run(run, Question("", run.question), spec).outcome
        return None if found is None else found["usefulness"]

    assert scored() is None  # not judged
    await judge_cases(cases(recorded), FunctionJudge(lambda b: None, "silent"), engine=recorded.engine)
    assert scored() is None  # judged, without a label
    await judge_cases(cases(recorded), FunctionJudge(truthful, "true"), engine=recorded.engine)
    assert scored() == pytest.approx((1.0 + 0.5) / 2)  # of p0 and p1, which were selected
    await judge_cases(cases(recorded), FunctionJudge(lambda b: [], "hard"), engine=recorded.engine)
    assert scored() == 0.0  # a label of 0 is one


async def test_a_run_that_picked_nothing_is_unscored(tmp_path, scripted, passages):
    with RunStore(tmp_path / "runs.db") as store:
        backbone = scripted(PL="<workflow>R,DS,AG</workflow>", DS="<id></id>")
        await JadeGraph(backbone, retriever=passages, recorder=store, k=3).arun("who?")
        await judge_cases(cases(store), FunctionJudge(truthful), engine=store.engine)
        assert usefulness(next(iter(store.iter_runs())), Question("", "")) is None


def test_agreement_by_hand():
    truth, said = [0.0, 0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.25, 0.5, 1.0, 1.0]
    found = agreement(truth, said, groups=["a", "a", "b", "b", "c", "c"], resamples=50)
    # levels 0 0 1 2 3 4 against 0 1 1 2 4 4: disagreement 2 of an expected sum of squares over all pairs / 6
    a, b = [0, 0, 1, 2, 3, 4], [0, 1, 1, 2, 4, 4]
    expected = sum((x - y) ** 2 for x in a for y in b) / 36
    assert found["weighted_kappa"] == pytest.approx(1 - (2 / 6) / expected)
    assert found["spearman"] == pytest.approx(0.9404032585917881)  # scipy's
    assert found["exact"] == pytest.approx(4 / 6)
    assert found["bias"] == pytest.approx(2 / 6)
    assert found["calibration"][1] == {"level": 1, "n": 2, "mean_truth": 0.5}
    assert found["spearman_ci95"][0] <= found["spearman"] <= found["spearman_ci95"][1]


def test_agreement_of_nothing_is_none_and_not_zero():
    for truth, said in (([], []), ([0.5, 0.5], [0.5, 0.5])):
        found = agreement(truth, said, resamples=10)
        assert (found["weighted_kappa"], found["spearman"]) == (None, None)
    with pytest.raises(UsageError) as caught:
        agreement([1.0], [])
    assert caught.value.error_code == "JUDGE_PAIRS"
