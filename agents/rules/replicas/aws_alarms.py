"""CloudWatch's alarms: when the policies of AWS target tracking and step scaling are called.

Source: the user guide of CloudWatch. Each turn of a controller is one period of its alarms (60 s) and gives each of
them one datapoint. An alarm calls its policy each period that it stays in ALARM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from twin.errors import UsageError

Comparison = Literal[">", ">=", "<", "<="]
AlarmState = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

MORE_POINTS = 2
"""An alarm looks that much further back than its periods when datapoints are missing."""


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
    window = list(points)[-(alarm.periods + MORE_POINTS) :]
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
