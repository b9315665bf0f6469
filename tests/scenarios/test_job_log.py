"""The synthetic log of jobs is a possible one, and the same one for the same seed."""

from __future__ import annotations

import polars as pl
import pytest

from scenarios.job_log import job_log
from twin.errors import ScenarioError


def test_equal_settings_give_equal_facts_and_say_that_they_are_synthetic() -> None:
    one, other = job_log(seed=4, jobs=100, days=1), job_log(seed=4, jobs=100, days=1)
    assert one.digest() == other.digest() != job_log(seed=5, jobs=100, days=1).digest()
    assert one.info == other.info
    assert one.info.source.startswith("synthetic")
    assert one.jobs.height == 100


def test_the_recorded_starts_never_ask_for_more_than_there_is() -> None:
    """Every job starts after it arrived and runs as long as it says; no machine holds more cores than it has."""
    log = job_log()
    jobs = log.jobs
    assert (jobs["start_s"] >= jobs["submit_s"]).all()
    assert (jobs["end_s"] - jobs["start_s"] == jobs["run_s"]).all()
    assert (jobs["run_s"] <= jobs["limit_s"]).all()
    assert ((jobs["start_s"] - jobs["submit_s"]) > 60).mean() > 0.2, "nobody waits: nothing to schedule"  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
    size = pl.col("cpu_cores") * pl.col("instances")
    steps = pl.concat(
        [jobs.select("node", time_s="start_s", cores=size), jobs.select("node", time_s="end_s", cores=-size)]
    )
    for (node,), rows in steps.drop_nulls("node").group_by("node"):
        held = rows.sort("time_s", "cores")["cores"].cum_sum().max()
        assert held <= log.nodes.filter(node=node)["cpu_cores"].item()  # pyright: ignore[reportOperatorIssue]
    assert steps.sort("time_s", "cores")["cores"].cum_sum().max() <= log.nodes["cpu_cores"].sum()  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize("days", [0.5, 2.0])
def test_the_grid_is_told_until_the_jobs_have_ended(days: float) -> None:
    """An hour after the other, for two days more than jobs arrive; how long it is changes no job."""
    log = job_log(days=days, jobs=int(250 * days))
    hours = int(24 * (-(-days // 1) + 2))
    assert log.prices["time_s"].to_list() == [3600.0 * hour for hour in range(hours)]
    assert log.jobs["end_s"].max() < log.prices["time_s"].max()  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]


@pytest.mark.parametrize("settings", [{"jobs": 0}, {"days": 0.0}, {"days": float("inf")}])
def test_no_log_is_not_a_log(settings: dict) -> None:
    with pytest.raises(ScenarioError, match="job_log"):
        job_log(**settings)
