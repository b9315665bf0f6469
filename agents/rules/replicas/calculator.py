"""How many replicas metrics ask for: the replica calculator of the Kubernetes HPA v2, as pure functions.

Sources: the HPA's documented algorithm, the rules of its replica calculator (release 1.33), and KEP-4951
(a tolerance for each direction). One metric compares what is seen with its target:

    ratio = seen / target;  inside [1 - tolerance.down, 1 + tolerance.up] nothing changes,
    otherwise the proposal is ceil(ratio x replicas that were counted).

Utilisation is read in whole per cent of the request, cut off, as the HPA does. Replicas that say nothing are
first left out; then, if they could matter, counted against the direction of the change: missing ones as using
max(100 %, target) of their request (of other metrics: the target) when shrinking and nothing when growing, unready
ones as using nothing when growing. If that turns the direction, or rounding would, nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from twin.errors import UsageError

MetricKind = Literal["Utilization", "Pods", "AverageValue", "Value"]

# Observations are float32: 0.9 arrives as 0.8999999762, and must still be read as 90 %.
_HAIR_PERCENT = 1e-3
_HAIR = 1e-6  # relative: a total of 6 x 0.3 must ask for 6, not for 7


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric to scale by: the observation column `<service>.<column>` and what it should be.

    `kind` as in Kubernetes: "Utilization" is the mean share of the request over the measured ready replicas
    (the column is `utilisation_ratio`); "Pods" is any other mean over them (`cpu_use_cores`); "AverageValue" is a
    total to be shared out, `target` for each replica (`demand_rps`); "Value" is a level to be kept (`latency_p95_s`).
    """

    column: str
    target: float
    kind: MetricKind = "Utilization"
    read_target: float = field(init=False, repr=False, compare=False)
    """The target in the unit that the metric is read in: per cent of the request for "Utilization"."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target > 0):
            raise UsageError(f"metric {self.column!r}: target={self.target} must be a positive number")
        if self.kind not in get_args(MetricKind):
            raise UsageError(f"metric {self.column!r}: kind={self.kind!r} must be one of {get_args(MetricKind)}")
        read_target = round(100.0 * self.target, 6) if self.kind == "Utilization" else self.target
        object.__setattr__(self, "read_target", read_target)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the ratio may be below (`down`) and above (`up`) 1 before anything changes."""

    down: float = 0.1
    up: float = 0.1
    shown: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", f"-{self.down:g}/+{self.up:g}")

    def holds(self, ratio: float) -> bool:
        """Is the ratio too near to 1 to act on?"""
        return (1.0 - self.down) <= ratio <= (1.0 + self.up)


@dataclass(frozen=True, slots=True)
class Pods:
    """A service's replicas by what is known of them.

    `measured` are ready and report; `missing` are ready and do not; `unready` are not ready yet. `existing` is how
    many there are in all, which differs from the wished number in a rolling update (None: it does not).
    """

    measured: int
    missing: int = 0
    unready: int = 0
    existing: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A number of replicas and the sentence that explains it."""

    value: int
    reason: str


def propose(metric: Metric, seen: float, current: int, pods: Pods, tolerance: Tolerance) -> Proposal | None:
    """What one metric asks for, or None when it is unknown (NaN, or no ready replica reports).

    Args:
        metric: what to compare with.
        seen: the metric's value; a share of the request for "Utilization".
        current: replicas wished for now.
        pods: what is known of the replicas.
        tolerance: how far from the target nothing changes.
    """
    if not math.isfinite(seen):
        return None
    if metric.kind in ("Utilization", "Pods"):
        return _by_mean(metric, seen, current, pods, tolerance) if pods.measured > 0 else None
    if metric.kind == "AverageValue":
        existing = current if pods.existing is None else pods.existing
        return _by_average(metric.target, seen, current, existing, tolerance)
    return _by_value(metric.target, seen, current, pods.measured + pods.missing, tolerance)


def combine(current: int, metrics: Sequence[Metric], proposals: Sequence[Proposal | None]) -> Proposal | None:
    """The largest proposal, or None when none is valid or when some are not and the largest would shrink."""
    if len(proposals) == 1:
        return proposals[0]
    valid = [(p, m) for p, m in zip(proposals, metrics, strict=True) if p is not None]
    if not valid:
        return None
    largest, metric = max(valid, key=lambda pair: pair[0].value)
    if len(valid) < len(proposals) and largest.value < current:
        return None
    return Proposal(largest.value, f"{largest.reason} by {metric.column}, the largest of {len(valid)} proposals")


def _by_mean(metric: Metric, seen: float, current: int, pods: Pods, tolerance: Tolerance) -> Proposal:
    read = _read(metric, seen)
    ratio = read / metric.read_target
    growing_with_unready = pods.unready > 0 and ratio > 1.0
    if not growing_with_unready and not pods.missing:
        return _from_mean(metric, read, current, pods.measured, tolerance)
    return _refilled(metric, seen, ratio, current, pods, tolerance)


def _refilled(metric: Metric, seen: float, ratio: float, current: int, pods: Pods, tolerance: Tolerance) -> Proposal:
    """The proposal with the silent replicas counted against the direction of the change."""
    counted, used, notes = pods.measured, pods.measured * seen, []
    if pods.missing and ratio != 1.0:
        share = _when_missing(metric) if ratio < 1.0 else 0.0
        counted, used = counted + pods.missing, used + pods.missing * share
        notes.append(f"{pods.missing} missing counted as {share:.2f}")
    if pods.unready and ratio > 1.0:
        counted += pods.unready
        notes.append(f"{pods.unready} unready counted as 0.00")
    read = _read(metric, used / counted)
    again = read / metric.read_target
    note = ", ".join(["", *notes])
    if (ratio < 1.0 < again) or (again < 1.0 < ratio):
        return Proposal(current, f"{current} kept: the direction turns{note}")
    proposal = _from_mean(metric, read, current, counted, tolerance)
    if (again < 1.0 and proposal.value > current) or (again > 1.0 and proposal.value < current):
        return Proposal(current, f"{current} kept: {proposal.reason}{note}, against the direction of the change")
    return Proposal(proposal.value, proposal.reason + note)


def _from_mean(metric: Metric, read: float, current: int, counted: int, tolerance: Tolerance) -> Proposal:
    target = metric.read_target
    ratio = read / target
    shown = f"{read / 100:.2f}/{target / 100:.2f}" if metric.kind == "Utilization" else f"{read:.4g}/{target:.4g}"
    if tolerance.holds(ratio):
        return _kept(current, shown, tolerance)
    value = _ceil(ratio * counted) if metric.kind == "Pods" else math.ceil(ratio * counted)
    return Proposal(value, f"{value} = ceil({counted} x {shown})")


def _by_average(target: float, total: float, current: int, existing: int, tolerance: Tolerance) -> Proposal:
    if existing > 0 and tolerance.holds(total / (target * existing)):
        kept = _kept(existing, f"{total:.4g}/({existing} x {target:.4g})", tolerance)
        # the HPA returns the number that exists, even where that is not the number wished for
        return kept if existing == current else Proposal(existing, f"{kept.reason}, and {existing} exist")
    value = _ceil(total / target)
    return Proposal(value, f"{value} = ceil({total:.4g}/{target:.4g})")


def _by_value(target: float, level: float, current: int, ready: int, tolerance: Tolerance) -> Proposal:
    ratio = level / target
    if current == 0:
        value = math.ceil(ratio)
        return Proposal(value, f"{value} = ceil({level:.4g}/{target:.4g})")
    if tolerance.holds(ratio):
        return _kept(current, f"{level:.4g}/{target:.4g}", tolerance)
    value = math.ceil(ratio * ready)
    return Proposal(value, f"{value} = ceil({ready} x {level:.4g}/{target:.4g})")


def _kept(current: int, shown: str, tolerance: Tolerance) -> Proposal:
    return Proposal(current, f"{current} kept: {shown} is within {tolerance.shown} of 1")


def _ceil(number: float) -> int:
    return math.ceil(number * (1.0 - _HAIR))


def _read(metric: Metric, mean: float) -> float:
    """The mean as the HPA reads it: whole per cent of the request, cut off; other metrics as they are."""
    return math.floor(100.0 * mean + _HAIR_PERCENT) if metric.kind == "Utilization" else mean


def _when_missing(metric: Metric) -> float:
    """What a missing replica counts for when shrinking."""
    return max(1.0, metric.target) if metric.kind == "Utilization" else metric.target
