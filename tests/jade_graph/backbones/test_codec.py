from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jade_graph.backbones.codec import Codec, end_tokens, load_tokenizer
from jade_graph.backbones.turns import fold_system
from jade_graph.errors import BackboneError
from jade_graph.types import Message

MESSAGES = [Message("system", "Be brief."), Message("user", "Who?")]
CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"


def test_chat_models_get_their_template_and_generation_prompt(chat_folder: Path) -> None:
    codec = Codec.from_folder(chat_folder)
    assert codec.profile == "chat"
    ids = codec.encode(MESSAGES)
    assert codec.tokenizer.decode(ids) == CHATML
    assert ids == codec.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in MESSAGES], add_generation_prompt=True, return_dict=False
    )


def test_compact_models_get_the_contents(plain_folder: Path) -> None:
    codec = Codec.from_folder(plain_folder)
    assert codec.profile == "compact"
    assert codec.tokenizer.decode(codec.encode(MESSAGES)) == "Be brief.Who?"


def test_compact_prompts_get_the_special_tokens_that_the_tokenizer_adds(plain_folder: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(plain_folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 2)]
    )
    codec = Codec(tokenizer, [1])
    assert codec.encode([Message("user", "x")]) == [2, *codec.encode_text("x")]


def test_end_tokens_are_gathered_from_every_place(chat_folder: Path, plain_folder: Path) -> None:
    assert Codec.from_folder(chat_folder).eos_token_ids == (3, 1)
    assert Codec.from_folder(plain_folder).eos_token_ids == (1,)


def test_no_end_token_is_an_error(plain_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(plain_folder)
    tokenizer.eos_token = None
    assert end_tokens(tmp_path, tokenizer) == ()
    with pytest.raises(BackboneError) as caught:
        Codec(tokenizer, end_tokens(tmp_path, tokenizer))
    assert caught.value.error_code == "BACKBONE_NO_END_TOKEN"


def test_decode_leaves_special_tokens_out(chat_folder: Path) -> None:
    codec = Codec.from_folder(chat_folder)
    ids = codec.encode_text("Zoë , isn't <b>it</b>?\n\tyes")
    assert codec.decode([2, *ids, 3, 1]) == "Zoë , isn't <b>it</b>?\n\tyes"


@pytest.fixture
def copied(chat_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(chat_folder, tmp_path / "copy")


def test_jade_json_and_the_caller_choose_the_profile(copied: Path) -> None:
    (copied / "jade.json").write_text(json.dumps({"profile": "compact", "version": "1"}))
    assert Codec.from_folder(copied).profile == "compact"
    assert Codec.from_folder(copied, profile="chat").profile == "chat"


@pytest.mark.parametrize("profile", ["verbose", "chat"])
def test_profiles_that_do_not_fit_are_refused(plain_folder: Path, profile: str) -> None:
    with pytest.raises(BackboneError) as caught:
        Codec.from_folder(plain_folder, profile=profile)
    assert caught.value.error_code == "BACKBONE_PROFILE"
    assert caught.value.known == ("chat", "brief", "compact")


def test_broken_files_are_typed_errors(copied: Path, tmp_path: Path) -> None:
    (copied / "jade.json").write_text("{")
    with pytest.raises(BackboneError, match="BACKBONE_LOAD"):
        Codec.from_folder(copied)
    with pytest.raises(BackboneError, match="BACKBONE_LOAD"):
        load_tokenizer(tmp_path)


def test_templates_without_a_system_role_get_it_folded_into_the_question(chat_folder: Path) -> None:
    tokenizer = load_tokenizer(chat_folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"
    )
    codec = Codec(tokenizer, [1])
    assert codec.decode(codec.encode(MESSAGES)) == "[user] Be brief.\n\nWho?\n[model]"


def test_folding_loses_nothing() -> None:
    system, user, reply = Message("system", "S"), Message("user", "U"), Message("assistant", "A")
    assert fold_system([user]) == [user]
    assert fold_system([system]) == [Message("user", "S")]
    assert fold_system([system, reply]) == [Message("user", "S"), reply]
    assert fold_system([system, system, user, reply]) == [Message("user", "S\n\nS\n\nU"), reply]


def test_thinking_is_off_unless_asked_for(chat_folder: Path) -> None:
    tokenizer = load_tokenizer(chat_folder)
    tokenizer.chat_template = "{% if enable_thinking %}think {% endif %}{{ messages[-1]['content'] }}{{ tone }}"
    asked = MESSAGES[1:]
    assert Codec(tokenizer, [1]).encode(asked) == tokenizer.encode("Who?")
    options = {"enable_thinking": True, "tone": "!"}
    assert Codec(tokenizer, [1], template_options=options).encode(asked) == tokenizer.encode("think Who?!")
