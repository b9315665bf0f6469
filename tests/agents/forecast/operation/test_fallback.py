from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from agents.forecast.base import DECILES, Floats, Forecaster, Past, Progress
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from agents.forecast.nets.base import Dims
from agents.forecast.nets.linear import NLinear
from agents.forecast.neural import Neural
from agents.forecast.operation.fallback import Guarded, Limits
from agents.forecast.rolling import past_at
from twin.errors import UsageError

H, DAY, STEP_S = 3, 24, 3600
RNG = np.random.default_rng(0)
VALUES = 10.0 + 3.0 * np.sin(2 * np.pi * np.arange(20 * DAY) / DAY) + 0.3 * RNG.standard_normal(20 * DAY)
SERIES = Series("s", 0, STEP_S, VALUES)
LEARN = 5 * DAY


@dataclass(frozen=True, slots=True)
class Seer:
    """Knows the series, and goes wrong from step `bad` to `healed` in the way it is told."""

    bad: int = 0
    healed: int = 1 << 30
    spoil: Any = field(default=lambda said: said)
    name: str = "seer"
    context: int = DAY
    needs: int = DAY
    pooled: bool = False

    def fit(self, series: Any, seed: int, progress: Progress | None = None) -> Any:
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        origins = (past.origin_s / STEP_S).astype(int)
        padded = np.concatenate([VALUES, np.full(h, VALUES[-1])])
        truth = padded[origins[:, None] + np.arange(h)]
        said = truth[:, :, None] + 0.01 * (DECILES - 0.5)
        wrong = (self.bad <= origins) & (origins < self.healed)
        if wrong.any():
            said[wrong] = self.spoil(said[wrong])
        return said


def raises(said: Floats) -> Floats:
    raise ZeroDivisionError("of its own")


def guarded(model: Forecaster, limits: Limits | None = None) -> Guarded:
    return Guarded(model, Naive(DAY), limits or Limits()).fit([SERIES.until(LEARN)], 0)


def live(guard: Guarded, start: int = LEARN, end: int = 10 * DAY) -> Floats:
    """One forecast a step, as a service would ask."""
    asked = (past_at(SERIES, np.array([origin]), guard.context, H) for origin in range(start, end))
    return np.concatenate([guard.forecast(past, H) for past in asked])


def naive(start: int = LEARN, end: int = 10 * DAY) -> Floats:
    fitted = Naive(DAY).fit([SERIES.until(LEARN)], 0)
    return fitted.forecast(past_at(SERIES, np.arange(start, end), DAY, H), H)


def test_a_model_without_fault_always_answers() -> None:
    guard = guarded(Seer())
    said = live(guard)
    np.testing.assert_array_equal(said, Seer().forecast(past_at(SERIES, np.arange(LEARN, 10 * DAY), DAY, H), H))
    assert guard.switches == []
    assert guard.counts == {"": 5 * DAY}
    assert isinstance(guard, Forecaster)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (raises, "raised ZeroDivisionError"),
        (lambda said: np.where(DECILES > 0.85, np.nan, said), "not finite"),
        (lambda said: np.where(DECILES > 0.85, np.inf, said), "not finite"),
        (lambda said: said[..., ::-1], "crossing"),
        (lambda said: said * 1e6, "out of bounds"),
        (lambda said: said[:, :, :5], "raised ValueError"),
    ],
)
def test_each_fault_is_answered_by_the_fallback_and_recorded(spoil: Any, reason: str) -> None:
    bad, healed = LEARN + 10, LEARN + 20
    guard = guarded(Seer(bad, healed, spoil), Limits(return_s=3 * STEP_S))
    said = live(guard)
    start, end = bad - LEARN, healed + 2 - LEARN
    np.testing.assert_array_equal(said[start:end], naive()[start:end])
    assert np.abs(said[end:] - naive()[end:]).min() > 0.0
    assert [(s.time_s, s.answers) for s in guard.switches] == [
        (bad * STEP_S, "fallback"),
        ((healed + 2) * STEP_S, "model"),
    ]
    assert guard.switches[0].reason == reason
    assert guard.counts == {"": 5 * DAY - 12, reason: 10, "on probation": 2}
    assert guard.since() == {}
    assert guard.events()["reason"].to_list()[0] == reason


def test_weights_that_were_poisoned_are_caught() -> None:
    dims = Dims(DAY, H)
    from agents.forecast import training

    weights = {path: np.asarray(value)[None] for path, value in training.initial(NLinear(), dims, 0).items()}
    net = Neural(NLinear(), window=DAY, horizon=H, dims=dims, weights=weights)
    sound = Guarded(net, Naive(DAY).fit([SERIES.until(LEARN)], 0)).trained([SERIES.until(LEARN)])
    live(sound, end=LEARN + 3)
    assert sound.switches == []
    poisoned = replace(net, weights={path: np.full_like(value, np.nan) for path, value in weights.items()})
    guard = Guarded(poisoned, Naive(DAY).fit([SERIES.until(LEARN)], 0)).trained([SERIES.until(LEARN)])
    np.testing.assert_array_equal(live(guard, end=LEARN + 3), naive(end=LEARN + 3))
    assert guard.since()["s"].reason == "not finite"


def test_a_model_beyond_its_age_is_replaced_until_it_is_fitted_anew() -> None:
    guard = guarded(Seer(), Limits(most_age_s=2 * DAY * STEP_S))
    live(guard)
    assert [s.time_s for s in guard.switches] == [(LEARN + 2 * DAY + 1) * STEP_S]
    assert guard.since()["s"].reason == "too old"
    fresh = guard.fit([SERIES.until(9 * DAY)], 0)
    live(fresh, 9 * DAY, 10 * DAY)
    assert fresh.switches == []


def test_physical_bounds_hold_whatever_was_seen_in_training() -> None:
    spoil = lambda said: said - 20.0  # noqa: E731
    loose = guarded(Seer(LEARN + 5, LEARN + 6, spoil), Limits(reach=10.0))
    live(loose, end=LEARN + 10)
    assert loose.switches == []
    tight = guarded(Seer(LEARN + 5, LEARN + 6, spoil), Limits(reach=10.0, lowest=0.0))
    live(tight, end=LEARN + 10)
    assert tight.switches[0].reason == "out of bounds"


def test_a_model_worse_than_the_fallback_over_a_day_gives_way_and_returns_when_it_is_better_again() -> None:
    bad, healed = 6 * DAY, 10 * DAY
    guard = guarded(Seer(bad, healed, lambda said: said + 2.0), Limits(return_s=6 * STEP_S))
    live(guard, end=14 * DAY)
    assert [s.answers for s in guard.switches] == ["fallback", "model"]
    gone, back = guard.switches
    assert gone.reason == "worse than the fallback"
    assert bad * STEP_S < gone.time_s < (bad + DAY) * STEP_S
    assert healed * STEP_S < back.time_s <= (healed + DAY + H + 6) * STEP_S
    never = guarded(Seer(bad, healed, lambda said: said + 2.0), Limits(worse=None))
    live(never, end=14 * DAY)
    assert never.switches == []


def test_only_the_series_at_fault_is_answered_by_the_fallback() -> None:
    """One call for two series; the model raises as soon as the second is among them."""

    @dataclass(frozen=True, slots=True)
    class Picky(Seer):
        def forecast(self, past: Past, h: int) -> Floats:
            if "other" in past.ids:
                raise KeyError("other")
            return Seer.forecast(self, past, h)

    both = [SERIES.until(LEARN), replace(SERIES.until(LEARN), unique_id="other")]
    guard = Guarded(Picky(), Naive(DAY)).fit(both, 0)
    past = past_at(SERIES, np.array([LEARN, LEARN]), guard.context, H)
    said = guard.forecast(replace(past, ids=["s", "other"]), H)
    np.testing.assert_array_equal(said[1], naive(end=LEARN + 1)[0])
    np.testing.assert_array_equal(said[0], Seer().forecast(past_at(SERIES, np.array([LEARN]), DAY, H), H)[0])
    assert set(guard.since()) == {"other"}


def test_many_origins_in_one_call_are_judged_in_their_order() -> None:
    spoil = lambda said: said * np.nan  # noqa: E731
    one, other = (guarded(Seer(LEARN + 5, LEARN + 9, spoil)) for _ in range(2))
    live(one, end=LEARN + 20)
    shuffled = np.random.default_rng(1).permutation(np.arange(LEARN, LEARN + 20))
    other.forecast(past_at(SERIES, shuffled, other.context, H), H)
    assert one.switches == other.switches


def test_what_the_fallback_cannot_do_is_said() -> None:
    guard = Guarded(Seer(), Naive(DAY))
    with pytest.raises(UsageError, match="not fitted"):
        guard.forecast(past_at(SERIES, np.array([LEARN]), DAY, H), H)
    with pytest.raises(UsageError):
        Limits(lowest=1.0, highest=0.0)


# ---------------------------------------------------------------- series at rest


@dataclass(frozen=True, slots=True)
class Constant:
    """Says one level with deciles so far apart, whatever was."""

    level: float
    width: float = 0.0
    name: str = "constant"
    context: int = DAY
    needs: int = 1
    pooled: bool = False

    def fit(self, series: Any, seed: int, progress: Progress | None = None) -> Any:
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        return np.tile(self.level + self.width * (DECILES - 0.5), (len(past.ids), h, 1))


def resting(level: float, model: Forecaster, moved: float | None = None) -> Guarded:
    """A guard at work for two days on a series that rested in training and rests, or stands elsewhere, now."""
    values = np.full(12 * DAY, level)
    values[6 * DAY :] = level if moved is None else moved
    series = Series("s", 0, STEP_S, values)
    guard = Guarded(model, Naive(1)).fit([series.until(6 * DAY)], 0)
    for origin in range(6 * DAY if moved is None else 7 * DAY, 9 * DAY):
        guard.forecast(past_at(series, np.array([origin]), guard.context, H), H)
    return guard


@pytest.mark.parametrize("level", [0.0, 100.0, -3.0, 1e9])
@pytest.mark.parametrize(("off", "width"), [(0.0, 0.0), (3e-8, 0.0), (1e-4, 2e-3)])
def test_an_honest_forecast_of_a_series_at_rest_is_no_fault(level: float, off: float, width: float) -> None:
    """As networks answer: with the rounding of their arithmetic, and a band of a thousandth where nothing moved."""
    guard = resting(level, Constant(level * (1.0 + off), abs(level) * width))
    assert guard.switches == []


def test_deciles_that_cross_by_no_more_than_rounding_are_put_in_order() -> None:
    ulp = np.zeros(len(DECILES))
    ulp[3] = 1e-13

    @dataclass(frozen=True, slots=True)
    class Rounded(Constant):
        def forecast(self, past: Past, h: int) -> Floats:
            return Constant.forecast(self, past, h) + ulp

    series = Series("s", 0, STEP_S, np.full(6 * DAY, 100.0))
    guard = Guarded(Rounded(100.0), Naive(1)).fit([series], 0)
    said = guard.forecast(past_at(series, np.array([6 * DAY]), guard.context, H), H)
    assert guard.switches == []
    assert (np.diff(said, axis=-1) >= 0.0).all()
    np.testing.assert_allclose(said, 100.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("level", "said", "width", "reason"),
    [
        (100.0, 1_000.0, 0.0, "out of bounds"),
        (100.0, -100.0, 0.0, "out of bounds"),
        (100.0, 0.0, 0.0, "out of bounds"),
        (0.0, 5.0, 0.0, "out of bounds"),
        (100.0, np.nan, 0.0, "not finite"),
        (100.0, np.inf, 0.0, "not finite"),
        (100.0, 100.0, -1e-3, "crossing"),
        (0.0, 0.0, -1e-9, "crossing"),
        (100.0, 101.0, 0.0, "worse than the fallback"),
    ],
)
def test_nonsense_about_a_series_at_rest_is_a_fault(level: float, said: float, width: float, reason: str) -> None:
    guard = resting(level, Constant(said, width))
    assert [switch.reason for switch in guard.switches] == [reason]


def test_a_series_that_leaves_its_rest_may_be_forecast_where_it_stands_now() -> None:
    assert resting(0.0, Constant(50.0, 0.01), moved=50.0).switches == []
    assert resting(0.0, Constant(500.0), moved=50.0).switches[0].reason == "out of bounds"
