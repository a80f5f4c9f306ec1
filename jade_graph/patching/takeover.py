"""Two versions looked at with the same pairs: which heads took a decision over.

Invariant: both versions are given the same token ids at the same sites; nothing is judged, only told.
"""

from __future__ import annotations

from typing import Any

from jade_graph.errors import UsageError
from jade_graph.patching.looking import Look
from jade_graph.patching.recovery import Cell

TOP = 5


def takeover(a: Look, b: Look, *, top: int = TOP) -> dict[str, Any]:
    """Heads and residual stream of both, side by side.

    Returns:
        `ld`: logit differences, clean and corrupted, of a and of b. `top_a`, `top_b`: the heads that move the decision
        most, whichever way; `shared` of them, `overlap` as a share; `took_over`: in b's and not in a's, with both
        recoveries; `lost`: the other way round. `heads`, `resid`: every site with both recoveries and the difference.

    Raises:
        UsageError: LOOK_VERSIONS where the two have other sites.
    """
    if (a.layers, a.heads) != (b.layers, b.heads):
        raise UsageError(
            f"one version has {a.layers} layers of {a.heads} heads, the other {b.layers} of {b.heads}: their sites do "
            "not correspond.",
            code="LOOK_VERSIONS",
            hint="two versions of one architecture",
        )
    first, second = _by_site(a), _by_site(b)
    tops = [[_name(c) for c in found.heads_by_recovery()[:top]] for found in (a, b)]
    rows = [
        {"kind": site.kind, "layer": site.layer, "at": site.group, "a": cell.recovery, "b": second[site].recovery,
         "difference": second[site].recovery - cell.recovery}
        for site, cell in first.items() if site in second
    ]  # fmt: skip
    heads = {f"L{row['layer']}H{row['at']}": row for row in rows if row["kind"] == "head"}
    shared = [name for name in tops[0] if name in tops[1]]
    return {
        "n": len(a.clean),
        "ld": {"a": [_mean(a.clean), _mean(a.corrupt)], "b": [_mean(b.clean), _mean(b.corrupt)]},
        "top_a": tops[0], "top_b": tops[1], "shared": shared, "overlap": len(shared) / max(1, len(tops[0])),
        "took_over": [{"head": name, **_both(heads[name])} for name in tops[1] if name not in tops[0]],
        "lost": [{"head": name, **_both(heads[name])} for name in tops[0] if name not in tops[1]],
        "heads": list(heads.values()), "resid": [row for row in rows if row["kind"] == "resid"],
    }  # fmt: skip


def _by_site(found: Look) -> dict[Any, Cell]:
    return {cell.site: cell for cell in found.cells}


def _name(cell: Cell) -> str:
    return f"L{cell.site.layer}H{cell.site.group}"


def _both(row: dict[str, Any]) -> dict[str, float]:
    return {"a": row["a"], "b": row["b"], "difference": row["difference"]}


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
