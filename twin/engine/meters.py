"""Telemetry: one row per service and pool every step, exact because the books are settled first."""

from __future__ import annotations

import numpy as np
import polars as pl
import simpy
from numpy.typing import NDArray

from twin.engine.books import Books
from twin.engine.clock import after
from twin.engine.power import curves, drawn_w
from twin.engine.prices import Steps
from twin.engine.reading import meter_pools, meter_services
from twin.engine.serving import ARRIVED, BOOKS, BUSY_S, DROPPED, FAILED, LATE, READY_S, RETRIED, SERVED, WAIT_S, WORK_S
from twin.engine.state import BOOTING, DRAINING, PENDING, READY, STARTING, UP, State
from twin.engine.state import FAILED as BROKEN
from twin.trace import tables
from twin.types import Cluster

_J_KWH = 3.6e6
# what stands behind the books in a row of a service; the replicas' states follow the wanted ones
_EGRESS_GIB, _EGRESS_USD, _QUEUE, _INSIDE, _P50, _P95, _P99, _WANTED = range(BOOKS, BOOKS + 8)


class Meters:
    """Collects the rows of `service_steps` and `pool_steps` while the clock runs."""

    def __init__(
        self,
        env: simpy.Environment,
        cluster: Cluster,
        state: State,
        books: Books,
        step_s: float,
        carbon_g_kwh: list[Steps | float],
    ) -> None:
        """Read the meters every `step_s` simulated seconds from now on."""
        self._env, self._cluster, self._state, self._books, self._step_s = env, cluster, state, books, step_s
        self._carbon = carbon_g_kwh
        self._curves = curves(cluster)
        self._times: list[float] = []
        self._times_end = self._began_s = env.now
        self._services: list[NDArray[np.float64]] = []
        self._energy_kwh: list[NDArray[np.float64]] = []
        self._pools: list[NDArray[np.float64]] = []
        self._seen = np.column_stack([state.books, state.egress_gib, state.egress_usd])
        self._seen_responses = state.responses.copy()
        self._seen_pools = np.column_stack([state.node_books_s, state.cost_usd])
        after(env, step_s, self._read)

    def _read(self) -> None:
        self.read()
        after(self._env, self._step_s, self._read)

    def read(self) -> None:
        """Write down what happened since the last reading; nothing when no time has passed."""
        now, state = self._env.now, self._state
        if now <= self._times_end:
            return
        self._books.settle()
        services = meter_services(
            state.books, state.egress_gib, state.egress_usd, state.queue, state.inside, state.responses,
            state.wanted, state.count, self._seen, self._seen_responses,
        )  # fmt: skip
        pools = meter_pools(
            state.node_books_s, state.cost_usd, state.node_count, state.node_pool, state.node_used, self._seen_pools
        )
        self._services.append(services)
        self._pools.append(pools)
        self._energy_kwh.append(self._drawn_j(services[:, WORK_S], pools[:, 0], now - self._times_end) / _J_KWH)
        self._times.append(now)
        self._times_end = now

    def _drawn_j(self, work_s: NDArray[np.float64], node_s: NDArray[np.float64], dt_s: float) -> NDArray[np.float64]:
        """Joules of each pool in a step in which services worked for `work_s` and nodes were billed for `node_s`.

        Idle power is exact whatever the step; the work is laid on the replicas that are ready at the end of it.
        """
        ready_s = (self._state.count[:, READY] * dt_s).astype(np.float64)
        idle_w = self._curves[:, 0]
        return drawn_w(self._curves, self._state, work_s, ready_s) * dt_s + idle_w * (
            node_s - self._state.billed * dt_s
        )

    def service_steps(self) -> pl.DataFrame:
        """The `service_steps` table so far."""
        names = [s.name for s in self._cluster.services]
        if not self._times or not names:
            return tables.empty("service_steps")
        book = np.concatenate(self._services).T  # [books and what is behind them, steps x services]
        count = book[_WANTED:].astype(np.int64)
        frame = {
            "time_s": np.repeat(self._times, len(names)),
            "service": names * len(self._times),
            "arrived_requests": book[ARRIVED],
            "served_requests": book[SERVED],
            "late_requests": book[LATE],
            "dropped_requests": book[DROPPED],
            "failed_requests": book[FAILED],
            "retried_requests": book[RETRIED],
            "queue_requests": book[_QUEUE],
            "inside_requests": book[_INSIDE],
            "wait_s": book[WAIT_S],
            "latency_p50_s": np.nan_to_num(book[_P50]),
            "latency_p95_s": np.nan_to_num(book[_P95]),
            "latency_p99_s": np.nan_to_num(book[_P99]),
            "busy_replica_s": book[BUSY_S],
            "ready_replica_s": book[READY_S],
            "wanted_replicas": count[0],
            "pending_replicas": count[PENDING],
            "starting_replicas": count[STARTING],
            "ready_replicas": count[READY],
            "egress_gib": book[_EGRESS_GIB],
            "egress_usd": book[_EGRESS_USD],
        }
        return tables.conform(pl.DataFrame(frame), "service_steps", "telemetry")

    def pool_steps(self) -> pl.DataFrame:
        """The `pool_steps` table so far."""
        pools = self._cluster.pools
        if not self._times or not pools:
            return tables.empty("pool_steps")
        flat = np.concatenate(self._pools)  # [steps x pools, node_s, USD, 5 states, used cores]
        energy_kwh = np.stack(self._energy_kwh)  # [steps, pools]
        states = flat[:, 2:7].astype(np.int64)
        frame = {
            "time_s": np.repeat(self._times, len(pools)),
            "pool": [pool.name for pool in pools] * len(self._times),
            "node_s": flat[:, 0],
            "cost_usd": flat[:, 1],
            "energy_kwh": energy_kwh.ravel(),
            "carbon_g": (energy_kwh * self._intensity()).ravel(),
            "ready_nodes": states[:, UP],
            "booting_nodes": states[:, BOOTING],
            "failed_nodes": states[:, BROKEN],
            "draining_nodes": states[:, DRAINING],
            "used_cpu_cores": flat[:, 7],
        }
        return tables.conform(pl.DataFrame(frame), "pool_steps", "telemetry")

    def _intensity(self) -> NDArray[np.float64]:
        """The mean carbon intensity of each pool's power in each step [steps, pools] in g/kWh."""
        steps = np.array([self._began_s, *self._times])
        out = np.empty((len(self._times), len(self._carbon)))
        for pool, each in enumerate(self._carbon):
            out[:, pool] = each.means(steps) if isinstance(each, Steps) else each
        return out
