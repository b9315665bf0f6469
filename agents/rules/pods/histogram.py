"""A histogram that forgets: what the Vertical Pod Autoscaler remembers of the use of a resource.

Source: the recommender's histograms (vertical-pod-autoscaler 1.x, `pkg/recommender/util`). Bucket n begins at
first x (growth^n - 1) / (growth - 1), or at first x n when the growth is 1. A sample weighs 2^(age / half-life) more
than an older one, by growing weights rather than shrinking those that are there: a reference time moves forward
before they grow too large. A percentile is the end of the bucket that it falls into, never between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError

# past this many half-lives the reference time moves forward
_MOST_HALF_LIVES = 100


@dataclass(frozen=True, slots=True)
class Buckets:
    """Where buckets begin: the first is `first` wide and each further one `growth` times as wide as the one before."""

    first: float
    growth: float
    count: int

    def __post_init__(self) -> None:
        if self.first <= 0 or self.growth < 1 or self.count < 1:
            raise UsageError(f"{self}: first > 0, growth >= 1 and count >= 1 must hold")

    def find(self, value: float) -> int:
        """The bucket that holds the value; the first or the last one for values beyond them."""
        if self.growth == 1:
            bucket = int(value / self.first)
        elif value < self.first:
            bucket = 0
        else:
            bucket = int(math.log(value * (self.growth - 1) / self.first + 1) / math.log(self.growth))
        return min(max(bucket, 0), self.count - 1)

    def start(self, bucket: int) -> float:
        """The least value of the bucket."""
        if self.growth == 1:
            return bucket * self.first
        return self.first * (self.growth**bucket - 1) / (self.growth - 1)


def linear(most: float, width: float) -> Buckets:
    """Buckets of equal width, the last of which begins at `most` or above."""
    return Buckets(width, 1.0, math.ceil(most / width) + 1)


def exponential(most: float, first: float, growth: float) -> Buckets:
    """Buckets that grow, the last of which begins at `most` or above."""
    return Buckets(first, growth, math.ceil(math.log(most * (growth - 1) / first + 1) / math.log(growth)) + 1)


class DecayingHistogram:
    """Weights of samples by bucket, of which the newer ones count for more."""

    def __init__(self, buckets: Buckets, half_life_s: float, epsilon: float) -> None:
        """An empty histogram.

        Args:
            buckets: where values are sorted into.
            half_life_s: seconds in which a sample loses half of its weight; infinity for none.
            epsilon: a bucket with less weight than this is empty.

        Raises:
            UsageError: when the half-life or epsilon is not above 0.
        """
        if half_life_s <= 0 or epsilon <= 0:
            raise UsageError(f"histogram: half_life_s={half_life_s} and epsilon={epsilon} must be above 0")
        self.buckets = buckets
        self.half_life_s = half_life_s
        self.epsilon = epsilon
        self.weights: NDArray[np.float64] = np.zeros(buckets.count)
        self.total = 0.0
        self._reference_s: float | None = None
        self._least, self._most = buckets.count - 1, 0

    @property
    def empty(self) -> bool:
        """Has it no sample that counts?"""
        return bool(self.weights[self._least] < self.epsilon)

    def add(self, value: float, weight: float, time_s: float) -> None:
        """Add a sample of that weight (>= 0) at that time."""
        bucket, grown = self.buckets.find(value), weight * self._growth(time_s)
        self.weights[bucket] += grown
        self.total += grown
        if self.weights[bucket] >= self.epsilon:
            self._least, self._most = min(self._least, bucket), max(self._most, bucket)

    def subtract(self, value: float, weight: float, time_s: float) -> None:
        """Take back a sample that was added with the same value, weight and time."""
        bucket, grown = self.buckets.find(value), weight * self._growth(time_s)
        held = float(self.weights[bucket])
        taken = held if grown > held - self.epsilon else grown
        self.weights[bucket] -= taken
        self.total -= taken
        self._tighten()

    def percentile(self, share: float) -> float:
        """The end of the bucket below which `share` (0-1) of the weight lies; 0 when empty.

        The last bucket has no end: its beginning is given instead.
        """
        if self.empty:
            return 0.0
        sums = np.cumsum(self.weights[self._least : self._most])
        bucket = self._least + int(np.searchsorted(sums, share * self.total, side="left"))
        return self.buckets.start(min(bucket + 1, self.buckets.count - 1))

    def _growth(self, time_s: float) -> float:
        if math.isinf(self.half_life_s):
            return 1.0
        if self._reference_s is None:
            self._reference_s = self._rounded(time_s)
        elif time_s > self._reference_s + _MOST_HALF_LIVES * self.half_life_s:
            self._shift(self._reference_s, self._rounded(time_s))
        return 2.0 ** ((time_s - self._reference_s) / self.half_life_s)

    def _rounded(self, time_s: float) -> float:
        return math.floor(time_s / self.half_life_s + 0.5) * self.half_life_s

    def _shift(self, old_s: float, new_s: float) -> None:
        factor = 2.0 ** round((old_s - new_s) / self.half_life_s)
        self.weights[self._least : self._most + 1] *= factor
        self.total *= factor
        self._reference_s = new_s
        self._tighten()

    def _tighten(self) -> None:
        while self.weights[self._least] < self.epsilon and self._least < self.buckets.count - 1:
            self._least += 1
        while self.weights[self._most] < self.epsilon and self._most > 0:
            self._most -= 1
