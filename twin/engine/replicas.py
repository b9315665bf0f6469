"""Replicas of services: wished for, placed on nodes, started, lost with their node, taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import simpy

from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.state import GONE, PENDING, READY, STARTING, State
from twin.seeds import child
from twin.types import Cluster, Placement


class Replicas:
    """The replica slots of all services.

    `on_shortage([(request, pending), ...])` is called when replicas found no node, `on_empty(node)` when a node lost
    its last replica.
    """

    def __init__(
        self,
        env: simpy.Environment,
        cluster: Cluster,
        state: State,
        books: Books,
        placement: Placement,
        seed: int,
        on_shortage: Callable[[Sequence[tuple[np.ndarray, int]]], None],
        on_empty: Callable[[int], None],
    ) -> None:
        """No replica yet; `scale` and `settle_in` bring the first ones."""
        self._env, self._cluster, self._state, self._books = env, cluster, state, books
        self._placement = placement
        self._on_shortage, self._on_empty = on_shortage, on_empty
        self._requests = [np.array([s.cpu_cores, s.memory_gib]) for s in cluster.services]
        # the k-th start of a service takes the same time under every controller
        self._starts = [child(seed, f"start/{s.name}") for s in cluster.services]
        self._born = 0

    def scale(self, service: int, wanted: int) -> None:
        """Wish for `wanted` replicas: missing ones are placed now, surplus ones leave, the least useful first."""
        state = self._state
        state.wanted[service] = wanted
        have = int(state.count[service, PENDING:].sum())
        if wanted > have:
            for slot in np.flatnonzero(state.replica_state == GONE)[: wanted - have]:
                self._appear(int(slot), service)
            self.place_pending()
        elif wanted < have:
            for slot in self._leaving_order(service)[: have - wanted]:
                self._leave(int(slot))

    def settle_in(self) -> None:
        """Make every placed replica ready at once: the run begins in a warm cluster."""
        for slot in np.flatnonzero(self._state.replica_state == STARTING):
            self._set(int(slot), READY)

    def place_pending(self) -> None:
        """Give pending replicas a node, oldest first; ask for nodes for those without."""
        state = self._state
        pending = np.flatnonzero(state.replica_state == PENDING)
        if not len(pending):
            return
        full: set[int] = set()
        for slot in pending[np.argsort(state.replica_born[pending], kind="stable")]:
            service = int(state.replica_service[slot])
            if service in full:
                continue
            node = self._placement.choose(state.node_free, self._requests[service])
            if node < 0:
                full.add(service)
            else:
                self._place(int(slot), node)
        if full:
            self._on_shortage([(self._requests[s], int(state.count[s, PENDING])) for s in sorted(full)])

    def evict(self, node: int) -> None:
        """The node goes: its replicas start again elsewhere."""
        state = self._state
        for slot in np.flatnonzero(state.replica_node == node):
            self._set(int(slot), PENDING)
            state.replica_node[slot] = -1
        # the caller takes the node away before anything is placed
        after(self._env, 0.0, self.place_pending)

    def _leaving_order(self, service: int) -> np.ndarray:
        """Pending before starting before ready, then the youngest: as a ReplicaSet chooses."""
        state = self._state
        mine = np.flatnonzero((state.replica_service == service) & (state.replica_state != GONE))
        return mine[np.lexsort((-state.replica_born[mine], state.replica_state[mine]))]

    def _set(self, slot: int, replica_state: int) -> None:
        state = self._state
        service, old = int(state.replica_service[slot]), int(state.replica_state[slot])
        if READY in (old, replica_state):
            self._books.settle()
        state.count[service, old] -= old != GONE
        state.count[service, replica_state] += replica_state != GONE
        state.replica_state[slot] = replica_state
        state.replica_epoch[slot] += 1

    def _appear(self, slot: int, service: int) -> None:
        self._state.replica_service[slot] = service
        self._state.replica_born[slot] = self._born
        self._born += 1
        self._set(slot, PENDING)

    def _place(self, slot: int, node: int) -> None:
        state = self._state
        service = int(state.replica_service[slot])
        state.replica_node[slot] = node
        state.node_free[node] -= self._requests[service]
        state.node_replicas[node] += 1
        self._set(slot, STARTING)
        delay_s = self._cluster.services[service].start.draw(self._starts[service])
        after(self._env, delay_s, self._started, slot, int(state.replica_epoch[slot]))

    def _started(self, slot: int, epoch: int) -> None:
        if self._state.replica_epoch[slot] == epoch:
            self._set(slot, READY)

    def _leave(self, slot: int) -> None:
        state = self._state
        node = int(state.replica_node[slot])
        self._set(slot, GONE)
        if node < 0:
            return
        state.replica_node[slot] = -1
        state.node_free[node] += self._requests[int(state.replica_service[slot])]
        state.node_replicas[node] -= 1
        if state.node_replicas[node] == 0:
            self._on_empty(node)
        if state.count[:, PENDING].any():
            after(self._env, 0.0, self.place_pending)  # there is room now
