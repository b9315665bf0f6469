from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import twin
from agents.forecast.backtest import Plan, backtest, before_judged, score
from agents.forecast.base import DECILE_NAMES, Forecaster
from agents.forecast.conformal import Conformal
from agents.forecast.frames import Series, series
from agents.forecast.naive import Naive
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural, Training
from agents.forecast.statistical import AutoETS
from experiments import schema
from twin.errors import UsageError
from twin.trace import tables

CONF = Path(__file__).parents[3] / "conf" / "forecaster"
TINY = Neural(ResidualMLP(8), window=24, horizon=4, training=Training(steps=50, batch=16))


@dataclass(frozen=True)
class Fixed:
    """Always the same nine deciles; fails on the series named in `fails`."""

    deciles: tuple[float, ...]
    name: str = "fixed"
    fails: str = ""
    context: int = 1
    needs: int = 1
    pooled: bool = True

    def fit(self, series, seed, progress=None):
        return self

    def forecast(self, past, h):
        if self.fails in past.ids:
            raise ArithmeticError("no luck today")
        return np.tile(np.array(self.deciles), (len(past.ids), h, 1))


@dataclass(frozen=True)
class Greedy:
    """Records the series it was fitted on and the past it was shown."""

    seen: list

    name = "greedy"
    context = 3
    needs = 3
    pooled = False

    def fit(self, series, seed, progress=None):
        self.seen.append(series)
        return self

    def forecast(self, past, h):
        self.seen.append(past.y)
        return np.zeros((len(past.ids), h, 9))


def test_origins_roll_over_the_last_part_and_see_only_their_past(long):
    seen = []
    said = backtest([Greedy(seen)], long(a=np.arange(40)), h=4, origins_every=3, fit_share=0.75).forecasts
    assert [each.values.tolist() for each in seen[0]] == [list(range(30))]
    assert seen[1].tolist() == [[27, 28, 29], [30, 31, 32], [33, 34, 35]]
    assert said["cutoff_s"].unique().to_list() == [9000.0, 9900.0, 10800.0]
    assert said["y"].to_list() == [30, 31, 32, 33, 33, 34, 35, 36, 36, 37, 38, 39]
    assert said["step"].to_list() == [1, 2, 3, 4] * 3
    assert (said["time_s"] == said["y"] * 300).all()


def test_the_google_trace_has_84_origins_at_two_hours():
    said = backtest([Naive()], series(twin.read("google2019"), ["cpu"]), origins_every=24).forecasts
    assert said["cutoff_s"].n_unique() == 84
    assert said.height == 84 * 12


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cutoff=st.integers(150, 196), seed=st.integers(0, 99))
@pytest.mark.parametrize(
    "forecaster", [Conformal(Naive(), horizon=4, least_steps=30, every=1), AutoETS(fit_steps=100, context=30)]
)
def test_the_future_changes_no_forecast_made_before_it(long, wave, forecaster, cutoff, seed):
    check_that_the_future_is_unseen(forecaster, long, wave(200, day=24), cutoff, seed)


@pytest.mark.parametrize("cutoff", [150, 171])
def test_the_future_changes_no_forecast_of_the_network(long, wave, cutoff):
    check_that_the_future_is_unseen(TINY, long, wave(200, day=24), cutoff, 1)


def check_that_the_future_is_unseen(forecaster, long, past, cutoff, seed):
    other = past.copy()
    other[cutoff:] = np.random.default_rng(seed).uniform(0.0, 1e3, len(past) - cutoff)
    one, two = (
        backtest([forecaster], long(a=y), h=4, origins_every=1, fit_share=0.75).forecasts.filter(
            pl.col("cutoff_s") <= cutoff * 300
        )
        for y in (past, other)
    )
    assert one.height
    assert one.drop("y").equals(two.drop("y"))


def test_a_forecaster_that_fails_on_one_series_is_reported_and_shown_as_a_gap(long):
    frame = long(a=np.arange(1, 401), b=np.arange(1, 401))
    result = backtest([Fixed((1.0,) * 9, fails="b"), Naive()], frame, origins_every=10)
    assert [(f.forecaster, f.unique_id, f.message) for f in result.failures] == [
        ("fixed", "b", "ArithmeticError: no luck today")
    ]
    scores = score(result.forecasts, frame, season=24).filter(horizon="1-12")
    assert scores.height == 4
    failed = scores.filter(forecaster="fixed", unique_id="b").row(0, named=True)
    measures = ("accuracy_percent", "wape", "mase", "scaled_crps", "coverage_80", "skill")
    assert all(np.isnan(failed[m]) for m in measures)
    others = scores.filter((pl.col("forecaster") != "fixed") | (pl.col("unique_id") != "b"))
    assert others.select(pl.col(measures).is_nan().any()).row(0) == (False,) * 6


@pytest.mark.parametrize("deciles", [(2.0,) * 8 + (1.0,), (float("nan"),) * 9])
def test_crossing_or_unknown_quantiles_are_a_failure(long, deciles):
    result = backtest([Fixed(deciles)], long(a=np.arange(400)))
    assert "unknown or crossing" in result.failures[0].message


def test_too_short_a_history_is_a_failure_of_that_series_alone(long):
    result = backtest(
        [replace(Fixed((1.0,) * 9), context=200, needs=200)], long(a=np.arange(100), b=np.arange(400)), h=4
    )
    assert [f.unique_id for f in result.failures] == ["a"]
    assert "needs 200 steps" in result.failures[0].message


def test_a_local_forecaster_that_cannot_be_fitted_on_one_series_does_the_others(long):
    result = backtest([Naive(100, "seasonal")], long(a=np.arange(200), b=np.arange(400)))
    assert [f.unique_id for f in result.failures] == ["a"]


def test_scores_by_hand(long):
    """Two steps of y = 6, 8 forecast as 5 with q10 = 4, q90 = 7; the day before was 4, 4."""
    frame = long(a=np.array([1, 2, 3, 4, 4, 6, 8.0]))
    deciles = (4.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 7.0)
    result = backtest([Fixed(deciles)], frame, h=2, fit_share=5 / 7)
    scores = score(result.forecasts, frame, season=2)
    assert scores["horizon"].to_list() == ["1-2", "1", "2"]
    pooled = scores.row(0, named=True)
    assert pooled["origins"] == 1
    assert pooled["wape"] == pytest.approx((1 + 3) / 14)
    assert pooled["accuracy_percent"] == pytest.approx(100 * (1 - 4 / 14))
    # in-sample, two steps apart: |3-1|, |4-2|, |4-3|
    assert pooled["mase"] == pytest.approx(2.0 / (5 / 3))
    # pinball at y = 6: 0.1 x 2, (0.2 + ... + 0.8) x 1, 0.1 x 1; at y = 8: 0.1 x 4, 3.5 x 3, 0.9 x 1
    losses = (0.2 + 3.5 + 0.1) + (0.4 + 10.5 + 0.9)
    assert pooled["scaled_crps"] == pytest.approx(2 * losses / 9 / 14)
    assert pooled["coverage_80"] == 0.5
    # naive: last 4 -> 2, 4; day 4, 4 -> 2, 4; mean 2.8 -> 3.2, 5.2; no week yet
    assert pooled["skill"] == pytest.approx(1 - 4 / 6)


def test_naive_has_no_skill_over_itself_and_a_clairvoyant_has_all(long, wave):
    walk = 100 + np.random.default_rng(0).standard_normal(2000).cumsum()
    frame = long(a=walk)
    result = backtest([Naive()], frame, origins_every=24)
    assert score(result.forecasts, frame)["skill"][0] == pytest.approx(0.0)
    clairvoyant = result.forecasts.with_columns(pl.col("y").alias(q) for q in DECILE_NAMES)
    best = score(clairvoyant, frame).row(0, named=True)
    assert (best["accuracy_percent"], best["mase"], best["scaled_crps"], best["skill"]) == (100.0, 0.0, 0.0, 1.0)
    assert best["coverage_80"] == 1.0


def test_scores_agree_with_utilsforecast(long, wave):
    from utilsforecast import losses

    frame = long(a=wave(1200, day=24), b=5 * wave(1100, 3, day=24))
    said = backtest([Naive(24, "seasonal")], frame, origins_every=7).forecasts
    scores = score(said, frame, season=24).filter(horizon="1-12").sort("unique_id")
    theirs = said.rename({"cutoff_s": "cutoff"})
    models = {"seasonal": list(DECILE_NAMES)}
    # theirs pools cutoffs only where there is no cutoff column
    pooled = theirs.drop("cutoff")
    crps = losses.scaled_crps(pooled, models=models, quantiles=np.arange(1, 10) / 10).sort("unique_id")
    np.testing.assert_allclose(scores["scaled_crps"], crps["seasonal"], rtol=1e-9)
    wape = losses.nd(pooled, models=["q50"]).sort("unique_id")
    np.testing.assert_allclose(scores["wape"], wape["q50"], rtol=1e-9)


def test_tables_are_those_of_the_schema(long):
    frame = long(a=np.arange(1, 401))
    said = backtest([Naive()], frame).forecasts
    assert said.columns == [c.name for c in tables.schema("forecasts")]
    assert score(said, frame).columns == [c.name for c in tables.schema("forecast_scores")]


def test_a_backtest_that_cannot_be_is_refused(long):
    with pytest.raises(UsageError, match="different names"):
        backtest([Naive(), Naive()], long(a=np.arange(400)))
    with pytest.raises(UsageError, match="no origin"):
        backtest([Naive()], long(a=np.arange(40)), h=12)
    with pytest.raises(UsageError, match="not in the frame"):
        score(backtest([Naive()], long(a=np.arange(400))).forecasts, long(b=np.arange(400)))


@pytest.mark.parametrize("option", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_configured_forecaster_is_one_and_bears_the_name_of_its_file(option):
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("backtest", [f"+forecaster@forecasters.it={option}"]).forecasters.it
    forecaster = instantiate(config, _convert_="all")
    assert isinstance(forecaster, Forecaster)
    assert forecaster.name == option


def test_nobody_learns_from_the_time_that_judges_a_peer():
    """Machine b is judged from 150 steps on: until then a, of the same cluster, teaches, and one of another longer."""

    def lasting(name: str, steps: int) -> Series:
        return Series(name, 0, 300, np.zeros(steps))

    def place(unique_id: str) -> str:
        return unique_id.partition("/")[0]

    early, late = lasting("vms/b", 200), lasting("vms/a", 400)
    other = lasting("else/a", 400)
    plans = [Plan(early, np.array([150, 160])), Plan(late, np.array([300])), Plan(other, np.array([300]))]
    train = [early.until(150), late.until(300), other.until(300)]
    assert [len(each.values) for each in before_judged(train, plans, 2, place)] == [150, 150, 300]
    afterwards = replace(late, start_s=early.start_s + 162 * early.step_s)
    plans[1] = Plan(afterwards, np.array([300]))
    assert len(before_judged([afterwards.until(300)], plans, 2, place)[0].values) == 300
