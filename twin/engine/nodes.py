"""Pools of nodes: boot, idle, drain, be interrupted, fail and be repaired; billing follows what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.state import BOOTING, DRAINING, FAILED, OFF, PENDING, UP, State
from twin.seeds import child
from twin.types import Cluster

LOOK_S = 10.0  # between two looks at whether a pool has become larger than its minimum
DRAIN_S = 600.0  # what is left on a draining node then is stopped, as the Cluster Autoscaler does
_BILLED = (BOOTING, UP, DRAINING)

Shortage = tuple[int, NDArray[np.float64], int]
"""(service, what one replica asks for, how many found no room)"""


class Nodes:
    """The node slots of all pools.

    `on_up()` is called when a node can take replicas; `on_down(node, killed)` when its replicas must leave it at once
    (`killed`: without warning); `on_drain(node)` when they shall leave as their budgets allow.
    """

    def __init__(
        self,
        env: simpy.Environment,
        cluster: Cluster,
        state: State,
        books: Books,
        seed: int,
        *,
        on_up: Callable[[], None],
        on_down: Callable[[int, bool], None],
        on_drain: Callable[[int], None],
    ) -> None:
        """Bring up each pool's initial nodes at once."""
        self._env, self._cluster, self._state, self._books = env, cluster, state, books
        self._on_up, self._on_down, self._on_drain = on_up, on_down, on_drain
        # the k-th boot of a pool takes the same time under every controller
        self._boots = [child(seed, f"boot/{pool.name}") for pool in cluster.pools]
        names = [pool.name for pool in cluster.pools]
        self._quotas = [(q.cpu_cores, [names.index(name) for name in q.pools]) for q in cluster.quotas]
        self._cores = np.array([pool.cpu_cores for pool in cluster.pools])
        self._sharing = [_sharing(index, self._quotas) for index in range(len(names))]
        self._allowed = [
            [i for i, name in enumerate(names) if not service.pools or name in service.pools]
            for service in cluster.services
        ]
        for index, pool in enumerate(cluster.pools):
            state.nodes_wanted[index] = pool.nodes
            for node in self.slots(index, OFF)[: pool.nodes]:
                self._set(int(node), UP)

    def slots(self, pool: int, node_state: int) -> NDArray[np.intp]:
        """The pool's slots in that state, in order."""
        state = self._state
        return np.flatnonzero((state.node_pool == pool) & (state.node_state == node_state))

    def fullest(self, pool: int) -> NDArray[np.intp]:
        """The pool's ready nodes, the fullest first."""
        up = self.slots(pool, UP)
        return up[np.argsort(self._state.node_replicas[up], kind="stable")][::-1]

    def here(self, pool: int) -> int:
        """How many nodes the pool has, booting and draining ones included."""
        count = self._state.node_count[pool]
        return int(count[BOOTING] + count[UP] + count[DRAINING])

    def staying(self, pool: int) -> int:
        """How many nodes the pool has or will soon have."""
        count = self._state.node_count[pool]
        return int(count[BOOTING] + count[UP])

    def _set(self, node: int, node_state: int) -> None:
        state = self._state
        self._books.settle()
        pool, before = int(state.node_pool[node]), int(state.node_state[node])
        state.billed[pool] += int(node_state in _BILLED) - int(before in _BILLED)
        state.node_count[pool, before] -= 1
        state.node_count[pool, node_state] += 1
        state.node_state[node] = node_state
        state.node_since_s[node] = self._env.now
        state.node_epoch[node] += 1
        if node_state not in (UP, DRAINING):  # its next life begins empty and whole
            state.node_life[node] += 1
            state.node_used[node] = 0.0
            state.node_replicas[node] = 0
            state.node_closed[node] = 0
            state.node_speed[node] = 1.0
        state.reopen(node)
        if node_state == UP:
            self.idle(node)
        elif node_state in (OFF, FAILED) and before != node_state:
            after(self._env, 0.0, self._freed, pool)  # whoever gives several back has done so before

    def _freed(self, pool: int) -> None:
        """There may be room now for what the pool's bounds, or a quota that it shares, refused."""
        for other in self._sharing[pool]:
            self._refill(other)
        if self._state.count[:, PENDING].any():
            self._on_up()

    # -------------------------------------------------- growing

    def resize(self, pool: int, size: int) -> None:
        """Boot or drain nodes until the pool has `size` of them (booting and up)."""
        self._state.nodes_wanted[pool] = size
        surplus = self.staying(pool) - size
        if surplus < 0:
            self._boot(pool, -surplus)
        elif surplus > 0:
            for node in np.concatenate([self.slots(pool, BOOTING), self.fullest(pool)[::-1]])[:surplus]:
                self.drain(int(node))

    def grow_for(self, shortages: Sequence[Shortage]) -> None:
        """Boot what the pending replicas need beyond the nodes already booting.

        The first pools that size themselves, that the service may use and whose nodes can be reached and can hold a
        replica provide them, as far as they may grow.
        """
        booting = self._state.node_count[:, BOOTING].copy()
        for service, request, pending in shortages:
            left = pending
            for index in self._allowed[service]:
                pool = self._cluster.pools[index]
                fit = int(np.floor(np.min(pool.size / np.maximum(request, 1e-9))))
                if pool.provision != "pending" or fit < 1 or left <= 0 or self._state.cut[index]:
                    continue
                needed = -(-left // fit)
                on_the_way = min(needed, int(booting[index]))  # what boots already serves one shortage only
                booting[index] -= on_the_way
                left -= (on_the_way + self._boot(index, needed - on_the_way)) * fit

    def _boot(self, pool: int, nodes: int) -> int:
        """Start up to that many nodes; returns how many. A failed node keeps its place until it is repaired."""
        spec = self._cluster.pools[pool]
        chosen = self.slots(pool, OFF)[: max(0, min(nodes, self._room(pool)))]
        for node in chosen:
            self._set(int(node), BOOTING)
            delay_s = spec.boot.draw(self._boots[pool])
            after(self._env, delay_s, self._booted, int(node), int(self._state.node_epoch[node]))
        return len(chosen)

    def _room(self, pool: int) -> int:
        """How many nodes more the pool's bounds, its zone, its market and its quotas allow."""
        if self._state.down[pool]:
            return 0
        most = min(float(self._cluster.pools[pool].max_nodes), self._state.most_nodes[pool])
        room = int(most) - self.here(pool)
        for cores, pools in self._quotas:
            if pool in pools:
                held = sum(self.here(other) * self._cores[other] for other in pools)
                room = min(room, int((cores - held + 1e-9) // self._cores[pool]))
        return room

    def _booted(self, node: int, epoch: int) -> None:
        if self._state.node_epoch[node] == epoch:
            self._set(node, UP)
            self._on_up()

    # -------------------------------------------------- shrinking

    def drain(self, node: int, deadline_s: float = DRAIN_S) -> None:
        """Take nothing new on the node, let its replicas leave, then give it back, after `deadline_s` at the latest."""
        if self._state.node_state[node] in (BOOTING, FAILED):
            self._set(node, OFF)
        elif self._state.node_state[node] == UP:
            self._set(node, DRAINING)
            after(self._env, deadline_s, self._leave_it, node, int(self._state.node_epoch[node]))
            if self._state.node_replicas[node] == 0:
                self._set(node, OFF)
            else:
                self._on_drain(node)

    def _leave_it(self, node: int, epoch: int) -> None:
        if self._state.node_epoch[node] == epoch:
            self._on_down(node, False)
            self._set(node, OFF)

    def emptied(self, node: int) -> None:
        """The last replica left the node: give back a draining one, wait with another."""
        if self._state.node_state[node] == DRAINING:
            self._set(node, OFF)
        else:
            self.idle(node)

    def idle(self, node: int, at_least_s: float = 0.0) -> None:
        """The node stands empty from now: give it back later if that lasts (self-sizing pools)."""
        pool = self._cluster.pools[int(self._state.node_pool[node])]
        if pool.provision == "pending" and self._state.node_state[node] == UP:
            self._state.node_epoch[node] += 1  # voids an earlier idle timer
            wait_s = max(pool.idle_s, at_least_s)
            after(self._env, wait_s, self._give_back, node, int(self._state.node_epoch[node]))

    def _give_back(self, node: int, epoch: int) -> None:
        state = self._state
        pool = int(state.node_pool[node])
        if state.node_epoch[node] != epoch or state.node_replicas[node] > 0:
            return
        if self.staying(pool) > self._cluster.pools[pool].min_nodes:
            self._set(node, OFF)
        else:
            self.idle(node, LOOK_S)

    # -------------------------------------------------- being taken away

    def interrupt(self, node: int) -> bool:
        """The provider takes an UP node back after the pool's notice; did it? A manual pool asks for another one."""
        if self._state.node_state[node] != UP:
            return False
        pool = int(self._state.node_pool[node])
        self._state.interrupted[pool] += 1
        self.drain(node, self._cluster.pools[pool].notice_s)
        self._refill(pool)
        return True

    def limit(self, pool: int, most: float) -> None:
        """From now on the pool gets no node beyond `most`; what is there stays."""
        self._state.most_nodes[pool] = most
        self.ask_again(pool)

    def ask_again(self, pool: int) -> None:
        """Something that kept the pool small is over: boot what is still wanted."""
        self._refill(pool)
        self._on_up()

    def _refill(self, pool: int) -> None:
        """Boot what a manual pool lacks; its failed nodes will come back by themselves."""
        if self._cluster.pools[pool].provision == "manual":
            coming = self.staying(pool) + int(self._state.node_count[pool, FAILED])
            self._boot(pool, int(self._state.nodes_wanted[pool]) - coming)

    def fail(self, node: int, repair_s: float, *, booting: bool = False) -> bool:
        """Take a node down for `repair_s` seconds, its replicas being lost; did it fail?

        Nodes that are UP or draining can fail, and `booting` ones where that is said.
        """
        if self._state.node_state[node] not in ((BOOTING, UP, DRAINING) if booting else (UP, DRAINING)):
            return False
        self._on_down(node, True)
        self._set(node, FAILED)
        after(self._env, repair_s, self._repaired, node, int(self._state.node_epoch[node]))
        return True

    def _repaired(self, node: int, epoch: int) -> None:
        if self._state.node_epoch[node] != epoch:
            return
        pool = int(self._state.node_pool[node])
        spec = self._cluster.pools[pool]
        limit = spec.max_nodes if spec.provision == "pending" else int(self._state.nodes_wanted[pool])
        self._set(node, UP if self.staying(pool) < limit and self._room(pool) > 0 else OFF)
        after(self._env, 0.0, self._on_up)  # whoever is repaired with it is up by then, and nothing boots in its place

    # -------------------------------------------------- being ill

    def close(self, node: int) -> None:
        """The node takes nothing new until it is opened as often as it was closed, or its next life begins."""
        self._state.node_closed[node] += 1
        self._state.reopen(node)

    def open(self, node: int, life: int) -> None:
        """Undo one closing in that life of the node; in a later one it has no effect."""
        if self._state.node_life[node] == life:
            self._state.node_closed[node] -= 1
            self._state.reopen(node)
            self._on_up()

    def cut(self, pool: int, reasons: int) -> None:
        """The pool's nodes, new ones included, cannot be reached for that many reasons."""
        state = self._state
        state.cut[pool] = reasons
        for node in np.flatnonzero(state.node_pool == pool):
            state.reopen(int(node))
        self._on_up()


def _sharing(pool: int, quotas: Sequence[tuple[float, Sequence[int]]]) -> list[int]:
    """The pool and those that share a quota with it, in order."""
    return sorted({pool}.union(*(pools for _, pools in quotas if pool in pools)))
