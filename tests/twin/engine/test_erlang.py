"""Steady queues: the textbook formulas, and what joins them into one law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.replicas import erlang as rules
from twin.engine.erlang import (
    LEVELS,
    above,
    flow,
    law,
    longer,
    mean_patient_wait_s,
    noise_mean,
    noise_mean_between,
    strata,
    waits_longer,
    waits_on_line,
)


def stationary(servers: int, load: float, places: int) -> np.ndarray:
    """State probabilities of M/M/c with so many waiting places, by its balance equations."""
    weights = [1.0]
    for n in range(1, servers + places + 1):
        weights.append(weights[-1] * load / min(n, servers))
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize("servers", [1, 2, 7, 40])
@pytest.mark.parametrize("rho", [0.3, 0.8, 1.2])
def test_without_patience_the_law_solves_the_balance_equations(servers: int, rho: float) -> None:
    lost, _, _ = law(servers, rho * servers, 0.2, 1.0, 0.0)
    assert lost == pytest.approx(stationary(servers, rho * servers, 0)[-1], rel=1e-9)


@pytest.mark.parametrize("servers", [1, 2, 7, 40])
@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_with_endless_patience_the_law_solves_the_balance_equations(servers: int, rho: float) -> None:
    p = stationary(servers, rho * servers, 400)
    waiting = np.maximum(np.arange(len(p)) - servers, 0)
    lost, density, decay = law(servers, rho * servers, 0.2, 1.0, 1e9)
    assert lost == 0.0
    assert waits_longer(0.0, density, decay, 1e9) == pytest.approx(p[servers:].sum(), rel=1e-9)
    mean_s = (p * waiting).sum() / (rho * servers / 0.2)
    assert mean_patient_wait_s(density, decay, 1e9) == pytest.approx(mean_s, rel=1e-9)


@given(st.floats(0.01, 0.99), st.floats(0.0, 3.0))
def test_one_server_waits_as_pollaczek_and_khinchine_say(rho: float, cv: float) -> None:
    _, density, decay = law(1, rho, 1.0, cv, 1e9)
    exact_s = rho * (1 + cv * cv) / (2 * (1 - rho))
    assert mean_patient_wait_s(density, decay, 1e9) == pytest.approx(exact_s, rel=1e-9)


@given(st.integers(1, 200), st.floats(0.05, 0.97), st.floats(0.0, 2.0))
def test_with_endless_patience_the_law_is_erlang_c(servers: int, rho: float, cv: float) -> None:
    lost, density, decay = law(servers, rho * servers, 0.3, cv, 1e9)
    assert lost == 0.0
    waits = rules.erlang_c(servers, rho * servers)
    assert waits_longer(0.0, density, decay, 1e9) == pytest.approx(waits, rel=1e-9)
    mean_s = 0.5 * (1 + cv * cv) * waits * 0.3 / (servers * (1 - rho))
    assert mean_patient_wait_s(density, decay, 1e9) == pytest.approx(mean_s, rel=1e-9)


@given(st.integers(1, 200), st.floats(0.05, 3.0))
def test_without_patience_the_law_is_erlang_b(servers: int, rho: float) -> None:
    lost, _, _ = law(servers, rho * servers, 0.3, 1.0, 0.0)
    assert lost == pytest.approx(rules.erlang_b(servers, rho * servers), rel=1e-9)


@given(st.integers(1, 50), st.floats(1.5, 5.0))
def test_far_beyond_saturation_what_is_too_much_gives_up(servers: int, rho: float) -> None:
    lost, _, _ = law(servers, rho * servers, 0.1, 1.0, 20.0)
    assert lost == pytest.approx(1 - 1 / rho, rel=1e-6)


@given(st.integers(1, 100), st.floats(0.1, 3.0), st.floats(0.1, 2.0), st.floats(0.001, 100.0))
def test_the_law_of_waits_is_one_law(servers: int, rho: float, cv: float, patience: float) -> None:
    """P(W > w) falls from at most 1 to 0 at the end of patience, and its integral is the mean."""
    lost, density, decay = law(servers, rho * servers, 0.1, cv, patience)
    grid = np.linspace(0.0, patience, 4001)
    longer = np.array([waits_longer(w, density, decay, patience) for w in grid])
    assert 0.0 <= lost < 1.0
    assert longer[0] <= 1.0 + 1e-9
    assert (np.diff(longer) <= 1e-12).all()
    assert longer[-1] == 0.0
    mean = mean_patient_wait_s(density, decay, patience)
    assert mean == pytest.approx(np.trapezoid(longer, grid), rel=0.02, abs=1e-3 * patience)


def test_some_give_up_as_simulated() -> None:
    """M/M/2+D against an event simulation of 400,000 requests: within 3 % of lost requests and waits."""
    rng = np.random.default_rng(5)
    free, lost, waits = [0.0, 0.0], 0, []
    arrivals = np.cumsum(rng.exponential(1 / 1.9, 400_000))
    for arrived, service in zip(arrivals, rng.exponential(1.0, 400_000), strict=True):
        k = 0 if free[0] <= free[1] else 1
        wait = max(0.0, free[k] - arrived)
        if wait > 3.0:
            lost += 1
            continue
        free[k] = arrived + wait + service
        waits.append(wait)
    share, density, decay = law(2, 1.9, 1.0, 1.0, 3.0)
    assert share == pytest.approx(lost / 400_000, rel=0.03)
    assert mean_patient_wait_s(density, decay, 3.0) == pytest.approx(np.mean(waits), rel=0.03)
    assert waits_longer(1.5, density, decay, 3.0) == pytest.approx(np.mean(np.array(waits) > 1.5), rel=0.03)


def test_noise_on_a_line_is_a_folded_normal() -> None:
    """|q + N|, q even between the two ends, against drawn numbers: tail within 0.005, mean within 0.5 %."""
    rng = np.random.default_rng(1)
    width = 3.0
    drawn = np.abs(rng.uniform(2.0, 5.0, 400_000) + rng.normal(0.0, width / math.sqrt(2), 400_000))
    for y in (0.5, 3.0, 8.0):
        assert waits_on_line(y / 10.0, 2.0, 5.0, 10.0, width) == pytest.approx(np.mean(drawn > y), abs=0.005)
    assert 3.5 + noise_mean_between(2.0, 5.0, width) == pytest.approx(drawn.mean(), rel=0.005)
    assert noise_mean_between(2.0, 2.0, width) == noise_mean(2.0, width)


@given(
    st.floats(0.01, 600),
    st.floats(0, 500),
    st.floats(0, 2000),
    st.integers(0, 200),
    st.floats(0.01, 5),
    st.floats(0, 1e4),
)
def test_the_flow_solves_its_equation(
    dt: float, x: float, rate: float, slots: int, hold: float, longest: float
) -> None:
    """Slot-seconds in service / hold time have left, all else is inside or beyond the longest queue."""
    x = min(x, slots + longest)
    free, line, full, low, high, end, busy = flow(dt, x, rate, slots, hold, longest)
    overflow = (rate - slots / hold) * full
    assert free + line + full == pytest.approx(dt, rel=1e-9)
    assert x + rate * dt - overflow - end == pytest.approx(busy / hold, rel=1e-6, abs=1e-6 * (1 + rate * dt + x))
    assert min(free, line, full, low, high, end, overflow) >= -1e-9
    assert end <= slots + longest + 1e-6


@pytest.mark.parametrize("distribution", ["lognormal", "gamma"])
@given(st.floats(0.05, 3.0))
def test_strata_of_service_times_have_mean_one_and_rise(distribution: str, cv: float) -> None:
    edges, means = strata(distribution, cv)
    assert (np.diff(LEVELS) * means).sum() == pytest.approx(1.0, rel=1e-9)
    assert (np.diff(edges) >= 0).all()
    assert (np.diff(means) >= 0).all()


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
def test_service_times_and_waits_add_up(cv: float) -> None:
    """Gamma service times and exponential waits of 60 % of requests, against a million drawn sums: within 0.006."""
    rng = np.random.default_rng(3)
    drawn = rng.gamma(1 / cv**2, cv**2, 1_000_000)
    edges, means = strata("gamma", cv)
    grid = np.linspace(0.0, 30.0, 201)
    waits = 0.6 * np.exp(-grid / 1.5)
    sums = drawn + np.where(rng.random(1_000_000) < 0.6, rng.exponential(1.5, 1_000_000), 0.0)
    for time_s in (0.5, 1.0, 2.5, 6.0):
        assert above(time_s, LEVELS, edges) == pytest.approx(np.mean(drawn > time_s), abs=0.006)
        assert longer(time_s, waits, 30.0, LEVELS, edges, means) == pytest.approx(np.mean(sums > time_s), abs=0.006)
