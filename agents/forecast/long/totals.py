"""Totals of days, weeks and months on the recording's own calendar; what is not wholly recorded is dropped or scaled.

A day starts at midnight and a week on Monday of the recording's clock at its second 0. Daylight saving is not
followed: two days of a year are then an hour off, and every period has the same length.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from agents.forecast.frames import Floats
from twin.errors import UsageError
from twin.trace.trace import Trace

DAY_S, WEEK_S = 86_400, 604_800
MONTH_S = 2_629_800  # a twelfth of 365.25 days: the even month that calendar months are brought to
YEAR_S = 12 * MONTH_S
_MONDAY = datetime(2001, 1, 1)  # the recording's own clock: no zone
PERIODS_S = {"hour": 3_600, "day": DAY_S, "week": WEEK_S, "month": MONTH_S}


def totals(
    frame: pl.DataFrame, period: str, *, epoch: str = "", edges: str = "drop", least_covered: float = 0.5
) -> pl.DataFrame:
    """The total of `y` in every period as a regular long frame: `unique_id`, `ds` in s, `y`, `covered` (0-1).

    A period of which only a part was recorded is scaled up to its whole (`covered` says how much there was), except
    for the first and the last one, which `edges` decides about. A calendar month is scaled to 30.4375 days, so that
    months are comparable and evenly spaced: the n-th begins at n x 2,629,800 s after the first.

    Args:
        frame: `unique_id`, `ds` in s, `y`; each row covers the smallest step between two rows of its series.
        period: "hour", "day", "week" or "month".
        epoch: the moment of second 0, in ISO format; without it second 0 counts as midnight of a Monday the first.
        edges: "drop" or "scale" a first and a last period that were not wholly recorded.
        least_covered: no period inside may have been recorded for less than this share of it.

    Raises:
        UsageError: an unknown period, one shorter than a step, a hole, or nothing left.
    """
    if period not in PERIODS_S or edges not in ("drop", "scale"):
        raise UsageError(f"totals: period={period!r} must be one of {sorted(PERIODS_S)}, edges={edges!r} drop or scale")
    parts = frame.sort("unique_id", "ds").partition_by("unique_id", maintain_order=True)
    return pl.concat(_totals_of(part, period, epoch, edges, least_covered) for part in parts)


def _totals_of(rows: pl.DataFrame, period: str, epoch: str, edges: str, least_covered: float) -> pl.DataFrame:
    unique_id = rows["unique_id"][0]
    ds, y = rows["ds"].to_numpy().astype(np.int64), rows["y"].to_numpy().astype(np.float64)
    step_s = int(np.diff(ds).min()) if len(ds) > 1 else 0
    if not 0 < step_s <= PERIODS_S[period]:
        raise UsageError(f"totals: {unique_id!r} has a step of {step_s} s, which does not make a {period}")
    place, start_s, length_s = _calendar(ds, period, epoch)
    count = np.bincount(place)
    covered = np.minimum(count * step_s / length_s, 1.0)
    keep = slice(0, None)
    if edges == "drop":
        keep = slice(int(covered[0] < 1.0), len(covered) - int(covered[-1] < 1.0))
    kept = covered[keep]
    if not len(kept) or (kept < least_covered).any():
        raise UsageError(
            f"totals: {unique_id!r} has {len(kept)} {period}s, the least recorded one for "
            f"{kept.min(initial=1.0):.0%} of it; cut the series at the hole, or lower least_covered={least_covered}"
        )
    mean = np.bincount(place, y) / np.maximum(count, 1)
    whole = mean * PERIODS_S[period] / step_s
    return pl.DataFrame({"unique_id": [unique_id] * len(kept), "ds": start_s[keep], "y": whole[keep], "covered": kept})


def _calendar(ds: np.ndarray, period: str, epoch: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The period of each row [rows] counted from the first, and their starts and real lengths in s [periods]."""
    begin = _begin(epoch)
    if period == "month":
        months = _months(begin, ds)
        first, place = months[0], months - months[0]
        bounds = [datetime(2000 + m // 12, m % 12 + 1, 1) for m in range(first, months[-1] + 2)]
        bounds_s = np.array([round((b - begin).total_seconds()) for b in bounds])
        return place, bounds_s[0] + MONTH_S * np.arange(len(bounds) - 1), np.diff(bounds_s)
    period_s = PERIODS_S[period]
    shift_s = clock_s(epoch) % period_s
    number = (ds + shift_s) // period_s
    place = number - number[0]
    start_s = (number[0] + np.arange(place[-1] + 1)) * period_s - shift_s
    return place, start_s, np.full(len(start_s), period_s)


def _months(begin: datetime, ds: np.ndarray) -> np.ndarray:
    """Months since January 2000 at seconds `ds` [rows]."""
    days, which = np.unique(
        (ds + (begin - begin.replace(hour=0, minute=0, second=0)).seconds) // DAY_S, return_inverse=True
    )
    dates = [begin + timedelta(days=int(day)) for day in days]
    return np.array([(d.year - 2000) * 12 + d.month - 1 for d in dates])[which]


def _begin(epoch: str) -> datetime:
    return datetime.fromisoformat(epoch).replace(tzinfo=None) if epoch else _MONDAY


def clock_s(epoch: str) -> int:
    """Seconds from a Monday midnight of the recording's clock to its second 0."""
    return round((_begin(epoch) - _MONDAY).total_seconds()) % WEEK_S


def core_hours(trace: Trace, step_s: int = DAY_S) -> pl.DataFrame:
    """The core-hours that the recorded jobs used in each step, as a long frame `unique_id`, `ds`, `y`.

    The steps before the first start and the one in which the last job ends are left out.

    Raises UsageError when the trace tells of no job when it ran.
    """
    jobs = trace.jobs.drop_nulls(["start_s", "run_s", "cpu_cores"])
    if not jobs.height:
        raise UsageError(f"trace {trace.info.name!r} tells of no job when and how wide it ran")
    start_s, cores = jobs["start_s"].to_numpy(), jobs["cpu_cores"].to_numpy()
    end_s = start_s + jobs["run_s"].to_numpy()
    first, last = int(np.ceil(start_s.min() / step_s)), int(end_s.max() // step_s)
    used = np.diff(_used_until(step_s * np.arange(first, last + 1, dtype=np.float64), start_s, end_s, cores)) / 3600.0
    name = f"{trace.info.name}/core_hours"
    return pl.DataFrame({"unique_id": [name] * len(used), "ds": np.arange(first, last) * step_s, "y": used})


def _used_until(at_s: Floats, start_s: Floats, end_s: Floats, cores: Floats) -> Floats:
    """Core-seconds used until each moment [moments]."""
    total = np.zeros(len(at_s))
    for moments_s, sign in ((start_s, 1.0), (end_s, -1.0)):
        order = np.argsort(moments_s)
        sorted_s, sorted_cores = moments_s[order], cores[order]
        width = np.concatenate([[0.0], sorted_cores.cumsum()])
        moment = np.concatenate([[0.0], (sorted_cores * sorted_s).cumsum()])
        passed = np.searchsorted(sorted_s, at_s)
        total += sign * (width[passed] * at_s - moment[passed])
    return total
