"""The closed tokenizer: nothing that microworld or a role says is unknown, and actions come back as they were."""

import pytest

from jade_graph import plugins
from jade_graph.microworld.vocabulary import is_foreign
from jade_graph.types import View
from jade_training.pretrain.tokenizer import EOS, build_tokenizer, known_tokens
from jade_training.supervised.demonstrations import ROLES, Demonstrator


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def shown():
    demonstrator = Demonstrator(11, split="validation")
    found = [d for _ in range(25) for d in demonstrator.reading(4, 6)]
    return found + [demonstrator.short(role) for role in ("PL", "QR", "QDS", "QDP", "AS") for _ in range(30)]


def test_prompts_and_actions_have_no_unknown_token(tokenizer, shown):
    for d in shown:
        ids = tokenizer.encode(d.documents + d.prompt + d.action, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids, d


def test_actions_are_decoded_as_they_were(tokenizer, shown):
    for d in shown:
        assert tokenizer.decode(tokenizer.encode(d.action, add_special_tokens=False)) == d.action


def test_every_shown_action_is_legal(shown):
    assert {d.role for d in shown} == set(ROLES)
    for d in shown:
        if d.role in ("AG", "AS", "QR"):  # the others need the view's documents, plans or target
            role = plugins.load("jade.roles", d.role)
            view = View("", "", "root")
            assert role.parse(d.action, view).violation is None


@pytest.mark.parametrize(
    "text",
    [
        "<workflow>QR,R,DS,AG</workflow>",
        "<id>Document0,Document2</id>",
        "<id></id>",
        "<q1>Who directed Silent Storm?</q1><q2>Where was #1 born?</q2>",
        "<answer>unknown</answer>",
    ],
)
def test_formats_come_back_exactly(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_documents_and_question_may_be_tokenised_apart(tokenizer, shown):
    for d in shown:
        together = tokenizer.encode(d.documents + d.prompt, add_special_tokens=False)
        apart = [tokenizer.encode(t, add_special_tokens=False) if t else [] for t in (d.documents, d.prompt)]
        assert together == apart[0] + apart[1]


def test_foreign_words_are_one_unknown_token(tokenizer):
    ids = tokenizer.encode("Who directed Godfather?", add_special_tokens=False)
    assert ids.count(tokenizer.unk_token_id) == 1
    assert is_foreign("Who directed Godfather?", tokenizer)
    assert not is_foreign("Who directed Silent Storm?", tokenizer)


def test_the_vocabulary_is_stable_and_its_tokens_unique(tokenizer):
    assert known_tokens() == known_tokens()
    assert len(tokenizer) == len(set(known_tokens())) < 1500
    assert tokenizer.convert_tokens_to_ids(EOS) == tokenizer.eos_token_id
