import math
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.forecast.backtest import backtest
from agents.forecast.base import DECILE_NAMES, DECILES, MEDIAN
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from agents.forecast.rolling import Rolled, truth_at
from agents.forecast.scoring import (
    Judged,
    bands,
    horizon,
    native_seasonal_naive,
    regimes,
    score,
    scored,
)
from twin.errors import UsageError

MONDAY_S = 1_376_265_600  # 2013-08-12 00:00 UTC


def series_of(values, start_s=0, step_s=300):
    return Series("a", start_s, step_s, np.asarray(values, dtype=np.float64))


def judged(values, origins, said, day_steps):
    series = series_of(values)
    at = np.array(origins)
    return Judged.of(
        Rolled(at, np.array(said, dtype=float), truth_at(series, at, np.shape(said)[1])), series, day_steps
    )


def test_scores_by_hand():
    """After 1 2 3 4 4 came 6, 8; forecast was 5 with q10 = 4, q90 = 7."""
    deciles = [4.0, *[5.0] * 7, 7.0]
    found = judged([1, 2, 3, 4, 4, 6, 8], [5], [[deciles, deciles]], day_steps=2).scores()
    assert found.origins == 1
    assert found.mae == 2.0
    assert found.wape == pytest.approx(4 / 14)
    assert found.accuracy_percent == pytest.approx(100 * (1 - 4 / 14))
    assert found.mase == pytest.approx(2.0 / (5 / 3))  # two steps apart before: |3-1|, |4-2|, |4-3|
    # pinball at 6: 0.1 x 2, (0.2 + ... + 0.8) x 1, 0.1 x 1; at 8: 0.1 x 4, 3.5 x 3, 0.9 x 1
    losses = (0.2 + 3.5 + 0.1) + (0.4 + 10.5 + 0.9)
    assert found.crps == pytest.approx(2 * losses / 9 / 2)
    assert found.scaled_crps == pytest.approx(2 * losses / 9 / 14)
    assert found.coverage_80 == 0.5
    assert found.skill == pytest.approx(1 - 4 / 6)  # the last value and the day before err by 2 + 4
    assert found.bias == pytest.approx(-4 / 14)


def test_only_the_asked_forecasts_are_scored():
    said = np.tile(np.linspace(1, 9, 9), (2, 2, 1))
    both = judged([4, 6, 5, 5, 9, 0], [3, 4], said, day_steps=1)
    first = both.scores(np.array([[True, True], [False, False]]))
    assert (first.origins, first.mae) == (1, 2.0)  # 5 and 9 against 5
    second = both.scores(np.array([[False, False], [False, True]]))
    assert (second.mae, second.wape) == (5.0, pytest.approx(math.nan, nan_ok=True))  # 5 against 0: no percentage


def test_a_forecast_that_failed_is_scored_as_unknown_and_not_as_bad():
    found = judged(np.arange(1, 9), [5], np.full((1, 2, 9), np.nan), day_steps=2).scores()
    unknown = {name for name, value in asdict(found).items() if math.isnan(value)}
    assert unknown == {*asdict(found)} - {"origins"}


def test_the_bias_is_above_zero_where_forecasts_are_too_high():
    said = np.full((1, 2, 9), 10.0)
    assert judged([1, 1, 1, 1, 8, 8], [4], said, day_steps=1).scores().bias == pytest.approx(4 / 16)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), origins=st.integers(1, 9), h=st.integers(1, 6), season=st.integers(1, 8))
def test_scores_agree_with_utilsforecast(seed, origins, h, season):
    from utilsforecast import losses

    rng = np.random.default_rng(seed)
    values = rng.lognormal(1.0, 1.0, 60)
    at = np.sort(rng.choice(np.arange(20, 60 - h), origins, replace=False))
    said = np.sort(rng.lognormal(1.0, 1.0, (origins, h, 9)), axis=-1)
    found = judged(values, at, said, season).scores()

    truth = truth_at(series_of(values), at, h)
    frame = pl.DataFrame({"unique_id": "a", "y": truth.ravel()}).with_columns(
        pl.Series(name, said[..., k].ravel()) for k, name in enumerate(DECILE_NAMES)
    )
    frame = frame.with_columns(pl.col("q10").alias("q50-lo-80"), pl.col("q90").alias("q50-hi-80"))
    train = pl.DataFrame({"unique_id": "a", "y": values[: at[0]]})
    theirs = {
        "wape": losses.nd(frame, ["q50"]),
        "mase": losses.mase(frame, ["q50"], season, train),
        "scaled_crps": losses.scaled_crps(frame, {"q50": list(DECILE_NAMES)}, DECILES),
        "coverage_80": losses.coverage(frame, ["q50"], 80),
        "mae": losses.mae(frame, ["q50"]),
    }
    for name, table in theirs.items():
        assert getattr(found, name) == pytest.approx(table["q50"][0], rel=1e-9), name


def test_nobody_beats_who_knows_the_future_and_the_best_naive_has_no_skill():
    walk = 100 + np.random.default_rng(0).standard_normal(900).cumsum()
    at = np.arange(600, 880, 20)
    truth = truth_at(series_of(walk), at, 12)
    perfect = judged(walk, at, np.repeat(truth[..., None], 9, axis=-1), day_steps=24).scores()
    assert (perfect.skill, perfect.crps, perfect.coverage_80, perfect.bias) == (1.0, 0.0, 1.0, 0.0)
    last = np.tile(walk[at - 1][:, None, None], (1, 12, 9))
    assert judged(walk, at, last, day_steps=24).scores().skill == pytest.approx(0.0)


def test_a_day_that_is_not_on_record_is_no_opponent_and_no_scale():
    said = np.full((1, 2, 9), 5.0)
    found = judged([1, 2, 3, 4, 5, 6], [4], said, day_steps=5)
    assert math.isnan(found.scores().mase)
    assert found.scores().skill == pytest.approx(1 - 0.5 / 1.5)  # against the last value, 4


def test_bands_are_all_steps_then_quarters_then_each_step():
    assert [horizon(*band) for band in bands(12)][:5] == ["1-12", "1-3", "4-6", "7-12", "1"]
    assert [horizon(*band) for band in bands(24)][:4] == ["1-24", "1-6", "7-12", "13-24"]
    assert [horizon(*band) for band in bands(1)] == ["1", "1"]
    wide = bands(12)[1:4]
    assert sorted(step for low, high in wide for step in range(low, high + 1)) == list(range(1, 13))


def test_pooled_bands_are_the_mean_of_their_steps():
    rng = np.random.default_rng(3)
    values = rng.uniform(1, 2, 100)
    said = np.sort(rng.uniform(1, 2, (5, 12, 9)), axis=-1)
    rows = {row["horizon"]: row for row in scored(judged(values, [60, 65, 70, 75, 80], said, 24), {})}
    by_step = {step: float(rows[str(step)]["mae"]) for step in range(1, 13)}
    assert rows["4-6"]["mae"] == pytest.approx((by_step[4] + by_step[5] + by_step[6]) / 3)
    assert rows["1-12"]["mae"] == pytest.approx(sum(by_step.values()) / 12)


def test_the_regime_is_how_much_the_series_moved_before_the_origin():
    """The training part is still, wavy, then wild; the origins come after one stretch of each kind."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(1200)
    size = np.repeat([0.1, 1.0, 10.0, 0.1, 1.0, 10.0], [150, 300, 150, 150, 300, 150])
    found = regimes(series_of(100 + size * noise), np.array([700, 950, 1150]), 2, train_steps=600)
    kinds = [next(name for name, where in found.items() if where[row].all()) for row in range(3)]
    assert kinds == ["calm", "usual", "rough"]
    assert not set(found) & {"weekday", "weekend"}  # nobody told when the recording began


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), origin=st.integers(100, 190))
def test_nothing_after_the_origin_changes_its_regime(seed, origin):
    values = np.random.default_rng(0).standard_normal(200).cumsum()
    other = values.copy()
    other[origin:] = np.random.default_rng(seed).uniform(-1e3, 1e3, 200 - origin)
    at = np.array([origin])
    one, two = (regimes(series_of(v), at, 4, train_steps=100) for v in (values, other))
    assert all((one[name] == two[name]).all() for name in one)


def test_every_forecast_is_in_one_regime_of_each_kind():
    values = np.random.default_rng(1).standard_normal(3000).cumsum()
    found = regimes(series_of(values, start_s=MONDAY_S), np.arange(2000, 2900, 50), 12, train_steps=2000)
    assert (np.sum([found[name] for name in ("calm", "usual", "rough")], axis=0) == 1).all()
    assert (found["weekday"] ^ found["weekend"]).all()


def test_the_weekend_begins_with_the_step_that_is_forecast_on_saturday():
    friday_2355 = 5 * 288 - 1
    series = series_of(np.random.default_rng(1).standard_normal(3000), start_s=MONDAY_S)
    found = regimes(series, np.array([friday_2355, friday_2355 + 2 * 288]), 2, train_steps=1000)
    assert found["weekend"].tolist() == [[False, True], [True, False]]


def test_too_short_a_past_has_no_regime():
    assert regimes(series_of(np.arange(60.0)), np.array([20, 40]), 4, train_steps=20) == {}


def test_the_native_seasonal_naive_is_that_of_statsforecast():
    from statsforecast.models import SeasonalNaive

    values = 10 + np.random.default_rng(5).standard_normal(100)
    said = native_seasonal_naive(series_of(values), np.array([80]), 30, 12, values[:80])
    theirs = SeasonalNaive(season_length=12).forecast(values[:80], 30, level=[20, 80])
    np.testing.assert_allclose(said[0, :, MEDIAN], theirs["mean"])
    np.testing.assert_allclose(said[0, :, 0], theirs["lo-80"], rtol=1e-9)
    np.testing.assert_allclose(said[0, :, 5], theirs["hi-20"], rtol=1e-9)


def test_the_native_seasonal_naive_needs_more_than_a_season():
    with pytest.raises(UsageError, match="no season of 12"):
        native_seasonal_naive(series_of(np.arange(40.0)), np.array([30]), 2, 12, np.arange(12.0))


def test_a_table_of_forecasts_is_scored_like_its_arrays(long, wave):
    frame = long(a=wave(900, day=24))
    said = backtest([Naive(24, "seasonal")], frame, origins_every=11).forecasts
    rows = score(said.sample(fraction=1.0, shuffle=True, seed=1), frame, season=24)
    series = series_of(wave(900, day=24))
    at = np.unique(said["cutoff_s"].to_numpy() / 300).astype(np.int64)
    deciles = said.select(DECILE_NAMES).to_numpy().reshape(-1, 12, 9)
    mine = Judged.of(Rolled(at, deciles, truth_at(series, at, 12)), series, 24).scores()
    pooled = rows.filter(horizon="1-12").row(0, named=True)
    for name in ("wape", "mase", "scaled_crps", "coverage_80", "skill", "origins"):
        assert pooled[name] == pytest.approx(getattr(mine, name)), name


def test_a_table_that_lacks_a_step_is_refused(long, wave):
    frame = long(a=wave(900, day=24))
    said = backtest([Naive(24, "seasonal")], frame, origins_every=11).forecasts
    with pytest.raises(UsageError, match="all steps"):
        score(said.filter(pl.col("step") != 3), frame, season=24)
