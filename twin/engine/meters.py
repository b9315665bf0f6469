"""Telemetry: one row per service and pool every step, exact because the books are settled first."""

from __future__ import annotations

import numpy as np
import polars as pl
import simpy

from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.queueing import ARRIVED, BUSY_S, DROPPED, LATE, LATENCY, READY_S, SERVED
from twin.engine.state import BOOTING, FAILED, PENDING, READY, STARTING, UP, State
from twin.trace import tables
from twin.types import Cluster


class Meters:
    """Collects the rows of `service_steps` and `pool_steps` while the clock runs."""

    def __init__(self, env: simpy.Environment, cluster: Cluster, state: State, books: Books, step_s: float) -> None:
        """Read the meters every `step_s` simulated seconds from now on."""
        self._env, self._cluster, self._state, self._books, self._step_s = env, cluster, state, books, step_s
        self._last = state.books.copy()
        self._last_nodes_s = state.node_books_s.copy()
        self._times: list[float] = []
        self._times_end = env.now
        self._services: list[np.ndarray] = []
        self._pools: list[np.ndarray] = []
        after(env, step_s, self._read)

    def _read(self) -> None:
        self.read()
        after(self._env, self._step_s, self._read)

    def read(self) -> None:
        """Write down what happened since the last reading; nothing when no time has passed."""
        if self._env.now <= self._times_end:
            return
        state = self._state
        self._books.settle()
        step = state.books - self._last
        self._last = state.books.copy()
        self._times.append(self._env.now)
        self._times_end = self._env.now
        self._services.append(np.column_stack([step, state.queue, state.wanted, state.count]))
        node_s = state.node_books_s - self._last_nodes_s
        self._last_nodes_s = state.node_books_s.copy()
        pools = len(self._cluster.pools)
        used = np.where(state.node_free[:, 0] >= 0, state.node_size[:, 0] - state.node_free[:, 0], 0.0)
        used_cores = np.bincount(state.node_pool, weights=used, minlength=pools)
        self._pools.append(np.column_stack([node_s, state.node_count, used_cores]))

    def service_steps(self) -> pl.DataFrame:
        """The `service_steps` table so far."""
        names = [s.name for s in self._cluster.services]
        if not self._times:
            return tables.empty("service_steps")
        rows = np.stack(self._services)  # [steps, services, 7 books, queue, wanted, 4 counts]
        flat = rows.reshape(-1, rows.shape[2])
        book = {i: flat[:, i] for i in range(9)}
        count = flat[:, 9:].astype(np.int64)
        arrived = book[ARRIVED]
        frame = {
            "time_s": np.repeat(self._times, len(names)),
            "service": names * len(self._times),
            "arrived_requests": arrived,
            "served_requests": book[SERVED],
            "late_requests": book[LATE],
            "dropped_requests": book[DROPPED],
            "queue_requests": book[7],
            "latency_p95_s": np.divide(book[LATENCY], arrived, out=np.zeros_like(arrived), where=arrived > 0),
            "busy_replica_s": book[BUSY_S],
            "ready_replica_s": book[READY_S],
            "wanted_replicas": book[8].astype(np.int64),
            "ready_replicas": count[:, READY],
            "starting_replicas": count[:, STARTING],
            "pending_replicas": count[:, PENDING],
        }
        return tables.conform(pl.DataFrame(frame), "service_steps", "telemetry")

    def pool_steps(self) -> pl.DataFrame:
        """The `pool_steps` table so far."""
        pools = self._cluster.pools
        if not self._times:
            return tables.empty("pool_steps")
        rows = np.stack(self._pools)  # [steps, pools, node_s, 4 states, used cores]
        flat = rows.reshape(-1, rows.shape[2])
        price = np.tile([pool.price_usd_h for pool in pools], len(self._times))
        states = flat[:, 1:5].astype(np.int64)
        frame = {
            "time_s": np.repeat(self._times, len(pools)),
            "pool": [pool.name for pool in pools] * len(self._times),
            "node_s": flat[:, 0],
            "cost_usd": flat[:, 0] / 3600.0 * price,
            "ready_nodes": states[:, UP],
            "booting_nodes": states[:, BOOTING],
            "failed_nodes": states[:, FAILED],
            "used_cpu_cores": flat[:, 5],
        }
        return tables.conform(pl.DataFrame(frame), "pool_steps", "telemetry")
