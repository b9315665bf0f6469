"""State -> metrics, compiled: the columns of `twin.observe.SERVICE_METRICS` and `POOL_METRICS` in their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin import fleet
from twin.engine import serving
from twin.engine.compiling import compiler
from twin.engine.serving import ARRIVED, BOOKS, BUSY_S, DROPPED, FAILED, LATE, READY_S, WORK_S, percentile
from twin.engine.state import BOOTING, DRAINING, PENDING, READY, STARTING, UP
from twin.engine.state import FAILED as BROKEN
from twin.observe import SERVICE_METRICS

F8 = NDArray[np.float64]

METERED = BOOKS + 11
"""Columns of `meter_services`: the books; egress in GiB and USD; waiting and inside; p50, p95, p99; wanted, pending,
starting and ready replicas."""

compiled = compiler([Path(name) for name in (__file__, serving.__file__, fleet.__file__)], _nrt=True)

_API = ("wanted", "ready", "starting", "pending", "cpu_millicores", "memory_mib")
TELEMETRY: NDArray[np.bool_] = np.array([not name.startswith(_API) for name in SERVICE_METRICS])
"""Which service metrics are measured (and can be lost or late); the cluster itself knows the others."""
UNMEASURED = SERVICE_METRICS.index("unmeasured_replicas")


@compiled
def percentiles(responses: F8) -> F8:
    """p50, p95 and p99 [services, 3] of the response times counted in `responses` [services, BUCKETS]; NaN for none."""
    out = np.empty((responses.shape[0], 3))
    for s in range(out.shape[0]):
        out[s, 0] = percentile(responses[s], 0.50)
        out[s, 1] = percentile(responses[s], 0.95)
        out[s, 2] = percentile(responses[s], 0.99)
    return out


@compiled
def read_services(
    out: F8,
    books: F8,
    seen: F8,
    dt_s: float,
    quarter: F8,
    quarter_s: float,
    wanted: NDArray[np.int64],
    count: NDArray[np.int64],
    queue: F8,
    responses: F8,
    request: F8,
    cores: F8,
    memory_use_gib: F8,
    kills: NDArray[np.int64],
) -> None:
    """Fill `out` [services, SERVICE_METRICS]: averages since `seen`, counts as of now, NaN for what is unknown.

    `responses` [services, BUCKETS] are those since `seen`, `kills` too; `cores` is what a busy replica can use.
    """
    tail = percentiles(responses)
    for s in range(out.shape[0]):
        arrived = books[s, ARRIVED] - seen[s, ARRIVED]
        ready_s = books[s, READY_S] - seen[s, READY_S]
        busy = (books[s, WORK_S] - seen[s, WORK_S]) / ready_s if ready_s > 0.0 else np.nan
        failed = books[s, FAILED] - seen[s, FAILED]
        bad = books[s, LATE] - seen[s, LATE] + books[s, DROPPED] - seen[s, DROPPED] + failed
        use = busy * min(cores[s], request[s, 0])
        out[s, 0] = arrived / dt_s if dt_s > 0.0 else np.nan
        out[s, 1] = (books[s, ARRIVED] - quarter[s]) / quarter_s if quarter_s > 0.0 else np.nan
        out[s, 2] = use / request[s, 0]
        out[s, 3] = wanted[s]
        out[s, 4] = count[s, READY]
        out[s, 5] = count[s, STARTING]
        out[s, 6] = count[s, PENDING]
        out[s, 7] = 0.0
        out[s, 8] = queue[s]
        out[s, 9] = tail[s, 1]
        out[s, 10] = bad / arrived if arrived > 0.0 else np.nan
        out[s, 11] = tail[s, 0]
        out[s, 12] = tail[s, 2]
        out[s, 13] = failed / arrived if arrived > 0.0 else np.nan
        out[s, 14] = use
        out[s, 15] = memory_use_gib[s]
        out[s, 16] = kills[s]
        out[s, 17] = np.rint(1000.0 * request[s, 0])
        out[s, 18] = np.rint(1024.0 * request[s, 1])


@compiled
def read_shares(busy: F8, working: F8, books: F8, seen: F8) -> None:
    """Fill `busy` and `working` [services] with the shares of the ready replica-seconds since `seen`, then move it.

    They are NaN where no replica was ready.
    """
    for s in range(busy.shape[0]):
        ready_s = books[s, READY_S] - seen[s, READY_S]
        busy[s] = (books[s, BUSY_S] - seen[s, BUSY_S]) / ready_s if ready_s > 0.0 else np.nan
        working[s] = (books[s, WORK_S] - seen[s, WORK_S]) / ready_s if ready_s > 0.0 else np.nan
    seen[:] = books


@compiled
def read_pools(
    out: F8,
    count: NDArray[np.int64],
    wanted: NDArray[np.int64],
    self_sizing: NDArray[np.bool_],
    node_pool: NDArray[np.int64],
    node_free: F8,
    price_usd_h: F8,
    interrupted: NDArray[np.int64],
) -> None:
    """Fill `out` [pools, POOL_METRICS] with each pool's nodes by state, the free CPU of those that are up, and prices.

    `interrupted` are those since the last look. A pool that sizes itself wants the nodes that it has.
    """
    for p in range(out.shape[0]):
        out[p, 0] = count[p, BOOTING] + count[p, UP] if self_sizing[p] else wanted[p]
        out[p, 1] = count[p, UP]
        out[p, 2] = count[p, BOOTING]
        out[p, 3] = count[p, BROKEN]
        out[p, 4] = 0.0
        out[p, 5] = count[p, DRAINING]
        out[p, 6] = price_usd_h[p]
        out[p, 7] = interrupted[p]
    for n in range(node_pool.shape[0]):
        out[node_pool[n], 4] += max(node_free[n, 0], 0.0)


@compiled
def meter_services(
    books: F8,
    egress_gib: F8,
    egress_usd: F8,
    queue: F8,
    inside: F8,
    responses: F8,
    wanted: NDArray[np.int64],
    count: NDArray[np.int64],
    seen: F8,
    seen_responses: F8,
) -> F8:
    """A row for each service [services, METERED]: what its books and egress grew by, then how it is now.

    `seen` [services, BOOKS + 2] and `seen_responses` are what was there at the last reading, and are moved.
    """
    tail = percentiles(responses - seen_responses)
    out = np.empty((books.shape[0], METERED))
    for s in range(out.shape[0]):
        for b in range(BOOKS):
            out[s, b], seen[s, b] = books[s, b] - seen[s, b], books[s, b]
        out[s, BOOKS], seen[s, BOOKS] = egress_gib[s] - seen[s, BOOKS], egress_gib[s]
        out[s, BOOKS + 1], seen[s, BOOKS + 1] = egress_usd[s] - seen[s, BOOKS + 1], egress_usd[s]
        out[s, BOOKS + 2], out[s, BOOKS + 3] = queue[s], inside[s]
        out[s, BOOKS + 4 : BOOKS + 7] = tail[s]
        out[s, BOOKS + 7] = wanted[s]
        out[s, BOOKS + 8 :] = count[s, PENDING:]
    seen_responses[:] = responses
    return out


@compiled
def meter_pools(
    node_s: F8, cost_usd: F8, count: NDArray[np.int64], node_pool: NDArray[np.int64], node_used: F8, seen: F8
) -> F8:
    """A row for each pool: node-seconds and money since `seen` [pools, 2], nodes by state, CPU cores promised now."""
    states = count.shape[1]
    out = np.zeros((count.shape[0], states + 3))
    for p in range(out.shape[0]):
        out[p, 0], seen[p, 0] = node_s[p] - seen[p, 0], node_s[p]
        out[p, 1], seen[p, 1] = cost_usd[p] - seen[p, 1], cost_usd[p]
        out[p, 2 : 2 + states] = count[p]
    for n in range(node_pool.shape[0]):
        out[node_pool[n], 2 + states] += node_used[n, 0]
    return out
