"""Queueing formulas against published and exact values, their laws, and the controllers' turns and sentences."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from agents.rules.replicas.calculator import Proposal
from agents.rules.replicas.course import Course
from agents.rules.replicas.erlang import (
    Serving,
    erlang_b,
    erlang_c,
    fewest_replicas,
    halfin_whitt,
    late_probability,
    square_root_servers,
    staffing_beta,
)
from agents.rules.replicas.staffing import ErlangStaffing, SquareRootStaffing
from twin.errors import UsageError
from twin.types import Controller, Observation

NAN = float("nan")
EXACT = Serving(service_time_s=0.16, concurrency=1, slo_s=0.6, service_cv=1.0)
WEB = Serving(service_time_s=0.16, concurrency=4, slo_s=0.5)


def look(time_s=0.0, wanted=10.0, now=NAN, quarter=NAN) -> Observation:
    seen = {"cell.wanted_replicas": wanted, "cell.demand_rps": now, "cell.demand_15m_rps": quarter}
    return Observation(time_s, tuple(seen), np.array(list(seen.values()), dtype=np.float32))


def square_root(**changes) -> SquareRootStaffing:
    return SquareRootStaffing(**{"service": "cell", "service_time_s": 0.16, "concurrency": 4, **BOUNDS, **changes})


def erlang(**changes) -> ErlangStaffing:
    serving = {"service_time_s": 0.16, "concurrency": 4, "slo_s": 0.5}
    return ErlangStaffing(**{"service": "cell", **serving, **BOUNDS, **changes})


BOUNDS = {"min_replicas": 4, "max_replicas": 200}


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize(
    ("servers", "offered", "delayed"),
    [(1, 0.5, 0.5), (2, 1, 1 / 3), (3, 2, 4 / 9), (5, 4, 0.5541), (6, 5, 0.5875), (10, 5, 0.0361), (10, 8, 0.4092),
     (20, 16, 0.2561), (100, 90, 0.2169)],
)  # fmt: skip
def test_erlang_c_is_that_of_the_tables(servers, offered, delayed):
    assert erlang_c(servers, offered) == pytest.approx(delayed, abs=5e-5)


@given(servers=st.integers(1, 300), load=st.floats(0.01, 0.99))
def test_erlang_b_is_the_truncated_poisson_distribution(servers, load):
    offered = load * servers
    exact = stats.poisson.pmf(servers, offered) / stats.poisson.cdf(servers, offered)
    assert erlang_b(servers, offered) == pytest.approx(exact, rel=1e-9, abs=1e-300)


@given(servers=st.integers(1, 200), offered=st.floats(0.01, 250), more=st.floats(0.0, 5.0))
def test_more_servers_or_less_load_make_fewer_wait(servers, offered, more):
    assert erlang_c(servers + 1, offered) <= erlang_c(servers, offered) <= erlang_c(servers, offered + more)
    assert 0.0 <= erlang_c(servers, offered) <= 1.0


def test_without_room_everybody_waits():
    assert erlang_c(4, 4.0) == erlang_c(4, 9.0) == erlang_c(0, 1.0) == 1.0
    assert erlang_c(4, 0.0) == 0.0


@pytest.mark.parametrize(("beta", "delayed"), [(0.0, 1.0), (0.5, 0.5045), (1.0, 0.2234), (2.0, 0.0269)])
def test_the_halfin_whitt_function(beta, delayed):
    assert halfin_whitt(beta) == pytest.approx(delayed, abs=1e-4)


@given(wait_probability=st.floats(1e-6, 0.999))
def test_beta_undoes_the_halfin_whitt_function(wait_probability):
    assert halfin_whitt(staffing_beta(wait_probability)) == pytest.approx(wait_probability, rel=1e-6)


@pytest.mark.parametrize("delayed", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("offered", [10.0, 250.0, 4000.0])
def test_square_root_staffing_finds_what_erlang_c_finds_but_for_one_server(offered, delayed):
    exact = next(n for n in range(int(offered), 10_000) if erlang_c(n, offered) <= delayed)
    assert abs(square_root_servers(offered, staffing_beta(delayed)) - exact) <= 1


@pytest.mark.parametrize(("servers", "rate_rps"), [(3, 10.0), (5, 31.0), (10, 50.0), (60, 300.0)])
def test_for_exponential_service_times_the_response_is_that_of_mmc(servers, rate_rps):
    """P(T > t) = exp(-mu t) (1 + C (1 - exp(-mu t k)) / k) with k = c - 1 - a."""
    decay, k = 0.6 / 0.16, servers - 1 - rate_rps * 0.16
    delayed = erlang_c(servers, rate_rps * 0.16)
    exact = math.exp(-decay) * (1.0 + delayed * (1.0 - math.exp(-decay * k)) / k)
    assert late_probability(servers, rate_rps, EXACT) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("cv", [0.02, 0.1, 0.5, 1.0, 2.5])
def test_without_waiting_who_is_late_is_the_tail_of_the_gamma_distribution(cv):
    serving = Serving(0.16, 1, 0.2, slo_target=0.01, service_cv=cv)
    tail = stats.gamma.sf(0.2, 1 / cv**2, scale=0.16 * cv**2)
    assert late_probability(1, 0.0, serving) == pytest.approx(tail, abs=1e-9)


def test_constant_service_times_halve_the_wait():
    """(1 + cv^2) / 2 is 1/2 for cv = 0, so the decay is twice that of M/M/c."""
    waits = erlang_c(8, 40.0 * 0.16)
    late = waits * math.exp(-2.0 * (8 / 0.16 - 40.0) * (0.5 - 0.16))
    assert late_probability(2, 40.0, WEB) == pytest.approx(late)


@given(rate_rps=st.floats(0.1, 3000.0), cv=st.sampled_from([0.0, 0.4, 1.0]), concurrency=st.integers(1, 8))
def test_the_fewest_replicas_keep_the_slo_and_one_fewer_do_not(rate_rps, cv, concurrency):
    serving = Serving(0.16, concurrency, 0.6, service_cv=cv)
    replicas = fewest_replicas(rate_rps, serving)
    assert late_probability(replicas, rate_rps, serving) <= 0.05 + 1e-9
    assert late_probability(replicas - 1, rate_rps, serving) > 0.05


@given(low=st.floats(0.0, 2000.0), more=st.floats(0.0, 500.0), cv=st.sampled_from([0.0, 1.0]))
def test_more_demand_or_a_stricter_slo_never_needs_fewer_replicas(low, more, cv):
    serving, stricter = Serving(0.16, 4, 0.6, service_cv=cv), Serving(0.16, 4, 0.55, 0.96, cv)
    assert fewest_replicas(low, serving) <= fewest_replicas(low + more, serving)
    assert fewest_replicas(low, serving) <= fewest_replicas(low, stricter)


def test_no_demand_needs_no_replicas():
    assert fewest_replicas(0.0, WEB) == 0


def test_a_promise_that_service_times_alone_break_is_refused():
    with pytest.raises(UsageError, match=r"100\.0% of the requests take longer than slo_s even without waiting"):
        Serving(0.5, 4, 0.5)
    with pytest.raises(UsageError, match=r"8\.2% .* raise slo_s or lower slo_target"):
        Serving(0.16, 4, 0.4, service_cv=1.0)


# ---------------------------------------------------------------- what an action becomes


def test_a_wish_is_held_for_the_patience_and_the_first_count_is_one():
    course = Course("mine", "cell", 1, 50, 300.0)
    held = [course.act(look(60.0 * turn, 10.0), Proposal(4, "4"))[0] for turn in range(6)]
    assert [action.value for action in held] == [10, 10, 10, 10, 10, 4]
    assert held[0].reason == "4; held at 10: highest recommendation of the last 300 s"


def test_a_wish_stays_within_its_bounds():
    course = Course("mine", "cell", 3, 9)
    assert course.act(look(), Proposal(1, "1"))[0].reason == "1; at least 3 replicas"
    assert course.act(look(), Proposal(12, "12"))[0].value == 9


def test_the_unknown_never_shrinks_and_may_grow():
    course = Course("mine", "cell", 1, 50)
    assert course.act(look(), None, "demand_rps")[0].reason == "held at 10: demand_rps unknown"
    assert course.act(look(), Proposal(4, "4"), "demand_rps")[0].reason == "4; held at 10: demand_rps unknown"
    assert course.act(look(), Proposal(12, "12"), "demand_rps")[0].value == 12


def test_an_unknown_wish_keeps_the_last_one_and_none_before_that():
    course = Course("mine", "cell", 1, 50)
    assert course.act(look(0.0, NAN), Proposal(12, "12")) == []
    course.act(look(60.0, 8.0), Proposal(8, "8"))
    assert course.act(look(120.0, NAN), None, "all")[0].value == 8
    course.reset()
    assert course.act(look(180.0, NAN), Proposal(12, "12")) == []


# ---------------------------------------------------------------- the controllers


def test_square_root_staffing_explains_itself():
    (action,) = square_root(wait_probability=0.2).decide(look(now=280.0, quarter=250.0))
    # R = 280 x 0.16 = 44.8; 44.8 + 1.0615 x 6.693 = 51.9 -> 52 servers -> 13 replicas
    assert action.value == 13
    assert action.reason == (
        "13 = ceil(44.8 + 1.06 sqrt(44.8)) servers / 4 per replica, so that 0.2 of 280 requests/s wait"
    )


def test_erlang_staffing_explains_itself():
    (action,) = erlang(headroom=1.1).decide(look(now=900.0, quarter=1000.0))
    assert action.value == fewest_replicas(1100.0, WEB) == 45
    assert action.reason.startswith("45 = fewest replicas with at most 0.05 beyond 0.5 s: by Erlang C ")
    assert action.reason.endswith(" of 1100 requests/s (1.1 x 1000)")


def test_both_agree_at_a_large_load_on_who_may_wait_at_all():
    """Late is whoever waits at all when the SLO leaves no time beyond the service time."""
    strict = erlang(concurrency=1, slo_s=0.16 * (1 + 1e-9), slo_target=0.8, max_replicas=10_000)
    loose = square_root(concurrency=1, wait_probability=0.2, max_replicas=10_000)
    seen = look(now=25_000.0, quarter=25_000.0)
    assert abs(strict.decide(seen)[0].value - loose.decide(seen)[0].value) <= 1
    assert loose.decide(seen)[0].value == math.ceil(4000 + 1.06155 * math.sqrt(4000))


@pytest.mark.parametrize("build", [square_root, erlang])
def test_what_is_known_of_demand_counts_and_what_is_not_holds(build):
    controller = build(patience_s=0.0)
    assert controller.decide(look(wanted=10))[0].reason == "held at 10: demand_rps and demand_15m_rps unknown"
    assert controller.decide(look(wanted=10, quarter=100.0))[0].reason.endswith("held at 10: demand_rps unknown")
    assert controller.decide(look(wanted=10, quarter=2000.0))[0].value > 60
    assert controller.decide(look(wanted=10, now=0.0, quarter=0.0))[0].value == 4


@pytest.mark.parametrize("build", [square_root, erlang])
def test_reset_forgets_the_patience(build):
    controller = build()
    assert isinstance(controller, Controller)
    controller.decide(look(0.0, 60, 1000.0, 1000.0))
    assert controller.decide(look(60.0, 60, 100.0, 100.0))[0].value == 60
    controller.reset()
    assert controller.decide(look(120.0, 8, 100.0, 100.0))[0].value == 8


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rates=st.lists(st.one_of(st.just(NAN), st.floats(0, 10_000)), min_size=1, max_size=30))
def test_always_within_bounds_and_never_shrinking_blind(rates):
    for controller in (square_root(patience_s=0.0), erlang(patience_s=0.0)):
        current = 10
        for turn, rate in enumerate(rates):
            (action,) = controller.decide(look(60.0 * turn, current, rate, rate))
            assert 4 <= action.value <= 200
            assert not (math.isnan(rate) and action.value < current)
            current = action.value


@pytest.mark.parametrize(
    "wrong", [{"min_replicas": 9, "max_replicas": 8}, {"headroom": 0.0}, {"patience_s": -1.0}, {"service_time_s": 0.0}]
)
@pytest.mark.parametrize("build", [square_root, erlang])
def test_nonsense_is_refused(build, wrong):
    with pytest.raises(UsageError):
        build(**wrong)


def test_a_waiting_probability_is_one():
    with pytest.raises(UsageError, match="wait_probability=1"):
        square_root(wait_probability=1.0)
