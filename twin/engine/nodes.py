"""Pools of nodes: boot, idle, drain, fail and repair; billing follows what is booting or up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.state import BOOTING, FAILED, OFF, UP, State
from twin.seeds import child
from twin.types import Cluster


class Nodes:
    """The node slots of all pools.

    `on_up()` is called when a node becomes ready; `on_down(node)` when its replicas must leave it.
    """

    def __init__(
        self,
        env: simpy.Environment,
        cluster: Cluster,
        state: State,
        books: Books,
        seed: int,
        on_up: Callable[[], None],
        on_down: Callable[[int], None],
    ) -> None:
        """Bring up each pool's initial nodes at once."""
        self._env, self._cluster, self._state, self._books = env, cluster, state, books
        self._on_up, self._on_down = on_up, on_down
        # the k-th boot of a pool takes the same time under every controller
        self._boots = [child(seed, f"boot/{pool.name}") for pool in cluster.pools]
        for index, pool in enumerate(cluster.pools):
            state.nodes_wanted[index] = pool.nodes
            for node in self._slots(index, OFF)[: pool.nodes]:
                self._set(int(node), UP)

    def _slots(self, pool: int, node_state: int) -> np.ndarray:
        state = self._state
        return np.flatnonzero((state.node_pool == pool) & (state.node_state == node_state))

    def number(self, pool: int, node_state: int) -> int:
        """How many nodes of the pool are in that state."""
        return int(self._state.node_count[pool, node_state])

    def _set(self, node: int, node_state: int) -> None:
        state = self._state
        self._books.settle()
        pool = int(state.node_pool[node])
        billed = (BOOTING, UP)
        state.billed[pool] += int(node_state in billed) - int(state.node_state[node] in billed)
        state.node_count[pool, state.node_state[node]] -= 1
        state.node_count[pool, node_state] += 1
        state.node_state[node] = node_state
        state.node_epoch[node] += 1
        state.node_free[node] = state.node_size[node] if node_state == UP else -1.0
        state.node_replicas[node] = 0
        if node_state == UP:
            self.idle(node)

    # -------------------------------------------------- growing

    def resize(self, pool: int, size: int) -> None:
        """Boot or drain nodes until the pool has `size` of them (booting and up)."""
        self._state.nodes_wanted[pool] = size
        have = self.number(pool, BOOTING) + self.number(pool, UP)
        if size > have:
            self._boot(pool, size - have)
        else:
            for node in self._least_used(pool)[: have - size]:
                self._switch_off(int(node))

    def grow_for(self, shortages: Sequence[tuple[NDArray[np.float64], int]]) -> None:
        """Boot what the pending replicas of each (request, number) need beyond the nodes already booting.

        The first pools that size themselves and whose nodes can hold a request provide them, as far as they may grow.
        """
        booting = self._state.node_count[:, BOOTING].copy()
        for request, pending in shortages:
            left = pending
            for index, pool in enumerate(self._cluster.pools):
                size = np.array([pool.cpu_cores, pool.memory_gib])
                fit = int(np.floor(np.min(size / np.maximum(request, 1e-9))))
                if pool.provision != "pending" or fit < 1 or left <= 0:
                    continue
                needed = -(-left // fit)
                on_the_way = min(needed, int(booting[index]))  # what boots already serves one shortage only
                booting[index] -= on_the_way
                left -= (on_the_way + self._boot(index, needed - on_the_way)) * fit

    def _boot(self, pool: int, nodes: int) -> int:
        """Start up to that many nodes; returns how many. A failed node keeps its place until it is repaired."""
        spec = self._cluster.pools[pool]
        room = spec.max_nodes - self.number(pool, BOOTING) - self.number(pool, UP)
        chosen = self._slots(pool, OFF)[: max(0, min(nodes, room))]
        for node in chosen:
            self._set(int(node), BOOTING)
            delay_s = spec.boot.draw(self._boots[pool])
            after(self._env, delay_s, self._booted, int(node), int(self._state.node_epoch[node]))
        return len(chosen)

    def _booted(self, node: int, epoch: int) -> None:
        if self._state.node_epoch[node] == epoch:
            self._set(node, UP)
            self._on_up()

    # -------------------------------------------------- shrinking

    def _least_used(self, pool: int) -> np.ndarray:
        booting = self._slots(pool, BOOTING)
        up = self._slots(pool, UP)
        return np.concatenate([booting, up[np.argsort(self._state.node_replicas[up], kind="stable")]])

    def _switch_off(self, node: int) -> None:
        if self._state.node_state[node] == UP:
            self._on_down(node)
        self._set(node, OFF)

    def idle(self, node: int) -> None:
        """The node stands empty from now: give it back later if that lasts (self-sizing pools)."""
        pool = self._cluster.pools[int(self._state.node_pool[node])]
        if pool.provision == "pending":
            self._state.node_epoch[node] += 1  # voids an earlier idle timer
            after(self._env, pool.idle_s, self._give_back, node, int(self._state.node_epoch[node]))

    def _give_back(self, node: int, epoch: int) -> None:
        state = self._state
        pool = int(state.node_pool[node])
        if state.node_epoch[node] != epoch or state.node_replicas[node] > 0:
            return
        if self.number(pool, UP) + self.number(pool, BOOTING) > self._cluster.pools[pool].min_nodes:
            self._set(node, OFF)
        else:
            self.idle(node)

    # -------------------------------------------------- failing

    def fail(self, node: int, repair_s: float) -> None:
        """Take an UP node down for `repair_s` seconds; its replicas are lost."""
        if self._state.node_state[node] != UP:
            return
        self._on_down(node)
        self._set(node, FAILED)
        after(self._env, repair_s, self._repaired, node, int(self._state.node_epoch[node]))

    def fail_some(self, pool: int, count: int, repair_s: float) -> None:
        """Take the `count` fullest UP nodes of the pool down: what hurts most."""
        for node in self._least_used(pool)[::-1][:count]:
            self.fail(int(node), repair_s)

    def _repaired(self, node: int, epoch: int) -> None:
        if self._state.node_epoch[node] != epoch:
            return
        pool = int(self._state.node_pool[node])
        spec = self._cluster.pools[pool]
        have = self.number(pool, BOOTING) + self.number(pool, UP)
        limit = spec.max_nodes if spec.provision == "pending" else int(self._state.nodes_wanted[pool])
        self._set(node, UP if have < limit else OFF)
        self._on_up()
