"""Past days that looked like the last 24 hours, and what followed them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.forecast.base import Floats
from agents.forecast.explain.decompose import day_of
from agents.forecast.frames import Series


@dataclass(frozen=True, slots=True)
class SimilarDay:
    """A past day that ended at the same time of day as the last 24 hours do.

    Attributes:
        days_ago: whole days between the two.
        distance: 0 for the same shape, sqrt(2) for an unrelated one, 2 for its mirror image.
        followed: what came in the next `h` steps [h], as it was.
        carried: the same in the level and spread of the last 24 hours [h]: what would follow if it went that way.
    """

    days_ago: int
    distance: float
    followed: Floats
    carried: Floats


def similar_days(series: Series, origin: int, h: int, count: int = 3) -> tuple[SimilarDay, ...]:
    """The `count` nearest past days before `origin`, nearest first; fewer, or none, where the record is short.

    The distance is that of matrix profiles (Yeh et al. 2016, ICDM: all pairs similarity joins for time series): the
    root mean square of the difference of two windows, each with mean 0 and standard deviation 1. Only days whose
    following `h` steps were over by `origin` count. Of equally near days the latest comes first.
    """
    day = day_of(series)
    first = -(-h // day) if day else 1
    ends = origin - day * np.arange(first, (origin - day) // day + 1) if day and origin >= 2 * day else np.zeros(0, int)
    if not len(ends):
        return ()
    values = series.values[:origin]
    now = values[-day:]
    days = values[ends[:, None] + np.arange(-day, 0)]
    level, spread = days.mean(axis=1), days.std(axis=1)
    distance = np.sqrt(((_shape(days) - _shape(now)) ** 2).mean(axis=1))
    after = values[ends[:, None] + np.arange(h)]
    carried = np.where(spread > 0.0, now.std() / np.where(spread > 0.0, spread, 1.0), 1.0)[:, None]
    carried = now.mean() + carried * (after - level[:, None])
    nearest = np.argsort(distance, kind="stable")[:count]
    return tuple(
        SimilarDay(int((origin - ends[k]) // day), float(distance[k]), after[k].copy(), carried[k].copy())
        for k in nearest
    )


def _shape(windows: Floats) -> Floats:
    """Windows [..., steps] with mean 0 and standard deviation 1; a flat one is 0 throughout."""
    moved = windows - windows.mean(axis=-1, keepdims=True)
    spread = moved.std(axis=-1, keepdims=True)
    # what is left of a flat window is rounding
    flat = spread <= 1e-9 * np.abs(windows).max(axis=-1, keepdims=True)
    return np.where(flat, 0.0, moved / np.where(flat, 1.0, spread))
