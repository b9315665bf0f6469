from dataclasses import replace
from math import nan

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import twin
from agents.forecast.naive import Naive
from agents.rules.guarded import Guarded
from agents.rules.replicas.hpa import Hpa
from agents.scale import foretold
from agents.scale.demand import seen
from agents.scale.forecast_scaler import ForecastScaler, fitted, trained
from agents.scale.sizing import Sizing
from experiments.split import Split
from twin.errors import PolicyError
from twin.types import Cluster, Observation, Pool, Service

DAY_S = 86_400.0
SERVICE = Service("cell", 2000.0, 2.0, 4.0, 0.16, 4, 0.5, replicas=48, min_replicas=4, max_replicas=90)
CLUSTER = Cluster("web", (Pool("workers", 16, 64, 0.76, 8),), (SERVICE,))
SIZING = Sizing(25.0, 0.8, 0.9, 2, 4, 90)
SPLIT = Split(train_share=0.75, validation_days=1)
COLUMNS = ("cell.demand_rps", "cell.wanted_replicas")


def at(step, rate_rps, wanted=40.0):
    return Observation(300.0 * step, COLUMNS, np.array([rate_rps, wanted], np.float32))


def decided(scaler, rates, **changes):
    scaler.reset()
    return [scaler.decide(at(step, rate, **changes)) for step, rate in enumerate([nan, *rates])]


@pytest.fixture(scope="module")
def trace():
    full = twin.read("google2019").between(0.0, 8 * DAY_S)
    return full.replacing("cpu alone", usage=full.usage.filter(resource="cpu"))


@pytest.fixture(scope="module")
def naive(trace):
    return fitted(Naive(), trace, CLUSTER, "cell", SPLIT)


def test_replicas_serve_the_chosen_decile_at_the_target(naive):
    low, high = (ForecastScaler(naive, "cell", Sizing(25.0, 1.0, q, 2, 4, 90)) for q in (0.5, 0.9))
    (middle,) = decided(low, [1000.0], wanted=0.0)[-1]
    assert middle.value == 40  # the naive median is the last value: 1000 / 25
    (action,) = decided(high, [1000.0], wanted=0.0)[-1]
    assert action.value > middle.value
    assert 0.0 <= middle.confidence < action.confidence <= 0.98
    assert action.reason.startswith("naive expects at most")
    assert f"in 10 min (q90; now 1000): {action.value} replicas" in action.reason


def test_it_knows_only_what_it_has_observed(naive):
    """What comes later changes nothing that was decided before."""
    rates = 900.0 + 100.0 * np.sin(np.arange(20))
    other = np.where(np.arange(20) < 10, rates, 5.0 * rates)
    scaler = ForecastScaler(naive, "cell", SIZING)
    assert decided(scaler, rates)[:11] == decided(scaler, other)[:11]
    assert decided(scaler, rates)[11:] != decided(scaler, other)[11:]


def test_a_run_begins_anew_after_reset(naive):
    scaler = ForecastScaler(naive, "cell", SIZING)
    assert decided(scaler, [800.0, 900.0]) == decided(scaler, [800.0, 900.0])


def test_a_rule_decides_and_says_so_until_the_history_is_long_enough(trace):
    """With a season of an hour: twelve steps of history."""
    hourly = fitted(Naive(season=12), trace, CLUSTER, "cell", SPLIT)
    led = Guarded(ForecastScaler(hourly, "cell", SIZING), Hpa(["cell"], 0.8, 4, 90), min_confidence=0.0)
    run = twin.simulate(trace.between(0.0, 7200.0), CLUSTER, controller=led)
    reasons = run.decisions["reason"].to_list()
    assert len(reasons) == 24
    assert all("warming up; rule decides" in reason for reason in reasons[:12])
    assert all(reason.startswith("policy decides: naive expects") for reason in reasons[12:])


def test_a_history_lets_it_lead_from_the_first_step(trace):
    hourly = fitted(Naive(season=12), trace, CLUSTER, "cell", SPLIT)
    history = seen(trace.between(0.0, DAY_S), CLUSTER, SERVICE, 0)
    scaler = ForecastScaler(hourly, "cell", SIZING, history=history)
    assert all(decided(scaler, [900.0, 900.0]))


def test_lost_telemetry_is_left_to_whoever_guards_it(naive):
    asked = decided(ForecastScaler(naive, "cell", SIZING), [900.0, nan, 900.0])
    assert [len(actions) for actions in asked] == [0, 1, 0, 1]
    assert not decided(ForecastScaler(naive, "cell", SIZING), [900.0], wanted=nan)[-1]


def test_a_forecast_of_unknown_numbers_is_refused(naive):
    class Lost(Naive):
        def forecast(self, past, h):
            return np.full((1, h, 9), nan)

    with pytest.raises(PolicyError, match="unknown numbers"):
        decided(ForecastScaler(Lost(), "cell", SIZING), [900.0])


def test_forecasts_made_beforehand_lead_to_the_same_run(trace, tmp_path):
    """The law that `experiments.decision_value` rests on."""
    hourly = fitted(Naive(season=12), trace, CLUSTER, "cell", SPLIT)
    run = trace.between(6 * DAY_S, 6 * DAY_S + 4 * 3600.0)
    before = seen(trace.between(0.0, 6 * DAY_S), CLUSTER, SERVICE, 7)
    itself = ForecastScaler(hourly, "cell", SIZING, history=before, tolerance=0.0)
    joined = replace(before, values=np.concatenate([before.values, seen(run, CLUSTER, SERVICE, 5).values]))
    foretold.foretell(hourly, joined, len(before.values), 2).write(tmp_path / "told.npz")
    told = foretold.scaler(tmp_path / "told.npz", "cell", SIZING, 6 * DAY_S, tolerance=0.0)
    runs = [twin.simulate(run, CLUSTER, controller=each, seed=5).decisions for each in (itself, told)]
    live, replayed = (each.select("time_s", "proposed", "confidence") for each in runs)
    assert_frame_equal(live.filter(pl.col("time_s") > 0), replayed)  # at second 0 nothing was observed yet
    assert replayed.height == 47


def test_trained_fits_on_the_training_part_alone(trace):
    """Another future than the first 5 of 8 days makes no difference."""
    later = trace.demand.with_columns(value=trace.demand["value"] * np.where(trace.demand["time_s"] < 5 * DAY_S, 1, 9))
    other = trace.replacing("another future", demand=later)
    one, two = (trained(Naive(), each, CLUSTER, "cell", SPLIT) for each in (trace, other))
    assert decided(one, [900.0, 950.0]) == decided(two, [900.0, 950.0])
    assert one.interval_s == 300.0
