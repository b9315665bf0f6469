"""State -> metrics, compiled: the columns of `twin.observe.SERVICE_METRICS` and `POOL_METRICS` in their order."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from twin.engine.queueing import ARRIVED, BUSY_S, DROPPED, LATE, LATENCY, READY_S
from twin.engine.state import BOOTING, FAILED, PENDING, READY, STARTING, UP


@numba.njit(cache=True)
def read_services(
    out: NDArray[np.float64],
    books: NDArray[np.float64],
    seen: NDArray[np.float64],
    dt_s: float,
    quarter: NDArray[np.float64],
    quarter_s: float,
    wanted: NDArray[np.int64],
    count: NDArray[np.int64],
    queue: NDArray[np.float64],
    blind: NDArray[np.bool_],
) -> None:
    """Fill `out` [services, SERVICE_METRICS]: averages since `seen`, counts as of now, NaN for what is unknown."""
    for s in range(out.shape[0]):
        arrived = books[s, ARRIVED] - seen[s, ARRIVED]
        ready_s = books[s, READY_S] - seen[s, READY_S]
        known = not blind[s]
        out[s, 0] = arrived / dt_s if known and dt_s > 0.0 else np.nan
        out[s, 1] = (books[s, ARRIVED] - quarter[s]) / quarter_s if known and quarter_s > 0.0 else np.nan
        out[s, 2] = (books[s, BUSY_S] - seen[s, BUSY_S]) / ready_s if known and ready_s > 0.0 else np.nan
        out[s, 3] = wanted[s]
        out[s, 4] = count[s, READY]
        out[s, 5] = count[s, STARTING]
        out[s, 6] = count[s, PENDING]
        out[s, 7] = 0.0 if known else count[s, READY]
        out[s, 8] = queue[s] if known else np.nan
        bad = books[s, LATE] - seen[s, LATE] + books[s, DROPPED] - seen[s, DROPPED]
        out[s, 9] = (books[s, LATENCY] - seen[s, LATENCY]) / arrived if known and arrived > 0.0 else np.nan
        out[s, 10] = bad / arrived if known and arrived > 0.0 else np.nan


@numba.njit(cache=True)
def read_pools(
    out: NDArray[np.float64],
    count: NDArray[np.int64],
    wanted: NDArray[np.int64],
    node_pool: NDArray[np.int64],
    node_free: NDArray[np.float64],
) -> None:
    """Fill `out` [pools, POOL_METRICS] with the nodes of each pool by state and the free CPU of those that are up."""
    for p in range(out.shape[0]):
        out[p, 0] = wanted[p]
        out[p, 1] = count[p, UP]
        out[p, 2] = count[p, BOOTING]
        out[p, 3] = count[p, FAILED]
        out[p, 4] = 0.0
    for n in range(node_pool.shape[0]):
        out[node_pool[n], 4] += max(node_free[n, 0], 0.0)
