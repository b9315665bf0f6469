"""What following each request costs: long stretches beside the bare drawing of numbers, short ones beside long ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.conftest import Figure, cheapest
from twin.engine.requests import Requests
from twin.engine.state import READY, initial
from twin.types import Cluster, Service

pytestmark = pytest.mark.bench

EVENTS = 4_000_000
STRETCHES = 5_000
SHORT = 100  # events of a short stretch


class Busy:
    """Services at 80 % of what eight servers each can do, half a million events in."""

    def __init__(self, services: int) -> None:
        exponential = {"service_cv": 1.0, "distribution": "gamma", "timeout_s": 1e3}
        cluster = Cluster(
            "busy", (), tuple(Service(f"s{k}", 1, 1, 1, 0.1, 1, 0.5, **exponential) for k in range(services))
        )
        state = initial(cluster)
        state.count[:, READY] = state.capacity[:] = 8
        state.rate_rps[:] = 64.0
        self.model, self.now_s, self.event_s = Requests(cluster, state, 1), 0.0, 1.0 / (128.0 * services)
        self.pass_events(500_000)

    def pass_events(self, number: int) -> None:
        end_s = self.now_s + number * self.event_s
        self.model.serve(self.now_s, end_s)
        self.now_s = end_s

    def pass_short_stretches(self) -> None:
        for _ in range(STRETCHES):
            self.pass_events(SHORT)


@pytest.mark.parametrize("services", [1, 50])
def test_events_in_long_and_in_short_stretches(figure: Figure, services: int) -> None:
    """An arrival and an answer per request; a short stretch is one call from Python."""
    busy, rng = Busy(services), np.random.default_rng(0)

    def drawing() -> None:
        for _ in range(EVENTS // 2 // 1024):
            rng.standard_exponential(1024)
            rng.standard_gamma(1.0, 1024)

    long_s, bare_s, short_s = cheapest(lambda: busy.pass_events(EVENTS), drawing, busy.pass_short_stretches)
    per_long, per_short = EVENTS / long_s / 1e6, 1e6 * short_s / STRETCHES
    name = f"requests of {services} services"
    ratio = figure(f"{name}, long stretches", per_long, "M events/s CPU", EVENTS / bare_s / 1e6, more_is_better=True)
    assert ratio <= 80
    ratio = figure(f"{name}, stretch of {SHORT} events", per_short, "us CPU", SHORT / per_long)
    assert ratio <= 12
