"""Single nodes and replicas as of now, as arrays: what node autoscalers, deschedulers and planners look at.

A `Fleet` is a copy: whoever reads it may try things out on it without touching the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from twin.types import Pool, Service

# states of a node; draining ones take nothing new and are given back when they are empty
OFF, BOOTING, UP, FAILED, DRAINING = range(5)
# states of a replica
GONE, PENDING, STARTING, READY = range(4)
# resources, in the order of every array's last axis
CPU_CORES, MEMORY_GIB = range(2)


@dataclass(frozen=True)
class Fleet:
    """The nodes that exist and the replicas ("pods") that are wished for, at `time_s`.

    Nodes that are off are left out. `pod_node` is a place in the arrays of nodes, -1 for a pending replica.
    """

    time_s: float
    pools: tuple[Pool, ...]
    services: tuple[Service, ...]
    node_name: tuple[str, ...]
    node_pool: NDArray[np.int64]  # [nodes], place in `pools`
    node_state: NDArray[np.int8]  # [nodes]: BOOTING, UP, FAILED or DRAINING
    node_since_s: NDArray[np.float64]  # [nodes], when its state began
    node_size: NDArray[np.float64]  # [nodes, resources]
    pod_name: tuple[str, ...]
    pod_service: NDArray[np.int64]  # [pods], place in `services`
    pod_node: NDArray[np.int64]  # [pods], place in the nodes, -1 = none
    pod_state: NDArray[np.int8]  # [pods]: PENDING, STARTING or READY
    pod_since_s: NDArray[np.float64]  # [pods], when its state began
    pod_use: NDArray[np.float64]  # [pods, resources], what it uses now; NaN = not measured
    request: NDArray[np.float64]  # [services, resources], what each replica asks for now
    wanted: NDArray[np.int64]  # [services]
    nodes_wanted: NDArray[np.int64]  # [pools]
    price_usd_h: NDArray[np.float64]  # [pools], of one more node, now
    pod_asked: NDArray[np.float64] | None = (
        None  # [pods, resources], when it was placed; None = as its service does now
    )

    @cached_property
    def pod_request(self) -> NDArray[np.float64]:
        """What each pod asks for [pods, resources]: one that was placed before a resize still asks for what it got."""
        return self.request[self.pod_service] if self.pod_asked is None else self.pod_asked

    @cached_property
    def node_asked(self) -> NDArray[np.float64]:
        """What the pods of each node ask for in all [nodes, resources]."""
        placed = self.pod_node >= 0
        asked = np.zeros_like(self.node_size)
        np.add.at(asked, self.pod_node[placed], self.pod_request[placed])
        return asked

    @cached_property
    def node_free(self) -> NDArray[np.float64]:
        """What each node has left [nodes, resources], whatever its state."""
        return self.node_size - self.node_asked

    @cached_property
    def node_pods(self) -> NDArray[np.int64]:
        """How many pods each node holds [nodes]."""
        return np.bincount(self.pod_node[self.pod_node >= 0], minlength=len(self.node_name)).astype(np.int64)

    @cached_property
    def ready(self) -> NDArray[np.int64]:
        """Ready replicas of each service [services]."""
        return np.bincount(self.pod_service[self.pod_state == READY], minlength=len(self.services)).astype(np.int64)

    @cached_property
    def disruptable(self) -> NDArray[np.int64]:
        """How many more replicas of each service its disruption budget lets go now [services]."""
        spare = np.array([service.max_unavailable for service in self.services], dtype=np.int64)
        return np.maximum(self.ready - (self.wanted - spare), 0)

    def pods_on(self, node: int) -> NDArray[np.intp]:
        """The places of the pods that the node holds."""
        return np.flatnonzero(self.pod_node == node)

    def nodes_of(self, pool: int, *states: int) -> NDArray[np.intp]:
        """The places of the pool's nodes that are in one of the states (any state when none is given)."""
        mine = self.node_pool == pool
        return np.flatnonzero(mine & np.isin(self.node_state, states) if states else mine)

    def may_run(self, service: int, pool: int) -> bool:
        """May the service's replicas run in the pool?"""
        allowed = self.services[service].pools
        return not allowed or self.pools[pool].name in allowed
