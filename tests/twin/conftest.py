"""A small cluster and a small trace that the tests make themselves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from twin.trace.trace import Trace, TraceInfo
from twin.types import Action, Cluster, Delay, Observation, Pool, Service

STEP_S = 300.0


@pytest.fixture
def cluster() -> Cluster:
    """One service of 25 rps per replica on a pool of 8-core nodes that sizes itself."""
    return make_cluster()


def make_cluster(**service: object) -> Cluster:
    pool = Pool("workers", 8, 32, 0.5, nodes=4, min_nodes=1, max_nodes=20, boot=Delay(120, 0.2), idle_s=300)
    settings: dict = {
        "unit_rps": 1000.0,
        "cpu_cores": 2,
        "memory_gib": 4,
        "service_time_s": 0.16,
        "concurrency": 4,
        "slo_s": 0.5,
        "replicas": 12,
        "min_replicas": 1,
        "max_replicas": 60,
        "start": Delay(30, 0.2),
        "burst_cv": 0.05,
    }
    return Cluster("test", (pool,), (Service("web", **{**settings, **service}),))


@pytest.fixture
def trace() -> Trace:
    """Two days of a daily wave between 0.1 and 0.4."""
    return make_trace(lambda t: 0.25 + 0.15 * np.sin(2 * math.pi * t / 86_400.0))


def make_trace(shape: Callable[[np.ndarray], np.ndarray], days: float = 2.0) -> Trace:
    times = np.arange(int(days * 86_400 / STEP_S)) * STEP_S
    demand = pl.DataFrame({"service": "web", "time_s": times, "value": shape(times)})
    services = pl.DataFrame({"service": ["web"], "demand_unit": ["share"]})
    info = TraceInfo("wave", "made by a test", "none", "0" * 64, step_s=STEP_S)
    return Trace(info, {"demand": demand, "services": services})


class Follow:
    """Wishes for what the last observed demand fills to `target`."""

    def __init__(self, target: float = 0.7, interval_s: float = 60.0) -> None:
        self.target, self._interval_s = target, interval_s
        self.seen: list[Observation] = []

    @property
    def name(self) -> str:
        return "follow"

    @property
    def interval_s(self) -> float:
        return self._interval_s

    def reset(self) -> None:
        self.seen = []

    def decide(self, observation: Observation) -> list[Action]:
        self.seen.append(observation)
        demand = observation["web.demand_rps"]
        if math.isnan(demand):
            return [Action("replicas", "web", int(observation["web.wanted_replicas"]), "unknown")]
        return [Action("replicas", "web", math.ceil(demand / (25.0 * self.target)), f"{demand:.0f} rps")]


@pytest.fixture
def follow() -> Follow:
    return Follow()
