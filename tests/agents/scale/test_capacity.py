from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import twin
from agents.forecast.base import DECILES
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from agents.rules.static import Static
from agents.scale import capacity, foretold
from agents.scale.capacity import Highest, Newsvendor, PlannedCapacity, Planning, coarse, quantile_of
from agents.scale.sizing import confidence
from twin.errors import UsageError
from twin.types import Cluster, Observation, Pool, Service

SERVICE = Service("cell", 2000.0, 2.0, 4.0, 0.16, 4, 0.5, replicas=48, min_replicas=4, max_replicas=90)
POOL = Pool("workers", 16, 64, 0.76, 8)
CLUSTER = Cluster("web", (POOL,), (SERVICE,))
HOURS = Series("cell.demand_rps", 0, 3600, 1000.0 + 300.0 * np.sin(np.arange(24 * 7) * np.pi / 12))
FORECAST = np.array([10.0, 11, 12, 13, 14, 15, 16, 17, 18])


# ---------------------------------------------------------------- the newsvendor


def test_the_quantile_is_the_cheapest_stock():
    """By trial: of all stocks for demand drawn from a distribution, none costs less than its quantile."""
    demand = np.sort(np.random.default_rng(0).gamma(4.0, 10.0, 4001))
    for shortage, idle in ((1.0, 1.0), (4.0, 1.0), (19.0, 1.0), (1.0, 3.0)):
        stocks = np.linspace(demand[0], demand[-1], 2001)
        short = np.maximum(demand[:, None] - stocks, 0.0).mean(axis=0)
        left = np.maximum(stocks - demand[:, None], 0.0).mean(axis=0)
        cheapest = stocks[np.argmin(shortage * short + idle * left)]
        assert np.quantile(demand, Newsvendor(shortage, idle).quantile) == pytest.approx(cheapest, rel=0.01)


def test_prices_must_be_positive():
    with pytest.raises(UsageError, match="shortage_cost=0"):
        Newsvendor(0.0, 1.0)


@given(st.floats(0.03, 0.97))
def test_the_quantile_of_deciles_is_what_the_scalers_confidence_reads(level):
    found = quantile_of(FORECAST, level)
    assert confidence(FORECAST[None, None], np.array([found]))[0] == pytest.approx(level, abs=1e-6)


@given(st.floats(0.001, 0.998), st.floats(0.0, 0.001))
def test_a_higher_level_is_never_less(level, more):
    assert quantile_of(FORECAST, level + more) >= quantile_of(FORECAST, level)


def test_the_deciles_are_their_own_quantiles():
    assert [float(quantile_of(FORECAST, level)) for level in DECILES] == pytest.approx(FORECAST.tolist())
    with pytest.raises(UsageError, match="below 1"):
        quantile_of(FORECAST, 1.0)


# ---------------------------------------------------------------- plans


def test_coarse_steps_are_peaks_and_begin_on_the_clock():
    fine = Series("x", 1800, 300, np.arange(32.0))
    peaks = coarse(fine, 3600)
    assert (peaks.start_s, peaks.step_s, peaks.values.tolist()) == (3600, 3600, [17.0, 29.0])
    with pytest.raises(UsageError, match="multiple"):
        coarse(fine, 400)
    with pytest.raises(UsageError, match="shorter"):
        coarse(fine, 86_400)


def planned(demand=HOURS, begin=96, price=9.0, **changes):
    naive = Naive(season=24).fit([HOURS.until(72)], 0)
    return capacity.plan(naive, demand, replace(Planning(Newsvendor(price, 1.0)), **changes), SERVICE, begin)


def test_a_plan_of_a_demand_that_repeats_itself_serves_it_at_the_target():
    made = planned()
    assert (made.start_s, made.step_s, len(made.replicas)) == (96 * 3600, 3600, 72)
    assert np.array_equal(made.replicas, np.ceil(HOURS.values[96:168] / (25.0 * 0.9) - 1e-6))
    assert np.array_equal(made.truth, HOURS.values[96:168])


def test_a_plan_is_fixed_ahead_of_its_first_hour():
    """Demand of the two hours before a plan begins, and later, does not move it; that of the hour before them does."""
    for hour, moves in ((93, True), (94, False), (95, False), (96, False)):
        changed = HOURS.values.copy()
        changed[hour] *= 1.5
        other = planned(replace(HOURS, values=changed))
        assert (other.replicas[:24] != planned().replicas[:24]) == moves


def test_a_dearer_shortage_never_plans_less():
    noisy = replace(HOURS, values=HOURS.values + 40.0 * np.random.default_rng(1).standard_normal(168))
    naive = Naive(season=24).fit([noisy.until(72)], 0)
    plans = [capacity.plan(naive, noisy, Planning(Newsvendor(p, 1.0)), SERVICE, 96).replicas for p in (1, 4, 9, 19)]
    assert all((np.diff(np.array(plans), axis=0) >= 0).ravel())
    assert sum(plans[-1]) > sum(plans[0])


def test_too_little_history_or_no_whole_day_is_refused():
    for begin in (25, 160):
        with pytest.raises(UsageError, match="made 2 steps ahead"):
            planned(begin=begin)


def test_the_oracles_plan_is_what_came():
    told = foretold.truth(HOURS, 94, 26)
    made = capacity.plan(told, HOURS, Planning(Newsvendor(1.0, 1.0)), SERVICE, 96)
    assert made.peak_rps == pytest.approx(HOURS.values[96:168].tolist())


def test_the_rule_of_thumb_holds_the_highest_of_the_week_and_a_fifth():
    made = capacity.plan(Highest(), HOURS, Planning(Newsvendor(1.0, 1.0)), SERVICE, 96)
    assert made.peak_rps == pytest.approx([1.2 * 1300.0] * 72)


def test_nodes_hold_the_replicas_within_the_pools_bounds():
    assert capacity.nodes_for([1, 8, 9, 10_000], SERVICE, replace(POOL, min_nodes=1)) == [1, 1, 2, POOL.max_nodes]
    with pytest.raises(UsageError, match="no replica"):
        capacity.nodes_for([1], replace(SERVICE, cpu_cores=17.0), POOL)


# ---------------------------------------------------------------- the plan in charge


def held(controller, time_s):
    (action,) = controller.decide(Observation(time_s, (), np.zeros(0, np.float32)))
    return action


def test_a_step_is_held_from_early_enough_on_until_its_end():
    plan = PlannedCapacity("cell", [10, 20, 5], 3600.0, start_s=7200.0, ready_s=300.0, coverage=0.9)
    times = {0.0: 10, 7200.0: 10, 10_400.0: 10, 10_500.0: 20, 14_399.0: 20, 14_400.0: 5, 99_999.0: 5}
    assert {time_s: held(plan, time_s).value for time_s in times} == times
    action = held(plan, 11_000.0)
    assert (action.kind, action.target, action.confidence) == ("replicas", "cell", 0.9)
    assert action.reason == "20 planned until 14400 s (q90)"


def test_with_a_scaler_the_plan_is_the_least():
    for asked, value in ((4, 10), (30, 30)):
        both = PlannedCapacity("cell", [10], 3600.0, scaler=Static({"cell": asked, "other": 3}))
        other, own = both.decide(Observation(0.0, (), np.zeros(0, np.float32)))
        assert (other.target, other.value) == ("other", 3)
        assert own.value == value
        assert own.reason.startswith("above the plan's 10") == (asked > 10)


def test_a_plan_of_nodes_sets_a_manual_pool():
    cluster = replace(CLUSTER, pools=(replace(POOL, provision="manual"),))
    trace = twin.read("google2019").between(0.0, 3 * 3600.0)
    run = twin.simulate(trace, cluster, controller=PlannedCapacity("workers", [8, 10, 6], 3600.0, kind="nodes"))
    ends = run.pool_steps.filter(pl.col("time_s").is_in([3000.0, 6600.0, 10_800.0]))
    assert ends["ready_nodes"].to_list() == [8, 10, 6]


@pytest.mark.parametrize("wrong", [{"counts": []}, {"counts": [-1]}, {"step_s": 0.0}, {"kind": "drain"}])
def test_a_plan_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError, match="controller 'plan'"):
        PlannedCapacity(**{"target": "cell", "counts": [1], "step_s": 60.0, **wrong})


def test_the_balance_counts_what_was_missing_and_what_stood_idle():
    steps = pl.DataFrame(
        {
            "service": ["cell"] * 3 + ["other"],
            "time_s": [60.0, 120.0, 180.0, 120.0],
            "arrived_requests": [9e9, 60.0 * 250.0, 60.0 * 100.0, 9e9],  # 25 requests/s each: 10 replicas, then 4
            "ready_replica_s": [0.0, 60.0 * 8.0, 60.0 * 8.0, 0.0],
        }
    )
    assert capacity.balance(steps, SERVICE, 60.0, 60.0) == pytest.approx((1.0, 2.0 / 60.0, 4.0 / 60.0))
