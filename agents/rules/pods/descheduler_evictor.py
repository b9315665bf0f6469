"""Who may be evicted, and how many: the evictor that all policies of the descheduler share.

Source: sigs.k8s.io/descheduler 0.3x (`pkg/descheduler/evictions`, `plugins/defaultevictor`, `descheduler/node`).
Limits count over a whole cycle, whatever the policy. With `node_fit` a replica is left alone unless another
schedulable node that it may run on has room for what it asks for, as things stand before the cycle. Disruption
budgets come last: the cluster refuses, and the policy goes on with the next replica. Replicas have no priorities
here, so those of a node are taken in their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.fleet import DRAINING, PENDING, UP, Fleet

RESOURCES = ("cpu", "memory", "pods")
"""The last axis of an `Evictor`'s amounts: whole millicores, bytes, pods."""

_UNITS = np.array([1000.0, 2.0**30])  # of the fleet's cores and GiB


@dataclass(frozen=True, slots=True)
class Rules:
    """What no policy may do; None = no limit. A service stands for a namespace and an owner alike."""

    node_fit: bool = False
    exclude: tuple[str, ...] = ()
    min_replicas: int = 0
    min_pod_age_s: float = 0.0
    max_per_node: int | None = None
    max_per_service: int | None = None
    max_total: int | None = None
    pods_per_node: int = 110

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))  # Hydra hands over its own list
        limits = (self.max_per_node, self.max_per_service, self.max_total)
        if self.pods_per_node < 1 or any(limit is not None and limit < 0 for limit in limits):
            raise UsageError(
                f"eviction rules: pods_per_node={self.pods_per_node} must be at least 1, "
                f"max_per_node, max_per_service and max_total={limits} at least 0 where given"
            )


DEFAULT = Rules()


@dataclass(frozen=True, slots=True)
class Eviction:
    """One replica to be started anew elsewhere, by its place in the fleet, and the sentence that says why."""

    pod: int
    reason: str


class Evictor:
    """The fleet of one cycle in whole amounts, and what has been evicted from it."""

    def __init__(self, fleet: Fleet, rules: Rules, earlier: Iterable[Eviction] = ()) -> None:
        """Look at `fleet`; `earlier` evictions of the same cycle count against the limits."""
        self.fleet = fleet
        self.rules = rules
        self.evictions: list[Eviction] = []
        self.ready = [int(node) for node in np.flatnonzero(np.isin(fleet.node_state, (UP, DRAINING)))]
        self.request = _with_pods(fleet.request, 1)
        self.capacity = _with_pods(fleet.node_size, rules.pods_per_node)
        self.used = np.zeros_like(self.capacity)
        placed = np.flatnonzero(fleet.pod_node >= 0)
        np.add.at(self.used, fleet.pod_node[placed], self.request[fleet.pod_service[placed]])
        self._replicas = np.bincount(fleet.pod_service, minlength=len(fleet.services))
        self._gone: set[int] = set()
        self._nodes: Counter[int] = Counter()
        self._services: Counter[int] = Counter()
        for eviction in earlier:
            self._count(eviction.pod)

    @property
    def percent(self) -> NDArray[np.float64]:
        """What is asked of each node, in per cent of what it has [nodes, RESOURCES]."""
        return 100.0 * self.used / self.capacity

    def schedulable(self, node: int) -> bool:
        """Does the node take new replicas?"""
        return bool(self.fleet.node_state[node] == UP)

    def suits(self, service: int, node: int) -> bool:
        """May the service's replicas run on the node, room or not?"""
        return self.fleet.may_run(service, int(self.fleet.node_pool[node]))

    def evictable(self, pod: int) -> bool:
        """Is the replica placed, and not protected by the rules?"""
        fleet, service = self.fleet, int(self.fleet.pod_service[pod])
        if pod in self._gone or fleet.pod_node[pod] < 0 or fleet.pod_state[pod] <= PENDING:
            return False
        if fleet.services[service].name in self.rules.exclude:
            return False
        if self.rules.min_replicas > 1 and self._replicas[service] < self.rules.min_replicas:
            return False
        return bool(fleet.time_s - fleet.pod_since_s[pod] >= self.rules.min_pod_age_s)

    def fits(self, pod: int, nodes: Iterable[int] | None = None) -> bool:
        """Has another of the nodes (all, if none are given) room for the replica?"""
        service, home = int(self.fleet.pod_service[pod]), self.fleet.pod_node[pod]
        return any(
            node != home
            and self.schedulable(node)
            and self.suits(service, node)
            and bool((self.request[service] <= self.capacity[node] - self.used[node]).all())
            for node in (range(len(self.fleet.node_name)) if nodes is None else nodes)
        )

    def movable(self, pod: int) -> bool:
        """Has it somewhere to go, if the rules ask for that?"""
        return not self.rules.node_fit or self.fits(pod)

    def evict(self, pod: int, reason: str) -> Literal["evicted", "refused", "node limit", "total limit"]:
        """Evict the replica, or say what stands against it."""
        rules, service = self.rules, int(self.fleet.pod_service[pod])
        if _reached(rules.max_total, self._nodes.total()):
            return "total limit"
        if _reached(rules.max_per_node, self._nodes[int(self.fleet.pod_node[pod])]):
            return "node limit"
        if _reached(rules.max_per_service, self._services[service]):
            return "refused"
        if self._services[service] >= self.fleet.disruptable[service]:
            return "refused"
        self._count(pod)
        self.evictions.append(Eviction(pod, reason))
        return "evicted"

    def _count(self, pod: int) -> None:
        self._gone.add(pod)
        self._nodes[int(self.fleet.pod_node[pod])] += 1
        self._services[int(self.fleet.pod_service[pod])] += 1


def _with_pods(amounts: NDArray[np.float64], pods: int) -> NDArray[np.int64]:
    whole = np.rint(amounts * _UNITS).astype(np.int64)
    return np.column_stack((whole, np.full(len(whole), pods, dtype=np.int64)))


def _reached(limit: int | None, count: int) -> bool:
    return limit is not None and count >= limit
