"""Event schedules: what fails, when, and for how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scenarios.base import Scenery
from twin.errors import ScenarioError
from twin.trace.trace import Trace
from twin.types import Cluster, Event, EventKind, Pool

_Place = Literal["pool", "rack", "zone", "service"]
PLACES: dict[EventKind, _Place] = {
    "node_failure": "pool",
    "rack_failure": "rack",
    "zone_failure": "zone",
    "partition": "zone",
    "slow_nodes": "pool",
    "disk_full": "pool",
    "interruption": "pool",
    "shortage": "pool",
    "memory_leak": "service",
    "degradation": "service",
    "bad_deploy": "service",
    "telemetry_loss": "service",
    "telemetry_delay": "service",
}
"""What the target of an event of each kind is; a rack is named "<pool>/<number>", from 0 on."""

_SHARE: tuple[str, Callable[[float], bool]] = ("in (0, 1]", lambda value: 0.0 < value <= 1.0)
_SIZE: tuple[str, Callable[[float], bool]] = ("a number > 0", lambda value: 0.0 < value < math.inf)
_MAGNITUDES: dict[EventKind, tuple[str, Callable[[float], bool]]] = {
    "slow_nodes": _SHARE,
    "shortage": ("a number >= 0", lambda value: 0.0 <= value < math.inf),
    "memory_leak": _SIZE,
    "degradation": _SHARE,
    "bad_deploy": _SHARE,
    "telemetry_delay": _SIZE,
}
"""What the magnitude of a kind must be, in words and as a test; for the other kinds it means nothing."""


@dataclass(frozen=True, slots=True)
class Faults:
    """From `first_s` on, once or every `every_s` seconds, a fault of one kind happens to one target.

    `kind`, `target`, `duration_s`, `count`, `magnitude` and `cause` are those of `twin.types.Event`.
    """

    kind: EventKind
    target: str
    first_s: float
    duration_s: float
    every_s: float | None = None
    count: int = 1
    magnitude: float = 1.0
    cause: str = ""

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace and the cluster as given, with the faults.

        Raises:
            ScenarioError: the cluster has no such target, a field makes no fault of this kind, or the first one would
                come after the trace has ended.
        """
        check(Event(self.first_s, self.kind, self.target, self.duration_s, self.count, self.magnitude), cluster)
        events = tuple(
            Event(time_s, self.kind, self.target, float(self.duration_s), self.count, float(self.magnitude), self.cause)
            for time_s in self._times(trace.duration_s).tolist()
        )
        return trace, cluster, events

    def _times(self, end_s: float) -> np.ndarray:
        if self.every_s is not None and not self.every_s > 0:
            raise ScenarioError(f"{self.kind}: every_s={self.every_s:g} must be > 0, or null for once")
        if self.first_s >= end_s:
            raise ScenarioError(
                f"{self.kind} of {self.target!r}: first_s={self.first_s:g} is after the trace ends at {end_s:g} s"
            )
        return np.array([float(self.first_s)]) if self.every_s is None else np.arange(self.first_s, end_s, self.every_s)


@dataclass(frozen=True, slots=True)
class NodeFailures:
    """Every `every_s` seconds from `first_s` on, the `count` fullest nodes of a pool fail for `duration_s`."""

    pool: str
    count: int
    first_s: float
    every_s: float
    duration_s: float

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace and cluster as given, with the failures; raises ScenarioError as `Faults` does."""
        faults = Faults("node_failure", self.pool, self.first_s, self.duration_s, self.every_s, self.count)
        return faults.apply(trace, cluster)


@dataclass(frozen=True, slots=True)
class TelemetryLoss:
    """Every `every_s` seconds from `first_s` on, a service's metrics are missing for `duration_s`."""

    service: str
    first_s: float
    every_s: float
    duration_s: float

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace and cluster as given, with the losses; raises ScenarioError as `Faults` does."""
        return Faults("telemetry_loss", self.service, self.first_s, self.duration_s, self.every_s).apply(trace, cluster)


def check(event: Event, cluster: Cluster) -> None:
    """Raise ScenarioError where an event cannot happen to this cluster: an unknown target, a value out of range."""
    place = PLACES.get(event.kind)
    if place is None:
        raise ScenarioError(f"no such kind of fault: {event.kind!r}; there are {list(PLACES)}")
    _CHECKS[place](event.target, cluster)
    if event.kind == "interruption" and pool_named(event.target, cluster).offer != "spot":
        raise ScenarioError(
            f"interruption: pool {event.target!r} is bought on demand, and only spot nodes are taken back; give the "
            "pool offer: spot, or change it before with scenarios.regions.PriceChange"
        )
    # a node that is taken back stays away: an interruption is an instant
    if not (event.duration_s > 0 or (event.duration_s == 0 and event.kind == "interruption")):
        raise ScenarioError(f"{event.kind} of {event.target!r}: duration_s={event.duration_s:g} must be > 0")
    if event.count < 1 or not event.time_s >= 0:
        raise ScenarioError(
            f"{event.kind} of {event.target!r}: count={event.count} must be at least 1, time {event.time_s:g} s at "
            "least 0"
        )
    words, holds = _MAGNITUDES.get(event.kind, ("", lambda _: True))
    if not holds(event.magnitude):
        raise ScenarioError(f"{event.kind} of {event.target!r}: magnitude={event.magnitude:g} must be {words}")


def pool_named(name: str, cluster: Cluster) -> Pool:
    """The pool of that name; raises ScenarioError listing the known ones."""
    _check_pool(name, cluster)
    return next(pool for pool in cluster.pools if pool.name == name)


def _check_pool(name: str, cluster: Cluster) -> None:
    _known(name, [pool.name for pool in cluster.pools], "pool")


def _check_rack(name: str, cluster: Cluster) -> None:
    racks = {pool.name: -(-pool.max_nodes // pool.nodes_per_rack) for pool in cluster.pools}
    pool, _, number = name.rpartition("/")
    if not (number.isdecimal() and int(number) < racks.get(pool, 0)):
        known = [f"{each}/0 to {each}/{count - 1}" for each, count in racks.items() if count]
        raise ScenarioError(f"no rack {name!r} in the cluster; it has {known}")


def _check_zone(name: str, cluster: Cluster) -> None:
    _known(name, sorted({pool.zone for pool in cluster.pools}), "zone")


def _check_service(name: str, cluster: Cluster) -> None:
    _known(name, [service.name for service in cluster.services], "service")


_CHECKS: dict[_Place, Callable[[str, Cluster], None]] = {
    "pool": _check_pool,
    "rack": _check_rack,
    "zone": _check_zone,
    "service": _check_service,
}


def _known(name: str, names: list[str], what: str) -> None:
    if name not in names:
        raise ScenarioError(f"no {what} {name!r} in the cluster; it has {names}")
