import numpy as np
import pytest

from agents.forecast.base import MEDIAN, Forecaster
from agents.forecast.naive import Naive
from twin.errors import UsageError


def test_naives_are_forecasters():
    assert isinstance(Naive(), Forecaster)


def test_the_last_value_stays(long):
    fitted = Naive().fit(long(a=np.arange(20)), 0)
    said = fitted.forecast(np.array([[7.0], [9.0]]), 3, ["a", "a"])
    np.testing.assert_allclose(said[:, :, MEDIAN], [[7, 7, 7], [9, 9, 9]])


def test_the_season_comes_back_also_beyond_one_season(long):
    fitted = Naive(4, "seasonal").fit(long(a=np.tile([1, 2, 3, 4], 5)), 0)
    said = fitted.forecast(np.array([[1.0, 2.0, 3.0, 4.0]]), 6, ["a"])
    np.testing.assert_allclose(said[0], np.tile([[1], [2], [3], [4], [1], [2]], 9))


def test_bands_are_the_deciles_of_past_errors_and_widen_with_the_lag(long):
    rng = np.random.default_rng(0)
    walk = rng.standard_normal(20_000).cumsum()
    said = Naive().fit(long(a=walk), 0).forecast(np.array([[0.0]]), 4, ["a"])[0]
    # the deciles of a normal with standard deviation sqrt(k)
    for k in (1, 4):
        np.testing.assert_allclose(said[k - 1, [0, 8]], [-1.2816 * k**0.5, 1.2816 * k**0.5], rtol=0.05)
    np.testing.assert_allclose(said, -said[:, ::-1], atol=1e-12)


def test_an_unfitted_series_is_refused_by_name(long):
    fitted = Naive().fit(long(a=np.arange(20)), 0)
    with pytest.raises(UsageError, match="'b'"):
        fitted.forecast(np.array([[7.0]]), 3, ["b"])


def test_a_series_without_two_seasons_is_refused(long):
    with pytest.raises(UsageError, match="'a' has 8 steps"):
        Naive(4).fit(long(a=np.arange(8)), 0)


@pytest.mark.parametrize("history", [np.array([[1.0, 2.0]]), np.array([[np.nan]])])
def test_histories_must_fit_and_be_known(long, history):
    with pytest.raises(UsageError, match=r"naive: needs|unknown values"):
        Naive().fit(long(a=np.arange(20)), 0).forecast(history, 1, ["a"])


def test_fitting_leaves_the_unfitted_one_alone(long):
    naive = Naive()
    naive.fit(long(a=np.arange(20)), 0)
    assert not naive.errors
