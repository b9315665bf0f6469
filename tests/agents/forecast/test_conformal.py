from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from agents.forecast.base import DECILES, MEDIAN
from agents.forecast.conformal import Conformal, factors_of, stretched
from agents.forecast.naive import Naive
from twin.errors import UsageError

NORMAL = norm.ppf(DECILES)


@dataclass(frozen=True)
class TooSure:
    """Forecasts white noise with bands of half their true width."""

    name = "too_sure"
    context = 1
    pooled = False

    def fit(self, frame, seed, progress=None):
        return self

    def forecast(self, histories, h, ids):
        return np.tile(0.5 * NORMAL, (len(ids), h, 1))


def coverage(said, truth):
    return ((truth >= said[..., 0]) & (truth <= said[..., 8])).mean()


def test_bands_of_half_the_width_are_doubled(long):
    rng = np.random.default_rng(0)
    noise = long(a=rng.standard_normal(20_000))
    fitted = Conformal(TooSure(), horizon=4, trust=1.0).fit(noise, 0)
    np.testing.assert_allclose(fitted.stretch["a"][[0, 1, 7, 8]], 2.0, rtol=0.1)
    said = fitted.forecast(np.zeros((3000, 1)), 1, ["a"] * 3000)
    assert coverage(said[:, 0], rng.standard_normal(3000)) == pytest.approx(0.8, abs=0.04)
    assert (said[:, 0, MEDIAN] == 0.0).all()


def test_trust_is_the_power_of_the_correction(long):
    noise = long(a=np.random.default_rng(0).standard_normal(3000))
    full, half, none = (Conformal(TooSure(), trust=t).fit(noise, 0).stretch["a"] for t in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(half, np.sqrt(full))
    np.testing.assert_array_equal(none, 1.0)


def test_right_bands_are_left_alone():
    truth = np.random.default_rng(2).standard_normal(50_000)
    np.testing.assert_allclose(factors_of(np.tile(NORMAL, (50_000, 1)), truth), 1.0, rtol=0.05)


def test_bands_of_no_width_are_stretched_by_a_bounded_factor():
    factors = factors_of(np.ones((50, 9)), np.linspace(0.0, 2.0, 50))
    assert np.isfinite(factors).all()
    assert factors.max() == 5.0


@given(
    arrays(np.float64, (4, 9), elements=st.floats(-1e3, 1e3)), arrays(np.float64, (9,), elements=st.floats(0.2, 5.0))
)
def test_stretched_deciles_never_cross_and_keep_their_median(said, factors):
    said = np.sort(said, axis=-1)
    moved = stretched(said, factors)
    assert (np.diff(moved, axis=-1) >= 0).all()
    np.testing.assert_array_equal(moved[:, MEDIAN], said[:, MEDIAN])


def test_the_errors_are_measured_on_what_the_base_was_not_fitted_on(long):
    seen = []

    @dataclass(frozen=True)
    class Watching(TooSure):
        def fit(self, frame, seed, progress=None):
            seen.append(frame["ds"].max())
            return self

    Conformal(Watching(), share=0.25, least_steps=80).fit(long(a=np.arange(400)), 0)
    Conformal(Watching(), share=0.25, least_steps=150).fit(long(a=np.arange(400)), 0)
    assert seen == [299 * 300, 399 * 300, 249 * 300, 399 * 300]


def test_a_series_too_short_to_measure_cannot_be_forecast(long):
    fitted = Conformal(Naive(), least_steps=50).fit(long(a=np.arange(900), b=np.arange(60)), 0)
    fitted.forecast(np.zeros((1, 1)), 12, ["a"])
    with pytest.raises(UsageError, match="'b'"):
        fitted.forecast(np.zeros((1, 1)), 12, ["b"])
