"""Checkpoint-restart: what it costs and what it saves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.engine.jobs.checkpoint import stretched_run_s, work_done_s, work_kept_s
from twin.errors import SimulationError

TIMES = st.floats(0.0, 1e6)


def test_golden_hour_in_checkpoints_of_ten_minutes():
    """3,600 s of work in intervals of 600 s write five checkpoints: none at the very end."""
    assert stretched_run_s(3600.0, 600.0, 30.0) == 3600.0 + 5 * 30.0
    assert stretched_run_s(3601.0, 600.0, 30.0) == 3601.0 + 6 * 30.0


def test_golden_work_kept():
    """A checkpoint counts once it is written whole."""
    kept = work_kept_s([0.0, 629.0, 630.0, 1259.0, 1260.0], 600.0, 30.0)
    np.testing.assert_array_equal(kept, [0.0, 0.0, 600.0, 600.0, 1200.0])


def test_golden_work_done():
    """While a checkpoint is written no work is done."""
    done = work_done_s([0.0, 400.0, 600.0, 615.0, 630.0, 730.0, 1260.0], 600.0, 30.0)
    np.testing.assert_array_equal(done, [0.0, 400.0, 600.0, 600.0, 600.0, 700.0, 1200.0])


def test_what_is_kept_never_lies_above_what_has_passed():
    """Not by an ulp either, where the product of interval and count rounds up."""
    elapsed = np.nextafter(np.arange(1.0, 60.0) * 9.1, 0.0)
    assert (np.floor(elapsed / 9.1) * 9.1 > elapsed).any()
    assert (work_kept_s(elapsed, 9.1, 0.0) <= elapsed).all()


@given(elapsed=TIMES, interval=st.floats(1.0, 1e5), cost=st.floats(0.0, 1e4))
def test_what_is_done_is_kept_or_of_the_last_interval(elapsed: float, interval: float, cost: float):
    done, kept = work_done_s(elapsed, interval, cost), work_kept_s(elapsed, interval, cost)
    assert kept <= done <= elapsed
    assert done - kept <= interval * (1 + 1e-9)


@given(run=TIMES, interval=st.floats(1.0, 1e5), cost=st.floats(0.0, 1e4))
def test_at_the_end_all_work_is_done(run: float, interval: float, cost: float):
    assert work_done_s(stretched_run_s(run, interval, cost), interval, cost) == pytest.approx(run, rel=1e-9, abs=1e-6)


@given(run=TIMES, cost=TIMES)
def test_without_checkpoints_nothing_is_paid_and_nothing_kept(run: float, cost: float):
    for interval in (0.0, np.inf):
        assert stretched_run_s(run, interval, cost) == run
        assert work_kept_s(run, interval, cost) == 0.0
        assert work_done_s(run, interval, cost) == run


@given(elapsed=TIMES, interval=st.floats(1.0, 1e5), cost=TIMES)
def test_no_more_work_is_kept_than_time_has_passed(elapsed: float, interval: float, cost: float):
    kept = work_kept_s(elapsed, interval, cost)
    assert 0.0 <= kept <= elapsed
    assert kept >= work_kept_s(elapsed, interval, cost + 1.0)


@given(elapsed=TIMES, interval=st.floats(1.0, 1e5))
def test_free_checkpoints_lose_less_than_an_interval(elapsed: float, interval: float):
    kept = work_kept_s(elapsed, interval, 0.0)
    np.testing.assert_allclose(kept, np.floor(elapsed / interval) * interval)
    assert stretched_run_s(elapsed, interval, 0.0) == elapsed


@given(st.lists(TIMES, min_size=2, max_size=20).map(sorted), st.floats(1.0, 1e5), st.floats(0.0, 1e4))
def test_longer_takes_longer_and_keeps_more(times: list[float], interval: float, cost: float):
    assert (np.diff(stretched_run_s(times, interval, cost)) >= 0).all()
    assert (np.diff(work_kept_s(times, interval, cost)) >= 0).all()


@given(run=st.floats(1.0, 1e6), interval=st.floats(1.0, 1e5), cost=st.floats(0.0, 1e4))
def test_what_is_kept_at_the_end_leaves_the_last_interval(run: float, interval: float, cost: float):
    """Interrupted at its very end a run has all but its last interval, which wrote nothing."""
    kept = work_kept_s(stretched_run_s(run, interval, cost), interval, cost)
    assert run - interval * (1 + 1e-9) - 1e-6 <= kept <= run * (1 + 1e-9)


def test_arrays_broadcast():
    assert stretched_run_s([[100.0], [200.0]], [10.0, 20.0, 0.0], 1.0).shape == (2, 3)


@pytest.mark.parametrize("bad", [(-1.0, 1.0, 1.0), (1.0, np.nan, 1.0), (1.0, 1.0, np.inf), (np.inf, 1.0, 1.0)])
def test_times_that_cannot_be_are_refused(bad: tuple[float, float, float]):
    with pytest.raises(SimulationError, match="_s holds"):
        stretched_run_s(*bad)
