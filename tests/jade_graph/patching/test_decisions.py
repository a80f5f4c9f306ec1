"""Recorded actions become pairs: the prompt's spans, the swap, equal lengths, and what cannot be looked into."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from jade_graph.backbones.codec import Codec
from jade_graph.backbones.folders import BUNDLED
from jade_graph.cli.look_showing import shown
from jade_graph.data import Dataset
from jade_graph.errors import DataError, UsageError
from jade_graph.patching import Site, look
from jade_graph.patching.decisions import Asked, decisions
from jade_graph.patching.judging import Contrast, contrasts, judgements
from jade_graph.patching.looking import Look, Measured, combine
from jade_graph.patching.spans import spans_of
from jade_graph.patching.takeover import takeover
from jade_graph.patching.telling import of_decision, require_cost, rows_of, text_of
from jade_graph.picture.heatmap import svg
from jade_graph.retrieval.memory import MemoryRetriever
from jade_graph.testing.models import make_random_model
from jade_graph.types import Passage, Question, Run, Transition, View
from jade_nodes.planner import PLANNER
from jade_nodes.search_r1 import ROLE as SEARCHER
from jade_nodes.select import SELECTOR

NAMES = ("Dora Hopkins", "Ingrid Hopkins", "Selma Hopkins")
DOCUMENTS = (
    Passage("0", "Dora Hopkins was born in the year 1949. The employer of Dora Hopkins is Apex Corporation.", NAMES[0]),
    Passage("1", "Ingrid Hopkins works as a potter.", NAMES[1]),
    Passage("2", "Selma Hopkins was born in South Winford. The employer of Selma Hopkins is Argo Associates. The birth "
                 "year of Selma Hopkins is 1922.", NAMES[2]),
)  # fmt: skip
QUESTION = "Which company employs Dora Hopkins?"


@pytest.fixture(scope="module")
def tiny() -> Codec:
    return Codec.from_folder(BUNDLED["tiny"])


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Codec:
    return Codec.from_folder(make_random_model(tmp_path_factory.mktemp("m") / "chat", chat=True))


def recorded(codec: Codec, role, text: str, parsed, **memory) -> tuple[Run, Transition]:
    view = View(QUESTION, QUESTION, "root", memory={"documents": DOCUMENTS, **memory})
    messages = role.render(view, codec.profile)
    ids = tuple(codec.encode(messages))
    action = (*codec.encode_text(text), codec.eos_token_id)
    t = Transition(
        "r", "q", 0, 1, 1, 1, 0, role.code, "0", role.code, True, "R,DS,AG", messages, ids, text, action,
        tuple(-0.5 for _ in action), {}, "stop", False, parsed, True, None, False, {}, {}, 1.0, "v", "g", "c",
    )  # fmt: skip
    found = replace(
        t, seq=0, role="R", node="R", action_token_ids=(), old_logprobs=(), finish_reason="tool",
        parsed={"queries": [QUESTION], "documents": [
            {"id": d.id, "title": d.title, "text": d.text, "score": 1.0} for d in DOCUMENTS]},
    )  # fmt: skip
    return Run("r", QUESTION, "q", "jade", 0, transitions=(found, t)), t


@pytest.mark.parametrize("which", ["tiny", "chat"])
def test_every_token_of_a_prompt_is_told_apart(which, request):
    codec = request.getfixturevalue(which)
    _, t = recorded(codec, SELECTOR, "<id>Document0</id>", [0])
    spans = spans_of(codec, t.prompt_messages, t.prompt_token_ids, [QUESTION])
    assert len(spans.documents) == 3
    for i, d in enumerate(DOCUMENTS):
        said = codec.decode([spans.ids[p] for p in spans.documents[i]])
        assert said.split()[:2] == d.text.split()[:2]
        assert said.replace(" ", "").endswith(d.text.replace(" ", "")[-12:])
    assert "".join(codec.decode([spans.ids[p] for p in spans.question]).split()) == "".join(QUESTION.split())
    parts = [p for d in spans.documents for p in d] + [*spans.question, *spans.instruction, *spans.markers]
    assert set(spans.instruction) & {p for d in spans.documents for p in d} == set()
    assert max(parts) < len(spans.ids)
    with pytest.raises(UsageError) as caught:
        spans_of(codec, t.prompt_messages, t.prompt_token_ids[1:], [QUESTION])
    assert caught.value.error_code == "LOOK_PROMPT"


@pytest.mark.parametrize("which", ["tiny", "chat"])
def test_a_kept_document_is_swapped_for_a_dropped_one_of_its_length(which, request):
    codec = request.getfixturevalue(which)
    run, t = recorded(codec, SELECTOR, "<id>Document0</id>", [0])
    (made,) = decisions(codec, run, t)
    pair = made.pair
    assert made.chosen.name == "Document 0 kept"
    assert made.recorded
    assert pair.clean[: len(t.prompt_token_ids)] == t.prompt_token_ids
    assert len(pair.clean) == len(pair.corrupt)
    differs = [i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if a != b]
    assert set(differs) <= set(pair.groups["swapped"])
    assert "Selma" in codec.decode([pair.corrupt[i] for i in pair.groups["swapped"]])
    assert sorted(p for positions in pair.groups.values() for p in positions) == list(range(len(pair.clean)))
    # The two continuations are the whole actions, the recorded one token for token.
    begun = pair.clean[len(t.prompt_token_ids) :]
    assert (*begun, *pair.choice) == t.action_token_ids
    assert codec.decode((*begun, *pair.other)).replace(" ", "") == "<id></id>"


def test_where_the_other_text_is_shorter_both_prompts_are_cut_and_it_is_said(tiny):
    run, t = recorded(tiny, SELECTOR, "<id>Document0</id>", [0])
    (made,) = decisions(tiny, run, t, Asked(instead=1))
    assert len(made.pair.clean) == len(made.pair.corrupt) < len(t.prompt_token_ids) + 4
    assert not made.recorded
    assert any("in both prompts" in note for note in made.pair.notes)
    (dropped,) = decisions(tiny, run, t, Asked(document=1))
    assert dropped.chosen.name == "Document 1 dropped"
    assert dropped.chosen.other == "<id>Document0,Document1</id>"


def test_a_name_is_swapped_for_another_that_the_run_knows(tiny):
    run, t = recorded(tiny, SEARCHER, "<search>Dora Hopkins</search>", {"search": "Dora Hopkins"})
    (made,) = decisions(tiny, run, t)
    assert (made.chosen.choice, made.chosen.other) == ("<search>", "<answer>")
    assert made.old == "Dora Hopkins"
    assert made.new in NAMES[1:]
    assert tiny.decode(made.pair.corrupt).count(made.new) == 1
    thought = "<think>I know it</think><answer>x</answer>"
    alternative = SEARCHER.alternatives(thought, {"answer": "x"}, 0)[0]
    begun = "<think>I know it</think>"
    assert (alternative.choice, alternative.other) == (f"{begun}<answer>", f"{begun}<search>")


def test_a_plan_is_compared_with_every_other_or_the_one_that_is_named(tiny):
    run, t = recorded(tiny, PLANNER, "<workflow>R,AG</workflow>", "R,AG")
    found = decisions(tiny, run, t)
    assert len(found) == 7
    (one,) = decisions(tiny, run, t, Asked(against="QDS", swap=("Dora Hopkins", "Selma Hopkins")))
    assert one.chosen.other == "<workflow>QDS</workflow>"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Asked(document=7), "LOOK_DOCUMENT"),
        (Asked(instead=9), "LOOK_DOCUMENT"),
        (Asked(swap=("nowhere", "x")), "LOOK_SWAP"),
        (Asked(swap=("Dora", " ")), "LOOK_SWAP"),
        (Asked(swap=("Dora", "Dora")), "LOOK_SAME"),
        (Asked(against="QDS"), "LOOK_AGAINST"),
    ],
)
def test_what_cannot_be_swapped_is_named(tiny, asked, code):
    run, t = recorded(tiny, SELECTOR, "<id>Document0</id>", [0])
    with pytest.raises(UsageError) as caught:
        decisions(tiny, run, t, asked)
    assert caught.value.error_code == code


def test_an_action_without_a_fixed_choice_names_the_roles_that_have_one(tiny):
    run, t = recorded(tiny, SELECTOR, "<id>Document0</id>", [0])
    for other in (replace(t, role="AG"), run.transitions[0], replace(t, parsed=None)):
        with pytest.raises(UsageError) as caught:
            decisions(tiny, run, other)
        assert caught.value.error_code == "LOOK_ROLE"
        assert {"DS", "PL", "KS", "KU", "SR"} <= set(caught.value.known)


def test_a_look_is_told_with_its_text_and_drawn(tmp_path):
    from jade_graph.backbones.hf import HFBackbone

    with_model = HFBackbone.load(BUNDLED["tiny"], device="cpu")
    codec = with_model.codec
    run, t = recorded(codec, SELECTOR, "<id>Document0</id>", [0])
    (made,) = decisions(codec, run, t)
    found = look(with_model.model, [made.pair], sites=("resid", "head"), every=2)
    value = of_decision(codec, made, found, "other")
    assert "this looks into other" in value["notes"][-1]
    assert json.loads(json.dumps(value))["sites"]
    columns, rows = rows_of(value, "resid")
    assert [name for name, _ in rows] == ["emb", "1", "3"]
    assert rows[0][1][columns.index("swapped")] == pytest.approx(1.0, abs=1e-3)
    assert rows[-1][1][columns.index("last")] == pytest.approx(1.0, abs=1e-3)
    assert "".join(text for _, text in text_of(codec, made.pair)).replace(" ", "").startswith("Document0:DoraHopkins")
    console = Console(width=80, record=True, file=io.StringIO())
    for line in shown(value):
        console.print(line, markup=False, highlight=False)
    told = console.export_text()
    assert "residual stream" in told
    assert "[swapped] Dora Hopkins" in told
    assert max(map(len, told.splitlines())) <= 80
    drawn = svg({**value, "decision": "<b>&"})
    assert "<b>" not in drawn
    assert drawn.count("<title>") == len(found.cells)
    with pytest.raises(UsageError) as caught:
        require_cost(500, 400)
    assert caught.value.error_code == "LOOK_COST"


def looked(heads: dict[tuple[int, int], float], layers: int = 2, each: int = 2) -> Look:
    patched = {Site("head", a, str(b)): heads.get((a, b), 0.0) for a in range(layers) for b in range(each)}
    return combine([Measured(1.0, 0.0, 0.0, 1.0, patched, {"last": 0.9}, True)])


def test_two_versions_name_the_heads_that_took_over():
    told = takeover(looked({(0, 1): 0.9, (1, 0): 0.1}), looked({(1, 1): 1.4, (1, 0): 0.1}), top=2)
    assert (told["top_a"], told["top_b"]) == (["L0H1", "L1H0"], ["L1H1", "L1H0"])
    assert (told["shared"], told["overlap"]) == (["L1H0"], 0.5)
    assert told["took_over"] == [{"head": "L1H1", "a": 0.0, "b": 1.4, "difference": 1.4}]
    assert [h["head"] for h in told["lost"]] == ["L0H1"]
    with pytest.raises(UsageError) as caught:
        takeover(looked({(0, 0): 1.0}), looked({(0, 0): 1.0}, layers=3))
    assert caught.value.error_code == "LOOK_VERSIONS"


def test_measured_pairs_survive_being_written_down():
    one = Measured(1.0, 0.5, 0.5, 1.0, {Site("resid", -1, "last"): 0.7}, {"last": 0.9}, True)
    assert Measured.of(json.loads(json.dumps(one.as_dict()))) == one


@pytest.mark.parametrize("form", ["pointwise", "pairwise"])
@pytest.mark.parametrize("which", ["tiny", "chat"])
def test_judgements_have_equal_lengths_and_differ_in_the_documents_alone(which, form, request):
    codec = request.getfixturevalue(which)
    question = Question("q", QUESTION, ("Apex Corporation",), supporting=("0",))
    (pair,) = judgements(codec, [Contrast(question, DOCUMENTS[0], DOCUMENTS[2])], form, tokens=8)
    assert pair.notes == ("documents of 8 tokens",)
    differs = {i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if a != b}
    documents = {p for group, at in pair.groups.items() if group.startswith("document") for p in at}
    assert differs <= documents
    assert {"query", "instruction", "last"} <= set(pair.groups)
    asked = codec.decode([pair.clean[p] for p in pair.groups["query"]])
    assert "".join(QUESTION.split()) in "".join(asked.split())
    if codec.conversations is None and form == "pairwise":  # as the selector is asked, but for where documents are cut
        view = View(QUESTION, QUESTION, "root", memory={"documents": (DOCUMENTS[0], DOCUMENTS[2])})
        asked = codec.encode(SELECTOR.render(view, codec.profile))
        frame = sorted((*pair.groups["instruction"], *pair.groups["query"]))
        assert [pair.clean[p] for p in frame] == asked[-len(frame) :]


def test_contrasts_take_what_supports_and_what_only_is_found():
    questions = [Question("q", QUESTION, ("Apex",), supporting=("0",)), Question("r", "Who works?", ("x",))]
    data = Dataset("d", questions, DOCUMENTS)
    (found,) = contrasts(data, MemoryRetriever(DOCUMENTS), count=5)
    assert (found.positive.id, found.negative.id in "12") == ("0", True)
    with pytest.raises(DataError) as caught:
        contrasts(Dataset("d", questions[1:], DOCUMENTS), MemoryRetriever(DOCUMENTS), count=5)
    assert caught.value.error_code == "LOOK_DATA"


def test_the_command_looks_into_a_recorded_run_and_says_the_cost_before(tmp_path, monkeypatch):
    from jade_graph import JadeGraph, RunStore, load_backbone
    from jade_graph.cli import app as root

    monkeypatch.chdir(tmp_path)
    with RunStore(tmp_path / ".jade" / "runs.db") as store:
        graph = JadeGraph(load_backbone("tiny"), preset="jade", retriever=MemoryRetriever(DOCUMENTS), recorder=store)
        graph.run(QUESTION, plan="R,DS,AG")
    done = CliRunner().invoke(
        root.app, ["look", "last", "--node", "DS", "--backbone", "tiny", "--swap", "Dora Hopkins=Selma Hopkins",
                   "--sites", "resid,head", "--every", "2", "--json", "--out", "map.svg"]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert value["own"] == pytest.approx(0, abs=1e-3)
    assert value["whole"] == pytest.approx(1, abs=1e-3)
    assert value["cost"]["batches"] == 3
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    assert "batches of at most" in done.stderr
    refused = CliRunner().invoke(root.app, ["look", "last", "--backbone", "tiny", "--most", "10"])
    assert getattr(refused.exception, "error_code", "") == "LOOK_COST"
