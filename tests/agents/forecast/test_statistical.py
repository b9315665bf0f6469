import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twin
from agents.forecast import frames
from agents.forecast.base import MEDIAN, Forecaster, Past
from agents.forecast.frames import Series, panel
from agents.forecast.rolling import past_at, roll
from agents.forecast.statistical import MSTL, AutoARIMA, AutoETS, AutoTheta
from twin.errors import UsageError

LEVELS = [20, 40, 60, 80]
KEYS = ("lo-80", "lo-60", "lo-40", "lo-20", "mean", "hi-20", "hi-40", "hi-60", "hi-80")
SMALL = [
    AutoETS(context=100),
    AutoETS(season=12, context=100, name="auto_ets_season"),
    AutoTheta(season=12, context=100),
    AutoTheta(season=1, context=100, variant="DOTM", name="theta_without_season"),
    MSTL(seasons=(12,), context=100),
    MSTL(seasons=(24, 6), context=100, name="mstl_two"),
    AutoARIMA(context=100),
]
FOUR = [SMALL[0], SMALL[2], SMALL[4], SMALL[6]]


def named(forecaster):
    return forecaster.name


def stacked(said):
    """The library's answer as deciles [h, 9]."""
    return np.stack([said[key] for key in KEYS], axis=-1)


@pytest.fixture(scope="module")
def walk():
    return 100.0 + np.random.default_rng(1).standard_normal(600).cumsum()


@pytest.fixture(scope="module")
def fitted(walk, long):
    return AutoETS(fit_steps=400, context=100).fit(panel(long(a=walk)), 0)


@pytest.fixture(scope="module")
def daily(wave):
    """A wave of 12 steps with noise, and a level that wanders far from zero."""
    return 40.0 + wave(600, day=12) + 0.1 * np.random.default_rng(2).standard_normal(600).cumsum()


@pytest.fixture(scope="module")
def window(daily):
    """Its last 100 steps."""
    return daily[-100:]


def said_of(fitted, rows, h, ids="a"):
    return fitted.forecast(Past.of(rows, [ids] * len(rows), h), h)


# ---------------------------------------------------------------- what a forecast means


def test_a_random_walk_is_forecast_as_it_is_now(fitted, walk):
    said = said_of(fitted, walk[None, -100:], 12)[0]
    np.testing.assert_allclose(said[:, MEDIAN], walk[-1], atol=1.0)
    # the one-step band of unit noise: 2 x 1.2816
    assert said[0, 8] - said[0, 0] == pytest.approx(2 * 1.2816, rel=0.2)
    assert (np.diff(said[:, 8] - said[:, 0]) > 0).all()


def test_a_forecast_follows_its_own_window_not_the_fitted_start(fitted, walk):
    """The level comes from the window, so a window 500 higher is forecast about 500 higher."""
    low, high = said_of(fitted, walk[None, -100:] + np.array([[0.0], [500.0]]), 3)
    np.testing.assert_allclose(high[:, MEDIAN] - low[:, MEDIAN], 500.0, rtol=0.01)


@pytest.mark.parametrize("forecaster", [SMALL[1], SMALL[2], SMALL[4]], ids=named)
def test_the_season_comes_back_in_its_own_phase_from_every_origin(long, forecaster):
    wave = 10.0 + 3.0 * np.sin(2 * np.pi * np.arange(400) / 12)
    ready = forecaster.fit(panel(long(a=wave[:300])), 0)
    for origin in (300, 305, 311):
        said = said_of(ready, wave[None, origin - 100 : origin], 24)[0]
        np.testing.assert_allclose(said[:, MEDIAN], wave[origin : origin + 24], atol=0.05)


@pytest.mark.parametrize("forecaster", SMALL, ids=named)
def test_a_whole_batch_says_what_each_origin_says_alone_and_asking_changes_nothing(long, daily, forecaster):
    assert isinstance(forecaster, Forecaster)
    ready = forecaster.fit(panel(long(a=daily[:450])), 0)
    rows = frames.windows(daily, np.array([450, 463, 500]), 100)
    together = said_of(ready, rows, 14)
    assert together.shape == (3, 14, 9)
    assert (np.diff(together, axis=-1) >= 0).all()
    for k in (2, 0, 1):
        np.testing.assert_allclose(said_of(ready, rows[k : k + 1], 14)[0], together[k], rtol=1e-9)


@pytest.mark.parametrize("forecaster", FOUR, ids=named)
def test_a_young_series_is_forecast_from_what_it_has(long, daily, forecaster):
    ready = forecaster.fit(panel(long(a=daily[:450])), 0)
    young = daily[450:512].copy()
    padded = np.concatenate([np.full(38, np.nan), young])[None]
    short = type(ready)(**{s: getattr(ready, s) for s in ("fit_steps", "name", "models")} | settings_of(ready, 62))
    np.testing.assert_array_equal(said_of(ready, padded, 3), said_of(short, young[None], 3))


def settings_of(forecaster, context):
    kept = {k: getattr(forecaster, k) for k in ("season", "seasons") if hasattr(forecaster, k)}
    return kept | {"context": context}


@pytest.mark.parametrize("forecaster", FOUR, ids=named)
def test_fitting_again_gives_the_same_bits(long, daily, window, forecaster):
    one, two = (forecaster.fit(panel(long(a=daily)), seed) for seed in (0, 7))
    np.testing.assert_array_equal(said_of(one, window[None], 5), said_of(two, window[None], 5))


def test_progress_reaches_the_end_and_names_each_series(long, walk):
    told = []
    AutoETS().fit(panel(long(a=walk, b=walk)), 0, lambda share, note: told.append((share, note)))
    assert told == [(0.5, "a"), (1.0, "b")]


# ---------------------------------------------------------------- against the library's own forward


# fitted and run on one window: on another one the library starts from the state of the fitted one, and counts that
# first error in its bands
def test_ets_says_what_the_library_says(long, window):
    from statsforecast.models import AutoETS as Reference

    expected = stacked(Reference(season_length=1).fit(window).forward(window, 14, level=LEVELS))
    found = said_of(AutoETS(context=100).fit(panel(long(a=window)), 0), window[None], 14)[0]
    check_alike(found, expected, of_the_band=0.02)


@pytest.mark.parametrize("seasons", [(12,), (6, 24)])
def test_mstl_says_what_the_library_says(long, window, seasons):
    from statsforecast.models import MSTL as Reference

    expected = stacked(Reference(list(seasons)).fit(window).forward(window, 30, level=LEVELS))
    found = said_of(MSTL(seasons=seasons, context=100).fit(panel(long(a=window)), 0), window[None], 30)[0]
    check_alike(found, expected, of_the_band=0.02)


def check_alike(found, expected, of_the_band):
    width = (expected[:, 8] - expected[:, 0])[:, None]
    assert (np.abs(found - expected) <= of_the_band * width).all()


@pytest.mark.parametrize("variant", ["STM", "OTM", "DSTM", "DOTM", None])
def test_theta_has_the_library_s_mean_and_the_bands_that_its_paths_estimate(long, daily, window, variant):
    from statsforecast.models import AutoTheta as Reference

    expected = stacked(Reference(12, model=variant).fit(daily).forward(window, 14, level=LEVELS))
    ready = AutoTheta(season=12, context=100, variant=variant).fit(panel(long(a=daily)), 0)
    found = said_of(ready, window[None], 14)[0]
    np.testing.assert_allclose(found[:, MEDIAN], expected[:, MEDIAN], rtol=2e-4)
    # 200 drawn paths: a decile of theirs is good to about a tenth of the band
    check_alike(found, expected, of_the_band=0.2)


@pytest.mark.parametrize(("alpha", "theta"), [(0.1, 1.5), (0.5, 2.0), (0.99, 8.0)])
def test_theta_bands_grow_as_those_of_a_hundred_thousand_paths(alpha, theta):
    from statsforecast.theta import compute_pi_samples

    from agents.forecast.statistical import theta_growth

    steps, h, start = 60, 12, np.zeros((1, 5))
    paths = compute_pi_samples(steps, h, start, 1.0, alpha, theta, 0.0, seed=1, n_samples=100_000)
    np.testing.assert_allclose(theta_growth(alpha, theta, steps, h), paths.std(axis=1), rtol=0.01)


def test_arima_says_what_the_library_says(long, daily, window):
    from statsforecast.models import AutoARIMA as Reference

    expected = stacked(Reference(season_length=1).fit(daily).forward(window, 14, level=LEVELS))
    found = said_of(AutoARIMA(context=100).fit(panel(long(a=daily)), 0), window[None], 14)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# ---------------------------------------------------------------- golden: recorded cells


@pytest.fixture(scope="module")
def recorded():
    every = [s for n in ("google2019", "azure_v2") for s in panel(frames.series(twin.read(n)))]
    return {s.unique_id: s for s in every}


def hourly(series):
    steps = len(series.values) // 12 * 12
    return Series(series.unique_id, series.start_s, 3600, series.values[:steps].reshape(-1, 12).mean(axis=1))


def wape_percent(forecaster, series, h):
    """Of the medians from 24 equally spaced origins in the last quarter, fitted once before it."""
    steps = len(series.values)
    ready = forecaster.fit(frames.first([series], 0.75), 0)
    rolled = roll(ready, series, np.linspace(int(0.75 * steps), steps - h, 24).astype(np.int64), h)
    return 100.0 * np.abs(rolled.truth - rolled.said[:, :, MEDIAN]).sum() / rolled.truth.sum()


# measured with statsforecast's own forward for the whole history before each origin
@pytest.mark.parametrize(
    ("forecaster", "percent"),
    [(AutoETS(), 2.62), (MSTL(), 2.50), (AutoTheta(variant="DOTM"), 2.52)],
    ids=["ets", "mstl", "theta"],
)
def test_the_next_hour_of_a_recorded_cell(recorded, forecaster, percent):
    found = wape_percent(forecaster, recorded["google2019/assigned_memory"], 12)
    assert found == pytest.approx(percent, abs=0.01)


@pytest.mark.parametrize(
    ("forecaster", "unique_id", "percent"),
    [
        (AutoETS(season=24, context=720), "azure_v2/cpu", 6.04),
        (MSTL(seasons=(24,), context=720), "google2019/assigned_memory", 5.29),
        (AutoTheta(season=24, context=720), "google2019/assigned_memory", 5.03),
    ],
    ids=["ets", "mstl", "theta"],
)
def test_the_next_day_of_a_recorded_cell(recorded, forecaster, unique_id, percent):
    assert wape_percent(forecaster, hourly(recorded[unique_id]), 24) == pytest.approx(percent, abs=0.01)


# ---------------------------------------------------------------- odd series


def bursts(steps):
    """Zero at 97 % of the steps."""
    rng = np.random.default_rng(0)
    return np.where(rng.random(steps) < 0.03, rng.exponential(100.0, steps), 0.0)


def odd_series():
    rng, steps = np.random.default_rng(0), np.arange(280)
    return {
        "zeros": np.zeros(280),
        "bursts": bursts(280),
        "bursts_above_nothing": bursts(280) + 1e-9,
        "downwards_to_zero": np.linspace(100.0, 0.0, 280),
        "growing_without_end": np.exp(steps / 10.0),
        "huge": 1e99 * rng.random(280),
        "negative": -1.0 - bursts(280),
        "one_spike": np.where(steps == 50, 1e9, 1.0),
        "still_until_the_end": np.where(steps < 200, 3.0, rng.random(280)),
        "still_at_the_end": np.where(steps < 200, rng.random(280), 3.0),
        "on_off": np.tile([0.0, 1.0], 140),
    }


@pytest.mark.parametrize("forecaster", SMALL, ids=named)
def test_odd_series_are_forecast_in_bounds(long, forecaster):
    for name, values in odd_series().items():
        ready = forecaster.fit(panel(long(**{name: values[:200]})), 0)
        rows = frames.windows(values, np.array([210, 280]), 100)
        said = said_of(ready, rows, 30, name)
        assert np.isfinite(said).all(), name
        assert (np.diff(said, axis=-1) >= 0.0).all(), name
        span = np.ptp(values)
        assert said.min() >= values.min() - 3.0 * span, name
        assert said.max() <= values.max() + 3.0 * span, name
        assert said.min() >= 0.0 or values.min() < 0.0, name


def test_without_the_bounds_the_bands_of_an_intermittent_series_explode(long):
    from statsforecast.models import AutoETS as Reference

    values = bursts(600) + 1e-9
    native = Reference(season_length=1).fit(values[:450]).forward(values[250:450], 30, level=[80])
    assert native["hi-80"].max() > 20.0 * values.max()
    ready = AutoETS(context=200).fit(panel(long(a=values[:450])), 0)
    assert said_of(ready, values[None, 250:450], 30).max() <= 4.0 * values.max()


@pytest.mark.parametrize("forecaster", SMALL, ids=named)
def test_a_constant_series_is_forecast_as_that_constant(long, forecaster):
    ready = forecaster.fit(panel(long(a=np.full(200, 5.0))), 0)
    np.testing.assert_array_equal(said_of(ready, np.full((1, 100), 5.0), 3), 5.0)


def test_a_series_that_never_moved_before_is_a_walk_once_it_moves(long, walk):
    ready = AutoARIMA(context=100).fit(panel(long(a=np.full(200, 5.0))), 0)
    said = said_of(ready, walk[None, -100:], 4)[0]
    np.testing.assert_array_equal(said[:, MEDIAN], walk[-1])
    noise = np.diff(walk[-100:]).std()
    np.testing.assert_allclose(said[:, 8] - walk[-1], 1.2816 * noise * np.sqrt([1, 2, 3, 4]), rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(-1e90, 1e90, allow_subnormal=False), min_size=40, max_size=40))
def test_whatever_the_series_its_deciles_are_finite_and_do_not_cross(long, values):
    y = np.array(values)
    try:
        ready = AutoETS(context=20).fit(panel(long(a=y[:30])), 0)
    except UsageError:
        return  # refused with its reason
    said = said_of(ready, y[None, 20:], 6)
    assert np.isfinite(said).all()
    assert (np.diff(said, axis=-1) >= 0.0).all()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("forecaster", SMALL, ids=named)
def test_ten_points_are_refused_with_the_number_that_is_needed(long, forecaster):
    with pytest.raises(UsageError, match=rf"'a' has 10 steps, and a fit needs {forecaster.needs}"):
        forecaster.fit(panel(long(a=np.arange(10))), 0)


def test_values_whose_squares_are_no_numbers_are_refused(long):
    with pytest.raises(UsageError, match="larger unit"):
        AutoETS().fit(panel(long(a=np.linspace(0.0, 1e200, 50))), 0)


def test_what_the_library_cannot_fit_is_refused_in_its_words(long):
    with pytest.raises(UsageError, match="'a' cannot be fitted: ValueError: No suitable ARIMA model"):
        AutoARIMA().fit(panel(long(a=1e-300 * np.random.default_rng(0).random(200))), 0)


@pytest.mark.parametrize(
    ("forecaster", "why"),
    [
        (AutoETS(season=288), "too long for exponential smoothing"),
        (AutoETS(season=0), "seasons of"),
        (MSTL(seasons=(288, 2016)), r"context >= 4032"),
        (MSTL(seasons=(24, 24)), "different"),
        (MSTL(seasons=(1,)), "two steps at least"),
        (AutoTheta(season=48, context=90), r"context >= 96"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_fitted(long, walk, forecaster, why):
    with pytest.raises(UsageError, match=why):
        forecaster.fit(panel(long(a=walk)), 0)


def test_an_unfitted_series_is_refused_by_name(fitted, walk):
    with pytest.raises(UsageError, match="'b'"):
        said_of(fitted, walk[None, -100:], 3, "b")


def test_a_window_that_is_too_young_is_refused(fitted, walk):
    young = np.concatenate([np.full(81, np.nan), walk[-19:]])[None]
    with pytest.raises(UsageError, match="last 20 steps of 'a'"):
        said_of(fitted, young, 3)


def test_a_series_of_its_own_is_rolled_as_any_other(fitted, walk, long):
    series = panel(long(a=walk))[0]
    origins = np.array([300, 400])
    np.testing.assert_array_equal(
        roll(fitted, series, origins, 6).said, fitted.forecast(past_at(series, origins, 100, 6), 6)
    )
