"""Regular series from dirty long frames, with a record of what was done to each, and why some cannot be forecast.

Only rows on record at the cutoff are looked at, whole: gaps are filled, outliers found and levels moved with what
came before and after them up to the cutoff, never with what came after it. A backtest that prepares at each of its
cutoffs has therefore nothing of the future in its past. The newest steps are never invented: where they are unknown
the series ends earlier and says how many steps are missing, so that a forecast starts from there, further ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast import mend
from agents.forecast.frames import Columns, Floats, Series
from twin.errors import UsageError

DAY_S = 86_400
_NONE = Columns()
LATEST_S = 1e11  # stamps beyond are not seconds (milliseconds, most often)
_LARGEST = 1e30  # values beyond are no measurement; a square of them would be infinite
_STRAYS = 3  # fewer rows in a row than this on a clock of their own are strays, not a jump


@dataclass(frozen=True, slots=True)
class Prepare:
    """How dirty series are made regular.

    Attributes:
        duplicates: what stands for several rows of one step: their "mean", or the "last" row of the frame.
        tolerance: how far a stamp may lie from its step and still belong to it, as share of the step (0-0.5).
        at_jump: where the clock jumped to another second of the step, "cut" what lies before, or "snap" all of it to
            the nearest step of the newest clock.
        linear_steps: a gap of at most so many steps is bridged by a straight line.
        seasonal_days: a longer one, up to this length, by the same time of the days around it; a gap beyond that cuts
            off what lies before it.
        most_filled: a series with a larger share (0-1) of filled steps is refused.
        most_stale_days: a series whose newest known value is older than this is refused.
        outliers_sigma: a value further than this many robust standard deviations from the median of its surroundings
            is replaced by that median (Hampel filter), if it is isolated; None leaves all values as they are, which is
            what a fair evaluation asks for.
        outlier_steps: how many such values in a row still count as isolated.
        hampel_steps: steps on either side that make the surroundings.
        shifts: what happens to the part before the last lasting change of level (PELT over daily medians): "keep" it,
            "rescale" it to the new level, or "drop" it.
        shift_sigma: how large a change must be, in robust standard deviations of the daily medians.
        least_steps: a series with fewer steps is refused.
    """

    duplicates: Literal["mean", "last"] = "mean"
    tolerance: float = 0.25
    at_jump: Literal["cut", "snap"] = "cut"
    linear_steps: int = 6
    seasonal_days: float = 1.0
    most_filled: float = 0.5
    most_stale_days: float = 1.0
    outliers_sigma: float | None = None
    outlier_steps: int = 2
    hampel_steps: int = 12
    shifts: Literal["keep", "rescale", "drop"] = "keep"
    shift_sigma: float = 4.0
    least_steps: int = 3

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        choices = {"duplicates": ("mean", "last"), "at_jump": ("cut", "snap"), "shifts": ("keep", "rescale", "drop")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"prepare: {name}={getattr(self, name)!r} must be one of {list(allowed)}")
        if not 0.0 <= self.tolerance <= 0.5:
            raise UsageError(f"prepare: tolerance={self.tolerance} is a share of a step, from 0 to 0.5")
        if self.least_steps < 1 or self.hampel_steps < 1:
            raise UsageError("prepare: least_steps and hampel_steps must be at least 1")


class Note(NamedTuple):
    """One thing that was done to one series; a row of the report."""

    unique_id: str
    what: str
    steps: int
    from_s: float
    to_s: float
    note: str


_REPORT = {
    "unique_id": pl.String,
    "what": pl.String,
    "steps": pl.Int64,
    "from_s": pl.Float64,
    "to_s": pl.Float64,
    "note": pl.String,
}


@dataclass(frozen=True, slots=True)
class Clean:
    """A series that can be forecast from its last known step.

    Attributes:
        series: finite values up to the last known step; `known` reaches `stale` steps further.
        stale: steps between the last known one and the end of the record: a forecast of the `h` steps to come is
            made `stale + h` steps ahead.
    """

    series: Series
    stale: int

    @property
    def end_s(self) -> int:
        """When the first step that is not on record begins."""
        return self.series.start_s + self.series.step_s * (len(self.series.values) + self.stale)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of a frame: series by name, the reason for each that was refused, and what was done to them."""

    clean: Mapping[str, Clean]
    refused: Mapping[str, str]
    notes: tuple[Note, ...]

    @property
    def report(self) -> pl.DataFrame:
        """`unique_id`, `what`, `steps`, `from_s`, `to_s`, `note`: a row for each thing that was done."""
        return report(self.notes)


def report(notes: Sequence[Note]) -> pl.DataFrame:
    """The notes as a table."""
    return pl.DataFrame(notes, schema=_REPORT, orient="row")


def prepare(
    frame: pl.DataFrame,
    step_s: int,
    settings: Prepare = Prepare(),
    columns: Columns = _NONE,
    cutoff_s: float | None = None,
) -> Prepared:
    """The frame's series made regular.

    Args:
        frame: `unique_id`, `ds` (s), `y` and the named columns; rows in any order, duplicates and holes allowed.
        step_s: seconds of a step.
        settings: what is done about dirt.
        columns: which columns stand beside `y`.
        cutoff_s: only rows up to then are looked at, and the step of that moment is the last that could be known;
            by default all rows, and the last row of each series.

    Raises:
        UsageError: a column is missing or holds no numbers, or the step is not positive.
    """
    if step_s < 1:
        raise UsageError(f"a step of {step_s} s is none; give a positive number of seconds")
    rows = _numbers(frame, columns)
    if cutoff_s is not None:
        rows = rows.filter(pl.col("ds") <= cutoff_s + settings.tolerance * step_s)
    clean: dict[str, Clean] = {}
    refused: dict[str, str] = {}
    notes: list[Note] = []
    groups = rows.sort("unique_id", "ds", maintain_order=True).partition_by(
        "unique_id", as_dict=True, maintain_order=True
    )
    for (unique_id,), own in groups.items():
        work = _Work(str(unique_id), step_s, settings, columns)
        try:
            clean[work.unique_id] = _one(own, work, cutoff_s)
        except UsageError as error:
            refused[work.unique_id] = str(error)
        notes += work.notes
    return Prepared(clean, refused, tuple(notes))


def _numbers(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    numeric = ("ds", "y", *columns.known, *columns.seen, *columns.static)
    missing = [c for c in ("unique_id", *numeric) if c not in frame.columns]
    if missing:
        raise UsageError(f"the frame needs the column {missing[0]!r}; it has {frame.columns}")
    for name in numeric:
        if not (frame[name].dtype.is_numeric() or frame[name].dtype in (pl.Boolean, pl.Null)):
            raise UsageError(f"the column {name!r} holds {frame[name].dtype}, not numbers; convert it")
    if frame["unique_id"].null_count():
        raise UsageError(f"{frame['unique_id'].null_count()} rows have no unique_id; give one, or leave them out")
    return frame.select(pl.col("unique_id").cast(pl.String), *(pl.col(c).cast(pl.Float64) for c in numeric))


@dataclass(frozen=True, slots=True)
class _Work:
    """One series at work: its settings, and the notes of what was done to it."""

    unique_id: str
    step_s: int
    settings: Prepare
    columns: Columns
    notes: list[Note] = field(default_factory=list)

    @property
    def longest_gap(self) -> int:
        """Steps of the longest gap that may be filled."""
        return max(self.settings.linear_steps, int(self.settings.seasonal_days * DAY_S / self.step_s))

    def note(self, what: str, stamps: Floats, text: str) -> None:
        if len(stamps):
            self.notes.append(Note(self.unique_id, what, len(stamps), float(stamps.min()), float(stamps.max()), text))

    def refuse(self, why: str) -> UsageError:
        return UsageError(f"series {self.unique_id!r}: {why}")


def _one(rows: pl.DataFrame, work: _Work, cutoff_s: float | None) -> Clean:
    """One series, made regular step by step; raises UsageError with the reason why it cannot be."""
    rows = _stamped(rows, work)
    start_s, grid = _on_grid(rows, work, cutoff_s)
    at = (start_s + work.step_s * np.arange(len(grid))).astype(np.float64)
    begin, end = _span(grid[:, 0], at, work)
    work.note("newest unknown", at[end:], "forecast from the last known step, further ahead")
    values = _filled(grid[begin:end, 0], at[begin:end], work)
    values = _without_outliers(values, at[begin:end], work)
    kept, values = _on_last_level(values, at[begin:end], work)
    begin += kept
    if len(values) < work.settings.least_steps:
        raise work.refuse(f"{len(values)} regular steps are left, fewer than {work.settings.least_steps}")
    if np.ptp(values) == 0.0:
        work.note("constant", at[begin:end], f"every value is {values[0]:g}")
    split = 1 + len(work.columns.known)
    known = _held(grid[begin:, 1:split], at[begin:], work.columns.known, work)
    seen = _held(grid[begin:end, split:], at[begin:end], work.columns.seen, work)
    series = Series(work.unique_id, int(at[begin]), work.step_s, values, known, seen, _static(rows, work), work.columns)
    return Clean(series, len(grid) - end)


# ---------------------------------------------------------------- stamps


def _stamped(rows: pl.DataFrame, work: _Work) -> pl.DataFrame:
    good = rows.filter(pl.col("ds").abs() <= LATEST_S)  # unknown is not smaller
    if len(good) < len(rows):
        text = "rows without a stamp in seconds: left out"
        work.notes.append(Note(work.unique_id, "no stamp", len(rows) - len(good), np.nan, np.nan, text))
    if not len(good):
        raise work.refuse("none of its rows has a stamp in seconds")
    return good


def _on_grid(rows: pl.DataFrame, work: _Work, cutoff_s: float | None) -> tuple[int, Floats]:
    """When the first step begins, and one row per step [steps, columns], NaN where nothing is on record."""
    ds = rows["ds"].to_numpy()
    table = rows.select("y", *work.columns.known, *work.columns.seen).to_numpy().astype(np.float64)
    impossible = ~np.isfinite(table[:, 0]) & ~np.isnan(table[:, 0]) | (np.abs(table[:, 0]) > _LARGEST)
    work.note("impossible values", ds[impossible], "infinite, or too large to be a measurement: unknown")
    table[~(np.abs(table) <= _LARGEST)] = np.nan
    kept = _on_clock(ds, work)
    ds, table = ds[kept], table[kept]
    phase = mend.phase(ds, work.step_s)
    index = np.round((ds - phase) / work.step_s).astype(np.int64)
    begin = _after_long_gaps(index, ds, work)
    ds, table, index = ds[begin:], table[begin:], index[begin:]
    moved = np.abs(ds - phase - index * work.step_s)
    work.note("moved", ds[moved > 0.0], f"stamps snapped to the step, by at most {moved.max():g} s")
    work.note("duplicates", ds[1:][np.diff(index) == 0], f"several rows of one step: {work.settings.duplicates}")
    last = int(index[-1])
    if cutoff_s is not None:
        last = max(int(np.floor((cutoff_s - phase) / work.step_s + work.settings.tolerance)), last)
    _check_not_stale(last - int(index[-1]), work)
    grid = mend.merged(index - index[0], table, last - int(index[0]) + 1, work.settings.duplicates)
    return int(phase + index[0] * work.step_s), grid


def _check_not_stale(steps: int, work: _Work) -> None:
    days = steps * work.step_s / DAY_S
    if days > work.settings.most_stale_days:
        limit = work.settings.most_stale_days
        raise work.refuse(f"its newest {steps} steps ({days:.3g} days) are unknown; most_stale_days={limit:g}")


def _on_clock(ds: Floats, work: _Work) -> NDArray[np.bool_]:
    """Which rows keep to the clock that the newest rows keep; raises UsageError when none do."""
    kept = np.ones(len(ds), bool)
    if work.settings.at_jump == "snap":
        return kept
    part = mend.stretches(ds, work.step_s, work.settings.tolerance)
    strays = np.bincount(part)[part] < min(_STRAYS, len(ds))
    if strays.all():
        raise work.refuse(f"its stamps keep to no step of {work.step_s} s; give the right step, or at_jump='snap'")
    work.note("off the step", ds[strays], "stamps too far from any step: left out")
    kept[strays] = False
    part = mend.stretches(ds[kept], work.step_s, work.settings.tolerance)
    cut = np.flatnonzero(kept)[part < part[-1]]
    work.note("clock jump", ds[cut], "stamps on another second of the step: cut off")
    kept[cut] = False
    return kept


def _after_long_gaps(index: NDArray[np.int64], ds: Floats, work: _Work) -> int:
    """The first row after the last gap that is too long to be filled."""
    gaps = np.flatnonzero(np.diff(index) - 1 > work.longest_gap)
    if not len(gaps):
        return 0
    begin = int(gaps[-1]) + 1
    work.note("cut at a gap", ds[:begin], f"before a gap longer than {work.longest_gap} steps: cut off")
    return begin


# ---------------------------------------------------------------- values


def _span(values: Floats, at: Floats, work: _Work) -> tuple[int, int]:
    """From where to where the values count: after the last gap that is too long to fill, up to the last known one."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        raise work.refuse("no value of it is known")
    _check_not_stale(len(values) - 1 - int(known[-1]), work)
    begin = _after_long_gaps(known, at[known], work)
    return int(known[begin]), int(known[-1]) + 1


def _filled(values: Floats, at: Floats, work: _Work) -> Floats:
    """No unknown value is left between known ones; raises UsageError when too many were."""
    unknown = ~np.isfinite(values)
    share, most = unknown.mean(), work.settings.most_filled
    if share > most:
        raise work.refuse(f"{share:.0%} of its steps are unknown; most_filled={most:g}")
    filled = mend.bridged(values)
    long = unknown & (mend.run_lengths(unknown) > work.settings.linear_steps)
    work.note("short gaps", at[unknown & ~long], "bridged by a line")
    around = mend.like_days_around(values, np.flatnonzero(long), DAY_S // work.step_s)
    filled[long] = np.where(np.isfinite(around), around, filled[long])
    work.note("long gaps", at[long], "filled with the same time of the days around, or a line without any")
    return filled


def _held(table: Floats, at: Floats, names: Sequence[str], work: _Work) -> Floats:
    for k, name in enumerate(names):
        unknown = ~np.isfinite(table[:, k])
        if unknown.all():
            raise work.refuse(f"no value of its column {name!r} is known")
        work.note(f"unknown {name}", at[unknown], "the last known value holds on")
        table[:, k] = mend.held(table[:, k])
    return table


def _static(rows: pl.DataFrame, work: _Work) -> Floats:
    found = []
    for name in work.columns.static:
        values = rows[name].drop_nulls().unique()
        if len(values) != 1 or not np.isfinite(values[0]):
            raise work.refuse(f"its static column {name!r} needs exactly one value; it has {values.to_list()[:3]}")
        found.append(float(values[0]))
    return np.array(found)


def _without_outliers(values: Floats, at: Floats, work: _Work) -> Floats:
    sigma = work.settings.outliers_sigma
    if sigma is None:
        return values
    lonely, middle = mend.hampel(values, work.settings.hampel_steps, sigma, work.settings.outlier_steps)
    work.note("outliers", at[lonely], f"further than {sigma:g} sigma: median of their surroundings")
    return np.where(lonely, middle, values)


def _on_last_level(values: Floats, at: Floats, work: _Work) -> tuple[int, Floats]:
    """The first step kept, and the values from there on, on the level after the last lasting shift."""
    how = work.settings.shifts
    shift = None if how == "keep" else mend.last_shift(values, DAY_S // work.step_s, work.settings.shift_sigma)
    if shift is None:
        return 0, values
    step, before, after = shift
    work.note("level shift", at[:step], f"from {before:g} to {after:g}: what lies before: {how}")
    if how == "drop":
        return step, values[step:]
    earlier = values[:step]
    # load is scaled, so that it stays positive; what may be negative is moved
    scaled = values.min() >= 0.0 and before > 0.0 and after > 0.0
    return 0, np.concatenate([earlier * (after / before) if scaled else earlier + (after - before), values[step:]])
