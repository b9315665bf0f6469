from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from agents.forecast import backtest
from agents.forecast.base import DECILES
from agents.forecast.operation.ledger import Clock, Ledger
from twin.errors import PolicyError, UsageError
from twin.trace import tables

H, STEPS, DAY = 4, 120, 24
CLOCK = Clock(start_s=7200, step_s=3600)
IDS = ("one", "two")


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(y [steps, series], said [steps, series, h, 9]): what came, and what was said before each step."""
    rng = np.random.default_rng(seed)
    y = 10.0 + rng.random((STEPS, 2))
    said = np.sort(10.0 + rng.random((STEPS, 2, H, len(DECILES))), axis=-1).astype(np.float32).astype(np.float64)
    return y, said


def filled(keep: int = STEPS, steps: int = STEPS) -> Ledger:
    y, said = drawn()
    ledger = Ledger(IDS, h=H, keep=keep, clock=CLOCK)
    for step in range(steps):
        ledger.record(step, said[step])
        ledger.arrive(step, y[step])
    return ledger


def test_the_exported_tables_are_those_of_a_backtest_and_its_scores() -> None:
    ledger, (y, said) = filled(), drawn()
    forecasts = ledger.forecasts("model")
    assert forecasts.columns == [column.name for column in tables.schema("forecasts")]
    assert forecasts.height == 2 * (STEPS - H + 1) * H
    row = forecasts.filter((pl.col("unique_id") == "two") & (pl.col("step") == 3)).row(10, named=True)
    assert row["cutoff_s"] == 7200 + 3600 * 10
    assert row["time_s"] == 7200 + 3600 * 12
    assert row["y"] == y[12, 1]
    assert row["q50"] == said[10, 1, 2, 4]
    whole = pl.concat(
        pl.DataFrame({"unique_id": name, "ds": 7200 + 3600 * np.arange(STEPS), "y": y[:, k]})
        for k, name in enumerate(IDS)
    )
    later = forecasts.filter(pl.col("cutoff_s") > 7200)
    assert_frame_equal(ledger.scores("model"), backtest.score(later, whole, season=DAY))


def test_rolling_scores_are_those_of_the_formulas() -> None:
    ledger, (y, said) = filled(), drawn()
    scores = ledger.rolling(30)
    steps = np.arange(STEPS - 30, STEPS)
    for k in range(H):
        truth, deciles = y[steps, 0], said[steps - k, 0, k]
        error = np.abs(truth - deciles[:, 4])
        assert scores["accuracy_percent"][0, 1 + k] == pytest.approx(100 * (1 - error.sum() / truth.sum()), rel=1e-5)
        over = truth[:, None] - deciles
        crps = 2 * np.maximum(DECILES * over, (DECILES - 1) * over).mean() / truth.mean()
        assert scores["scaled_crps"][0, 1 + k] == pytest.approx(crps, rel=1e-5)
        within = (deciles[:, 0] <= truth) & (truth <= deciles[:, -1])
        assert scores["coverage_80"][0, 1 + k] == pytest.approx(within.mean(), rel=1e-5)
        naive = min(np.abs(truth - y[steps - k - 1, 0]).mean(), np.abs(truth - y[steps - DAY, 0]).mean())
        assert scores["skill"][0, 1 + k] == pytest.approx(1 - error.mean() / naive, rel=1e-4)
    assert scores["origins"][0].tolist() == [30.0 * H, *[30.0] * H]


def test_what_the_ring_has_passed_is_forgotten_and_the_rest_is_as_in_a_larger_one() -> None:
    small, large = filled(keep=DAY + 12), filled()
    for name, scores in small.rolling(24).items():
        if name != "mase":  # its scale is that of all that is kept
            np.testing.assert_allclose(scores, large.rolling(24)[name], rtol=1e-6, err_msg=name)
    assert small.forecasts("m")["cutoff_s"].min() == 7200 + 3600 * (STEPS - DAY - 12)
    with pytest.raises(UsageError, match="too old"):
        small.record(3, drawn()[1][3])
    with pytest.raises(UsageError, match="too old"):
        small.arrive(3, np.ones(2))


def test_truth_that_comes_late_and_in_parts_counts_as_if_it_had_come_in_time() -> None:
    y, said = drawn()
    ledger = Ledger(IDS, h=H, keep=STEPS, clock=CLOCK)
    for step in range(STEPS):
        ledger.record(step, said[step])
        ledger.arrive(step, np.array([y[step, 0], np.nan]))
    assert np.isnan(ledger.rolling()["accuracy_percent"][1]).all()
    for step in range(STEPS):
        ledger.arrive(step, np.array([np.nan, y[step, 1]]))
    for name, scores in filled().rolling().items():
        np.testing.assert_allclose(ledger.rolling()[name], scores, err_msg=name)


def alike(one: Ledger, other: Ledger) -> None:
    np.testing.assert_array_equal(one.losses(), other.losses())
    for name, scores in other.rolling().items():
        np.testing.assert_array_equal(one.rolling()[name], scores, err_msg=name)
    assert_frame_equal(one.forecasts("m"), other.forecasts("m"))


@settings(max_examples=15, deadline=None)
@given(order=st.randoms(use_true_random=False), again=st.integers(0, 30))
def test_in_whatever_order_and_how_often_things_come_the_ledger_is_the_same(order: Any, again: int) -> None:
    """Forecasts and truths, truths series by series, some of them twice: late ones score all that they belong to."""
    y, said = drawn()
    events = [("said", step, None) for step in range(STEPS)]
    events += [("came", step, series) for step in range(STEPS) for series in range(2)]
    order.shuffle(events)
    events += [order.choice(events) for _ in range(again)]
    ledger = Ledger(IDS, h=H, keep=STEPS, clock=CLOCK)
    for kind, step, series in events:
        if kind == "said":
            ledger.record(step, said[step])
        else:
            ledger.arrive(step, np.where(np.arange(2) == series, y[step], np.nan))
    alike(ledger, filled())


@pytest.mark.parametrize("late", [1, H, DAY + 11])
def test_truth_that_comes_as_late_as_the_ring_allows_scores_every_forecast_of_its_step(late: int) -> None:
    """The second series' truth comes so many steps late, when the step's oldest origins are the next to be dropped."""
    y, said = drawn()
    ledger = Ledger(IDS, h=H, keep=DAY + 12, clock=CLOCK)
    for step in range(STEPS):
        ledger.record(step, said[step])
        ledger.arrive(step, np.array([y[step, 0], np.nan]))
        if step >= late:
            ledger.arrive(step - late, np.array([np.nan, y[step - late, 1]]))
    for step in range(STEPS - late, STEPS):
        ledger.arrive(step, np.array([np.nan, y[step, 1]]))
    alike(ledger, filled(keep=DAY + 12))


def test_truth_later_than_the_ring_is_refused_and_changes_nothing() -> None:
    ledger, y = filled(keep=DAY + 12), drawn()[0]
    with pytest.raises(UsageError, match="too old"):
        ledger.arrive(STEPS - DAY - 13, y[0])
    alike(ledger, filled(keep=DAY + 12))


def test_what_is_older_than_the_ring_counts_no_more_even_where_nothing_newer_has_taken_its_place() -> None:
    """After a gap of a day the ring still holds what was before it, and shall not be measured by it."""
    (y, said), keep = drawn(), DAY + 12
    small, large = (Ledger(IDS, h=H, keep=each, clock=CLOCK) for each in (keep, STEPS))
    for step in [*range(60), *range(60 + DAY, 60 + DAY + H)]:
        for each in (small, large):
            each.record(step, said[step])
            each.arrive(step, y[step])
    kept = large.losses(keep)[:, 0].reshape(-1, 6)
    assert len(kept) == H * (keep - DAY)
    expected = np.nanmean(kept[:, 1]) / np.nanmean(kept[:, 5])
    assert small.rolling()["mase"][0, 0] == pytest.approx(expected, rel=1e-5)
    assert small.forecasts("m")["cutoff_s"].min() == 7200 + 3600 * (60 + DAY + H - keep)


def test_a_value_that_is_corrected_corrects_all_that_was_measured_by_it() -> None:
    (y, said), ledger = drawn(), Ledger(IDS, h=H, keep=STEPS, clock=CLOCK)
    wrong = y.copy()
    wrong[70] *= 3.0
    for step in range(STEPS):
        ledger.record(step, said[step])
        ledger.arrive(step, wrong[step])
    ledger.arrive(70, y[70])
    alike(ledger, filled())


def test_the_error_one_step_ahead_is_returned_and_held() -> None:
    y, said = drawn()
    ledger = Ledger(IDS, h=H, keep=STEPS, clock=CLOCK)
    assert np.isnan(ledger.arrive(0, y[0])).all(), "nothing had been said"
    ledger.record(1, said[1])
    expected = np.abs(y[1] - said[1, :, 0, 4])
    np.testing.assert_allclose(ledger.arrive(1, y[1]), expected, rtol=1e-6)
    np.testing.assert_allclose(ledger.errors(1, 2)[:, 0], expected, rtol=1e-6)
    assert np.isnan(ledger.errors(2, 3)).all()


def test_a_saved_ledger_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path, (y, said) = tmp_path / "ledger.npz", drawn()
    filled(steps=60).save(path)
    again = Ledger.load(path)
    for step in range(60, STEPS):
        again.record(step, said[step])
        again.arrive(step, y[step])
    whole = filled()
    assert_frame_equal(again.forecasts("m"), whole.forecasts("m"))
    np.testing.assert_array_equal(again.losses(), whole.losses())
    assert again.ids == IDS
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.npz"], "nothing half-written stays"


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ledger.npz"
    if content is None:
        np.savez(path, facts=np.zeros(3, np.uint8))
    else:
        path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"ledger\.npz"):
        Ledger.load(path)


@pytest.mark.parametrize(
    "arguments", [{"ids": []}, {"ids": ["a", "a"]}, {"ids": ["a"], "keep": 20}, {"ids": ["a"], "h": 0}]
)
def test_a_ledger_of_nothing_or_too_small_is_refused(arguments: dict) -> None:
    with pytest.raises(UsageError):
        Ledger(**{"h": H, "keep": STEPS, "clock": CLOCK, **arguments})


def test_nothing_has_scores_before_anything_came_true() -> None:
    ledger = Ledger(IDS, h=H, keep=STEPS, clock=CLOCK)
    ledger.record(0, drawn()[1][0])
    assert ledger.scores("m").height == 0
    assert ledger.forecasts("m").height == 0
    with pytest.raises(UsageError, match="deciles"):
        ledger.record(1, np.ones((2, H, 8)))
