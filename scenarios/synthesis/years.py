"""Years of cluster demand that nobody recorded: generated, with the truth about every part of it.

No recording at hand shows a cluster for several years. What a recording does tell (the shape of the week and of the
day, how large the noise is and how long it lasts) is fitted to it; growth, yearly season, change points, holidays and
launches are assumptions, written down in `Plan`. Whatever is measured on these series is to be called generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from twin.errors import ScenarioError

_DAY_S, _HOUR_S = 86_400, 3_600
_YEAR_DAYS = 365.25
_LEAST_DAYS = 28


@dataclass(frozen=True, slots=True)
class Habits:
    """What was fitted to a recording; logarithms, so that parts multiply.

    Attributes:
        week: of each day from Monday on [7], mean 0.
        day: of each hour [24], mean 0; zeros where the recording's step is longer than an hour.
        noise: deviation of what remains of a day.
        memory: its autocorrelation from day to day.
    """

    week: tuple[float, ...]
    day: tuple[float, ...]
    noise: float
    memory: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is assumed: the distributions that growth and events are drawn from.

    Attributes:
        days: length.
        begin: the first day, a Monday.
        level: of the first day, in the unit of the demand.
        growth: mean and deviation of the growth per year (logarithm), drawn anew at each change.
        changes_per_year: rate of change points.
        step: deviation of the step in the level at a change (logarithm).
        yearly: deviation of the two harmonics of the yearly season.
        launches_per_year: rate of launches, which are announced.
        launch: least and greatest announced share of the level that a launch adds.
        launch_error: deviation of what came of a launch over what was announced.
        ramp_days: how long a launch takes to its full size.
        country: whose public holidays are kept.
        holiday: what a holiday does to the demand (logarithm).
    """

    days: int = 1461
    begin: date = date(2018, 1, 1)
    level: float = 1_000.0
    growth: tuple[float, float] = (0.15, 0.12)
    changes_per_year: float = 0.5
    step: float = 0.06
    yearly: float = 0.05
    launches_per_year: float = 1.0
    launch: tuple[float, float] = (0.04, 0.15)
    launch_error: float = 0.3
    ramp_days: int = 28
    country: str = "SE"
    holiday: float = -0.12


@dataclass(frozen=True, slots=True)
class Years:
    """A drawn series and what it was made of.

    Attributes:
        values: the demand [steps].
        step_s: seconds of a step: a day or an hour.
        parts: logarithms of "trend", "year", "week", "day", "holidays", "launches", "noise" [steps]; they add up to
            that of `values`.
        known: what could be known ahead [steps, 2]: 1 on a holiday; logarithm of what launches were announced to add.
        changes: the days at which level and growth changed.
        launches: the days of the launches.
    """

    values: np.ndarray
    step_s: int
    parts: Mapping[str, np.ndarray]
    known: np.ndarray
    changes: tuple[int, ...]
    launches: tuple[int, ...]


KNOWN = ("holiday", "launches")


def habits(values: np.ndarray, step_s: int, start_s: float = 0.0) -> Habits:
    """The habits of a recorded series.

    Args:
        values: [steps], positive where the series is alive; days without any demand are left out.
        step_s: a day, an hour or what divides an hour.
        start_s: of the first step, in s since a Monday midnight.

    Raises:
        ScenarioError: a step that does not divide a day, or less than four weeks.
    """
    per_day = _DAY_S // step_s
    skipped = int(-start_s % _DAY_S // step_s)
    days = (len(values) - skipped) // per_day if per_day else 0
    if not per_day or _DAY_S % step_s or days < _LEAST_DAYS:
        raise ScenarioError(f"habits: {len(values)} steps of {step_s} s are not {_LEAST_DAYS} days or more")
    table = values[skipped : skipped + days * per_day].reshape(days, per_day)
    alive = np.flatnonzero(table.mean(axis=1) > 0.0)
    logs = np.log(table[alive].mean(axis=1))
    weekday = ((start_s + skipped * step_s) // _DAY_S + alive).astype(int) % 7
    slow = np.stack([np.ones(len(alive)), alive / days, (alive / days) ** 2], axis=1)
    week, trend = np.zeros(7), np.zeros(len(alive))
    for _ in range(8):  # the slow trend and the week in turns; each is least squares
        trend = slow @ np.linalg.lstsq(slow, logs - week[weekday], rcond=None)[0]
        week = _means(logs - trend, weekday, 7)
    rest = logs - trend - week[weekday]
    memory = float(np.clip(rest[1:] @ rest[:-1] / max(rest @ rest, 1e-300), 0.0, 0.95))
    day = _shape_of_day(table[alive], per_day)
    return Habits(tuple(week.tolist()), tuple(day.tolist()), float(rest.std()), memory)


def _means(values: np.ndarray, which: np.ndarray, size: int) -> np.ndarray:
    mean = np.bincount(which, values, size) / np.maximum(np.bincount(which, minlength=size), 1)
    return mean - mean.mean()


def _shape_of_day(table: np.ndarray, per_day: int) -> np.ndarray:
    if per_day < 24 or per_day % 24:
        return np.zeros(24)
    hours = np.maximum(table.mean(axis=0).reshape(24, -1).mean(axis=1), 1e-12)
    return np.log(hours) - np.log(hours).mean()


def draw(told: Habits, plan: Plan, rng: np.random.Generator, step_s: int = _DAY_S) -> Years:
    """A series of `plan.days` days with the habits of a recording; equal states of `rng` give equal bytes.

    Args:
        told: of a recording.
        plan: what is assumed beside it.
        rng: where all randomness comes from.
        step_s: 86,400 or 3,600.

    Raises:
        ScenarioError: another step, or no days.
    """
    if step_s not in (_DAY_S, _HOUR_S) or plan.days < 1:
        raise ScenarioError(f"draw: step_s={step_s} must be {_DAY_S} or {_HOUR_S}, days={plan.days} at least 1")
    days = np.arange(plan.days)
    trend, changes = _trend(plan, rng)
    launched, announced, launches = _launches(plan, rng)
    kept = _holidays(plan)
    parts = {
        "trend": np.log(plan.level) + trend,
        "year": _yearly(plan, rng),
        "week": np.asarray(told.week)[(days + plan.begin.weekday()) % 7],
        "holidays": plan.holiday * kept,
        "launches": launched,
        "noise": _noise(told, plan.days, rng),
    }
    per_day = _DAY_S // step_s
    parts = {name: np.repeat(part, per_day) for name, part in parts.items()}
    parts["day"] = np.tile(told.day, plan.days) if per_day == 24 else np.zeros(plan.days)
    known = np.repeat(np.stack([kept, announced], axis=1), per_day, axis=0)
    values = np.exp(sum(parts.values(), np.zeros(plan.days * per_day)))
    return Years(values, step_s, parts, known, changes, launches)


def foreseen(drawn: Years, told: Habits, plan: Plan, origin: int, h: int) -> np.ndarray:
    """What one would forecast [h] at a day who knows all that is decided there: a bound for every forecaster.

    Known: every parameter, level and growth in force, the seasons, what launches brought so far and what further ones
    were announced to bring, and the noise of the last day. Not known: noise, changes and the fate of launches to come.

    Args:
        drawn: a series by day.
        told: the habits it was drawn with.
        plan: the assumptions it was drawn under.
        origin: days on record, 2 or more.
        h: days ahead.
    """
    parts, ahead = drawn.parts, np.arange(1, h + 1)
    rises = np.diff(parts["trend"][: origin + 1])
    usual = plan.growth[0] / _YEAR_DAYS
    differs = (rises[-2] if origin in drawn.changes else rises[-1]) - usual
    rate = max(plan.changes_per_year, 1e-9) / _YEAR_DAYS  # growth is drawn anew at each change
    trend = parts["trend"][origin - 1] + usual * ahead - differs * np.expm1(-rate * ahead) / rate
    announced = drawn.known[origin : origin + h, KNOWN.index("launches")] - drawn.known[origin - 1, 1]
    fading = told.memory**ahead
    noise = parts["noise"][origin - 1] * fading + 0.5 * told.noise**2 * (1.0 - fading**2)
    seasons = sum(parts[name][origin : origin + h] for name in ("year", "week", "holidays"))
    return np.exp(trend + seasons + parts["launches"][origin - 1] + announced + noise)


def _events(rate_per_year: float, days: int, rng: np.random.Generator) -> list[int]:
    """Days of a Poisson process, rising, none of them the first."""
    count = rng.poisson(rate_per_year * days / _YEAR_DAYS)
    return np.unique(rng.integers(1, max(days, 2), count)).tolist()


def _trend(plan: Plan, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...]]:
    """The logarithm of the level over the first day's [days], and the days of the changes."""
    changes = _events(plan.changes_per_year, plan.days, rng)
    slope = np.empty(plan.days)
    steps = np.zeros(plan.days)
    for start in [0, *changes]:
        slope[start:] = rng.normal(*plan.growth) / _YEAR_DAYS
        steps[start] = rng.normal(0.0, plan.step) if start else 0.0
    rise = np.concatenate([[0.0], slope[:-1].cumsum()])
    return rise + steps.cumsum(), tuple(changes)


def _yearly(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    angle = 2.0 * np.pi * np.arange(plan.days)[:, None] / _YEAR_DAYS * np.array([1.0, 2.0])
    cosine, sine = rng.normal(0.0, plan.yearly, (2, 2)) / np.array([1.0, 2.0])
    return np.cos(angle) @ cosine + np.sin(angle) @ sine


def _launches(plan: Plan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """What launches added and were announced to add [days], as logarithms, and their days."""
    at = _events(plan.launches_per_year, plan.days, rng)
    came, announced = np.zeros(plan.days), np.zeros(plan.days)
    for day in at:
        ramp = np.clip((np.arange(plan.days) - day + 1) / max(plan.ramp_days, 1), 0.0, 1.0)
        size = rng.uniform(*plan.launch)
        announced += np.log1p(size * ramp)
        came += np.log1p(size * max(rng.normal(1.0, plan.launch_error), 0.0) * ramp)
    return came, announced, tuple(at)


def _holidays(plan: Plan) -> np.ndarray:
    """1 on a public holiday that is not a weekend, else 0 [days]."""
    import holidays

    last = plan.begin + timedelta(days=plan.days)
    kept = holidays.country_holidays(plan.country, years=range(plan.begin.year, last.year + 1))
    days = [plan.begin + timedelta(days=day) for day in range(plan.days)]
    return np.array([float(day in kept and day.weekday() < 5) for day in days])


def _noise(told: Habits, days: int, rng: np.random.Generator) -> np.ndarray:
    """First-order autoregressive noise [days], stationary from the first day on."""
    from scipy.signal import lfilter

    shocks = rng.standard_normal(days) * told.noise * np.sqrt(1.0 - told.memory**2)
    shocks[0] = rng.standard_normal() * told.noise
    return np.asarray(lfilter([1.0], [1.0, -told.memory], shocks))
