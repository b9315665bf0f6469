"""The fluid model of services: averages of any traffic in closed form between two changes of rate or capacity.

Requests inside a service are one number x, which flows (Mandelbaum and Massey 1995): x' = rate - pace x min(x, slots),
slots = ready replicas x concurrency, pace = 1 / the time that a request holds its slot. Below the slots x tends to
rate / pace exponentially; what is beyond them is the queue, and moves on a straight line. Both are integrated exactly.
Chance is laid over the flow:

- without a queue waits follow the steady law of `twin.engine.erlang`;
- rates hold for a minute, too short for a queue near saturation to reach its steady state: no more requests wait
  beyond y than in a reflected Brownian motion without drift that began a minute ago;
- with a queue q, waits are |q + noise| / capacity, the noise that of the same motion;
- who would wait longer than the timeout gives up on arrival (of the flow: what the timeout does not allow; by chance:
  as in the steady law). A queue that lost its capacity gives up its tail at once.

What waits by chance is in the response times and in INSIDE_S, but is not carried from step to step: `State.queue` and
`State.inside` are the flow, and arrived = served + failed + dropped + growth of `State.inside`.

Service times are known by their mean in equally or less probable strata; a slow replica stretches all. A caller holds
its slot while its calls are answered: their mean is that of the callee's last piece of at most 5 s, and slow calls are
taken to meet slow requests (comonotone). A call that fails or is given up fails the request. Who gave up and may ask
again does so after an exponential time of mean `backoff_s`, but not before the next step. Users of a closed load are
solved for at the end of each step (implicit Euler); who gives up was waiting for the timeout.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.engine.erlang import (
    LEVELS,
    above,
    compiled,
    flow,
    inlined,
    law,
    longer,
    mean_patient_wait_s,
    noise_mean,
    noise_mean_between,
    strata,
    trapezoid,
    waits_free,
    waits_longer,
    waits_on_line,
)
from twin.engine.serving import (
    ARRIVED,
    BUCKETS,
    BUSY_S,
    DROPPED,
    EDGES_S,
    FAILED,
    INSIDE_S,
    LATE,
    READY_S,
    RESPONSE_S,
    RETRIED,
    SERVED,
    WAIT_S,
    WORK_S,
    bucket,
    percentile,
)
from twin.engine.state import READY, State
from twin.errors import UsageError
from twin.types import Cluster, Service

HORIZON_S = 60.0
PIECE_S = 5.0

_F8 = NDArray[np.float64]
_STRATA = len(LEVELS) - 1
_POINTS = 96  # of the tabulated waits
_RARE = 1e-6  # share of requests whose longer waits are left out of the tables
_SAME = 1e-7
_STILL, _NOBODY_RPS = 1e-6, 1e-12  # replicas that slow stand still, and where so few ask nobody does

# constants of a service, columns of `Known.constants`
_CONCURRENCY, _SERVICE_S, _CV, _SLO_S, _TIMEOUT_S, _RETRIES, _BACKOFF_S, _CLOSED, _THINK_S, _STEPS = range(10)
# what was worked out last for a service, columns of `Known.memory`, valid while what it was worked out for is the same:
# the law of waits (_LEAVES: share that gives up by chance, beyond what the flow makes give up; _NOISE: width of the
# queue's noise in requests, P(|noise| > y) = erfc(y / width))
_ASKED, _SLOTS, _HOLD_S, _DENSITY, _DECAY, _LEAVES, _NOISE = range(7)
# response times (those of `Known.shape` lie in the buckets from _FIRST up to _END)
_PHASE, _WAY_S, _MEAN_WAIT_S, _LATE_SHARE, _FIRST, _END = range(7, 13)
# users of a closed load; the hold time that the strata were scaled to, and its variation; what callers meet: mean time
# inside, and share of requests without an answer
_USERS, _USERS_INSIDE, _USERS_RATE, _STRETCHED, _HOLD_CV, _NOW_S, _BAD = range(13, 20)
_NOTHING, _FREE, _FULL, _LINE = 0.0, 1.0, 2.0, 3.0


class Known(NamedTuple):
    """What the model knows beside the state: constants, and what it worked out last."""

    constants: _F8  # [services, constants]
    memory: _F8  # [services, memory]
    unit_edges: _F8  # [services, strata + 1], service times of mean 1 between the strata
    unit_means: _F8  # [services, strata]
    levels: _F8  # [services, strata + 1]
    edges: _F8  # [services, strata + 1], times that a request holds its slot
    means: _F8  # [services, strata]
    shape: _F8  # [services, BUCKETS], shares of response times
    attempts: _F8  # [services, tries], requests inside by their number of retries
    again: _F8  # [services, tries], who will ask again, for the how manieth time
    inflow: _F8  # [services], calls per second
    order: NDArray[np.int64]  # [services], callers first
    caller: NDArray[np.int64]  # [calls]
    callee: NDArray[np.int64]  # [calls]
    per_request: _F8  # [calls]


class Open(NamedTuple):
    """The part of the state that the model reads and writes."""

    rate_rps: _F8
    capacity: _F8
    counts: NDArray[np.int64]
    error_share: _F8
    way_s: _F8
    queue: _F8
    inside: _F8
    books: _F8
    responses: _F8


class Fluid:
    """Serves all services of a cluster as fluids; see the module's text for what is exact and what is not."""

    def __init__(self, cluster: Cluster, state: State) -> None:
        """Model of `cluster` on `state`; raises UsageError if services call each other in a circle."""
        services = cluster.services
        self._state = state
        self._pieces = any(s.calls for s in services)
        self._known = _known(services)

    def serve(self, since_s: float, until_s: float) -> None:
        """Let the time between the two pass at constant rates and capacities, in one step.

        In a cluster with calls it is cut into pieces of at most 5 s, so that callers and callees see each other.
        """
        passed_s = until_s - since_s
        if passed_s <= 0.0:
            return
        s = self._state
        state = Open(s.rate_rps, s.capacity, s.count, s.error_share, s.way_s, s.queue, s.inside, s.books, s.responses)
        pieces = math.ceil(passed_s / PIECE_S) if self._pieces else 1
        for _ in range(pieces):
            _serve(passed_s / pieces, state, self._known)

    def lose(self, service: int, share: float) -> None:
        """No effect: in the fluid no request is tied to a replica, and what a dead one was serving waits again."""


# ---------------------------------------------------------------- once


def _known(services: tuple[Service, ...]) -> Known:
    number = len(services)
    place = {s.name: k for k, s in enumerate(services)}
    calls = [(place[s.name], place[c.callee], c.per_request) for s in services for c in s.calls]
    callers = {caller for caller, _, _ in calls}
    constants = np.zeros((number, 10))
    levels, edges, means = np.ones((number, _STRATA + 1)), np.ones((number, _STRATA + 1)), np.ones((number, _STRATA))
    for k, s in enumerate(services):
        spread = s.service_cv > 0.0 or k in callers
        load = (s.load == "closed", s.think_s, _STRATA if spread else 1)
        times = (s.service_time_s, s.service_cv, s.slo_s, s.timeout_s, s.retries, s.backoff_s)
        constants[k] = (s.concurrency, *times, *load)
        levels[k] = LEVELS if spread else np.minimum(np.arange(_STRATA + 1), 1.0)
        if s.service_cv > 0.0:
            edges[k], means[k] = strata(s.distribution, s.service_cv)
    tries = 1 + max((s.retries for s in services), default=0)
    memory = np.full((number, 20), np.nan)
    memory[:, _NOW_S] = [s.service_time_s for s in services]
    memory[:, _BAD] = 0.0
    return Known(
        constants,
        memory,
        edges,
        means,
        levels,
        np.zeros_like(edges),
        np.zeros_like(means),
        np.zeros((number, BUCKETS)),
        np.zeros((number, tries)),
        np.zeros((number, tries)),
        np.zeros(number),
        np.array(_callers_first(services, place), dtype=np.int64),
        np.array([c[0] for c in calls], dtype=np.int64),
        np.array([c[1] for c in calls], dtype=np.int64),
        np.array([c[2] for c in calls], dtype=np.float64),
    )


def _callers_first(services: tuple[Service, ...], place: dict[str, int]) -> list[int]:
    """Places of the services, each before those that it calls."""
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


# ---------------------------------------------------------------- each step


@compiled
def _serve(dt_s: float, state: Open, known: Known) -> None:
    known.inflow[:] = 0.0
    for s in known.order:
        _serve_one(s, dt_s, state, known)


@inlined
def _serve_one(s: int, dt_s: float, state: Open, known: Known) -> None:
    """One service's step: its books, and what it asks of those that it calls."""
    c, m, books = known.constants[s], known.memory[s], state.books[s]
    ready = state.counts[s, READY]
    capacity = state.capacity[s] if state.capacity[s] > _STILL * ready else 0.0
    slots = int(ready * c[_CONCURRENCY]) if capacity > 0.0 else 0
    call_s, right = _calls(s, known)
    own_s = c[_SERVICE_S] * (ready / capacity if slots > 0 else 1.0)
    hold_s = own_s + call_s
    _scale(s, own_s, hold_s, known)
    # the longest queue that the timeout allows; without capacity, that of one healthy replica
    longest = c[_TIMEOUT_S] * max(slots, c[_CONCURRENCY] if slots == 0 else 0.0) / hold_s
    x = state.inside[s]
    tail = max(0.0, x - slots - longest)
    x -= tail
    tries = int(c[_RETRIES]) + 1
    again = known.again[s, :tries]
    asking = -math.expm1(-dt_s / c[_BACKOFF_S]) if c[_BACKOFF_S] > 0.0 else 1.0
    retried = asking * again.sum()
    others = known.inflow[s] + retried / dt_s
    outside = state.rate_rps[s]
    if c[_CLOSED] > 0.0:
        users = max(0.0, outside - (1.0 - asking) * again.sum())
        outside = _users_rate(dt_s, users, others, x, slots, hold_s, longest, state.way_s[s], c, m)
    asked = outside + others if outside + others > _NOBODY_RPS else 0.0
    way_s = state.way_s[s] * (1.0 - known.inflow[s] / asked) if asked > 0.0 else state.way_s[s]
    _remember(asked, slots, hold_s, c, m)
    admitted = asked * (1.0 - m[_LEAVES])
    free_s, line_s, full_s, low, high, end, busy = flow(dt_s, x, admitted, slots, hold_s, longest)
    overflow = max(0.0, admitted - slots / hold_s) * full_s
    dropped = tail + asked * m[_LEAVES] * dt_s + overflow
    departed = max(0.0, admitted * dt_s - overflow + x - end)
    right *= 1.0 - state.error_share[s]
    books[ARRIVED] += asked * dt_s
    books[SERVED] += departed * right
    books[FAILED] += departed * (1.0 - right)
    books[DROPPED] += dropped
    books[RETRIED] += retried
    books[BUSY_S] += busy / c[_CONCURRENCY]
    books[WORK_S] += busy / c[_CONCURRENCY] * own_s / hold_s
    books[READY_S] += ready * dt_s
    wait = _answers(s, admitted, free_s, line_s, full_s, low, high, slots, hold_s, way_s, right, state, known)
    books[INSIDE_S] += busy + wait
    state.inside[s] = end
    state.queue[s] = max(0.0, end - slots)
    arrived = asked * dt_s
    if tries > 1:
        _give_up(max(0.0, arrived - retried), asking, departed, dropped, known.attempts[s, :tries], again)
    if len(known.caller) > 0:
        begun = departed + min(end, slots) - min(x, slots)
        _call(s, max(0.0, begun) / dt_s, known)
        lost = min(1.0, dropped / (arrived + tail)) if arrived + tail > 0.0 else m[_BAD]
        m[_BAD] = 0.5 * (m[_BAD] + 1.0 - right * (1.0 - lost))


# ---------------------------------------------------------------- the flow


@compiled
def _users_rate(
    dt_s: float,
    users: float,
    others_rps: float,
    x: float,
    slots: int,
    hold_s: float,
    longest: float,
    way_s: float,
    c: _F8,
    m: _F8,
) -> float:
    """Requests/s of `users`, each inside, thinking, on the way or giving up: the rate that takes that many."""
    same = abs(x - m[_USERS_INSIDE]) <= _SAME * x and users == m[_USERS] and slots == m[_SLOTS]
    if same and _near(m[_USERS_RATE] + others_rps, m[_ASKED]) and _near(hold_s, m[_HOLD_S]):
        return m[_USERS_RATE]
    m[_USERS], m[_USERS_INSIDE] = users, x
    away_s = c[_THINK_S] + way_s
    low, high = 0.0, 1.0 + users / hold_s
    under = _users_at(low, others_rps, dt_s, x, slots, hold_s, longest, away_s, c, m) - users
    over = _users_at(high, others_rps, dt_s, x, slots, hold_s, longest, away_s, c, m) - users
    while over < 0.0 and high < 1e12:
        low, under, high = high, over, 2.0 * high
        over = _users_at(high, others_rps, dt_s, x, slots, hold_s, longest, away_s, c, m) - users
    rate, side = low, 0
    if under < 0.0 < over:
        for _ in range(60):  # regula falsi, halving the end that stays (Illinois)
            rate = high - over * (high - low) / (over - under)
            miss = _users_at(rate, others_rps, dt_s, x, slots, hold_s, longest, away_s, c, m) - users
            if abs(miss) <= 1e-9 * users or high - low <= 1e-12 * high:
                break
            if miss < 0.0:
                low, under, over, side = rate, miss, over * (0.5 if side < 0 else 1.0), -1
            else:
                high, over, under, side = rate, miss, under * (0.5 if side > 0 else 1.0), 1
    m[_USERS_RATE] = rate
    return rate


@compiled
def _users_at(
    rate: float,
    others_rps: float,
    dt_s: float,
    x: float,
    slots: int,
    hold_s: float,
    longest: float,
    away_s: float,
    c: _F8,
    m: _F8,
) -> float:
    """How many users it takes to ask at that rate."""
    asked = max(_NOBODY_RPS, rate + others_rps)
    _remember(asked, slots, hold_s, c, m)
    admitted = asked * (1.0 - m[_LEAVES])
    _, _, full_s, _, _, end, _ = flow(dt_s, x, admitted, slots, hold_s, longest)
    capacity = slots / hold_s
    lost = asked - admitted + max(0.0, admitted - capacity) * full_s / dt_s
    by_chance = noise_mean(max(0.0, end - slots), m[_NOISE])
    if admitted < capacity:
        steady = admitted * mean_patient_wait_s(m[_DENSITY], m[_DECAY], c[_TIMEOUT_S])
        by_chance = min(by_chance, steady)
    return end + (by_chance if slots > 0 else 0.0) + rate * away_s + lost * c[_TIMEOUT_S]


# ---------------------------------------------------------------- retries and calls


@inlined
def _give_up(first: float, asking: float, gone: float, dropped: float, attempts: _F8, again: _F8) -> None:
    """Count the step's `first` attempts in and the share `asking` of the others, the `gone` and the `dropped` out.

    Those who leave are a fair share of all inside, so that nobody asks more often than allowed.
    """
    attempts[0] += first
    attempts[1:] += asking * again[1:]
    again *= 1.0 - asking
    total = attempts.sum()
    if total > 0.0:
        again[1:] += min(1.0, dropped / total) * attempts[:-1]
        attempts *= max(0.0, 1.0 - (dropped + gone) / total)


@inlined
def _calls(s: int, known: Known) -> tuple[float, float]:
    """(seconds that a request waits for its calls, share of requests whose calls are all answered)."""
    call_s, right = 0.0, 1.0
    for k in range(len(known.caller)):
        if known.caller[k] == s:
            call_s += known.per_request[k] * known.memory[known.callee[k], _NOW_S]
            right *= max(0.0, 1.0 - known.memory[known.callee[k], _BAD]) ** known.per_request[k]
    return call_s, right


@inlined
def _call(s: int, begun_rps: float, known: Known) -> None:
    for k in range(len(known.caller)):
        if known.caller[k] == s:
            known.inflow[known.callee[k]] += begun_rps * known.per_request[k]


@inlined
def _scale(s: int, own_s: float, hold_s: float, known: Known) -> None:
    """Scale the strata of the service to its hold time, and learn their coefficient of variation."""
    m, steps = known.memory[s], int(known.constants[s, _STEPS])
    if _near(hold_s, m[_STRETCHED]):
        return
    m[_STRETCHED] = hold_s
    edges, means, levels = known.edges[s], known.means[s], known.levels[s]
    edges[: steps + 1] = own_s * known.unit_edges[s, : steps + 1]
    means[:steps] = own_s * known.unit_means[s, :steps]
    m[_HOLD_CV] = known.constants[s, _CV]
    if hold_s <= own_s:
        return
    for k in range(len(known.caller)):
        if known.caller[k] == s:
            _add_call(known.per_request[k], known.callee[k], known, levels, edges, means)
    square = 0.0
    for i in range(steps):
        square += (levels[i + 1] - levels[i]) * means[i] * means[i]
    m[_HOLD_CV] = math.sqrt(max(0.0, square / (hold_s * hold_s) - 1.0))


@compiled
def _add_call(per_request: float, callee: int, known: Known, levels: _F8, edges: _F8, means: _F8) -> None:
    """Add the callee's quantiles, scaled to its mean time, to a caller's strata."""
    m, shape = known.memory[callee], known.shape[callee]
    quantiles = np.zeros(len(levels))
    if shape.sum() > 0.0:
        for i in range(len(levels)):
            quantiles[i] = max(0.0, percentile(shape, levels[i] * (1.0 - 1e-12)) - m[_WAY_S])
    mean = 0.0
    for i in range(len(means)):
        mean += (levels[i + 1] - levels[i]) * 0.5 * (quantiles[i] + quantiles[i + 1])
    if mean > 0.0:
        quantiles *= m[_NOW_S] / mean
    else:
        quantiles[:] = m[_NOW_S]
    for i in range(len(means)):
        means[i] += per_request * 0.5 * (quantiles[i] + quantiles[i + 1])
    edges += per_request * quantiles


# ---------------------------------------------------------------- chance


@inlined
def _near(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME * abs(one)


@inlined
def _remember(asked: float, slots: int, hold_s: float, c: _F8, m: _F8) -> None:
    """Work out the law of waits at that rate, unless it is known."""
    if slots == m[_SLOTS] and _near(asked, m[_ASKED]) and _near(hold_s, m[_HOLD_S]):
        return
    m[_ASKED], m[_SLOTS], m[_HOLD_S], m[_PHASE] = asked, slots, hold_s, _NOTHING
    m[_DENSITY] = m[_DECAY] = m[_LEAVES] = 0.0
    m[_NOISE] = 2.0 * math.sqrt(0.5 * (1.0 + m[_HOLD_CV] ** 2) * asked * HORIZON_S)
    if asked <= 0.0 or slots == 0:
        return
    timeout_s, capacity = c[_TIMEOUT_S], slots / hold_s
    leaves, m[_DENSITY], m[_DECAY] = law(slots, asked * hold_s, hold_s, m[_HOLD_CV], timeout_s)
    by_chance = min(leaves - max(0.0, 1.0 - capacity / asked), math.erfc(timeout_s * capacity / m[_NOISE]))
    m[_LEAVES] = by_chance if by_chance > 1e-12 else 0.0


# ---------------------------------------------------------------- response times


@inlined
def _answers(
    s: int,
    admitted: float,
    free_s: float,
    line_s: float,
    full_s: float,
    low: float,
    high: float,
    slots: int,
    hold_s: float,
    way_s: float,
    right: float,
    state: Open,
    known: Known,
) -> float:
    """Book the waits and response times of the step's arrivals; returns the request-seconds waited inside.

    A share `right` of them gets no error.
    """
    c, m = known.constants[s], known.memory[s]
    timeout_s = c[_TIMEOUT_S]
    if slots == 0:
        _stranded(admitted * line_s, timeout_s, hold_s, way_s, right, state.books[s], state.responses[s])
        m[_NOW_S] = 0.5 * (m[_NOW_S] + timeout_s + hold_s)
        return 0.5 * (low + high) * line_s + high * full_s
    capacity, waited, now_s = slots / hold_s, 0.0, 0.0
    if line_s > 0.0:
        queue = 0.5 * (low + high) + noise_mean_between(low, high, m[_NOISE])
        wait_s = min(timeout_s, queue / capacity)
        if admitted > 0.0:
            wait_s = _line(s, low, high, wait_s, capacity, way_s, known)
            _book(s, admitted * line_s, wait_s, hold_s, right, state, known)
        waited += wait_s * capacity * line_s
        now_s = min(timeout_s, (high + noise_mean(high, m[_NOISE])) / capacity)
    if free_s > 0.0 and admitted > 0.0:
        _steady(s, _FREE, capacity, way_s, known)
        _book(s, admitted * free_s, m[_MEAN_WAIT_S], hold_s, right, state, known)
        waited += m[_MEAN_WAIT_S] * admitted * free_s
        now_s = now_s if high > 0.0 else m[_MEAN_WAIT_S]
    if full_s > 0.0:
        _steady(s, _FULL, capacity, way_s, known)
        _book(s, capacity * full_s, m[_MEAN_WAIT_S], hold_s, right, state, known)
        waited += m[_MEAN_WAIT_S] * capacity * full_s
        now_s = m[_MEAN_WAIT_S]
    m[_NOW_S] = 0.5 * (m[_NOW_S] + now_s + hold_s)
    return waited


@compiled
def _stranded(
    number: float, timeout_s: float, hold_s: float, way_s: float, right: float, books: _F8, responses: _F8
) -> None:
    """Book who came when there was no capacity: nobody knows how long they will wait, so for as long as they stay."""
    books[WAIT_S] += number * timeout_s
    books[RESPONSE_S] += number * (timeout_s + hold_s)
    books[LATE] += number * right
    responses[bucket(timeout_s + hold_s + way_s)] += number * right


@inlined
def _book(s: int, number: float, wait_s: float, hold_s: float, right: float, state: Open, known: Known) -> None:
    m, books = known.memory[s], state.books[s]
    books[WAIT_S] += number * wait_s
    books[RESPONSE_S] += number * (wait_s + hold_s)
    books[LATE] += number * right * m[_LATE_SHARE]
    for k in range(int(m[_FIRST]), int(m[_END])):
        state.responses[s, k] += number * right * known.shape[s, k]


@compiled
def _line(s: int, low: float, high: float, wait_s: float, capacity: float, way_s: float, known: Known) -> float:
    """Work out response times with a queue that moves from `low` to `high`; returns the mean wait."""
    c, m, levels = known.constants[s], known.memory[s], known.levels[s]
    noise, timeout_s = m[_NOISE], c[_TIMEOUT_S]
    top_s = min(timeout_s, (max(low, high) + 3.5 * noise) / capacity)
    waits = np.zeros(_POINTS + 1)
    for j in range(_POINTS + 1):
        waits[j] = waits_on_line(top_s * j / _POINTS, low, high, capacity, noise)
    late = 0.0
    for i in range(int(c[_STEPS])):
        patient_s = c[_SLO_S] - way_s - known.means[s, i]
        if patient_s < timeout_s:
            longer = waits_on_line(max(0.0, patient_s), low, high, capacity, noise)
            late += (levels[i + 1] - levels[i]) * longer
    m[_LATE_SHARE], m[_PHASE] = min(1.0, late), _LINE
    _spread(s, waits, top_s, way_s, known)
    return wait_s if top_s < timeout_s else trapezoid(waits, top_s)


@compiled
def _steady(s: int, phase: float, capacity: float, way_s: float, known: Known) -> None:
    """Work out response times under the steady law, unless known; in a free flow no minute's noise is exceeded."""
    c, m = known.constants[s], known.memory[s]
    if m[_PHASE] == phase and _near(way_s, m[_WAY_S]):
        return
    timeout_s, density, decay = c[_TIMEOUT_S], m[_DENSITY], m[_DECAY]
    waiting = waits_longer(0.0, density, decay, timeout_s)
    top_s = timeout_s
    if decay > 0.0:
        top_s = min(timeout_s, math.log(max(waiting, _RARE) / _RARE) / decay)
    noise_s = m[_NOISE] / capacity
    bound = phase == _FREE and math.erfc(top_s / noise_s) < _RARE
    if bound:
        top_s = min(top_s, 3.5 * noise_s)
    waits = np.full(_POINTS + 1, waiting)
    if not bound and decay * (timeout_s - top_s) > 30.0:  # an exponential: nobody gives up
        waits *= np.exp(-decay * top_s / _POINTS * np.arange(_POINTS + 1))
    else:
        for j in range(_POINTS + 1):
            waits[j] = waits_free(top_s * j / _POINTS, density, decay, timeout_s, noise_s, bound)
    m[_MEAN_WAIT_S] = trapezoid(waits, top_s) if bound else mean_patient_wait_s(density, decay, timeout_s)
    levels, patience_s = known.levels[s], c[_SLO_S] - way_s
    steps = int(c[_STEPS])
    late = (1.0 - waits[0]) * above(patience_s, levels[: steps + 1], known.edges[s, : steps + 1])
    for i in range(steps):
        patient_s = max(0.0, patience_s - known.means[s, i])
        late += (levels[i + 1] - levels[i]) * waits_free(patient_s, density, decay, timeout_s, noise_s, bound)
    m[_LATE_SHARE], m[_PHASE] = min(1.0, late), phase
    _spread(s, waits, top_s, way_s, known)


@compiled
def _spread(s: int, waits: _F8, top_s: float, way_s: float, known: Known) -> None:
    """Fill the service's `shape`: hold time + a wait with P(wait > j top_s / points) = `waits[j]` + the way."""
    m, shape = known.memory[s], known.shape[s]
    m[_WAY_S], shape[:] = way_s, 0.0
    first = bucket(known.edges[s, 0] + way_s)
    m[_FIRST], m[_END] = first, BUCKETS
    steps = int(known.constants[s, _STEPS])
    levels, edges, means = known.levels[s, : steps + 1], known.edges[s, : steps + 1], known.means[s, :steps]
    before = 1.0
    for k in range(first, BUCKETS - 1):
        after = longer(EDGES_S[k] - way_s, waits, top_s, levels, edges, means)
        if after < 1e-12:
            m[_END] = k + 1
            break
        shape[k], before = before - after, after
    shape[int(m[_END]) - 1] = before
