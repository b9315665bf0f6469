from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from agents.forecast.base import DECILES, MEDIAN, Floats, Past
from agents.forecast.conformal import Conformal, factors_of, floored, stretched
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from twin.errors import UsageError

NORMAL = norm.ppf(DECILES)


@dataclass(frozen=True)
class TooSure:
    """Forecasts white noise with bands of half their true width."""

    name: str = "too_sure"
    context: int = 1
    needs: int = 1
    pooled: bool = False

    def fit(self, series: Sequence[Series], seed: int, progress=None):
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        return np.tile(0.5 * NORMAL, (len(past.ids), h, 1))


def of(**values: np.ndarray) -> list[Series]:
    return [Series(name, 0, 300, y.astype(np.float64)) for name, y in values.items()]


def coverage(said, truth):
    return ((truth >= said[..., 0]) & (truth <= said[..., 8])).mean()


def test_bands_of_half_the_width_are_doubled():
    rng = np.random.default_rng(0)
    noise = of(a=rng.standard_normal(20_000))
    fitted = Conformal(TooSure(), horizon=4, trust=1.0).fit(noise, 0)
    np.testing.assert_allclose(fitted.stretch["a"][[0, 1, 7, 8]], 2.0, rtol=0.1)
    said = fitted.forecast(Past.of(-np.ones((3000, 1)), ["a"] * 3000, 1), 1)
    assert coverage(said[:, 0], rng.standard_normal(3000)) == pytest.approx(0.8, abs=0.04)
    assert (said[:, 0, MEDIAN] == 0.0).all()


def test_trust_is_the_power_of_the_correction():
    noise = of(a=np.random.default_rng(0).standard_normal(3000))
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


def test_the_errors_are_measured_on_what_the_base_was_not_fitted_on():
    seen = []

    @dataclass(frozen=True)
    class Watching(TooSure):
        def fit(self, series: Sequence[Series], seed: int, progress=None):
            seen.append(len(series[0].values))
            return self

    Conformal(Watching(), share=0.25, least_steps=80).fit(of(a=np.arange(400)), 0)
    Conformal(Watching(), share=0.25, least_steps=150).fit(of(a=np.arange(400)), 0)
    assert seen == [300, 400, 250, 400]


def test_a_series_too_short_to_measure_cannot_be_forecast():
    fitted = Conformal(Naive(), least_steps=50).fit(of(a=np.arange(900), b=np.arange(60)), 0)
    fitted.forecast(Past.of(np.zeros((1, 1)), ["a"], 12), 12)
    with pytest.raises(UsageError, match=r"'b' was not fitted.*fewer than 20 origins"):
        fitted.forecast(Past.of(np.zeros((1, 1)), ["b"], 12), 12)


def test_a_factor_is_the_score_of_one_more_than_its_share():
    """Of 24 scores the 80 % band takes the twentieth: ceil(0.8 x 25)."""
    truth = np.arange(1, 25, dtype=np.float64) * NORMAL[-1] * 0.1
    factors = factors_of(np.tile(NORMAL, (24, 1)), truth)
    assert factors[-1] == pytest.approx(2.0)


def test_an_amount_stays_one_and_what_may_be_negative_is_left_alone():
    said = np.tile(NORMAL, (2, 3, 1))
    found = floored(said, np.array([[np.nan, 0.0, 2.0], [np.nan, -0.1, 2.0]]))
    assert (found[0] == np.maximum(NORMAL, 0.0)).all()
    assert (found[1] == NORMAL).all()
