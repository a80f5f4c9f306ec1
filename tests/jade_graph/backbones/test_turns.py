"""What chat templates do with conversations: system texts, earlier turns, ends of turns, thoughts."""

from __future__ import annotations

from typing import Any

import pytest

from jade_graph.backbones.codec import Codec
from jade_graph.backbones.templates import ChatTemplate
from jade_graph.backbones.turns import Conversations
from jade_graph.errors import BackboneError
from jade_graph.testing.models import CHAT_TEMPLATE, make_tokenizer
from jade_graph.types import Message, Thought

S, U, A = Message("system", "Be brief."), Message("user", "Who?"), Message("assistant", "Ann.")
LATER = Message("user", "When?")
EACH = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
GOES = "{% if add_generation_prompt %}[model]{% endif %}"
LAST = "[user] {{ messages[-1]['content'] }}\n" + GOES
NO_SYSTEM = EACH.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}") + GOES
CUT = EACH.replace("m['content']", "m['content'][:40]") + GOES
PARTS = (
    "{% for m in messages %}[{{ m['role'] }}] {% for p in m['content'] %}{{ p['text'] }}{% endfor %}\n{% endfor %}"
    + GOES
)
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}[{{ m['role'] }}] {{ m['content'] }}\n"
    "{% endfor %}" + GOES
)


def codec(template: str, ends: tuple[int, ...] = (1,), **options: Any) -> Codec:
    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = template
    return Codec(tokenizer, ends, **options)


def shown(template: str, *messages: Message) -> str:
    made = codec(template)
    return str(made.tokenizer.decode(made.encode(messages)))


@pytest.mark.parametrize("template", [NO_SYSTEM, LAST, ALTERNATES])
def test_a_system_text_that_a_template_drops_or_refuses_opens_the_users(template: str) -> None:
    assert shown(template, S, U) == "[user] Be brief.\n\nWho?\n[model]"
    assert codec(template).conversations is not None


def test_contents_are_parts_where_the_template_reads_parts() -> None:
    assert shown(PARTS, S, U, A, LATER) == "[system] Be brief.[user] Who?[assistant] Ann.[user] When?[model]"


def test_neighbours_are_merged_where_roles_must_alternate() -> None:
    assert shown(ALTERNATES, S, U, LATER) == "[user] Be brief.\n\nWho?\n\nWhen?\n[model]"


def test_what_a_template_would_drop_is_refused_by_name() -> None:
    made = codec(LAST)
    with pytest.raises(BackboneError, match="drops that of the user and that of the assistant") as caught:
        made.encode([U, A, LATER])
    assert caught.value.error_code == "BACKBONE_TEMPLATE"


@pytest.mark.parametrize("template", [CUT, "{{ bos_token }}" + GOES, "{{ raise_exception('no') }}", "{% for %}", "{{"])
def test_templates_that_carry_no_question_are_refused_on_loading(template: str) -> None:
    with pytest.raises(BackboneError) as caught:
        codec(template)
    assert caught.value.error_code == "BACKBONE_TEMPLATE"
    assert caught.value.hint


def test_what_a_template_raises_at_one_prompt_alone_is_a_typed_error() -> None:
    made = codec(EACH + "{% if 'Who' in messages[-1]['content'] %}{{ 1 // 0 }}{% endif %}")
    assert made.encode([LATER])
    with pytest.raises(BackboneError, match="ZeroDivisionError"):
        made.encode([U])


@pytest.mark.parametrize("messages", [(U,), (S, U), (S, U, A, LATER)])
def test_prompts_are_those_of_transformers(messages: tuple[Message, ...]) -> None:
    made = codec(CHAT_TEMPLATE)
    plain = [{"role": m.role, "content": m.content} for m in messages]
    theirs = made.tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
    assert made.encode(messages) == theirs


def test_the_end_of_an_assistants_turn_ends_an_action_and_comes_first() -> None:
    assert codec(CHAT_TEMPLATE, (1,)).eos_token_ids == (3, 1)
    assert codec(CHAT_TEMPLATE, ()).eos_token_ids == (3,)
    assert codec(CHAT_TEMPLATE, (3, 1)).eos_token_ids == (3, 1)
    opened_by_a_mark = "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}{% endfor %}"
    assert codec(opened_by_a_mark, (1,)).eos_token_ids == (2, 1)
    assert codec(EACH + GOES, (1,)).eos_token_ids == (1,)
    assert codec(LAST, (1,)).eos_token_ids == (1,)
    assert codec(CHAT_TEMPLATE, (1,), profile="brief").eos_token_ids == (1,)


def test_tokens_that_a_tokenizer_puts_behind_every_text_are_no_part_of_a_prompt() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(chat=False)
    plain = Codec(make_tokenizer(chat=False), [1])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|endoftext|>", special_tokens=[("<|im_start|>", 2), ("<|endoftext|>", 1)]
    )
    made = Codec(tokenizer, [1])
    assert made.encode([U]) == [2, *plain.encode([U])]
    assert made.encode_text("Who?") == plain.encode_text("Who?")


def thought_of(template: str, **options: Any) -> Thought | None:
    return codec(template, template_options=options).thought


def test_thoughts_are_found_from_the_template() -> None:
    opens = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    closes = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n\n</think>\n\n{% endif")
    switch = CHAT_TEMPLATE.replace(
        "assistant\n{% endif", "assistant\n{% if not enable_thinking %}<think></think>{% endif %}{% endif"
    )
    assert thought_of(CHAT_TEMPLATE) is None
    assert thought_of(opens) == Thought("<think>", "</think>", opened=True)
    assert thought_of(closes) == Thought("<think>", "</think>", opened=False)
    assert (
        thought_of(switch) == thought_of(switch, enable_thinking=True) == Thought("<think>", "</think>", opened=False)
    )
    assert thought_of(opens.replace("<think>", "[THINK]")) == Thought("[THINK]", "[/THINK]", opened=True)


@pytest.mark.parametrize(
    ("opened", "text", "spoken", "whole"),
    [
        (True, "hm </think>\n\nyes", "yes", "<think>hm </think>\n\nyes"),
        (True, "hm", "", "<think>hm"),
        (False, "<think>hm</think> yes", "yes", "<think>hm</think> yes"),
        (False, "yes </think> no", "yes </think> no", "yes </think> no"),
        (False, "yes", "yes", "yes"),
    ],
)
def test_what_is_spoken_is_what_follows_the_thought(opened: bool, text: str, spoken: str, whole: str) -> None:
    thought = Thought("<think>", "</think>", opened)
    assert (thought.spoken(text), thought.whole(text)) == (spoken, whole)


def test_marks_of_thoughts_that_are_control_tokens_stay_in_the_text() -> None:
    tokenizer = make_tokenizer(chat=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]})
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    made = Codec(tokenizer, [1])
    ids = tokenizer.encode("hm</think>yes<|im_end|>", add_special_tokens=False)
    assert made.decode(ids) == "hm</think>yes"


def test_room_for_thoughts() -> None:
    opens = codec(CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"))
    tokens = []
    for context, asked in ((400, None), (32_000, None), (32_000, 77)):
        opens.make_room(context, asked)
        assert opens.thought is not None
        tokens.append(opens.thought.tokens)
    assert tokens == [100, 1024, 77]


def test_orders_of_roles_are_asked_once_each() -> None:
    asked = []

    class Counting(ChatTemplate):
        def render(self, conversation: Any, *, opens: bool = True) -> str:
            asked.append(len(conversation))
            return super().render(conversation, opens=opens)

    conversations = Conversations(Counting(CHAT_TEMPLATE, {}))
    for _ in range(5):
        conversations.render([S, U])
    assert len(asked) == 1 + 5
