"""What was found, as plain values that a terminal, a picture and a page show.

Invariant: every figure is there as a number; the text of the prompt stands under them, cut into its groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jade_graph.backbones.codec import Codec
from jade_graph.errors import UsageError
from jade_graph.patching.decisions import Decision
from jade_graph.patching.looking import Look
from jade_graph.patching.pairs import Pair
from jade_graph.patching.passes import Model, open_passes
from jade_graph.types import Backbone, Leasing

KIND_NAMES: Mapping[str, str] = {
    "resid": "residual stream", "attn": "attention output", "mlp": "MLP output", "head": "heads, at all positions",
}  # fmt: skip
LIMIT = 400_000
"""Tokens through the model that a look may take where nobody allowed more."""
FAINT = 0.1
"""Nats between clean and corrupted below which a look says that there is hardly a decision."""


@contextmanager
def model_of(backbone: Backbone) -> Iterator[tuple[Any, Codec, str]]:
    """The transformers model, the text side and the version of a backbone in this process.

    Raises:
        UsageError: LOOK_MODEL.
    """
    lease = backbone.lease() if isinstance(backbone, Leasing) else None
    try:
        held: Any = lease.backbone if lease is not None else backbone
        if not hasattr(held, "model") or not hasattr(held, "codec"):
            raise UsageError(
                f"the model {held.version!r} does not run in this process: nobody can look into it.",
                code="LOOK_MODEL",
                hint="--backbone with a folder, a hub id or models:/NAME@ALIAS",
            )
        yield held.model, held.codec, held.version
    finally:
        if lease is not None:
            lease.release()


def nearest(model: Any, found: Sequence[Decision]) -> Decision:
    """Of several alternatives the one that the model came nearest to, in the clean prompt."""
    if len(found) == 1:
        return found[0]
    on = Model(model)
    return min(found, key=lambda d: open_passes(on, d.pair).difference(d.pair.clean)[0])


def require_cost(tokens: int, limit: int) -> None:
    """Raises `UsageError` LOOK_COST."""
    if tokens > limit:
        raise UsageError(
            f"looking there takes {tokens:,} tokens through the model; allowed are {limit:,}.",
            code="LOOK_COST",
            hint=f"--every 3 (each third layer), --sites resid, or --most {tokens}",
        )


def of_decision(codec: Codec, decision: Decision, found: Look, version: str) -> dict[str, Any]:
    """A decision that was looked at, for JSON, a picture or a page."""
    t, pair = decision.transition, decision.pair
    notes = list(pair.notes)
    if t.backbone_version and t.backbone_version != version:
        notes.append(f"the run was made with {t.backbone_version}; this looks into {version}")
    between = abs(found.clean[0] - found.corrupt[0])
    if between < FAINT:
        notes.append(f"clean and corrupted differ by {between:.3f} nats alone: recoveries of so little mean little")
    return {
        "run_id": t.run_id, "seq": t.seq, "role": t.role, "action": t.action_text, "decision": decision.chosen.name,
        "choice": decision.chosen.choice, "other": decision.chosen.other,
        "swapped": {"old": decision.old, "new": decision.new}, "version": version, "notes": notes,
        "prompt": text_of(codec, pair), **found.as_dict(),
    }  # fmt: skip


def text_of(codec: Codec, pair: Pair) -> list[list[str]]:
    """The clean prompt in stretches of one group each: [group, text]."""
    owner = {p: group for group, positions in pair.groups.items() for p in positions}
    out: list[list[str]] = []
    run: list[int] = []
    for p, token in enumerate(pair.clean):
        if run and owner[p] != owner[p - 1]:
            out.append([owner[p - 1], codec.decode(run)])
            run = []
        run.append(token)
    return [*out, [owner[len(pair.clean) - 1], codec.decode(run)]]


def rows_of(value: Mapping[str, Any], kind: str) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """One kind of site as a table: names of the columns, and a row a layer, the embedding first."""
    mine = [s for s in value["sites"] if s["kind"] == kind]
    columns = [g for g in value["groups"] if any(s["at"] == g for s in mine)] if kind != "head" else [
        str(h) for h in range(1 + max((int(s["at"]) for s in mine), default=-1))
    ]  # fmt: skip
    known = {(s["layer"], s["at"]): s["recovery"] for s in mine}
    layers = sorted({s["layer"] for s in mine})
    return columns, [(layer_name(at), [known.get((at, c)) for c in columns]) for at in layers]


def layer_name(layer: int) -> str:
    return "emb" if layer < 0 else str(layer)


def strongest(value: Mapping[str, Any], count: int = 5) -> list[dict[str, Any]]:
    """The heads that move the decision most, whichever way."""
    heads = [s for s in value["sites"] if s["kind"] == "head"]
    return sorted(heads, key=lambda s: -abs(s["recovery"]))[:count]


__all__ = [
    "FAINT",
    "KIND_NAMES",
    "LIMIT",
    "layer_name",
    "model_of",
    "nearest",
    "of_decision",
    "require_cost",
    "rows_of",
    "strongest",
    "text_of",
]
