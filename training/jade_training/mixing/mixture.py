"""A mixture: the share that each part of the data has in training.

Invariant: shares sum to 1 and are of parts that are named; what a mixture draws has its shares as closely as whole
examples allow, and follows from the seed.

    by = "role"              # what the parts are: role, dataset, or type (of questions)
    [shares]
    "PL+QDS+QDP" = 0.2       # several values in one part
    "AG+AS" = 0.8
"""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jade_graph.errors import ConfigError

T = TypeVar("T")
BY = ("role", "dataset", "type")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares by part; `by` says what the parts' names are of."""

    shares: Mapping[str, float]
    by: str = "role"

    def __post_init__(self) -> None:
        """Raises `ConfigError` BAD_MIXTURE."""
        if self.by not in BY:
            raise _wrong(f"by = {self.by!r}", f"by is one of {', '.join(BY)}")
        total = math.fsum(self.shares.values())
        if (
            not self.shares
            or not all(0 <= s <= 1 for s in self.shares.values())
            or not math.isclose(total, 1.0, abs_tol=1e-3)
        ):
            raise _wrong(f"shares {dict(self.shares)}", f"shares from 0 to 1 that sum to 1, not {total:g}")
        values = [value for part in self.shares for value in parts_of(part)]
        if len(set(values)) != len(values) or not all(values):
            raise _wrong(f"parts {', '.join(self.shares)}", "each value in one part alone, several joined by +")

    @classmethod
    def read(cls, path: Path) -> Mixture:
        """Raises `ConfigError` BAD_MIXTURE."""
        try:
            found = tomllib.loads(path.read_text("utf-8"))
            shares = {str(name): float(share) for name, share in found["shares"].items()}
            return cls(shares, str(found.get("by", "role")))
        except (
            OSError,
            UnicodeDecodeError,
            tomllib.TOMLDecodeError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            raise _wrong(f"{path}: {type(error).__name__}: {error}", "[shares] with a number for each part") from error

    def write(self, path: Path, *, about: Sequence[str] = ()) -> None:
        """As TOML; lines of `about` stand above it as comments."""
        import json

        lines = [*(f"# {line}" for line in about), f'by = "{self.by}"', "", "[shares]"]
        lines += [f"{json.dumps(name)} = {share:.6g}" for name, share in self.shares.items()]
        path.write_text("\n".join(lines) + "\n", "utf-8")

    def drawn(self, items: Sequence[T], value_of: Callable[[T], str], *, seed: int = 0) -> list[T]:
        """As many items as there are, in the mixture's shares; those of a part that is short come again.

        Items of no part are left out. They come in their old order.

        Raises `ConfigError` BAD_MIXTURE for a part with a share of which there is no item.
        """
        part_of = {value: part for part in self.shares for value in parts_of(part)}
        places: dict[str, list[int]] = {part: [] for part in self.shares}
        for at, item in enumerate(items):
            if (part := part_of.get(value_of(item))) is not None:
                places[part].append(at)
        wanted = _whole({part: share * len(items) for part, share in self.shares.items()})
        taken: list[int] = []
        for part, number in wanted.items():
            if number and not places[part]:
                known = sorted({value_of(item) for item in items})
                raise _wrong(f"the part {part!r}", f"there is nothing of it; there is {', '.join(known)}")
            rng = random.Random(f"mixture {seed} {part}")
            while number > 0:
                taken += rng.sample(places[part], min(number, len(places[part])))
                number -= min(number, len(places[part]))
        return [items[at] for at in sorted(taken)]

    def as_dict(self) -> dict[str, Any]:
        return {"by": self.by, "shares": dict(self.shares)}


def parts_of(part: str) -> list[str]:
    """`PL+QDS` as its values."""
    return [value.strip() for value in part.split("+")]


def dataset_of(question_id: str) -> str:
    """The data set of a question, where ids begin with it ("musique:2hop..")."""
    return question_id.partition(":")[0]


def _whole(wanted: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers with the same sum: what is cut off goes to those that lost most."""
    found = {name: math.floor(value + 1e-9) for name, value in wanted.items()}
    left = round(math.fsum(wanted.values())) - sum(found.values())
    for name in sorted(wanted, key=lambda n: found[n] - wanted[n])[: max(0, left)]:
        found[name] += 1
    return found


def _wrong(what: str, hint: str) -> ConfigError:
    return ConfigError(f"no mixture: {what}.", code="BAD_MIXTURE", hint=hint)


__all__ = ["BY", "Mixture", "dataset_of", "parts_of"]
