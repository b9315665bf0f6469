"""Replicas of services: wished for, placed on nodes, started, moved, lost with their node, taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.nodes import Shortage
from twin.engine.regions import Ways
from twin.engine.state import DRAINING, GONE, PENDING, READY, STARTING, UP, State
from twin.seeds import child
from twin.types import Cluster, Placement

_HAIR = 1e-9


class Replicas:
    """The replica slots of all services.

    `on_shortage([(service, request, pending), ...])` is called when replicas found no node, `on_empty(node)` when a
    node lost its last replica, `on_ready(service)` when one more is ready.
    """

    def __init__(
        self,
        env: simpy.Environment,
        cluster: Cluster,
        state: State,
        books: Books,
        placement: Placement,
        seed: int,
        *,
        on_shortage: Callable[[Sequence[Shortage]], None],
        on_empty: Callable[[int], None],
        on_ready: Callable[[int], None],
    ) -> None:
        """No replica yet; `scale` and `settle_in` bring the first ones."""
        self._env, self._cluster, self._state, self._books = env, cluster, state, books
        self._placement = placement
        self._on_shortage, self._on_empty, self._on_ready = on_shortage, on_empty, on_ready
        self._ways = Ways(cluster, state)
        self._elsewhere = [_outside(service.pools, cluster, state) for service in cluster.services]
        self._units = np.zeros(len(cluster.services))  # ready replicas, each with the speed of its node and its CPU
        # the k-th start of a service takes the same time under every controller
        self._starts = [child(seed, f"start/{s.name}") for s in cluster.services]
        self._born = 0
        self._unheard: list[tuple[int, int]] = []  # (slot, epoch) of what is ready, or was, but cannot be reached

    # -------------------------------------------------- wishes

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
            node = self._placement.choose(self._open_to(service), state.request[service])
            if node < 0:
                full.add(service)
            else:
                self._place(int(slot), node)
        if full:
            self._on_shortage([(s, state.request[s], int(state.count[s, PENDING])) for s in sorted(full)])

    def _open_to(self, service: int) -> NDArray[np.float64]:
        """What the nodes that the service may use have left [nodes, resources]."""
        outside = self._elsewhere[service]
        return self._state.node_free if outside is None else np.where(outside[:, None], -1.0, self._state.node_free)

    def _leaving_order(self, service: int) -> NDArray[np.intp]:
        """Pending before starting before ready, then the youngest: as a ReplicaSet chooses."""
        state = self._state
        mine = np.flatnonzero((state.replica_service == service) & (state.replica_state != GONE))
        return mine[np.lexsort((-state.replica_born[mine], state.replica_state[mine]))]

    # -------------------------------------------------- moves

    def on(self, node: int) -> NDArray[np.intp]:
        """The slots of the replicas that the node holds."""
        return np.flatnonzero(self._state.replica_node == node)

    def clear(self, node: int, killed: bool) -> None:
        """The node goes at once: its replicas start again elsewhere; `killed`, they lose what they were serving."""
        if killed:
            self._lose(node)
        for slot in self.on(node):
            self.move(int(slot))

    def move(self, slot: int) -> None:
        """Take the replica off its node and wish for another one in its place."""
        state = self._state
        node, service = int(state.replica_node[slot]), int(state.replica_service[slot])
        self._set(slot, PENDING)
        self._vacate(slot, node)
        self._appear(slot, service)
        # whoever moves several, or takes the node away, has done so before anything is placed
        after(self._env, 0.0, self.place_pending)

    def restart(self, slot: int) -> None:
        """Start the replica anew where it is, as a kubelet does after a crash."""
        if self._state.replica_state[slot] == READY:
            service = int(self._state.replica_service[slot])
            self._books.lose(service, 1.0 / max(int(self._state.count[service, READY]), 1))
        self._set(slot, STARTING)
        self._start(slot)

    def suspend(self, node: int) -> None:
        """Nothing on the node can be reached any more: its ready replicas count as starting."""
        self._lose(node)
        for slot in self.on(node):
            if self._state.replica_state[slot] == READY:
                self._set(int(slot), STARTING)
                self._unheard.append((int(slot), int(self._state.replica_epoch[slot])))

    def resume(self) -> None:
        """What can be reached again, is still there and has started meanwhile, is ready."""
        unheard, self._unheard = self._unheard, []
        for slot, epoch in unheard:
            self._started(slot, epoch)

    def _lose(self, node: int) -> None:
        """What the ready replicas of the node are serving fails."""
        state = self._state
        slots = self.on(node)
        ready = slots[state.replica_state[slots] == READY]
        for service, lost in enumerate(np.bincount(state.replica_service[ready], minlength=len(state.wanted))):
            if lost:
                self._books.lose(service, float(lost / state.count[service, READY]))

    # -------------------------------------------------- speeds

    def pace_node(self, node: int, speed: float) -> None:
        """From now on what runs on the node runs at `speed`."""
        state = self._state
        self._books.settle()
        ready = [int(slot) for slot in self.on(node) if state.replica_state[slot] == READY]
        for slot in ready:
            self._count(slot, -1)
        state.node_speed[node] = speed
        for slot in ready:
            self._count(slot, +1)

    def pace_service(self, service: int, speed: float) -> None:
        """From now on each replica of the service runs at `speed`."""
        self._books.settle()
        self._state.speed[service] = speed
        self._state.capacity[service] = self._units[service] * speed

    def err(self, service: int, share: float) -> None:
        """From now on a `share` of the service's answers are errors."""
        self._books.settle()
        self._state.error_share[service] = share

    def _count(self, slot: int, sign: int) -> None:
        """A ready replica more or less, with its speed and its way to the users."""
        state = self._state
        service, node = int(state.replica_service[slot]), int(state.replica_node[slot])
        cores = min(1.0, state.replica_request[slot, 0] / max(state.cores[service], _HAIR))
        self._units[service] += sign * cores * state.node_speed[node]
        if state.count[service, READY] == 0:
            self._units[service] = 0.0  # nothing is left of rounding
        state.capacity[service] = self._units[service] * state.speed[service]
        self._ways.count(service, int(state.node_pool[node]), sign)

    # -------------------------------------------------- lives

    def _set(self, slot: int, replica_state: int) -> None:
        state = self._state
        service, old = int(state.replica_service[slot]), int(state.replica_state[slot])
        if READY in (old, replica_state):
            self._books.settle()
        state.count[service, old] -= old != GONE
        state.count[service, replica_state] += replica_state != GONE
        state.replica_state[slot] = replica_state
        state.replica_since_s[slot] = self._env.now
        state.replica_epoch[slot] += 1
        if (old == READY) != (replica_state == READY):
            self._count(slot, 1 if replica_state == READY else -1)

    def _appear(self, slot: int, service: int) -> None:
        self._state.replica_service[slot] = service
        self._state.replica_born[slot] = self._born
        self._born += 1
        if self._state.replica_state[slot] != PENDING:
            self._set(slot, PENDING)

    def _place(self, slot: int, node: int) -> None:
        state = self._state
        state.replica_node[slot] = node
        state.replica_request[slot] = state.request[state.replica_service[slot]]
        state.node_used[node] += state.replica_request[slot]
        state.node_replicas[node] += 1
        state.reopen(node)
        self._set(slot, STARTING)
        self._start(slot)

    def _start(self, slot: int) -> None:
        service = int(self._state.replica_service[slot])
        delay_s = self._cluster.services[service].start.draw(self._starts[service])
        after(self._env, delay_s, self._started, slot, int(self._state.replica_epoch[slot]))

    def _started(self, slot: int, epoch: int) -> None:
        state = self._state
        if state.replica_epoch[slot] != epoch:
            return
        if state.cut[state.node_pool[state.replica_node[slot]]]:
            self._unheard.append((slot, epoch))
        else:
            self._set(slot, READY)
            self._on_ready(int(state.replica_service[slot]))

    def _leave(self, slot: int) -> None:
        node = int(self._state.replica_node[slot])
        self._set(slot, GONE)
        self._vacate(slot, node)
        if self._state.count[:, PENDING].any():
            after(self._env, 0.0, self.place_pending)  # there may be room now

    def _vacate(self, slot: int, node: int) -> None:
        state = self._state
        if node < 0:
            return
        state.replica_node[slot] = -1
        state.node_used[node] -= state.replica_request[slot]
        state.node_replicas[node] -= 1
        if state.node_replicas[node] == 0:
            state.node_used[node] = 0.0  # nothing is left of rounding
        state.reopen(node)
        if state.node_replicas[node] == 0 and state.node_state[node] in (UP, DRAINING):
            self._on_empty(node)


def _outside(pools: Sequence[str], cluster: Cluster, state: State) -> NDArray[np.bool_] | None:
    """Which nodes the service may not use [nodes]; None when it may use all."""
    if not pools:
        return None
    allowed = np.array([pool.name in pools for pool in cluster.pools])
    return ~allowed[state.node_pool]
