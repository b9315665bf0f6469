"""Chance in the fluid model of services: the law of waits, and the response times of a step's arrivals.

What the laws are, and what is left out, is told at `twin.engine.fluid`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from twin.engine.erlang import (
    above,
    compiled,
    inlined,
    law,
    longer,
    mean_patient_wait_s,
    noise_mean,
    noise_mean_between,
    trapezoid,
    waits_free,
    waits_longer,
    waits_on_line,
)
from twin.engine.fluid_state import (
    ASKED,
    DECAY,
    DENSITY,
    END,
    FIRST,
    HOLD_CV,
    HOLD_S,
    LATE_SHARE,
    LEAVES,
    MEAN_WAIT_S,
    NOISE,
    NOW_S,
    PHASE,
    SLO_S,
    SLOTS,
    STEPS,
    TIMEOUT_S,
    WAY_S,
    Known,
    Open,
)
from twin.engine.serving import BUCKETS, EDGES_S, LATE, RESPONSE_S, WAIT_S, bucket

SAME = 1e-7
"""A relative difference that changes nothing."""

_F8 = NDArray[np.float64]
_HORIZON_S = 60.0  # rates hold that long: no queue comes nearer to its steady state
_POINTS = 96  # of the tabulated waits
_RARE = 1e-6  # share of requests whose longer waits are left out of the tables
_NOTHING, _FREE, _FULL, _LINE = 0.0, 1.0, 2.0, 3.0  # what the response times were worked out for: values of PHASE


@inlined
def near(one: float, other: float) -> bool:
    """Are the two so near to each other that nothing has to be worked out anew?"""
    return abs(one - other) <= SAME * abs(one)


@inlined
def remember(asked: float, slots: int, hold_s: float, c: _F8, m: _F8) -> None:
    """Work out the law of waits at that rate, unless it is known."""
    if slots == m[SLOTS] and near(asked, m[ASKED]) and near(hold_s, m[HOLD_S]):
        return
    m[ASKED], m[SLOTS], m[HOLD_S], m[PHASE] = asked, slots, hold_s, _NOTHING
    m[DENSITY] = m[DECAY] = m[LEAVES] = 0.0
    m[NOISE] = 2.0 * math.sqrt(0.5 * (1.0 + m[HOLD_CV] ** 2) * asked * _HORIZON_S)
    if asked <= 0.0 or slots == 0:
        return
    timeout_s, capacity = c[TIMEOUT_S], slots / hold_s
    leaves, m[DENSITY], m[DECAY] = law(slots, asked * hold_s, hold_s, m[HOLD_CV], timeout_s)
    by_chance = min(leaves - max(0.0, 1.0 - capacity / asked), math.erfc(timeout_s * capacity / m[NOISE]))
    m[LEAVES] = by_chance if by_chance > 1e-12 else 0.0


@inlined
def answers(
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
    timeout_s = c[TIMEOUT_S]
    if slots == 0:
        _stranded(admitted * line_s, timeout_s, hold_s, way_s, right, state.books[s], state.responses[s])
        m[NOW_S] = 0.5 * (m[NOW_S] + timeout_s + hold_s)
        return 0.5 * (low + high) * line_s + high * full_s
    capacity, waited, now_s = slots / hold_s, 0.0, 0.0
    if line_s > 0.0:
        queue = 0.5 * (low + high) + noise_mean_between(low, high, m[NOISE])
        wait_s = min(timeout_s, queue / capacity)
        if admitted > 0.0:
            wait_s = _line(s, low, high, wait_s, capacity, way_s, known)
            _book(s, admitted * line_s, wait_s, hold_s, right, state, known)
        waited += wait_s * capacity * line_s
        now_s = min(timeout_s, (high + noise_mean(high, m[NOISE])) / capacity)
    if free_s > 0.0 and admitted > 0.0:
        _steady(s, _FREE, capacity, way_s, known)
        _book(s, admitted * free_s, m[MEAN_WAIT_S], hold_s, right, state, known)
        waited += m[MEAN_WAIT_S] * admitted * free_s
        now_s = now_s if high > 0.0 else m[MEAN_WAIT_S]
    if full_s > 0.0:
        _steady(s, _FULL, capacity, way_s, known)
        _book(s, capacity * full_s, m[MEAN_WAIT_S], hold_s, right, state, known)
        waited += m[MEAN_WAIT_S] * capacity * full_s
        now_s = m[MEAN_WAIT_S]
    m[NOW_S] = 0.5 * (m[NOW_S] + now_s + hold_s)
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
    books[LATE] += number * right * m[LATE_SHARE]
    for k in range(int(m[FIRST]), int(m[END])):
        state.responses[s, k] += number * right * known.shape[s, k]


@compiled
def _line(s: int, low: float, high: float, wait_s: float, capacity: float, way_s: float, known: Known) -> float:
    """Work out response times with a queue that moves from `low` to `high`; returns the mean wait."""
    c, m, levels = known.constants[s], known.memory[s], known.levels[s]
    noise, timeout_s = m[NOISE], c[TIMEOUT_S]
    top_s = min(timeout_s, (max(low, high) + 3.5 * noise) / capacity)
    waits = np.zeros(_POINTS + 1)
    for j in range(_POINTS + 1):
        waits[j] = waits_on_line(top_s * j / _POINTS, low, high, capacity, noise)
    late = 0.0
    for i in range(int(c[STEPS])):
        patient_s = c[SLO_S] - way_s - known.means[s, i]
        if patient_s < timeout_s:
            longer = waits_on_line(max(0.0, patient_s), low, high, capacity, noise)
            late += (levels[i + 1] - levels[i]) * longer
    m[LATE_SHARE], m[PHASE] = min(1.0, late), _LINE
    _spread(s, waits, top_s, way_s, known)
    return wait_s if top_s < timeout_s else trapezoid(waits, top_s)


@compiled
def _steady(s: int, phase: float, capacity: float, way_s: float, known: Known) -> None:
    """Work out response times under the steady law, unless known; in a free flow no minute's noise is exceeded."""
    c, m = known.constants[s], known.memory[s]
    if m[PHASE] == phase and near(way_s, m[WAY_S]):
        return
    timeout_s, density, decay = c[TIMEOUT_S], m[DENSITY], m[DECAY]
    waiting = waits_longer(0.0, density, decay, timeout_s)
    top_s = timeout_s
    if decay > 0.0:
        top_s = min(timeout_s, math.log(max(waiting, _RARE) / _RARE) / decay)
    noise_s = m[NOISE] / capacity
    bound = phase == _FREE and math.erfc(top_s / noise_s) < _RARE
    if bound:
        top_s = min(top_s, 3.5 * noise_s)
    waits = np.full(_POINTS + 1, waiting)
    if not bound and decay * (timeout_s - top_s) > 30.0:  # an exponential: nobody gives up
        waits *= np.exp(-decay * top_s / _POINTS * np.arange(_POINTS + 1))
    else:
        for j in range(_POINTS + 1):
            waits[j] = waits_free(top_s * j / _POINTS, density, decay, timeout_s, noise_s, bound)
    m[MEAN_WAIT_S] = trapezoid(waits, top_s) if bound else mean_patient_wait_s(density, decay, timeout_s)
    levels, patience_s = known.levels[s], c[SLO_S] - way_s
    steps = int(c[STEPS])
    late = (1.0 - waits[0]) * above(patience_s, levels[: steps + 1], known.edges[s, : steps + 1])
    for i in range(steps):
        patient_s = max(0.0, patience_s - known.means[s, i])
        late += (levels[i + 1] - levels[i]) * waits_free(patient_s, density, decay, timeout_s, noise_s, bound)
    m[LATE_SHARE], m[PHASE] = min(1.0, late), phase
    _spread(s, waits, top_s, way_s, known)


@compiled
def _spread(s: int, waits: _F8, top_s: float, way_s: float, known: Known) -> None:
    """Fill the service's `shape`: hold time + a wait with P(wait > j top_s / points) = `waits[j]` + the way."""
    m, shape = known.memory[s], known.shape[s]
    m[WAY_S], shape[:] = way_s, 0.0
    first = bucket(known.edges[s, 0] + way_s)
    m[FIRST], m[END] = first, BUCKETS
    steps = int(known.constants[s, STEPS])
    levels, edges, means = known.levels[s, : steps + 1], known.edges[s, : steps + 1], known.means[s, :steps]
    before = 1.0
    for k in range(first, BUCKETS - 1):
        after = longer(EDGES_S[k] - way_s, waits, top_s, levels, edges, means)
        if after < 1e-12:
            m[END] = k + 1
            break
        shape[k], before = before - after, after
    shape[int(m[END]) - 1] = before
