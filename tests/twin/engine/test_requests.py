"""The request-level model against queueing theory, its conservation laws, and what single requests must meet."""

from __future__ import annotations

import copy
import heapq
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.engine.requests import Requests
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
    bucket,
)
from twin.engine.state import READY, State, initial
from twin.errors import SimulationError, UsageError
from twin.types import Call, Cluster, Service

PATIENT_S = 1e6
EXPONENTIAL = {"service_cv": 1.0, "distribution": "gamma"}


def service(name: str = "web", service_time_s: float = 1.0, **fields) -> Service:
    """A service without demand of its own, patient unless told otherwise."""
    fields = {"concurrency": 1, "slo_s": 2 * service_time_s, "timeout_s": PATIENT_S} | fields
    return Service(name, 1.0, 1.0, 1.0, service_time_s, **fields)


@dataclass
class World:
    """Services with their state, and the model that moves them."""

    state: State
    model: Requests
    now_s: float = 0.0

    def pass_s(self, seconds: float) -> np.ndarray:
        """Let time pass; the books."""
        self.model.serve(self.now_s, self.now_s + seconds)
        self.now_s += seconds
        return self.state.books

    def drain(self) -> np.ndarray:
        """No more demand, enough servers: everyone leaves."""
        self.state.rate_rps[:] = 0.0
        give(self.state, [100] * len(self.state.rate_rps))
        return self.pass_s(1e5)


def give(state: State, replicas: list[int], speed: float = 1.0) -> None:
    state.count[:, READY] = replicas
    state.capacity[:] = np.array(replicas) * speed


def world(*services: Service, rates: list[float], replicas: list[int], seed: int = 1, recorded=None) -> World:
    cluster = Cluster("test", (), services)
    state = initial(cluster)
    state.rate_rps[:] = rates
    give(state, replicas)
    return World(state, Requests(cluster, state, seed, recorded))


def replay(times: list[float], works: list[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    return np.array(times), np.full(len(times), np.nan) if works is None else np.array(works)


def conserved(state: State) -> bool:
    books = state.books
    ended = books[:, SERVED] + books[:, DROPPED] + books[:, FAILED]
    return bool((books[:, ARRIVED] == ended + state.inside).all())


# ---------------------------------------------------------------- against theory


def erlang_c(servers: int, rho: float) -> float:
    """P(W > 0) in M/M/c."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = servers * rho * blocked / (k + servers * rho * blocked)
    return blocked / (1.0 - rho * (1.0 - blocked))


@pytest.mark.parametrize(("rho", "requests"), [(0.5, 2e6), (0.7, 2e6), (0.8, 3e6), (0.9, 6e6)])
@pytest.mark.parametrize("servers", [1, 2, 8, 64])
def test_mean_wait_is_that_of_erlang(servers, rho, requests):
    """M/M/c: C / (c mu - lambda), within 2 %; where next to nobody waits, within 5e-4 service times."""
    w = world(service(**EXPONENTIAL), rates=[rho * servers], replicas=[servers])
    books = w.pass_s(requests / (rho * servers))[0]
    wait_s = erlang_c(servers, rho) / (servers * (1.0 - rho))
    assert books[WAIT_S] / books[ARRIVED] == pytest.approx(wait_s, rel=0.02, abs=5e-4)
    assert books[BUSY_S] / books[READY_S] == pytest.approx(rho, rel=0.01)
    assert books[ARRIVED] == pytest.approx(requests, abs=5 * math.sqrt(requests))


@pytest.mark.parametrize(("cv", "distribution"), [(0.0, "gamma"), (0.5, "gamma"), (1.5, "lognormal")])
def test_one_server_waits_as_pollaczek_and_khinchine_say(cv, distribution):
    """M/G/1: rho / (1 - rho) x (1 + cv^2) / 2 service times."""
    w = world(service(service_cv=cv, distribution=distribution), rates=[0.7], replicas=[1])
    books = w.pass_s(3e6 / 0.7)[0]
    assert books[WAIT_S] / books[ARRIVED] == pytest.approx(0.7 / 0.3 * (1 + cv**2) / 2, rel=0.03)


@pytest.mark.parametrize(("servers", "rho", "patience_s"), [(1, 0.8, 2.0), (1, 1.5, 3.0), (8, 1.1, 0.5)])
def test_who_has_constant_patience_is_lost_as_theory_says(servers, rho, patience_s):
    """M/M/c+D: the offered wait has density lambda p(c-1) exp(-(c mu - lambda) x) up to the patience (Barrer 1957)."""
    w = world(service(**EXPONENTIAL, timeout_s=patience_s), rates=[rho * servers], replicas=[servers])
    books = w.pass_s(1e6 / (rho * servers))[0]
    load = rho * servers
    terms = np.array([load**k / math.factorial(k) for k in range(servers)])
    full = math.exp(-(servers - load) * patience_s)
    above = load * terms[-1] * full / servers
    total = terms.sum() + load * terms[-1] * (1.0 - full) / (servers - load) + above
    assert books[DROPPED] / books[ARRIVED] == pytest.approx(above / total, rel=0.02)


@pytest.mark.parametrize(("users", "servers", "think_s"), [(10, 1, 5.0), (20, 2, 15.0), (60, 8, 4.0)])
def test_users_who_think_get_the_throughput_of_the_machine_repairman(users, servers, think_s):
    """M/M/c//N, exactly solved."""
    w = world(service(**EXPONENTIAL, load="closed", think_s=think_s), rates=[users], replicas=[servers])
    weights = [1.0]
    for n in range(1, users + 1):
        weights.append(weights[-1] * (users - n + 1) / think_s / min(n, servers))
    served = np.minimum(np.arange(users + 1), servers)
    throughput_rps = (served * weights).sum() / sum(weights)
    w.pass_s(1000.0)
    before = w.state.books[0, SERVED]
    assert (w.pass_s(2e5)[0, SERVED] - before) / 2e5 == pytest.approx(throughput_rps, rel=0.01)


def test_recorded_requests_wait_as_a_plain_simulation_of_them_says():
    """G/G/c with known arrivals and service times: first come, first served."""
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.exponential(1.0, 5000))
    works = rng.gamma(2.0, 1.3, 5000)
    w = world(service(), rates=[0.0], replicas=[3], recorded={0: (times, works)})
    free, wait_s = [0.0] * 3, 0.0
    for time_s, work_s in zip(times, works, strict=True):
        begin_s = max(time_s, heapq.heappop(free))
        heapq.heappush(free, begin_s + work_s)
        wait_s += begin_s - time_s
    books = w.pass_s(max(free) + 1.0)[0]
    assert books[SERVED] == 5000
    assert books[WAIT_S] == pytest.approx(wait_s, rel=1e-9)
    assert books[RESPONSE_S] == pytest.approx(wait_s + works.sum(), rel=1e-9)


# ---------------------------------------------------------------- laws

FRONT = service(
    "front", 0.1, slo_s=0.5, timeout_s=1.0, retries=2, backoff_s=0.3, calls=(Call("api", 1.5),), concurrency=4
)
API = service("api", 0.2, slo_s=0.5, timeout_s=0.7, retries=1, backoff_s=0.0, calls=(Call("db"),), service_cv=0.5)
DB = service("db", 0.05, timeout_s=0.4, **EXPONENTIAL)
DESK = service("desk", 0.3, load="closed", think_s=2.0, timeout_s=2.0, service_cv=2.0, calls=(Call("db", 0.5),))
SERVICES = (FRONT, API, DB, DESK)

steps = st.lists(
    st.tuples(
        st.floats(0.0, 20.0),
        st.lists(st.floats(0.0, 30.0), min_size=4, max_size=4),
        st.lists(st.integers(0, 6), min_size=4, max_size=4),
        st.floats(0.3, 1.0),
        st.floats(0.0, 1.0),
        st.integers(0, 3),
    ),
    max_size=12,
)


@given(steps, st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_nobody_is_lost_and_time_inside_is_counted_once(course, seed):
    """Arrived = served + dropped + failed + inside, always; Little's law once all are out."""
    w = world(*SERVICES, rates=[0.0] * 4, replicas=[1] * 4, seed=seed)
    before = w.state.books.copy()
    for seconds, rates, replicas, speed, share, loser in course:
        w.state.rate_rps[:] = rates
        give(w.state, replicas, speed)
        w.state.error_share[:] = share / 4
        books = w.pass_s(seconds)
        w.model.lose(loser, share)
        assert conserved(w.state)
        assert (books >= before).all()
        assert (w.state.queue >= 0).all()
        assert (w.state.queue <= w.state.inside).all()
        before = books.copy()
    books = w.drain()
    assert conserved(w.state)
    assert (w.state.inside == 0).all()
    np.testing.assert_allclose(books[:, INSIDE_S], books[:, RESPONSE_S], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(w.state.responses.sum(axis=1), books[:, SERVED])
    # who is inside and does not wait keeps a server
    serving_s = books[:, BUSY_S] * [s.concurrency for s in SERVICES]
    np.testing.assert_allclose(books[:, INSIDE_S], books[:, WAIT_S] + serving_s, rtol=1e-9, atol=1e-9)


def ran(cuts: list[float], seed: int = 3) -> World:
    w = world(*SERVICES, rates=[12.0, 2.0, 5.0, 20.0], replicas=[2, 3, 2, 3], seed=seed)
    w.state.error_share[:] = 0.05
    for cut, end in zip([0.0, *cuts], [*cuts, 100.0], strict=True):
        w.pass_s(end - cut)
    return w


@given(st.lists(st.floats(0.0, 100.0), max_size=30).map(sorted))
@settings(max_examples=30, deadline=None)
def test_a_stretch_cut_into_pieces_is_the_same_stretch(cuts):
    """Counts to the last one; sums of seconds up to rounding, which may also move an answer to the next bucket."""
    whole, cut = ran([]), ran(cuts)
    counts = [ARRIVED, SERVED, LATE, DROPPED, FAILED, RETRIED]
    np.testing.assert_array_equal(cut.state.books[:, counts], whole.state.books[:, counts])
    np.testing.assert_allclose(cut.state.books, whole.state.books, rtol=1e-9)
    np.testing.assert_array_equal(cut.state.inside, whole.state.inside)
    np.testing.assert_array_equal(cut.state.responses, whole.state.responses)


def test_the_seed_says_everything():
    one, same, other = ran([]), ran([]), ran([], seed=4)
    np.testing.assert_array_equal(one.state.books, same.state.books)
    assert (one.state.books[:, ARRIVED] != other.state.books[:, ARRIVED]).any()


def test_a_copy_lives_the_same_future():
    w = ran([])
    twin = copy.deepcopy(w)
    w.pass_s(50.0)
    assert (twin.state.books != w.state.books).any()
    twin.pass_s(50.0)
    np.testing.assert_array_equal(twin.state.books, w.state.books)


def test_arrivals_do_not_depend_on_what_is_done_about_them():
    """Under every controller the k-th request comes at the same time with the same work."""
    worlds = [world(service(**EXPONENTIAL, timeout_s=t), rates=[3.0], replicas=[r]) for r, t in ((50, 9.0), (2, 1.0))]
    for rate_rps in (3.0, 0.0, 0.7, 4.0, 2.0):
        for w in worlds:
            w.state.rate_rps[:] = rate_rps
            w.pass_s(60.0)
        assert worlds[0].state.books[0, ARRIVED] == worlds[1].state.books[0, ARRIVED]
    # with patience for all the work done is the same as well
    patient = [world(service(**EXPONENTIAL), rates=[3.0], replicas=[r]) for r in (50, 2)]
    for w in patient:
        w.pass_s(100.0)
        w.drain()
    assert patient[0].state.books[0, BUSY_S] == pytest.approx(patient[1].state.books[0, BUSY_S], rel=1e-12)


def test_a_change_of_rate_keeps_the_budget_of_the_next_arrival():
    """A rate that doubles each second and halves again brings Poisson arrivals at the mean rate, variance included."""
    counts = []
    for seed in range(300):
        w = world(service(), rates=[0.0], replicas=[9], seed=seed)
        for rate_rps in (1.0, 2.0) * 10:
            w.state.rate_rps[:] = rate_rps
            w.pass_s(1.0)
        counts.append(w.state.books[0, ARRIVED])
    assert np.mean(counts) == pytest.approx(30.0, abs=4 * math.sqrt(30 / 300))
    assert np.var(counts) == pytest.approx(30.0, rel=4 * math.sqrt(2 / 300))


# ---------------------------------------------------------------- calls


def test_a_chain_takes_as_long_as_its_links_together():
    """Own service, then each call in order; what is waited for is not the callee's way to users."""
    a = service("a", 0.1, slo_s=9.0, calls=(Call("b", 2.0), Call("c")))
    chain = (a, service("b", 0.2, calls=(Call("c"),)), service("c", 0.4))
    w = world(*chain, rates=[0.0] * 3, replicas=[5] * 3, recorded={0: replay([1.0])})
    w.state.way_s[:] = [0.05, 3.0, 3.0]
    books = w.pass_s(5.0)
    np.testing.assert_allclose(books[:, RESPONSE_S], [0.1 + 2 * 0.6 + 0.4, 2 * 0.6, 3 * 0.4])
    np.testing.assert_array_equal(books[:, SERVED], [1, 2, 3])
    assert w.state.responses[0, bucket(1.75)] == 1  # 1.7 s inside, 0.05 s on the way
    assert w.state.responses[1, bucket(0.6)] == 2


def test_a_slow_callee_backs_up_its_callers():
    """One server in front, held while the database works: the others wait although the front could serve them."""
    front = service("front", 0.1, slo_s=9.0, calls=(Call("db"),))
    w = world(front, service("db", 0.5), rates=[0, 0], replicas=[1, 9], recorded={0: replay([0.0, 0.0, 0.0])})
    books = w.pass_s(1.0)
    assert w.state.queue[0] == 1
    assert books[0, BUSY_S] == pytest.approx(1.0)
    books = w.pass_s(9.0)
    assert books[0, RESPONSE_S] == pytest.approx(0.6 + 1.2 + 1.8)
    assert books[1, WAIT_S] == 0.0


def test_calls_are_made_as_often_as_said_on_average():
    caller = service("a", 0.01, calls=(Call("b", 1.25), Call("c", 0.1)))
    w = world(caller, service("b", 0.01), service("c", 0.01), rates=[100, 0, 0], replicas=[99] * 3)
    books = w.pass_s(2000.0)
    assert books[1, ARRIVED] / books[0, ARRIVED] == pytest.approx(1.25, rel=0.01)
    assert books[2, ARRIVED] / books[0, ARRIVED] == pytest.approx(0.1, rel=0.03)


def test_who_calls_in_vain_fails():
    """Errors of the callee are failures of the caller, which has errors of its own too."""
    w = world(service("a", 0.1, calls=(Call("b", 2.0),)), service("b", 0.1), rates=[50, 0], replicas=[99, 99])
    w.state.error_share[:] = [0.1, 0.2]
    books = w.pass_s(2000.0)
    assert books[1, FAILED] / books[1, ARRIVED] == pytest.approx(0.2, rel=0.03)
    assert books[0, FAILED] / books[0, ARRIVED] == pytest.approx(1 - 0.8**2 * 0.9, rel=0.02)


def test_a_call_that_gives_up_fails_its_caller_after_its_tries():
    """The callee has no server: 1 s of patience, three tries, 0.5 s between them."""
    front = service("front", 0.1, calls=(Call("db"),))
    db = service("db", 0.1, timeout_s=1.0, retries=2, backoff_s=0.5)
    w = world(front, db, rates=[0, 0], replicas=[1, 0], recorded={0: replay([0.0])})
    books = w.pass_s(10.0)
    assert books[0, FAILED] == 1
    assert books[0, RESPONSE_S] == pytest.approx(0.1 + 3 * 1.0 + 2 * 0.5)
    np.testing.assert_array_equal(books[1, [ARRIVED, RETRIED, DROPPED]], [3, 2, 3])
    assert books[1, INSIDE_S] == pytest.approx(3.0)


def test_calls_in_a_circle_are_refused():
    ring = (service("a", calls=(Call("b"),)), service("b", calls=(Call("c"),)), service("c", calls=(Call("a"),)))
    with pytest.raises(UsageError, match=r"a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c"):
        world(*ring, rates=[0] * 3, replicas=[1] * 3)


# ---------------------------------------------------------------- patience, retries, errors


def test_who_waits_too_long_gives_up_at_that_moment():
    """One server for 10 s, patience 3 s: the second leaves at 4 s and is not counted as waiting from then on."""
    one = service(service_time_s=10.0, timeout_s=3.0)
    w = world(one, rates=[0], replicas=[1], recorded={0: replay([0.0, 1.0, 2.0])})
    w.pass_s(3.99)
    assert w.state.queue[0] == 2
    w.pass_s(0.02)
    assert w.state.queue[0] == 1
    books = w.pass_s(90.0)[0]
    assert (books[SERVED], books[DROPPED]) == (1, 2)
    assert books[WAIT_S] == pytest.approx(6.0)


def test_an_answer_at_the_last_moment_saves_who_would_give_up():
    w = world(service(timeout_s=1.0), rates=[0], replicas=[1], recorded={0: replay([0.0, 0.0])})
    assert w.pass_s(9.0)[0, SERVED] == 2


def test_a_retry_storm_is_counted_and_bounded():
    """Twice the demand that can be served: retries add arrivals, not requests from outside."""
    runs = []
    for retries in (0, 3):
        w = world(service(timeout_s=2.0, retries=retries, backoff_s=1.0), rates=[20.0], replicas=[10])
        runs.append(w.pass_s(3000.0)[0].copy())
        assert w.state.inside[0] < 10 + 2.0 * 20.0 * (retries + 1) * 1.5
    calm, storm = runs
    assert calm[RETRIED] == 0
    assert storm[ARRIVED] - storm[RETRIED] == calm[ARRIVED]
    assert storm[RETRIED] > calm[ARRIVED]
    assert storm[SERVED] == pytest.approx(calm[SERVED], rel=0.01)


def test_late_is_later_than_the_slo_with_the_way():
    times = replay([0.0, 10.0, 20.0], [0.3, 0.5, 0.7])
    w = world(service(service_time_s=0.1, slo_s=0.6), rates=[0], replicas=[1], recorded={0: times})
    w.state.way_s[:] = 0.2
    assert w.pass_s(30.0)[0, LATE] == 2


def test_without_servers_everyone_gives_up_and_the_process_goes_on():
    """No capacity shows in the books: nobody served, a queue no longer than patience allows, memory as bounded."""
    w = world(service(timeout_s=5.0), rates=[100.0], replicas=[0])
    w.pass_s(100.0)
    records = len(w.model._tables.requests)
    books = w.pass_s(10_000.0)[0]
    assert books[SERVED] == books[BUSY_S] == books[READY_S] == 0
    assert w.state.queue[0] == w.state.inside[0] == pytest.approx(500, abs=100)
    assert len(w.model._tables.requests) == records
    assert conserved(w.state)


def test_ready_replicas_without_speed_serve_nobody():
    w = world(service(timeout_s=1.0), rates=[5.0], replicas=[3])
    w.state.capacity[:] = 0.0
    books = w.pass_s(100.0)[0]
    assert books[SERVED] == 0
    assert books[READY_S] == pytest.approx(300.0)


# ---------------------------------------------------------------- replicas come, go, slow down, die


def test_who_is_in_service_is_finished_when_servers_go_and_new_ones_take_who_waits():
    one = service(service_time_s=10.0)
    w = world(one, rates=[0], replicas=[2], recorded={0: replay([0.0, 0.0, 0.0, 0.0])})
    w.pass_s(1.0)
    give(w.state, [1])
    books = w.pass_s(10.0)
    assert books[0, SERVED] == 2
    assert w.state.inside[0] - w.state.queue[0] == 1
    give(w.state, [2])
    w.pass_s(0.0)
    assert w.state.queue[0] == 0
    assert w.pass_s(10.5)[0, SERVED] == 4


def test_slow_replicas_take_longer_as_of_when_service_begins():
    w = world(service(), rates=[0], replicas=[2], recorded={0: replay([0.0, 1.0])})
    w.pass_s(0.5)
    give(w.state, [2], speed=0.25)
    books = w.pass_s(9.5)[0]
    assert books[RESPONSE_S] == pytest.approx(1.0 + 4.0)


@pytest.mark.parametrize(("share", "failed"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_a_share_of_those_in_service_dies_with_replicas(share, failed):
    """The others are finished, and nobody takes a dead place before the plant says how many are left."""
    one = service(service_time_s=10.0, concurrency=2)
    w = world(one, rates=[0], replicas=[4], recorded={0: replay([0.0] * 12)})
    w.pass_s(1.0)
    w.model.lose(0, share)
    assert w.state.books[0, FAILED] == failed
    assert (w.state.queue[0], w.state.inside[0]) == (4, 12 - failed)
    books = w.pass_s(99.0)[0]
    assert books[SERVED] == 12 - failed
    assert books[INSIDE_S] == pytest.approx(books[RESPONSE_S])


def test_a_dead_callee_fails_its_callers_and_a_dead_caller_leaves_its_call_behind():
    front, db = service("front", 0.1, calls=(Call("db"),)), service("db", 5.0)
    for dead, seen in ((1, [[0, 1], [0, 1]]), (0, [[0, 1], [1, 0]])):
        w = world(front, db, rates=[0, 0], replicas=[1, 1], recorded={0: replay([0.0])})
        w.pass_s(1.0)
        w.model.lose(dead, 1.0)
        books = w.pass_s(10.0)
        np.testing.assert_array_equal(books[:, [SERVED, FAILED]], seen)
        assert (w.state.inside == 0).all()


def test_a_call_that_paused_before_its_next_try_is_forgotten_with_its_caller():
    front, db = service("front", 0.1, calls=(Call("db"),)), service("db", 1.0, timeout_s=1.0, retries=5, backoff_s=60.0)
    w = world(front, db, rates=[0, 0], replicas=[1, 0], recorded={0: replay([0.0])})
    w.pass_s(5.0)
    w.model.lose(0, 1.0)
    books = w.pass_s(1000.0)
    np.testing.assert_array_equal(books[1, [ARRIVED, DROPPED, RETRIED]], [1, 1, 0])
    assert books[0, FAILED] == 1


def test_users_come_and_go_with_their_number():
    """Who goes still gets an answer; the rate of asking is that of those who stay, from the first moment on."""
    w = world(service(load="closed", think_s=9.0, service_cv=1.0), rates=[100], replicas=[200])
    w.pass_s(2000.0)
    for users in (30, 80):
        w.state.rate_rps[:] = users
        for spell_s in (10.0, 1000.0):
            before = w.state.books[0, ARRIVED]
            rate_rps = (w.pass_s(spell_s)[0, ARRIVED] - before) / spell_s
            assert rate_rps == pytest.approx(users / 10.0, rel=4 / math.sqrt(users / 10.0 * spell_s))
    w.state.rate_rps[:] = 0
    w.pass_s(200.0)
    assert w.state.inside[0] == 0


# ---------------------------------------------------------------- recorded arrivals and wrong values


def test_recorded_arrivals_replace_the_rate_and_draw_only_unknown_work():
    w = world(
        service(), rates=[1000.0], replicas=[9], recorded={0: replay([0.0, 5.0, 7.0, 99.0], [2.0, np.nan, 3.0, 1.0])}
    )
    books = w.pass_s(50.0)[0]
    assert books[ARRIVED] == 3
    assert books[BUSY_S] == pytest.approx(2.0 + 1.0 + 3.0)
    assert w.pass_s(51.0)[0, SERVED] == 4


@pytest.mark.parametrize("wrong", [replay([2.0, 1.0]), replay([np.nan]), replay([1.0], [-1.0]), replay([1.0], [])])
def test_recorded_arrivals_out_of_order_are_refused(wrong):
    with pytest.raises(UsageError, match="recorded requests of 'web'"):
        world(service(), rates=[0], replicas=[1], recorded={0: wrong})


@pytest.mark.parametrize(
    "fields", [{"timeout_s": math.inf}, {"timeout_s": 0.0}, {"service_time_s": 0.0, "slo_s": 1.0}, {"concurrency": 0}]
)
def test_a_service_that_could_fill_memory_or_stop_the_clock_is_refused(fields):
    with pytest.raises(UsageError, match="service 'web'"):
        world(service(**fields), rates=[0], replicas=[1])


def test_stretches_follow_each_other():
    w = world(service(), rates=[1.0], replicas=[1])
    w.model.serve(10.0, 20.0)
    for since_s, until_s in ((10.0, 30.0), (25.0, 30.0), (20.0, 19.0), (20.0, math.inf)):
        with pytest.raises(SimulationError, match="follow each other"):
            w.model.serve(since_s, until_s)


@pytest.mark.parametrize("rate", [math.nan, -1.0, math.inf])
@pytest.mark.parametrize("load", ["open", "closed"])
def test_a_rate_that_is_none_is_refused(rate, load):
    w = world(service(load=load), rates=[rate], replicas=[1])
    with pytest.raises(SimulationError, match="finite and at least 0"):
        w.pass_s(1.0)


def test_many_users_at_once_find_room():
    """More records and random numbers than any table begins with."""
    w = world(service(load="closed", think_s=1.0, timeout_s=1e3), rates=[20_000], replicas=[1])
    w.pass_s(60.0)
    assert w.state.inside[0] == pytest.approx(20_000, abs=10)
    w.model.lose(0, 1.0)
    assert conserved(w.state)
