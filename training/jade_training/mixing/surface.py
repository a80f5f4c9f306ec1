"""What shares lead to: a regressor for each capability over merges that were scored, and the best shares under it.

Invariant: pure functions of points and scores; nothing here knows a model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jade_graph.errors import UsageError, unknown
from jade_training.mixing.simplex import uniform

if TYPE_CHECKING:
    from jade_training.mixing.simplex import Points

_CANDIDATES = 20_000


class Surface:
    """Gaussian processes over the simplex, one for each capability.

    Args:
        points: shares (n, parts) that were scored.
        scores: by capability, n numbers; larger is better.
    """

    def __init__(self, points: Points, scores: Mapping[str, Sequence[float]], *, seed: int = 0) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        self.points, self.scores = np.asarray(points, dtype=np.float64), {k: np.asarray(v) for k, v in scores.items()}
        self._fitted: dict[str, Any] = {}
        self.scale: dict[str, tuple[float, float]] = {}
        for name, values in self.scores.items():
            low, spread = float(values.min()), float(np.ptp(values)) or 1.0
            self.scale[name] = low, spread
            kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(1.0, (0.1, 30.0), nu=2.5) + WhiteKernel(
                1e-3, (1e-8, 1.0)
            )
            model: Any = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a bound of the kernel that is reached is no fault of the scores
                self._fitted[name] = model.fit(self.points, (values - low) / spread)

    def predict(self, points: Points) -> dict[str, Any]:
        """By capability, what is expected of each point, on the scale of the scores."""
        found = {}
        for name, model in self._fitted.items():
            low, spread = self.scale[name]
            found[name] = low + spread * model.predict(np.asarray(points))
        return found

    def utility(self, values: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Any:
        """The weighted mean of the capabilities, each from 0 (the worst point scored) to 1 (the best).

        Raises `UsageError` UNKNOWN_CAPABILITY, BAD_WEIGHTS.
        """
        weigh = dict(weights or dict.fromkeys(self.scores, 1.0))
        for name in weigh:
            if name not in self.scores:
                raise unknown("capability", name, self.scores, code="UNKNOWN_CAPABILITY")
        total = sum(weigh.values())
        if not total > 0 or min(weigh.values()) < 0:
            raise UsageError(
                f"the weights {weigh} are no shares of a utility.", code="BAD_WEIGHTS", hint="--weigh musique=2"
            )
        return sum(w / total * (np.asarray(values[n]) - self.scale[n][0]) / self.scale[n][1] for n, w in weigh.items())

    def best(self, weights: Mapping[str, float] | None = None, *, seed: int = 0) -> Points:
        """The shares with the highest predicted utility: of many points, then of ever closer ones around the best."""
        parts = self.points.shape[1]
        found = np.concatenate([uniform(parts, _CANDIDATES, seed), self.points, np.eye(parts)])
        at = found[int(np.argmax(self.utility(self.predict(found), weights)))]
        for i, reach in enumerate((0.1, 0.03, 0.01)):
            near = (1 - reach) * at + reach * uniform(parts, 2000, seed + 1 + i)
            near = np.concatenate([near, at[None]])
            at = near[int(np.argmax(self.utility(self.predict(near), weights)))]
        return np.asarray(at)


__all__ = ["Surface"]
