"""What a history is made of: a slow trend, a usual day, a usual week, and the rest, all by the record alone.

Seasonal means per slot after the drift was taken out, in one pass: exact for a line plus anything that repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.forecast.base import Floats
from agents.forecast.frames import Series

_DAY_S, _WEEK_DAYS = 86_400, 7
_LEAST_CYCLES = 2  # a season is one that was seen twice before the last day
_LONGEST_DAYS = 28


@dataclass(frozen=True, slots=True)
class Parts:
    """The steps before an origin as trend + daily + weekly + rest [context each]; NaN before the beginning.

    `trend` is the straight line through what is left without the seasons, its level included; `rest` is what remains.
    A season that was not seen twice before the last day is zero.
    """

    trend: Floats
    daily: Floats
    weekly: Floats
    rest: Floats


def day_of(series: Series) -> int:
    """Steps per day; 0 when no whole number of them makes a day."""
    return _DAY_S // series.step_s if _DAY_S % series.step_s == 0 else 0


def decompose(series: Series, origin: int, context: int) -> Parts:
    """The parts of the `context` steps before `origin`, seasons taken from up to four weeks before it."""
    day = day_of(series)
    begin = max(origin - max(_LONGEST_DAYS * day, context), 0)
    history = series.values[begin:origin]
    steps = np.arange(begin, origin)
    daily, weekly = _seasons(history, steps, day)
    kept = min(context, len(history))
    window = slice(len(history) - kept, len(history))
    slow = (history - daily - weekly)[window]
    trend = _line(slow)
    young = np.full(context - kept, np.nan)
    parts = (trend, daily[window], weekly[window], slow - trend)
    return Parts(*(np.concatenate([young, part]) for part in parts))


def repeats(column: Floats, day: int) -> str:
    """How often a column repeats, "daily" or "weekly"; "" where it does not."""
    for name, lag in (("daily", day), ("weekly", _WEEK_DAYS * day)):
        if lag and len(column) > lag and np.allclose(column[lag:], column[:-lag], rtol=0.0, atol=1e-9):
            return name
    return ""


def _seasons(history: Floats, steps: np.ndarray, day: int) -> tuple[Floats, Floats]:
    """The daily and the weekly component at every step, each of mean 0 over its cycle."""
    zero = np.zeros(len(history))
    week = _WEEK_DAYS * day
    before = len(history) - day  # what the last day brought is news, not yet usual
    if not day or before < _LEAST_CYCLES * day:
        return zero, zero
    has_week = before >= _LEAST_CYCLES * week
    cycle = week if has_week else day
    # whole cycles only: every place in them then weighs alike, and their drift is seen between equal places
    whole = slice(before % cycle, before)
    known, at = history[whole], steps[whole]
    known = known - (known[cycle:] - known[:-cycle]).mean() / cycle * at
    daily = _usual(known, at % day, day)
    if not has_week:
        return daily[steps % day], zero
    per = max(day // 24, 1)  # a usual week by the hour: a mean over few weeks is too noisy by the step
    weekly = _usual(known - daily[at % day], at % week // per, -(-week // per))
    return daily[steps % day], weekly[steps % week // per]


def _usual(values: Floats, slot: np.ndarray, slots: int) -> Floats:
    """The mean of each slot, minus the mean of those means."""
    means = np.bincount(slot, weights=values, minlength=slots) / np.bincount(slot, minlength=slots)
    return means - means.mean()


def _line(values: Floats) -> Floats:
    """The least-squares line through the values."""
    if len(values) < 2:
        return values.copy()
    t = np.arange(len(values)) - (len(values) - 1) / 2.0
    return values.mean() + t * (t @ values) / (t @ t)
