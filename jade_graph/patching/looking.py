"""`look`: every site of a model patched over a set of pairs, one batch a layer.

Invariant: the cost is known before the first pass. Sites whose activations cannot differ (they stand before the first
token that does) are told as exactly 0 and not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jade_graph.errors import UsageError, unknown
from jade_graph.patching.pairs import LAST, Pair, same
from jade_graph.patching.passes import Model, Passes, Patch, Saved, open_passes
from jade_graph.patching.recovery import EMBEDDING, KINDS, Cell, Kind, Site, cells

SITES = KINDS
Tick = Callable[[int, int], None]
_MOST_TOKENS = 32_768
"""Tokens of one batch: more rows than that are taken in several."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a look costs: `passes` batches of at most `rows` rows, `tokens` through the whole model all in all."""

    passes: int
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        cells: recovery by site; residual stream by layer (-1: the embedding), attention and MLP outputs by layer and
            group of positions, heads at all positions.
        clean, corrupt: logit difference of every pair (nats).
        groups: in the order of the prompt.
        own, whole: the check: patched with the corrupted run's own activations 0, with all the clean ones 1.
        shortcuts: pairs for which equal parts were shared.
    """

    cells: tuple[Cell, ...]
    clean: tuple[float, ...]
    corrupt: tuple[float, ...]
    groups: tuple[str, ...]
    layers: int
    heads: int
    own: float
    whole: float
    shortcuts: int

    def value(self, kind: Kind, layer: int, group: str | int) -> float | None:
        """The recovery of a site; None where the model has none such."""
        found = Site(kind, layer, str(group))
        return next((c.recovery for c in self.cells if c.site == found), None)

    def heads_by_recovery(self) -> tuple[Cell, ...]:
        """The heads, those that move the decision most first, whichever way."""
        return tuple(sorted((c for c in self.cells if c.site.kind == "head"), key=lambda c: -abs(c.recovery)))

    def as_dict(self) -> dict[str, Any]:
        return {
            "n": len(self.clean),
            "ld_clean": sum(self.clean) / len(self.clean),
            "ld_corrupt": sum(self.corrupt) / len(self.corrupt),
            "layers": self.layers, "heads": self.heads, "groups": list(self.groups),
            "own": self.own, "whole": self.whole,
            "sites": [
                {"kind": c.site.kind, "layer": c.site.layer, "at": c.site.group, "recovery": c.recovery,
                 "low": c.low, "high": c.high}
                for c in self.cells
            ],
        }  # fmt: skip


def cost(model: Any, pairs: Sequence[Pair], *, sites: Sequence[Kind] = SITES, every: int = 1) -> Cost:
    """What `look` with the same arguments will take, at the most."""
    on = model if isinstance(model, Model) else Model(model)
    chosen, depth = _checked(sites), len(on.blocks)
    passes = rows = tokens = 0
    for pair in pairs:
        length = len(pair.clean) - pair.first + len(pair.choice) + len(pair.other) - 2
        tokens += 3 * len(pair.clean) + 8 * length
        for layer in _layers(depth, every):
            count = len(_patches(on, pair, layer, chosen)) + (2 if layer == EMBEDDING else 0)
            passes += 1
            rows = max(rows, count)
            tokens += length * (max(layer, 0) + count * (depth - max(layer, 0))) // depth
    return Cost(passes, rows, tokens)


@dataclass(frozen=True, slots=True)
class Measured:
    """The logit differences of one pair: clean, corrupted, the two ends of the scale, and patched by site."""

    clean: float
    corrupt: float
    own: float
    whole: float
    patched: Mapping[Site, float]
    groups: Mapping[str, float]
    shortcuts: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `Measured.of` reads it again."""
        return {**asdict(self), "patched": [[*site, value] for site, value in self.patched.items()]}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Measured:
        return cls(**{**value, "patched": {Site(kind, at, group): ld for kind, at, group, ld in value["patched"]}})


def measure(
    model: Any,
    pair: Pair,
    *,
    sites: Sequence[Kind] = SITES,
    every: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> Measured:
    """Patch every site for one pair. `tick` is called after each batch. Raises `UsageError` as `look`."""
    on, chosen = model if isinstance(model, Model) else Model(model), _checked(sites)
    passes = open_passes(on, pair)
    saved: Saved = []
    own: Saved = []
    (clean,) = passes.difference(pair.clean, sink=saved)
    (corrupt,) = passes.difference(pair.corrupt, sink=own)
    ends = _ends(passes, saved, own)
    patched: dict[Site, float] = {}
    for layer in _layers(len(on.blocks), every):
        patched |= dict.fromkeys(_named(on, pair, layer, chosen), corrupt)
        patched |= dict(_batches(passes, layer, _patches(on, pair, layer, chosen), saved))
        tick()
    places = {group: at[0] / len(pair.clean) for group, at in pair.groups.items()}
    return Measured(clean, corrupt, *ends, patched, places, passes.shortcuts)


def look(
    model: Any,
    pairs: Sequence[Pair],
    *,
    sites: Sequence[Kind] = SITES,
    every: int = 1,
    seed: int = 0,
    tick: Tick | None = None,
) -> Look:
    """Patch every site of every pair: clean activations into the corrupted run.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        sites: "resid", "attn", "mlp" (by layer and group of positions), "head".
        every: only each so manieth layer, from the last one down.
        seed: of the intervals.
        tick: called with (batches done, of how many).

    Raises:
        UsageError: LOOK_SAME, LOOK_SITES, LOOK_ARCHITECTURE.
    """
    on, done = Model(model), 0
    total = len(_layers(len(on.blocks), every)) * len(pairs)

    def one() -> None:
        nonlocal done
        done += 1
        if tick is not None:
            tick(done, total)

    found = [measure(on, pair, sites=sites, every=every, tick=one) for pair in pairs]
    return combine(found, rounding=on.rounding, seed=seed)


def combine(found: Sequence[Measured], *, rounding: float = 0.0, seed: int = 0) -> Look:
    """The recovery of every site over the pairs that were measured.

    Args:
        rounding: what of a single pair's logit differences is no difference, relative to 1 or to the larger one.

    Raises:
        UsageError: LOOK_SAME.
    """
    if not found:
        raise same("there is no pair")
    clean, corrupt = [m.clean for m in found], [m.corrupt for m in found]
    between = sum(clean) - sum(corrupt)
    if abs(between) <= rounding * max(1.0, abs(sum(clean)) / len(found)) * len(found):
        raise same(
            f"the logit difference of the clean prompt ({sum(clean) / len(found):.4f}) and of the corrupted one "
            f"({sum(corrupt) / len(found):.4f}) is the same within rounding"
        )
    sites = [*dict.fromkeys(site for m in found for site in m.patched)]
    # A pair whose prompt has no such group gives nothing back there.
    patched = {site: tuple(m.patched.get(site, m.corrupt) for m in found) for site in sites}
    return Look(
        cells(patched, clean, corrupt, seed=seed), tuple(clean), tuple(corrupt), _groups(found),
        1 + max(site.layer for site in sites), len({site.group for site in sites if site.kind == "head"}),
        (sum(m.own for m in found) - sum(corrupt)) / between,
        (sum(m.whole for m in found) - sum(corrupt)) / between,
        sum(m.shortcuts for m in found),
    )  # fmt: skip


def _ends(passes: Passes, saved: Saved, own: Saved) -> tuple[float, float]:
    """The two ends of the scale, in the middle of the model: everything of the corrupted run, and of the clean one."""
    layer = len(passes.on.blocks) // 2
    everywhere = (Patch(0, "resid", tuple(range(passes.offset, len(passes.pair.clean))), ends=True),)
    corrupt = passes.pair.corrupt
    (first,) = passes.difference(corrupt, layer=layer, patches=everywhere, source=own)
    (last,) = passes.difference(corrupt, layer=layer, patches=everywhere, source=saved)
    return first, last


def _batches(
    passes: Passes, layer: int, named: Sequence[tuple[Site, Patch]], source: Saved
) -> Iterator[tuple[Site, float]]:
    length = len(passes.pair.clean) - passes.offset
    size = max(1, _MOST_TOKENS // length)
    for start in range(0, len(named), size):
        part = named[start : start + size]
        patches = [patch._replace(row=row) for row, (_, patch) in enumerate(part)]
        values = passes.difference(passes.pair.corrupt, layer=layer, rows=len(part), patches=patches, source=source)
        yield from zip((site for site, _ in part), values, strict=True)


def _patches(on: Model, pair: Pair, layer: int, sites: Sequence[Kind]) -> list[tuple[Site, Patch]]:
    """The patches of a layer that can change anything."""
    out = []
    for site in _named(on, pair, layer, sites):
        positions = range(pair.first, len(pair.clean)) if site.kind == "head" else pair.groups[site.group]
        later = tuple(p for p in positions if p >= pair.first)
        if layer == EMBEDDING:
            later = tuple(p for p in later if pair.clean[p] != pair.corrupt[p])
        if later:
            head = int(site.group) if site.kind == "head" else None
            out.append((site, Patch(0, site.kind, later, head, ends=head is not None or site.group == LAST)))
    return out


def _named(on: Model, pair: Pair, layer: int, sites: Sequence[Kind]) -> Iterator[Site]:
    """Every site of a layer."""
    block = on.blocks[max(layer, 0)]
    there: dict[Kind, bool] = {
        "resid": True,
        "attn": layer != EMBEDDING and block.attention is not None,
        "mlp": layer != EMBEDDING and block.mlp is not None,
        "head": layer != EMBEDDING and block.mix is not None,
    }
    for kind in sites:
        if there[kind]:
            groups = map(str, range(block.heads)) if kind == "head" else iter(pair.groups)
            yield from (Site(kind, layer, group) for group in groups)


def _layers(depth: int, every: int) -> list[int]:
    """The embedding, and each so manieth block, the last one among them."""
    if every < 1:
        raise UsageError(f"every={every}: each so manieth layer, from 1.", code="LOOK_SITES", hint="every=2")
    return [EMBEDDING, *sorted(range(depth - 1, -1, -every))]


def _groups(found: Sequence[Measured]) -> tuple[str, ...]:
    """All pairs' groups, in the order of the prompt: by where they first stand, on average."""
    places: dict[str, list[float]] = {}
    for measured in found:
        for group, place in measured.groups.items():
            places.setdefault(group, []).append(place)
    return tuple(sorted(places, key=lambda group: sum(places[group]) / len(places[group])))


def _checked(sites: Sequence[Kind]) -> tuple[Kind, ...]:
    for site in sites:
        if site not in KINDS:
            raise unknown("site", site, KINDS, code="LOOK_SITES")
    if not sites:
        raise UsageError("no kind of site is chosen.", code="LOOK_SITES", known=KINDS)
    return tuple(kind for kind in KINDS if kind in sites)
