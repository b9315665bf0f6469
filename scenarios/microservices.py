"""A recorded call graph as the cluster: the services of the trace's spans serve the requests that came from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from scenarios.base import Scenery
from twin.errors import ScenarioError, UsageError
from twin.fidelity.call_graph import CallGraph, Served, Station, WaitsAt, fit, served
from twin.trace.trace import Trace
from twin.types import Call, Cluster, Delay, Service

_LEAST_S = 1e-6  # a service takes some time, however little
_KEPT = ("incidents", "prices")


@dataclass(frozen=True, slots=True)
class Microservices:
    """The services that a trace's spans tell replace those of the cluster, on its pools; entries are the demand.

    What a request takes at each service itself, and whom it calls how often, is fitted as `twin.fidelity.call_graph`
    says (`waits_at` and `kinds` are explained there). What spans do not tell is a parameter, the same for each service
    but where `services` says otherwise, as `{name: {field of twin.types.Service: value}}`: `replicas` (up to
    `max_replicas`), what one asks for, and its `concurrency`, by default (None) so many that together they have `room`
    times the place for the most requests that were inside at once. Recorded times hold the recorded waits: with room
    nobody waits twice. The SLO is `slo_factor` times the recorded 95th percentile.

    `replay` says what comes from outside: with "requests" the recorded ones, each at its time and with the own time
    that it had; with "arrivals" at its time, with an own time that is drawn; with "demand" a rate for each `step_s`,
    with chance. The first two need the model of single requests (serving=requests); averages take the rate anyway. The
    stretch from `since_s` to `until_s` is replayed: None for both is the longest run without a minute of silence.
    """

    waits_at: WaitsAt = "caller"
    kinds: int = 1
    replay: Literal["requests", "arrivals", "demand"] = "requests"
    since_s: float | None = None
    until_s: float | None = None
    step_s: float = 60.0
    replicas: int = 1
    max_replicas: int = 64
    cpu_cores: float = 0.5
    memory_gib: float = 0.5
    concurrency: int | None = None
    room: float = 4.0
    slo_factor: float = 1.5
    timeout_s: float = 60.0
    services: Mapping[str, Mapping[str, Any]] | tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()

    def __post_init__(self) -> None:
        """Take mappings, keep sorted pairs: equal scenarios are equal values."""
        told = {name: dict(fields) for name, fields in dict(self.services).items()}
        pairs = {
            name: sorted((field, _plain(value)) for field, value in fields.items()) for name, fields in told.items()
        }
        object.__setattr__(self, "services", tuple(sorted((name, tuple(fields)) for name, fields in pairs.items())))

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The recorded requests from outside as demand, the pools with the recorded services, and no events.

        Raises:
            ScenarioError: a parameter is out of range, or `services` names a service or field that is not there.
            TraceError: the trace holds no whole tree of spans.
        """
        self._check()
        recorded = self.recorded(trace)
        graph = fit(recorded)
        unknown = sorted({name for name, _ in self._own()} - {station.service for station in graph.stations})
        if unknown:
            raise ScenarioError(
                f"no service {unknown[0]!r} in the spans of {trace.info.name!r}; they tell "
                f"{[station.service for station in graph.stations]}"
            )
        services = tuple(self._service(station, graph) for station in graph.stations)
        mirrored = Cluster(f"{cluster.name}-{graph.name}", cluster.pools, services, cluster.quotas, cluster.links)
        return self._replayed(trace, recorded, graph), mirrored, ()

    def recorded(self, trace: Trace) -> Served:
        """What the cluster is fitted to: the recorded requests of each service; raises TraceError without any."""
        return served(trace, waits_at=self.waits_at, kinds=self.kinds, since_s=self.since_s, until_s=self.until_s)

    def _own(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        return tuple((name, dict(fields)) for name, fields in dict(self.services).items())

    def _check(self) -> None:
        if self.waits_at not in ("caller", "callee") or self.replay not in ("requests", "arrivals", "demand"):
            raise ScenarioError(f"{self}: waits_at is caller or callee; replay is requests, arrivals or demand")
        sizes = (self.step_s, self.slo_factor, self.room, float(self.replicas), float(self.kinds))
        if not all(0.0 < size < math.inf for size in sizes):
            raise ScenarioError(f"{self}: step_s, slo_factor, room, replicas and kinds must be numbers > 0")

    def _service(self, station: Station, graph: CallGraph) -> Service:
        own_s = max(station.own_mean_s, _LEAST_S)
        fields = dict(dict(self._own()).get(station.service, {}))
        replicas = int(fields.get("replicas", self.replicas))
        told: dict[str, Any] = {
            "unit_rps": 1.0 if station.entry_rps > 0 else 0.0,
            "cpu_cores": self.cpu_cores,
            "memory_gib": self.memory_gib,
            "service_time_s": own_s,
            "concurrency": self.concurrency or math.ceil(self.room * station.peak / max(replicas, 1)),
            "slo_s": max(self.slo_factor * station.response_p95_s, 1.5 * own_s),
            "timeout_s": self.timeout_s,
            "replicas": replicas,
            "max_replicas": max(self.max_replicas, replicas),
            "burst_cv": 0.0,
            "service_cv": station.own_cv,
            "distribution": station.distribution,
            "calls": tuple(Call(edge.callee, edge.per_request) for edge in graph.calls_of(station.service)),
        }
        try:
            return Service(station.service, **{**told, **fields})
        except (TypeError, UsageError) as error:
            raise ScenarioError(f"services.{station.service}: {error}") from error

    def _replayed(self, trace: Trace, recorded: Served, graph: CallGraph) -> Trace:
        """The stretch, from its first request on: demand, requests from outside, and calls between services."""
        entries = recorded.entries.with_columns(pl.col("time_s") - graph.since_s)
        demand = _demand(entries, graph.until_s - graph.since_s, self.step_s)
        names = [station.service for station in graph.stations]
        stretch = _stretch(trace, graph, self.step_s)
        frames = {
            "services": pl.DataFrame({"service": names, "demand_unit": ["requests/s"] * len(names)}),
            "demand": demand,
            "calls": pl.DataFrame(
                [(edge.caller, edge.callee, float(edge.calls)) for edge in graph.edges],
                schema={"caller": pl.String, "callee": pl.String, "count": pl.Float64},
                orient="row",
            ),
        }
        if self.replay != "demand":
            own = pl.col("own_s") if self.replay == "requests" else pl.lit(None, pl.Float64)
            frames["requests"] = entries.select("service", "time_s", duration_s=own)
        told = "; ".join(graph.unfitted) or "nothing is left out"
        return Trace(
            replace(
                stretch.info,
                step_s=self.step_s,
                notes=(
                    *stretch.info.notes,
                    f"scenario: {graph.traces} recorded traces as services and calls, gaps between spans at the "
                    f"{self.waits_at}, {self.replay} replayed; {told}",
                ),
            ),
            {**{name: stretch.tables[name] for name in _KEPT}, **frames},
        )


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value that a configuration file can hold
    """A list as a tuple, a mapping as the delay that it stands for in a cluster's configuration."""
    if isinstance(value, Mapping):
        try:
            return Delay(**value)
        except TypeError as error:
            raise ScenarioError(f"services: {dict(value)} is no delay: {error}; give median_s and sigma") from error
    return tuple(value) if isinstance(value, list) else value


def _stretch(trace: Trace, graph: CallGraph, step_s: float) -> Trace:
    """The trace from the first request on, until the step in which the last one was answered is over."""
    lasts_s = _steps(graph.until_s - graph.since_s, step_s) * step_s
    return trace.between(graph.since_s, graph.since_s + lasts_s)


def _steps(span_s: float, step_s: float) -> int:
    return max(1, math.ceil(span_s / step_s))


def _demand(entries: pl.DataFrame, span_s: float, step_s: float) -> pl.DataFrame:
    """Requests/s from outside of each service that is entered, in every step."""
    number = _steps(span_s, step_s)
    frames = []
    for (service,), rows in entries.partition_by("service", as_dict=True, maintain_order=True).items():
        step = np.minimum((rows["time_s"].to_numpy() // step_s).astype(np.int64), number - 1)
        rate = np.bincount(step, minlength=number) / step_s
        frames.append(pl.DataFrame({"service": service, "time_s": np.arange(number) * step_s, "value": rate}))
    return pl.concat(frames).sort("service", "time_s")
