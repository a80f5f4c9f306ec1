"""Two figures: F1 as it was learned, and F1 against calls.

Invariant: drawn from the results alone, without a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jade_training.compare.report import SWEEPS
from jade_training.compare.run import Result

COLOURS = ("#0b6e99", "#c4550f", "#3f7d20", "#7b4ea3", "#b0183c", "#8a6d00", "#4d4d4d", "#d081b0", "#20808d")
COSTS = {"calls": "calls of the language model per question", "prompt_tokens": "prompt tokens per question"}


def curves(results: Sequence[Result], path: Path) -> None:
    """F1 on the development world by update, a line an arm: mean over seeds, with the range of seeds as a band."""
    figure, axes = _figure()
    names = list(dict.fromkeys(r.arm for r in results if r.trained))
    for colour, name in zip(COLOURS * 3, names, strict=False):
        mine = [{int(k): e["f1"] for k, e in r.evaluations.items()} for r in results if r.arm == name]
        steps = sorted(set.intersection(*(set(m) for m in mine)))
        means = [sum(m[s] for m in mine) / len(mine) for s in steps]
        axes.plot(
            steps, means, marker="o", markersize=3, color=colour, label=name, linewidth=2 if name == "joint" else 1.2
        )
        if len(mine) > 1:
            low, high = ([f(m[s] for m in mine) for s in steps] for f in (min, max))
            axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xlabel("updates")
    axes.set_ylabel("F1 on the development world, greedy")
    _save(figure, axes, path)


def front(
    arms: Mapping[str, Any],
    path: Path,
    *,
    against: str = "calls",
    sweeps: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> None:
    """F1 against a cost per question on the test world, "calls" or "prompt_tokens", with 95 % intervals.

    Args:
        sweeps: F1 and cost of the joint arm by what was priced and its price; drawn as lines.
    """
    figure, axes = _figure()
    for colour, (name, a) in zip(COLOURS * 3, arms.items(), strict=False):
        mean, (low, high) = a["f1"]["mean"], a["f1"]["ci95"]
        cost = a[against]["mean"]
        shape = "D" if name == "joint" else "s" if name.startswith("static") else "o"
        axes.errorbar(
            cost,
            mean,
            yerr=[[max(0.0, mean - low)], [max(0.0, high - mean)]],
            fmt=shape,
            color=colour,
            label=name,
            capsize=3,
        )
    for style, (of, points) in zip((":", "--"), (sweeps or {}).items(), strict=False):
        at = sorted((p[against], p["f1"]) for p in points.values())
        label = f"joint, {SWEEPS[of]} swept"
        axes.plot(*zip(*at, strict=True), style, marker=".", color="#888888", label=label, linewidth=1, zorder=0)
    axes.set_xlabel(COSTS[against])
    axes.set_ylabel("F1 on the test world, greedy")
    _save(figure, axes, path)


def _figure() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), dpi=120)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _save(figure: Any, axes: Any, path: Path) -> None:
    from matplotlib import pyplot

    axes.set_ylim(bottom=0.0)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": ""})
    pyplot.close(figure)
