"""The closed tokenizer of jade-tiny: one token a word, a tag, a document's name or a punctuation mark.

Invariant: whatever microworld and the roles' compact prompts can say has no unknown token, and decoding what was
encoded gives back a text that the roles parse alike. Any other word is `<unk>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jade_graph import plugins
from jade_graph.microworld.foreign import PATTERN, split, vocabulary
from jade_graph.types import Passage, View

PAD, UNK, EOS = "<pad>", "<unk>", "<eos>"
DOCUMENTS = 10
ROLES = ("PL", "QDS", "QDP", "QR", "DS", "AG", "AS")


def known_tokens() -> list[str]:
    """Every token, specials first, then sorted: the order is the id."""
    tags = [f"<{slash}{name}>" for name in ("workflow", "query", "id", "answer") for slash in ("", "/")]
    tags += [f"<{slash}q{i}>" for i in range(1, 8) for slash in ("", "/")]
    codes = ["QDS", "QDP", "QR", "R", "DS", "AG", ","]
    documents = [f"Document{i}" for i in range(DOCUMENTS)]
    tokens = {*tags, *codes, *documents, *vocabulary(), *prompt_tokens()}
    return [PAD, UNK, EOS, *sorted(tokens)]


def prompt_tokens() -> set[str]:
    """The words that the roles' compact prompts add of their own."""
    found: set[str] = set()
    documents = tuple(Passage(str(i), "unknown") for i in range(DOCUMENTS))
    for code in ROLES:
        role = plugins.load("jade.roles", code)
        for level in ("root", "sub"):
            for memory in ({}, {"documents": documents, "queries": ("unknown",)}):
                pairs = (("unknown", "unknown"),)
                view = View("unknown", "unknown", level, memory, siblings=pairs, children=pairs)
                for message in role.render(view, "compact"):
                    found.update(split(message.content))
    return found


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast`; the same packages and roles give the same vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(known_tokens())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=True),
            decoders.Fuse(),
            decoders.Replace(Regex("> "), ">"),
            decoders.Replace(Regex(" <"), "<"),
            decoders.Replace(Regex(r", (?=(?:QDS|QDP|QR|R|DS|AG|Document\d+)(?:,|<))"), ","),
        ]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token=UNK,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def save_tokenizer(folder: Path) -> Any:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    return tokenizer
