"""Adaptive conformal bands: coverage comes back after a change, nothing later than the origin counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from agents.forecast.adaptive import Adaptive, roughness
from agents.forecast.base import DECILES, MEDIAN, Floats, Past
from agents.forecast.frames import Series
from agents.forecast.rolling import past_at, roll
from twin.errors import UsageError

H = 3
SHAPE = np.quantile(np.random.default_rng(1).standard_normal(100_000), DECILES)


@dataclass(frozen=True)
class Normal:
    """Knows the level 0, and takes the deviation to be `width`."""

    width: float = 1.0
    name: str = "normal"
    context: int = 1
    needs: int = 1
    pooled: bool = True

    def fit(self, series: Sequence[Series], seed: int, progress=None):
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        return np.tile(self.width * SHAPE, (len(past.ids), h, 1))


def noise(steps: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(steps)


def adaptive(**changes: float) -> Adaptive:
    return replace(Adaptive(Normal(), H, 3, 600, share=0.5, rate=0.05), **changes)


def coverage(said: Floats, truth: Floats) -> float:
    return float(((truth >= said[..., 0]) & (truth <= said[..., -1])).mean())


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_bands_come_to_cover_what_they_should_whatever_the_base_believes(scale: float) -> None:
    one = Series("a", 0, 300, noise(4000, scale=scale))
    fitted = adaptive().fit([one.until(2000)], 0)
    rolled = roll(fitted, one, np.arange(2000, 3990, 3), H)
    assert 0.77 < coverage(rolled.said, rolled.truth) < 0.84
    assert (np.diff(rolled.said, axis=-1) >= 0.0).all()


def test_coverage_comes_back_after_the_noise_has_doubled() -> None:
    one = Series("a", 0, 300, np.concatenate([noise(3000), noise(2000, 1, 2.0)]))
    fitted = adaptive().fit([one.until(2500)], 0)
    late = roll(fitted, one, np.arange(3800, 4990, 3), H)
    fixed = Normal().forecast(past_at(one, late.origins, 1, H), H)
    assert coverage(fixed, late.truth) < 0.55
    assert coverage(late.said, late.truth) > 0.75


def test_how_it_did_on_what_the_base_learned_tells_nothing() -> None:
    """Errors are small where a base was fitted: bands that followed them would be too narrow right after."""
    one = Series("a", 0, 300, np.concatenate([noise(1000), noise(1000, 1, 0.01), noise(600, 2)]))
    fitted = adaptive().fit([one.until(1000)], 0)
    later = replace(fitted, starts={**fitted.starts, "a": replace(fitted.starts["a"], ended_s=2000 * 300.0)})
    origins = np.array([2000, 2001])
    np.testing.assert_array_equal(
        roll(later, one, origins, 1).said[:, 0], roll(replace(later, lookback=0), one, origins, 1).said[:, 0]
    )
    assert np.ptp(roll(fitted, one, origins, 1).said) < np.ptp(roll(later, one, origins, 1).said)


def test_wrong_use_is_refused() -> None:
    one = Series("a", 0, 300, noise(2000))
    fitted = adaptive().fit([one.until(1500)], 0)
    with pytest.raises(UsageError, match="follow 3 steps ahead, asked for 4"):
        roll(fitted, one, np.array([1500]), 4)
    with pytest.raises(UsageError, match="settled already"):
        fitted.settled([one]).settled([one])
    assert roll(fitted, one, np.array([], dtype=np.int64), H).said.shape == (0, H, 9)


def test_the_median_stays() -> None:
    one = Series("a", 0, 300, noise(2000))
    fitted = adaptive().fit([one.until(1500)], 0)
    said = roll(fitted, one, np.arange(1500, 1900, 7), H).said
    np.testing.assert_array_equal(said[..., MEDIAN], SHAPE[MEDIAN])


def test_forecast_and_roll_agree() -> None:
    one = Series("a", 0, 300, noise(2000))
    fitted = adaptive().fit([one.until(1500)], 0)
    origins = np.array([1500, 1501, 1777])
    np.testing.assert_allclose(
        roll(fitted, one, origins, H).said, fitted.forecast(past_at(one, origins, fitted.context, H), H)
    )


def test_what_comes_after_the_origin_changes_nothing() -> None:
    values = noise(2000)
    fitted = adaptive().fit([Series("a", 0, 300, values[:1500])], 0)
    later = values.copy()
    later[1700:] = 1e6
    origins = np.arange(1500, 1701, 9)
    before, after = (roll(fitted, Series("a", 0, 300, each), origins, H).said for each in (values, later))
    np.testing.assert_array_equal(before, after)


def test_a_young_series_is_forecast_with_what_there_is() -> None:
    fitted = adaptive().fit([Series("a", 0, 300, noise(2000))], 0)
    said = roll(fitted, Series("new", 0, 300, noise(10)), np.array([2, 10]), H).said
    assert np.isfinite(said).all()


def test_settled_says_the_same_at_its_origin_and_asks_the_base_once() -> None:
    one = Series("a", 0, 300, noise(2000))
    fitted = adaptive().fit([one.until(1500)], 0)
    settled = fitted.settled([one.until(1800)])
    assert settled.context == H + 1
    now = past_at(one, np.array([1800]), fitted.context, H)
    mine, theirs = fitted.forecast(now, H), settled.forecast(now.last(settled.context, H), H)
    np.testing.assert_allclose(mine, theirs)


def test_rough_and_calm_hours_have_bands_of_their_own() -> None:
    rng = np.random.default_rng(0)
    busy = (np.arange(6000) // 150) % 2 == 1
    one = Series("a", 0, 300, rng.standard_normal(6000) * np.where(busy, 3.0, 0.5))
    fitted = replace(adaptive(), horizon=H, spill=0.2).fit([one.until(4000)], 0)
    rolled = roll(fitted, one, np.arange(4000, 5990, 3), H)
    inside = ((rolled.truth >= rolled.said[..., 0]) & (rolled.truth <= rolled.said[..., -1])).mean(axis=1)
    rough = busy[rolled.origins - 1]
    assert abs(inside[rough].mean() - inside[~rough].mean()) < 0.2
    fixed = coverage(2.0 * np.tile(SHAPE, (1, 1, 1)), rolled.truth[rough])
    assert fixed < 0.65  # one width for all would not do


def test_roughness_is_the_mean_move_before_each_origin() -> None:
    values = np.array([0.0, 1.0, 3.0, 3.0, 10.0])
    np.testing.assert_allclose(roughness(values, np.array([3, 4, 5]), 2), [1.5, 1.0, 3.5])


def test_refusals_say_why() -> None:
    with pytest.raises(UsageError, match="call fit"):
        adaptive().forecast(Past.of(np.zeros((1, 601)), ["a"], H), H)
    with pytest.raises(UsageError, match="long enough"):
        adaptive().fit([Series("a", 0, 300, noise(12))], 0)
