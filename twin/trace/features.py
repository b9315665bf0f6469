"""Feature tables for learning: what could be known at a moment about a series, and nothing that came later.

The row of time t describes the moment t, when the step that begins at t has not been seen: lags and windows look only
at steps that had ended by then, calendar features at the clock. So the recorded value of that step, which the row also
carries, is a fair target; `targets` adds later ones. Absent steps are nulls: a gap is never bridged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from typing import Literal, TypedDict
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.errors import TraceError, UsageError
from twin.trace import files, tables
from twin.trace.trace import Trace

CIRCLES = ("day", "week", "year")
HOLIDAY_COLUMNS = ("holiday", "days_to_holiday", "days_since_holiday")

_STATISTICS = ("mean", "std", "min", "max")
_DAY_S = 86_400.0
_YEAR_DAYS = 365.25
_AT = "_at"
_SHORTEST_S = 1e-3


class _Rolling(TypedDict):
    by: str
    window_size: str
    closed: Literal["left"]


@dataclass(frozen=True, slots=True)
class Features:
    """Which features a table has; lengths are in steps of the series.

    `lags` are steps back from the moment (1: the last step that ended); `windows` are how many ended steps the
    statistics of a window take in. `calendar` adds time of day and week and year as the clock of the trace's zone
    shows them; `country` adds that country's public holidays (ISO 3166 code, as the package `holidays` knows them),
    `region` a subdivision of it.
    """

    lags: tuple[int, ...] = (1, 2, 3)
    windows: tuple[int, ...] = (12,)
    statistics: tuple[str, ...] = _STATISTICS
    calendar: bool = True
    country: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would look into the future or is not known."""
        if any(steps < 1 for steps in (*self.lags, *self.windows)):
            raise UsageError("lags and windows are counted in ended steps: each must be >= 1")
        if any(len(set(each)) < len(each) for each in (self.lags, self.windows, self.statistics)):
            raise UsageError("a lag, a window or a statistic is named twice")
        unknown = sorted(set(self.statistics) - set(_STATISTICS))
        if unknown:
            raise UsageError(f"no window statistic {unknown[0]!r}; there are {list(_STATISTICS)}")


def table(
    trace: Trace, source: str, wanted: Features, *, step_s: float | None = None, epoch: str = "", zone: str = ""
) -> pl.DataFrame:
    """One row per recorded step of each series: its keys, `time_s`, `value`, and the features known at `time_s`.

    Args:
        trace: the recording.
        source: "demand", "usage" or "prices".
        wanted: the features.
        step_s: seconds of a step; by default that of the recording, whose series then must keep to it. A step given
            here takes the mean of the samples that ended in it, which any clock allows.
        epoch: wall-clock time of second 0 in ISO 8601, where the trace does not tell it.
        zone: IANA time zone, where the trace does not tell it.

    Returns:
        Float64 columns `lag_<k>`, `<statistic>_<w>` and `seen_<w>` (share of the window's steps that were recorded),
        and with `calendar` the sine and cosine of the time of day, week and year, `weekend`, and with a country
        `holiday`, `days_to_holiday`, `days_since_holiday` (at most 7).

    Raises:
        TraceError: the series have no regular step, or calendar features are wanted and no epoch is known.
        UsageError: the table holds no series, or step or zone are none.
    """
    if source not in tables.SERIES:
        raise UsageError(f"features are made of series: source={source!r} must be one of {sorted(tables.SERIES)}")
    if zone and files.known_zone(zone) is None:
        raise UsageError(f"zone={zone!r} is no IANA time zone")
    keys = list(tables.SERIES[source])
    told_s = trace.info.step_s if step_s is None else step_s
    if not _SHORTEST_S <= told_s < math.inf:
        how = "give step_s=..." if step_s is None else f"it must be at least {_SHORTEST_S} s"
        raise (TraceError if step_s is None else UsageError)(f"{trace.info.name}: has no step ({told_s} s); {how}")
    frame = trace.tables[source].sort(*keys, "time_s")
    frame = _on_clock(frame, keys, told_s, trace.info.name) if step_s is None else _means(frame, keys, step_s, trace)
    step_us = round(told_s * 1e6)
    frame = reduce(lambda made, lag: _lagged(made, frame, keys, lag, step_us), wanted.lags, frame)
    frame = frame.with_columns(_windows(wanted, keys, step_us))
    if wanted.calendar or wanted.country:
        circles = CIRCLES if wanted.calendar else ()
        clock = _clock(frame, trace, epoch, zone)
        frame = frame.hstack(calendar(clock, circles=circles, country=wanted.country, region=wanted.region))
    return frame.drop(_AT)


def _on_clock(frame: pl.DataFrame, keys: list[str], step_s: float, name: str) -> pl.DataFrame:
    """Keys, `time_s`, `value` and the time in microseconds; raises TraceError for a series that leaves its step.

    Off the clock a step may not have ended when the next begins, and a window would look into it.
    """
    at = (pl.col("time_s") * 1e6).round().cast(pl.Int64).alias(_AT)
    timed = frame.select(*keys, "time_s", "value", at)
    off = timed.filter((pl.col(_AT).diff().over(keys) % round(step_s * 1e6) != 0).fill_null(value=False))
    if off.height:
        where = ", ".join(f"{key} {off[key][0]!r}" for key in keys)
        raise TraceError(
            f"{name}: the series of {where} does not keep to its step of {step_s:g} s (at {off['time_s'][0]:g} s); "
            "give step_s=... to take means over steps of that length"
        )
    return timed


def _means(frame: pl.DataFrame, keys: list[str], step_s: float, trace: Trace) -> pl.DataFrame:
    """The mean of the samples that ended in each step (k step_s, (k + 1) step_s], as the step that begins at k step_s.

    A sample ends where its own step does: as recorded, or where the next sample begins (the last one then is left out).
    """
    following = pl.col("time_s").shift(-1).over(keys)
    own = pl.lit(trace.info.step_s if trace.info.step_s > 0 else None, dtype=pl.Float64)
    told = pl.coalesce("step_s", own) if "step_s" in frame.columns else own
    # a sample that is said to last beyond the next one's beginning ended there
    ended = pl.min_horizontal(pl.col("time_s") + told, following)
    slot = ((ended / step_s) - 1e-9).ceil().cast(pl.Int64) - 1
    made = frame.with_columns(slot.alias("_slot")).drop_nulls("_slot")
    made = made.group_by(*keys, "_slot", maintain_order=True).agg(pl.col("value").mean())
    start = pl.col("_slot") * step_s
    at = (start * 1e6).round().cast(pl.Int64).alias(_AT)
    return made.select(*keys, start.alias("time_s"), "value", at).sort(*keys, _AT)


def targets(features: pl.DataFrame, horizons: Sequence[int], step_s: float) -> pl.DataFrame:
    """The table with a column `ahead_<h>` per horizon: the value recorded h steps after the row's own."""
    keys = [name for name in features.columns if features.schema[name] == pl.String]
    at = (pl.col("time_s") * 1e6).round().cast(pl.Int64)
    made = features.with_columns(at.alias(_AT))
    for horizon in horizons:
        later = made.select(
            *keys, pl.col(_AT) - round(horizon * step_s * 1e6), pl.col("value").alias(f"ahead_{horizon}")
        )
        made = made.join(later, on=[*keys, _AT], how="left", maintain_order="left")
    return made.drop(_AT)


def _lagged(made: pl.DataFrame, frame: pl.DataFrame, keys: list[str], lag: int, step_us: int) -> pl.DataFrame:
    """The value of the step that began `lag` steps before the moment, found by time and not by row."""
    earlier = frame.select(*keys, pl.col(_AT) + lag * step_us, pl.col("value").alias(f"lag_{lag}"))
    return made.join(earlier, on=[*keys, _AT], how="left", maintain_order="left")


def _windows(wanted: Features, keys: list[str], step_us: int) -> list[pl.Expr]:
    found = []
    for steps in wanted.windows:
        # closed="left": steps that began in [t - w, t), all of which have ended by t on a regular clock
        value, rolling = pl.col("value"), _Rolling(by=_AT, window_size=f"{steps * step_us}i", closed="left")
        of = {
            "mean": value.rolling_mean_by(**rolling),
            "std": value.rolling_std_by(**rolling, min_samples=2),
            "min": value.rolling_min_by(**rolling),
            "max": value.rolling_max_by(**rolling),
        }
        found += [of[name].over(keys).alias(f"{name}_{steps}") for name in wanted.statistics]
        seen = (value * 0.0 + 1.0).rolling_sum_by(**rolling)
        found.append((seen.over(keys).fill_null(0.0) / steps).alias(f"seen_{steps}"))
    return found


def _clock(frame: pl.DataFrame, trace: Trace, epoch: str, zone: str) -> pl.Series:
    """The wall clock of each row in its zone."""
    told = epoch or trace.info.epoch
    if not told:
        raise TraceError(f"{trace.info.name}: the publisher tells no epoch; give epoch=... or calendar=False")
    try:
        return wall_clock(frame[_AT].to_numpy(), told, zone or trace.info.zone)
    except UsageError as error:
        raise TraceError(f"{trace.info.name}: {error}") from error


def wall_clock(microseconds: NDArray[np.int64], epoch: str, zone: str = "") -> pl.Series:
    """What the clocks of a zone show, so many microseconds after the epoch.

    Args:
        microseconds: since the epoch, real time: where the clocks change, the hour is missing or comes twice.
        epoch: wall-clock time of second 0 in ISO 8601.
        zone: IANA time zone; without one the clock keeps the epoch's offset.

    Raises:
        UsageError: the epoch is not ISO 8601, or the zone not known.
    """
    try:
        start = datetime.fromisoformat(epoch)
    except ValueError as error:
        raise UsageError(f"epoch {epoch!r} is not ISO 8601") from error
    if zone and files.known_zone(zone) is None:
        raise UsageError(f"zone={zone!r} is no IANA time zone")
    if start.tzinfo is None:
        start = start.replace(tzinfo=ZoneInfo(zone or "UTC"))
    since = pl.Series("clock", microseconds, dtype=pl.Int64)
    instant = (since + round(start.timestamp() * 1e6)).cast(pl.Datetime("us", "UTC"))
    if zone:
        return instant.dt.convert_time_zone(zone)
    return instant.dt.replace_time_zone(None) + (start.utcoffset() or timedelta(0))


def calendar(
    clock: pl.Series, *, circles: Sequence[str] = CIRCLES, country: str | None = None, region: str | None = None
) -> pl.DataFrame:
    """What the calendar says of each moment of a wall clock, known however far ahead.

    Args:
        clock: datetimes as the clocks of the place show them.
        circles: which of "day", "week", "year" are told by a sine and a cosine; with any, `weekend` is 0 or 1.
        country: ISO 3166 code; adds `holiday`, `days_to_holiday` and `days_since_holiday` (at most 7).
        region: a subdivision of the country.

    Raises:
        UsageError: the package `holidays` does not know the country or the region.
    """
    now = pl.col("clock")
    day = (now.dt.hour().cast(pl.Float64) * 3600 + now.dt.minute() * 60 + now.dt.second()) / _DAY_S
    phases = {
        "day": day,
        "week": (now.dt.weekday() - 1 + day) / 7,
        "year": (now.dt.ordinal_day() - 1 + day) / _YEAR_DAYS,
    }
    parts = [part for name in circles for part in _circle(name, phases[name])]
    weekend = [(now.dt.weekday() > 5).cast(pl.Float64).alias("weekend")] if circles else []
    made = clock.alias("clock").to_frame()
    if country:
        made = made.hstack(_holidays(clock, country, region))
    return made.select(*parts, *weekend, *(HOLIDAY_COLUMNS if country else ()))


def _circle(name: str, phase: pl.Expr) -> list[pl.Expr]:
    angle = 2 * math.pi * phase
    return [angle.sin().alias(f"sin_{name}"), angle.cos().alias(f"cos_{name}")]


def _holidays(clock: pl.Series, country: str, region: str | None) -> pl.DataFrame:
    import holidays

    day = clock.dt.date()
    years = range(int(day.dt.year().min() or 1970) - 1, int(day.dt.year().max() or 1970) + 2)  # pyright: ignore[reportArgumentType]
    try:
        dates = sorted(holidays.country_holidays(country, subdiv=region, years=years))
    except NotImplementedError as error:
        raise UsageError(f"country={country!r}, region={region!r}: {error}") from error
    known = pl.DataFrame({"_day": dates}, schema={"_day": pl.Date}).with_columns(pl.col("_day").alias("_holiday"))
    days = pl.DataFrame({"_day": day.unique().sort()})
    before = days.join_asof(known, on="_day", strategy="backward")["_holiday"]
    after = days.join_asof(known, on="_day", strategy="forward")["_holiday"]
    near = days.with_columns(
        (days["_day"] == before).fill_null(value=False).cast(pl.Float64).alias("holiday"),
        (after - days["_day"]).dt.total_days().cast(pl.Float64).fill_null(7).clip(0, 7).alias("days_to_holiday"),
        (days["_day"] - before).dt.total_days().cast(pl.Float64).fill_null(7).clip(0, 7).alias("days_since_holiday"),
    )
    return pl.DataFrame({"_day": day}).join(near, on="_day", how="left", maintain_order="left").drop("_day")
