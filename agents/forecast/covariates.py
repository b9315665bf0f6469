"""What is known ahead of a series: the calendar of a place, planned events to the minute, and plans as step functions.

    calendar = Calendar(epoch="2024-01-01T00:00:00+00:00", zone="Europe/Berlin", country="DE", events=(sale,))
    calendar.at(start_s, step_s, steps)  # [steps, columns], named by calendar.columns

Everything here must have been planned before the first forecast that uses it: whoever adds an event after it
happened lets a backtest look ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from agents.forecast.frames import Floats
from twin.errors import UsageError
from twin.trace import features

_SHORTEST_S = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something planned, from `start_s` to `end_s`, that moves load before, while and after it lasts.

    `weight` is how large it is beside others of its `name`. The rise before it is a straight line over `rise_s`
    seconds; what follows it decays to 37 % in `decay_s` seconds. Less than a second is none.
    """

    name: str
    start_s: float
    end_s: float
    weight: float = 1.0
    rise_s: float = 0.0
    decay_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an event that ends before it starts."""
        if not self.start_s <= self.end_s or not np.isfinite([self.start_s, self.end_s, self.weight]).all():
            raise UsageError(
                f"event {self.name!r}: lasts from {self.start_s} s to {self.end_s} s; give start before end"
            )
        if self.rise_s < 0.0 or self.decay_s < 0.0:
            raise UsageError(
                f"event {self.name!r}: rise_s={self.rise_s} and decay_s={self.decay_s} must not be negative"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """An order or capacity plan: `values[i]` from `time_s[i]` on until the next; 0 before the first."""

    name: str
    time_s: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a plan that is not a list of rising times with one number each."""
        if len(self.time_s) != len(self.values) or list(self.time_s) != sorted(set(self.time_s)):
            raise UsageError(f"plan {self.name!r}: needs rising times and one value for each")
        if not np.isfinite([*self.time_s, *self.values]).all():
            raise UsageError(f"plan {self.name!r}: times and values must be numbers")


@dataclass(frozen=True, slots=True)
class Calendar:
    """Columns known ahead of every series of a frame.

    Attributes:
        epoch: wall-clock time of second 0 in ISO 8601; with a frame of datetimes, 1970-01-01T00:00:00+00:00.
        zone: IANA zone whose clock people follow; without one the clock keeps the epoch's offset all year.
        circles: sines and cosines of the time of "day", "week", "year"; with any of them, whether it is a weekend.
        country: ISO 3166 code whose public holidays count (as the package `holidays` knows them), `region` a
            subdivision of it.
        events: planned events; those of one name share three columns: `<name>`, `<name>_before`, `<name>_after`.
        plans: one column each.
    """

    epoch: str = "1970-01-01T00:00:00+00:00"
    zone: str = ""
    circles: tuple[str, ...] = ("day", "week")
    country: str | None = None
    region: str | None = None
    events: tuple[Event, ...] = ()
    plans: tuple[Plan, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, before anything is."""
        unknown = sorted(set(self.circles) - set(features.CIRCLES))
        if unknown:
            raise UsageError(f"calendar: circles={unknown[0]!r} must be of {list(features.CIRCLES)}")
        names = self.columns
        if len(set(names)) < len(names):
            raise UsageError(f"calendar: two columns of one name in {names}; rename an event or a plan")
        if self.circles or self.country:
            features.wall_clock(np.zeros(1, np.int64), self.epoch, self.zone)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in their order."""
        names = [f"{part}_{circle}" for circle in self.circles for part in ("sin", "cos")]
        names += ["weekend"] if self.circles else []
        names += list(features.HOLIDAY_COLUMNS) if self.country else []
        for name in self._names:
            names += [name, f"{name}_before", f"{name}_after"]
        return (*names, *(plan.name for plan in self.plans))

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(event.name for event in self.events))

    def at(self, start_s: int, step_s: int, steps: int) -> Floats:
        """The columns [steps, columns] of the steps that begin at `start_s`, `start_s + step_s`, ...

        The clock is read where a step begins; an event counts by the share of the step that it covers, so that one of
        two minutes in a step of five is 0.4 of its weight.

        Raises UsageError when the country is not known, or the clock leaves the years that a calendar has.
        """
        begin = start_s + step_s * np.arange(steps, dtype=np.float64)
        parts = [self._clock(start_s + step_s * np.arange(steps, dtype=np.int64))]
        for name in self._names:
            parts.append(np.sum([_event(e, begin, step_s) for e in self.events if e.name == name], axis=0))
        parts += [planned(plan, begin)[:, None] for plan in self.plans]
        return np.concatenate(parts, axis=1)

    def _clock(self, seconds: np.ndarray) -> Floats:
        if not (self.circles or self.country):
            return np.zeros((len(seconds), 0))
        clock = features.wall_clock(seconds * 1_000_000, self.epoch, self.zone)
        made = features.calendar(clock, circles=self.circles, country=self.country, region=self.region)
        return made.to_numpy().astype(np.float64).reshape(len(seconds), -1)


def _event(event: Event, begin: Floats, step_s: float) -> Floats:
    """How much of each step the event covers, how near it is ahead, and what is left of it [steps, 3]."""
    end = begin + step_s
    overlap = np.minimum(end, event.end_s) - np.maximum(begin, event.start_s)
    covered = np.clip(overlap / step_s, 0.0, 1.0)
    ahead, since = event.start_s - begin, end - event.end_s
    before, after = np.zeros(len(begin)), np.zeros(len(begin))
    if event.rise_s >= _SHORTEST_S:
        before = np.where(ahead > 0.0, np.clip(1.0 - ahead / event.rise_s, 0.0, 1.0), 0.0)
    if event.decay_s >= _SHORTEST_S:
        after = np.where(since > 0.0, np.exp(-np.maximum(since, 0.0) / event.decay_s), 0.0)
    return event.weight * np.stack([covered, before, after], axis=1)


def planned(plan: Plan, at_s: Floats) -> Floats:
    """What is planned at each moment; 0 before the plan begins."""
    index = np.searchsorted(np.array(plan.time_s), at_s, side="right")
    return np.concatenate([[0.0], plan.values])[index]


def events(table: pl.DataFrame) -> tuple[Event, ...]:
    """The events of a table: `name`, `start`, `end` and, where given, `weight`, `rise_s`, `decay_s`.

    `start` and `end` are seconds, or datetimes: those with a zone are taken as they are, those without as UTC, both
    as seconds since 1970.

    Raises UsageError for a missing column, an unknown time, or an event that ends before it starts.
    """
    missing = [c for c in ("name", "start", "end") if c not in table.columns]
    if missing:
        raise UsageError(f"a table of events needs the columns name, start, end; {missing[0]!r} is missing")
    optional = [c for c in ("weight", "rise_s", "decay_s") if c in table.columns]
    made = table.select(
        pl.col("name").cast(pl.String),
        *(_seconds(table[c]).alias(f"{c}_s") for c in ("start", "end")),
        *(pl.col(c).cast(pl.Float64) for c in optional),
    )
    if any(made[c].null_count() for c in made.columns):
        raise UsageError("a table of events has holes; every event needs all that the table tells of one")
    return tuple(Event(**row) for row in made.iter_rows(named=True))


def _seconds(times: pl.Series) -> pl.Series:
    if times.dtype.is_temporal():
        return times.cast(pl.Datetime("us", getattr(times.dtype, "time_zone", None))).dt.epoch("us") / 1e6
    return times.cast(pl.Float64)
