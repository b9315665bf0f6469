import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.forecast.base import DECILES, MEDIAN, Forecaster, Past
from agents.forecast.frames import panel
from agents.forecast.naive import HistoricMean, Naive
from twin.errors import UsageError


@pytest.mark.parametrize("forecaster", [Naive(), Naive(24, shorter=4), HistoricMean()])
def test_naives_are_forecasters(forecaster):
    assert isinstance(forecaster, Forecaster)
    assert forecaster.needs <= forecaster.context


def test_the_last_value_stays(long):
    fitted = Naive().fit(panel(long(a=np.arange(20))), 0)
    said = fitted.forecast(Past.of(np.array([[7.0], [9.0]]), ["a", "a"], 3), 3)
    np.testing.assert_allclose(said[:, :, MEDIAN], [[7, 7, 7], [9, 9, 9]])


def test_the_season_comes_back_also_beyond_one_season(long):
    fitted = Naive(4, "seasonal").fit(panel(long(a=np.tile([1, 2, 3, 4], 5))), 0)
    said = fitted.forecast(Past.of(np.array([[1.0, 2.0, 3.0, 4.0]]), ["a"], 6), 6)
    np.testing.assert_allclose(said[0], np.tile([[1], [2], [3], [4], [1], [2]], 9))


def test_bands_are_the_deciles_of_past_errors_and_widen_with_the_lag(long):
    rng = np.random.default_rng(0)
    walk = rng.standard_normal(20_000).cumsum()
    said = Naive().fit(panel(long(a=walk)), 0).forecast(Past.of(np.array([[0.0]]), ["a"], 4), 4)[0]
    # the deciles of a normal with standard deviation sqrt(k)
    for k in (1, 4):
        np.testing.assert_allclose(said[k - 1, [0, 8]], [-1.2816 * k**0.5, 1.2816 * k**0.5], rtol=0.05)
    np.testing.assert_array_equal(said, -said[:, ::-1])


@pytest.mark.parametrize("steps", [4, 5, 30, 331])
def test_bands_are_exactly_those_of_the_errors_and_their_opposites(long, steps):
    walk = np.random.default_rng(steps).standard_normal(steps).cumsum()
    said = Naive().fit(panel(long(a=walk)), 0).forecast(Past.of(np.array([[0.0]]), ["a"], 1), 1)[0, 0]
    error = np.diff(walk)
    np.testing.assert_allclose(said, np.quantile(np.concatenate([error, -error]), DECILES), atol=1e-12)


def test_an_unfitted_series_is_refused_by_name(long):
    for fitted in (naive.fit(panel(long(a=np.arange(20))), 0) for naive in (Naive(), HistoricMean())):
        with pytest.raises(UsageError, match="'b'"):
            fitted.forecast(Past.of(np.array([[7.0]]), ["b"], 3), 3)


def test_a_series_without_two_seasons_is_refused(long):
    with pytest.raises(UsageError, match="'a' has 8 steps"):
        Naive(4).fit(panel(long(a=np.arange(8))), 0)


def test_a_horizon_beyond_what_was_seen_is_refused(long):
    fitted = Naive(4).fit(panel(long(a=np.arange(9))), 0)
    with pytest.raises(UsageError, match="too few for 12 ahead"):
        fitted.forecast(Past.of(np.ones((1, 4)), ["a"], 9), 9)


@pytest.mark.parametrize("seasons", [(0, None), (4, 5), (4, -1)])
def test_seasons_that_are_none_are_refused(long, seasons):
    with pytest.raises(UsageError, match="seasons are of 1 step at least"):
        Naive(seasons[0], shorter=seasons[1]).fit(panel(long(a=np.arange(50))), 0)


@pytest.mark.parametrize("history", [np.array([[1.0, 2.0]]), np.array([[np.nan]])])
def test_histories_must_fit_and_be_known(long, history):
    with pytest.raises(UsageError, match=r"naive: needs"):
        Naive().fit(panel(long(a=np.arange(20))), 0).forecast(Past.of(history, ["a"], 1), 1)


def test_fitting_leaves_the_unfitted_one_alone(long):
    naive, mean = Naive(), HistoricMean()
    naive.fit(panel(long(a=np.arange(20))), 0)
    mean.fit(panel(long(a=np.arange(20))), 0)
    assert not naive.errors
    assert not mean.said


# ---------------------------------------------------------------- a series too young for its season


def test_a_series_too_young_for_the_week_takes_the_day_and_says_exactly_what_the_day_says(long):
    young = panel(long(a=np.random.default_rng(0).standard_normal(24)))
    window = Past.of(np.arange(12.0)[None], ["a"], 6)
    weekly = Naive(12, shorter=4).fit(young, 0).forecast(window, 6)
    np.testing.assert_array_equal(weekly, Naive(4).fit(young, 0).forecast(window.last(4, 6), 6))


def test_an_old_series_takes_the_week_where_the_last_week_is_on_record_and_the_day_elsewhere(long):
    old = panel(long(a=np.random.default_rng(0).standard_normal(25)))
    y = np.stack([np.arange(12.0), np.arange(12.0)])
    y[1, 0] = np.nan
    said = Naive(12, shorter=4).fit(old, 0).forecast(Past.of(y, ["a", "a"], 6), 6)
    np.testing.assert_array_equal(said[0], Naive(12).fit(old, 0).forecast(Past.of(y[:1], ["a"], 6), 6)[0])
    np.testing.assert_array_equal(said[1], Naive(4).fit(old, 0).forecast(Past.of(y[1:, 8:], ["a"], 6), 6)[0])


def test_without_a_shorter_season_a_young_series_is_refused_rather_than_forecast_otherwise(long):
    with pytest.raises(UsageError, match="season of 12"):
        Naive(12).fit(panel(long(a=np.arange(24))), 0)


# ---------------------------------------------------------------- the mean so far


def test_the_historic_mean_is_the_mean_with_the_deciles_of_the_training_part(long):
    values = np.random.default_rng(0).standard_normal(999)
    said = HistoricMean().fit(panel(long(a=values)), 0).forecast(Past.of(np.full((2, 1), 50.0), ["a", "a"], 3), 3)
    assert said.shape == (2, 3, 9)
    assert said[0, 0, MEDIAN] == pytest.approx(values.mean())
    np.testing.assert_allclose(said[1, 2, [0, 8]], np.quantile(values, [0.1, 0.9]))


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=40))
def test_the_deciles_around_a_mean_never_cross_and_stay_in_the_range(long, values):
    said = HistoricMean().fit(panel(long(a=np.array(values))), 0).forecast(Past.of(np.ones((1, 1)), ["a"], 1), 1)[0, 0]
    assert (np.diff(said) >= 0.0).all()
    assert min(values) <= said[0]
    assert said[-1] <= max(values)
