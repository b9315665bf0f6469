"""Who may start at all at this moment, whatever room there is: opening hours, quotas, waiting for clean power.

A job that may not start now is not in anyone's way: the scheduler does not see it until it may.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

import numpy as np

from twin.engine.jobs.machines import ANY, CPU, GPU, UNITS, UNLIMITED, check_choice, check_names, check_number
from twin.engine.jobs.workload import NEVER, OWNERS, Owner
from twin.errors import UsageError
from twin.trace.files import known_zone

if TYPE_CHECKING:
    from twin.engine.jobs.simulator import JobTwin

_UNITS = (UNITS[CPU], UNITS[GPU], 1.0)
"""Small units, in which amounts add up exactly, of what a quota bounds."""
May = Callable[[int], bool]
"""May this job start now?"""


class Admission(Protocol):
    """A rule about who may start now."""

    @property
    def name(self) -> str:
        """What it is, as the subject of a sentence."""
        ...

    @property
    def counts(self) -> Owner | None:
        """Whose holdings it asks `twin.holdings` for; None where for nobody's."""
        ...

    def look(self, twin: JobTwin) -> tuple[May, float]:
        """The rule as of `twin.now_s`, and when to look again even if nothing happens until then (seconds)."""
        ...


@dataclass(frozen=True, slots=True)
class Windows:
    """Nothing that starts may, by its estimate, run over a boundary: certain hours of working days.

    With boundaries at 8 and 17 o'clock short jobs have the machines during the day, long ones at night and the
    longest at weekends. `epoch` is the wall-clock time of second 0 (ISO 8601), `zone` whose hours are meant.

    Raises:
        UsageError: there is no such hour, day, time or zone, or no boundary at all.
    """

    epoch: str
    zone: str
    hours: tuple[int, ...] = (8, 17)
    working_days: tuple[int, ...] = (0, 1, 2, 3, 4)  # Monday is 0
    name: str = "the next boundary of working hours"

    def __post_init__(self) -> None:
        _check_whole("hours", self.hours, 23, "a list of whole hours from 0 to 23, e.g. [8, 17]")
        _check_whole("working_days", self.working_days, 6, "a list of days from 0, Monday, to 6, e.g. [0, 1, 2, 3, 4]")
        if not self.hours or not self.working_days:
            raise UsageError("windows need at least one hour and one working day, e.g. hours=[8, 17]")
        # boundaries are kept by rule, which a list could not be looked up by
        object.__setattr__(self, "hours", tuple(self.hours))
        object.__setattr__(self, "working_days", tuple(self.working_days))
        if not isinstance(self.zone, str) or known_zone(self.zone) is None:
            raise UsageError(f"zone={self.zone!r} is no IANA time zone; give one such as Europe/Berlin")
        try:
            datetime.fromisoformat(self.epoch)
        except (TypeError, ValueError):
            raise UsageError(f"epoch={self.epoch!r} is no time in ISO 8601, such as 2026-01-05T00:00:00") from None

    @property
    def counts(self) -> None:
        """Nobody's holdings."""

    def look(self, twin: JobTwin) -> tuple[May, float]:
        """Who ends by the next boundary; look again there."""
        boundary_s = self.next_s(twin.now_s)
        limit_s, left_s = twin.limit_s, boundary_s - twin.now_s
        return lambda job: limit_s[job] <= left_s, boundary_s

    def next_s(self, now_s: float) -> float:
        """The first boundary after `now_s`, in seconds of the twin."""
        for boundary_s in _boundaries(self, int(now_s // 86_400)):
            if boundary_s > now_s:
                return boundary_s
        raise UsageError(f"no boundary within two weeks of second {now_s:g}")


def _check_whole(key: str, values: object, most: int, wanted: str) -> None:
    if not isinstance(values, Collection):
        raise UsageError(f"{key}={values!r} must be {wanted}")
    for value in values:
        check_number(key, value, wanted, most=most, whole=True)


@lru_cache(maxsize=4096)
def _boundaries(windows: Windows, day: int) -> tuple[float, ...]:
    """The boundaries of two weeks from the day before that day of the twin on."""
    zone = ZoneInfo(windows.zone)
    epoch = datetime.fromisoformat(windows.epoch)
    epoch = epoch.replace(tzinfo=zone) if epoch.tzinfo is None else epoch
    first = (epoch + timedelta(days=day - 1)).astimezone(zone).date()
    days = [first + timedelta(days=i) for i in range(15)]
    stamps = [
        datetime(d.year, d.month, d.day, hour, tzinfo=zone)
        for d in days
        if d.weekday() in windows.working_days
        for hour in sorted(windows.hours)
    ]
    return tuple((stamp - epoch).total_seconds() for stamp in stamps)


@dataclass(frozen=True, slots=True)
class Quota:
    """At most so many cores, GPUs and jobs of one owner run at a time; None is no bound.

    Owners are users, queues, or groups (an array of which only so many tasks may run at a time); `of` = () is each of
    them. Jobs that belong to no queue or group are not bounded by its quota.

    Raises:
        UsageError: a bound is negative or infinite, no job may run, an unknown kind of owner, or `of` is no list.
    """

    cpu_cores: float | None = None
    gpus: float | None = None
    jobs: int | None = None
    by: Owner = "user"
    of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, most in (("cpu_cores", self.cpu_cores), ("gpus", self.gpus)):
            if most is not None:
                check_number(key, most, "an amount of 0 or more; None is no bound")
        if self.jobs is not None:
            check_number("jobs", self.jobs, "a whole number of at least 1; None is no bound", least=1, whole=True)
        check_choice("by", self.by, OWNERS)
        check_names("of", self.of)

    @property
    def name(self) -> str:
        """The quota of whom."""
        return f"the quota of its {self.by}"

    @property
    def counts(self) -> Owner:
        """What its owners hold."""
        return self.by

    def look(self, twin: JobTwin) -> tuple[May, float]:
        """Whoever stays within the quota together with what runs; it changes only when jobs start or end."""
        told = zip((self.cpu_cores, self.gpus, self.jobs), _UNITS, strict=True)
        unlimited = int(UNLIMITED)
        bound = np.array([unlimited if most is None else min(round(most * unit), unlimited) for most, unit in told])

        def may(job: int) -> bool:
            owner, holds = twin.holdings.of(self.by, job)
            if owner not in self.of if self.of else (owner == ANY and self.by != "user"):
                return True
            return not np.any(holds + twin.holdings.asked(job) > bound)

        return may, NEVER


@dataclass(frozen=True, slots=True)
class CleanHours:
    """Jobs that can wait start in hours that a forecast calls clean, and at their latest start in any case.

    A job can wait as long as its deadline and estimate leave it time; one without a deadline cannot. An hour is clean
    where the forecast made at that very hour lies in the lowest `share` of what it says about the coming
    `horizon_h` hours. `forecast(hour)` sees the past of that hour only: it is a forecast, never the true future.

    Raises:
        UsageError: `share` is not in 0 to 1, or `horizon_h` is below 1.
    """

    forecast: Callable[[int], Sequence[float]]
    share: float = 0.3
    horizon_h: int = 24
    name: str = "the wait for a clean hour"

    def __post_init__(self) -> None:
        check_number("share", self.share, "a share of the coming hours, from 0 to 1", most=1.0)
        check_number("horizon_h", self.horizon_h, "a whole number of hours, at least 1", least=1, whole=True)

    @property
    def counts(self) -> None:
        """Nobody's holdings."""

    def look(self, twin: JobTwin) -> tuple[May, float]:
        """Everyone in a clean hour, else whoever can wait no longer; look again at the next hour."""
        hour = int(twin.now_s // 3600)
        next_s = (hour + 1) * 3600.0
        coming = np.asarray(self.forecast(hour), dtype=np.float64)[: self.horizon_h]
        if not len(coming) or coming[0] <= np.quantile(coming, self.share):
            return lambda _job: True, next_s
        load, limit_s = twin.workload, twin.limit_s

        def may(job: int) -> bool:
            deadline_s = load.deadline_s[job]
            return bool(np.isinf(deadline_s) or deadline_s - limit_s[job] < next_s)

        return may, next_s
