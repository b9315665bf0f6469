"""What AWS scales, with its past: the part that target tracking and step scaling share.

Source: the user guides of EC2 Auto Scaling and Application Auto Scaling. Growing is never blocked; what is still
warming up is not yet counted as capacity, so one surge is not answered twice. Shrinking waits for that, and for its
own cooldown.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from agents.rules.replicas.aws_alarms import MORE_POINTS
from twin.errors import UsageError
from twin.types import Action, Observation

Kind = Literal["replicas", "nodes"]


class Metric(Protocol):
    """What a policy looks at."""

    @property
    def column(self) -> str:
        """The observation column."""
        ...

    @property
    def per_unit(self) -> bool:
        """Is it a total, to be divided by what is ready?"""
        ...

    @property
    def periods(self) -> int:
        """How many periods its alarms look back."""
        ...


class Group:
    """One scalable target: its capacity, what is still warming up, when it last shrank, and its metrics' datapoints.

    The changes are those of the wished number, whoever made them.
    """

    def __init__(
        self,
        target: str,
        kind: Kind,
        bounds: tuple[int, int],
        warmup_s: float,
        cooldown_s: float,
        metrics: Sequence[Metric],
        name: str,
    ) -> None:
        """A service's replicas, or a pool's nodes; raises UsageError when the numbers make no sense.

        Args:
            target: service or pool, as the observation's columns show it.
            kind: "replicas" of a service or "nodes" of a pool.
            bounds: the least and the most capacity.
            warmup_s: how long added capacity is not yet counted.
            cooldown_s: seconds between two reductions.
            metrics: of each policy, at least one.
            name: of the controller, for errors.
        """
        if not metrics:
            raise UsageError(f"controller {name!r}: give it at least one policy")
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
        self._metrics = tuple(metrics)
        longest = max(metric.periods for metric in self._metrics) + MORE_POINTS
        self.points: list[deque[float]] = [deque(maxlen=longest) for _ in self._metrics]  # the newest last
        self.reset()

    def reset(self) -> None:
        """Forget all datapoints, additions and cooldowns."""
        for points in self.points:
            points.clear()
        self.current = 0
        self.time_s = 0.0
        self._ready = math.nan
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
        """Take note of the capacity and of a datapoint of each metric; False while the capacity was never known."""
        wanted = observation[f"{self.target}.wanted_{self.kind}"]
        self._ready = observation[f"{self.target}.ready_{self.kind}"]
        if wanted == wanted:  # not NaN
            self._note(int(wanted))
        self.time_s = observation.time_s
        while self._added and self._added[0][0] <= self.time_s - self.warmup_s:
            self._added.popleft()
        for metric, points in zip(self._metrics, self.points, strict=True):
            points.append(self._read(observation, metric))
        return self._known

    def _note(self, wanted: int) -> None:
        change = wanted - self.current if self._known else 0
        if change > 0:
            self._added.append((self.time_s, change))
            self._shrunk_s = -math.inf  # growing ends the cooldown of shrinking
        elif change < 0:
            self._shrunk_s = self.time_s
        self.current, self._known = wanted, True

    def _read(self, observation: Observation, metric: Metric) -> float:
        """A datapoint of the metric; NaN when it, or what it must be divided by, is unknown."""
        value = observation[metric.column]
        if metric.per_unit:
            value = value / self._ready if self._ready > 0 else math.nan
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
