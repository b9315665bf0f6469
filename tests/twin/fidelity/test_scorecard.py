"""The scorecard: nothing is wrong with the recording itself, and what is moved is told by how much."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.errors import UsageError
from twin.fidelity import scorecard
from twin.fidelity.scorecard import Thresholds
from twin.trace import tables
from twin.trace.read import read

KTH = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "swf-pwa" / "KTH-SP2" / "log.swf"
HOUR_S, DAY_S = 3600.0, 86400.0


def recording(days: int = 8, per_day: int = 24, wait_s: float = 600.0) -> pl.DataFrame:
    """Jobs of an hour, one an hour; every second one waits `wait_s`."""
    count = days * per_day
    submit = np.arange(count) * DAY_S / per_day
    start = submit + np.where(np.arange(count) % 2, wait_s, 0.0)
    frame = pl.DataFrame(
        {"job": [str(i) for i in range(count)], "submit_s": submit, "start_s": start, "end_s": start + HOUR_S,
         "run_s": HOUR_S, "cpu_cores": 2.0, "instances": 2, "status": "done", "node": "n0", "user": "a"}
    )  # fmt: skip
    return tables.conform(frame, "jobs", "test")


def later(jobs: pl.DataFrame, seconds: float) -> pl.DataFrame:
    """The replay in which each job started so much later."""
    return scorecard.as_outcomes(jobs.with_columns(pl.col("start_s", "end_s") + seconds))


def by_measure(card: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in card.iter_rows(named=True)}


def test_the_recording_is_read_as_what_became_of_its_jobs() -> None:
    jobs = recording().head(3).with_columns(
        status=pl.Series(["evicted", None, None]),
        end_s=pl.Series([3600.0, None, None]),
        start_s=pl.Series([0.0, 4000.0, None]),
        run_s=pl.Series([3600.0, None, None]),
        seen_s=pl.Series([None, 5000.0, None], dtype=pl.Float64),
    )  # fmt: skip
    told = scorecard.as_outcomes(jobs)
    assert told["state"].to_list() == ["killed", "running", "waiting"]
    assert told["run_s"].to_list() == [3600.0, 1000.0, 0.0]
    assert told["wait_s"].to_list() == [0.0, 400.0, None]
    assert told["cpu_cores"].to_list() == [4.0] * 3
    assert told["attempts"].to_list() == [1, 1, 0]


def test_the_same_schedule_has_no_error_and_passes() -> None:
    jobs = recording()
    card = scorecard.scorecard(jobs, scorecard.as_outcomes(jobs), capacity_cores=8.0)
    assert set(card["error"].drop_nulls()) == {0.0}
    assert scorecard.passed(card)
    assert by_measure(card)["placement_agreement_ratio"]["verdict"] == "unscored"


def test_a_shifted_schedule_fails_by_the_shift() -> None:
    jobs = recording()
    card = scorecard.scorecard(jobs, later(jobs, 1800.0), capacity_cores=8.0)
    told = by_measure(card)
    for measure in ("wait_mean_s", "wait_median_s", "wait_p95_s", "start_mae_s"):
        assert told[measure]["error"] == pytest.approx(1800.0), measure
        assert told[measure]["verdict"] == "fail", measure
    assert told["wait_ks"]["error"] == 1.0
    assert not scorecard.passed(card)


def test_a_minute_is_forgiven_and_the_thresholds_can_be_tightened() -> None:
    jobs = recording()
    assert by_measure(scorecard.scorecard(jobs, later(jobs, 60.0)))["wait_mean_s"]["verdict"] == "pass"
    tight = scorecard.scorecard(jobs, later(jobs, 60.0), thresholds=Thresholds(floor_s=1.0))
    assert by_measure(tight)["wait_mean_s"]["verdict"] == "fail"


def test_the_noise_floor_is_the_even_days_against_the_odd_ones() -> None:
    """Waits of 100 s on even days, 400 s on odd ones: the recording is 300 s away from itself."""
    jobs = recording()
    wait = pl.when((pl.col("submit_s") / DAY_S).floor() % 2 == 0).then(100.0).otherwise(400.0)
    jobs = jobs.with_columns(start_s=pl.col("submit_s") + wait).with_columns(end_s=pl.col("start_s") + HOUR_S)
    told = by_measure(scorecard.scorecard(jobs, later(jobs, 200.0)))
    assert told["wait_mean_s"]["noise_floor"] == pytest.approx(300.0)
    assert told["wait_ks"]["noise_floor"] == 1.0
    assert told["wait_mean_s"]["verdict"] == "noise"
    assert not scorecard.passed(scorecard.scorecard(jobs, later(jobs, 200.0)))
    short = by_measure(scorecard.scorecard(jobs.head(24), later(jobs.head(24), 200.0)))
    assert short["wait_mean_s"]["noise_floor"] is None  # one day has no other
    assert short["wait_mean_s"]["verdict"] == "fail"


def test_drawn_halves_are_those_of_the_generator() -> None:
    """The median over draws is near that over all halves of the days; the same seed gives the same bytes."""
    jobs = recording()
    by_day = [60.0 * day**2 for day in range(8)]
    waits = np.repeat(by_day, 24)
    jobs = jobs.with_columns(start_s=pl.col("submit_s") + waits, end_s=pl.col("submit_s") + waits + HOUR_S)
    one, again, other = (
        scorecard.scorecard(jobs, later(jobs, 60.0), rng=np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert one.equals(again)
    assert not one.equals(other)
    halves = [abs(2 * sum(half) - sum(by_day)) / 4 for half in combinations(by_day, 4)]
    floor_s = by_measure(one)["wait_mean_s"]["noise_floor"]
    assert np.quantile(halves, 0.4) <= floor_s <= np.quantile(halves, 0.6)
    even_odd_s = abs(2 * sum(by_day[::2]) - sum(by_day)) / 4
    assert by_measure(scorecard.scorecard(jobs, later(jobs, 60.0)))["wait_mean_s"]["noise_floor"] == even_odd_s
    assert even_odd_s < np.quantile(halves, 0.4)


def test_jobs_that_never_started_in_the_replay_are_told() -> None:
    jobs = recording()
    replay = scorecard.as_outcomes(jobs).with_columns(
        start_s=pl.when(pl.int_range(pl.len()) >= 48).then("start_s"),
        wait_s=pl.when(pl.int_range(pl.len()) >= 48).then("wait_s"),
    )
    told = by_measure(scorecard.scorecard(jobs, replay))
    assert told["started_ratio"]["simulated"] == 0.75
    assert told["started_ratio"]["verdict"] == "fail"


def test_utilisation_is_compared_bin_by_bin() -> None:
    """An hour's job each hour on half the cores, and the replay moved by half a day: full error at the rims only."""
    jobs = recording(days=2, wait_s=0.0)
    told = by_measure(scorecard.scorecard(jobs, later(jobs, 12 * HOUR_S), capacity_cores=8.0))
    assert told["utilisation_mae"]["error"] == pytest.approx(0.5 * 24 / 60)
    assert told["utilisation_bias"]["error"] == pytest.approx(0.0, abs=1e-12)


def test_the_floor_of_utilisation_is_each_even_day_against_the_next() -> None:
    """Half of the cores on even days, all on odd ones."""
    even = (pl.col("submit_s") / DAY_S).floor() % 2 == 0
    jobs = recording(days=4, wait_s=0.0).with_columns(cpu_cores=pl.when(even).then(2.0).otherwise(4.0))
    told = by_measure(scorecard.scorecard(jobs, later(jobs, 0.0), capacity_cores=8.0))
    assert told["utilisation_mae"]["recorded"] == pytest.approx(0.75)
    for measure in ("utilisation_mae", "utilisation_bias"):
        assert told[measure]["noise_floor"] == pytest.approx(0.5), measure
        assert told[measure]["verdict"] == "pass", measure


def test_where_nothing_is_judged_nothing_has_passed() -> None:
    """A recording in which nobody started says nothing."""
    jobs = recording(days=2).with_columns(pl.lit(None, pl.Float64).alias(c) for c in ("start_s", "end_s", "run_s"))
    card = scorecard.scorecard(jobs, scorecard.as_outcomes(jobs), capacity_cores=8.0)
    assert set(card["verdict"]) == {"unscored"}
    assert not scorecard.passed(card)


@given(
    st.lists(st.tuples(st.floats(0, 90), st.floats(0, 50), st.floats(0, 9)), min_size=1, max_size=30),
    st.integers(1, 20),
)
def test_binned_use_keeps_what_was_held(jobs: list[tuple[float, float, float]], bins: int) -> None:
    start, length, weight = (np.array(column) for column in zip(*jobs, strict=True))
    edges = np.linspace(0.0, 150.0, bins + 1)
    mean = scorecard.binned(start, start + length, weight, edges)
    assert (mean * np.diff(edges)).sum() == pytest.approx((length * weight).sum(), abs=1e-6)
    overlap = np.clip(np.minimum(start + length, edges[1]) - np.maximum(start, edges[0]), 0, None)
    assert mean[0] * edges[1] == pytest.approx((overlap * weight).sum(), abs=1e-6)


def test_placement_agreement_is_the_share_on_the_recorded_machine() -> None:
    jobs = recording(days=2)
    places = pl.DataFrame(
        {"job": jobs["job"], "node": ["n0"] * 36 + ["n1"] * 12, "start_s": 0.0, "end_s": 1.0, "cpu_cores": 1.0,
         "memory_gib": 0.0}
    )  # fmt: skip
    placed = tables.conform(places, "placements", "test")
    judged = Thresholds(placement=0.2)
    told = by_measure(scorecard.scorecard(jobs, later(jobs, 0.0), placements=placed, thresholds=judged))
    assert told["placement_agreement_ratio"]["simulated"] == 0.75
    assert told["placement_agreement_ratio"]["verdict"] == "fail"


def test_power_is_compared_by_mape_and_nad() -> None:
    jobs = recording()
    real, made = np.array([100.0, 200.0, 0.0, np.nan]), np.array([110.0, 190.0, 1.0, 5.0])
    told = by_measure(scorecard.scorecard(jobs, later(jobs, 0.0), power_w=(real, made)))
    assert told["power_mape"]["error"] == pytest.approx((0.1 + 0.05) / 2)
    assert told["power_nad"]["error"] == pytest.approx(21 / 300)
    assert told["power_mean"]["recorded"] == pytest.approx(100.0)
    assert told["power_mean"]["unit"] == "W"
    with pytest.raises(UsageError, match="same"):
        scorecard.scorecard(jobs, later(jobs, 0.0), power_w=(real, made[:2]))


def test_the_envelope_is_the_load_at_which_errors_stay_small() -> None:
    """Days at load 0.5 are replayed well; from the fifth day on the load is 1 and starts come late."""
    jobs = recording().with_columns(cpu_cores=pl.when(pl.col("submit_s") >= 4 * DAY_S).then(4.0).otherwise(2.0))
    late = pl.when(pl.col("submit_s") >= 4 * DAY_S).then(900.0).otherwise(0.0)
    replay = scorecard.as_outcomes(jobs.with_columns(pl.col("start_s", "end_s") + late))
    told = scorecard.validity(jobs, replay, capacity_cores=8.0)
    assert told.select("load_from", "days", "jobs", "within").rows() == [(0.4, 4, 96, True), (1.0, 4, 96, False)]
    assert told["median_wait_error_s"].to_list() == [0.0, 900.0]
    assert scorecard.envelope(told) == (0.4, 0.6)
    assert scorecard.envelope(told.filter(~pl.col("within"))) is None
    never = replay.with_columns(start_s=pl.lit(None, pl.Float64), wait_s=pl.lit(None, pl.Float64))
    assert not scorecard.validity(jobs, never, capacity_cores=8.0)["within"].any()


@pytest.mark.skipif(not KTH.is_file(), reason="the KTH-SP2 log is not there")
def test_the_recorded_kth_sp2_log_mirrors_itself() -> None:
    jobs = read(KTH).jobs
    itself = scorecard.as_outcomes(jobs)
    card = scorecard.scorecard(jobs, itself, capacity_cores=100.0)
    assert card.height == 11
    assert set(card["error"].drop_nulls()) == {0.0}
    assert scorecard.passed(card)
    told = scorecard.validity(jobs, itself, capacity_cores=100.0)
    assert told["jobs"].sum() == jobs.height == 28489
    assert scorecard.envelope(told) == (0.0, np.inf)
