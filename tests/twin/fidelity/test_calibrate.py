"""Calibration: known parameters are found again within their interval, and a file gives back what was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from twin.errors import TraceError, UsageError
from twin.fidelity import calibrate
from twin.fidelity.calibrate import Calibration, Estimate
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def jobs(waits: np.ndarray, gap_s: float = 1000.0, run_s: float = 50.0, cores: float = 1.0) -> pl.DataFrame:
    """Jobs so far apart that each finds the cluster empty, unless its wait is longer than the gap."""
    submit = np.arange(len(waits)) * gap_s
    frame = pl.DataFrame(
        {"job": [str(i) for i in range(len(waits))], "submit_s": submit, "start_s": submit + waits,
         "end_s": submit + waits + run_s, "run_s": run_s, "cpu_cores": cores, "limit_s": 100.0, "status": "done"}
    )  # fmt: skip
    return tables.conform(frame, "jobs", "test")


def within(estimate: Estimate, value: float) -> bool:
    return estimate.low <= value <= estimate.high and estimate.low <= estimate.value <= estimate.high


def test_the_scheduler_latency_of_idle_arrivals_is_found_again(rng: np.random.Generator) -> None:
    waits = np.where(np.arange(400) % 4 == 0, 0.0, rng.uniform(2.0, 12.0, 400))
    found = {e.name: e for e in calibrate.scheduler_latency(jobs(waits), 10.0, rng=rng)}
    assert within(found["scheduler_latency_p50_s"], 7.0)
    assert within(found["scheduler_latency_p10_s"], 3.0)
    assert within(found["scheduler_latency_p90_s"], 11.0)
    assert found["scheduler_latency_zero_ratio"].value == 0.25
    assert found["scheduler_latency_p50_s"].samples == 300


def test_jobs_that_met_a_queue_or_a_full_machine_say_nothing_of_the_latency(rng: np.random.Generator) -> None:
    assert calibrate.scheduler_latency(jobs(np.full(9, 5.0), cores=6.0), 10.0, rng=rng) == []  # more than half of it
    assert calibrate.scheduler_latency(jobs(np.full(9, 5.0), gap_s=30.0, run_s=400.0), 2.0, rng=rng) == []  # taken
    queued = calibrate.scheduler_latency(jobs(np.full(9, 500.0), gap_s=100.0), 1e9, rng=rng)
    assert queued == []  # all but the first found others waiting


def test_a_start_at_the_moment_of_arrival_does_not_hide_who_waits(rng: np.random.Generator) -> None:
    told = jobs(np.array([0.0, 900.0, 0.0, 5.0, 5.0]), gap_s=100.0, run_s=1.0)
    found = {e.name: e.value for e in calibrate.scheduler_latency(told, 1e9, rng=rng)}
    assert found == {}  # the second one waits while the others come


def test_the_lognormal_start_up_delay_is_found_again(rng: np.random.Generator) -> None:
    inside = 0
    for _ in range(40):
        median, sigma = calibrate.startup_delay(90.0 * np.exp(0.4 * rng.standard_normal(200)))
        inside += within(median, 90.0) + within(sigma, 0.4)
    assert inside >= 70  # of 80 intervals of 95 %
    for bad in (np.array([1.0]), np.array([1.0, 0.0]), np.array([1.0, np.inf])):
        with pytest.raises(UsageError, match="start-up"):
            calibrate.startup_delay(bad)


def test_run_times_are_set_against_limits_and_use_against_requests(rng: np.random.Generator) -> None:
    told = jobs(np.zeros(100)).with_columns(
        run_s=pl.Series(np.where(np.arange(100) % 10 == 0, 150.0, 50.0)), used_cpu_cores=0.25 * pl.col("cpu_cores")
    )
    found = {e.name: e for e in calibrate.run_stretch(told, rng=rng)}
    assert found["run_limit_ratio_p50"].value == 0.5
    assert within(found["overrun_ratio"], 0.1)
    assert found["used_cpu_ratio"].value == 0.25
    assert "used_memory_ratio" not in found


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.2])
def test_the_power_curve_is_found_again(rng: np.random.Generator, exponent: float) -> None:
    u = rng.uniform(0.0, 1.0, 400)
    watts = 90.0 + 210.0 * u**exponent + rng.normal(0.0, 3.0, 400)
    idle, full, power = calibrate.power_curve(u, watts)
    # three standard errors, so that the seed does not decide
    for estimate, value in ((idle, 90.0), (full, 300.0), (power, exponent)):
        assert abs(estimate.value - value) < 1.6 * (estimate.high - estimate.low) / 2, estimate
    assert (idle.unit, full.unit, power.samples) == ("W", "W", 400)


def test_samples_that_cannot_tell_the_curve_are_refused() -> None:
    for u in ([0.5] * 9, [0.1, 0.5, 0.9], [0.1, 0.5, 1.2, 0.3], [np.nan] * 9):
        with pytest.raises(UsageError, match="power curve"):
            calibrate.power_curve(np.array(u), np.full(len(u), 100.0))


@pytest.fixture
def made(rng: np.random.Generator) -> Calibration:
    info = TraceInfo(name="tiny", source="made", licence="none", sha256="ab" * 32)
    trace = Trace(info, {"jobs": jobs(rng.uniform(1.0, 9.0, 50))})
    u = np.linspace(0.0, 1.0, 20)
    return calibrate.calibrate(
        trace, created="2026-01-31T12:00:00+00:00", rng=rng, capacity_cores=10.0,
        startup_s=np.array([80.0, 100.0, 120.0]), power=(u, 100.0 + 100.0 * u + rng.normal(0.0, 1.0, 20)),
    )  # fmt: skip


def test_a_file_gives_back_what_was_written(made: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    made.write(path)
    assert calibrate.read(path) == made
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.json"]
    first = path.read_bytes()
    made.write(path)
    assert path.read_bytes() == first
    assert {"scheduler_latency_p50_s", "startup_median_s", "idle_w", "run_limit_ratio_p50"} <= {
        e.name for e in made.estimates
    }
    assert (made.trace, made.sha256) == ("tiny", "ab" * 32)
    assert made.digest
    assert made["idle_w"].unit == "W"
    with pytest.raises(UsageError, match="idle_w"):
        made["idle_kw"]


def test_a_failed_write_leaves_the_old_file(made: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    made.write(path)
    old = path.read_bytes()
    broken = Calibration("t", "s", "d", "2026-01-01", (Estimate("x", float("nan"), 0.0, 1.0, "s", 1),))
    with pytest.raises(ValueError, match="JSON"):
        broken.write(path)
    assert path.read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1


def test_other_versions_and_damaged_files_are_refused(made: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    made.write(path)
    told = json.loads(path.read_text())
    for change, message in (({"format_version": 2}, "format 2, this version reads 1"), ({"more": 1}, "not a whole")):
        path.write_text(json.dumps(told | change))
        with pytest.raises(TraceError, match=message):
            calibrate.read(path)
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(TraceError, match=r"calibration\.json"):
            calibrate.read(path)
    with pytest.raises(TraceError, match="absent"):
        calibrate.read(tmp_path / "absent.json")


def test_the_moment_is_given_and_names_are_single() -> None:
    with pytest.raises(UsageError, match="ISO 8601"):
        Calibration("t", "s", "d", "yesterday", ())
    with pytest.raises(UsageError, match="twice"):
        Calibration("t", "s", "d", "2026-01-01", (Estimate("x", 1.0, 0.0, 2.0, "s", 5),) * 2)
