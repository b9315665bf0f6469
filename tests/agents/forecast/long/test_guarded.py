"""The guarded forecaster: the mean where nothing is better, the season where one proves itself, honest spreads."""

from __future__ import annotations

import numpy as np
import pytest

from agents.forecast.base import MEDIAN, Forecaster, Past
from agents.forecast.frames import Columns, Series
from agents.forecast.long.guarded import Guarded
from agents.forecast.long.spread import measured
from agents.forecast.rolling import past_at, truth_at
from twin.errors import UsageError

DAY_S = 86_400
QUICK = Guarded(horizon=56, context=730, needs=28, families=("mean", "seasonal_naive", "structural"))


def daily(values: np.ndarray, known: np.ndarray | None = None) -> Series:
    if known is None:
        return Series("x", 0, DAY_S, values)
    return Series("x", 0, DAY_S, values, known, columns=Columns(known=("event",)))


def said_at(model: Guarded, series: Series, origin: int, h: int) -> np.ndarray:
    return model.forecast(past_at(series, np.array([origin]), model.context, h), h)[0]


def test_it_is_a_forecaster_whose_deciles_do_not_cross() -> None:
    series = daily(50.0 + 5.0 * np.random.default_rng(0).standard_normal(300))
    model = Guarded(horizon=56, context=730, needs=28).fit([series], 0)
    assert isinstance(model, Forecaster)
    said = said_at(model, series, 300, 84)
    assert said.shape == (84, 9)
    assert (np.diff(said, axis=-1) >= 0.0).all()
    assert (said == said_at(model.fit([series], 1), series, 300, 84)).all()


def test_noise_is_forecast_by_its_mean() -> None:
    series = daily(50.0 + 5.0 * np.random.default_rng(1).standard_normal(300))
    model = QUICK.fit([series], 0)
    assert abs(said_at(model, series, 300, 56)[:, MEDIAN] - 50.0).max() < 1.5
    assert model.fits["x"].weights[0]["mean"] > 0.5


def test_a_week_that_is_there_takes_over_from_the_mean() -> None:
    week = np.array([10.0, 11, 12, 11, 10, 4, 3])
    values = np.tile(week, 60) + 0.2 * np.random.default_rng(2).standard_normal(420)
    model = QUICK.fit([daily(values)], 0)
    assert abs(said_at(model, daily(values), 420, 28)[:, MEDIAN] - np.tile(week, 4)).max() < 0.5
    assert model.fits["x"].weights[0]["mean"] < 0.01


def test_an_event_known_ahead_is_in_the_forecast() -> None:
    event = np.zeros((428, 1))
    event[::14] = 1.0
    values = 20.0 - 8.0 * event[:400, 0] + 0.3 * np.random.default_rng(3).standard_normal(400)
    series = daily(values, event)
    median = said_at(QUICK.fit([series], 0), series, 400, 28)[:, MEDIAN]
    assert median[event[400:, 0] == 1.0].max() < 0.75 * median[event[400:, 0] == 0.0].min()


def test_the_median_of_a_total_is_the_sum_of_the_means_and_its_spread_less_than_the_sum_of_spreads() -> None:
    rng = np.random.default_rng(4)
    series = daily(50.0 + 5.0 * rng.standard_normal(300))
    model = QUICK.fit([series], 0)
    past = past_at(series, np.array([300]), 730, 56)
    steps, months = model.forecast(past, 56)[0], model.forecast_totals(past, [28, 28])[0]
    assert months[:, MEDIAN] == pytest.approx(steps[:, MEDIAN].reshape(2, 28).sum(axis=1))
    assert (np.ptp(months, axis=1) < np.ptp(steps, axis=1).reshape(2, 28).sum(axis=1)).all()
    drawn = model.paths(past, 56, 4_000, 0)[0].reshape(4_000, 2, 28).sum(axis=2)
    bands = np.quantile(drawn, [0.1, 0.9], axis=0).T
    assert bands == pytest.approx(months[:, [0, 8]], rel=0.02)
    assert (model.paths(past, 56, 50, 1) == model.paths(past, 56, 50, 1)).all()


def test_the_spread_of_a_wandering_series_grows_with_the_horizon_and_covers() -> None:
    rng = np.random.default_rng(5)
    within, widths = [], []
    for _ in range(10):
        values = 500.0 + rng.standard_normal(400).cumsum()
        series = daily(values)
        model = QUICK.fit([series.until(344)], 0)
        said = said_at(model, series, 344, 56)
        within.append((said[:, 0] <= values[344:]) & (values[344:] <= said[:, 8]))
        widths.append(said[:, 8] - said[:, 0])
    assert np.mean(widths, axis=0)[-1] > 1.2 * np.mean(widths, axis=0)[0]
    assert 0.65 < np.mean(within) < 0.98


def test_the_components_of_simulated_errors_are_found() -> None:
    rng = np.random.default_rng(6)
    errors = rng.standard_normal((4_000, 1)) + 0.1 * rng.standard_normal((4_000, 1)) * np.arange(1, 41)
    errors += 0.3 * rng.standard_normal((4_000, 40)).cumsum(axis=1)
    errors += 2.0 * rng.standard_normal((4_000, 40))
    found = measured(errors, 0.0, 100.0, (1, 5, 20, 40), scales=False)
    assert found.noise == pytest.approx(4.0, rel=0.1)
    variance = np.diag(found.covariance(np.zeros(40)))
    assert variance == pytest.approx(5.0 + 0.09 * np.arange(1, 41) + 0.01 * np.arange(1, 41) ** 2, rel=0.1)


def test_a_series_that_is_too_short_or_unknown_is_refused() -> None:
    with pytest.raises(UsageError, match="a quarter more"):
        QUICK.fit([daily(np.ones(29))], 0)
    with pytest.raises(UsageError, match="families"):
        Guarded(28, 100, 28, families=("magic",)).fit([daily(np.ones(100))], 0)
    with pytest.raises(UsageError, match="not fitted"):
        QUICK.forecast(Past.of(np.ones((1, 730)), ["y"], 7, DAY_S), 7)


def test_the_future_of_a_series_does_not_change_its_forecast() -> None:
    values = 50.0 + 5.0 * np.random.default_rng(7).standard_normal(300)
    other = values.copy()
    other[250:] = 0.0
    model = QUICK.fit([daily(values[:250])], 0)
    assert (said_at(model, daily(values), 250, 28) == said_at(model, daily(other), 250, 28)).all()
    assert truth_at(daily(other), np.array([250]), 28).sum() == 0.0
