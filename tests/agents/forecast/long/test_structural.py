"""A decomposition gives back what a series was made of; change points are those of the exact search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.forecast.long.structural import decompose
from agents.forecast.long.trend import changes, damped

DAY_S = 86_400


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def made(days: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    t = np.arange(days)
    parts = {
        "trend": 5.0 + 0.2 * t / 365.25 + 0.3 * (t >= 400),
        "week": 0.1 * np.array([1, 1, 1, 1, 1, -2, -3])[t % 7],
        "year": 0.15 * np.sin(2 * np.pi * t / 365.25),
    }
    return np.exp(sum(parts.values()) + 0.05 * rng.standard_normal(days)), parts


def test_the_parts_of_a_made_series_are_found(rng: np.random.Generator) -> None:
    values, parts = made(1_000, rng)
    found = decompose(values, 0.0, DAY_S)
    assert found.multiplies
    assert min(abs(change - 400) for change in found.changes) <= 14
    assert len(found.changes) <= 2  # the search errs on the side of one too many
    assert found.noise == pytest.approx(0.05, rel=0.2)
    for name in ("week", "year"):
        truth = np.exp(parts[name])
        assert np.abs(found.parts[name] / found.parts[name].mean() - truth / truth.mean()).max() < 0.05
    assert found.slope == pytest.approx(0.2, abs=0.08)


def test_a_series_of_noise_has_no_change_no_slope_and_no_season(rng: np.random.Generator) -> None:
    found = decompose(100.0 + 5.0 * rng.standard_normal(800), 0.0, DAY_S, h=100)
    assert found.changes == ()
    assert np.ptp(found.flat[-100:]) < 4.0
    assert abs(found.slope) < 0.05


def test_parts_multiply_to_what_was_fitted_or_add_up_to_it(rng: np.random.Generator) -> None:
    values, _ = made(700, rng)
    for series in (values, values - values.mean()):
        found = decompose(series, 0.0, DAY_S)
        whole = np.prod(list(found.parts.values()), axis=0) if found.multiplies else sum(found.parts.values())
        ratio = found.fitted / whole if found.multiplies else found.fitted - whole
        assert np.ptp(ratio) < 1e-9
        assert found.multiplies == (series is values)


def test_a_known_regressor_moves_the_future(rng: np.random.Generator) -> None:
    event = np.zeros((428, 1))
    event[::40] = 1.0
    values = np.exp(4.0 - 0.5 * event[:400, 0] + 0.02 * rng.standard_normal(400))
    found = decompose(values, 0.0, DAY_S, 28, event)
    at = 400 + int(event[400:, 0].argmax())
    assert found.fitted[at] / found.fitted[at + 1] == pytest.approx(np.exp(-0.5), rel=0.05)


def test_the_trend_fades_and_its_held_form_stands_still(rng: np.random.Generator) -> None:
    values = np.exp(3.0 + 0.5 * np.arange(360) / 365.25 + 0.01 * rng.standard_normal(360))
    found = decompose(values, 0.0, DAY_S, 720)
    trend = found.parts["trend"]
    assert trend[-1] > trend[359]
    growth = np.diff(np.log(trend[359:]))
    assert growth[0] == pytest.approx(0.5 / 365.25, rel=0.15)
    assert growth[-1] < 0.2 * growth[0]


def test_one_slope_unit_carries_its_memory_at_most() -> None:
    assert damped(np.array([1e-6, 1e9]), 50.0) == pytest.approx([1e-6, 50.0])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(10, 30), st.integers(10, 30))
def test_the_search_for_changes_is_that_of_pelt(seed: int, left: int, right: int) -> None:
    ruptures = pytest.importorskip("ruptures")
    rng = np.random.default_rng(seed)
    t = np.arange(left + right, dtype=np.float64)
    y = np.where(t < left, 0.1 * t, 3.0 - 0.2 * t) + 0.5 * rng.standard_normal(len(t))
    signal = np.column_stack([y, np.ones_like(t), t])
    pelt = ruptures.Pelt(model="linear", min_size=4, jump=1).fit(signal).predict(pen=4.0)
    exact = ruptures.Dynp(model="linear", min_size=4, jump=1).fit(signal)
    mine = changes(y, 4.0, 4)

    def cost(ends: list[int]) -> float:
        return exact.cost.sum_of_costs(ends) + 4.0 * len(ends)

    assert cost([*mine, len(t)]) <= cost(pelt) + 1e-6
