"""A clean and a corrupted prompt, and the two ways in which the decision may go on.

Invariant: both prompts have the same number of tokens and differ; what the two continuations begin with alike stands
in the prompt already, so that they part at their first token. Every position belongs to exactly one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jade_graph.errors import UsageError

WRITTEN, LAST = "written", "last"
"""Groups that every pair has: what both continuations begin with, and the position whose logits decide."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison.

    Attributes:
        clean, corrupt: token ids of the prompts, of equal length.
        choice, other: token ids; the logit difference is log P(choice) - log P(other).
        groups: name to positions, in the order in which they are shown.
        name: for people.
        notes: what was cut so that the lengths are equal, and the like.
    """

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    choice: tuple[int, ...]
    other: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]]
    name: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def first(self) -> int:
        """The first position at which the prompts differ: what stands before is computed once."""
        return next(i for i, (a, b) in enumerate(zip(self.clean, self.corrupt, strict=True)) if a != b)


def make_pair(
    clean: Sequence[int],
    corrupt: Sequence[int],
    choice: Sequence[int],
    other: Sequence[int],
    groups: Mapping[str, Iterable[int]],
    *,
    name: str = "",
    notes: Sequence[str] = (),
) -> Pair:
    """A pair, checked.

    Args:
        groups: positions of the prompt by what they are; what is in none of them is "template". The last position of
            all is taken out of its group: it is the group "last".

    Raises:
        UsageError: LOOK_LENGTHS, LOOK_SAME, LOOK_CHOICE.
    """
    if len(clean) != len(corrupt):
        raise UsageError(
            f"the clean prompt has {len(clean)} tokens, the corrupted one {len(corrupt)}: positions would not match.",
            code="LOOK_LENGTHS",
            hint="cut both to one length",
        )
    if list(clean) == list(corrupt):
        raise same("the clean and the corrupted prompt are the same tokens")
    shared = 0
    while shared < min(len(choice), len(other)) and choice[shared] == other[shared]:
        shared += 1
    if shared == len(choice) or shared == len(other):
        raise UsageError(
            f"the choice {list(choice)} and its alternative {list(other)} do not part: one begins with the other.",
            code="LOOK_CHOICE",
            hint="two continuations that end with the end token",
        )
    begun = tuple(choice[:shared])
    size = len(clean)
    owner = dict.fromkeys(range(size), "template")
    for group, positions in groups.items():
        owner |= dict.fromkeys((p for p in positions if 0 <= p < size), group)
    owner |= dict.fromkeys(range(size, size + shared), WRITTEN)
    owner[size + shared - 1] = LAST
    names = [*dict.fromkeys(owner[p] for p in range(size + shared))]
    made = {group: tuple(p for p, of in owner.items() if of == group) for group in names}
    return Pair(
        (*clean, *begun), (*corrupt, *begun), tuple(choice[shared:]), tuple(other[shared:]), made, name, tuple(notes)
    )


def same(what: str) -> UsageError:
    """The error of a pair with nothing between its two sides."""
    return UsageError(
        f"{what}: there is nothing to recover.",
        code="LOOK_SAME",
        hint='another document or name: --document N, --swap "OLD=NEW"',
    )
