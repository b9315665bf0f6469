"""The twin's state as arrays: services, nodes and replicas, so that a run can be copied and looked at whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.engine.serving import BOOKS, BUCKETS
from twin.fleet import BOOTING, DRAINING, FAILED, GONE, OFF, PENDING, READY, STARTING, UP
from twin.types import Cluster

__all__ = ["BOOTING", "DRAINING", "FAILED", "GONE", "OFF", "PENDING", "READY", "STARTING", "UP", "State", "initial"]

NODE_STATES, REPLICA_STATES = 5, 4
NOWHERE = -1.0


@dataclass(slots=True)
class State:
    """Everything that changes. Pools own fixed ranges of node slots; replica slots are reused.

    `node_epoch` and `replica_epoch` count the lives of a slot: a delayed event of an earlier life is void.
    """

    # services
    rate_rps: NDArray[np.float64]  # [services], arrivals from outside per second; users where the load is closed
    capacity: NDArray[np.float64]  # [services], ready replicas, each counted with its speed
    speed: NDArray[np.float64]  # [services], of each replica, as the service's own condition has it
    error_share: NDArray[np.float64]  # [services], of its answers
    way_s: NDArray[np.float64]  # [services], mean round trip between users and ready replicas
    egress_usd_gib: NDArray[np.float64]  # [services], mean price of what ready replicas send to users
    request: NDArray[np.float64]  # [services, resources], what a new replica asks for
    cores: NDArray[np.float64]  # [services], that a replica uses when it works all the time
    wanted: NDArray[np.int64]  # [services]
    count: NDArray[np.int64]  # [services, replica states]; column GONE unused
    queue: NDArray[np.float64]  # [services], waiting
    inside: NDArray[np.float64]  # [services], waiting or in service
    books: NDArray[np.float64]  # [services, BOOKS], cumulative
    responses: NDArray[np.float64]  # [services, BUCKETS], cumulative counts of response times
    busy: NDArray[np.float64]  # [services], share of the ready replicas in service over the last minute; NaN = none was
    working: NDArray[np.float64]  # [services], share of them that worked itself, and did not wait for another service
    memory_use_gib: NDArray[np.float64]  # [services], of the replica that uses most; NaN = nothing is known of it
    oom_kills: NDArray[np.int64]  # [services], cumulative
    blind_until_s: NDArray[np.float64]  # [services], telemetry lost until then
    delay_s: NDArray[np.float64]  # [services], how old its telemetry is
    egress_gib: NDArray[np.float64]  # [services], cumulative
    egress_usd: NDArray[np.float64]  # [services], cumulative
    # nodes
    node_pool: NDArray[np.int64]  # [nodes]
    node_rack: NDArray[np.int64]  # [nodes], number of the rack in its pool
    node_state: NDArray[np.int8]  # [nodes]
    node_since_s: NDArray[np.float64]  # [nodes], when that state began
    node_epoch: NDArray[np.int64]  # [nodes]
    node_life: NDArray[np.int64]  # [nodes], how often it began anew, empty and whole
    node_closed: NDArray[np.int64]  # [nodes], reasons why it takes no new replica
    node_speed: NDArray[np.float64]  # [nodes]
    node_size: NDArray[np.float64]  # [nodes, resources]
    node_used: NDArray[np.float64]  # [nodes, resources], promised to replicas
    node_free: NDArray[np.float64]  # [nodes, resources]; -1 unless UP and open
    node_replicas: NDArray[np.int64]  # [nodes]
    # pools
    nodes_wanted: NDArray[np.int64]  # [pools]
    most_nodes: NDArray[np.float64]  # [pools], that can be had now
    down: NDArray[np.int64]  # [pools], reasons why it gets no node at all
    cut: NDArray[np.int64]  # [pools], reasons why its nodes cannot be reached
    node_count: NDArray[np.int64]  # [pools, node states]
    interrupted: NDArray[np.int64]  # [pools], cumulative
    billed: NDArray[np.int64]  # [pools], nodes billed now
    price_usd_h: NDArray[np.float64]  # [pools], now
    node_books_s: NDArray[np.float64]  # [pools], billed node-seconds
    cost_usd: NDArray[np.float64]  # [pools], cumulative
    # replicas
    replica_service: NDArray[np.int64]  # [replica slots]
    replica_node: NDArray[np.int64]  # [replica slots], -1 = none
    replica_state: NDArray[np.int8]  # [replica slots]
    replica_since_s: NDArray[np.float64]  # [replica slots], when that state began
    replica_epoch: NDArray[np.int64]  # [replica slots]
    replica_born: NDArray[np.int64]  # [replica slots], running number
    replica_request: NDArray[np.float64]  # [replica slots, resources], what it was placed with

    def reopen(self, node: int) -> None:
        """Recompute what the node has left for new replicas."""
        whole = self.node_state[node] == UP and self.node_closed[node] == 0
        usable = whole and self.cut[self.node_pool[node]] == 0
        self.node_free[node] = self.node_size[node] - self.node_used[node] if usable else NOWHERE


def initial(cluster: Cluster) -> State:
    """An empty cluster: every node slot off, no replica."""
    services, pools = len(cluster.services), len(cluster.pools)
    most = [p.max_nodes for p in cluster.pools]
    node_pool = np.repeat(np.arange(pools), np.array(most, dtype=np.int64))
    size = np.array([p.size for p in cluster.pools], dtype=np.float64).reshape(pools, 2)
    nodes = len(node_pool)
    slots = sum(s.max_replicas for s in cluster.services)
    racks = [np.arange(p.max_nodes) // p.nodes_per_rack for p in cluster.pools]
    return State(
        rate_rps=np.zeros(services),
        capacity=np.zeros(services),
        speed=np.ones(services),
        error_share=np.zeros(services),
        way_s=np.zeros(services),
        egress_usd_gib=np.zeros(services),
        request=np.array([s.request for s in cluster.services], dtype=np.float64).reshape(services, 2),
        cores=np.array([s.cpu_cores for s in cluster.services], dtype=np.float64),
        wanted=np.zeros(services, dtype=np.int64),
        count=np.zeros((services, REPLICA_STATES), dtype=np.int64),
        queue=np.zeros(services),
        inside=np.zeros(services),
        books=np.zeros((services, BOOKS)),
        responses=np.zeros((services, BUCKETS)),
        busy=np.full(services, np.nan),
        working=np.full(services, np.nan),
        memory_use_gib=np.full(services, np.nan),
        oom_kills=np.zeros(services, dtype=np.int64),
        blind_until_s=np.full(services, -1.0),
        delay_s=np.zeros(services),
        egress_gib=np.zeros(services),
        egress_usd=np.zeros(services),
        node_pool=node_pool,
        node_rack=np.concatenate(racks) if racks else np.zeros(0, dtype=np.int64),
        node_state=np.zeros(nodes, dtype=np.int8),
        node_since_s=np.zeros(nodes),
        node_epoch=np.zeros(nodes, dtype=np.int64),
        node_life=np.zeros(nodes, dtype=np.int64),
        node_closed=np.zeros(nodes, dtype=np.int64),
        node_speed=np.ones(nodes),
        node_size=size[node_pool],
        node_used=np.zeros((nodes, 2)),
        node_free=np.full((nodes, 2), NOWHERE),
        node_replicas=np.zeros(nodes, dtype=np.int64),
        nodes_wanted=np.zeros(pools, dtype=np.int64),
        most_nodes=np.array(most, dtype=np.float64),
        down=np.zeros(pools, dtype=np.int64),
        cut=np.zeros(pools, dtype=np.int64),
        node_count=np.array([[p.max_nodes, 0, 0, 0, 0] for p in cluster.pools], dtype=np.int64).reshape(
            pools, NODE_STATES
        ),
        interrupted=np.zeros(pools, dtype=np.int64),
        billed=np.zeros(pools, dtype=np.int64),
        price_usd_h=np.array([p.price_usd_h for p in cluster.pools], dtype=np.float64),
        node_books_s=np.zeros(pools),
        cost_usd=np.zeros(pools),
        replica_service=np.zeros(slots, dtype=np.int64),
        replica_node=np.full(slots, -1, dtype=np.int64),
        replica_state=np.zeros(slots, dtype=np.int8),
        replica_since_s=np.zeros(slots),
        replica_epoch=np.zeros(slots, dtype=np.int64),
        replica_born=np.zeros(slots, dtype=np.int64),
        replica_request=np.zeros((slots, 2)),
    )
