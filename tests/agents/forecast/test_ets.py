import numpy as np
import pytest

from agents.forecast.base import MEDIAN, Forecaster
from agents.forecast.ets import AutoETS
from twin.errors import UsageError


@pytest.fixture(scope="module")
def walk():
    return 100.0 + np.random.default_rng(1).standard_normal(600).cumsum()


@pytest.fixture(scope="module")
def fitted(walk, long):
    model = AutoETS(fit_steps=400, context=100)
    assert isinstance(model, Forecaster)
    return model.fit(long(a=walk), 0)


def test_a_random_walk_is_forecast_as_it_is_now(fitted, walk):
    said = fitted.forecast(walk[None, -100:], 12, ["a"])[0]
    np.testing.assert_allclose(said[:, MEDIAN], walk[-1], atol=1.0)
    # the one-step band of unit noise: 2 x 1.2816
    assert said[0, 8] - said[0, 0] == pytest.approx(2 * 1.2816, rel=0.2)
    assert (np.diff(said, axis=-1) >= 0).all()
    assert (np.diff(said[:, 8] - said[:, 0]) > 0).all()


def test_a_forecast_follows_its_own_window_not_the_fitted_start(fitted, walk):
    """The level comes from the window, so a window 500 higher is forecast about 500 higher, with like bands."""
    low = fitted.forecast(walk[None, -100:], 3, ["a"])[0]
    high = fitted.forecast(walk[None, -100:] + 500.0, 3, ["a"])[0]
    np.testing.assert_allclose(high[:, MEDIAN] - low[:, MEDIAN], 500.0, rtol=0.01)


def test_fitting_again_gives_the_same_bits(fitted, walk, long):
    again = AutoETS(fit_steps=400, context=100).fit(long(a=walk), 7)
    args = (walk[None, 50:150], 12, ["a"])
    np.testing.assert_array_equal(again.forecast(*args), fitted.forecast(*args))


def test_asking_leaves_the_fitted_model_alone(fitted, walk):
    before = fitted.forecast(walk[None, -100:], 3, ["a"])
    fitted.forecast(walk[None, :100], 3, ["a"])
    np.testing.assert_array_equal(fitted.forecast(walk[None, -100:], 3, ["a"]), before)


def test_a_constant_series_is_forecast_as_that_constant(long):
    fitted = AutoETS(fit_steps=100, context=50).fit(long(a=np.full(200, 5.0)), 0)
    np.testing.assert_allclose(fitted.forecast(np.full((1, 50), 5.0), 3, ["a"]), 5.0, atol=1e-6)


def test_an_unfitted_series_is_refused_by_name(fitted, walk):
    with pytest.raises(UsageError, match="'b'"):
        fitted.forecast(walk[None, -100:], 3, ["b"])
