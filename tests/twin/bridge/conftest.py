"""A small plant made by hand: two services and a pool, its own clock, and switches for what may go wrong."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from twin.bridge.http_plant import TelemetryLost
from twin.bridge.ledger import Ledger
from twin.types import Action, Observation, Outcome

COLUMNS = (
    "web.demand_rps",
    "web.wanted_replicas",
    "web.ready_replicas",
    "api.demand_rps",
    "api.wanted_replicas",
    "api.ready_replicas",
    "main.wanted_nodes",
    "main.ready_nodes",
)


class HandPlant:
    """Two services, `web` and `api`, on the pool `main`; applies what it is told up to 20."""

    def __init__(self):
        self.time = 0.0
        self.wanted = {"web": 3, "api": 2, "main": 4}
        self.demand = {"web": 30.0, "api": float("nan")}
        self.applied: list[list[Action]] = []
        self.lost_turns: set[int] = set()  # which observations do not come, counted from 0
        self.observed = 0
        self.incumbent = lambda plant: None  # what somebody else does while time passes

    @property
    def time_s(self):
        return self.time

    def observe(self):
        self.observed += 1
        if self.observed - 1 in self.lost_turns:
            raise TelemetryLost("the metrics source gave no answer")
        w = self.wanted
        values = [self.demand["web"], w["web"], w["web"], self.demand["api"], w["api"], w["api"], w["main"], w["main"]]
        return Observation(self.time, COLUMNS, np.array(values, np.float32))

    def apply(self, actions):
        self.applied.append(list(actions))
        outcomes = []
        for action in actions:
            self.wanted[action.target] = min(action.value, 20)
            outcomes.append(Outcome("applied", self.wanted[action.target]))
        return outcomes

    def advance(self, seconds):
        self.time += seconds
        self.incumbent(self)


class Clock:
    """A wall clock that ticks one second a look."""

    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(scope="session")
def make_plant():
    return HandPlant


@pytest.fixture
def plant():
    return HandPlant()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    with Ledger.open(tmp_path / "ledger.jsonl", clock) as opened:
        yield opened
