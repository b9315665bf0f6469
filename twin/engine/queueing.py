"""The service model: a fluid queue with carry-over between two changes of rate or capacity, in closed form.

Between two events the arrival rate and the number of ready replicas are constant, so that the queue moves on
straight lines and everything can be integrated exactly; the only approximation is stated here:

- with a backlog, a request waits (requests ahead) / capacity, and the queue strays from its straight line as below;
- without one, waiting follows M/M/c in its steady state: P(W > t) = C exp(-(c mu - lambda) t), with the
  Erlang-C probability approximated as C = rho^(sqrt(2 (n + 1)) - 1) for n servers (Sakasegawa 1977, the
  waiting-time formula solved for C; exact for n = 1). Service times count with their mean;
- rates hold for a minute, too short for a queue near saturation to reach its steady state: no more requests wait
  beyond x than in a driftless queue (a reflected Brownian motion of variance 2 lambda) that began a minute ago,
  P(Q > x) = erfc(x / (2 sqrt(lambda T))), T = 60 s;
- requests that would wait longer than the timeout are dropped on arrival.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

HORIZON_S = 60.0
_TAIL_5 = 1.385903824  # erfc of it is 0.05

# columns of the books [services, BOOKS]: cumulative since the start
ARRIVED, SERVED, LATE, DROPPED, BUSY_S, READY_S, LATENCY = range(7)
BOOKS = 7

# columns of the constants [services, CONSTANTS]
REPLICA_RPS, CONCURRENCY, SERVICE_TIME_S, SLO_S, TIMEOUT_S = range(5)
CONSTANTS = 5


@numba.njit(cache=True)
def wait_probability(servers: float, rho: float) -> float:
    """P(W > 0) in M/M/c with `servers` servers at load `rho` < 1, after Sakasegawa (1977)."""
    return rho ** (math.sqrt(2.0 * (servers + 1.0)) - 1.0)


@numba.njit(cache=True)
def serve(
    dt_s: float,
    rate_rps: NDArray[np.float64],
    ready: NDArray[np.int64],
    constants: NDArray[np.float64],
    queue: NDArray[np.float64],
    books: NDArray[np.float64],
) -> None:
    """Let `dt_s` seconds pass at constant rates: updates `queue` [services] and `books` [services, BOOKS].

    Conservation holds by construction: arrived = served + dropped + change of the queue.
    """
    for s in range(rate_rps.shape[0]):
        arrived = rate_rps[s] * dt_s
        before = queue[s]
        capacity = ready[s] * constants[s, REPLICA_RPS]
        # a queue that the timeout no longer allows (capacity was lost) gives up its tail at once
        longest = constants[s, TIMEOUT_S] * max(capacity, constants[s, REPLICA_RPS])
        dropped = max(0.0, before - longest)
        q = before - dropped
        busy_s = _backlog_seconds(q, rate_rps[s] - capacity, dt_s)
        late = latency = 0.0
        if busy_s > 0.0:
            q, overflow, late, latency = _backlog(busy_s, rate_rps[s], capacity, q, longest, constants[s])
            dropped += overflow
        if dt_s > busy_s:
            q = 0.0
            more_late, more_latency = _steady(dt_s - busy_s, rate_rps[s], capacity, ready[s], constants[s])
            late += more_late
            latency += more_latency
        served = arrived + before - dropped - q
        queue[s] = q
        books[s, ARRIVED] += arrived
        books[s, SERVED] += served
        books[s, LATE] += late
        books[s, DROPPED] += dropped
        books[s, BUSY_S] += served / constants[s, REPLICA_RPS]
        books[s, READY_S] += ready[s] * dt_s
        books[s, LATENCY] += latency


@numba.njit(cache=True)
def _backlog_seconds(q: float, net_rps: float, dt_s: float) -> float:
    """How long of `dt_s` there is a backlog."""
    if net_rps >= 0.0:
        return dt_s if (q > 0.0 or net_rps > 0.0) else 0.0
    return min(dt_s, q / -net_rps)


@numba.njit(cache=True)
def _backlog(
    dt_s: float, rate: float, capacity: float, q: float, longest: float, c: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """(queue, dropped, late, latency x arrivals) after `dt_s` seconds with a backlog."""
    net = rate - capacity
    end = q + net * dt_s
    overflow = max(0.0, end - longest)
    end = min(max(end, 0.0), longest)
    if capacity <= 0.0:
        return end, overflow, rate * dt_s - overflow, rate * dt_s * c[TIMEOUT_S]
    full_s = overflow / net if overflow > 0.0 else 0.0  # time spent at the longest queue
    patient = (c[SLO_S] - c[SERVICE_TIME_S]) * capacity  # the queue that just meets the SLO
    sloped_s = dt_s - full_s
    low, high = min(q, end), max(q, end)
    spread = 2.0 * math.sqrt(rate * HORIZON_S) + 1e-12
    share = _late_share((patient - high) / spread, (patient - low) / spread)
    late = rate * share * sloped_s + capacity * full_s  # who finds the longest queue and may still join
    mean_wait = (0.5 * (q + end) * sloped_s + longest * full_s) / (dt_s * capacity)
    return end, overflow, late, rate * dt_s * (c[SERVICE_TIME_S] + mean_wait)


@numba.njit(cache=True)
def _late_share(near: float, far: float) -> float:
    """Mean of P(late) while the distance to patience, in units of the queue's spread, moves from `near` to `far`.

    P(late) is erfc(z) for z > 0 and 1 beyond patience (z <= 0); its integral is z erfc(z) - exp(-z^2) / sqrt(pi).
    """
    if far <= 0.0:
        return 1.0
    if far - near < 1e-9:
        return math.erfc(far)
    start = max(near, 0.0)
    area = _erfc_integral(far) - _erfc_integral(start) + (start - near)
    return min(1.0, area / (far - near))


@numba.njit(cache=True)
def _erfc_integral(z: float) -> float:
    return z * math.erfc(z) - math.exp(-z * z) / math.sqrt(math.pi)


@numba.njit(cache=True)
def _steady(dt_s: float, rate: float, capacity: float, ready: int, c: NDArray[np.float64]) -> tuple[float, float]:
    """(late, latency x arrivals) during `dt_s` seconds without a backlog."""
    if rate <= 0.0:
        return 0.0, 0.0
    if capacity - rate <= 1e-9 * capacity:
        capacity = rate * (1.0 + 1e-9)
    spare = capacity - rate
    waits = wait_probability(ready * c[CONCURRENCY], rate / capacity)
    patience_s = c[SLO_S] - c[SERVICE_TIME_S]
    spread = 2.0 * math.sqrt(rate * HORIZON_S)
    late = rate * dt_s * min(waits * math.exp(-spare * patience_s), math.erfc(patience_s * capacity / spread))
    wait_p95 = min(max(0.0, math.log(20.0 * waits) / spare), _TAIL_5 * spread / capacity)
    return late, rate * dt_s * (c[SERVICE_TIME_S] + wait_p95)
