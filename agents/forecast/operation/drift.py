"""When a series, or the errors of its forecasts, are no longer what they were.

A watch is fitted on whole days that count as normal, then told of each block of steps (an hour) the values y, the
errors e of the forecasts one step ahead, and those n of the last value. It takes the means over the block of

    log |y|     and     log(1 + |e| / usual |e|) - b log(1 + |n| / usual |n|)

with b fitted on the reference: a day on which every forecast is worse is no news about this one, and with n the
errors' own ups and downs are nearly gone (a doubling is then seen within a day where it could take two). What makes
last value and model worse alike is therefore not an alarm of `error`. Less their means at that time of day the two
are residuals, and three tests look at those of the last 24 hours:

    level    |their mean|: has the level moved by `level_change`?
    error    the mean of the second: have errors grown by `error_change`?
    spread   their Kolmogorov-Smirnov distance to the reference's, moves of less than half a `level_change` left
             out: do they come from another distribution?

p-values and the usual constants hold for independent values, and the hours of a day are anything but. So thresholds
are measured: whole days of the reference are drawn into streams of `stream_days`, their profile is taken from other
draws, and a threshold is the quantile of the streams' maxima that one test's part of `false_alarms` allows. This
answers for autocorrelation, for a short reference, and for looking again every hour. The form of the tests was chosen
on both embedded recordings, Google's and Azure's, and two constants on Azure's alone: `margins`, since days more
extreme than all of the reference do come, and `least_share` of the change that matters, below which nothing is an
alarm however quiet the reference was. All of it was measured with two weeks of reference; one has too few weekends.

The moving sum was chosen over CUSUM and ADWIN for the delay: of a change that holds, all is in the window after a day
(Chu, Hornik and Kuan 1995, MOSUM tests for parameter constancy, Biometrika 82). Blocks of days: Kunsch (1989), The
jackknife and the bootstrap for general stationary observations, Annals of Statistics 17.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import Floats
from twin.errors import UsageError
from twin.seeds import child

TESTS = ("level", "error", "spread")
DAY_BLOCKS = 24
_DRAWS = 400
_FEWEST_DAYS = 5
_LEAST = 1e-6  # of the usual magnitude: keeps the logarithm of nothing finite
_LEAST_DISTANCE, _MOST_DISTANCE = 0.25, 0.98  # a threshold of one could never be passed


@dataclass(frozen=True, slots=True)
class Drift:
    """What counts as a change, and how many false alarms are allowed.

    Attributes:
        level_change: the factor by which the level must move, either way, to matter.
        error_change: the factor by which errors must grow to matter.
        false_alarms: share of stable streams of `stream_days` in which any of the tests may cry, at most.
        stream_days: how long such a stream is.
        margins: factors on the measured thresholds of level, error and spread.
        least_share: of the change that matters, the least that is an alarm (0-1).
        look_hours: hours between two looks of the Kolmogorov-Smirnov test.
    """

    level_change: float = 1.2
    error_change: float = 2.0
    false_alarms: float = 0.05
    stream_days: int = 30
    margins: tuple[float, float, float] = (1.05, 1.2, 1.2)
    least_share: float = 0.5
    look_hours: int = 6

    def __post_init__(self) -> None:
        if min(self.level_change, self.error_change) <= 1.0 or not 0.0 < self.false_alarms < 1.0:
            raise UsageError(f"{self}: a change is a factor above 1, and false_alarms a share in (0, 1)")
        if self.look_hours < 1 or self.stream_days < 2 or min(self.margins) <= 0.0:
            raise UsageError(f"{self}: look_hours must be 1 or more, stream_days 2 or more, margins above 0")

    @property
    def tolerance(self) -> float:
        """How far the log of a value may move without counting as another distribution."""
        return 0.5 * float(np.log(self.level_change))

    def watch(self, days: Blocks, seed: int) -> Watch:
        """A watch that takes these whole days, from midnight on, for normal; `seed` is that of the draws.

        Raises UsageError when they are not whole days, or fewer than five.
        """
        if len(days.y) % DAY_BLOCKS or len(days.y) < _FEWEST_DAYS * DAY_BLOCKS:
            raise UsageError(
                f"a watch needs whole days, at least {_FEWEST_DAYS} of {DAY_BLOCKS} blocks; got {len(days.y)} blocks"
            )
        units = Units.of(days)
        level, errors = (each.reshape(-1, DAY_BLOCKS) for each in units.features(days))
        grown = units.features(Blocks(days.y, self.error_change * days.error, days.naive))[1].reshape(-1, DAY_BLOCKS)
        changes = np.array([np.log(self.level_change), (grown - errors).mean(), 0.0])
        measured = _measured(level, errors, self, child(seed, "forecast"))
        thresholds = np.maximum(np.array(self.margins) * measured, self.least_share * changes)
        thresholds[2] = np.clip(thresholds[2], _LEAST_DISTANCE, _MOST_DISTANCE)
        profiles = np.stack([level.mean(axis=0), errors.mean(axis=0)])
        return Watch(self, units, profiles, np.sort((level - profiles[0]).ravel()), thresholds)


@dataclass(frozen=True, slots=True)
class Blocks:
    """What a watch is told, per block of steps: arrays [blocks, steps of a block]; a single block is one row.

    Attributes:
        y: the series; raises UsageError when the three differ in shape.
        error: absolute errors one step ahead; NaN where none is known.
        naive: absolute errors of the last value.
    """

    y: Floats
    error: Floats
    naive: Floats

    def __post_init__(self) -> None:
        if self.y.ndim != 2 or self.y.shape != self.error.shape or self.y.shape != self.naive.shape:
            shapes = [list(each.shape) for each in (self.y, self.error, self.naive)]
            raise UsageError(f"values and errors of blocks must have one shape [blocks, steps]; got {shapes}")


class Units(NamedTuple):
    """What values and errors usually amount to, and how much of an error the last value's explains."""

    y: float
    error: float
    naive: float
    slope: float

    @classmethod
    def of(cls, days: Blocks) -> Units:
        """Those of whole days."""
        plain = cls(_magnitude(days.y), _magnitude(days.error), _magnitude(days.naive), 0.0)
        both = (_sizes(days.error, plain.error), _sizes(days.naive, plain.naive))
        moved = [(each.reshape(-1, DAY_BLOCKS) - each.reshape(-1, DAY_BLOCKS).mean(axis=0)).ravel() for each in both]
        spread = float(moved[1] @ moved[1])
        return plain._replace(slope=float(moved[0] @ moved[1]) / spread if spread > 0.0 else 0.0)

    def features(self, blocks: Blocks) -> tuple[Floats, Floats]:
        """(level, error) of each block."""
        level = np.log(np.maximum(np.abs(blocks.y) / self.y, _LEAST)).mean(axis=-1)
        return level, _sizes(blocks.error, self.error) - self.slope * _sizes(blocks.naive, self.naive)


def _sizes(errors: Floats, unit: float) -> Floats:
    """The mean log(1 + error / unit) of each block [blocks]; unknown errors are left out."""
    size = np.log1p(errors / unit)
    known = np.isfinite(size)
    return np.where(known, size, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)


def _magnitude(values: Floats) -> float:
    return max(float(np.nanmean(np.abs(values))), np.finfo(np.float64).tiny)


class Alarm(NamedTuple):
    """What a test saw: its statistic as a share of its threshold (1 and above)."""

    test: str
    share: float


class Watch:
    """The tests of one series at work; made by `Drift.watch`."""

    def __init__(self, drift: Drift, units: Units, profiles: Floats, reference: Floats, thresholds: Floats) -> None:
        self.drift = drift
        self.thresholds = thresholds
        self._units = units
        self._profiles = profiles
        self._reference = reference
        self._recent = np.full((2, DAY_BLOCKS), np.nan)
        self._seen = 0
        self._distance = 0.0

    def update(self, block: int, told: Blocks) -> Alarm | None:
        """The strongest alarm, or None, after a block (one row, counted from any midnight on) has come in."""
        found = np.concatenate(self._units.features(told))
        self._recent[:, self._seen % DAY_BLOCKS] = found - self._profiles[:, block % DAY_BLOCKS]
        self._seen += 1
        if self._seen < DAY_BLOCKS:
            return None
        if (block + 1) % self.drift.look_hours == 0:
            self._distance = float(distance(self._recent[:1], self._reference, self.drift.tolerance)[0])
        shares = self.shares()
        worst = int(shares.argmax())
        return Alarm(TESTS[worst], float(shares[worst])) if shares[worst] >= 1.0 else None

    def shares(self) -> Floats:
        """Where each of TESTS stands, as a share of its threshold [3]; 0 before the first day is full."""
        if self._seen < DAY_BLOCKS:
            return np.zeros(len(TESTS))
        level, error = self._recent.mean(axis=1)
        return np.array([abs(level), error, self._distance]) / self.thresholds


def _measured(level: Floats, error: Floats, drift: Drift, rng: np.random.Generator) -> Floats:
    """The quantiles [3] of the tests' maxima over streams drawn from the reference's days [days, 24]."""
    days = len(level)
    known = rng.integers(days, size=(_DRAWS, days))
    stream = rng.integers(days, size=(_DRAWS, drift.stream_days))
    level_moves, error_moves = (_residuals(each, stream, known) for each in (level, error))
    reference = np.sort(_residuals(level, known, known), axis=1)
    maxima = np.stack(
        [
            np.abs(_day_means(level_moves)).max(axis=1),
            _day_means(error_moves).max(axis=1),
            _most_distance(level_moves, reference, drift),
        ]
    )
    return np.quantile(maxima, 1.0 - drift.false_alarms / len(TESTS), axis=1)


def _residuals(days: Floats, stream: NDArray[np.int64], known: NDArray[np.int64]) -> Floats:
    """The days of each stream, end to end [streams, blocks], less the profile of its known days."""
    return (days[stream] - days[known].mean(axis=1)[:, None, :]).reshape(len(stream), -1)


def _day_means(residuals: Floats) -> Floats:
    """The means [streams, blocks - 23] of every 24 blocks in a row."""
    sums = np.cumsum(np.pad(residuals, ((0, 0), (1, 0))), axis=1)
    return (sums[:, DAY_BLOCKS:] - sums[:, :-DAY_BLOCKS]) / DAY_BLOCKS


def _most_distance(residuals: Floats, references: Floats, drift: Drift) -> Floats:
    """The greatest distance [streams] of a looked-at day of residuals [streams, blocks] to the stream's reference."""
    days = np.lib.stride_tricks.sliding_window_view(residuals, DAY_BLOCKS, axis=1)
    looked = days[:, (-DAY_BLOCKS) % drift.look_hours :: drift.look_hours]
    each = zip(looked, references, strict=True)
    return np.array([distance(own, known, drift.tolerance).max() for own, known in each])


def distance(windows: Floats, reference: Floats, tolerance: float = 0.0) -> Floats:
    """The two-sample Kolmogorov-Smirnov distance [n] of each window [n, k] to the sorted reference [m].

    With a tolerance it is what remains when every value may first move by as much towards the reference: of two
    narrow distributions the plain distance is near one, however close they lie.
    """
    ordered = np.sort(windows, axis=1)
    k, m = ordered.shape[1], len(reference)
    upper = np.searchsorted(reference, ordered + tolerance, side="right") / m
    lower = np.searchsorted(reference, ordered - tolerance, side="left") / m
    above, below = np.arange(1, k + 1) / k - upper, lower - np.arange(k) / k
    return np.maximum(np.maximum(above.max(axis=1), below.max(axis=1)), 0.0)
