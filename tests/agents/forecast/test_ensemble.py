"""Ensembles: weights follow errors, stay on the simplex, and nobody is asked who cannot answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.forecast.base import DECILES, Floats, Past
from agents.forecast.ensemble import Each, Losses, Stack, weigh
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from agents.forecast.rolling import past_at, roll
from twin.errors import UsageError

H = 4


@dataclass(frozen=True)
class Says:
    """Says the last value plus `off`, with bands of `width`; fitted on series of at least `least` steps."""

    off: float = 0.0
    width: float = 1.0
    least: int = 0
    name: str = "says"
    context: int = 1
    needs: int = 1
    pooled: bool = False
    seen: tuple[int, ...] = ()

    def fit(self, series: Sequence[Series], seed: int, progress=None):
        if any(len(each.values) < self.least for each in series):
            raise UsageError(f"{self.name}: too short")
        return replace(self, seen=tuple(len(each.values) for each in series))

    def forecast(self, past: Past, h: int) -> Floats:
        point = past.y[:, -1:, None] + self.off + self.width * (DECILES - 0.5)
        return np.repeat(point, h, axis=1)


def series(name: str = "a", steps: int = 400, seed: int = 0) -> Series:
    return Series(name, 0, 300, 100.0 + np.random.default_rng(seed).standard_normal(steps))


def stack(**members: Says) -> Stack:
    return Stack(members, horizon=H, every=2, pull=0.0)


def test_the_member_without_bias_gets_the_weight() -> None:
    fitted = stack(good=Says(), bad=Says(off=30.0)).fit([series()], 0)
    assert fitted.weights["a"][0] > 0.95
    said = fitted.forecast(Past.of(np.array([[100.0]]), ["a"], H), H)
    assert abs(said[0, 0, 4] - 100.0) < 2.0


def test_opposite_biases_share_it() -> None:
    fitted = stack(up=Says(off=3.0), down=Says(off=-3.0)).fit([series()], 0)
    np.testing.assert_allclose(fitted.weights["a"], 0.5, atol=0.08)


def test_a_pooled_member_that_cannot_be_fitted_gets_no_weight_and_all_together_are_refused() -> None:
    wide = Says(least=10_000, pooled=True, name="wide")
    fitted = stack(good=Says(), wide=wide).fit([series()], 0)
    np.testing.assert_array_equal(fitted.weights["a"], [1.0, 0.0])
    with pytest.raises(UsageError, match="no member could be fitted: wide: too short; wide: too short"):
        stack(one=wide, two=wide).fit([series()], 0)


def test_a_strong_pull_keeps_even_weights() -> None:
    fitted = replace(stack(good=Says(), bad=Says(off=2.0)), pull=1e6).fit([series()], 0)
    np.testing.assert_allclose(fitted.weights["a"], 0.5, atol=1e-3)


def test_forecast_and_roll_agree() -> None:
    one = series()
    fitted = stack(a=Says(), b=Says(off=1.0, width=3.0)).fit([one], 0)
    origins = np.array([50, 200, 399])
    np.testing.assert_array_equal(
        roll(fitted, one, origins, H).said, fitted.forecast(past_at(one, origins, fitted.context, H), H)
    )


def test_a_member_that_cannot_be_fitted_on_a_series_is_left_out_of_it_only() -> None:
    both = [series("long", 400), series("short", 200)]
    fitted = stack(any=Says(off=1.0), longer=Says(least=180)).fit(both, 0)
    assert fitted.weights["short"].tolist() == [1.0, 0.0]  # fitted early on 170 steps
    assert fitted.weights["long"][1] > 0.5


def test_a_series_never_seen_takes_the_weights_of_all_and_who_can_answers() -> None:
    fitted = Stack({"pooled": Says(pooled=True), "naive": Naive()}, horizon=H, every=2).fit([series()], 0)
    said = fitted.forecast(Past.of(np.array([[7.0]]), ["new"], H), H)
    np.testing.assert_allclose(said[0, 0], 7.0 + DECILES - 0.5)


def test_refusals_say_why() -> None:
    with pytest.raises(UsageError, match="call fit"):
        stack(a=Says()).forecast(Past.of(np.zeros((1, 1)), ["a"], H), H)
    with pytest.raises(UsageError, match="long enough"):
        stack(a=Says()).fit([series(steps=20)], 0)
    fitted = Stack({"naive": Naive()}, horizon=H, every=2).fit([series()], 0)
    with pytest.raises(UsageError, match="no member can forecast 'new'"):
        fitted.forecast(Past.of(np.zeros((1, 1)), ["new"], H), H)


def test_members_see_the_last_part_only_when_they_are_fitted_for_good() -> None:
    fitted = stack(a=Says(pooled=True)).fit([series(steps=400)], 0)
    member = fitted.members["a"]
    assert isinstance(member, Says)
    assert member.seen == (400,)


def test_each_keeps_the_reason_of_the_one_that_failed() -> None:
    fitted = Each(Says(least=100)).fit([series("long", 200), series("short", 20)], 0)
    assert fitted.forecast(Past.of(np.zeros((1, 1)), ["long"], H), H).shape == (1, H, 9)
    with pytest.raises(UsageError, match="too short"):
        fitted.forecast(Past.of(np.zeros((1, 1)), ["short"], H), H)


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(2, 5), st.sampled_from([0.0, 0.1, 1.0, 50.0]))
def test_weights_lie_on_the_simplex_and_never_fall_on_the_unable(seed: int, count: int, pull: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((10, H))
    said = [np.sort(rng.standard_normal((10, H, 9)) * rng.uniform(0.1, 5), axis=-1) for _ in range(count)]
    unable = int(rng.integers(count))
    losses = Losses.of([None if k == unable else each for k, each in enumerate(said)], truth)
    assert losses is not None
    for weights in weigh({"a": losses}, pull).values():
        assert weights.min() >= 0.0
        assert abs(weights.sum() - 1.0) < 1e-9
    assert weigh({"a": losses}, pull)["a"][unable] == 0.0


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_mean_is_never_worse_than_its_worst_member_where_the_weights_were_learned(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((30, H))
    said = np.sort(rng.standard_normal((3, 30, H, 9)), axis=-1)
    losses = Losses.of(list(said), truth)
    assert losses is not None

    def loss(each: Floats) -> float:
        error = truth[..., None] - each
        return float(np.maximum(DECILES * error, (DECILES - 1.0) * error).mean())

    mixed = loss(np.tensordot(weigh({"a": losses}, 0.0)["a"], said, axes=1))
    assert mixed <= min(loss(each) for each in said) + 1e-3
