"""What can be done to one series: stamps understood, gaps filled, outliers found, levels moved; arrays in and out."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agents.forecast.frames import Floats

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

SHIFT_DAYS = 14  # days of history without which no level shift is looked for
_LASTING_DAYS = 5  # a change that lasts less is none; the median of so many days does not follow a weekend
_NEWEST = 50  # rows whose stamps say on which second of the step a series is recorded
_NEIGHBOURS = 7  # days looked at on either side of a gap
_TO_SIGMA = 1.4826  # of a normal distribution: standard deviation over median absolute deviation


def stretches(ds: Floats, step_s: int, tolerance: float) -> Ints:
    """The number of the stretch that each stamp [rows] belongs to; within one, stamps lie whole steps apart."""
    apart = np.diff(ds) / step_s
    return np.concatenate([[0], np.cumsum(np.abs(apart - np.round(apart)) > tolerance)])


def phase(ds: Floats, step_s: int) -> int:
    """On which second of the step (0 to `step_s` - 1) the newest of rising stamps are recorded.

    The most frequent; of stamps that tremble, their circular mean, or the full step when they tremble around it.
    """
    newest = np.mod(ds[-_NEWEST:], step_s)
    seconds, counts = np.unique(np.round(newest).astype(np.int64) % step_s, return_counts=True)
    if 2 * counts.max() >= len(newest):
        return int(seconds[counts.argmax()])
    turns = np.exp(2j * np.pi * newest / step_s)
    mean = np.angle(turns.sum())
    widest = np.abs(np.angle(turns * np.exp(-1j * mean))).max()
    return 0 if abs(mean) <= widest else round(mean / (2 * np.pi) * step_s) % step_s


def merged(index: Ints, table: Floats, steps: int, how: Literal["mean", "last"]) -> Floats:
    """One row per step [steps, columns] of rows [rows, columns], of which several may share the step `index` [rows].

    What is not finite is not known, and never hides what is; a step without a known value is NaN.
    """
    grid = np.full((steps, table.shape[1]), np.nan)
    for column in range(table.shape[1]):
        known = np.isfinite(table[:, column])
        at, values = index[known], table[known, column]
        if how == "last":
            grid[at, column] = values  # of several, the last assignment stands
        else:
            count = np.bincount(at, minlength=steps)
            total = np.bincount(at, values, minlength=steps)
            grid[:, column] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return grid


def run_lengths(flags: Bools) -> Ints:
    """How long the run of flags is that each step belongs to; 0 outside of runs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    length = np.zeros(len(flags), np.int64)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        length[start:stop] = stop - start
    return length


def held(values: Floats) -> Floats:
    """Values without holes: the last known one holds on, and the first one reaches back; one must be known."""
    known = np.flatnonzero(np.isfinite(values))
    last = np.searchsorted(known, np.arange(len(values)), side="right") - 1
    return values[known[np.maximum(last, 0)]]


def bridged(values: Floats) -> Floats:
    """Values without holes: a straight line across each; one must be known."""
    known = np.isfinite(values)
    everywhere = np.arange(len(values))
    return np.interp(everywhere, everywhere[known], values[known])


def like_days_around(values: Floats, where: Ints, day: int) -> Floats:
    """The mean of the nearest known values whole days before and after the steps `where`; NaN without any.

    Args:
        values: the series, NaN where unknown.
        where: steps to speak of.
        day: steps of a day; 0 when a step is longer than a day.
    """
    found = np.full((2, len(where)), np.nan)
    for side, sign in enumerate((-1, 1)):
        for days in range(_NEIGHBOURS if day else 0, 0, -1):  # the nearest is written last
            source = where + sign * days * day
            inside = (source >= 0) & (source < len(values))
            value = np.where(inside, values[np.clip(source, 0, len(values) - 1)], np.nan)
            found[side] = np.where(np.isfinite(value), value, found[side])
    before = np.where(np.isfinite(found[0]), found[0], found[1])
    after = np.where(np.isfinite(found[1]), found[1], found[0])
    return before / 2 + after / 2


def hampel(values: Floats, reach: int, sigma: float, most: int) -> tuple[Bools, Floats]:
    """Which values are isolated outliers, and the median of the surroundings of every value.

    A value is one when it lies further than `sigma` robust standard deviations from the median of the `reach` steps
    on either side, and no more than `most` such values follow each other.

    Source: Pearson (2002), Outliers in process modeling and identification, IEEE Transactions on Control Systems
    Technology 10 (the Hampel filter).
    """
    padded = np.pad(values, reach, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    middle = np.nanmedian(around, axis=1)
    spread = _TO_SIGMA * np.nanmedian(np.abs(around - middle[:, None]), axis=1)
    # surroundings that never move (idle, then one request) say nothing about what is far
    far = (np.abs(values - middle) > sigma * spread) & (spread > 0.0)
    return far & (run_lengths(far) <= most), middle


def last_shift(values: Floats, day: int, sigma: float) -> tuple[int, float, float] | None:
    """The step of the last lasting change of level, and the medians before and after it; None without one.

    PELT on the medians of days counted back from the end, so that the daily wave is no change; a found change counts
    when it exceeds `sigma` robust standard deviations of the daily medians; its step is the one within a day of it
    that parts the values into the two most even halves.

    Source: Killick, Fearnhead and Eckley (2012), Optimal detection of changepoints with a linear computational cost,
    JASA 107; the implementation is that of ruptures.
    """
    from ruptures import Pelt

    days = len(values) // day if day else 0
    if days < SHIFT_DAYS:
        return None
    start = len(values) - days * day
    medians = np.median(values[start:].reshape(days, day), axis=1)
    least = 1e-6 * float(np.abs(medians).max()) + 1e-12
    noise = max(_TO_SIGMA * float(np.median(np.abs(np.diff(medians)))) / 2**0.5, least)
    penalty = 2.0 * sigma * np.log(days)
    found = Pelt(model="l2", min_size=_LASTING_DAYS, jump=1).fit(medians / noise).predict(pen=penalty)
    edges = [0, *found]
    for k in range(len(edges) - 2, 0, -1):
        before = float(np.median(medians[edges[k - 1] : edges[k]]))
        after = float(np.median(medians[edges[k] : edges[k + 1]]))
        if abs(after - before) > sigma * noise:
            return _split(values, start + edges[k - 1] * day, start + edges[k] * day, day), before, after
    return None


def _split(values: Floats, start: int, near: int, day: int) -> int:
    """The step within a day of `near` that parts what lies around it, from `start` on, at least squared error."""
    offset = max(near - 2 * day, start)
    span = values[offset : near + 2 * day]
    sums, squares = np.cumsum(span), np.cumsum(span**2)
    split = np.arange(near - day, near + day) - offset
    split = split[(split >= 1) & (split < len(span))]
    left = squares[split - 1] - sums[split - 1] ** 2 / split
    right = squares[-1] - squares[split - 1] - (sums[-1] - sums[split - 1]) ** 2 / (len(span) - split)
    return int(offset + split[np.argmin(left + right)])
