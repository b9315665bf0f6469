"""How requests are served between two changes: the seam between the plant and its two models of a service.

`twin.engine.fluid` moves averages in closed form, whatever the traffic; `twin.engine.requests` follows each request.
Both keep the same books, so that everything else cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.types import Service

# columns of `State.books` [services, BOOKS]: cumulative since the start. Each arrival, a retry or a call of another
# service included, ends as served, dropped (gave up waiting) or failed (got an error), or is still inside.
ARRIVED, SERVED, LATE, DROPPED, FAILED, RETRIED, BUSY_S, WORK_S, READY_S, WAIT_S, INSIDE_S, RESPONSE_S = range(12)
BOOKS = 12
"""LATE: answered, but later than the SLO allows. BUSY_S: replica-seconds in service; WORK_S: those of them in which the
replica itself works, and does not wait for a service that it called. WAIT_S and RESPONSE_S: seconds that attempts
waited, and took in all but for the way to the users, summed over attempts. INSIDE_S: requests inside (waiting or in
service) x seconds, integrated on its own, so that Little's law can be checked against RESPONSE_S."""

# buckets of response times: 24 to each factor of ten from 1 ms to 1000 s, one below and one above
_FIRST_S, _DECADES, _PER_DECADE = 1e-3, 6, 24
EDGES_S: NDArray[np.float64] = _FIRST_S * 10.0 ** (np.arange(_DECADES * _PER_DECADE + 1) / _PER_DECADE)
BUCKETS = len(EDGES_S) + 1


class Serving(Protocol):
    """A model of all services: reads rates and capacities of the state, writes its books."""

    def serve(self, since_s: float, until_s: float) -> None:
        """Let the time between the two pass at constant rates and capacities."""
        ...

    def lose(self, service: int, share: float) -> None:
        """A `share` of the service's ready replicas died: what they were serving fails."""
        ...


def callers_first(services: Sequence[Service]) -> list[int]:
    """Places of the services, each before those that it calls; raises UsageError if calls go round in a circle."""
    place = {service.name: number for number, service in enumerate(services)}
    done: list[int] = []
    path: list[str] = []

    def visit(service: Service) -> None:
        if service.name in path:
            circle = " -> ".join([*path[path.index(service.name) :], service.name])
            raise UsageError(f"services call each other in a circle: {circle}; take one of these calls out")
        if place[service.name] in done:
            return
        path.append(service.name)
        for call in service.calls:
            visit(services[place[call.callee]])
        path.pop()
        done.append(place[service.name])

    for service in services:
        visit(service)
    return done[::-1]


@numba.njit(cache=True)
def bucket(response_s: float) -> int:
    """The bucket of a response time."""
    if response_s < _FIRST_S:
        return 0
    place = int(np.floor(np.log10(response_s / _FIRST_S) * _PER_DECADE + 1e-9)) + 1
    return min(place, BUCKETS - 1)


@numba.njit(cache=True)
def percentile(counts: NDArray[np.float64], level: float) -> float:
    """The response time in s below which the share `level` of the counted requests lies; NaN when there are none.

    Within a bucket the logarithm of the response time is taken to be spread evenly.
    """
    total = counts.sum()
    if total <= 0.0:
        return np.nan
    wanted, seen = level * total, 0.0
    for k in range(BUCKETS):
        if seen + counts[k] >= wanted and counts[k] > 0.0:
            low = EDGES_S[max(k - 1, 0)]
            high = EDGES_S[min(k, BUCKETS - 2)]
            return low * (high / low) ** ((wanted - seen) / counts[k])
        seen += counts[k]
    return EDGES_S[-1]
