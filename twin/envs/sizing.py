"""The frame in which learned scalers speak: what they see of the cluster, and how a target becomes replicas.

Shared by the environment, the trained network and its exported graph, so that all three mean the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.observe import CLOCK
from twin.types import Cluster, Service

TARGETS = np.linspace(0.60, 0.96, 10, dtype=np.float32)

STEPS = 5
TOLERANCE = 0.1

BOUND = 10.0
_LOWEST, _HIGHEST = np.float32(-BOUND), np.float32(BOUND)


SERVICE_METRICS = (
    "demand_rps",
    "demand_15m_rps",
    "wanted_replicas",
    "ready_replicas",
    "starting_replicas",
    "pending_replicas",
    "utilisation_ratio",
    "queue_requests",
    "latency_p95_s",
    "late_ratio",
)


def columns(cluster: Cluster, service: str) -> tuple[str, ...]:
    """The observation columns that the agent of one service sees, in order."""
    pool = cluster.pools[0].name
    return (*(f"{service}.{m}" for m in SERVICE_METRICS), f"{pool}.booting_nodes", f"{pool}.free_cpu_cores", *CLOCK)


def scales(cluster: Cluster, service: str) -> NDArray[np.float32]:
    """The factors [columns] that bring each column to about [-1, 1]; the agent sees clip(value x factor)."""
    own = service_factors(cluster.service(service))
    return np.array([*own, 1.0, 1.0 / cluster.pools[0].cpu_cores, *[1.0] * len(CLOCK)], dtype=np.float32)


def service_factors(service: Service) -> tuple[float, ...]:
    """The factors of a service's metrics."""
    replicas = 1.0 / max(service.replicas, 1)
    rps = replicas / service.replica_rps
    return (rps, rps, replicas, replicas, 4 * replicas, 4 * replicas, 1.0, rps, 1.0 / service.slo_s, 1.0)


def features(values: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the agent sees of the chosen columns' values."""
    return np.minimum(np.maximum(values * factors, _LOWEST), _HIGHEST)


def replicas_for(demand_rps: NDArray[np.float32], wanted: float, target: float, replica_rps: float) -> float:
    """Replicas (not yet whole) that serve the largest of `demand_rps` at the utilisation `target`.

    `demand_rps` holds the last STEPS minutes and the quarter hour, so that a dip of a few minutes shrinks nothing;
    and the wanted replicas stay while they run within TOLERANCE of the target: both as the HPA does it.
    """
    return fit(float(demand_rps.max()), wanted, target, replica_rps)


def fit(peak_rps: float, wanted: float, target: float, replica_rps: float) -> float:
    """`replicas_for` of a demand whose largest value is known."""
    wish = peak_rps / (replica_rps * target)
    return wanted if abs(wish / wanted - 1.0) <= TOLERANCE else wish
