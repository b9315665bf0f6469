"""How often drift tests cry on streams that are stable by construction, and how late they are on planted changes.

A stable stream is made of whole days of a recording in random order, with replacement: its hours hang together as
real ones do, and its days come from one distribution. The reference is some of those days in a row, as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.forecast.base import MEDIAN, Floats, Forecaster
from agents.forecast.frames import Series
from agents.forecast.operation.drift import DAY_BLOCKS, Blocks, Drift
from agents.forecast.rolling import roll
from twin.errors import UsageError
from twin.seeds import child

PLANTS = ("none", "level x 1.2", "level / 1.2", "errors x 2")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Days:
    """Whole days of one recording: y and absolute errors one step ahead, each [days, 24, steps of a block]."""

    unique_id: str
    y: Floats
    error: Floats
    naive: Floats

    def drawn(self, which: NDArray[np.int64]) -> Blocks:
        """Some of the days, end to end."""
        return Blocks(*(each[which].reshape(-1, each.shape[2]) for each in (self.y, self.error, self.naive)))


Detect = Callable[[Blocks, Blocks, int], int | None]
"""(reference, stream, seed) -> the block of the first alarm, or None."""


def days_of(fitted: Forecaster, series: Series, start: int) -> Days:
    """The whole days of `series` from the step `start` on, with what `fitted` got wrong one step ahead.

    Raises UsageError when a block of the day is no whole number of steps, or there is no whole day.
    """
    day = _DAY_S // series.step_s
    first = -(-max(start, fitted.needs, 1) // day) * day
    whole = (len(series.values) - first) // day * day
    if day % DAY_BLOCKS or whole <= 0:
        raise UsageError(f"series {series.unique_id!r}: no whole days of {DAY_BLOCKS} hours after step {first}")
    rolled = roll(fitted, series, np.arange(first, first + whole), 1)
    error = np.abs(rolled.said[:, 0, MEDIAN] - rolled.truth[:, 0])
    values = series.values[first - 1 : first + whole]
    shape = (-1, DAY_BLOCKS, day // DAY_BLOCKS)
    naive = np.abs(np.diff(values))
    return Days(series.unique_id, values[1:].reshape(shape), error.reshape(shape), naive.reshape(shape))


def planted(stream: Blocks, plant: str, block: int) -> Blocks:
    """The stream with one of PLANTS from `block` on: the level moves with all errors, or the model's errors alone."""
    y, error, naive = stream.y.copy(), stream.error.copy(), stream.naive.copy()
    factor = {"level x 1.2": 1.2, "level / 1.2": 1.0 / 1.2}.get(plant)
    if factor:
        for each in (y, error, naive):
            each[block:] *= factor
    elif plant == "errors x 2":
        error[block:] *= 2.0
    return Blocks(y, error, naive)


def calibrated(drift: Drift) -> Detect:
    """The tests of `drift` as one detector."""

    def detect(reference: Blocks, stream: Blocks, seed: int) -> int | None:
        watch = drift.watch(reference, seed)
        for block, rows in enumerate(zip(stream.y, stream.error, stream.naive, strict=True)):
            if watch.update(block, Blocks(*(row[None] for row in rows))):
                return block
        return None

    return detect


def adwin(delta: float = 0.002) -> Detect:
    """ADWIN (river) on the errors step by step, in units of the reference's mean; by default with river's constant."""

    def detect(reference: Blocks, stream: Blocks, seed: int) -> int | None:  # noqa: ARG001 - nothing is drawn
        from river.drift import ADWIN

        test, unit = ADWIN(delta=delta), float(reference.error.mean())
        return _first_block(test, stream.error / unit)

    return detect


def page_hinkley(threshold: float = 50.0, delta: float = 0.005) -> Detect:
    """Page-Hinkley (river), upwards, on the same errors; by default with river's constants."""

    def detect(reference: Blocks, stream: Blocks, seed: int) -> int | None:  # noqa: ARG001 - nothing is drawn
        from river.drift import PageHinkley

        test, unit = PageHinkley(threshold=threshold, delta=delta, mode="up"), float(reference.error.mean())
        return _first_block(test, stream.error / unit)

    return detect


def _first_block(test: object, errors: Floats) -> int | None:
    for block, steps in enumerate(errors):
        for value in steps.tolist():
            test.update(value)  # pyright: ignore[reportAttributeAccessIssue] - river's own protocol is untyped
            if test.drift_detected:  # pyright: ignore[reportAttributeAccessIssue]
                return block
    return None


def trials(
    detectors: Mapping[str, Detect],
    recordings: Sequence[Days],
    *,
    runs: int,
    seed: int,
    reference_days: int = 14,
    stream_days: int = 30,
) -> pl.DataFrame:
    """One row per detector, series, plant and run: `detector, unique_id, plant, run, alarm_h` (null: no alarm).

    Hours count from the stream's start without a change, from the change with one (planted at a random hour of its
    middle third; an alarm before it is not positive).
    """
    rows = []
    for days in recordings:
        rng = child(seed, f"forecast/{days.unique_id}")
        for run in range(runs):
            begin = int(rng.integers(max(len(days.y) - reference_days, 0) + 1))
            reference = days.drawn(np.arange(begin, min(begin + reference_days, len(days.y))))
            stream = days.drawn(rng.integers(len(days.y), size=stream_days))
            change = int(rng.integers(len(stream.y) // 3, 2 * len(stream.y) // 3))
            for plant in PLANTS:
                seen = planted(stream, plant, change)
                since = 0 if plant == "none" else change
                for name, detect in detectors.items():
                    block = detect(reference, seen, seed + run)
                    rows.append((name, days.unique_id, plant, run, None if block is None else block + 1 - since))
    columns = {"detector": pl.String, "unique_id": pl.String, "plant": pl.String, "run": pl.Int64, "alarm_h": pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")


def summary(trialled: pl.DataFrame, limit_h: int = 24) -> pl.DataFrame:
    """The `drift_trials` table: streams with a false alarm, changes seen within `limit_h`, delays in hours.

    Streams with an alarm before their change say nothing about its delay, and are left out of the last three columns.
    """
    alarm, stable = pl.col("alarm_h"), pl.col("plant") == "none"
    early = (alarm <= 0).fill_null(value=False)
    late = alarm.cast(pl.Float64).fill_null(float("inf")).filter(~early & ~stable)
    return trialled.group_by("detector", "unique_id", "plant", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("runs"),
        (100.0 * pl.when(stable).then(alarm.is_not_null()).otherwise(early).mean()).alias("false_alarm_percent"),
        (100.0 * (late <= limit_h).mean()).alias("in_time_percent"),
        late.quantile(0.5, "higher").alias("delay_p50_h"),
        late.quantile(0.95, "higher").alias("delay_p95_h"),
    )
