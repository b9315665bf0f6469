import numpy as np
import pytest

from agents.forecast.seasons import classical, mstl, repeated


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    steps = np.arange(700)
    wave = 5 * np.sin(2 * np.pi * steps / 24) + 3 * np.cos(2 * np.pi * steps / 168)
    return 100.0 + wave + rng.standard_normal((3, len(steps))).cumsum(axis=1)


# two seasons exactly, a season cut short, an odd season, more seasons than the smoother is wide
@pytest.mark.parametrize(("steps", "season"), [(48, 24), (251, 24), (53, 13), (700, 24), (600, 288), (20, 2)])
def test_one_season_is_that_of_the_library_to_the_last_digits(windows, steps, season):
    from statsforecast.mstl import mstl as reference

    expected = [reference(row, season)["seasonal"] for row in windows[:, :steps]]
    np.testing.assert_allclose(mstl(windows[:, :steps], [season])[0], expected, rtol=0, atol=1e-9)


def test_two_seasons_are_those_of_the_library_whatever_their_order(windows):
    from statsforecast.mstl import mstl as reference

    frames = [reference(row, [24, 168]) for row in windows]
    for seasons in ([24, 168], [168, 24]):
        parts = mstl(windows, seasons)
        for part, name in zip(parts, ("seasonal24", "seasonal168"), strict=True):
            np.testing.assert_allclose(part, [frame[name] for frame in frames], rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [48, 53, 700])
@pytest.mark.parametrize("season", [4, 7, 24])
@pytest.mark.parametrize("model", ["additive", "multiplicative"])
def test_the_classical_season_is_that_of_the_library(windows, steps, season, model):
    from statsmodels.tsa.seasonal import seasonal_decompose

    window = windows[0, :steps]
    expected = seasonal_decompose(window, model=model, period=season).seasonal
    found = classical(window, season, multiplicative=model == "multiplicative")
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_a_window_that_reaches_zero_is_no_product():
    assert classical(np.tile([0.0, 1.0], 10), 2, multiplicative=True) is None
    assert classical(np.tile([1e-6, 1.0], 10), 2, multiplicative=True) is None
    assert classical(np.tile([0.5, 1.0], 10), 2, multiplicative=True) is not None


def test_the_last_season_comes_again():
    np.testing.assert_array_equal(repeated(np.array([[1, 2, 3], [4, 5, 6]]), 5), [[1, 2, 3, 1, 2], [4, 5, 6, 4, 5]])
