"""Training: resuming changes nothing, rows stand alone behind their prefix, and the result loads anywhere."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from jade_graph.errors import UsageError
from jade_training.pretrain.batches import Curriculum, Row, encode, marker_rows, recall_rows
from jade_training.pretrain.loss import Guide, action_logits, backward, chunks, exact
from jade_training.pretrain.model import CONSTANT, MATCH, TURNING, build_model
from jade_training.pretrain.tokenizer import build_tokenizer
from jade_training.pretrain.train import Settings, pretrain, stages
from jade_training.supervised.demonstrations import LATER_SHORT_ROLES, Demonstrator

SHAPE = {"width": 32, "layers": 2, "heads": 2, "head_size": 16}
TINY = Settings(steps=20, warmup=5, markers=4, **SHAPE, long=2, asks=3, short=4, short_steps=2, hasty_steps=3)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(tokenizer, width=32, layers=2, heads=2, head_size=16)


@pytest.fixture(scope="module")
def rows(tokenizer):
    return Curriculum(tokenizer, 1, 100, warmup=0, markers=0, long=2, asks=3, short=3).rows_of(90)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    seen = []
    result = pretrain(out, TINY, progress=seen.append)
    return out, result, seen


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "checkpoint" / "state.safetensors")


def test_a_resumed_training_ends_with_the_same_bits(whole, tmp_path):
    stopped = pretrain(tmp_path, TINY, checkpoint_every=5, stop_after=11)
    assert not stopped["finished"]
    assert not (tmp_path / "config.json").exists()
    resumed = pretrain(tmp_path, TINY)
    assert resumed["finished"]
    one, two = weights(whole[0]), weights(tmp_path)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (whole[0] / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_the_short_roles_stage_shows_mostly_them_in_their_own_shares(tokenizer):
    stage = stages(tokenizer, replace(TINY, hasty_steps=0))[0]
    shown = Demonstrator(3)
    roles = Counter(shown.short(shares=stage.curriculum.shares).role for _ in range(400))
    assert set(roles) == set(LATER_SHORT_ROLES)
    assert roles["QDP"] / 400 == pytest.approx(LATER_SHORT_ROLES["QDP"], abs=0.08)
    rows = stage.curriculum.rows_of(stage.first)
    assert sum(not row.prefix for row in rows) == 96
    assert len(rows) > 96  # readers are not forgotten


@pytest.mark.parametrize("stage", ["short_steps", "hasty_steps"])
def test_a_stage_changes_the_weights_and_nothing_else(whole, tmp_path, stage):
    careful = pretrain(tmp_path, replace(TINY, **{stage: 0}))
    one, two = (json.loads((f / "config.json").read_text("utf-8")) for f in (whole[0], tmp_path))
    assert one == two
    files = [sorted(p.name for p in f.iterdir() if p.is_file()) for f in (whole[0], tmp_path)]
    assert files[0] == files[1]
    changed = ("model.safetensors", "jade.json")  # jade.json: the name
    assert all((whole[0] / n).read_bytes() == (tmp_path / n).read_bytes() for n in files[0] if n not in changed)
    assert (whole[0] / "model.safetensors").read_bytes() != (tmp_path / "model.safetensors").read_bytes()
    assert careful["tokens"] < whole[1]["tokens"]


def test_progress_tells_every_step_and_the_phase(whole):
    _, result, seen = whole
    assert [p.step for p in seen] == [*range(1, 21), 1, 2, 1, 2, 3]
    assert [seen[i].phase for i in (0, 4, 5, 8, 9)] == ["recall", "recall", "markers", "markers", "roles, 1 documents"]
    assert seen[19].phase == "roles, 5 documents"
    assert [seen[i].phase for i in (21, 24)] == ["short roles", "hasty reading"]
    assert result["tokens"] == sum(seen[i].tokens for i in (19, 21, 24)) > 0
    assert all(p.loss > 0 for p in seen)


def test_other_settings_do_not_resume(whole):
    with pytest.raises(UsageError, match=r"PRETRAIN_SETTINGS.*steps"):
        pretrain(whole[0], replace(TINY, steps=30))


def test_the_result_loads_as_a_stock_model(whole, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = whole[0]
    loaded = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32)
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    about = json.loads((folder / "jade.json").read_text())
    assert about["profile"] == "compact"
    assert about["max_context"] == 512
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    trained = weights(folder)["model.model.embed_tokens.weight"]
    assert torch.allclose(loaded.model.embed_tokens.weight, trained, atol=0.02)


def test_parts_are_as_if_they_stood_alone(model, rows):
    shared = [r for r in rows if len(r.parts) > 1]
    assert shared
    together, ids, part = action_logits(model, shared)
    alone = [Row([], [(r.prefix + prompt, action)]) for r in shared for prompt, action in r.parts]
    for i, row in enumerate(alone):
        logits, expected, _ = action_logits(model, [row])
        assert torch.equal(ids[part == i], expected)
        assert torch.allclose(together[part == i], logits, atol=1e-4)


def test_the_gradient_does_not_depend_on_how_rows_are_batched(model, rows):
    grads = []
    for tokens in (64, 100_000):
        model.zero_grad()
        backward(model, rows, tokens=tokens)
        grads.append(model.model.layers[0].mlp.up_proj.weight.grad.clone())
    assert torch.allclose(*grads, atol=1e-6)
    assert len(chunks(rows, 64)) > len(chunks(rows, 100_000)) == 1


def test_guidance_looks_where_the_answer_stands(model, rows):
    """Its attention as computed from the layer's inputs is the attention that transformers computes."""
    guided = [r for r in rows if any(at >= 0 for seen in r.seen for at in seen)][:1]
    row = guided[0]
    (prompt, action), seen = next((p, s) for p, s in zip(row.parts, row.seen, strict=True) if max(s) >= 0)
    alone = Row(row.prefix, [(prompt, action)], [seen])
    with torch.no_grad(), Guide(model) as guide:
        action_logits(model, [alone])
        loss = guide.loss([alone]).item()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        ids = torch.tensor([[*row.prefix, *prompt, *action]])
        attention = model(ids, output_attentions=True).attentions[max(0, model.config.num_hidden_layers - 2)][0, 0]
    model.set_attn_implementation("sdpa")
    expected, n = 0.0, len(row.prefix)
    for j, at in enumerate(seen):
        if at >= 0:
            looked = attention[n + len(prompt) + j - 1, :n]
            expected -= float((looked[at] / looked.sum()).log())
    assert loss == pytest.approx(expected, rel=1e-4)
    _, astray = backward(model, guided, guide=1.0)
    assert astray > 0
    assert backward(model, guided)[1] == 0.0


def test_what_is_read_off_is_what_is_said(tokenizer):
    demonstrator = Demonstrator(4)
    guided = 0
    for _ in range(8):
        for row in encode(tokenizer, demonstrator.reading(4, 6)):
            for (_, action), seen in zip(row.parts, row.seen, strict=False):
                if action[0] == tokenizer.convert_tokens_to_ids("<answer>"):
                    guided += max(seen) >= 0
                    assert all(row.prefix[at] == token for token, at in zip(action, seen, strict=True) if at >= 0)
    assert guided > 10


def test_exact_match_is_that_of_greedy_decoding(model, rows):
    row = next(r for r in rows if not r.prefix)
    prompt, action = row.parts[0]
    ids = list(prompt)
    for _ in action:
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    greedy = ids[len(prompt) :]
    assert exact(model, [Row([], [(prompt, greedy)])]) == [[True]]
    assert exact(model, [Row([], [(prompt, [greedy[0], (greedy[1] + 1) % 900])])]) == [[False]]


def test_the_curriculum_grows_and_depends_on_the_step_alone(tokenizer):
    one, two = (Curriculum(tokenizer, 3, 1100, warmup=60, markers=40, long=1, asks=2, short=2) for _ in range(2))
    one.rows_of(500)
    assert one.rows_of(700) == two.rows_of(700)
    assert [one.distractors(s) for s in (100, 360, 450, 530, 610)] == [0, 1, 2, 3, 4]


def test_recall_rows_can_be_solved_from_what_stands_before():
    import random

    for row in recall_rows(random.Random(0), 1000, 20):
        for prompt, action in row.parts:
            text = row.prefix + prompt
            assert set(action) <= set(text)


def test_marker_rows_ask_as_the_answerer_is_asked(tokenizer):
    import random

    asked = [r for r in marker_rows(random.Random(0), tokenizer, 16) if len(r.parts) == 8]
    assert len(asked) == 12
    for row in asked:
        for prompt, action in row.parts:
            assert tokenizer.decode(prompt).startswith("answer :")
            assert tokenizer.decode(prompt).endswith("?")
            answer = tokenizer.decode(action[:-1])
            assert answer.startswith("<answer>")
            assert answer.endswith("</answer>")
            assert set(action[1:-2]) <= set(row.prefix)
            assert set(prompt[2:-1]) <= set(row.prefix)


def test_the_copying_heads_start_as_described(model):
    before, copying = (model.model.layers[i].self_attn for i in range(2))
    assert before.q_proj.weight[:16, 1:].abs().max() == 0
    slow = [i for i in range(16) if i % 8 >= TURNING]
    assert torch.equal(copying.q_proj.weight[slow], MATCH * before.v_proj.weight[slow])
    assert copying.q_proj.weight[0].abs().max() == 0


def test_words_that_belong_together_start_alike(model, tokenizer):
    def alike(a, b):
        rows = model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids([a, b]), 1:]
        return torch.cosine_similarity(rows[0], rows[1], dim=0)

    assert alike("1907", "1955") > 0.2
    assert alike("directed", "director") > 0.2
    assert abs(alike("1907", "director")) < 0.5 * alike("1907", "1955") + 0.3


def test_the_constant_dimension_stays(whole):
    trained = weights(whole[0])["model.model.embed_tokens.weight"][:, 0]
    assert torch.allclose(trained, torch.full_like(trained, CONSTANT), atol=0.01)


def test_the_rate_rises_stays_and_falls():
    settings = Settings(steps=1000)
    assert settings.rate(0) < settings.rate(49) == settings.rate(400) == settings.learning_rate
    assert settings.rate(999) == pytest.approx(settings.learning_rate * 0.05, rel=0.05)
