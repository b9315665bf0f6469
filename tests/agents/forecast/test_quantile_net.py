import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.forecast.base import MEDIAN, Forecaster
from agents.forecast.quantile_net import QuantileNet
from twin.errors import PolicyError, UsageError

SMALL = QuantileNet(context=48, horizon=4, width=16, steps=200, batch=64, learning_rate=3e-3)


@pytest.fixture(scope="module")
def frame(long, wave):
    return long(a=wave(900, 0, day=24, noise=0.05), b=50.0 * wave(700, 1, day=24, noise=0.05))


@pytest.fixture(scope="module")
def notes():
    return []


@pytest.fixture(scope="module")
def fitted(frame, notes):
    return SMALL.fit(frame, 3, lambda share, note: notes.append((share, note)))


def test_the_network_is_a_forecaster_and_training_leaves_the_unfitted_one_alone(fitted):
    assert isinstance(fitted, Forecaster)
    assert SMALL.weights is None


def test_it_learns_a_wave_that_the_last_value_cannot_follow(fitted, wave):
    """On unseen data, also of a series it never saw, the median's error is a small part of the naive one's."""
    unseen = wave(400, 9, day=24, noise=0.05) + 90.0
    origins = np.arange(48, 396)
    histories = unseen[origins[:, None] + np.arange(-48, 0)]
    truth = unseen[origins[:, None] + np.arange(4)]
    said = fitted.forecast(histories, 4, ["new"] * len(origins))
    error = np.abs(truth - said[:, :, MEDIAN]).mean()
    assert error < 0.2 * np.abs(truth - histories[:, -1:]).mean()
    inside = ((truth >= said[:, :, 0]) & (truth <= said[:, :, 8])).mean()
    assert 0.6 < inside <= 1.0


def test_progress_tells_how_far_it_is_and_the_losses(notes, fitted):
    assert [share for share, _ in notes] == [0.25, 0.5, 0.75, 1.0]
    assert notes[0][1].startswith("step 50: loss ")


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(fitted, frame):
    again, other = SMALL.fit(frame.sample(fraction=1.0, shuffle=True, seed=1), 3), SMALL.fit(frame, 4)
    assert again.weights
    assert other.weights
    for path, value in fitted.weights.items():
        np.testing.assert_array_equal(again.weights[path], value)
    assert any((other.weights[path] != value).any() for path, value in fitted.weights.items())


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (2, 48), elements=st.floats(0.0, 1e6)))
def test_deciles_never_cross_and_are_finite(fitted, histories):
    said = fitted.forecast(histories, 4, ["a", "a"])
    assert np.isfinite(said).all()
    assert (np.diff(said, axis=-1) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(1e-3, 1e6))
def test_a_series_in_other_units_is_forecast_in_those_units(fitted, wave, factor):
    history = wave(48, 5, day=24)[None]
    one, scaled = fitted.forecast(history, 4, ["a"]), fitted.forecast(factor * history, 4, ["a"])
    np.testing.assert_allclose(scaled / factor, one, rtol=1e-5)


def test_a_forecast_does_not_depend_on_the_others_in_its_batch(fitted, wave):
    values = wave(300, 2, day=24)
    histories = values[np.arange(48, 248)[:, None] + np.arange(-48, 0)]
    together = fitted.forecast(histories, 4, ["a"] * 200)
    np.testing.assert_array_equal(fitted.forecast(histories[150:151], 4, ["a"])[0], together[150])


def test_saved_and_loaded_it_says_the_same(fitted, wave, tmp_path):
    fitted.save(tmp_path / "net")
    loaded = QuantileNet.load(tmp_path / "net")
    assert [p.name for p in (tmp_path / "net").iterdir()] == ["weights.npz"]
    history = wave(48, 5, day=24)[None]
    np.testing.assert_array_equal(loaded.forecast(history, 4, ["a"]), fitted.forecast(history, 4, ["a"]))


@pytest.mark.parametrize("content", [None, b"", b"not an archive", b"PK\x03\x04 cut short", "other arrays"])
def test_what_is_not_a_network_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "weights.npz"
    if content == "other arrays":
        np.savez(path, a=np.zeros(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"weights\.npz"):
        QuantileNet.load(tmp_path)


def test_what_it_was_not_made_for_is_refused(fitted, wave, tmp_path):
    history = wave(48)[None]
    with pytest.raises(UsageError, match="trained for 4 steps"):
        fitted.forecast(history, 5, ["a"])
    with pytest.raises(UsageError, match="not trained"):
        SMALL.forecast(history, 4, ["a"])
    with pytest.raises(UsageError, match="nothing to save"):
        SMALL.save(tmp_path)


def test_series_that_cannot_be_trained_on_are_refused(long):
    with pytest.raises(UsageError, match="no series is long enough"):
        SMALL.fit(long(a=np.arange(50)), 0)
    slow = long(b=np.arange(200.0)).with_columns(ds=2 * np.arange(200) * 300)
    with pytest.raises(UsageError, match="different steps"):
        SMALL.fit(long(a=np.arange(200)).vstack(slow.select("unique_id", "ds", "y")), 0)
