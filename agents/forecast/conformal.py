"""The same correction for every forecaster: stretch its bands by the factor that would have made them right lately.

Split conformal: the model is fitted without the last part of its training data and forecasts that part from
rolling origins. An error divided by the half-width of the band it should have stayed in is its score; the 80 %
quantile of the n scores, of rank ceil(0.8 (n + 1)), is the factor of the 80 % band, and so on for each band.

The last part holds only a few dozen errors that do not overlap, so a factor is itself uncertain: it is raised to
the power `trust`. One half was chosen on the first 75 % of the embedded traces: there, coverage came nearer to 80 %
than without correction (0) and than with plain split conformal (1). The usual finite-sample guarantee does not
hold for dependent errors: coverage is measured, never assumed.

Source: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman (2018), Distribution-free predictive inference for
regression, JASA 113: locally weighted split conformal, with the model's own half-width as the weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from agents.forecast.base import DECILES, MEDIAN, Floats, Forecaster, Past, Progress, fitted_to, part
from agents.forecast.frames import Series, first, steps_in
from agents.forecast.rolling import roll
from twin.errors import UsageError

_LEAST_ORIGINS = 20
_LEAST_WIDTH = 1e-9  # of the median and of what came: keeps a band of no width from dividing by zero
_FACTORS = (0.2, 5.0)  # no correction goes further than this


@dataclass(frozen=True, slots=True)
class Conformal:
    """A forecaster with corrected bands; its median stays as it is.

    The base is fitted twice: without the last `share`, at least `least_steps` (one day: errors follow the time of
    day), to measure its errors at an origin every `every` steps; then on everything. `stretch` holds, per series,
    the factor by which each decile moves away from the median.
    """

    base: Forecaster
    horizon: int = 12
    share: float = 0.1
    least_steps: int = 288
    every: int = 3
    trust: float = 0.5
    stretch: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """That of the base."""
        return self.base.name

    @property
    def context(self) -> int:
        """That of the base."""
        return self.base.context

    @property
    def needs(self) -> int:
        """That of the base."""
        return self.base.needs

    @property
    def pooled(self) -> bool:
        """As the base."""
        return self.base.pooled

    def fit(self, series: Sequence[Series], seed: int, progress: Progress | None = None) -> Self:
        """Measure the errors, then fit on everything; a series too short to measure can then not be forecast."""
        early = self.base.fit(first(series, 1.0 - self.share, self.least_steps), seed, part(progress, 0.0, 0.5))
        stretch = {s.unique_id: found for s in series if (found := self._measure(early, s)) is not None}
        return replace(self, base=self.base.fit(series, seed, part(progress, 0.5, 1.0)), stretch=stretch)

    def forecast(self, past: Past, h: int) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError as the base, or when a series was too short to measure."""
        factors = [self._factors(i) for i in past.ids]
        said = self.base.forecast(past, h)
        return floored(stretched(said, np.stack(factors)[:, None, :]), past.y) if factors else said

    def _factors(self, unique_id: str) -> Floats:
        if self.stretch and unique_id not in self.stretch:
            raise UsageError(
                f"{self.name}, conformal: {unique_id!r} was not fitted, or its last {self.share:.0%} (and at least "
                f"{self.least_steps} steps) held fewer than {_LEAST_ORIGINS} origins to measure errors at; give a "
                "longer series, or a smaller least_steps or every"
            )
        return fitted_to(self.stretch, unique_id, f"{self.name}, conformal")

    def _measure(self, fitted: Forecaster, series: Series) -> Floats | None:
        """The factors [9] of one series, or None when it has too few origins to tell."""
        values = series.values
        start = max(steps_in(len(values), 1.0 - self.share, self.least_steps), fitted.needs)
        origins = np.arange(start, len(values) - self.horizon + 1, self.every)
        if len(origins) < _LEAST_ORIGINS:
            return None
        rolled = roll(fitted, series, origins, self.horizon)
        return factors_of(rolled.said, rolled.truth) ** self.trust


def factors_of(said: Floats, truth: Floats) -> Floats:
    """The factors [9] that would have given the bands of `said` [..., 9] their coverage of one more `truth` [...]."""
    median = said[..., MEDIAN]
    least = _LEAST_WIDTH * (np.abs(median) + np.abs(truth).mean()) + np.finfo(np.float64).tiny
    factors = np.ones(len(DECILES))
    for low in range(MEDIAN):
        high = len(DECILES) - 1 - low
        half = np.where(truth > median, said[..., high] - median, median - said[..., low])
        scores = np.abs(truth - median) / np.maximum(half, least)
        rank = min(math.ceil((scores.size + 1) * (DECILES[high] - DECILES[low]) - 1e-9), scores.size)
        factors[[low, high]] = np.clip(np.partition(scores, rank - 1, axis=None)[rank - 1], *_FACTORS)
    return factors


def stretched(said: Any, factors: Any) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """Deciles [..., 9] moved away from their median by `factors` [..., 9]; no band leaves a wider one."""
    xp = said.__array_namespace__()
    median = said[..., MEDIAN]
    moved = median[..., None] + factors * (said - median[..., None])
    above, below = [median], [median]
    for k in range(1, MEDIAN + 1):
        above.append(xp.maximum(above[-1], moved[..., MEDIAN + k]))
        below.append(xp.minimum(below[-1], moved[..., MEDIAN - k]))
    return xp.stack([*below[:0:-1], *above], axis=-1)


def floored(said: Any, y: Any) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """Deciles [batch, h, 9] that stay at or above zero where all that is known of `y` [batch, steps] does.

    What was never negative is an amount; a band that is mirrored around its median knows nothing of that.
    """
    xp = said.__array_namespace__()
    amount = ~(y < 0.0).any(axis=1)
    return xp.where(amount[:, None, None], xp.maximum(said, 0.0), said)
