"""The loop over a plant that does not always say how it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from twin.errors import UsageError
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


def turn(plant: Shy, wish: int, limits: Limits | None, turns: int) -> list[Decision]:
    rows: list[Decision] = []
    steps(ControlLoop(plant, Wish(wish), limits=limits, record=rows.append), turns)
    return rows


def steps(loop: ControlLoop, turns: int) -> None:
    for _ in range(turns):
        loop.step()
    loop.close()


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


def test_nothing_is_decided_otherwise_when_nobody_writes_it_down() -> None:
    """The shield remembers what it needs without a record, the last known values included."""
    gentle = Limits(min_value=1, max_value=200, shrink=RateLimit(120.0, 10.0, 1))
    recorded, silent = Shy(blind_s=900.0), Shy(blind_s=900.0)
    values = [row.applied for row in turn(recorded, 4, gentle, 20)]
    loop = ControlLoop(silent, Wish(4), limits=gentle, record=None)
    seen = []
    for _ in range(20):
        loop.step()
        seen.append(silent.value)
    loop.close()
    assert seen == values
    assert len(set(values)) > 3


def test_each_decision_is_recorded_once_in_order_and_confirmed_by_the_next_observation() -> None:
    """The last one is handed over by `close`, confirmed by nobody."""
    rows = turn(Shy(blind_s=math.inf), 4, None, 5)
    assert [row.time_s for row in rows] == [0.0, 60.0, 120.0, 180.0, 240.0]
    assert [row.confirmed for row in rows] == [True, True, True, True, None]
    assert [(row.current, row.proposed, row.applied) for row in rows] == [(100, 4, 4), *[(4, 4, 4)] * 4]
    assert len({row.observation for row in rows}) == 5


def test_a_value_that_did_not_stay_is_told() -> None:
    """Someone sets 50 right after the first wish was applied."""
    plant, rows = Shy(blind_s=math.inf), list[Decision]()
    loop = ControlLoop(plant, Wish(4), limits=None, record=rows.append)
    loop.step()
    plant.value = 50
    steps(loop, 2)
    assert [row.confirmed for row in rows] == [False, True, None]


@pytest.mark.parametrize("interval_s", [0.0, -1.0, math.nan])
def test_a_controller_that_would_never_let_time_pass_is_refused(interval_s: float) -> None:
    class Restless(Wish):
        @property
        def interval_s(self) -> float:
            return interval_s

    with pytest.raises(UsageError, match="controller 'wish': interval_s="):
        ControlLoop(Shy(math.inf), Restless(4), limits=None, record=None)
