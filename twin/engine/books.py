"""The books: requests, node-seconds and money, settled exactly before anything changes."""

from __future__ import annotations

import numba
import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.serving import SERVED, Serving
from twin.engine.state import State
from twin.types import Cluster

_HOUR_S = 3600.0
_KIB_GIB = 2.0**20


class Books:
    """Keeps the cumulative arrays of the state true up to now.

    Whoever changes a rate, a capacity, a number of billed nodes or a price calls `settle()` first.
    """

    def __init__(self, env: simpy.Environment, cluster: Cluster, state: State, serving: Serving) -> None:
        """Start at the environment's time with empty books."""
        self._env, self._state, self._serving = env, state, serving
        self._settled_s = env.now
        self._reserved = np.array([pool.reserved for pool in cluster.pools], dtype=np.int64)
        self._committed_usd_h = np.array([p.reserved * p.reserved_price_usd_h for p in cluster.pools], dtype=np.float64)
        self._answer_gib = np.array([s.answer_kib for s in cluster.services], dtype=np.float64) / _KIB_GIB
        self._sends = bool(self._answer_gib.any())

    def settle(self) -> None:
        """Integrate from the last settlement to now."""
        now = self._env.now
        if now <= self._settled_s:
            return
        state = self._state
        served = state.books[:, SERVED].copy() if self._sends else None
        self._serving.serve(self._settled_s, now)
        if served is not None:
            self._send(state.books[:, SERVED] - served)
        _bill(
            now - self._settled_s,
            state.billed,
            self._reserved,
            self._committed_usd_h,
            state.price_usd_h,
            state.node_books_s,
            state.cost_usd,
        )
        self._settled_s = now

    def lose(self, service: int, share: float) -> None:
        """A share of the service's ready replicas dies now."""
        self.settle()
        self._serving.lose(service, share)

    def _send(self, answers: NDArray[np.float64]) -> None:
        sent_gib = answers * self._answer_gib
        self._state.egress_gib += sent_gib
        self._state.egress_usd += sent_gib * self._state.egress_usd_gib


@numba.njit(cache=True)
def _bill(
    dt_s: float,
    billed: NDArray[np.int64],
    reserved: NDArray[np.int64],
    committed_usd_h: NDArray[np.float64],
    price_usd_h: NDArray[np.float64],
    node_books_s: NDArray[np.float64],
    cost_usd: NDArray[np.float64],
) -> None:
    """What was reserved is paid in any case; nodes beyond it at the price of now."""
    for p in range(billed.shape[0]):
        beyond = max(billed[p] - reserved[p], 0)
        node_books_s[p] += billed[p] * dt_s
        cost_usd[p] += (committed_usd_h[p] + beyond * price_usd_h[p]) * dt_s / _HOUR_S
