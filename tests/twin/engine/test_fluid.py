"""The fluid model of services: conservation, agreement with queues, callers and callees, retries and users."""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.replicas.erlang import erlang_c
from twin.engine.fluid import Fluid
from twin.engine.serving import (
    ARRIVED,
    BUSY_S,
    DROPPED,
    FAILED,
    INSIDE_S,
    LATE,
    READY_S,
    RESPONSE_S,
    RETRIED,
    SERVED,
    WAIT_S,
    percentile,
)
from twin.engine.state import READY, State, initial
from twin.errors import UsageError
from twin.types import Call, Cluster, Service


def service(name: str = "a", **fields: Any) -> Service:
    """One replica: 25 rps, 4 at a time, 0.16 s each, SLO 0.5 s, timeout 10 s."""
    values: dict[str, Any] = {
        "unit_rps": 1.0,
        "cpu_cores": 1.0,
        "memory_gib": 1.0,
        "service_time_s": 0.16,
        "concurrency": 4,
        "slo_s": 0.5,
        "service_cv": 1.0,
        "distribution": "gamma",
    }
    return Service(name=name, **{**values, **fields})


class World:
    """A state and its fluid, with a clock."""

    def __init__(self, *services: Service) -> None:
        self.state: State = initial(Cluster("c", (), services))
        self.fluid = Fluid(Cluster("c", (), services), self.state)
        self.now = 0.0

    def set(self, k: int, rate: float, ready: int, speed: float = 1.0) -> None:
        self.state.rate_rps[k] = rate
        self.state.count[k, READY] = ready
        self.state.capacity[k] = ready * speed

    def serve(self, dt: float) -> np.ndarray:
        """The books of this step [services, BOOKS]."""
        before = self.state.books.copy()
        self.fluid.serve(self.now, self.now + dt)
        self.now += dt
        return self.state.books - before


def run(dt: float, rate: float, ready: int, queue: float = 0.0, pieces: int = 1, **fields: Any) -> World:
    """A service with all slots taken and a queue before them, after `dt` seconds."""
    world = World(service(**fields))
    world.set(0, rate, ready)
    world.state.inside[0] = ready * world_slots(fields) + queue
    for _ in range(pieces):
        world.serve(dt / pieces)
    return world


def world_slots(fields: dict[str, Any]) -> int:
    return fields.get("concurrency", 4)


flows = st.tuples(
    st.floats(0.01, 600), st.floats(0, 2000), st.integers(0, 60), st.floats(0, 20_000, allow_subnormal=False)
)


# ---------------------------------------------------------------- conservation


@given(flows)
def test_what_comes_in_goes_out_or_stays(flow: tuple[float, float, int, float]) -> None:
    """arrived = served + failed + dropped + growth of inside, no more is served than can be, nothing is negative."""
    dt, rate, ready, queue = flow
    world = run(dt, rate, ready, queue)
    b, inside = world.state.books[0], world.state.inside[0]
    came = b[ARRIVED] + queue + 4 * ready
    assert came == pytest.approx(b[SERVED] + b[FAILED] + b[DROPPED] + inside, rel=1e-9, abs=1e-9)
    assert b[SERVED] <= ready * 25.0 * dt * (1 + 1e-9) + 1e-6
    assert b[BUSY_S] <= b[READY_S] * (1 + 1e-9) + 1e-6
    assert b[LATE] + b[DROPPED] <= came + 1e-6
    assert (b >= 0).all()
    assert inside >= world.state.queue[0] >= 0


steps = st.lists(
    st.tuples(
        st.floats(0.1, 60),  # seconds
        st.floats(0, 400),  # rate or users
        st.integers(0, 12),  # replicas
        st.floats(0, 1.5),  # speed
        st.floats(0, 1),  # share of errors
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(steps, st.integers(0, 3), st.sampled_from(["open", "closed"]), st.floats(0, 5), st.floats(0.0, 3.0))
def test_conservation_through_any_life(life: list, retries: int, load: Any, pause: float, timeout: float) -> None:
    """Open or closed, with retries, errors, slow and missing replicas, a caller and a callee: books close exactly."""
    world = World(
        service(retries=retries, load=load, think_s=pause, backoff_s=pause, timeout_s=timeout, calls=(Call("b", 1.5),)),
        service("b", retries=retries, service_cv=0.0, timeout_s=timeout),
    )
    for dt, rate, ready, speed, errors in life:
        world.set(0, rate, ready, speed)
        world.set(1, 3.0, ready, speed)
        world.state.error_share[:] = errors
        step = world.serve(dt)
        assert np.isfinite(world.state.books).all()
        assert (step >= -1e-9).all()
    b, inside = world.state.books, world.state.inside
    out = b[:, SERVED] + b[:, FAILED] + b[:, DROPPED] + inside
    np.testing.assert_allclose(b[:, ARRIVED], out, rtol=1e-9, atol=1e-9)
    assert (b[:, RETRIED] <= b[:, DROPPED] * (1 + 1e-9) + 1e-9).all()
    assert (b[:, RETRIED] <= retries * (b[:, ARRIVED] - b[:, RETRIED]) * (1 + 1e-9) + 1e-9).all()


@given(st.floats(1, 300), st.floats(0, 2000), st.integers(1, 60), st.floats(0, 5_000))
def test_two_halves_make_a_whole(dt: float, rate: float, ready: int, queue: float) -> None:
    """Integrating in two pieces gives the same queue, service and lateness: the closed form is exact in time."""
    one, two = run(dt, rate, ready, queue), run(dt, rate, ready, queue, pieces=2)
    assert two.state.inside[0] == pytest.approx(one.state.inside[0], rel=1e-6, abs=1e-3)
    for book in (ARRIVED, SERVED, DROPPED, LATE, BUSY_S):
        assert two.state.books[0, book] == pytest.approx(one.state.books[0, book], rel=1e-6, abs=1e-2)


@pytest.mark.parametrize("pieces", [4, 60])
def test_the_books_do_not_depend_on_who_looks_how_often(pieces: int) -> None:
    one, many = run(60.0, 1237.5, 50), run(60.0, 1237.5, 50, pieces=pieces)
    assert many.state.books[0] == pytest.approx(one.state.books[0], rel=1e-9)
    assert many.state.responses[0] == pytest.approx(one.state.responses[0], rel=1e-9)


# ---------------------------------------------------------------- the flow


def test_overload_grows_the_queue_on_a_straight_line() -> None:
    world = run(10.0, 100.0, 2)
    assert world.state.queue[0] == pytest.approx((100 - 50) * 10)
    assert world.state.books[0, SERVED] == pytest.approx(500)


def test_requests_beyond_the_timeout_are_dropped() -> None:
    """50 rps of capacity and a timeout of 10 s hold at most 500 requests."""
    world = run(100.0, 100.0, 2)
    assert world.state.queue[0] == pytest.approx(500)
    assert world.state.books[0, DROPPED] == pytest.approx(100 * 100 - 50 * 100 - 500)


def test_late_begins_when_the_wait_exceeds_what_the_slo_leaves() -> None:
    """Net growth 50,000 rps, capacity as much: the wait passes 0.34 s after 0.34 s of 1 s, give or take the noise."""
    world = run(1.0, 100_000.0, 2000, service_cv=0.0)
    assert world.state.books[0, LATE] == pytest.approx(100_000 * (1 - 0.34), rel=0.02)


def test_without_replicas_everyone_is_late_or_dropped() -> None:
    world = run(60.0, 10.0, 0)
    books = world.state.books[0]
    assert books[SERVED] == 0
    assert books[LATE] + books[DROPPED] == pytest.approx(600)
    assert world.state.queue[0] == pytest.approx(250)


def test_idle_is_idle() -> None:
    world = World(service())
    world.set(0, 0.0, 3)
    books = world.serve(60.0)[0]
    assert books[READY_S] == 180
    assert (np.delete(books, READY_S) == 0).all()
    assert world.state.responses.sum() == 0


def test_a_replica_that_died_gives_its_requests_back() -> None:
    """In the fluid nothing is tied to a replica: what it was serving waits again, nothing is lost."""
    world = World(service())
    world.set(0, 90.0, 4)
    world.serve(30.0)
    inside, books = world.state.inside.copy(), world.state.books.copy()
    world.fluid.lose(0, 0.5)
    assert world.state.inside == pytest.approx(inside)
    assert world.state.books == pytest.approx(books)
    world.set(0, 0.0, 2)
    assert world.serve(1e-6)[0, DROPPED] == 0
    assert world.state.queue[0] == pytest.approx(inside[0] - 8, abs=1e-3)


# ---------------------------------------------------------------- agreement with queues


@pytest.mark.parametrize("servers", [1, 2, 3, 8, 40, 200])
@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9, 0.95])
def test_the_mean_wait_is_erlangs(servers: int, rho: float) -> None:
    """With service times so short that a minute is long: WAIT_S / ARRIVED of M/M/c exactly."""
    world = World(service(service_time_s=1e-4, concurrency=1, slo_s=1.0))
    world.set(0, servers * rho * 1e4, servers)
    books = world.serve(60.0)[0]
    exact = erlang_c(servers, servers * rho) * 1e-4 / (servers * (1 - rho))
    assert books[WAIT_S] / books[ARRIVED] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("cv", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_one_server_waits_as_pollaczek_and_khinchine_say(cv: float, rho: float) -> None:
    world = World(service(service_time_s=1e-4, concurrency=1, slo_s=1.0, service_cv=cv))
    world.set(0, rho * 1e4, 1)
    books = world.serve(60.0)[0]
    assert books[WAIT_S] / books[ARRIVED] == pytest.approx(rho * (1 + cv * cv) / (2 * (1 - rho)) * 1e-4, rel=1e-9)


def simulated(servers: int, rate: float, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Response times of a first-come-first-served queue, event by event."""
    free = [0.0] * servers
    arrivals = np.cumsum(rng.exponential(1.0 / rate, len(times)))
    answers = np.empty(len(times))
    for i, (arrived, service_s) in enumerate(zip(arrivals.tolist(), times.tolist(), strict=True)):
        done = max(free[0], arrived) + service_s
        heapq.heapreplace(free, done)
        answers[i] = done - arrived
    return answers


@pytest.mark.parametrize(
    ("servers", "rho", "cv", "tolerance"),
    [(4, 0.7, 1.0, 0.05), (32, 0.9, 1.0, 0.05), (1, 0.6, 1.0, 0.05), (1, 0.7, 0.7, 0.05), (8, 0.8, 0.5, 0.05)],
)
def test_percentiles_are_those_of_a_simulation(servers: int, rho: float, cv: float, tolerance: float) -> None:
    """Median, 95th and 99th percentile, and the share beyond the SLO, of 300,000 requests."""
    rng = np.random.default_rng(7)
    times = rng.gamma(1 / cv**2, 0.01 * cv**2, 300_000)
    answers = simulated(servers, rho * servers / 0.01, times, rng)
    slo = float(np.quantile(answers, 0.97))
    world = World(service(service_time_s=0.01, concurrency=servers, slo_s=slo, service_cv=cv))
    world.set(0, rho * servers / 0.01, 1)
    books = world.serve(60.0)[0]
    for level in (0.5, 0.95, 0.99):
        expected = float(np.quantile(answers, level))
        assert percentile(world.state.responses[0], level) == pytest.approx(expected, rel=tolerance)
    assert books[LATE] / books[ARRIVED] == pytest.approx(0.03, abs=0.005)


@pytest.mark.parametrize("rho", [0.97, 0.995, 0.999, 0.9999, 1.001])
def test_a_minute_near_saturation_is_neither_paradise_nor_hell(rho: float) -> None:
    """Against event simulations of M/M/200 (50 replicas), 60 s after an empty start: late within 0.2."""
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        number = round(60 * 1250 * rho)
        shares.append(np.mean(simulated(200, 1250 * rho, rng.exponential(0.16, number), rng) > 0.8))
    world = World(service(slo_s=0.8))
    world.set(0, 1250 * rho, 50)
    books = world.serve(60.0)[0]
    assert books[LATE] / books[ARRIVED] == pytest.approx(np.mean(shares), abs=0.2)


@pytest.mark.parametrize("cv", [0.0, 1.0])
def test_lateness_does_not_jump_at_saturation(cv: float) -> None:
    shares = []
    for rho in np.linspace(0.98, 1.02, 81):
        books = run(60.0, 50 * 25.0 * rho, 50, service_cv=cv).state.books[0]
        shares.append((books[LATE] + books[DROPPED]) / books[ARRIVED])
    assert (np.diff(shares) >= -1e-9).all()
    assert np.diff(shares).max() < 0.1


@pytest.mark.parametrize("fields", [{}, {"service_cv": 0.4, "distribution": "lognormal"}, {"service_cv": 0.0}])
def test_littles_law(fields: dict[str, Any]) -> None:
    """Requests inside, integrated over a day of changing load, are arrivals x response time: within 1 %."""
    world = World(service(**fields))
    for minute in range(1440):
        world.set(0, 500 * (0.6 + 0.42 * math.sin(minute / 100)), 20)
        world.serve(60.0)
    books = world.state.books[0]
    assert books[INSIDE_S] == pytest.approx(books[RESPONSE_S], rel=0.01)
    assert books[WAIT_S] > 0.05 * books[RESPONSE_S]


def test_the_histogram_has_the_mean_of_the_books() -> None:
    """Buckets are 10 % wide: the mean of their middles is within 3 % of RESPONSE_S / requests, with the way added."""
    from twin.engine.serving import EDGES_S

    world = World(service())
    world.state.way_s[0] = 0.05
    world.set(0, 23.0, 1)
    books = world.serve(60.0)[0]
    counts = world.state.responses[0]
    middles = np.concatenate([[0.0], np.sqrt(EDGES_S[1:] * EDGES_S[:-1]), [0.0]])
    assert counts.sum() == pytest.approx(books[ARRIVED] - books[DROPPED], rel=1e-3)
    assert (counts * middles).sum() / counts.sum() == pytest.approx(books[RESPONSE_S] / counts.sum() + 0.05, rel=0.03)


# ---------------------------------------------------------------- order


@given(st.integers(1, 60), st.floats(0.05, 0.97), st.floats(1.001, 1.5))
def test_more_demand_is_never_better(ready: int, rho: float, more: float) -> None:
    rate = ready * 25.0 * rho
    share = [run(60.0, r, ready).state.books[0] for r in (rate, rate * more)]
    light, heavy = ((b[LATE] + b[DROPPED]) / b[ARRIVED] for b in share)
    assert heavy >= light * (1 - 1e-6) - 1e-9


@given(st.integers(1, 59), st.floats(1.0, 1500.0), st.integers(1, 5))
def test_more_replicas_are_never_later(ready: int, rate: float, more: int) -> None:
    few, many = (run(60.0, rate, n, concurrency=4).state.books[0] for n in (ready, ready + more))
    assert (many[LATE] + many[DROPPED]) <= (few[LATE] + few[DROPPED]) * (1 + 1e-6) + 1e-6 * rate


def test_slow_replicas_answer_later_and_serve_less() -> None:
    world = World(service(service_cv=0.0), service("b", service_cv=0.0))
    world.set(0, 20.0, 4)
    world.set(1, 20.0, 4, speed=0.5)
    books = world.serve(60.0)
    middle = [percentile(world.state.responses[k], 0.5) for k in (0, 1)]
    assert middle == pytest.approx([0.16, 0.32], rel=0.1)
    assert books[1, BUSY_S] == pytest.approx(2 * books[0, BUSY_S], rel=0.01)


def test_errors_fail_their_share() -> None:
    world = World(service())
    world.state.error_share[0] = 0.25
    world.set(0, 50.0, 4)
    books = world.serve(60.0)[0]
    assert books[FAILED] == pytest.approx((books[FAILED] + books[SERVED]) / 4)
    assert world.state.responses.sum() == pytest.approx(0.75 * books[ARRIVED])


# ---------------------------------------------------------------- retries, users, calls


def storm(retries: int) -> tuple[list[float], World]:
    """Queue lengths after each 15 s: 5 minutes at half capacity, 2 minutes with a fifth of it, then whole again."""
    world = World(service(retries=retries, backoff_s=10.0, timeout_s=5.0))
    queues = []
    for step in range(60):
        world.set(0, 170.0, 2 if 20 <= step < 28 else 8)
        world.serve(15.0)
        queues.append(float(world.state.queue[0]))
    return queues, world


def test_a_retry_storm_keeps_the_queue_full_for_longer() -> None:
    calm, stormy = (sum(q > 1.0 for q in storm(n)[0]) for n in (0, 5))
    assert calm >= 8
    assert stormy >= calm + 3


def test_without_capacity_loss_retries_change_nothing() -> None:
    books = []
    for retries in (0, 3):
        world = World(service(retries=retries))
        world.set(0, 50.0, 8)
        books.append(world.serve(600.0))
    assert books[0] == pytest.approx(books[1])


@pytest.mark.parametrize("retries", [1, 4])
def test_nobody_asks_more_often_than_allowed(retries: int) -> None:
    world = World(service(retries=retries, backoff_s=0.5))
    for _ in range(200):
        world.set(0, 10.0, 0)
        world.serve(15.0)
    books = world.state.books[0]
    outside = books[ARRIVED] - books[RETRIED]
    assert outside == pytest.approx(10.0 * 3000)
    assert 0.9 * retries < books[RETRIED] / outside <= retries


@pytest.mark.parametrize("users", [10, 100, 1000])
def test_users_of_a_closed_load_are_inside_or_think(users: int) -> None:
    """X = N / (Z + R), far below and far above saturation (4 replicas: 100 rps)."""
    world = World(service(load="closed", think_s=2.0, timeout_s=60.0))
    world.set(0, users, 4)
    for _ in range(100):
        world.serve(15.0)
    books = world.serve(15.0)[0]
    rate = books[ARRIVED] / 15.0
    assert rate * (2.0 + books[RESPONSE_S] / books[ARRIVED]) == pytest.approx(users, rel=0.02)
    assert rate <= 100.0 * (1 + 1e-6)
    assert world.state.inside[0] <= users
    if users == 1000:
        assert rate == pytest.approx(100.0, rel=1e-3)
        assert world.state.inside[0] == pytest.approx(800, rel=0.02)


def test_users_without_any_replica_all_wait_or_give_up() -> None:
    world = World(service(load="closed", think_s=0.0))
    world.set(0, 50.0, 0)
    for _ in range(20):
        world.serve(15.0)
    assert world.state.inside[0] <= 50.0 * (1 + 1e-6)
    assert np.isfinite(world.state.books).all()


def shop() -> World:
    return World(
        service("back", service_time_s=0.05, slo_s=0.4, unit_rps=0.0, timeout_s=5.0),
        service("front", service_time_s=0.05, slo_s=1.0, calls=(Call("back", 2.0),)),
    )


def test_calls_arrive_and_take_their_time() -> None:
    """A caller's requests make their calls, and hold their slots for their own time and that of two calls."""
    world = shop()
    world.set(1, 40.0, 4)
    world.set(0, 0.0, 8)
    for _ in range(10):
        world.serve(15.0)
    back, front = world.serve(15.0)
    assert back[ARRIVED] == pytest.approx(2 * front[ARRIVED], rel=1e-3)
    own = front[RESPONSE_S] - front[WAIT_S]
    assert own / front[ARRIVED] == pytest.approx(0.05 + 2 * back[RESPONSE_S] / back[ARRIVED], rel=1e-2)
    assert front[BUSY_S] * 4 == pytest.approx(own, rel=1e-2)
    assert percentile(world.state.responses[1], 0.5) > percentile(world.state.responses[0], 0.5) + 0.05


def test_a_slow_callee_backs_up_its_callers() -> None:
    """The front has room to spare, but waits for a back at a tenth of its speed: its own queue grows."""
    world = shop()
    world.set(1, 80.0, 4)
    world.set(0, 0.0, 8)
    world.serve(60.0)
    assert world.state.queue[1] == 0
    world.set(0, 0.0, 8, speed=0.1)
    late = world.serve(120.0)[1]
    assert world.state.queue[1] > 50
    assert late[LATE] + late[DROPPED] > 0.5 * late[ARRIVED]
    world.set(0, 0.0, 8)
    world.serve(120.0)
    assert world.state.queue[1] == pytest.approx(0, abs=1e-6)


def test_a_call_that_fails_fails_the_request() -> None:
    world = shop()
    world.set(1, 40.0, 4)
    world.set(0, 0.0, 8)
    world.state.error_share[0] = 0.1
    for _ in range(10):
        world.serve(15.0)
    front = world.serve(15.0)[1]
    assert front[FAILED] / (front[FAILED] + front[SERVED]) == pytest.approx(1 - 0.9**2, rel=1e-2)


def test_calls_in_a_circle_are_refused() -> None:
    services = (
        service("a", calls=(Call("b"),)),
        service("b", calls=(Call("c"),)),
        service("c", calls=(Call("a"),)),
    )
    cluster = Cluster("c", (), services)
    with pytest.raises(UsageError, match="a -> b -> c -> a"):
        Fluid(cluster, initial(cluster))


def test_the_same_life_gives_the_same_bytes() -> None:
    assert storm(3)[1].state.books.tobytes() == storm(3)[1].state.books.tobytes()
