"""State -> named observation columns: the same code for the twin and for a live cluster.

Columns are `<service>.<metric>`, then `<pool>.<metric>`, then the clock; the order is fixed by the cluster,
so a policy trained in the twin reads a live cluster without knowing the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from twin.fleet import Fleet
from twin.types import Cluster, Columns, Observation

DAY_S = 86_400.0

SERVICE_METRICS = (
    "demand_rps",  # arrivals since the last observation
    "demand_15m_rps",  # arrivals over the last 15 minutes
    "utilisation_ratio",  # busy share of the measured ready replicas since the last observation
    "wanted_replicas",
    "ready_replicas",
    "starting_replicas",  # placed, not ready
    "pending_replicas",  # without a node
    "unmeasured_replicas",  # ready, but their metrics are missing
    "queue_requests",
    "latency_p95_s",
    "late_ratio",  # late, dropped or failed share of the arrivals since the last observation
    "latency_p50_s",
    "latency_p99_s",
    "failed_ratio",  # share of the arrivals since the last observation that got an error
    "cpu_use_cores",  # mean of a ready replica since the last observation
    "memory_use_gib",  # of the replica that used most when it was last looked at, once a minute
    "oom_kills",  # since the last observation
    "cpu_millicores",  # what each replica asks for
    "memory_mib",
)
POOL_METRICS = (
    "wanted_nodes",
    "ready_nodes",
    "booting_nodes",
    "failed_nodes",
    "free_cpu_cores",
    "draining_nodes",
    "price_usd_h",  # of one more node now
    "interrupted_nodes",  # since the last observation
)
CLOCK = ("clock.day_sin", "clock.day_cos")


def columns(cluster: Cluster) -> Columns:
    """The names of the observation's columns for this cluster, in order."""
    services = [f"{s.name}.{metric}" for s in cluster.services for metric in SERVICE_METRICS]
    pools = [f"{p.name}.{metric}" for p in cluster.pools for metric in POOL_METRICS]
    return Columns((*services, *pools, *CLOCK))


def assemble(
    names: tuple[str, ...],
    time_s: float,
    clock_s: float,
    services: NDArray[np.float64],
    pools: NDArray[np.float64],
    fleet: Callable[[], Fleet] | None = None,
) -> Observation:
    """The observation made of `services` [services, SERVICE_METRICS] and `pools` [pools, POOL_METRICS].

    `names` are the cluster's `columns`. A metric that could not be measured is NaN. The clock columns give the time of
    day of `clock_s`, which in a cut of a recording is the time of the whole recording. `fleet` looks at single nodes.
    """
    angle = 2.0 * math.pi * (clock_s % DAY_S) / DAY_S
    values = np.concatenate(
        (services.ravel(), pools.ravel(), (math.sin(angle), math.cos(angle))), dtype=np.float32, casting="same_kind"
    )
    return Observation(time_s, names, values, fleet)
