"""Forks: the record is replayed token for token, the rest is live."""

import json
from dataclasses import replace

import pytest

from jade_graph import JadeGraph, RunStore
from jade_graph.backbones.scripted import ScriptedBackbone
from jade_graph.errors import UsageError
from jade_graph.workflow.replay import action_at, first_difference


class Counting(ScriptedBackbone):
    """Counts what it is asked; what was forced on it is no drawing of its own."""

    def __init__(self, policy, **options):
        super().__init__(policy, **options)
        self.asked = []

    async def generate(self, ids, sampling, *, hint=None):
        self.asked.append((hint.role, sampling.forced is not None))
        return await super().generate(ids, sampling, hint=hint)


def policy(ask):
    root = ask.view.level == "root"
    return {
        "PL": "<workflow>QDP</workflow>" if root else "<workflow>QR,R,DS,AG</workflow>",
        "QDP": "<q1>left?</q1><q2>right?</q2>",
        "QDS": "<q1>first?</q1><q2>then #1?</q2>",
        "QR": f"<query>about {ask.view.question}</query>",
        "DS": "<id>Document0,Document1</id>",
        "AG": f"<answer>{len(ask.view.evidence)} read for {ask.view.query}</answer>",
        "AS": "<answer>" + " and ".join(a for _, a in ask.view.children) + "</answer>",
    }[ask.role]


@pytest.fixture
def graph(passages):
    return JadeGraph(Counting(policy), retriever=passages)


@pytest.fixture
def parent(graph):
    run = graph.run("Which of both?", seed=7, metadata={"answers": ["x"], "rollout": "r", "replica": 1, "type": "t"})
    graph.backbone.asked.clear()
    graph.retriever.queries.clear()
    return run


def test_what_came_before_is_replayed_exactly_and_asks_nobody(graph, parent):
    at = action_at(parent, "0.2:AG")
    new = graph.fork(parent, at=at.seq, answer="Bo")
    before = [t for t in parent.transitions if t.seq < at.seq]
    for old, now in zip(before, new.transitions, strict=False):
        assert (old.role, old.trace_node, old.action_text) == (now.role, now.trace_node, now.action_text)
        assert (old.prompt_token_ids, old.action_token_ids) == (now.prompt_token_ids, now.action_token_ids)
        assert (old.old_logprobs, old.prompt_messages) == (now.old_logprobs, now.prompt_messages)
        assert now.sampling["replayed"] == old.seq
        assert not now.agent_trainable
    assert graph.backbone.asked == [("AG", True), ("AS", False)], "the edit is scored, what follows is drawn"
    assert graph.retriever.queries == []
    edited = new.transitions[at.seq]
    assert (edited.action_text, edited.sampling["edited"], edited.agent_trainable) == (
        "<answer>Bo</answer>",
        True,
        False,
    )
    assert new.answer.endswith(" and Bo")
    assert new.transitions[-1].agent_trainable
    assert new.counters == parent.counters or new.counters.calls == parent.counters.calls


def test_the_new_run_names_its_parent_and_the_edit(graph, parent):
    new = graph.fork(parent, at="0:PL", plan="R,AG", seed=3, run_id="mine")
    assert (new.id, new.seed, new.plan, new.question_id) == ("mine", 3, "R,AG", parent.question_id)
    assert new.metadata["parent"] == parent.id
    assert new.metadata["fork"] == {
        "at": 0, "role": "PL", "trace_node": "0", "edit": {"text": "<workflow>R,AG</workflow>"},
    }  # fmt: skip
    assert new.metadata["answers"] == ["x"]
    assert "rollout" not in new.metadata, "no fork belongs to a rollout"
    json.dumps(new.metadata)


@pytest.mark.parametrize(
    ("at", "edit", "role", "text"),
    [
        ("0:PL", {"plan": "QDS"}, "PL", "<workflow>QDS</workflow>"),
        ("0:QDP", {"questions": ["one?", " two? "]}, "QDP", "<q1>one?</q1><q2>two?</q2>"),
        ("0.1:QR", {"query": "other\nwords"}, "QR", "<query>other words</query>"),
        ("0.1:DS", {"documents": [2]}, "DS", "<id>Document2</id>"),
        ("0:AS", {"answer": "both"}, "AS", "<answer>both</answer>"),
    ],
)
def test_every_role_can_be_edited(graph, parent, at, edit, role, text):
    new = graph.fork(parent, at=at, **edit)
    changed = next(t for t in new.transitions if t.sampling.get("edited"))
    assert (changed.role, changed.action_text, changed.violation, new.status) == (role, text, None, "answered")


def test_an_edited_query_is_searched_live_and_edited_documents_are_read(graph, parent):
    graph.fork(parent, at="0.1:QR", query="other words")
    assert graph.retriever.queries[0] == "other words"
    graph.retriever.queries.clear()
    new = graph.fork(parent, at="0.1:R", documents=[4, 1])
    found = next(t for t in new.transitions if t.role == "R" and t.trace_node == "0.1")
    assert [d["id"] for d in found.parsed["documents"]] == ["p1", "p4"]
    assert found.sampling == {"edited": True}
    read = next(t for t in new.transitions if t.role == "AG" and t.trace_node == "0.1")
    assert "2 read" in read.action_text


def test_without_an_edit_the_model_is_asked_anew(graph, parent):
    new = graph.fork(parent, at="0:AS", seed=99)
    assert graph.backbone.asked == [("AS", False)]
    assert new.transitions[-1].agent_trainable
    assert new.metadata["fork"]["edit"] is None
    assert new.answer == parent.answer


def test_a_raw_text_may_be_illegal_and_an_edit_may_not(graph, parent):
    new = graph.fork(parent, at="0.1:DS", text="all of them")
    assert next(t for t in new.transitions if t.sampling.get("edited")).violation == "NO_TAG"
    bad = graph.fork(parent, at="0.1:DS", documents=[77])
    assert (bad.status, bad.error) == ("failed", "FORK_EDIT")


def test_a_fork_of_a_stored_rollout_and_of_a_fork(graph, parent, tmp_path):
    with RunStore(tmp_path / "runs.db") as store:
        recorder = JadeGraph(Counting(policy), retriever=graph.retriever, recorder=store)
        first = recorder.run("Which of both?", metadata={"rollout": "r", "replica": 0})
        back = store.get(first.id)
        second = recorder.fork(back, at="0.2:AG", answer="Bo")
        third = recorder.fork(store.get(second.id), at="0:AS", answer="neither")
        assert store.get(third.id).metadata["parent"] == second.id
        assert [t.action_text for t in third.transitions[:-1]] == [t.action_text for t in second.transitions[:-1]]
        assert third.answer == "neither"


def test_a_given_plan_is_given_again(graph):
    run = graph.run("Who?", plan="R,AG")
    assert [t.role for t in run.transitions] == ["R", "AG"]
    new = graph.fork(run, at="0:AG", answer="me")
    assert [t.role for t in new.transitions] == ["R", "AG"]
    assert new.answer == "me"


def test_another_model_goes_on_from_the_record(graph, parent, passages):
    other = JadeGraph(
        Counting(lambda ask: "<answer>other</answer>", version="other-model", profile="chat"), retriever=passages
    )
    new = other.fork(parent, at="0:AS")
    versions = {t.backbone_version for t in new.transitions if t.role != "R"}
    assert versions == {"scripted", "other-model"}
    assert new.answer == "other"
    assert new.backbone_version == "other-model"


def test_a_record_that_does_not_fit_ends_the_run(graph, parent):
    rows = list(parent.transitions)
    rows[0] = replace(rows[0], parsed="R,AG")
    new = graph.fork(replace(parent, transitions=tuple(rows)), at="0:AS")
    assert (new.status, new.error) == ("failed", "REPLAY_DIVERGED")
    rows = [replace(t, role="XX") if t.seq == 1 else t for t in parent.transitions]
    new = graph.fork(replace(parent, transitions=tuple(rows)), at="0:AS")
    assert (new.status, new.error) == ("failed", "REPLAY_DIVERGED")
    assert "asks QDP" in new.error_message


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"at": 99}, "FORK_AT"),
        ({"at": "0.7:AG"}, "FORK_AT"),
        ({"at": 0, "plan": "R,AG", "answer": "x"}, "FORK_EDIT"),
        ({"at": "0.1:QR", "query": "  "}, "FORK_EDIT"),
        ({"at": "0.1:R", "documents": [9]}, "FORK_EDIT"),
        ({"at": "0.1:R", "answer": "x"}, "FORK_EDIT"),
        ({"at": 0, "plan": "AG,R"}, "PLAN_ILLEGAL"),
    ],
)
def test_what_cannot_be_forked_is_refused(graph, parent, options, code):
    with pytest.raises(UsageError) as error:
        graph.fork(parent, **options)
    assert error.value.error_code == code


def test_a_run_of_another_method_is_refused(graph, parent):
    with pytest.raises(UsageError) as error:
        graph.fork(replace(parent, preset="own"), at=0)
    assert error.value.error_code == "FORK_PRESET"


def test_the_first_difference_is_found_by_place_not_by_number(graph, parent):
    assert first_difference(parent, parent) == (None, None)
    new = graph.fork(parent, at="0.2:DS", documents=[0])
    a, b = first_difference(parent, new)
    assert (a.role, a.trace_node, b.action_text) == ("DS", "0.2", "<id>Document0</id>")
    short = replace(parent, transitions=parent.transitions[:-1])
    a, b = first_difference(parent, short)
    assert (a.role, b) == ("AS", None)
    a, b = first_difference(short, parent)
    assert (a, b.role) == (None, "AS")
