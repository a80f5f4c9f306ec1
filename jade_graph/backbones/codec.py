"""The text side of a model: messages to token ids and back, its end tokens and its prompt profile.

Invariant: this is the only place where text becomes tokens. The chat template is applied once, here; special tokens
are the tokenizer's own; what the model emits is never tokenised again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jade_graph.backbones.templates import ChatTemplate
from jade_graph.backbones.turns import Conversations, thought, turn_end
from jade_graph.errors import BackboneError
from jade_graph.types import Message, Thought

PROFILES = ("chat", "brief", "compact")
"""How prompts look: "chat", instructions in a model's chat template; "brief", a line an item, for small models that
were taught the roles; "compact", the same without passages' titles, for the bundled models of a closed vocabulary."""


_THOUGHT_TOKENS = 1024


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} when there is no such file. Raises `BackboneError` BACKBONE_LOAD."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"{str(path)!r} is no JSON: {error}.", code="BACKBONE_LOAD") from error
    return value if isinstance(value, dict) else {}


def end_tokens(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends an action as the files say: the tokenizer's own first, then those of the generation and model
    configs. Empty where they name none.
    """
    found: list[int] = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, int) and token not in found:
                found.append(token)
    return tuple(found)


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer. Raises `BackboneError` BACKBONE_LOAD."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises whatever its parsers raise
        raise BackboneError(
            f"the tokenizer in {str(folder)!r} does not load: {type(error).__name__}: {error}",
            code="BACKBONE_LOAD",
            hint="a folder with tokenizer.json and tokenizer_config.json",
        ) from error


class Codec:
    """Tokenizer, template and end tokens of one model.

    Args:
        tokenizer: a transformers tokenizer.
        eos_token_ids: ids that end an action; the first is the one that `eos_token_id` names. Before them comes the
            token that the chat template writes behind an assistant's turn, where there is one.
        profile: "chat", "brief" or "compact"; None: "chat" where the tokenizer has a chat template.
        template_options: further variables of the chat template.

    Attributes:
        conversations: the chat template and how messages are put to it; None in the other profiles.
        thought: how the model thinks before it answers, as far as its template tells.

    Raises:
        BackboneError: BACKBONE_PROFILE, BACKBONE_TEMPLATE, BACKBONE_NO_END_TOKEN.
    """

    def __init__(
        self,
        tokenizer: Any,
        eos_token_ids: Sequence[int],
        *,
        profile: str | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.eos_token_ids = tuple(eos_token_ids)
        has_template = bool(getattr(tokenizer, "chat_template", None))
        self.profile = profile or ("chat" if has_template else "compact")
        if self.profile not in PROFILES:
            raise BackboneError(f"unknown prompt profile {profile!r}.", code="BACKBONE_PROFILE", known=PROFILES)
        if self.profile == "chat" and not has_template:
            raise BackboneError(
                "the profile 'chat' needs a chat template, and this tokenizer has none.",
                code="BACKBONE_PROFILE",
                known=PROFILES,
                hint='profile="compact", or an instruct model',
            )
        self._special = _special_tokens(tokenizer)
        self.conversations: Conversations | None = None
        self.thought: Thought | None = None
        if self.profile == "chat":
            # Roles leave room for an action, not for reasoning before it; templates without the switch ignore it.
            template = ChatTemplate.of(tokenizer, {"enable_thinking": False, **(template_options or {})})
            self.conversations = Conversations(template)
            end = turn_end(self.conversations, tokenizer)
            if end is not None:
                self.eos_token_ids = (end, *(token for token in self.eos_token_ids if token != end))
            self.thought = thought(self.conversations, template.source)
        if not self.eos_token_ids:
            raise BackboneError(
                f"the model in {str(tokenizer.name_or_path)!r} names no end-of-sequence token: nothing would ever end "
                "an action.",
                code="BACKBONE_NO_END_TOKEN",
                hint='set "eos_token_id" in its generation_config.json',
            )
        self._hidden = _hidden(tokenizer, self.thought)
        self._direct = _direct(tokenizer)
        self._tails = {special: self._tail(special) for special in (True, False)}

    @classmethod
    def from_folder(
        cls, folder: Path, *, profile: str | None = None, template_options: Mapping[str, Any] | None = None
    ) -> Codec:
        """Read a Hugging Face folder; its `jade.json` may name the profile. Raises `BackboneError`."""
        tokenizer = load_tokenizer(folder)
        chosen = profile or read_json(folder / "jade.json").get("profile")
        return cls(tokenizer, end_tokens(folder, tokenizer), profile=chosen, template_options=template_options)

    def make_room(self, max_context: int, tokens: int | None = None) -> None:
        """What actions of a model that thinks may have for that, beyond each role's own tokens.

        Args:
            max_context: prompt plus action in tokens.
            tokens: None: 1024, at most a quarter of the context, where the template opens a thought; else none.
        """
        if self.thought is not None:
            usual = min(_THOUGHT_TOKENS, max_context // 4) if self.thought.opened else 0
            self.thought = replace(self.thought, tokens=usual if tokens is None else tokens)

    @property
    def eos_token_id(self) -> int:
        return self.eos_token_ids[0]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt: templated with the generation prompt, or, for the others, the contents one after another."""
        return self._ids(self._rendered(messages), special=self.conversations is None)

    def spelled(self, messages: Sequence[Message]) -> tuple[str, list[int], list[tuple[int, int]]]:
        """A prompt's text, its token ids as `encode` gives them, and where in the text each token stands."""
        text, plain = self._rendered(messages), self.conversations is None
        ids = self._ids(text, special=plain)
        found = self.tokenizer(text, add_special_tokens=plain, return_offsets_mapping=True)
        return text, ids, [(int(a), int(b)) for a, b in found["offset_mapping"]][: len(ids)]

    def _rendered(self, messages: Sequence[Message]) -> str:
        contents = [Message(message.role, self._defused(message.content)) for message in messages]
        if self.conversations is None:
            return "".join(message.content for message in contents)
        return self.conversations.render(contents)

    def encode_text(self, text: str) -> list[int]:
        return self._ids(text, special=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        ids, skip = list(token_ids), self._hidden is None
        if self._hidden is not None:
            ids = [token for token in ids if token not in self._hidden]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        return text

    def _defused(self, text: str) -> str:
        """A document or question that spells a control token (`<|im_end|>`) must not become one."""
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text) if self._special else text

    def _ids(self, text: str, *, special: bool) -> list[int]:
        ids = self._encoded(text, special)
        tail = self._tails[special]
        return ids[:-tail] if tail else ids

    def _encoded(self, text: str, special: bool) -> list[int]:
        if self._direct is not None and self._direct.truncation is None and self._direct.padding is None:
            direct: list[int] = self._direct.encode(text, add_special_tokens=special).ids
            return direct
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=special)
        return ids

    def _tail(self, special: bool) -> int:
        """How many control tokens the tokenizer puts behind every text: a prompt goes on, and an action ends once."""
        ids, control = self._encoded("a", special), set(self.tokenizer.all_special_ids)
        tail = 0
        while tail < len(ids) and ids[-1 - tail] in control:
            tail += 1
        return tail if tail < len(ids) else 0


def _hidden(tokenizer: Any, found: Thought | None) -> frozenset[int] | None:
    """Control tokens that are no part of a text, where the marks of a thought are such tokens too; else None: all."""
    marks = {found.opens, found.closes} & set(tokenizer.all_special_tokens) if found else set()
    if not marks:
        return None
    shown = {tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    return frozenset(set(tokenizer.all_special_ids) - shown)


_PROBE = "Who wrote  Dune?\n\u00e9\u4e2d <id>x</id> 1,024 "


def _direct(tokenizer: Any) -> Any:
    """The Rust tokenizer where it alone gives the same ids, else None. transformers hands it every text as a batch of
    one, which wakes a pool of threads: 1 ms a prompt where the cores are busy, 20 times what the encoding takes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not tokenizer.is_fast:
        return None
    texts = [_PROBE, *(f"a{token}b" for token in tokenizer.all_special_tokens)]
    for special in (True, False):
        for text in texts:
            theirs = tokenizer.encode(text, add_special_tokens=special)
            if list(backend.encode(text, add_special_tokens=special).ids) != list(theirs):
                return None
    return backend


def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches every control token that the tokenizer would read out of plain text."""
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    names = {str(token) for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    longest_first = sorted((n for n in names if len(n) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
