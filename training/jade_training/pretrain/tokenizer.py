"""The closed tokenizer of the bundled models: one token a word, a tag, a document's name or a punctuation mark.

Invariant: whatever microworld and the roles' compact prompts can say has no unknown token, and decoding what was
encoded gives back a text that the roles parse alike. Any other word is `<unk>`. With the tokens of searching roles
every older token keeps its id, and a text without new tags is encoded as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jade_graph import plugins
from jade_graph.microworld.searching import NOTHING
from jade_graph.microworld.vocabulary import PATTERN, split, vocabulary
from jade_graph.types import Passage, View

PAD, UNK, EOS = "<pad>", "<unk>", "<eos>"
DOCUMENTS = 10
ROLES = ("PL", "QDS", "QDP", "QR", "DS", "AG", "AS")
ASKING_ROLES = ("KP", "KS", "KE", "KU", "KA", "SR")
"""Roles of M-ASK and Search-R1, whose words came later."""
ASKING_PATTERN = r"</?[a-z]+_[a-z]+>|" + PATTERN
MOST_STEPS = 9
"""Steps of knowledge that have a number: a plan's five and those that turns add."""


def known_tokens() -> list[str]:
    """Every token, specials first, then sorted: the order is the id."""
    tags = [f"<{slash}{name}>" for name in ("workflow", "query", "id", "answer") for slash in ("", "/")]
    tags += [f"<{slash}q{i}>" for i in range(1, 8) for slash in ("", "/")]
    codes = ["QDS", "QDP", "QR", "R", "DS", "AG", ","]
    documents = [f"Document{i}" for i in range(DOCUMENTS)]
    tokens = {*tags, *codes, *documents, *vocabulary(), *prompt_tokens()}
    return [PAD, UNK, EOS, *sorted(tokens)]


def asking_tokens() -> list[str]:
    """What M-ASK's and Search-R1's roles read and write beside `known_tokens`, sorted: the order is the id."""
    names = ("search", "evidence", "update", "add", "think", "final_answer", *(f"a{i}" for i in range(1, 8)))
    tags = ["<end>", *(f"<{slash}{name}>" for name in names for slash in ("", "/"))]
    steps = [f"{mark}{i}" for mark in ("", "t") for i in range(1, MOST_STEPS + 1)]
    said = {*tags, *steps, *NOTHING.split(), *prompt_tokens(ASKING_ROLES)}
    return sorted(said - set(known_tokens()))


def prompt_tokens(roles: Sequence[str] = ROLES) -> set[str]:
    """The words that the roles' compact prompts add of their own."""
    found: set[str] = set()
    documents = tuple(Passage(str(i), "unknown") for i in range(DOCUMENTS))
    read = {"documents": documents, "queries": ("unknown",)}
    pair = ("unknown", "unknown")
    searched = {"steps": (pair,), "asked": ("unknown",), "turns": ((*pair, documents),), "thought": "unknown"}
    for code in roles:
        role = plugins.load("jade.roles", code)
        for level in ("root", "sub"):
            for memory in ({}, read, read | searched):
                view = View("unknown", "unknown", level, memory, siblings=(pair,), children=(pair,))
                for message in role.render(view, "compact"):
                    found.update(split(message.content))
    return found


def build_tokenizer(*, asking: bool = False) -> Any:
    """A `PreTrainedTokenizerFast`; the same packages and roles give the same vocabulary.

    `asking`: with the tokens of M-ASK's and Search-R1's roles after the others.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate([*known_tokens(), *(asking_tokens() if asking else ())])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(ASKING_PATTERN if asking else PATTERN), behavior="removed", invert=True
    )
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
