"""The verb `schedule`: the same jobs under another policy, or as recorded, through the same tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from polars.testing import assert_frame_equal

from experiments import schema
from experiments.display import Silent
from experiments.schedule import replayed, task
from scenarios.job_log import job_log
from twin.errors import SimulationError, UsageError
from twin.trace import tables

ROOT = Path(__file__).resolve().parents[2]
JOB_TABLES = ("job_cdf", "outcomes", "placements", "scorecard", "validity")
SMALL = ("trace.jobs=120", "trace.days=1")


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        yield


def call(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.schedule", *overrides]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=settings, check=False)


def ran(out: Path, *overrides: str) -> dict[str, pl.DataFrame]:
    """The run folder's tables, of a run in this process."""
    cfg = compose("schedule", [*SMALL, f"out={out}", "display=none", *overrides])
    assert task(cfg, Silent()) == 0
    return {path.stem: tables.read(path, path.stem) for path in out.glob("*/*.parquet")}


def kpi(told: dict[str, pl.DataFrame], name: str, entity: str = "cluster") -> float | None:
    return told["kpis"].filter(kpi=name, entity=entity)["value"].item()


def test_it_ends_with_the_reports_path_and_the_same_bytes_twice(tmp_path: Path) -> None:
    """Two runs of one command leave identical tables, whole, and the KPIs and the scorecard are on the screen."""
    contents = []
    for name in ("a", "b"):
        done = call(*SMALL, "seed=3", "display=plain", f"out={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(tmp_path / name / "report.html")
        assert "bounded_slowdown_mean" in done.stdout
        assert "| wait_ks " in done.stdout
        files = (tmp_path / name).rglob("*.parquet")
        contents.append({path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files})
    assert set(contents[0]) >= {"tables/kpis.parquet", *(f"jobs/{name}.parquet" for name in JOB_TABLES)}
    assert contents[0] == contents[1]
    assert not list(tmp_path.glob("*.partial"))
    identity = json.loads((tmp_path / "a" / "identity.json").read_text())
    assert identity["verb"] == "schedule"
    assert identity["scheduler"] == "fcfs, backfill easy, placement first_fit"
    assert identity["machines"] == {"count": 4, "cpu_cores": 80.0, "memory_gib": 448.0, "gpus": 0.0}
    assert identity["trace"]["epoch"] == "2026-01-05T00:00:00+00:00"


def test_the_seed_draws_the_noise_floor_and_nothing_of_the_replay(tmp_path: Path) -> None:
    log = "trace.days=6"
    one, other = (ran(tmp_path / seed, log, f"seed={seed}") for seed in ("1", "2"))
    assert_frame_equal(one["outcomes"], other["outcomes"])
    assert_frame_equal(
        one["scorecard"].drop("noise_floor", "verdict"), other["scorecard"].drop("noise_floor", "verdict")
    )
    assert one["scorecard"]["noise_floor"].to_list() != other["scorecard"]["noise_floor"].to_list()


def test_the_recording_goes_through_the_same_tables_and_equals_itself(tmp_path: Path) -> None:
    """Its starts are those of the log, and its scorecard has no error."""
    told = ran(tmp_path / "run", "replay=recorded")
    jobs = job_log(jobs=120, days=1).jobs
    joined = jobs.select("job", "start_s", "end_s").join(told["outcomes"], on="job", suffix="_told")
    assert joined["start_s"].to_list() == joined["start_s_told"].to_list()
    assert joined["end_s"].to_list() == joined["end_s_told"].to_list()
    assert kpi(told, "wait_mean_s") == pytest.approx((jobs["start_s"] - jobs["submit_s"]).mean())
    assert told["scorecard"]["error"].drop_nulls().abs().max() == 0.0
    assert told["validity"]["within"].all()
    assert told["job_cdf"]["source"].unique().to_list() == ["recorded"]


def test_the_recorded_policy_comes_nearer_to_the_recording_than_another(tmp_path: Path) -> None:
    """The log's starts are those of EASY: nobody overtaking, or the longest first, is further off."""
    log = ("trace.jobs=300", "trace.days=1.2")
    errors = {}
    for policy in ("order=fcfs", "order=ljf", "backfill=none"):
        told = ran(tmp_path / policy.replace("=", "-"), *log, policy)
        errors[policy] = told["scorecard"].filter(measure="start_mae_s")["error"].item()
        assert sorted(told["job_cdf"]["source"].unique()) == ["recorded", "twin"]
        assert kpi(told, "done_jobs") == 300
    assert errors["order=fcfs"] < errors["order=ljf"]
    assert errors["order=fcfs"] < errors["backfill=none"]


def test_only_the_largest_users_are_told_apart(tmp_path: Path) -> None:
    """By core-hours; what they held lies within the cluster's."""
    told = ran(tmp_path / "run", "largest=2")
    entities = told["kpis"]["entity"].unique()
    assert sorted(e.split(":")[0] for e in entities) == ["cluster", "pool", "pool", "queue", "queue", "user", "user"]
    whole = ran(tmp_path / "whole", "largest=100")["kpis"].filter(pl.col("kpi") == "core_h")
    users = whole.filter(pl.col("entity").str.starts_with("user:")).sort("value", descending=True)
    assert set(users["entity"].head(2)) == {e for e in entities if e.startswith("user:")}
    assert users["value"].sum() == pytest.approx(whole.filter(entity="cluster")["value"].item())


@pytest.mark.parametrize("replay", ["policy", "recorded"])
def test_a_run_that_is_cut_compares_what_was_known_by_then(tmp_path: Path, replay: str) -> None:
    """No job of later counts, and what both still run is no error."""
    told = ran(tmp_path / "run", f"replay={replay}", "until_s=40000")
    jobs = job_log(jobs=120, days=1).jobs
    arrived = jobs.filter(pl.col("submit_s") <= 40_000).height
    assert 0 < arrived < 120
    assert kpi(told, "jobs") == arrived
    assert told["outcomes"].filter(state="expected").height == 120 - arrived
    assert (kpi(told, "running_jobs") or 0) > 0
    assert told["outcomes"]["end_s"].max() <= 40_000  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
    assert told["placements"]["end_s"].max() is None or told["placements"]["end_s"].max() <= 40_000  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
    assert told["scorecard"].filter(measure="utilisation_bias")["verdict"].item() == "pass"


def test_a_log_without_recorded_starts_is_replayed_without_scorecard(tmp_path: Path) -> None:
    log = job_log(jobs=30, days=0.5)
    bare = log.replacing("starts left out", jobs=log.jobs.with_columns(start_s=None, end_s=None, node=None))
    bare.write(tmp_path / "bare")
    place = ("trace=folder", f"trace.path={tmp_path / 'bare'}", f"out={tmp_path / 'run'}", "display=none")
    assert task(compose("schedule", list(place)), Silent()) == 0
    assert {path.stem for path in (tmp_path / "run").glob("jobs/*")}.isdisjoint({"scorecard", "validity"})
    cdf = tables.read(tmp_path / "run/jobs/job_cdf.parquet", "job_cdf")
    assert cdf["source"].unique().to_list() == ["twin"]
    cfg = compose("schedule", [*place, "replay=recorded"])
    with pytest.raises(SimulationError, match="recorded no starts of jobs"):
        replayed(cfg, bare)


def test_both_engines_leave_the_same_tables(tmp_path: Path) -> None:
    one, other = (ran(tmp_path / engine, f"engine={engine}") for engine in ("reference", "compiled"))
    for name in ("kpis", *JOB_TABLES):
        assert_frame_equal(one[name], other[name])


def test_working_hours_and_outages_of_the_recording_reach_the_twin(tmp_path: Path) -> None:
    """Two rules of admission together; the machine that was away holds nothing then."""
    told = ran(tmp_path / "run", "admission=[working_hours,quota]", "admission.quota.jobs=2", "outages=recorded")
    hours = [8 * 3600.0, 17 * 3600.0]
    for boundary_s in hours:
        over = told["outcomes"].filter(
            pl.col("start_s") < boundary_s, pl.col("start_s") + pl.col("limit_s") > boundary_s
        )
        assert over.height == 0, "a start whose estimate runs over a boundary"
    away = told["placements"].filter(pl.col("start_s").is_between(20 * 3600, 24 * 3600, closed="left"))
    assert away.height > 0
    assert "small-2" not in away["node"].to_list()
    held = told["placements"].join(told["outcomes"].select("job", "user"), on="job")
    for time_s in held["start_s"].to_list():
        now = held.filter(pl.col("start_s") <= time_s, pl.col("end_s") > time_s).unique(["job"])
        assert now["user"].value_counts()["count"].max() <= 2  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (("trace=google2019",), UsageError, "holds no jobs to schedule; use one that does: trace=jobs"),
        (("engine=compiled", "preempts=true"), SimulationError, "the fast engine does not know"),
        (("replay=never",), UsageError, "replay=never must be policy or recorded"),
        (("until_s=-5",), SimulationError, "until_s=-5 lies before now"),
        (("replay=recorded", "until_s=-5"), UsageError, "its end must lie after its start"),
        (("order=fifo",), HydraException, "unicep"),
    ],
)
def test_a_wrong_value_is_one_message_and_leaves_nothing(
    tmp_path: Path, overrides: tuple[str, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        task(compose("schedule", [*overrides, f"out={tmp_path / 'run'}", "display=none"]), Silent())
    assert not list(tmp_path.iterdir())


def test_an_error_is_a_message_with_an_exit_code(tmp_path: Path) -> None:
    done = call("trace=google2019", f"out={tmp_path / 'run'}")
    assert done.returncode == 2, done.stderr
    assert "holds no jobs" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        ran(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_sweep_over_orders_ends_with_a_table_of_the_whole(tmp_path: Path) -> None:
    """The best wait is marked, and what is shown is the cluster's, not one user's."""
    done = call("--multirun", *SMALL, "order=fcfs,sjf", f"hydra.sweep.dir={tmp_path / 'sweep'}", "display=plain")
    assert done.returncode == 0, done.stderr
    table = pl.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert table["order"].to_list() == ["fcfs", "sjf"]
    for row in table.iter_rows(named=True):
        (place,) = (tmp_path / "sweep").glob(f"{row['job']}_*/tables/kpis.parquet")
        whole = tables.read(place, "kpis").filter(entity="cluster", kpi="wait_mean_s")
        assert row["wait_mean_s"] == pytest.approx(whole["value"].item())
