"""Trying out where pods would go, on a copy of the fleet: what node autoscalers ask before they add or remove a node.

All replicas of a service ask for the same, so first fit is settled by whole services: nodes are filled in their order,
each with as many as it can hold. That gives what placing the pods one by one would give, at the cost of a few array
operations for each service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.fleet import DRAINING, PENDING, Fleet

SLACK = 1e-9  # sums of requests are not exact
_MANY = 1 << 40  # pods that ask for nothing fit without end


@dataclass(slots=True)
class Room:
    """What the nodes have left while moves are tried out; a copy that may be changed at will."""

    free: NDArray[np.float64]  # [nodes, resources]
    held: NDArray[np.int64]  # [nodes, services], how many pods of each service the node holds
    request: NDArray[np.float64]  # [services, resources]
    allowed: NDArray[np.bool_]  # [services, nodes], may the service run there?

    def copy(self) -> Room:
        """An independent copy; requests and permissions never change and are shared."""
        return Room(self.free.copy(), self.held.copy(), self.request, self.allowed)


def room(fleet: Fleet) -> Room:
    """What the fleet's nodes have left, whatever their state."""
    held = np.zeros((len(fleet.node_name), len(fleet.services)), dtype=np.int64)
    placed = fleet.pod_node >= 0
    np.add.at(held, (fleet.pod_node[placed], fleet.pod_service[placed]), 1)
    return Room(fleet.node_free.copy(), held, fleet.request, permitted(fleet)[:, fleet.node_pool])


def permitted(fleet: Fleet) -> NDArray[np.bool_]:
    """May the service run in the pool? [services, pools]."""
    pools = range(len(fleet.pools))
    rows = [[fleet.may_run(service, pool) for pool in pools] for service in range(len(fleet.services))]
    return np.array(rows, dtype=bool).reshape(len(fleet.services), len(fleet.pools))


def fitting(free: NDArray[np.float64], request: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many pods that ask for `request` [resources] fit into each row of `free` [nodes, resources]."""
    fit = np.full(len(free), _MANY, dtype=np.int64)
    for resource, amount in enumerate(request):
        if amount > 0.0:
            fit = np.minimum(fit, ((free[:, resource] + SLACK) / amount).astype(np.int64))
    return np.maximum(fit, 0)


def fitting_one(free: Sequence[float], request: Sequence[float]) -> int:
    """How many pods that ask for `request` [resources] fit into `free` [resources]: `fitting` for one node."""
    fit = _MANY
    for left, amount in zip(free, request, strict=True):
        if amount > 0.0:
            fit = min(fit, int((left + SLACK) / amount))
    return max(fit, 0)


def fill(fit: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of `count` pods each node takes when each takes as many as `fit` it, in order [nodes]."""
    fit = np.minimum(fit, count)  # keeps the running sum small
    before = np.cumsum(fit) - fit
    return np.clip(count - before, 0, fit)


def place(
    room: Room, counts: NDArray[np.int64], open_nodes: NDArray[np.intp], order: Sequence[int]
) -> NDArray[np.int64]:
    """The pods [services] that found no room; the others now stand in `room`, by first fit.

    Args:
        room: what is left; is changed.
        counts: pods to be placed [services].
        open_nodes: places of the nodes that may take them, the first to be filled first.
        order: in which order the services get their turn.
    """
    left = counts.copy()
    for service in order:
        if left[service]:
            left[service] = settle(room, service, int(left[service]), open_nodes)
    return left


def settle(room: Room, service: int, count: int, open_nodes: NDArray[np.intp]) -> int:
    """How many of `count` pods of one service found no room on the open nodes; the others now stand in `room`."""
    fit = fitting(room.free[open_nodes], room.request[service])
    taken = fill(np.where(room.allowed[service, open_nodes], fit, 0), count)
    used = np.flatnonzero(taken)
    nodes, taken = open_nodes[used], taken[used]
    room.free[nodes] -= taken[:, None] * room.request[service]
    room.held[nodes, service] += taken
    return count - int(taken.sum())


def by_size(request: NDArray[np.float64]) -> list[int]:
    """The services in Karpenter's order: the most CPU first, then the most memory."""
    return [int(service) for service in np.lexsort((-request[:, 1], -request[:, 0]))]


def by_share(request: NDArray[np.float64], size: NDArray[np.float64]) -> list[int]:
    """The services in the Cluster Autoscaler's order: the largest share of a node first, CPU and memory added."""
    share = np.where(size > 0.0, request / np.where(size > 0.0, size, 1.0), 0.0).sum(axis=1)
    return [int(service) for service in np.argsort(-share, kind="stable")]


def homeless(fleet: Fleet, leaving: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The pods [services] that wait for a node, or stand on one that is being emptied or is `leaving` [nodes]."""
    going = fleet.node_state == DRAINING
    if leaving is not None:
        going = going | leaving
    pods = fleet.pod_state == PENDING
    on_node = fleet.pod_node >= 0
    pods[on_node] |= going[fleet.pod_node[on_node]]
    return np.bincount(fleet.pod_service[pods], minlength=len(fleet.services)).astype(np.int64)


def blocked(fleet: Fleet, room: Room) -> NDArray[np.bool_]:
    """The nodes [nodes] with a pod whose disruption budget lets none go."""
    return np.any(room.held[:, fleet.disruptable < 1] > 0, axis=1)


def extend(room: Room, fleet: Fleet, pool: int, nodes: int) -> Room:
    """A room with `nodes` empty nodes of the pool more, after those that are there."""
    services = len(fleet.services)
    allowed = np.array([[fleet.may_run(service, pool)] * nodes for service in range(services)], dtype=bool)
    return Room(
        np.concatenate([room.free, np.tile(fleet.pools[pool].size, (nodes, 1))]),
        np.concatenate([room.held, np.zeros((nodes, services), dtype=np.int64)]),
        room.request,
        np.concatenate([room.allowed, allowed.reshape(services, nodes)], axis=1),
    )
