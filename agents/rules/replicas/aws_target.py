"""AWS target tracking as a controller: capacity in proportion to a metric, slow to shrink.

Source: the user guides of EC2 Auto Scaling and Application Auto Scaling. Each policy keeps two alarms: 3 datapoints
above the target grow, 15 below 90 % of it shrink, both to ceil(capacity x metric / target): what is missing is rounded
up, what is too much is rounded down. Shrinking waits for all policies to agree. An unknown metric does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agents.rules.replicas.aws_alarms import Alarm, called, latest
from agents.rules.replicas.aws_group import Group, Kind
from twin.errors import UsageError
from twin.types import Action, Observation

_HAIR = 1e-9
_LOW_SHARE = 0.9  # of the target: below it target tracking shrinks


@dataclass(frozen=True, slots=True)
class Target:
    """Keep the observation column `column` at `value`.

    With `per_unit` the column is a total, divided by what is ready (as the load balancer's requests per target).
    `scale_in` of False never shrinks.
    """

    column: str
    value: float
    per_unit: bool = False
    scale_in: bool = True
    out_periods: int = 3
    in_periods: int = 15

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise UsageError(f"target of {self.column!r}: value={self.value} must be a positive number")

    @property
    def periods(self) -> int:
        """How many periods its alarms look back."""
        return max(self.in_periods, self.out_periods)

    @property
    def high(self) -> Alarm:
        """The alarm that grows."""
        return Alarm(">", self.value, self.out_periods)

    @property
    def low(self) -> Alarm:
        """The alarm that shrinks."""
        return Alarm("<", round(_LOW_SHARE * self.value, 12), self.in_periods)


def proportional(capacity: int, seen: float, target: float) -> int:
    """The capacity that brings the metric to its target, rounded up: ceil(capacity x seen / target)."""
    return math.ceil(capacity * seen / target - _HAIR)


class TargetTracking:
    """Keeps metrics at their targets; its confidence is always 1."""

    def __init__(
        self,
        target: str,
        policies: Sequence[Target],
        min_capacity: int,
        max_capacity: int,
        kind: Kind = "replicas",
        scale_out_cooldown_s: float = 300.0,
        scale_in_cooldown_s: float = 300.0,
        interval_s: float = 60.0,
        name: str = "aws-target",
    ) -> None:
        """Steer `target` between two capacities.

        Args:
            target: service or pool, as the observation's columns show it.
            policies: metrics and their targets; any may grow, all must agree to shrink.
            min_capacity: lower bound.
            max_capacity: upper bound.
            kind: "replicas" of a service or "nodes" of a pool.
            scale_out_cooldown_s: how long added capacity is not yet counted; for a pool, the instances' warm-up.
            scale_in_cooldown_s: seconds between two reductions; 0 for EC2 groups, which have none.
            interval_s: the alarms' period, and seconds between decisions.
            name: as the decision table shows it.

        Raises:
            UsageError: when a bound, a target or the list of policies makes no sense.
        """
        self.name = name
        self.interval_s = interval_s
        self.policies = tuple(policies)
        bounds, cooldowns_s = (min_capacity, max_capacity), (scale_out_cooldown_s, scale_in_cooldown_s)
        self._group = Group(target, kind, bounds, *cooldowns_s, self.policies, name)

    def reset(self) -> None:
        """Forget all datapoints, additions and cooldowns."""
        self._group.reset()

    def decide(self, observation: Observation) -> list[Action]:
        """One action; none as long as the wished number was never known."""
        return [self._decide()] if self._group.see(observation) else []

    def _decide(self) -> Action:
        high = [called(p.high, points) for p, points in zip(self.policies, self._group.points, strict=True)]
        low = [called(p.low, points) for p, points in zip(self.policies, self._group.points, strict=True)]
        out = [place for place, state in enumerate(high) if state == "ALARM"]
        if out:
            return self._group.grow(*max(self._wish(place, self._group.settled, up=True) for place in out))
        able = [place for place, policy in enumerate(self.policies) if policy.scale_in]
        if able and all(low[place] == "ALARM" for place in able):
            return self._group.shrink(*max(self._wish(place, self._group.current, up=False) for place in able))
        return self._group.keep("; ".join(self._state(place, state) for place, state in enumerate(low)))

    def _wish(self, place: int, capacity: int, up: bool) -> tuple[int, str]:
        policy = self.policies[place]
        (seen,) = latest(self._group.points[place])
        value = proportional(capacity, seen, policy.value)
        alarm = policy.high if up else policy.low
        shown = f"{value} = ceil({capacity} x {seen:.4g}/{policy.value:.4g})"
        return value, f"{shown} by {policy.column}: {alarm}"

    def _state(self, place: int, low: str) -> str:
        policy = self.policies[place]
        if self._group.points[place][-1] != self._group.points[place][-1]:  # NaN
            return f"{policy.column} unknown, insufficient data"
        if low == "ALARM":
            return f"{policy.column} is low, but {'others are not' if policy.scale_in else 'may not shrink it'}"
        return f"{policy.column} has neither {policy.high} nor {policy.low}"
