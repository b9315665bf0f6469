"""Forecasts of one series from rolling origins: what backtests, ensembles and calibration are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import Floats, Forecaster, Past
from agents.forecast.frames import Series, windows
from twin.errors import UsageError

Origins = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rolled:
    """Forecasts of one series, in the order of their origins.

    Attributes:
        origins: steps on record when each forecast was made [n], rising.
        said: deciles [n, h, 9].
        truth: what came [n, h]; NaN where it is not on record.
    """

    origins: Origins
    said: Floats
    truth: Floats

    def ended(self, origin: int) -> NDArray[np.bool_]:
        """Which single forecasts [n, h] had come true, or not, when `origin` steps were on record."""
        return self.origins[:, None] + np.arange(self.said.shape[1]) < origin


@runtime_checkable
class Online(Protocol):
    """A forecaster that looks at how earlier forecasts of the series went: many origins at once are cheaper."""

    def roll(self, series: Series, origins: Origins, h: int) -> Floats:
        """Deciles [origins, h, 9]; each row is what `forecast` says of the past at its origin."""
        ...


def past_at(series: Series, origins: Origins, context: int, h: int) -> Past:
    """The past of one series at `origins` (steps on record at each).

    Raises UsageError when a column that is known ahead ends before the last step to forecast.
    """
    columns = series.known.shape[1] if series.known.ndim > 1 else 0
    if columns and len(series.known) < int(origins.max(initial=0)) + h:
        raise UsageError(
            f"series {series.unique_id!r}: {', '.join(series.columns.known)} must be known for all {h} steps ahead; "
            "give their values for them"
        )
    count = len(origins)
    known = windows(series.known, origins + h, context + h) if columns else np.zeros((count, context + h, 0))
    seen = windows(series.seen, origins, context) if series.seen.shape[-1] else np.zeros((count, context, 0))
    return Past(
        [series.unique_id] * count,
        windows(series.values, origins, context),
        (series.start_s + series.step_s * origins).astype(np.float64),
        series.step_s,
        seen,
        known,
        np.tile(series.static, (count, 1)),
    )


def truth_at(series: Series, origins: Origins, h: int) -> Floats:
    """What came in the `h` steps after each origin [origins, h]; NaN where it is not on record."""
    padded = np.concatenate([series.values, np.full(h, np.nan)])
    return padded[np.minimum(origins[:, None] + np.arange(h), len(series.values))]


def roll(fitted: Forecaster, series: Series, origins: Origins, h: int) -> Rolled:
    """The forecasts of `fitted` from each origin; raises UsageError as its `forecast` does."""
    if isinstance(fitted, Online):
        said = fitted.roll(series, origins, h)
    else:
        said = fitted.forecast(past_at(series, origins, fitted.context, h), h)
    return Rolled(origins, said, truth_at(series, origins, h))
