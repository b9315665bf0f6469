"""The service model: closed forms, conservation, and agreement with textbook queues."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.engine.queueing import (
    ARRIVED,
    BOOKS,
    BUSY_S,
    DROPPED,
    LATE,
    LATENCY,
    READY_S,
    SERVED,
    serve,
    wait_probability,
)

# one replica: 25 rps, 4 at a time, 0.16 s each, SLO 0.5 s, timeout 10 s
CONSTANTS = np.array([[25.0, 4.0, 0.16, 0.5, 10.0]])


def run(dt_s: float, rate: float, ready: int, queue: float = 0.0) -> tuple[float, np.ndarray]:
    q, books = np.array([queue]), np.zeros((1, BOOKS))
    serve(dt_s, np.array([rate]), np.array([ready]), CONSTANTS, q, books)
    return float(q[0]), books[0]


flows = st.tuples(
    st.floats(0.01, 600), st.floats(0, 2000), st.integers(0, 60), st.floats(0, 20_000, allow_subnormal=False)
)


@given(flows)
def test_conservation(flow: tuple[float, float, int, float]) -> None:
    """arrived = served + dropped + growth of the queue, and nothing is negative."""
    dt, rate, ready, queue = flow
    q, books = run(dt, rate, ready, queue)
    total = books[SERVED] + books[DROPPED] + (q - queue)
    assert books[ARRIVED] == pytest.approx(total, rel=1e-9, abs=1e-6)
    assert (books >= -1e-6).all()
    assert q >= 0


@given(flows)
def test_no_more_is_served_than_the_replicas_can(flow: tuple[float, float, int, float]) -> None:
    dt, rate, ready, queue = flow
    _, books = run(dt, rate, ready, queue)
    assert books[SERVED] <= ready * 25.0 * dt * (1 + 1e-9) + 1e-6
    assert books[BUSY_S] <= books[READY_S] * (1 + 1e-9) + 1e-6


@given(flows)
def test_no_more_is_late_or_dropped_than_came_or_waited(flow: tuple[float, float, int, float]) -> None:
    dt, rate, ready, queue = flow
    _, books = run(dt, rate, ready, queue)
    assert books[LATE] + books[DROPPED] <= books[ARRIVED] + queue + 1e-6


@given(st.floats(1, 300), st.floats(0, 2000), st.integers(1, 60), st.floats(0, 5_000))
def test_two_halves_make_a_whole(dt: float, rate: float, ready: int, queue: float) -> None:
    """Integrating in two pieces gives the same queue, service and lateness: the closed form is exact in time."""
    q_one, one = run(dt, rate, ready, queue)
    q_half, first = run(dt / 2, rate, ready, queue)
    q_two, second = run(dt / 2, rate, ready, q_half)
    assert q_two == pytest.approx(q_one, rel=1e-6, abs=1e-3)
    for book in (ARRIVED, SERVED, DROPPED, LATE, BUSY_S):
        assert first[book] + second[book] == pytest.approx(one[book], rel=1e-6, abs=1e-2)


def test_overload_grows_the_queue_on_a_straight_line() -> None:
    q, books = run(10.0, 100.0, 2)
    assert q == pytest.approx((100 - 50) * 10)
    assert books[SERVED] == pytest.approx(500)


def test_requests_beyond_the_timeout_are_dropped() -> None:
    """50 rps of capacity and a timeout of 10 s hold at most 500 requests."""
    q, books = run(100.0, 100.0, 2)
    assert q == pytest.approx(500)
    assert books[DROPPED] == pytest.approx(100 * 100 - 50 * 100 - 500)


def test_late_begins_when_the_wait_exceeds_what_the_slo_leaves() -> None:
    """Net growth 50,000 rps, capacity as much: the wait passes 0.34 s after 0.34 s of 1 s, give or take the spread."""
    _, books = run(1.0, 100_000.0, 2000)
    assert books[LATE] == pytest.approx(100_000 * (1 - 0.34), rel=0.1)


@pytest.mark.parametrize(
    ("rho", "simulated"), [(0.97, 0.0), (0.995, 0.0), (0.999, 0.051), (0.9999, 0.241), (1.001, 0.246)]
)
def test_a_minute_near_saturation_is_neither_paradise_nor_hell(rho: float, simulated: float) -> None:
    """Against an event simulation of M/M/200 (50 replicas, 60 s after a load of 0.93): within 0.25, and monotone."""
    _, books = run(60.0, 50 * 25.0 * rho, 50)
    assert books[LATE] / books[ARRIVED] == pytest.approx(simulated, abs=0.25)


def test_lateness_does_not_jump_at_saturation() -> None:
    shares = []
    for rho in np.linspace(0.98, 1.02, 81):
        _, books = run(60.0, 50 * 25.0 * rho, 50)
        shares.append(books[LATE] / books[ARRIVED])
    assert (np.diff(shares) >= -1e-9).all()
    assert np.diff(shares).max() < 0.2


@pytest.mark.parametrize("pieces", [1, 4, 60])
def test_the_books_do_not_depend_on_who_looks_how_often(pieces: int) -> None:
    q, books = np.array([0.0]), np.zeros((1, BOOKS))
    for _ in range(pieces):
        serve(60.0 / pieces, np.array([1237.5]), np.array([50]), CONSTANTS, q, books)
    _, whole = run(60.0, 1237.5, 50)
    assert books[0] == pytest.approx(whole, rel=1e-9)


def test_without_replicas_everyone_is_late_or_dropped() -> None:
    q, books = run(60.0, 10.0, 0)
    assert books[SERVED] == 0
    assert books[LATE] + books[DROPPED] == pytest.approx(600)
    assert q == pytest.approx(250)


def test_idle_is_idle() -> None:
    q, books = run(60.0, 0.0, 3)
    assert q == 0
    assert books[READY_S] == 180
    assert books[LATE] == books[LATENCY] == books[BUSY_S] == 0


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
def test_one_server_waits_as_in_mm1(rho: float) -> None:
    """For one server P(W > 0) = rho exactly (Erlang 1917)."""
    assert wait_probability(1.0, rho) == pytest.approx(rho)


def erlang_c(servers: int, rho: float) -> float:
    load = servers * rho
    inverse_b = 1.0
    for n in range(1, servers + 1):
        inverse_b = 1.0 + inverse_b * n / load
    b = 1.0 / inverse_b
    return b / (1.0 - rho * (1.0 - b))


@pytest.mark.parametrize("servers", [2, 8, 40, 160])
@pytest.mark.parametrize("rho", [0.7, 0.9, 0.98])
def test_the_approximation_is_near_erlang_c(servers: int, rho: float) -> None:
    """Sakasegawa against the exact Erlang-C: within 0.06 in probability over this grid."""
    assert wait_probability(servers, rho) == pytest.approx(erlang_c(servers, rho), abs=0.06)


@given(st.integers(1, 60), st.floats(0.05, 0.97), st.floats(1.001, 1.5))
def test_more_demand_is_never_better(ready: int, rho: float, more: float) -> None:
    rate = ready * 25.0 * rho
    _, light = run(60.0, rate, ready)
    _, heavy = run(60.0, rate * more, ready)
    share = [books[LATE] / books[ARRIVED] for books in (light, heavy)]
    assert share[1] >= share[0] - 1e-12 or math.isclose(*share, rel_tol=1e-6)
