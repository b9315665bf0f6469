"""The same correction for every forecaster: move each decile to where it would have been right lately.

Split conformal quantiles: the model is fitted without the last part of its training data, its errors there are
measured at rolling origins, and each decile, at each number of steps ahead, is moved by the same decile of its
own errors. Errors at neighbouring origins depend on each other and the future may differ from the past, so the
usual finite-sample guarantee does not hold here: coverage is measured, never assumed.

Source: Romano, Patterson and Candes (2019), Conformalized quantile regression, NeurIPS, for one side at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import polars as pl

from agents.forecast.base import DECILES, Floats, Forecaster, Progress, check_histories, fitted_to
from agents.forecast.frames import Series, first, normalise, panel, steps_in, windows
from twin.errors import UsageError

_LEAST_ORIGINS = 20


@dataclass(frozen=True, slots=True)
class Conformal:
    """A forecaster with corrected deciles.

    The moves are in units of the spread of the last `scale_steps` (`frames.normalise`), so that a series which
    doubles doubles its bands. The base is fitted twice: without the last `share` to measure its errors, then on
    everything. The median moves like any other decile.
    """

    base: Forecaster
    horizon: int = 12
    share: float = 0.1
    every: int = 3
    scale_steps: int = 288
    moves: Mapping[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """That of the base."""
        return self.base.name

    @property
    def context(self) -> int:
        """What the base and the spread need."""
        return max(self.base.context, self.scale_steps)

    @property
    def pooled(self) -> bool:
        """As the base."""
        return self.base.pooled

    def fit(self, frame: pl.DataFrame, seed: int, progress: Progress | None = None) -> Self:
        """Measure the errors, then fit on everything; a series too short to measure can then not be forecast."""
        early = self.base.fit(first(frame, 1.0 - self.share), seed, _part(progress, 0.0, 0.5))
        moves = {s.unique_id: found for s in panel(frame) if (found := self._measure(early, s)) is not None}
        return replace(self, base=self.base.fit(frame, seed, _part(progress, 0.5, 1.0)), moves=moves)

    def forecast(self, histories: Floats, h: int, ids: Sequence[str]) -> Floats:
        """Deciles [batch, h, 9]; raises UsageError beyond `horizon` or when a series was too short to measure."""
        check_histories(histories, self.context, ids, self.name)
        if h > self.horizon:
            raise UsageError(f"{self.name}: corrected for {self.horizon} steps ahead, asked for {h}")
        moves = np.stack([fitted_to(self.moves, i, f"{self.name} (conformal)")[:h] for i in ids])
        said = self.base.forecast(histories[:, -self.base.context :], h, ids)
        return np.sort(said + moves * self._scale(histories), axis=-1)

    def _scale(self, histories: Floats) -> Floats:
        return normalise(histories[:, -self.scale_steps :])[2][:, :, None]

    def _measure(self, fitted: Forecaster, series: Series) -> Floats | None:
        """The moves [horizon, 9] of one series, or None when it has too few origins to tell."""
        values = series.values
        start = max(steps_in(len(values), 1.0 - self.share), self.context)
        origins = np.arange(start, len(values) - self.horizon + 1, self.every)
        if len(origins) < _LEAST_ORIGINS:
            return None
        histories = windows(values, origins, self.context)
        said = fitted.forecast(histories[:, -fitted.context :], self.horizon, [series.unique_id] * len(origins))
        errors = (windows(values, origins + self.horizon, self.horizon)[:, :, None] - said) / self._scale(histories)
        return np.stack([np.quantile(errors[:, :, k], q, axis=0) for k, q in enumerate(DECILES)], axis=-1)


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    if progress is None:
        return None
    return lambda share, note: progress(start + (end - start) * share, note)
