"""Where episodes take place: a recording and what scenarios made of it, a cluster, limits, a model of serving.

Everything may be given as plain data: a recording by its name, cluster and limits as mappings. A name joined with "+"
lays recordings side by side, each as a service of the recording's name: "google2019+azure_v2".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypedDict

import numpy as np
import polars as pl

from twin import types
from twin.engine import traffic
from twin.engine.plant import TwinPlant
from twin.engine.scheduling.placement import MostAllocated
from twin.envs.episode import Episode
from twin.errors import UsageError
from twin.trace.read import read
from twin.trace.trace import Trace
from twin.types import Cluster, Delay, Event, Limits, Pool, RateLimit, Record, Service

ONE = "google2019"
THREE = "google2019+alibaba2018+azure_v2"
OPTIONS = ("trace", "events", "variant", "start")
DAY_S = 86_400.0
_HOUR_S = 3600.0

Variant = tuple[Trace, Sequence[Event]]


@dataclass(frozen=True, slots=True)
class World:
    """What all episodes of an environment have in common. `variants[0]` is the recording as it is."""

    variants: tuple[Variant, ...]
    cluster: Cluster
    limits: Limits
    interval_s: float
    episode_s: float
    serving: traffic.Serve

    def begin(self, rng: np.random.Generator, asked: Mapping[str, Any]) -> Episode:
        """A new episode, after its first interval, so that every metric is known.

        It meets one of the variants from a full hour on, both drawn from `rng`, unless `asked` places it: `trace` (a
        Trace or a name) with `events`, or `variant` (a number); `start` (seconds). What is asked for changes no other
        draw. It ends after `episode_s`, or with the trace if that is earlier.

        Raises:
            UsageError: an option is unknown, or the trace has not two intervals left at `start`.
        """
        unknown = sorted(set(asked) - set(OPTIONS))
        if unknown:
            raise UsageError(f"reset knows no option {unknown[0]!r}; known: {list(OPTIONS)}")
        drawn = int(rng.integers(len(self.variants)))
        variant = int(asked.get("variant", drawn))
        trace, events = self.variants[variant]
        if "trace" in asked:
            trace, events, variant = trace_of(asked["trace"]), (), -1
        events = asked.get("events", events)
        recorded_s = trace.duration_s
        hours = max(int((recorded_s - self.episode_s) // _HOUR_S), 0) + 1
        drawn_s = float(rng.integers(hours) * _HOUR_S)
        start_s = float(asked.get("start", drawn_s))
        length_s = min(self.episode_s, recorded_s - start_s)
        if start_s < 0 or length_s < 2 * self.interval_s:
            raise UsageError(
                f"an episode from {start_s:g} s on leaves {length_s:g} s of {trace.info.name!r}, which ends at "
                f"{recorded_s:g} s; begin earlier, at least two intervals of {self.interval_s:g} s must be left"
            )
        plant = TwinPlant(
            trace.between(start_s, start_s + length_s),
            self.cluster,
            scheduler=MostAllocated(),
            events=[replace(e, time_s=e.time_s - start_s) for e in events if 0 <= e.time_s - start_s < length_s],
            record=Record(step_s=math.inf),
            until_s=length_s,
            seed=int(rng.integers(2**31)),
            serving=self.serving,
        )
        return Episode(plant, self.limits, self.interval_s, length_s, {"start_s": start_s, "variant": variant})


class Place(TypedDict, total=False):
    """The arguments of `world` that all environments take as they are; what is left out has `world`'s default."""

    variants: Sequence[Variant]
    interval_s: float
    episode_s: float
    limits: Limits | Mapping[str, Any] | None
    serving: traffic.Serve | Literal["fluid", "requests"]


def world(
    trace: Trace | str,
    cluster: Cluster | Mapping[str, Any] | None,
    *,
    provision: Literal["pending", "manual"] = "pending",
    variants: Sequence[Variant] = (),
    interval_s: float = 60.0,
    episode_s: float = DAY_S,
    limits: Limits | Mapping[str, Any] | None = None,
    serving: traffic.Serve | Literal["fluid", "requests"] = "fluid",
) -> World:
    """The world made of an environment's arguments.

    Args:
        trace: the recording, or its name.
        cluster: what is mirrored, or the arguments of `twin.types.cluster`; by default `cluster_for(trace)`.
        provision: of the default cluster's pools.
        variants: (trace, events) that scenarios made of the recording; each episode meets one, at random.
        interval_s: seconds between actions.
        episode_s: the length of an episode; one that begins later ends with the trace.
        limits: the shield (of each service and pool), or its fields that are not the default.
        serving: how requests are served: averages ("fluid"), each request ("requests"), or a model of one's own.

    Raises:
        UsageError: an argument is none of these, or the cluster has no services.
    """
    recording = trace_of(trace)
    if isinstance(cluster, Mapping):
        cluster = types.cluster(**cluster)
    if isinstance(serving, str):
        models = {"fluid": traffic.fluid, "requests": traffic.requests}
        if serving not in models:
            raise UsageError(f"no model of serving {serving!r}; known: {sorted(models)}")
        serving = models[serving]
    if isinstance(limits, Mapping):
        fields: dict[str, Any] = {k: RateLimit(**v) if isinstance(v, Mapping) else v for k, v in limits.items()}
        limits = Limits(**fields)
    if cluster is None:
        cluster = cluster_for(recording, provision)
    if not cluster.services:
        raise UsageError(f"cluster {cluster.name!r} has no services; there is nothing to scale")
    return World(((recording, ()), *variants), cluster, limits or Limits(), interval_s, episode_s, serving)


def trace_of(trace: Trace | str) -> Trace:
    """The trace itself, or the one of that name; recordings joined with "+" lie side by side."""
    return _read(trace) if isinstance(trace, str) else trace


@lru_cache(maxsize=8)
def _read(name: str) -> Trace:
    return _side_by_side(name.split("+")) if "+" in name else read(name)


def _side_by_side(names: Sequence[str]) -> Trace:
    """One trace of the recordings' only series, each a service called like its recording; as long as the shortest."""
    traces = {name: read(name) for name in names}
    steps = {trace.info.step_s for trace in traces.values()}
    if len(steps) > 1 or any(trace.services.height != 1 for trace in traces.values()):
        raise UsageError(f"{'+'.join(names)}: recordings side by side must hold one service each, in equal steps")
    end_s = min(trace.duration_s for trace in traces.values())
    named = {
        table: pl.concat(
            [trace.tables[table].with_columns(pl.lit(name).alias("service")) for name, trace in traces.items()]
        )
        for table in ("demand", "services")
    }
    first = traces[names[0]].info
    info = replace(
        first,
        name="+".join(names),
        source="; ".join(trace.info.source for trace in traces.values()),
        licence="; ".join(trace.info.licence for trace in traces.values()),
        epoch="",
        zone="",
        notes=("recordings of different places and times laid side by side",),
    )
    return Trace(info, named).between(0.0, end_s)


# what the default cluster makes of a recorded series: this many replicas, this full, at its mean demand
_REPLICAS, _FULL = 20, 0.7
_NODE_CORES, _REPLICA_CORES = 16, 2


def cluster_for(trace: Trace, provision: Literal["pending", "manual"] = "pending") -> Cluster:
    """A cluster for the trace's services, each with about 20 replicas: an on-demand pool holds them, a spot pool helps.

    What a unit of recorded demand means in requests is chosen so, and says nothing of the recorded system.
    """
    # means by polars' groups differ in their last digit with the number of its threads
    rows = trace.demand.partition_by("service", maintain_order=True, as_dict=True).items()
    services = tuple(_service(name, float(demand["value"].to_numpy().mean())) for (name,), demand in rows)
    nodes = math.ceil(len(services) * _REPLICAS * _REPLICA_CORES / _NODE_CORES)
    steady = Pool(
        "steady", _NODE_CORES, 64, 0.76, nodes=nodes, min_nodes=1, max_nodes=4 * nodes, boot=Delay(150.0, 0.3),
        provision=provision, failures_per_node_day=0.02,
    )  # fmt: skip
    spot = replace(
        steady, name="spot", price_usd_h=0.25, nodes=1, min_nodes=0, offer="spot", interruptions_per_node_day=1.0
    )
    return Cluster(f"default for {trace.info.name}", (steady, spot), services)


def _service(name: str, mean_demand: float) -> Service:
    service = Service(
        name, 1.0, _REPLICA_CORES, 4, service_time_s=0.16, concurrency=4, slo_s=0.5, replicas=_REPLICAS,
        min_replicas=2, max_replicas=5 * _REPLICAS, start=Delay(45.0, 0.3),
    )  # fmt: skip
    unit_rps = _REPLICAS * _FULL * service.replica_rps / mean_demand if mean_demand > 0 else 1.0
    return replace(service, unit_rps=unit_rps)
