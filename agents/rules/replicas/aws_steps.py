"""AWS step scaling as a controller: how much is added or removed depends on how far the metric is beyond the alarm.

Source: the user guides of EC2 Auto Scaling and Application Auto Scaling. A policy hangs on one alarm; while that is
in ALARM, each period the aggregated metric picks a step by its distance from the threshold. Above the threshold a
step includes its lower bound, below it its upper bound. A percentage is cut off towards zero, but is at least one
(or `min_adjustment`). Growing counts from the capacity without what is still warming up, and never lowers the wish:
alarms within the same step add once. Of several policies the one that leaves most capacity wins.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from agents.rules.replicas.aws_alarms import Alarm, called, latest
from agents.rules.replicas.aws_group import Group, Kind
from twin.errors import UsageError
from twin.types import Action, Observation

AdjustmentType = Literal["ChangeInCapacity", "PercentChangeInCapacity", "ExactCapacity"]
Aggregation = Literal["Average", "Minimum", "Maximum"]

_AGGREGATE: dict[str, Callable[[Sequence[float]], float]] = {
    "Average": lambda values: math.fsum(values) / len(values),
    "Minimum": min,
    "Maximum": max,
}


@dataclass(frozen=True, slots=True)
class Step:
    """What to do when the metric lies from `lower` to `upper` beyond the threshold (None: without end)."""

    adjustment: int
    lower: float | None = None
    upper: float | None = None

    @property
    def edges(self) -> tuple[float, float]:
        """Both bounds as numbers."""
        return (
            -math.inf if self.lower is None else self.lower,
            math.inf if self.upper is None else self.upper,
        )

    def holds(self, beyond: float, upward: bool) -> bool:
        """Does the step apply at this distance (metric - threshold)?"""
        low, high = self.edges
        return low <= beyond < high if upward else low < beyond <= high


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """Steps behind an alarm on the observation column `column`; `per_unit` divides it by what is ready."""

    column: str
    alarm: Alarm
    steps: Sequence[Step]
    adjustment_type: AdjustmentType = "ChangeInCapacity"
    min_adjustment: int = 0
    aggregation: Aggregation = "Average"
    per_unit: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(sorted(self.steps, key=lambda step: step.edges)))
        where = f"step policy on {self.column!r}"
        if self.adjustment_type not in get_args(AdjustmentType) or self.aggregation not in _AGGREGATE:
            raise UsageError(
                f"{where}: adjustment_type={self.adjustment_type!r} must be one of {get_args(AdjustmentType)}, "
                f"aggregation={self.aggregation!r} one of {get_args(Aggregation)}"
            )
        if self.min_adjustment and self.adjustment_type != "PercentChangeInCapacity":
            raise UsageError(f"{where}: min_adjustment={self.min_adjustment} goes with PercentChangeInCapacity only")
        if self.adjustment_type == "ExactCapacity" and any(step.adjustment < 0 for step in self.steps):
            raise UsageError(f"{where}: an exact capacity cannot be negative")
        _check_steps(self.steps, where)

    @property
    def periods(self) -> int:
        """How many periods its alarm looks back."""
        return self.alarm.periods

    def chosen(self, value: float) -> tuple[Step | None, float]:
        """The step for the metric's value (None: it is on the other side of the threshold), and the distance."""
        beyond = round(value - self.alarm.threshold, 9)  # 0.6 - 0.5 is a hair below 0.1
        for step in self.steps:
            if step.holds(beyond, self.alarm.upward):
                return step, beyond
        return None, beyond


def _check_steps(steps: Sequence[Step], where: str) -> None:
    if not steps:
        raise UsageError(f"{where}: give it at least one step")
    edges = [step.edges for step in steps]
    if any(low >= high or (math.isinf(low) and math.isinf(high)) for low, high in edges):
        raise UsageError(f"{where}: each step needs lower < upper, and one of them: {edges}")
    if any(one[1] != other[0] for one, other in itertools.pairwise(edges)):
        raise UsageError(f"{where}: steps must neither overlap nor leave a gap: {edges}")
    if edges[0][0] < 0 and not math.isinf(edges[0][0]):
        raise UsageError(f"{where}: with a negative lower bound the lowest step must have none")
    if edges[-1][1] > 0 and not math.isinf(edges[-1][1]):
        raise UsageError(f"{where}: with a positive upper bound the highest step must have none")


def rounded(change: float) -> int:
    """A change in whole units: cut off towards zero, but never to zero (12.7 -> 12, 0.67 -> 1, -6.67 -> -6)."""
    if abs(change) < 1e-9:
        return 0
    return int(math.copysign(max(1, math.floor(abs(change) + 1e-9)), change))


def change_of(policy: StepPolicy, step: Step, capacity: int) -> int:
    """By how much the step changes this capacity."""
    if policy.adjustment_type == "ExactCapacity":
        return step.adjustment - capacity
    if policy.adjustment_type == "ChangeInCapacity":
        return step.adjustment
    change = rounded(capacity * step.adjustment / 100.0)
    if step.adjustment and abs(change) < policy.min_adjustment:
        return policy.min_adjustment if step.adjustment > 0 else -policy.min_adjustment
    return change


@dataclass(frozen=True, slots=True, order=True)
class _Wish:
    """What one policy in ALARM asks for."""

    value: int
    change: int
    reason: str


class StepScaling:
    """Adds and removes in steps; its confidence is always 1."""

    def __init__(
        self,
        target: str,
        policies: Sequence[StepPolicy],
        min_capacity: int,
        max_capacity: int,
        kind: Kind = "replicas",
        warmup_s: float = 300.0,
        cooldown_s: float = 300.0,
        interval_s: float = 60.0,
        name: str = "aws-steps",
    ) -> None:
        """Steer `target` between two capacities.

        Args:
            target: service or pool, as the observation's columns show it.
            policies: steps behind alarms, usually one that adds and one that removes.
            min_capacity: lower bound.
            max_capacity: upper bound.
            kind: "replicas" of a service or "nodes" of a pool.
            warmup_s: how long added capacity is not yet counted; for a service, the cooldown after growing.
            cooldown_s: seconds between two reductions; 0 for EC2 groups, which have none.
            interval_s: the alarms' period, and seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a bound or the list of policies makes no sense.
        """
        self.name = name
        self.interval_s = interval_s
        self.policies = tuple(policies)
        self._group = Group(target, kind, (min_capacity, max_capacity), warmup_s, cooldown_s, self.policies, name)

    def reset(self) -> None:
        """Forget all datapoints, additions and cooldowns."""
        self._group.reset()

    def decide(self, observation: Observation) -> list[Action]:
        """One action; none as long as the wished number was never known."""
        return [self._decide()] if self._group.see(observation) else []

    def _decide(self) -> Action:
        wishes, quiet = [], []
        for policy, points in zip(self.policies, self._group.points, strict=True):
            if called(policy.alarm, points) == "ALARM":
                wishes.append(self._wish(policy, points))
            else:
                known = points[-1] == points[-1]  # not NaN
                why = f"has not {policy.alarm}" if known else "unknown, insufficient data"
                quiet.append(f"{policy.column} {why}")
        growing = [wish for wish in wishes if wish.change > 0]
        shrinking = [wish for wish in wishes if wish.change < 0]
        if growing:
            wish = max(growing)
            return self._group.grow(wish.value, wish.reason)
        if shrinking:
            wish = max(shrinking)
            return self._group.shrink(wish.value, wish.reason)
        return self._group.keep("; ".join([*(wish.reason for wish in wishes), *quiet]))

    def _wish(self, policy: StepPolicy, points: Sequence[float]) -> _Wish:
        seen = _AGGREGATE[policy.aggregation](latest(points, policy.alarm.periods))
        step, beyond = policy.chosen(seen)
        side = f"{policy.column} {seen:.4g} is {beyond:+.4g} from {policy.alarm.threshold:.4g}"
        if step is None:
            return _Wish(self._group.current, 0, f"{side}, where no step applies")
        growing = change_of(policy, step, self._group.settled)
        capacity = self._group.settled if growing > 0 else self._group.current
        change = growing if growing > 0 else change_of(policy, step, self._group.current)
        by = f"{step.adjustment:+d} %" if policy.adjustment_type == "PercentChangeInCapacity" else f"{change:+d}"
        return _Wish(capacity + change, change, f"{capacity + change} = {capacity} {change:+d} ({by}): {side}")
