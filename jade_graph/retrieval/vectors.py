"""What an encoder is: texts in, unit vectors out; and what else one may offer.

Invariant: only `Encoder` is asked of everybody; `TokenCounting` and `Prompting` are optional, and who lacks them is
served in the plain way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


@runtime_checkable
class Encoder(Protocol):
    """Maps texts to vectors whose dot product is their similarity."""

    @property
    def id(self) -> str:
        """Names weights, pooling and truncation; part of every corpus id."""
        ...

    @property
    def spec(self) -> str:
        """What `load_encoder` makes this encoder from again."""
        ...

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """float32 of shape (len(texts), dim), rows L2-normalised, in the order of `texts`.

        `query` marks questions rather than passages, for models that put different words before the two.
        """
        ...


@runtime_checkable
class TokenCounting(Protocol):
    """An encoder that reads a certain number of tokens, and can say how many a text has. Optional for an `Encoder`."""

    @property
    def readable_tokens(self) -> int:
        """Of a text, without what the encoder itself puts around it."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...


@runtime_checkable
class Prompting(Protocol):
    """An encoder that reads a prompt of its own length: a question with passages (`listwise`). Optional."""

    @property
    def prompt_tokens(self) -> int:
        """The most tokens that a prompt may have."""
        ...

    @property
    def prompt_documents(self) -> int:
        """How many passages a prompt shows."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...

    def encode_prompts(self, texts: Sequence[str]) -> Vectors:
        """As `Encoder.encode`, for prompts: no words are put before them."""
        ...


def normalise(vectors: Vectors) -> Vectors:
    """Rows to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32, copy=False)
