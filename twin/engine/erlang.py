"""Formulas of queues with many servers: steady waits, the flow through them, service times; compiled.

Steady waiting is one law: M/M/c with Poisson arrivals at rate r, servers that take `service_s` on average, and requests
that give up after a fixed patience (M/M/c+D; Barrer 1957, Gnedenko and Kovalenko 1968). Who arrives finds no wait with
a weight (1/B - 1) / m, or a wait w up to the patience with density exp(-(m - r) w), or gives up with weight
exp(-(m - r) patience) / m, where m = servers / service_s and B is Erlang's loss probability. Without end to patience
this is Erlang C, without patience it is Erlang B. Service times with another coefficient of variation stretch the
waits by (1 + cv^2) / 2 (Lee and Longton 1959; Allen-Cunneen): exact on average for one server
(Pollaczek-Khinchine) and for cv = 1.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twin import fleet
from twin.engine import serving
from twin.engine.compiling import compiler

LEVELS = np.concatenate([np.arange(0.0, 0.925, 0.05), [0.94, 0.97, 0.985, 0.995, 0.999, 1.0]])
"""Probabilities between the strata of service times: finer where the times are long."""

_F8 = NDArray[np.float64]
_ROOT_PI = math.sqrt(math.pi)

# the averages' kernel lies in this file and in those of `fluid`
_FLUID = [Path(__file__).with_name(f"{name}.py") for name in ("fluid", "fluid_state", "fluid_waits")]
_SOURCES = [Path(__file__), *_FLUID, Path(serving.__file__), Path(fleet.__file__)]
compiled = compiler(_SOURCES, _nrt=True)
inlined = compiler(_SOURCES, _nrt=True, forceinline=True)


@compiled
def inverse_b(servers: int, load: float) -> float:
    """1 / B of Erlang's loss formula; `load` > 0 in Erlangs. Infinite where B is too small for a number."""
    inverse = 1.0
    for n in range(1, servers + 1):
        inverse = 1.0 + inverse * n / load
    return inverse


@compiled
def law(servers: int, load: float, service_s: float, cv: float, patience_s: float) -> tuple[float, float, float]:
    """(share that gives up, density, decay per s) of the waits of M/G/c+D, at any load > 0.

    The other two describe those who stay: see `waits_longer` and `mean_patient_wait_s`.
    """
    stretch = 0.5 * (1.0 + cv * cv)
    pace = servers / service_s
    spare = (servers - load) / service_s
    patience = patience_s / stretch
    # beyond saturation all weights are taken relative to the end of patience, where most requests are
    start, end = (1.0, math.exp(-spare * patience)) if spare >= 0.0 else (math.exp(spare * patience), 1.0)
    prompt = (inverse_b(servers, load) - 1.0) / pace * start if start > 0.0 else 0.0
    stay = prompt + _area(spare, 0.0, patience)
    leave = end / pace
    density = 1.0 / (stretch * stay) if stay > 0.0 else 0.0
    return leave / (stay + leave), density, spare / stretch


@compiled
def waits_longer(wait_s: float, density: float, decay_hz: float, patience_s: float) -> float:
    """P(wait > wait_s) of a request that stays, for `wait_s` >= 0."""
    return density * _area(decay_hz, wait_s, patience_s) if wait_s < patience_s else 0.0


@inlined
def waits_free(wait_s: float, density: float, decay_hz: float, timeout_s: float, noise_s: float, bound: bool) -> float:
    """P(wait > wait_s) of a request that stays; with a `bound`, at most that of a driftless motion of that width."""
    steady = waits_longer(wait_s, density, decay_hz, timeout_s)
    return min(steady, math.erfc(wait_s / noise_s)) if bound else steady


@compiled
def mean_patient_wait_s(density: float, decay_hz: float, patience_s: float) -> float:
    """Mean wait of a request that stays, in s."""
    if density <= 0.0:
        return 0.0
    near = _moment(abs(decay_hz), patience_s)
    if decay_hz >= 0.0:
        return density * near
    return density * (patience_s * _area(decay_hz, 0.0, patience_s) - near)


@compiled
def _area(rate: float, low: float, high: float) -> float:
    """Integral of exp(-rate x) from `low` to `high`; of exp(-rate (x - high)) where the rate is negative."""
    steps = abs(rate) * (high - low)
    width = (high - low) if steps < 1e-12 else -math.expm1(-steps) / abs(rate)
    return width * math.exp(-rate * low) if rate > 0.0 else width


@compiled
def _moment(rate: float, high: float) -> float:
    """Integral of x exp(-rate x) from 0 to `high`, for a rate of at least 0."""
    y = rate * high
    if y < 1e-2:  # the closed form would cancel
        return high * high * (0.5 - y / 3.0 + y * y / 8.0 - y**3 / 30.0 + y**4 / 144.0)
    return (1.0 - math.exp(-y) * (1.0 + y)) / (rate * rate)


# ---------------------------------------------------------------- a queue that moves on a line


@compiled
def noise_mean(queue: float, noise: float) -> float:
    """Mean of |queue + noise| - queue."""
    if noise <= 0.0:
        return 0.0
    z = queue / noise
    return noise * math.exp(-z * z) / _ROOT_PI - queue * math.erfc(z)


@compiled
def noise_mean_between(low: float, high: float, noise: float) -> float:
    """The same, on average over queues between the two."""
    if noise <= 0.0 or abs(high - low) < 1e-4 * noise:
        return noise_mean(0.5 * (low + high), noise)
    return (_noise_area(high / noise) - _noise_area(low / noise)) * noise * noise / (high - low)


@compiled
def _noise_area(z: float) -> float:
    """Antiderivative of exp(-z^2) / sqrt(pi) - z erfc(z)."""
    return 0.25 * math.erf(z) - 0.5 * z * z * math.erfc(z) + 0.5 * z * math.exp(-z * z) / _ROOT_PI


@compiled
def _mean_erfc(near: float, far: float) -> float:
    """Mean of erfc between the two, near < far."""
    if near > 6.0 or far < -6.0:
        return 0.0 if near > 0.0 else 2.0
    if far - near < 1e-4:
        return math.erfc(0.5 * (near + far))
    return (_erfc_area(far) - _erfc_area(near)) / (far - near)


@compiled
def _erfc_area(z: float) -> float:
    return z * math.erfc(z) - math.exp(-z * z) / _ROOT_PI


@compiled
def waits_on_line(wait_s: float, low: float, high: float, capacity: float, noise: float) -> float:
    """P(|queue + noise| > capacity x wait), on average over queues between `low` and `high`."""
    y = wait_s * capacity
    near, far = min(low, high), max(low, high)
    return 0.5 * (_mean_erfc((y - far) / noise, (y - near) / noise) + _mean_erfc((y + near) / noise, (y + far) / noise))


@compiled
def flow(
    dt_s: float, x: float, rate_rps: float, slots: int, hold_s: float, longest: float
) -> tuple[float, float, float, float, float, float, float]:
    """(free_s, line_s, full_s, from, to, end, busy) after `dt_s` seconds from `x` requests inside.

    Seconds without a queue, with one on its straight line between the lengths `from` and `to`, and with the `longest`;
    requests inside at the `end`; slot-seconds in service.
    """
    room, net = float(slots), rate_rps - slots / hold_s
    free_s = line_s = full_s = low = high = 0.0
    left_s = dt_s
    if x > room and net < 0.0:  # the queue gets shorter, or ends
        low = x - room
        line_s = min(dt_s, low / -net)
        left_s -= line_s
        high = max(0.0, low + net * line_s) if left_s <= 0.0 else 0.0
        x = room + high
    busy = room * line_s
    if left_s > 0.0 and x <= room and (x < room or net <= 0.0):
        beyond = net * hold_s  # of the slots, where the flow tends to
        free_s = left_s
        if beyond > 0.0:
            free_s = min(left_s, hold_s * math.log((room + beyond - x) / beyond))
        gone = -math.expm1(-free_s / hold_s)
        busy += (room + beyond) * free_s + (x - room - beyond) * hold_s * gone
        x = room if free_s < left_s else min(x + (room + beyond - x) * gone, room)
        left_s -= free_s
    if left_s > 0.0:  # the queue grows, or stays
        low = x - room
        line_s = left_s if net <= 0.0 or low + net * left_s <= longest else max(0.0, longest - low) / net
        full_s = left_s - line_s
        high = longest if full_s > 0.0 else low + net * line_s
        x = room + high
        busy += room * left_s
    return free_s, line_s, full_s, low, high, x, busy


# ---------------------------------------------------------------- waiting and service together


def strata(distribution: str, cv: float) -> tuple[_F8, _F8]:
    """(edges [strata + 1], means [strata]) of times of mean 1: "gamma" or "lognormal", of variation `cv` > 0.

    The means are exact, so that theirs is 1; the outer edges put each outer mean in the middle of its stratum.
    """
    from scipy import special

    cv2 = cv**2
    inner = LEVELS[1:-1]
    if distribution == "gamma":
        edges = special.gammaincinv(1.0 / cv2, inner) * cv2
        below = special.gammainc(1.0 / cv2 + 1.0, edges / cv2)
    else:
        sigma = math.sqrt(math.log1p(cv2))
        edges = np.exp(sigma * special.ndtri(inner) - 0.5 * sigma * sigma)
        below = special.ndtr(special.ndtri(inner) - sigma)
    means = np.diff(np.concatenate([[0.0], below, [1.0]])) / np.diff(LEVELS)
    first, last = max(0.0, 2.0 * means[0] - edges[0]), 2.0 * means[-1] - edges[-1]
    return np.concatenate([[first], edges, [last]]), means


@compiled
def trapezoid(waits: _F8, top_s: float) -> float:
    """The mean of waits with P(wait > j top_s / points) = `waits[j]`."""
    return (waits.sum() - 0.5 * (waits[0] + waits[-1])) * top_s / (len(waits) - 1)


@inlined
def longer(time_s: float, waits: _F8, top_s: float, levels: _F8, edges: _F8, means: _F8) -> float:
    """P(service time + wait > time_s), service times given by their strata, waits by P(wait > j top_s / points)."""
    share = (1.0 - waits[0]) * above(time_s, levels, edges)
    if top_s <= 0.0:
        return share
    points = len(waits) - 1
    scale = points / top_s
    # strata so short that none waits long enough are passed over; those longer than the time count as a whole
    for i in range(_place(means, time_s - top_s), len(means)):
        place = (time_s - means[i]) * scale
        if place <= 0.0:
            return share + (1.0 - levels[i]) * waits[0]
        j = min(int(place), points - 1)
        share += (levels[i + 1] - levels[i]) * (waits[j] + (place - j) * (waits[j + 1] - waits[j]))
    return share


@inlined
def above(time_s: float, levels: _F8, edges: _F8) -> float:
    """P(service time > time_s), times spread evenly within their strata."""
    k = _place(edges, time_s)
    if k == 0:
        return 1.0
    if k == len(edges):
        return 0.0
    inner = (time_s - edges[k - 1]) / (edges[k] - edges[k - 1])
    return float(1.0 - levels[k - 1] - inner * (levels[k] - levels[k - 1]))


@inlined
def _place(ascending: _F8, value: float) -> int:
    """How many are at most the value."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low
