"""The request-level model of services: every single request is followed, compiled, between two changes of the plant.

What a request meets: its service's queue, first come first served, before `concurrency` servers per ready replica; its
own service time; the services that it calls, one after the other, while it keeps its server; patience that ends after
`timeout_s` in the queue, and further tries; answers that are errors. Nothing is an average and nothing is assumed to be
steady; what it costs is time in proportion to the number of requests. `twin.engine.fluid` is the other model.

- Open load: a Poisson process whose rate may change (an exponential budget is spent at the present rate), or recorded
  arrivals. Arrivals and the work they bring have random streams of their own: under every controller the k-th arrival
  brings the same work, and comes at the same time as long as rates are the same.
- Closed load: a number of users who ask, wait for the answer or give up, think, and ask again.
- Replicas at less than full speed take longer, by the mean speed at the time when service begins. When servers go,
  what is in service is finished; `lose` is how replicas die.
- A request whose call fails, or is given up, fails at once. The other way round, calls of a request that died go on
  (nobody tells the callee) but are not tried again.
- A retry is a new arrival of the same work. Time inside (RESPONSE_S, INSIDE_S) is counted per attempt and without the
  way to the users; response times (LATE, `state.responses`) are those of served attempts, with the way there and back
  for those that come from outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from twin.engine import request_kernel
from twin.engine.request_tables import (
    CALL,
    CALLED_WORK,
    CALLING,
    CHANCE,
    FREE,
    FREE_HEAD,
    GAP,
    HAPPENING,
    LOW,
    MARGIN,
    META,
    NONE,
    NUMBERS,
    RECORDED,
    REQUEST,
    ROOM,
    SERVICE,
    SERVING,
    STREAMS,
    THINK,
    WORK,
    Tables,
    View,
)
from twin.engine.serving import callers_first
from twin.engine.state import State
from twin.errors import SimulationError, UsageError
from twin.seeds import child
from twin.types import Cluster, Service

_BLOCK = 1024
_STREAM_NAMES = {GAP: "gap", WORK: "work", CALLED_WORK: "called", THINK: "think", CHANCE: "chance"}

Arrivals = tuple[NDArray[np.float64], NDArray[np.float64]]


class Requests:
    """All services of a cluster, request by request; implements `twin.engine.serving.Serving`.

    Conservation is exact: arrived = served + dropped + failed + inside, for each service at the end of each stretch.
    The same seed gives the same books, and so does a stretch that is cut into pieces (sums up to rounding).
    """

    def __init__(
        self, cluster: Cluster, state: State, seed: int, recorded: Mapping[int, Arrivals] | None = None
    ) -> None:
        """Nobody inside. `recorded` maps a service's place to times in s, ascending, and service times in s.

        These arrivals replace those that the service's rate would bring; where a service time is NaN it is drawn.

        Raises:
            UsageError: services call each other in a circle, wait without end or serve in no time, or recorded
                arrivals are not in order.
        """
        for service in cluster.services:
            _check(service)
        callers_first(cluster.services)  # refuses circles
        self._services, self._state = cluster.services, state
        self._time_s: float | None = None
        self._streams = [
            [child(seed, f"requests/{s.name}/{_STREAM_NAMES[stream]}") for stream in range(STREAMS)]
            for s in cluster.services
        ]
        self._losses = [child(seed, f"requests/{s.name}/losses") for s in cluster.services]
        self._closed = np.array([s.load == "closed" for s in cluster.services], dtype=np.bool_)
        self._tables = _tables(cluster, recorded or {})
        self._draw_more()
        for place, streams in enumerate(self._streams):
            self._tables.services[place]["budget"] = streams[GAP].standard_exponential()

    def serve(self, since_s: float, until_s: float) -> None:
        """Let the time between the two pass at constant rates and capacities; `until_s` itself belongs to the next.

        Raises SimulationError when the stretch does not begin where the last one ended, or a rate is no rate.
        """
        if not (self._time_s is None or since_s == self._time_s) or not since_s <= until_s < math.inf:
            raise SimulationError(
                f"requests are served until {self._time_s} s, a stretch from {since_s} to {until_s} s does not follow; "
                "stretches must follow each other"
            )
        view = self._view()
        self._make_room_for_users()
        while lack := request_kernel.serve(self._tables, view, float(since_s), float(until_s)):
            self._supply(lack)
        self._time_s = until_s

    def lose(self, service: int, share: float) -> None:
        """A `share` of the service's ready replicas died: that share of what it has in service fails now.

        Nobody takes the place of a failed request before the next stretch, which knows what is left.
        """
        if self._time_s is None:
            return
        requests = self._tables.requests
        doing = (requests["doing"] == SERVING) | (requests["doing"] == CALLING)
        inside = np.flatnonzero((requests["service"] == service) & doing)
        rng = self._losses[service]
        number = int(min(max(share, 0.0), 1.0) * len(inside) + rng.random())
        chosen = rng.choice(inside, min(number, len(inside)), replace=False)
        view = self._view()
        request_kernel.forget(self._tables, chosen, np.zeros(len(requests), dtype=np.bool_))
        done = 0
        while (done := request_kernel.fail(self._tables, view, chosen, done, self._time_s)) < len(chosen):
            self._supply(NUMBERS)
        for place in range(len(self._services)):
            request_kernel.show(self._tables, view, place, self._time_s)

    def _view(self) -> View:
        s = self._state
        return View(s.rate_rps, s.count, s.capacity, s.error_share, s.way_s, s.queue, s.inside, s.books, s.responses)

    def _supply(self, lack: int) -> None:
        if lack == NUMBERS:
            self._draw_more()
        elif lack == ROOM:
            self._tables = _roomier(self._tables)
        else:
            raise SimulationError(
                f"rates {self._state.rate_rps} and capacities {self._state.capacity} must be finite and at least 0; "
                "look at the demand and the events that change them"
            )

    def _draw_more(self) -> None:
        """Fill up every stream that is short of numbers: used ones leave at the front, new ones join at the end."""
        draws, drawn, meta = self._tables.draws, self._tables.drawn, self._tables.meta
        for place, stream in np.argwhere(drawn + meta[MARGIN] >= draws.shape[2]):
            block, used = draws[place, stream], int(drawn[place, stream])
            block[: len(block) - used] = block[used:].copy()
            block[len(block) - used :] = _numbers(self._services[place], stream, self._streams[place][stream], used)
            drawn[place, stream] = 0
        meta[LOW] = 0

    def _make_room_for_users(self) -> None:
        if not self._closed.any():
            return
        most, here = float(self._state.rate_rps[self._closed].max()), self._tables.here
        if here.shape[1] < most + 1.0 < math.inf:
            more = np.zeros((here.shape[0], int(2.0 * most)), dtype=np.bool_)
            self._tables = self._tables._replace(here=np.concatenate([here, more], axis=1))


def _numbers(service: Service, stream: int, rng: np.random.Generator, number: int) -> NDArray[np.float64]:
    if stream in (GAP, THINK):
        return rng.standard_exponential(number)
    if stream == CHANCE:
        return rng.random(number)
    return _works(service, rng, number)


def _works(service: Service, rng: np.random.Generator, number: int) -> NDArray[np.float64]:
    """Service times in s with the service's mean and coefficient of variation."""
    mean_s, cv = service.service_time_s, service.service_cv
    if cv == 0.0:
        return np.full(number, mean_s)
    if service.distribution == "gamma":
        return rng.standard_gamma(cv**-2, number) * (mean_s * cv**2)
    variance = math.log1p(cv**2)
    return mean_s * np.exp(math.sqrt(variance) * rng.standard_normal(number) - 0.5 * variance)


def _check(service: Service) -> None:
    if not (0.0 < service.timeout_s < math.inf and 0.0 < service.service_time_s < math.inf and service.concurrency > 0):
        raise UsageError(
            f"service {service.name!r}: timeout_s={service.timeout_s} and service_time_s={service.service_time_s} must "
            f"be finite and above 0 (an overload would fill memory), concurrency={service.concurrency} at least 1"
        )
    for call in service.calls:
        if not 0.0 <= call.per_request < math.inf:
            raise UsageError(
                f"service {service.name!r} calls {call.callee!r} {call.per_request} times; give a number from 0 on"
            )


# ---------------------------------------------------------------- the tables at the start, and when they are full


def _tables(cluster: Cluster, recorded: Mapping[int, Arrivals]) -> Tables:
    """The tables of a cluster in which nobody is inside."""
    number = len(cluster.services)
    margin = 2 + max((len(s.calls) for s in cluster.services), default=0)
    block = max(_BLOCK, 2 * margin)
    leaves = 1 << max(1, (2 * number - 1).bit_length())
    tree = np.arange(2 * leaves) - leaves
    for node in range(leaves - 1, 0, -1):
        tree[node] = tree[2 * node]
    meta = np.zeros(META, dtype=np.int64)
    meta[MARGIN], meta[FREE_HEAD] = margin, NONE
    empty = Tables(
        requests=np.zeros(0, dtype=REQUEST),
        services=_service_table(cluster),
        calls=_call_table(cluster),
        recorded=np.zeros(0, dtype=RECORDED),
        heap=np.zeros(0, dtype=HAPPENING),
        due_s=np.full(leaves, np.inf),
        tree=tree,
        draws=np.empty((number, STREAMS, block)),
        drawn=np.full((number, STREAMS), block, dtype=np.int64),
        here=np.zeros((number, 1), dtype=np.bool_),
        meta=meta,
    )
    return _roomier(_replaying(empty, cluster, recorded))


def _service_table(cluster: Cluster) -> NDArray[np.void]:
    table = np.zeros(len(cluster.services), dtype=SERVICE)
    first = 0
    for row, service in zip(table, cluster.services, strict=True):
        for name in ("concurrency", "slo_s", "timeout_s", "retries", "backoff_s", "think_s"):
            row[name] = getattr(service, name)
        row["closed"] = service.load == "closed"
        row["first_call"], row["last_call"] = first, first + len(service.calls)
        first += len(service.calls)
    return table


def _call_table(cluster: Cluster) -> NDArray[np.void]:
    places = {service.name: place for place, service in enumerate(cluster.services)}
    calls = [(places[call.callee], call.per_request) for service in cluster.services for call in service.calls]
    return np.array(calls, dtype=CALL)


def _replaying(tables: Tables, cluster: Cluster, recorded: Mapping[int, Arrivals]) -> Tables:
    """The tables with recorded arrivals."""
    parts, first = [np.zeros(0, dtype=RECORDED)], 0
    for place, (time_s, work_s) in recorded.items():
        name = cluster.services[place].name
        if len(time_s) != len(work_s) or not np.isfinite(time_s).all() or (np.diff(time_s) < 0).any():
            raise UsageError(f"recorded requests of {name!r}: times must be known and ascending, one service time each")
        if (work_s < 0).any() or np.isinf(work_s).any():
            raise UsageError(f"recorded requests of {name!r}: service times must be finite and at least 0, or NaN")
        part = np.empty(len(time_s), dtype=RECORDED)
        part["time_s"], part["work_s"] = time_s, work_s
        parts.append(part)
        row = tables.services[place]
        row["replayed"], row["next_recorded"], row["last_recorded"] = 1, first, first + len(part)
        first += len(part)
    return tables._replace(recorded=np.concatenate(parts))


def _roomier(tables: Tables) -> Tables:
    """The same tables with room for twice as many requests inside."""
    old, meta = len(tables.requests), tables.meta
    new = max(64, 2 * old)
    requests = np.zeros(new, dtype=REQUEST)
    requests[:old] = tables.requests
    requests["service"][old:] = NONE
    requests["next"][old:] = np.arange(old + 1, new + 1)
    requests["next"][-1] = meta[FREE_HEAD]
    meta[FREE_HEAD] = old
    meta[FREE] += new - old
    heap = np.zeros(new, dtype=HAPPENING)
    heap[:old] = tables.heap
    return tables._replace(requests=requests, heap=heap)
