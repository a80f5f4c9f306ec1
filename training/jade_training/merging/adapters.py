"""LoRA adapters of one base, merged as what they change: base + sum_i c_i s_i B_i A_i.

Invariant: the product is averaged, not its factors (the mean of two factors is no mean of their product). Sums are
made in float64 and rounded once; one adapter alone gives what `jade_graph.backbones.lora.merge` gives, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jade_graph.backbones.contents import require_whole
from jade_graph.backbones.lora import changes, require_untied
from jade_graph.errors import BackboneError
from jade_training.merging.linear import Files, Writer, counted, ordered, stored


def merge_adapters(
    adapters: Sequence[Path], names: Sequence[str], coefficients: Sequence[float], base: Path, into: Path
) -> None:
    """Write `into/model.safetensors`: the base's weights with the adapters' changes, each times its coefficient.

    Args:
        adapters: folders of plain adapters of linear layers, as PEFT saves them.
        names: of the adapters, e.g. their content versions: they decide the order of the sums.

    Raises:
        BackboneError: ADAPTER_LOAD, an adapter that is not plain or fits another base. UsageError: MERGE_EMPTY,
            MERGE_COUNT, MERGE_DIFFERS.
    """
    from safetensors import SafetensorError

    counted(adapters, coefficients)
    order = ordered(names, coefficients)
    weights = stored(require_whole(base))
    found = []
    for i in order:
        try:
            require_whole(adapters[i], adapter=True)
            changed = changes(adapters[i])
            require_untied(changed, base)
            for name, change in changed.items():
                shape = (len(change.b), change.a.shape[1])
                if name not in weights or weights[name].shape != shape:
                    raise ValueError(f"the base has no {name} of {list(shape)}")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, BackboneError) as error:
            raise BackboneError(
                f"the adapter {names[i]!r} cannot be merged with the base {str(base)!r}: {error}",
                code="ADAPTER_LOAD",
                hint="merge adapters that were trained on one base",
            ) from error
        found.append((coefficients[i], changed))
    plan = {name: (part.kind, part.shape) for name, part in weights.items()}
    with Files() as files, Writer(into / "model.safetensors", plan) as out:
        for name in out.order:
            part = weights[name]
            own = [(c, changed[name]) for c, changed in found if c and name in changed]
            if not own:
                out.put(files.blocks(part))
                continue
            total = files.whole(part).double()
            for c, change in own:
                delta = change.delta()
                total += delta if c == 1.0 else delta.mul_(c)
            out.put([total])


__all__ = ["merge_adapters"]
