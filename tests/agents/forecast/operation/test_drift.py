from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

import twin
from agents.forecast import frames
from agents.forecast.naive import Naive
from agents.forecast.operation import stability
from agents.forecast.operation.drift import DAY_BLOCKS, TESTS, Blocks, Drift, distance
from twin.errors import UsageError

Floats = np.ndarray


def days(count: int, seed: int = 0, level: float = 100.0, noise: float = 0.05) -> Blocks:
    """Days of a daily wave with days of their own; the model's errors are a share of those of the last value."""
    rng = np.random.default_rng(seed)
    hours = np.arange(count * DAY_BLOCKS)
    shape = 1.0 + 0.3 * np.sin(2 * np.pi * hours / DAY_BLOCKS)
    own = np.repeat(np.exp(0.03 * rng.standard_normal(count)), DAY_BLOCKS)
    y = level * (shape * own)[:, None] * np.exp(noise * rng.standard_normal((len(hours), 12)))
    naive = np.abs(noise * level * rng.standard_normal(y.shape))
    return Blocks(y, naive * rng.uniform(0.6, 1.0, y.shape), naive)


def first_alarm(drift: Drift, stream: Blocks) -> tuple[int, str] | None:
    watch = drift.watch(days(14), seed=0)
    for block, rows in enumerate(zip(stream.y, stream.error, stream.naive, strict=True)):
        alarm = watch.update(block, Blocks(*(row[None] for row in rows)))
        if alarm:
            return block, alarm.test
    return None


@settings(max_examples=60)
@given(
    st.lists(st.floats(-5, 5), min_size=4, max_size=30),
    st.lists(st.floats(-5, 5), min_size=4, max_size=60),
)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(window: list[float], reference: list[float]) -> None:
    found = distance(np.array([window]), np.sort(np.array(reference)))[0]
    expected: Any = ks_2samp(window, reference, method="asymp")
    assert found == pytest.approx(expected.statistic, abs=1e-12)


def test_a_tolerance_forgives_moves_up_to_it_and_none_beyond() -> None:
    reference = np.linspace(-0.001, 0.001, 100)
    window = reference[None, ::5] + 0.05
    assert distance(window, reference)[0] == pytest.approx(1.0)
    assert distance(window, reference, tolerance=0.06)[0] == 0.0
    assert distance(window, reference, tolerance=0.04)[0] == pytest.approx(1.0)


def test_a_stable_stream_raises_no_alarm() -> None:
    assert first_alarm(Drift(), days(30, seed=1)) is None


@pytest.mark.parametrize(
    ("plant", "test"), [("level x 1.2", "level"), ("level / 1.2", "level"), ("errors x 2", "error")]
)
def test_a_planted_change_is_noticed_within_a_day_by_the_test_made_for_it(plant: str, test: str) -> None:
    change = 10 * DAY_BLOCKS + 5
    found = first_alarm(Drift(), stability.planted(days(20, seed=2), plant, change))
    assert found is not None
    assert change <= found[0] < change + 24
    assert found[1] in (test, "spread")


def test_another_shape_at_the_same_level_is_seen_by_the_spread() -> None:
    """From the eleventh day on every other hour is high, the others low: the mean of a day stays as it was."""
    stream = days(20, seed=4)
    factor = np.where(np.arange(len(stream.y)) % 2, 1.35, 1 / 1.35)
    y = stream.y * np.where(np.arange(len(stream.y)) >= 240, factor, 1.0)[:, None]
    found = first_alarm(Drift(), Blocks(y, stream.error, stream.naive))
    assert found is not None
    assert found[1] == "spread"
    assert 240 <= found[0] < 264


def test_errors_that_double_for_every_forecast_are_no_news_about_this_one() -> None:
    stream = days(20, seed=4)
    later = np.arange(len(stream.y)) >= 240
    factor = np.where(later, 2.0, 1.0)[:, None]
    assert first_alarm(Drift(), Blocks(stream.y, factor * stream.error, factor * stream.naive)) is None


def test_the_same_seed_gives_the_same_thresholds_and_another_gives_others() -> None:
    one, same, other = (Drift(least_share=0.0).watch(days(7), seed).thresholds for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_fewer_false_alarms_need_higher_thresholds() -> None:
    strict, loose = (Drift(false_alarms=share, least_share=0.0).watch(days(10), 0).thresholds for share in (0.02, 0.3))
    assert (strict >= loose).all()
    assert (strict[:2] > loose[:2]).all()


def test_the_unit_of_the_series_does_not_matter() -> None:
    small, large = (Drift().watch(days(7, level=level), 0).thresholds for level in (1.0, 1e6))
    np.testing.assert_allclose(small, large, rtol=1e-6)


def test_unknown_errors_are_left_out() -> None:
    stream = days(3, seed=5)
    stream.error[:, ::2] = np.nan
    watch = Drift().watch(days(7), 0)
    for block in range(len(stream.y)):
        told = Blocks(*(each[block : block + 1] for each in (stream.y, stream.error, stream.naive)))
        watch.update(block, told)
    assert np.isfinite(watch.shares()).all()
    assert len(watch.shares()) == len(TESTS)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Drift(level_change=1.0),
        lambda: Drift(false_alarms=0.0),
        lambda: Drift(look_hours=0),
        lambda: Drift().watch(days(4), 0),
        lambda: Blocks(np.ones((2, 12)), np.ones((2, 12)), np.ones((3, 12))),
    ],
)
def test_what_makes_no_watch_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        wrong()  # pyright: ignore[reportCallIssue]


def test_recorded_days_in_any_order_keep_to_the_budget_and_planted_levels_are_seen() -> None:
    """Google's CPU: few streams here; `experiments.retraining` measures many, on all embedded recordings."""
    recorded = frames.panel(frames.series(twin.read("google2019"), ["cpu"]))[0]
    recorded_days = stability.days_of(Naive().fit([recorded], 0), recorded, 288)
    detectors = {"own": stability.calibrated(Drift()), "ADWIN": stability.adwin()}
    table = stability.summary(stability.trials(detectors, [recorded_days], runs=2, seed=0))
    own = table.filter(pl.col("detector") == "own")
    assert own.filter(pl.col("plant") == "none")["false_alarm_percent"].item() == 0.0
    moved = own.filter(pl.col("plant").str.starts_with("level"))
    assert moved["in_time_percent"].min() == 100.0
    default = table.filter((pl.col("detector") == "ADWIN") & (pl.col("plant") == "none"))
    assert default["false_alarm_percent"].item() > 50.0, "river's defaults cry on streams that are stable"
