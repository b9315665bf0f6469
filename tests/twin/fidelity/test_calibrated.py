"""A calibration put to use: latencies, delays, run times and power as fitted."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.explain import why_waiting
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import Workload
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Strict
from twin.errors import UsageError
from twin.fidelity.calibrate import Calibration, Estimate, calibrate
from twin.fidelity.calibrated import calibrated, power
from twin.trace.trace import Trace, TraceInfo

ROOMY = machine.uniform(100, 64)


def made(**values: float) -> Calibration:
    estimates = tuple(Estimate(name, value, value, value, "s", 9) for name, value in values.items())
    return Calibration("test", "0" * 64, "d", "2026-01-01T00:00:00+00:00", estimates)


def load(count: int, run_s: float | None = 10.0, limit_s: float | None = 100.0) -> Workload:
    jobs = pl.DataFrame(
        {"job": [str(i) for i in range(count)], "submit_s": 1000.0 * np.arange(count), "cpu_cores": 1.0}
    ).with_columns(run_s=pl.lit(run_s, pl.Float64), limit_s=pl.lit(limit_s, pl.Float64))
    return workload.of(Trace(TraceInfo("test", "made by a test", "none", "0" * 64), {"jobs": jobs}), ROOMY)


def ran(jobs: Workload) -> JobTwin:
    twin = JobTwin(jobs, ROOMY, Scheduler(orders.Fcfs(), Strict()))
    twin.run()
    return twin


def test_without_estimates_nothing_changes() -> None:
    """What was not fitted is left as it is."""
    jobs = load(50)
    same = calibrated(jobs, made(), np.random.default_rng(0))
    assert same.latency_s is None
    np.testing.assert_array_equal(same.run_s, jobs.run_s)


def test_a_latency_is_waited_and_found_again() -> None:
    """What was put in comes out of the fit to the replay: the quantiles and the share of jobs seen at once."""
    told = {"scheduler_latency_p10_s": 2.0, "scheduler_latency_p50_s": 6.0, "scheduler_latency_p90_s": 18.0}
    calibration = made(**told, scheduler_latency_zero_ratio=0.3)
    twin = ran(calibrated(load(4000), calibration, np.random.default_rng(1)))
    starts = pl.Series(twin.columns["start_s"])
    jobs = pl.DataFrame({"job": twin.workload.names, "submit_s": twin.workload.submit_s, "start_s": starts})
    replayed = jobs.with_columns(run_s=pl.lit(10.0), end_s=starts + 10.0, cpu_cores=pl.lit(1.0), status=pl.lit("done"))
    again = calibrate(
        Trace(TraceInfo("again", "made by a test", "none", "0" * 64), {"jobs": replayed}),
        created="2026-01-01T00:00:00+00:00",
        rng=np.random.default_rng(2),
        capacity_cores=6400.0,
    )
    for name, value in told.items():
        assert again[name].value == pytest.approx(value, rel=0.1)
    assert again["scheduler_latency_zero_ratio"].value == pytest.approx(0.3, abs=0.03)


def test_the_same_generator_gives_the_same_draws() -> None:
    """And one parameter more leaves the others' draws as they are."""
    latency = {"scheduler_latency_p10_s": 2.0, "scheduler_latency_p50_s": 6.0, "scheduler_latency_p90_s": 18.0}
    one = calibrated(load(50), made(**latency), np.random.default_rng(5))
    two = calibrated(load(50), made(**latency, startup_median_s=3.0, startup_sigma=0.5), np.random.default_rng(5))
    np.testing.assert_array_equal(one.latency_s, two.latency_s)
    assert (two.run_s > one.run_s).all()


def test_a_job_that_is_not_seen_yet_says_so_and_may_be_given_up() -> None:
    """It arrived, and the scheduler does not know it."""
    told = {f"scheduler_latency_p{level}_s": 50.0 for level in (10, 50, 90)}
    twin = JobTwin(
        calibrated(load(1), made(**told), np.random.default_rng(0)), ROOMY, Scheduler(orders.Fcfs(), Strict())
    )
    twin.run(10.0)
    assert why_waiting(twin, 0) == "the scheduler has not seen it yet"
    twin.run()
    assert twin.columns["start_s"].tolist() == [pytest.approx(50.0)]


def test_run_times_that_nobody_recorded_are_drawn_from_the_limits() -> None:
    """Half of the limit in the median; they are refused without it."""
    jobs = load(2000, run_s=None)
    assert all("nobody recorded" in reason for reason in jobs.refused)
    told = made(run_limit_ratio_p10=0.25, run_limit_ratio_p50=0.5, run_limit_ratio_p90=1.0)
    drawn = calibrated(jobs, told, np.random.default_rng(3))
    assert not any(drawn.refused)
    np.testing.assert_allclose(np.quantile(drawn.run_s, (0.1, 0.5, 0.9)), (25.0, 50.0, 100.0), rtol=0.1)


def test_power_is_the_fitted_curve() -> None:
    """Any exponent, and what was not fitted is named."""
    told = power(made(idle_w=80.0, full_w=250.0, power_exponent=0.7))
    assert (told.idle_w, told.full_w, told.exponent) == (80.0, 250.0, 0.7)
    with pytest.raises(UsageError, match="has no 'idle_w'"):
        power(made())
    with pytest.raises(UsageError, match="must be above 0"):
        machine.Power(curve=0.0)
