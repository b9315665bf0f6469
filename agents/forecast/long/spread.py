"""How wrong a long forecast becomes: four components of error, their variances found in rolling errors.

error = slope (grows with each step) + wander (a random walk) + level (the same at every step) + noise (first-order
autoregressive). The variance of the mean error over any block ahead is linear in the four variances, so they follow
from squared block errors by non-negative least squares, and with them the spread of a step, of a month's total and of
a year's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import t as student

from agents.forecast.base import DECILES
from agents.forecast.frames import Floats

_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Spread:
    """Errors relative to the forecast where it `scales`, else in the unit of the series.

    Attributes:
        slope: variance of a growth that is wrong, per step squared.
        wander: variance that a step adds for good.
        level: variance of what is wrong at all steps alike.
        noise: variance of what is wrong at one step, forgotten by `memory` from step to step.
        freedom: degrees of freedom: how many independent errors were seen. Few of them make long tails.
    """

    slope: float
    wander: float
    level: float
    noise: float
    memory: float
    freedom: float
    scales: bool

    def covariance(self, point: Floats) -> Floats:
        """Of the errors of a forecast [h], in its unit squared [h, h]."""
        steps = np.arange(1, len(point) + 1)
        grown, walk, constant, forgotten = _shapes(steps, self.memory)
        shape = self.slope * grown + self.wander * walk + self.level * constant + self.noise * forgotten
        return shape * np.outer(point, point) if self.scales else shape

    def deciles(self, total: Floats, variance: Floats) -> Floats:
        """Deciles [..., 9] of sums [...] whose errors have these variances [...]."""
        width = np.sqrt(np.maximum(variance, 0.0))[..., None] * student.ppf(DECILES, self.freedom)
        # a variance from few errors: the quantiles of Student's t are those of the next error
        return np.maximum.accumulate(total[..., None] + width, axis=-1)

    def paths(self, point: Floats, draws: int, rng: np.random.Generator) -> Floats:
        """Drawn futures [draws, h] of a forecast [h]; sums over their steps have the spread of sums."""
        root = _root(self.covariance(point))
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, draws))
        return point + scale[:, None] * (rng.standard_normal((draws, len(point))) @ root.T)


def measured(errors: Floats, memory: float, freedom: float, blocks: tuple[int, ...], *, scales: bool) -> Spread:
    """The components behind rolling errors.

    Args:
        errors: of forecasts from several origins [origins, h], NaN where the truth is not on record.
        memory: of the noise.
        freedom: independent errors among them.
        blocks: lengths of blocks, in steps, whose mean errors are looked at.
        scales: whether they are relative to the forecast.
    """
    shapes = _shapes(np.arange(1, errors.shape[1] + 1), memory)
    rows, squares, counts = [], [], []
    for length in blocks:
        for start in range(0, errors.shape[1] - length + 1, length):
            mean = errors[:, start : start + length].mean(axis=1)
            seen = np.isfinite(mean)
            if seen.any():
                span = slice(start, start + length)
                rows.append([shape[span, span].mean() for shape in shapes])
                squares.append(float(np.mean(mean[seen] ** 2)))
                counts.append(seen.sum() * length)  # single steps are many and alike
    design, target = np.array(rows), np.array(squares)
    weight = np.sqrt(np.array(counts, dtype=np.float64)) / np.maximum(target.mean(), 1e-300)
    variances = np.zeros(4)
    for _ in range(_ROUNDS):
        variances, _ = nnls(design * weight[:, None], target * weight)
        # a squared error varies as its expectation does: weigh by that
        expected = np.maximum(design @ variances, 1e-3 * target.mean() + 1e-300)
        weight = np.sqrt(np.array(counts, dtype=np.float64)) / expected
    slope, wander, level, noise = (float(v) for v in variances)
    return Spread(slope, wander, level, noise, memory, max(freedom, 3.0), scales)


def _shapes(steps: np.ndarray, memory: float) -> tuple[Floats, Floats, Floats, Floats]:
    """The covariances [h, h] of a slope, a random walk, a constant and an autoregressive noise of variance 1."""
    steps = steps.astype(np.float64)
    lag = np.abs(steps[:, None] - steps)
    return (
        np.outer(steps, steps),
        np.minimum(steps[:, None], steps),
        np.ones_like(lag),
        np.where(lag == 0, 1.0, memory**lag),
    )


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
