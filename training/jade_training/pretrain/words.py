"""Which words belong together: what pretrained word vectors would know, taken from microworld's own lexicon.

Invariant: only lists of words and wordings of relations are used, never a fact of a world; two words share features
when they stand in the same list or in wordings of the same relation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jade_graph.microworld import lexicon, world
from jade_graph.microworld.relations import RELATIONS
from jade_graph.microworld.vocabulary import split

if TYPE_CHECKING:
    import torch

COMMON = 4
"""A word in more groups than this is a function word and belongs to none."""
_PROMPT = ("known plan root sub serial parallel rewrite select query answer summary", "QDS QDP QR R DS AG")


def groups() -> list[list[str]]:
    """Texts whose words belong together: name pieces, values, edition marks, prompt words, wordings of a relation."""
    found = [list(pieces) for pieces in lexicon.pieces()]
    found += [list(v) for v in (lexicon.YEARS, lexicon.COUNTRIES, lexicon.JOBS, lexicon.SUBJECTS, lexicon.PRODUCTS)]
    found += [list(world.CURRENT), list(world.OUTDATED), *([words] for words in _PROMPT)]
    found.append([f"Document{i}" for i in range(10)])
    for r in RELATIONS.values():
        found.append([r.keyword, *r.questions, *r.statements, *r.phrases, *r.constraints])
    return found


def features(tokenizer: Any) -> torch.Tensor:
    """(vocabulary, groups): unit rows for words that belong to some groups, zero rows for all others."""
    import torch

    member = torch.zeros(len(tokenizer), len(groups()))
    for j, texts in enumerate(groups()):
        for text in texts:
            for word in split(re.sub(r"\{\w+\}", " ", text)):
                member[tokenizer.convert_tokens_to_ids(word), j] = 1.0
    count = member.sum(1, keepdim=True)
    return torch.where(count > COMMON, torch.zeros_like(member), member / count.clamp(min=1.0).sqrt())


def name_ids(tokenizer: Any) -> list[int]:
    """The tokens that names are made of."""
    found: list[int] = tokenizer.convert_tokens_to_ids([word for pieces in lexicon.pieces() for word in pieces])
    return found
