"""Event schedules: what fails, when, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenarios.base import Scenery
from twin.errors import ScenarioError
from twin.trace.trace import Trace
from twin.types import Cluster, Event


@dataclass(frozen=True, slots=True)
class NodeFailures:
    """Every `every_s` seconds from `first_s` on, the `count` fullest nodes of a pool fail for `duration_s`."""

    pool: str
    count: int
    first_s: float
    every_s: float
    duration_s: float

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace and cluster as given, with the failures; raises ScenarioError for an unknown pool."""
        _known(self.pool, [pool.name for pool in cluster.pools], "pool")
        events = tuple(
            Event(float(time_s), "node_failure", self.pool, self.duration_s, self.count)
            for time_s in _times(self.first_s, self.every_s, trace.duration_s)
        )
        return trace, cluster, events


@dataclass(frozen=True, slots=True)
class TelemetryLoss:
    """Every `every_s` seconds from `first_s` on, a service's metrics are missing for `duration_s`."""

    service: str
    first_s: float
    every_s: float
    duration_s: float

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace and cluster as given, with the losses; raises ScenarioError for an unknown service."""
        _known(self.service, [service.name for service in cluster.services], "service")
        events = tuple(
            Event(float(time_s), "telemetry_loss", self.service, self.duration_s)
            for time_s in _times(self.first_s, self.every_s, trace.duration_s)
        )
        return trace, cluster, events


def _known(name: str, names: list[str], what: str) -> None:
    if name not in names:
        raise ScenarioError(f"no {what} {name!r} in the cluster; it has {names}")


def _times(first_s: float, every_s: float, end_s: float) -> np.ndarray:
    if every_s <= 0:
        raise ScenarioError(f"every_s={every_s:g} must be > 0")
    return np.arange(first_s, end_s, every_s)
