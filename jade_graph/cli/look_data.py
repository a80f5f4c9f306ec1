"""`jade look --data`: where relevance is decided, over many judgements of a data set's own passages.

Invariant: a pair that was measured is kept with what it was measured with; the same command goes on behind it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jade_graph.backbones.codec import Codec
from jade_graph.cli.command import Cli
from jade_graph.errors import UsageError
from jade_graph.patching.judging import contrasts, judgements
from jade_graph.patching.looking import Measured, combine, cost, measure
from jade_graph.patching.pairs import Pair
from jade_graph.patching.passes import Model, Passes
from jade_graph.patching.recovery import Kind
from jade_graph.patching.telling import LIMIT, require_cost
from jade_graph.settings.lines import Growing


def over(
    cli: Cli,
    model: Any,
    codec: Codec,
    version: str,
    *,
    data: str,
    form: str,
    count: int,
    steps: bool,
    tokens: int,
    least: float,
    keep: Path | None,
    sites: Sequence[Kind],
    every: int,
    most: int | None,
) -> dict[str, Any]:
    """The value that `jade look` prints, over so many pairs.

    Raises:
        UsageError: LOOK_FORM, LOOK_COST, LOOK_SAME, LOOK_KEEP. DataError: LOOK_DATA.
    """
    from jade_graph.data import load_dataset
    from jade_graph.retrieval.memory import MemoryRetriever

    dataset = load_dataset(data)
    cli.noted(dataset)
    found = contrasts(
        dataset, MemoryRetriever(dataset.passages), count=count * (20 if least else 1), seed=0, steps=steps
    )
    pairs = list(judgements(codec, found, form, tokens=tokens))  # type: ignore[arg-type]
    on = Model(model)
    # What stands for the whole: with a least difference it is not known yet which pairs will be taken.
    wanted = cost(on, pairs[:count], sites=sites, every=every)
    size = sum(w.numel() for w in model.parameters())
    cli.out.log(
        f"{wanted.passes} batches of at most {wanted.rows} rows: about {wanted.tokens:,} tokens through "
        f"{size / 1e6:,.1f} M parameters, {2 * size * wanted.tokens / 1e12:,.2f} Tflop"
    )
    require_cost(wanted.tokens, most or LIMIT * count)
    about = {"data": data, "form": form, "steps": steps, "tokens": tokens, "least": least, "sites": list(sites),
             "every": every, "version": version}  # fmt: skip
    kept = _kept(keep, about)
    left_out = [row["left_out"] for row in kept.rows if "left_out" in row]
    done = {row["name"]: _measured(row) for row in kept.rows if "left_out" not in row}
    began = time.process_time()
    with cli.out.progress("patching pairs", "pairs") as tick:
        for pair in pairs:
            if len(done) >= count:
                break
            if pair.name in done or pair.name in left_out:
                continue
            if least and _parts(on, pair) < least:
                left_out.append(pair.name)
                kept.add({"left_out": pair.name})
                continue
            done[pair.name] = measure(on, pair, sites=sites, every=every)
            kept.add({"name": pair.name, **done[pair.name].as_dict()})
            tick(len(done), count)
    seen = combine(list(done.values()), rounding=on.rounding)
    right = sum(a > b for a, b in zip(seen.clean, seen.corrupt, strict=True))
    notes = [f"documents cut to at most {tokens} tokens, both of a pair to one length"]
    if least:
        notes.append(
            f"{len(left_out)} pairs that part by less than {least:g} nats left out of {len(left_out) + len(done)}"
        )
    return {
        "decision": f"{form} relevance over {dataset.name}, {version}", "version": version, "notes": notes,
        "data": dataset.name, "form": form, "left_out": len(left_out), "clean_above": right, **seen.as_dict(),
        "cost": {"batches": wanted.passes, "rows": wanted.rows, "tokens": wanted.tokens,
                 "cpu_s": round(time.process_time() - began, 2)},
    }  # fmt: skip


def _parts(on: Model, pair: Pair) -> float:
    """By how much the clean prompt's logit difference is above the corrupted one's."""
    passes = Passes(on, pair, shortcuts=False)
    return passes.difference(pair.clean)[0] - passes.difference(pair.corrupt)[0]


def _measured(row: Mapping[str, Any]) -> Measured:
    return Measured.of({key: value for key, value in row.items() if key != "name"})


def _kept(keep: Path | None, about: dict[str, Any]) -> Growing:
    """What a file has already; one of other options is refused. Raises `UsageError` LOOK_KEEP."""

    def refuse(before: Mapping[str, Any]) -> UsageError:
        return UsageError(
            f"{str(keep)!r} was measured with other options: {before.get('about')}.",
            code="LOOK_KEEP",
            hint="another file for --keep, or the same options",
        )

    return Growing(keep, {"about": about}, refuse)
