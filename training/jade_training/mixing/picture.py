"""The surface of a search as a picture: a curve for two experts, a triangle for three; for more, each share alone.

Invariant: what is drawn are the merges that were scored, the regressors' mean between them, and the verified best.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jade_training.mixing.search import Found
from jade_training.mixing.simplex import grid
from jade_training.mixing.surface import Surface


def draw(found: Found, file: Path, *, weights: dict[str, float] | None = None) -> Path:
    """Write a picture (PNG or SVG, by the file's name)."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names, surface = list(found.shares), found.surface
    points, scored = surface.points, surface.utility(surface.scores, weights)
    best = np.asarray([found.shares[n] for n in names])
    figure, axis = plt.subplots(figsize=(6, 5), constrained_layout=True)
    if len(names) == 3:
        _triangle(axis, figure, surface, points, scored, best, names, weights)
    else:
        _lines(axis, surface, points, scored, best, names, weights)
    figure.savefig(file, dpi=150, metadata={"Software": None} if file.suffix == ".png" else {"Date": None})
    plt.close(figure)
    return file


def _triangle(
    axis: Any, figure: Any, surface: Surface, points: Any, scored: Any, best: Any, names: list[str], weights: Any
) -> None:
    corners = np.asarray([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    fine = grid(3, 40)
    value = surface.utility(surface.predict(fine), weights)
    drawn = axis.tricontourf(*(fine @ corners).T, value, levels=14, cmap="viridis")
    figure.colorbar(drawn, ax=axis, label="utility", shrink=0.8)
    axis.scatter(*(points @ corners).T, c=scored, cmap="viridis", edgecolors="white", s=36, zorder=3,
                 vmin=float(value.min()), vmax=float(value.max()))  # fmt: skip
    axis.scatter(*(best @ corners), marker="*", s=220, c="white", edgecolors="black", zorder=4)
    for name, corner, (dx, dy, align) in zip(
        names, corners, [(0, -0.05, "left"), (0, -0.05, "right"), (0, 0.03, "center")], strict=True
    ):
        axis.text(corner[0] + dx, corner[1] + dy, name, ha=align, va="center")
    axis.set_aspect("equal")
    axis.set_ylim(-0.1, 0.95)
    axis.axis("off")
    axis.set_title("merges scored (dots), predicted between, best (star)")


def _lines(axis: Any, surface: Surface, points: Any, scored: Any, best: Any, names: list[str], weights: Any) -> None:
    """The share of one expert from nothing to all, the others keeping the best's shares among themselves."""
    at = np.linspace(0, 1, 101)
    for i, name in enumerate(names[:1] if len(names) == 2 else names):
        rest = best.copy()
        rest[i] = 0.0
        rest = (
            rest / rest.sum()
            if rest.sum()
            else np.full(len(names), 1 / (len(names) - 1)) * (np.arange(len(names)) != i)
        )
        path = at[:, None] * np.eye(len(names))[i] + (1 - at[:, None]) * rest
        line = axis.plot(at, surface.utility(surface.predict(path), weights), label=name)[0]
        if len(names) == 2:
            axis.scatter(points[:, i], scored, color=line.get_color())
        axis.axvline(best[i], color=line.get_color(), linestyle=":", linewidth=1)
    axis.set_xlabel("share")
    axis.set_ylabel("utility")
    axis.legend()


__all__ = ["draw"]
