"""Totals keep what was recorded, on the recording's own calendar, and say what they scaled."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.forecast import frames
from agents.forecast.long.totals import DAY_S, MONTH_S, WEEK_S, clock_s, core_hours, totals
from twin.errors import UsageError
from twin.trace.trace import Trace, TraceInfo

HOUR_S = 3_600


def hourly(values: np.ndarray, first: int = 0) -> pl.DataFrame:
    return pl.DataFrame({"unique_id": "x", "ds": (first + np.arange(len(values))) * HOUR_S, "y": values})


@given(st.integers(1, 20), st.integers(0, 47), st.integers(0, 99))
def test_whole_days_add_up_to_what_was_recorded_in_them(days: int, first: int, seed: int) -> None:
    values = np.random.default_rng(seed).random(days * 24 + 24)
    table = totals(hourly(values, first), "day")
    skipped = -first % 24
    whole = values[skipped : skipped + (len(values) - skipped) // 24 * 24]
    assert table["y"].sum() == pytest.approx(whole.sum())
    assert table["covered"].to_list() == [1.0] * (len(whole) // 24)
    assert (table["ds"].to_numpy() % DAY_S == 0).all()


def test_weeks_begin_on_monday_of_the_recordings_clock() -> None:
    table = totals(hourly(np.ones(24 * 30)), "week", epoch="2026-11-25T10:00:00+01:00")  # a Wednesday
    assert clock_s("2026-11-25T10:00:00+01:00") == 2 * DAY_S + 10 * HOUR_S
    assert ((table["ds"].to_numpy() + 2 * DAY_S + 10 * HOUR_S) % WEEK_S == 0).all()
    assert table["y"].to_list() == [168.0] * 3


def test_edges_are_dropped_or_scaled_and_said() -> None:
    frame = hourly(np.ones(24 * 3), first=12)
    assert totals(frame, "day")["covered"].to_list() == [1.0, 1.0]
    scaled = totals(frame, "day", edges="scale")
    assert scaled["covered"].to_list() == [0.5, 1.0, 1.0, 0.5]
    assert scaled["y"].to_list() == [24.0] * 4


def test_a_day_with_a_hole_is_scaled_and_a_longer_hole_is_refused() -> None:
    frame = hourly(np.ones(24 * 4))
    short = frame.filter(~pl.col("ds").is_between(30 * HOUR_S, 39 * HOUR_S))
    assert totals(short, "day")["covered"].to_list() == pytest.approx([1.0, 14 / 24, 1.0, 1.0])
    assert totals(short, "day")["y"].to_list() == pytest.approx([24.0] * 4)
    with pytest.raises(UsageError, match="cut the series at the hole"):
        totals(frame.filter(~pl.col("ds").is_between(25 * HOUR_S, 46 * HOUR_S)), "day")


def test_calendar_months_become_even_months_that_make_a_series() -> None:
    daily = pl.DataFrame({"unique_id": "x", "ds": np.arange(365) * DAY_S, "y": np.full(365, 2.0)})
    table = totals(daily, "month", epoch="2023-01-01T00:00:00")
    assert table.height == 12
    assert table["y"].to_list() == pytest.approx([2.0 * MONTH_S / DAY_S] * 12)
    assert frames.panel(table)[0].step_s == MONTH_S


@pytest.mark.parametrize(("period", "edges"), [("fortnight", "drop"), ("day", "guess")])
def test_unknown_words_are_refused(period: str, edges: str) -> None:
    with pytest.raises(UsageError, match="one of"):
        totals(hourly(np.ones(48)), period, edges=edges)


def test_core_hours_are_those_of_the_jobs_wherever_steps_cut_them() -> None:
    jobs = pl.DataFrame(
        {
            "job": ["a", "b", "c"],
            "submit_s": [0.0, 0.0, 0.0],
            "start_s": [0.0, 1_800.0, 9_000.0],
            "run_s": [7_200.0, 3_600.0, 9_000.0],
            "cpu_cores": [2.0, 4.0, 1.0],
        }
    )
    trace = Trace(TraceInfo(name="t", source="made up", licence="none", sha256=""), {"jobs": jobs})
    table = core_hours(trace, HOUR_S)
    assert table["y"].to_list() == pytest.approx([4.0, 4.0, 0.5, 1.0, 1.0])
    with pytest.raises(UsageError, match="no job"):
        core_hours(Trace(trace.info, {"jobs": jobs.clear()}))
