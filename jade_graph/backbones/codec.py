"""The text side of a model: messages to token ids and back, its end tokens and its prompt profile.

Invariant: this is the only place where text becomes tokens. The chat template is applied once, here; special tokens
are the tokenizer's own; what the model emits is never tokenised again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jade_graph.errors import BackboneError
from jade_graph.types import Message

PROFILES = ("chat", "brief", "compact")
"""How prompts look: "chat", instructions in a model's chat template; "brief", a line an item, for small models that
were taught the roles; "compact", the same without passages' titles, for the bundled models of a closed vocabulary."""


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
    """Every id that ends an action: the tokenizer's own first, then those of the generation and model configs."""
    found: list[int] = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, int) and token not in found:
                found.append(token)
    if not found:
        raise BackboneError(
            f"the model in {str(folder)!r} names no end-of-sequence token: nothing would ever end an action.",
            code="BACKBONE_NO_END_TOKEN",
            hint='set "eos_token_id" in its generation_config.json',
        )
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
        eos_token_ids: ids that end an action; the first is the one that `eos_token_id` names.
        profile: "chat", "brief" or "compact"; None: "chat" where the tokenizer has a chat template.
        template_options: further variables of the chat template.

    Raises:
        BackboneError: BACKBONE_PROFILE.
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
        # Roles leave room for an action, not for reasoning before it; templates without the switch ignore it.
        self._options = {"enable_thinking": False, **(template_options or {})}
        self._special = _special_tokens(tokenizer)
        self._folds = self.profile == "chat" and self._refuses_system()
        self._direct = _direct(tokenizer)

    @classmethod
    def from_folder(
        cls, folder: Path, *, profile: str | None = None, template_options: Mapping[str, Any] | None = None
    ) -> Codec:
        """Read a Hugging Face folder; its `jade.json` may name the profile. Raises `BackboneError`."""
        tokenizer = load_tokenizer(folder)
        chosen = profile or read_json(folder / "jade.json").get("profile")
        return cls(tokenizer, end_tokens(folder, tokenizer), profile=chosen, template_options=template_options)

    @property
    def eos_token_id(self) -> int:
        return self.eos_token_ids[0]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt: templated with the generation prompt, or, for the others, the contents one after another."""
        messages = [Message(message.role, self._defused(message.content)) for message in messages]
        if self.profile != "chat":
            return self._ids("".join(message.content for message in messages), special=True)
        text = self._render(fold_system(messages) if self._folds else messages)
        return self._ids(text, special=False)

    def encode_text(self, text: str) -> list[int]:
        return self._ids(text, special=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _defused(self, text: str) -> str:
        """A document or question that spells a control token (`<|im_end|>`) must not become one."""
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text) if self._special else text

    def _ids(self, text: str, *, special: bool) -> list[int]:
        if self._direct is not None and self._direct.truncation is None and self._direct.padding is None:
            direct: list[int] = self._direct.encode(text, add_special_tokens=special).ids
            return direct
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=special)
        return ids

    def _render(self, messages: Sequence[Message]) -> str:
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        text: str = self.tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True, **self._options
        )
        return text

    def _refuses_system(self) -> bool:
        from jinja2.exceptions import TemplateError

        try:
            self._render([Message("system", "s"), Message("user", "u")])
        except TemplateError:
            return True
        return False


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


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """For templates that know no system role: its text opens the first user message."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    if rest and rest[0].role == "user":
        return [Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:]]
    return [Message("user", system), *rest]
