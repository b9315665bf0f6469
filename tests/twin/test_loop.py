"""The loop over a plant that does not always say how it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from twin.loop import ControlLoop
from twin.types import Action, Decision, Limits, Observation, Outcome, RateLimit


class Shy:
    """A plant at 100 replicas whose metrics are unknown from `blind_s` on."""

    def __init__(self, blind_s: float) -> None:
        self.now_s, self.blind_s, self.value = 0.0, blind_s, 100

    @property
    def time_s(self) -> float:
        return self.now_s

    def observe(self) -> Observation:
        known = self.now_s < self.blind_s
        values = np.array([self.value, 500.0] if known else [math.nan, math.nan], dtype=np.float32)
        return Observation(self.now_s, ("web.wanted_replicas", "web.demand_rps"), values)

    def apply(self, actions: Sequence[Action]) -> list[Outcome]:
        self.value = actions[0].value
        return [Outcome("applied", action.value) for action in actions]

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Wish:
    """Always wishes for the same value."""

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def name(self) -> str:
        return "wish"

    @property
    def interval_s(self) -> float:
        return 60.0

    def reset(self) -> None:
        pass

    def decide(self, observation: Observation) -> list[Action]:
        return [Action("replicas", "web", self.value, "because")]


def turn(plant: Shy, wish: int, limits: Limits, turns: int) -> list[Decision]:
    rows: list[Decision] = []
    loop = ControlLoop(plant, Wish(wish), limits=limits, record=rows.append)
    for _ in range(turns):
        loop.step()
    loop.close()
    return rows


def test_an_unknown_current_value_does_not_open_the_shield() -> None:
    """What was wished last stands in: unknown metrics block shrinking even then."""
    gentle = Limits(min_value=1, max_value=200, shrink=RateLimit(60.0, 1.0, 1))
    plant = Shy(blind_s=60.0)
    rows = turn(plant, 4, gentle, 5)
    assert [row.allowed for row in rows] == [99] * 5
    assert all(row.limited_by.startswith("unknown") for row in rows[1:])
    assert rows[1].confirmed is None


@pytest.mark.parametrize("window_s", [300.0, 7200.0])
def test_a_window_of_any_length_is_remembered(window_s: float) -> None:
    """10 % per window: the second step comes a window after the first, not earlier."""
    limits = Limits(min_value=1, max_value=200, shrink=RateLimit(window_s, 10.0, 1))
    rows = turn(Shy(blind_s=math.inf), 1, limits, 250)
    steps = [row.time_s for row in rows if row.applied != row.current]
    assert np.diff(steps).min() >= window_s
