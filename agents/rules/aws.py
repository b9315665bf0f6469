"""AWS target tracking as a controller, and what it shares with step scaling: alarms, and a group with its past.

Source: the user guides of EC2 Auto Scaling, Application Auto Scaling and CloudWatch. Each turn is one period of the
alarms (60 s) and gives each of them one datapoint. An alarm calls its policy each period that it stays in ALARM.

Target tracking keeps two alarms for each policy: 3 datapoints above the target grow, 15 below 90 % of it shrink, both
to ceil(capacity x metric / target): what is missing is rounded up, what is too much is rounded down. Growing is never
blocked; what is still warming up is not yet counted as capacity, so one surge is not answered twice. Shrinking waits
for that, for its own cooldown, and for all policies to agree. An unknown metric does nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from twin.errors import UsageError
from twin.types import Action, Observation

Kind = Literal["replicas", "nodes"]
Comparison = Literal[">", ">=", "<", "<="]
AlarmState = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

_MORE_POINTS = 2  # an alarm looks that much further back than its periods when datapoints are missing
_HAIR = 1e-9
_LOW_SHARE = 0.9  # of the target: below it target tracking shrinks


@dataclass(frozen=True, slots=True)
class Alarm:
    """Goes off when `datapoints` (None: all) of the last `periods` datapoints are beyond the threshold."""

    comparison: Comparison
    threshold: float
    periods: int = 3
    datapoints: int | None = None

    def __post_init__(self) -> None:
        if self.comparison not in get_args(Comparison) or not 1 <= self.needed <= self.periods:
            raise UsageError(
                f"{self}: comparison must be one of {get_args(Comparison)}, and 1 <= datapoints <= periods"
            )

    @property
    def needed(self) -> int:
        """How many of the datapoints must breach."""
        return self.periods if self.datapoints is None else self.datapoints

    @property
    def upward(self) -> bool:
        """Does it go off above the threshold?"""
        return self.comparison in (">", ">=")

    def breached(self, value: float) -> bool:
        """Is the value beyond the threshold?"""
        if value == self.threshold:
            return self.comparison in (">=", "<=")
        return (value > self.threshold) == self.upward

    def __str__(self) -> str:
        return f"{self.needed} of {self.periods} points {self.comparison} {self.threshold:.4g}"


def alarm_state(alarm: Alarm, points: Sequence[float]) -> AlarmState:
    """The state of an alarm that treats missing data as missing, by the tables of CloudWatch's guide.

    Args:
        alarm: the alarm.
        points: datapoints, the newest last; NaN is a missing one.
    """
    window = list(points)[-(alarm.periods + _MORE_POINTS) :]
    known = [(len(window) - place, value) for place, value in enumerate(window) if value == value]
    if not known:
        return "INSUFFICIENT_DATA"
    newest = [alarm.breached(value) for _, value in known[-alarm.periods :]]
    if sum(newest) >= alarm.needed:
        return "ALARM"
    if len(newest) == alarm.periods or not all(newest):
        return "OK"
    # fewer datapoints than it needs, all of them breaching: ALARM only once the oldest is old enough
    return "ALARM" if known[0][0] >= alarm.needed else "INSUFFICIENT_DATA"


def called(alarm: Alarm, points: Sequence[float]) -> AlarmState:
    """The alarm's state for a policy that must compute from the metric now: no newest datapoint, insufficient data.

    The alarm itself may stay in ALARM through a gap; the policies' guides say that they do nothing without data.
    """
    known = bool(points) and points[-1] == points[-1]
    return alarm_state(alarm, points) if known else "INSUFFICIENT_DATA"


def latest(points: Sequence[float], number: int = 1) -> list[float]:
    """The newest known datapoints, at most `number`, the newest last."""
    return [value for value in points if value == value][-number:]


class Group:
    """One scalable target: its capacity, what is still warming up, and when it last shrank.

    The changes are those of the wished number, whoever made them.
    """

    def __init__(
        self,
        target: str,
        kind: Kind,
        bounds: tuple[int, int],
        warmup_s: float,
        cooldown_s: float,
        name: str,
    ) -> None:
        """A service's replicas, or a pool's nodes; raises UsageError when the numbers make no sense."""
        if kind not in get_args(Kind) or not 0 <= bounds[0] <= bounds[1] or min(warmup_s, cooldown_s) < 0:
            raise UsageError(
                f"controller {name!r}: kind={kind!r} must be one of {get_args(Kind)}, 0 <= min_capacity={bounds[0]} "
                f"<= max_capacity={bounds[1]}, and warm-up and cooldown ({warmup_s}, {cooldown_s} s) >= 0"
            )
        self.target = target
        self.kind: Kind = kind
        self.bounds = (int(bounds[0]), int(bounds[1]))
        self.warmup_s = warmup_s
        self.cooldown_s = cooldown_s
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self.current = 0
        self.time_s = 0.0
        self.ready = math.nan
        self._known = False
        self._added: deque[tuple[float, int]] = deque()
        self._shrunk_s = -math.inf

    @property
    def warming(self) -> int:
        """How much of the wished number was added within the warm-up."""
        return min(sum(number for _, number in self._added), self.current)

    @property
    def settled(self) -> int:
        """The wished number without what is warming up."""
        return self.current - self.warming

    def see(self, observation: Observation) -> bool:
        """Take note of the capacity; False as long as it was never known."""
        wanted = observation[f"{self.target}.wanted_{self.kind}"]
        self.ready = observation[f"{self.target}.ready_{self.kind}"]
        if wanted == wanted:  # not NaN
            self._note(int(wanted))
        self.time_s = observation.time_s
        while self._added and self._added[0][0] <= self.time_s - self.warmup_s:
            self._added.popleft()
        return self._known

    def _note(self, wanted: int) -> None:
        change = wanted - self.current if self._known else 0
        if change > 0:
            self._added.append((self.time_s, change))
            self._shrunk_s = -math.inf  # growing ends the cooldown of shrinking
        elif change < 0:
            self._shrunk_s = self.time_s
        self.current, self._known = wanted, True

    def read(self, observation: Observation, column: str, per_unit: bool) -> float:
        """A datapoint of the metric; NaN when it, or what it must be divided by, is unknown."""
        value = observation[column]
        if per_unit:
            value = value / self.ready if self.ready > 0 else math.nan
        return float(f"{value:.6g}")  # float32 shows 0.6 as 0.60000002, which must not be above 0.6

    def grow(self, wish: int, reason: str) -> Action:
        """To `wish`, if that is more than is already wished for and allowed."""
        value = min(wish, self.bounds[1])
        if value > self.current:
            return self._action(value, reason if value == wish else f"{reason}; at most {value}")
        waiting = f", {self.warming} of them still warming up" if self.warming else ""
        return self.keep(f"{reason} is not above the {self.current} wished for{waiting}")

    def shrink(self, wish: int, reason: str) -> Action:
        """To `wish`, unless something is warming up, cooling down, or the least is reached."""
        if self.warming:
            return self.keep(f"{reason}, but {self.warming} are still warming up")
        cooled_s = self.time_s - self._shrunk_s
        if cooled_s < self.cooldown_s:
            return self.keep(f"{reason}, but the last was {cooled_s:g} s ago, cooldown {self.cooldown_s:g} s")
        value = max(wish, self.bounds[0])
        if value >= self.current:
            return self.keep(f"{reason}; at least {self.bounds[0]}")
        return self._action(value, reason if value == wish else f"{reason}; at least {value}")

    def keep(self, reason: str) -> Action:
        """As it is, within the bounds."""
        value = min(max(self.current, self.bounds[0]), self.bounds[1])
        if value != self.current:
            return self._action(value, f"{value}: {self.current} is outside of {self.bounds[0]} to {self.bounds[1]}")
        return self._action(value, f"{value} kept: {reason}")

    def _action(self, value: int, reason: str) -> Action:
        return Action(self.kind, self.target, value, reason)


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
        if not policies:
            raise UsageError(f"controller {name!r}: give it at least one policy")
        self.name = name
        self.interval_s = interval_s
        self.policies = tuple(policies)
        bounds = (min_capacity, max_capacity)
        self._group = Group(target, kind, bounds, scale_out_cooldown_s, scale_in_cooldown_s, name)
        longest = max(max(p.in_periods, p.out_periods) for p in self.policies) + _MORE_POINTS
        self._points: list[deque[float]] = [deque(maxlen=longest) for _ in self.policies]

    def reset(self) -> None:
        """Forget all datapoints, additions and cooldowns."""
        self._group.reset()
        for points in self._points:
            points.clear()

    def decide(self, observation: Observation) -> list[Action]:
        """One action; none as long as the wished number was never known."""
        known = self._group.see(observation)
        for policy, points in zip(self.policies, self._points, strict=True):
            points.append(self._group.read(observation, policy.column, policy.per_unit))
        return [self._decide()] if known else []

    def _decide(self) -> Action:
        high = [called(p.high, points) for p, points in zip(self.policies, self._points, strict=True)]
        low = [called(p.low, points) for p, points in zip(self.policies, self._points, strict=True)]
        out = [place for place, state in enumerate(high) if state == "ALARM"]
        if out:
            return self._group.grow(*max(self._wish(place, self._group.settled, up=True) for place in out))
        able = [place for place, policy in enumerate(self.policies) if policy.scale_in]
        if able and all(low[place] == "ALARM" for place in able):
            return self._group.shrink(*max(self._wish(place, self._group.current, up=False) for place in able))
        return self._group.keep("; ".join(self._state(place, state) for place, state in enumerate(low)))

    def _wish(self, place: int, capacity: int, up: bool) -> tuple[int, str]:
        policy = self.policies[place]
        (seen,) = latest(self._points[place])
        value = proportional(capacity, seen, policy.value)
        alarm = policy.high if up else policy.low
        shown = f"{value} = ceil({capacity} x {seen:.4g}/{policy.value:.4g})"
        return value, f"{shown} by {policy.column}: {alarm}"

    def _state(self, place: int, low: str) -> str:
        policy = self.policies[place]
        if self._points[place][-1] != self._points[place][-1]:  # NaN
            return f"{policy.column} unknown, insufficient data"
        if low == "ALARM":
            return f"{policy.column} is low, but {'others are not' if policy.scale_in else 'may not shrink it'}"
        return f"{policy.column} has neither {policy.high} nor {policy.low}"
