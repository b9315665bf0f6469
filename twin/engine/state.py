"""The twin's state as arrays: services, nodes and replicas, so that a run can be copied and looked at whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.engine.queueing import BOOKS, CONSTANTS
from twin.types import Cluster

# node states
OFF, BOOTING, UP, FAILED = range(4)
# replica states
GONE, PENDING, STARTING, READY = range(4)


@dataclass(slots=True)
class State:
    """Everything that changes. Pools own fixed ranges of node slots; replica slots are reused.

    `node_epoch` and `replica_epoch` count the lives of a slot: a delayed event of an earlier life is void.
    """

    constants: NDArray[np.float64]  # [services, CONSTANTS]
    rate_rps: NDArray[np.float64]  # [services]
    queue: NDArray[np.float64]  # [services]
    books: NDArray[np.float64]  # [services, BOOKS], cumulative
    wanted: NDArray[np.int64]  # [services]
    count: NDArray[np.int64]  # [services, replica states]; column GONE unused
    blind_until_s: NDArray[np.float64]  # [services], telemetry lost until then
    node_pool: NDArray[np.int64]  # [nodes]
    node_state: NDArray[np.int8]  # [nodes]
    node_epoch: NDArray[np.int64]  # [nodes]
    node_size: NDArray[np.float64]  # [nodes, resources]: CPU cores, memory GiB
    node_free: NDArray[np.float64]  # [nodes, resources]; -1 unless UP
    node_replicas: NDArray[np.int64]  # [nodes]
    nodes_wanted: NDArray[np.int64]  # [pools]
    node_count: NDArray[np.int64]  # [pools, node states]
    node_books_s: NDArray[np.float64]  # [pools], billed node-seconds
    billed: NDArray[np.int64]  # [pools], nodes billed now
    replica_service: NDArray[np.int64]  # [replica slots]
    replica_node: NDArray[np.int64]  # [replica slots], -1 = none
    replica_state: NDArray[np.int8]  # [replica slots]
    replica_epoch: NDArray[np.int64]  # [replica slots]
    replica_born: NDArray[np.int64]  # [replica slots], running number


def initial(cluster: Cluster) -> State:
    """An empty cluster: every node slot off, no replica."""
    services, pools = len(cluster.services), len(cluster.pools)
    constants = np.array(
        [[s.replica_rps, s.concurrency, s.service_time_s, s.slo_s, s.timeout_s] for s in cluster.services],
        dtype=np.float64,
    ).reshape(services, CONSTANTS)
    node_pool = np.repeat(np.arange(pools), [p.max_nodes for p in cluster.pools])
    size = np.array([[p.cpu_cores, p.memory_gib] for p in cluster.pools], dtype=np.float64).reshape(pools, 2)
    nodes = len(node_pool)
    slots = sum(s.max_replicas for s in cluster.services)
    return State(
        constants=constants,
        rate_rps=np.zeros(services),
        queue=np.zeros(services),
        books=np.zeros((services, BOOKS)),
        wanted=np.zeros(services, dtype=np.int64),
        count=np.zeros((services, 4), dtype=np.int64),
        blind_until_s=np.full(services, -1.0),
        node_pool=node_pool,
        node_state=np.zeros(nodes, dtype=np.int8),
        node_epoch=np.zeros(nodes, dtype=np.int64),
        node_size=size[node_pool],
        node_free=np.full((nodes, 2), -1.0),
        node_replicas=np.zeros(nodes, dtype=np.int64),
        nodes_wanted=np.zeros(pools, dtype=np.int64),
        node_count=np.array([[p.max_nodes, 0, 0, 0] for p in cluster.pools], dtype=np.int64).reshape(pools, 4),
        node_books_s=np.zeros(pools),
        billed=np.zeros(pools, dtype=np.int64),
        replica_service=np.zeros(slots, dtype=np.int64),
        replica_node=np.full(slots, -1, dtype=np.int64),
        replica_state=np.zeros(slots, dtype=np.int8),
        replica_epoch=np.zeros(slots, dtype=np.int64),
        replica_born=np.zeros(slots, dtype=np.int64),
    )
