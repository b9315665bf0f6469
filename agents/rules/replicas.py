"""How many replicas metrics ask for: the replica calculator of the Kubernetes HPA v2, as pure functions.

Sources: the HPA's documented algorithm, the rules of its replica calculator (release 1.33), and KEP-4951
(a tolerance for each direction). One metric compares what is seen with its target:

    ratio = seen / target;  inside [1 - tolerance.down, 1 + tolerance.up] nothing changes,
    otherwise the proposal is ceil(ratio x replicas that were counted).

Utilisation is read in whole per cent of the request, cut off, as the HPA does. Replicas that say nothing are
first left out; then, if they could matter, counted against the direction of the change: missing ones as using
max(100 %, target) of their request when shrinking and nothing when growing, unready ones as using nothing when
growing. If that turns the direction, or rounding would, nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from twin.errors import UsageError

MetricKind = Literal["Utilization", "AverageValue", "Value"]

# Observations are float32: 0.9 arrives as 0.8999999762, and must still be read as 90 %.
_HAIR_PERCENT = 1e-3


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric to scale by: the observation column `<service>.<column>` and what it should be.

    `kind` as in Kubernetes: "Utilization" is the mean share of the request over the measured ready replicas
    (the column is `utilisation_ratio`); "AverageValue" is a total to be shared out, `target` for each replica
    (`demand_rps`); "Value" is a level to be kept (`latency_p95_s`).
    """

    column: str
    target: float
    kind: MetricKind = "Utilization"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target > 0):
            raise UsageError(f"metric {self.column!r}: target={self.target} must be a positive number")
        if self.kind not in ("Utilization", "AverageValue", "Value"):
            raise UsageError(f"metric {self.column!r}: kind={self.kind!r} must be Utilization, AverageValue or Value")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the ratio may be below (`down`) and above (`up`) 1 before anything changes."""

    down: float = 0.1
    up: float = 0.1

    def holds(self, ratio: float) -> bool:
        """Is the ratio too near to 1 to act on?"""
        return (1.0 - self.down) <= ratio <= (1.0 + self.up)


@dataclass(frozen=True, slots=True)
class Pods:
    """A service's replicas by what is known of them.

    `measured` are ready and report; `missing` are ready and do not; `unready` are not ready yet.
    """

    measured: int
    missing: int = 0
    unready: int = 0


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
    if metric.kind == "Utilization":
        return _by_utilisation(metric.target, seen, current, pods, tolerance) if pods.measured > 0 else None
    if metric.kind == "AverageValue":
        return _by_average(metric.target, seen, current, tolerance)
    return _by_value(metric.target, seen, current, pods.measured + pods.missing, tolerance)


def combine(current: int, metrics: Sequence[Metric], proposals: Sequence[Proposal | None]) -> Proposal | None:
    """The largest proposal, or None when none is valid or when some are not and the largest would shrink."""
    valid = [(p, m) for p, m in zip(proposals, metrics, strict=True) if p is not None]
    if not valid:
        return None
    largest, metric = max(valid, key=lambda pair: pair[0].value)
    if len(valid) < len(proposals) and largest.value < current:
        return None
    if len(proposals) == 1:
        return largest
    return Proposal(largest.value, f"{largest.reason} by {metric.column}, the largest of {len(valid)} proposals")


def _by_utilisation(target: float, seen: float, current: int, pods: Pods, tolerance: Tolerance) -> Proposal:
    target_percent = round(100.0 * target, 6)
    percent = _whole_percent(seen)
    ratio = percent / target_percent
    growing_with_unready = pods.unready > 0 and ratio > 1.0
    if not growing_with_unready and not pods.missing:
        return _from_ratio(percent, target_percent, current, pods.measured, tolerance)
    return _refilled(seen, ratio, target_percent, current, pods, tolerance)


def _refilled(
    seen: float, ratio: float, target_percent: float, current: int, pods: Pods, tolerance: Tolerance
) -> Proposal:
    """The proposal with the silent replicas counted against the direction of the change."""
    counted, used, notes = pods.measured, pods.measured * seen, []
    if pods.missing and ratio != 1.0:
        share = max(100.0, target_percent) / 100.0 if ratio < 1.0 else 0.0
        counted, used = counted + pods.missing, used + pods.missing * share
        notes.append(f"{pods.missing} missing counted as {share:.2f}")
    if pods.unready and ratio > 1.0:
        counted += pods.unready
        notes.append(f"{pods.unready} unready counted as 0.00")
    percent = _whole_percent(used / counted)
    again = percent / target_percent
    note = ", ".join(["", *notes])
    if (ratio < 1.0 < again) or (again < 1.0 < ratio):
        return Proposal(current, f"{current} kept: the direction turns{note}")
    proposal = _from_ratio(percent, target_percent, current, counted, tolerance)
    if (again < 1.0 and proposal.value > current) or (again > 1.0 and proposal.value < current):
        return Proposal(current, f"{current} kept: {proposal.reason}{note}, against the direction of the change")
    return Proposal(proposal.value, proposal.reason + note)


def _from_ratio(percent: int, target_percent: float, current: int, counted: int, tolerance: Tolerance) -> Proposal:
    ratio = percent / target_percent
    shown = f"{percent / 100:.2f}/{target_percent / 100:.2f}"
    if tolerance.holds(ratio):
        return _kept(current, shown, tolerance)
    value = math.ceil(ratio * counted)
    return Proposal(value, f"{value} = ceil({counted} x {shown})")


def _by_average(target: float, total: float, current: int, tolerance: Tolerance) -> Proposal:
    if current > 0 and tolerance.holds(total / (target * current)):
        return _kept(current, f"{total:.4g}/({current} x {target:.4g})", tolerance)
    value = math.ceil(total / target)
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
    return Proposal(current, f"{current} kept: {shown} is within -{tolerance.down:g}/+{tolerance.up:g} of 1")


def _whole_percent(share: float) -> int:
    return math.floor(100.0 * share + _HAIR_PERCENT)
