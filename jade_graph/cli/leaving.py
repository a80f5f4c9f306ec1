"""What a command leaves out of its figures, as lines below them: counted, and the first named with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 10


def left_out(odd: Sequence[Mapping[str, str]], why: str) -> list[Any]:
    """Lines for the terminal; none where nothing was left out.

    Args:
        odd: `{"id", "reason"}` of each, as `--json` has them.
        why: completes "3 ..", e.g. "left out of the figures".
    """
    from rich.text import Text

    if not odd:
        return []
    lines = [f"{len(odd)} {why}:", *(f"  {one['id']}: {one['reason'][:200]}" for one in odd[:MOST])]
    if len(odd) > MOST:
        lines.append(f"  and {len(odd) - MOST} more: --json names all")
    return [Text(line, style="yellow") for line in lines]
