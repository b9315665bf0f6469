"""What a replica should ask for: the recommender of the Vertical Pod Autoscaler, as records and functions.

Source: vertical-pod-autoscaler 1.x (`pkg/recommender/model`, `pkg/recommender/logic`). CPU: every sample of the use
goes into a decaying histogram. Memory: one sample for each interval of a day, its peak; a kill for want of memory
counts as a peak of max(1.2 x, + 100 MiB) of what was asked for or used before. Then, for both:

    bound = max(floor, percentile x (1 + margin) x (1 + multiplier / confidence)^exponent)
    confidence = min(days from the first to the last sample, samples / 1440)

Amounts are whole millicores and bytes, cut off after every step and never above 10^14, as there. Where the use of
single replicas is not told apart, a service is remembered as one container.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from agents.rules.pods.histogram import DecayingHistogram, exponential
from twin.errors import UsageError

DAY_S = 86_400.0
MIB = 2**20
MOST = 10**14
"""The largest amount: 100 G cores or 100 TB, which stands for "no bound yet"."""

_SAMPLES_PER_DAY = 1440
_LEAST_WEIGHT = 0.1
_EPSILON = 0.001 * _LEAST_WEIGHT
_CPU_BUCKETS = exponential(1000.0, 0.01, 1.05)  # cores
_MEMORY_BUCKETS = exponential(1e12, 1e7, 1.05)  # bytes


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Which share of the samples lies below each bound (0-1)."""

    lower: float = 0.5
    target: float = 0.9
    upper: float = 0.95


@dataclass(frozen=True, slots=True)
class Recommender:
    """The settings, with the project's defaults.

    `weigh_by_request`: CPU samples weigh what was asked for then (at least 0.1), so that a raised request soon
    counts for more; newer releases let all weigh the same. The floors of a pod are shared among its `containers`.
    """

    cpu: Percentiles = Percentiles()
    memory: Percentiles = Percentiles()
    margin: float = 0.15
    min_cpu_millicores: float = 25.0
    min_memory_mib: float = 250.0
    containers: int = 1
    cpu_half_life_s: float = DAY_S
    memory_half_life_s: float = DAY_S
    memory_interval_s: float = DAY_S
    memory_intervals: int = 8
    confidence_s: float = DAY_S
    oom_ratio: float = 1.2
    oom_min_mib: float = 100.0
    round_cpu_millicores: int = 1
    weigh_by_request: bool = True

    def __post_init__(self) -> None:
        if self.containers < 1 or self.round_cpu_millicores < 1 or self.memory_intervals < 1:
            raise UsageError(
                f"recommender: containers={self.containers}, round_cpu_millicores={self.round_cpu_millicores} and "
                f"memory_intervals={self.memory_intervals} must be at least 1"
            )
        if min(self.memory_interval_s, self.confidence_s) <= 0 or self.oom_ratio < 1:
            raise UsageError(
                f"recommender: memory_interval_s={self.memory_interval_s} and confidence_s={self.confidence_s} "
                f"must be above 0, oom_ratio={self.oom_ratio} at least 1"
            )


@dataclass(frozen=True, slots=True)
class Allowed:
    """The least and the most of one resource that a policy lets a service ask for."""

    least: int = 0
    most: int = MOST

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise UsageError(f"allowed: 0 <= least={self.least} <= most={self.most} must hold")


@dataclass(frozen=True, slots=True)
class Bounds:
    """A recommendation for one resource in whole units: ask for `target`, act below `lower` and above `upper`."""

    lower: int
    target: int
    upper: int

    def within(self, allowed: Allowed) -> Bounds:
        """The same, each moved into what the policy allows."""
        return Bounds(*(min(max(n, allowed.least), allowed.most) for n in (self.lower, self.target, self.upper)))


@dataclass(slots=True)
class Usage:
    """What is remembered of a service's use: two histograms, and the peak of the current memory interval."""

    settings: Recommender
    samples: int = 0
    first_s: float = math.inf
    last_s: float = -math.inf
    cpu: DecayingHistogram = field(init=False)
    memory: DecayingHistogram = field(init=False)
    _window_end_s: float | None = None
    _last_memory_s: float = -math.inf
    _peak_bytes: int = 0
    _oom_peak_bytes: int = 0

    def __post_init__(self) -> None:
        self.cpu = DecayingHistogram(_CPU_BUCKETS, self.settings.cpu_half_life_s, _EPSILON)
        self.memory = DecayingHistogram(_MEMORY_BUCKETS, self.settings.memory_half_life_s, _EPSILON)

    def expired(self, time_s: float) -> bool:
        """Was the last sample so long ago (8 memory intervals) that nothing of it counts?"""
        return (
            self.samples > 0
            and time_s - self.last_s >= self.settings.memory_interval_s * self.settings.memory_intervals
        )

    def add_cpu(self, use_cores: float, request_cores: float, time_s: float) -> bool:
        """Add a sample of CPU use; False when it is unknown, negative or not newer than the last one."""
        if not use_cores >= 0 or time_s <= self.last_s:
            return False
        weight = request_cores if self.settings.weigh_by_request else 0.0
        # metrics come in whole millicores
        self.cpu.add(round(use_cores * 1000) / 1000, max(weight, _LEAST_WEIGHT), time_s)
        self.first_s, self.last_s = min(self.first_s, time_s), time_s
        self.samples += 1
        return True

    def add_memory(self, use_bytes: float, time_s: float) -> bool:
        """Add a sample of memory use; False when it is unknown, negative or older than the last one."""
        if not use_bytes >= 0 or time_s < self._last_memory_s:
            return False
        if self._raised(round(use_bytes), time_s):
            self._peak_bytes = round(use_bytes)
        return True

    def record_oom(self, request_bytes: float, time_s: float) -> bool:
        """Count a kill for want of memory as a peak above what was asked for; False when it is too long ago."""
        if self._window_end_s is not None and time_s < self._window_end_s - self.settings.memory_interval_s:
            return False
        # an earlier kill's peak is left out: kills in a row must not run away
        used = max(round(request_bytes), self._peak_bytes)
        needed = max(used + round(self.settings.oom_min_mib * MIB), _scaled(used, self.settings.oom_ratio))
        if self._raised(needed, time_s):
            self._oom_peak_bytes = needed
        return True

    def _raised(self, use_bytes: int, time_s: float) -> bool:
        """Put the use into the histogram if it is the peak of its interval, in place of the earlier peak."""
        self._last_memory_s = time_s
        interval_s = self.settings.memory_interval_s
        end_s = time_s if self._window_end_s is None else self._window_end_s
        if self._window_end_s is not None and time_s < end_s:
            peak = max(self._peak_bytes, self._oom_peak_bytes)
            if peak == 0 or use_bytes <= peak:
                return False
            self.memory.subtract(peak, 1.0, end_s)
        else:
            end_s += (math.floor((time_s - end_s) / interval_s) + 1) * interval_s
            self._window_end_s, self._peak_bytes, self._oom_peak_bytes = end_s, 0, 0
        self.memory.add(use_bytes, 1.0, end_s)
        return True


def confidence(usage: Usage) -> float:
    """How far the history can be trusted: days of it (of `confidence_s`), or of samples once a minute, if fewer."""
    interval_s = usage.settings.confidence_s
    if not usage.samples:
        return 0.0
    return min((usage.last_s - usage.first_s) / interval_s, usage.samples / (_SAMPLES_PER_DAY * interval_s / DAY_S))


def confident(amount: int, trust: float, multiplier: float, exponent: float) -> int:
    """The amount x (1 + multiplier / trust)^exponent; without any trust, the most or nothing."""
    if trust <= 0:
        return _scaled(amount, math.inf if exponent > 0 else 0.0)
    return _scaled(amount, (1 + multiplier / trust) ** exponent)


def recommend(usage: Usage) -> Mapping[str, Bounds] | None:
    """What to ask for, "cpu" in millicores and "memory" in bytes, before any policy; None before the first CPU sample.

    Memory that was never measured counts as none used: its recommendation is the floor.
    """
    if not usage.samples:
        return None
    settings, trust = usage.settings, confidence(usage)
    floor_m = _whole(settings.min_cpu_millicores / settings.containers)
    floor_bytes = _whole(settings.min_memory_mib * MIB / settings.containers)
    cpu = _bounds(usage.cpu, 1000.0, settings.cpu, settings.margin, trust, floor_m)
    memory = _bounds(usage.memory, 1.0, settings.memory, settings.margin, trust, floor_bytes)
    step = settings.round_cpu_millicores
    return {"cpu": Bounds(*(-(-n // step) * step for n in (cpu.lower, cpu.target, cpu.upper))), "memory": memory}


def _bounds(
    held: DecayingHistogram, unit: float, percentiles: Percentiles, margin: float, trust: float, floor: int
) -> Bounds:
    def safe(share: float) -> int:
        amount = _whole(held.percentile(share) * unit)
        return amount + _scaled(amount, margin)

    lower = confident(safe(percentiles.lower), trust, 0.001, -2.0)
    upper = confident(safe(percentiles.upper), trust, 1.0, 1.0)
    return Bounds(max(lower, floor), max(safe(percentiles.target), floor), max(upper, floor))


def _scaled(amount: int, factor: float) -> int:
    return _whole(amount * factor) if amount else 0  # nothing stays nothing, even times infinity


def _whole(amount: float) -> int:
    return MOST if amount > MOST else int(max(amount, 0.0))
