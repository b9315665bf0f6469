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

import numpy as np
from numpy.typing import NDArray

from twin.engine.erlang import compiled, flow, inlined, mean_patient_wait_s, noise_mean
from twin.engine.fluid_state import (
    ASKED,
    BACKOFF_S,
    BAD,
    CLOSED,
    CONCURRENCY,
    CV,
    DECAY,
    DENSITY,
    HOLD_CV,
    HOLD_S,
    LEAVES,
    NOISE,
    NOW_S,
    RETRIES,
    SERVICE_S,
    SLOTS,
    STEPS,
    STRETCHED,
    THINK_S,
    TIMEOUT_S,
    USERS,
    USERS_INSIDE,
    USERS_RATE,
    WAY_S,
    Known,
    Open,
    known_of,
)
from twin.engine.fluid_waits import SAME, answers, near, remember
from twin.engine.serving import ARRIVED, BUSY_S, DROPPED, FAILED, INSIDE_S, READY_S, RETRIED, SERVED, WORK_S, percentile
from twin.engine.state import READY, State
from twin.types import Cluster

PIECE_S = 5.0

_F8 = NDArray[np.float64]
_STILL, _NOBODY_RPS = 1e-6, 1e-12  # replicas that slow stand still, and where so few ask nobody does


class Fluid:
    """Serves all services of a cluster as fluids; see the module's text for what is exact and what is not."""

    def __init__(self, cluster: Cluster, state: State) -> None:
        """Model of `cluster` on `state`; raises UsageError if services call each other in a circle."""
        services = cluster.services
        self._state = state
        self._pieces = any(s.calls for s in services)
        self._known = known_of(services)

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
    slots = int(ready * c[CONCURRENCY]) if capacity > 0.0 else 0
    call_s, right = _calls(s, known)
    own_s = c[SERVICE_S] * (ready / capacity if slots > 0 else 1.0)
    hold_s = own_s + call_s
    _scale(s, own_s, hold_s, known)
    # the longest queue that the timeout allows; without capacity, that of one healthy replica
    longest = c[TIMEOUT_S] * max(slots, c[CONCURRENCY] if slots == 0 else 0.0) / hold_s
    x = state.inside[s]
    tail = max(0.0, x - slots - longest)
    x -= tail
    tries = int(c[RETRIES]) + 1
    again = known.again[s, :tries]
    asking = -math.expm1(-dt_s / c[BACKOFF_S]) if c[BACKOFF_S] > 0.0 else 1.0
    retried = asking * again.sum()
    others = known.inflow[s] + retried / dt_s
    outside = state.rate_rps[s]
    if c[CLOSED] > 0.0:
        users = max(0.0, outside - (1.0 - asking) * again.sum())
        outside = _users_rate(dt_s, users, others, x, slots, hold_s, longest, state.way_s[s], c, m)
    asked = outside + others if outside + others > _NOBODY_RPS else 0.0
    way_s = state.way_s[s] * (1.0 - known.inflow[s] / asked) if asked > 0.0 else state.way_s[s]
    remember(asked, slots, hold_s, c, m)
    admitted = asked * (1.0 - m[LEAVES])
    free_s, line_s, full_s, low, high, end, busy = flow(dt_s, x, admitted, slots, hold_s, longest)
    overflow = max(0.0, admitted - slots / hold_s) * full_s
    dropped = tail + asked * m[LEAVES] * dt_s + overflow
    departed = max(0.0, admitted * dt_s - overflow + x - end)
    right *= 1.0 - state.error_share[s]
    books[ARRIVED] += asked * dt_s
    books[SERVED] += departed * right
    books[FAILED] += departed * (1.0 - right)
    books[DROPPED] += dropped
    books[RETRIED] += retried
    books[BUSY_S] += busy / c[CONCURRENCY]
    books[WORK_S] += busy / c[CONCURRENCY] * own_s / hold_s
    books[READY_S] += ready * dt_s
    wait = answers(s, admitted, free_s, line_s, full_s, low, high, slots, hold_s, way_s, right, state, known)
    books[INSIDE_S] += busy + wait
    state.inside[s] = end
    state.queue[s] = max(0.0, end - slots)
    arrived = asked * dt_s
    if tries > 1:
        _give_up(max(0.0, arrived - retried), asking, departed, dropped, known.attempts[s, :tries], again)
    if len(known.caller) > 0:
        begun = departed + min(end, slots) - min(x, slots)
        _call(s, max(0.0, begun) / dt_s, known)
        lost = min(1.0, dropped / (arrived + tail)) if arrived + tail > 0.0 else m[BAD]
        m[BAD] = 0.5 * (m[BAD] + 1.0 - right * (1.0 - lost))


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
    same = abs(x - m[USERS_INSIDE]) <= SAME * x and users == m[USERS] and slots == m[SLOTS]
    if same and near(m[USERS_RATE] + others_rps, m[ASKED]) and near(hold_s, m[HOLD_S]):
        return m[USERS_RATE]
    m[USERS], m[USERS_INSIDE] = users, x
    away_s = c[THINK_S] + way_s
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
    m[USERS_RATE] = rate
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
    remember(asked, slots, hold_s, c, m)
    admitted = asked * (1.0 - m[LEAVES])
    _, _, full_s, _, _, end, _ = flow(dt_s, x, admitted, slots, hold_s, longest)
    capacity = slots / hold_s
    lost = asked - admitted + max(0.0, admitted - capacity) * full_s / dt_s
    by_chance = noise_mean(max(0.0, end - slots), m[NOISE])
    if admitted < capacity:
        steady = admitted * mean_patient_wait_s(m[DENSITY], m[DECAY], c[TIMEOUT_S])
        by_chance = min(by_chance, steady)
    return end + (by_chance if slots > 0 else 0.0) + rate * away_s + lost * c[TIMEOUT_S]


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
            call_s += known.per_request[k] * known.memory[known.callee[k], NOW_S]
            right *= max(0.0, 1.0 - known.memory[known.callee[k], BAD]) ** known.per_request[k]
    return call_s, right


@inlined
def _call(s: int, begun_rps: float, known: Known) -> None:
    for k in range(len(known.caller)):
        if known.caller[k] == s:
            known.inflow[known.callee[k]] += begun_rps * known.per_request[k]


@inlined
def _scale(s: int, own_s: float, hold_s: float, known: Known) -> None:
    """Scale the strata of the service to its hold time, and learn their coefficient of variation."""
    m, steps = known.memory[s], int(known.constants[s, STEPS])
    if near(hold_s, m[STRETCHED]):
        return
    m[STRETCHED] = hold_s
    edges, means, levels = known.edges[s], known.means[s], known.levels[s]
    edges[: steps + 1] = own_s * known.unit_edges[s, : steps + 1]
    means[:steps] = own_s * known.unit_means[s, :steps]
    m[HOLD_CV] = known.constants[s, CV]
    if hold_s <= own_s:
        return
    for k in range(len(known.caller)):
        if known.caller[k] == s:
            _add_call(known.per_request[k], known.callee[k], known, levels, edges, means)
    square = 0.0
    for i in range(steps):
        square += (levels[i + 1] - levels[i]) * means[i] * means[i]
    m[HOLD_CV] = math.sqrt(max(0.0, square / (hold_s * hold_s) - 1.0))


@compiled
def _add_call(per_request: float, callee: int, known: Known, levels: _F8, edges: _F8, means: _F8) -> None:
    """Add the callee's quantiles, scaled to its mean time, to a caller's strata."""
    m, shape = known.memory[callee], known.shape[callee]
    quantiles = np.zeros(len(levels))
    if shape.sum() > 0.0:
        for i in range(len(levels)):
            quantiles[i] = max(0.0, percentile(shape, levels[i] * (1.0 - 1e-12)) - m[WAY_S])
    mean = 0.0
    for i in range(len(means)):
        mean += (levels[i + 1] - levels[i]) * 0.5 * (quantiles[i] + quantiles[i + 1])
    if mean > 0.0:
        quantiles *= m[NOW_S] / mean
    else:
        quantiles[:] = m[NOW_S]
    for i in range(len(means)):
        means[i] += per_request * 0.5 * (quantiles[i] + quantiles[i + 1])
    edges += per_request * quantiles
