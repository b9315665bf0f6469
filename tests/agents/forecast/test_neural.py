"""Networks as forecasters: they learn, know units, forget nothing between saving and loading, and refuse clearly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.forecast.base import MEDIAN, Floats, Forecaster, Past
from agents.forecast.frames import Columns, Series
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural, Training, shipped
from agents.forecast.rolling import past_at, roll
from twin.errors import PolicyError, UsageError

H, DAY = 4, 24
SMALL = Neural(ResidualMLP(16), 48, H, (DAY,), training=Training(steps=150, batch=64, learning_rate=3e-3, members=2))


def wave(steps: int, seed: int = 0, noise: float = 0.05) -> Floats:
    rng = np.random.default_rng(seed)
    return 10.0 + 3.0 * np.sin(2 * np.pi * np.arange(steps) / DAY) + noise * rng.standard_normal(steps)


SERIES = [Series("a", 0, 300, wave(900)), Series("b", 0, 300, 50.0 * wave(700, 1))]


@pytest.fixture(scope="module")
def notes() -> list[tuple[float, str]]:
    return []


@pytest.fixture(scope="module")
def fitted(notes: list[tuple[float, str]]) -> Neural:
    return SMALL.fit(SERIES, 3, lambda share, note: notes.append((share, note)))


def test_the_network_is_a_forecaster_and_training_leaves_the_unfitted_one_alone(fitted: Neural) -> None:
    assert isinstance(fitted, Forecaster)
    assert SMALL.weights is None


def test_it_learns_a_wave_that_the_last_value_cannot_follow(fitted: Neural) -> None:
    """On unseen data, also of a series it never saw, the median's error is a small part of the naive one's."""
    unseen = Series("new", 0, 300, wave(400, 9) + 90.0)
    rolled = roll(fitted, unseen, np.arange(48, 396), H)
    error = np.abs(rolled.truth - rolled.said[..., MEDIAN]).mean()
    assert error < 0.2 * np.abs(rolled.truth - unseen.values[rolled.origins - 1, None]).mean()
    inside = ((rolled.truth >= rolled.said[..., 0]) & (rolled.truth <= rolled.said[..., -1])).mean()
    assert 0.6 < inside <= 1.0


def test_a_straight_line_goes_on(fitted: Neural) -> None:
    said = fitted.forecast(Past.of(7.0 + 0.5 * np.arange(48.0)[None], ["counter"], H), H)
    np.testing.assert_allclose(said[0, :, MEDIAN], 7.0 + 0.5 * np.arange(48, 48 + H), rtol=1e-2)


def test_progress_tells_how_far_it_is_and_the_losses(notes: list[tuple[float, str]], fitted: Neural) -> None:
    assert [share for share, _ in notes] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert notes[0][1].startswith("step 50: loss ")


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(fitted: Neural) -> None:
    again, other = SMALL.fit(SERIES, 3), SMALL.fit(SERIES, 4)
    assert fitted.weights
    assert again.weights
    assert other.weights
    for path, value in fitted.weights.items():
        np.testing.assert_array_equal(again.weights[path], value)
    assert any((other.weights[path] != value).any() for path, value in fitted.weights.items())


def test_members_differ(fitted: Neural) -> None:
    assert fitted.weights
    assert all(len(value) == 2 for value in fitted.weights.values())
    assert any((value[0] != value[1]).any() for value in fitted.weights.values())


@settings(max_examples=30)
@given(arrays(np.float64, (2, 48), elements=st.floats(0.0, 1e6)))
def test_deciles_never_cross_and_are_finite(fitted: Neural, histories: Floats) -> None:
    said = fitted.forecast(Past.of(histories, ["a", "a"], H), H)
    assert np.isfinite(said).all()
    assert (np.diff(said, axis=-1) >= 0).all()


@settings(max_examples=30)
@given(factor=st.floats(1e-6, 1e12))
def test_a_series_in_other_units_is_forecast_in_those_units(fitted: Neural, factor: float) -> None:
    history = wave(48, 5)[None]
    one, scaled = (fitted.forecast(Past.of(k * history, ["a"], H), H) for k in (1.0, factor))
    np.testing.assert_allclose(scaled / factor, one, rtol=1e-4)


def test_a_forecast_does_not_depend_on_the_others_in_its_batch(fitted: Neural) -> None:
    one = Series("a", 0, 300, wave(300, 2))
    together = fitted.forecast(past_at(one, np.arange(48, 248), fitted.context, H), H)
    alone = fitted.forecast(past_at(one, np.array([198]), fitted.context, H), H)
    np.testing.assert_allclose(alone[0], together[150], rtol=1e-5)
    few = fitted.forecast(past_at(one, np.array([198, 200]), fitted.context, H), H)
    np.testing.assert_array_equal(few[0], together[150])


def test_fewer_steps_are_the_first_of_more_and_an_empty_batch_is_empty(fitted: Neural) -> None:
    one = Series("a", 0, 300, wave(300, 2))
    origins = np.array([100])
    many, few = (fitted.forecast(past_at(one, origins, fitted.context, h), h) for h in (H, 2))
    np.testing.assert_array_equal(few, many[:, :2])
    assert fitted.forecast(Past.of(np.zeros((0, 48)), [], H), H).shape == (0, H, 9)


def test_a_young_series_is_forecast_from_what_there_is(fitted: Neural) -> None:
    young = Series("new", 0, 300, wave(10, 3))
    assert np.isfinite(roll(fitted, young, np.array([fitted.needs, 10]), H).said).all()
    with pytest.raises(UsageError, match=f"last {fitted.needs} steps"):
        roll(fitted, young, np.array([fitted.needs - 1]), H)


def test_what_is_known_ahead_is_used() -> None:
    """Steps of a size that only a known column tells: the median comes nearer than any forecast without it could."""
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2, 1004).astype(np.float64)[:, None]
    values = 10.0 + 5.0 * known[:1000, 0] + 0.1 * rng.standard_normal(1000)
    one = Series("a", 0, 300, values, known=known, columns=Columns(known=("event",)))
    net = Neural(ResidualMLP(32), 24, 2, training=Training(steps=300, batch=64, learning_rate=3e-3))
    rolled = roll(net.fit([one.until(800)], 0), one, np.arange(800, 990), 2)
    assert np.abs(rolled.truth - rolled.said[..., MEDIAN]).mean() < 1.0


def test_saved_and_loaded_it_says_nearly_the_same(fitted: Neural, tmp_path: Path) -> None:
    fitted.save(tmp_path / "net.npz")
    loaded = SMALL.load(tmp_path / "net.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]
    past = Past.of(wave(48, 5)[None], ["a"], H)
    np.testing.assert_allclose(loaded.forecast(past, H), fitted.forecast(past, H), rtol=1e-2)


def test_weights_that_look_at_the_past_in_another_way_are_refused(fitted: Neural, tmp_path: Path) -> None:
    fitted.save(tmp_path / "net.npz")
    with pytest.raises(PolicyError, match="made with horizon, squash and lags"):
        replace(SMALL, squash=not SMALL.squash).load(tmp_path / "net.npz")


def test_training_goes_on_from_a_checkpoint(fitted: Neural, tmp_path: Path) -> None:
    fitted.save(tmp_path / "net.npz")
    begun = replace(SMALL, start=str(tmp_path / "net.npz"), training=replace(SMALL.training, steps=0)).fit(SERIES, 0)
    stored = SMALL.load(tmp_path / "net.npz")
    assert begun.weights
    assert stored.weights
    for path, value in stored.weights.items():
        np.testing.assert_array_equal(begun.weights[path], value)


@pytest.mark.parametrize(("name", "window", "h", "lags"), [("hour", 288, 12, (288, 2016)), ("day", 96, 24, (24, 168))])
def test_the_shipped_checkpoints_forecast_what_they_never_saw(name: str, window: int, h: int, lags: tuple) -> None:
    net = Neural(ResidualMLP(), window, h, lags).load(shipped(name))
    assert shipped(name).stat().st_size < 700_000
    per_day = lags[0]
    daily = 100.0 + 30.0 * np.sin(2 * np.pi * np.arange(10 * per_day) / per_day)
    one = Series("new", 0, 86_400 // per_day, daily + 0.5 * np.random.default_rng(0).standard_normal(len(daily)))
    rolled = roll(net, one, np.arange(8 * per_day, len(daily) - h, 7), h)
    error = np.abs(rolled.truth - rolled.said[..., MEDIAN]).mean()
    assert error < 0.75 * np.abs(rolled.truth - one.values[rolled.origins - 1, None]).mean()


@pytest.mark.parametrize("content", [None, b"", b"not an archive", b"PK\x03\x04 cut short", "other arrays"])
def test_what_is_not_this_network_is_refused_with_its_path(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "net.npz"
    if isinstance(content, str):
        np.savez(path, a=np.zeros((1, 3)))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"net\.npz"):
        SMALL.load(path)


def test_what_it_was_not_made_for_is_refused(fitted: Neural, tmp_path: Path) -> None:
    past = Past.of(wave(48)[None], ["a"], H + 1)
    with pytest.raises(UsageError, match="trained for 4 steps"):
        fitted.forecast(past, H + 1)
    with pytest.raises(UsageError, match="not trained"):
        SMALL.forecast(Past.of(wave(48)[None], ["a"], H), H)
    for wrong in (replace(SMALL, window=1), replace(SMALL, lags=(H - 1,))):
        with pytest.raises(UsageError, match=r"a window of at least 2 steps.*lags of at least the 4 steps"):
            wrong.fit(SERIES, 0)
    with pytest.raises(UsageError, match="nothing to save"):
        SMALL.save(tmp_path / "net.npz")


def test_series_that_cannot_be_trained_on_are_refused() -> None:
    with pytest.raises(UsageError, match="no series is long enough"):
        SMALL.fit([Series("a", 0, 300, np.arange(4.0))], 0)
    with pytest.raises(UsageError, match="different steps"):
        SMALL.fit([SERIES[0], Series("c", 0, 600, wave(300))], 0)
    with pytest.raises(UsageError, match="different columns"):
        SMALL.fit([SERIES[0], replace(SERIES[1], static=np.ones(1))], 0)


_ON_DEVICES = """
import json, numpy as np
from agents.forecast.frames import Series
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural, Training
import jax
rng = np.random.default_rng(0)
net = Neural(ResidualMLP(8), 24, 2, training=Training(steps=50, batch=32))
fitted = net.fit([Series("a", 0, 300, 10 + rng.standard_normal(400).cumsum())], 0)
print(json.dumps([jax.device_count(), {k: float(np.abs(v).sum()) for k, v in fitted.weights.items()}]))
"""


def test_two_devices_share_a_batch_and_learn_the_same() -> None:
    found = []
    for count in (1, 2):
        flags = f"--xla_force_host_platform_device_count={count}"
        done = subprocess.run(
            [sys.executable, "-c", _ON_DEVICES],
            env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        found.append(json.loads(done.stdout))
    assert [devices for devices, _ in found] == [1, 2]
    for path, value in found[0][1].items():
        assert found[1][1][path] == pytest.approx(value, rel=1e-3)
