"""Which words microworld knows, and so which questions its bundled model cannot even read.

Invariant: `vocabulary` holds every word of every passage, question, query and answer that the generator can write, in
any split; what `is_foreign` passes may still be no question of microworld.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jade_graph.microworld import frames, questions, relations, world
from jade_graph.microworld.lexicon import ENTITY_KINDS, words

PATTERN = r"</?[a-z]+\d*>|Document\d+|#\d+|\w+|[^\w\s]"
"""What a token is: a tag, a document's name, a reference, a word, or a punctuation mark."""

LIMIT = 0.1
"""The share of unknown words from which a text is foreign: one in ten, so any at all in a short question."""


def split(text: str) -> list[str]:
    return re.findall(PATTERN, text)


@cache
def vocabulary() -> frozenset[str]:
    """Every token of the generator's texts, without prompts and tags."""
    texts: list[str] = [*words(), frames.UNKNOWN, "yes no"]
    for relation in relations.RELATIONS.values():
        texts += [relation.keyword, *relation.questions, *relation.phrases, *relation.constraints, *relation.statements]
    texts += [w for wordings in frames.COMPARE_WORDINGS.values() for w in wordings]
    texts += [*frames.MATCH_WORDINGS, *frames.NOW, *world.CURRENT, *world.OUTDATED]
    texts += [*questions.TALK, *questions.PREMISE, *ENTITY_KINDS, "this This the The"]
    plain = (re.sub(r"\{\w+\}", " ", text) for text in texts)
    return frozenset(token for text in plain for token in split(text)) | {"#1", "#2", "#3", "#4", "?", "."}


def unknown_words(text: str, tokenizer: Any = None) -> list[str]:
    """The words of a text that microworld never uses; with a tokenizer, those it has no token for."""
    found = re.findall(r"\w+", text)
    if tokenizer is None:
        return [w for w in found if w not in vocabulary()]
    return [w for w in found if tokenizer.convert_tokens_to_ids(w) in (None, tokenizer.unk_token_id)]


def is_foreign(text: str, tokenizer: Any = None) -> bool:
    """Whether a question is beyond a model that knows microworld alone.

    Args:
        text: a user's question.
        tokenizer: that of the bundled model (anything with `convert_tokens_to_ids` and `unk_token_id`); without it
            the generator's own vocabulary decides.
    """
    found = re.findall(r"\w+", text)
    return not found or len(unknown_words(text, tokenizer)) >= LIMIT * len(found)
