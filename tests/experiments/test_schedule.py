"""The verb `schedule`: the same jobs under another policy, or as recorded, through the same tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from polars.testing import assert_frame_equal

from experiments import cell, schema
from experiments.display import Silent
from experiments.replay import replayed, results
from experiments.schedule import described, task
from scenarios.job_log import job_log
from twin.errors import UsageError
from twin.trace import tables

ROOT = Path(__file__).resolve().parents[2]
JOB_TABLES = ("job_cdf", "job_steps", "outcomes", "placements", "scorecard", "validity")
SMALL = ("trace.jobs=120", "trace.days=1")
BUSY = ("trace.jobs=375", "trace.days=1.5")  # some wait


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        yield


def call(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.schedule", *overrides]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=settings, check=False)


@cache
def noted(*overrides: str) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """The tables of a run and the sentences about them, without the run folder and its page."""
    cfg = compose("schedule", [*SMALL, *overrides])
    trace = cell.read_trace(cfg.trace)
    return results(cfg, trace, replayed(cfg, trace))


def ran(*overrides: str) -> dict[str, pl.DataFrame]:
    return noted(*overrides)[0]


def kpi(told: dict[str, pl.DataFrame], name: str, entity: str = "cluster") -> float | None:
    return told["kpis"].filter(kpi=name, entity=entity)["value"].item()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run folder that the command left, and what it printed."""
    place = tmp_path_factory.mktemp("runs") / "a"
    done = call(*SMALL, "seed=3", "explain=[job-40]", "display=plain", f"out={place}")
    assert done.returncode == 0, done.stderr
    assert "note: energy is assumed: each machine draws 100 to 300 W" in done.stderr
    return place, done.stdout


def test_it_ends_with_the_reports_path_and_kpis_scorecard_and_reasons_before(folder: tuple[Path, str]) -> None:
    place, printed = folder
    assert printed.splitlines()[-1] == str(place / "report.html")
    for words in ("bounded_slowdown_mean", "energy_kwh", "| wait_ks ", "job-40 starts at "):
        assert words in printed
    told = tables.read(place / "jobs" / "explanations.parquet", "explanations")
    for row in told.iter_rows(named=True):
        assert any(line.startswith("job-40 ") and line.endswith(row["reason"]) for line in printed.splitlines())
    assert not list(place.parent.glob("*.partial"))
    identity = json.loads((place / "identity.json").read_text())
    assert identity["verb"] == "schedule"
    assert identity["scheduler"] == "fcfs, backfill easy, placement first_fit"
    assert identity["machines"] == {"count": 4, "cpu_cores": 80.0, "memory_gib": 448.0, "gpus": 0.0}
    assert identity["trace"]["epoch"] == "2026-01-05T00:00:00+00:00"
    page = (place / "report.html").read_text(encoding="utf-8")
    for words in ("Power (W)", "kWh", "energy is assumed", "Why jobs waited", "job-40"):
        assert words in page


def test_the_same_command_leaves_the_same_bytes(folder: tuple[Path, str], tmp_path: Path) -> None:
    cfg = compose("schedule", [*SMALL, "seed=3", "explain=[job-40]", f"out={tmp_path / 'b'}", "display=none"])
    assert task(cfg, Silent()) == 0
    one, other = (
        {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*.parquet")}
        for place in (folder[0], tmp_path / "b")
    )
    assert set(one) == {"tables/kpis.parquet", *(f"jobs/{name}.parquet" for name in (*JOB_TABLES, "explanations"))}
    assert one == other
    for path in (tmp_path / "b").glob("*/*.parquet"):
        tables.read(path, path.stem)


def test_the_seed_draws_the_noise_floor_and_nothing_of_the_replay() -> None:
    one, other = (ran("trace.days=6", f"seed={seed}") for seed in (1, 2))
    assert_frame_equal(one["outcomes"], other["outcomes"])
    assert_frame_equal(
        one["scorecard"].drop("noise_floor", "verdict"), other["scorecard"].drop("noise_floor", "verdict")
    )
    assert one["scorecard"]["noise_floor"].to_list() != other["scorecard"]["noise_floor"].to_list()


def test_the_recording_goes_through_the_same_tables_and_equals_itself() -> None:
    """Its starts are those of the log, and its scorecard has no error."""
    told = ran("replay=recorded")
    jobs = job_log(jobs=120, days=1).jobs
    joined = jobs.select("job", "start_s", "end_s").join(told["outcomes"], on="job", suffix="_told")
    assert joined["start_s"].to_list() == joined["start_s_told"].to_list()
    assert joined["end_s"].to_list() == joined["end_s_told"].to_list()
    assert kpi(told, "wait_mean_s") == pytest.approx((jobs["start_s"] - jobs["submit_s"]).mean())
    assert told["scorecard"]["error"].drop_nulls().abs().max() == 0.0
    assert told["validity"]["within"].all()
    assert told["job_cdf"]["source"].unique().to_list() == ["recorded"]


def test_the_recorded_policy_comes_nearer_to_the_recording_than_another() -> None:
    """The log's starts are those of EASY: nobody overtaking, or the longest first, is further off."""
    log = ("trace.jobs=300", "trace.days=1.2")
    errors = {}
    for policy in ("order=fcfs", "order=ljf", "backfill=none"):
        told = ran(*log, policy)
        errors[policy] = told["scorecard"].filter(measure="start_mae_s")["error"].item()
        assert sorted(told["job_cdf"]["source"].unique()) == ["recorded", "twin"]
        assert kpi(told, "done_jobs") == 300
    assert errors["order=fcfs"] < errors["order=ljf"]
    assert errors["order=fcfs"] < errors["backfill=none"]


def test_only_the_largest_users_are_told_apart() -> None:
    """By core-hours; what they held lies within the cluster's."""
    told = ran("largest=2")
    entities = told["kpis"]["entity"].unique()
    assert sorted(e.split(":")[0] for e in entities) == ["cluster", "pool", "pool", "queue", "queue", "user", "user"]
    whole = ran("largest=100")["kpis"].filter(pl.col("kpi") == "core_h")
    users = whole.filter(pl.col("entity").str.starts_with("user:")).sort("value", descending=True)
    assert set(users["entity"].head(2)) == {e for e in entities if e.startswith("user:")}
    assert users["value"].sum() == pytest.approx(whole.filter(entity="cluster")["value"].item())


@pytest.mark.parametrize("replay", ["policy", "recorded"])
def test_a_run_that_is_cut_compares_what_was_known_by_then(replay: str) -> None:
    """No job of later counts, and what both still run is no error."""
    told = ran(f"replay={replay}", "until_s=40000")
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
    cfg = compose("schedule", ["trace=folder", f"trace.path={tmp_path / 'bare'}"])
    told, _ = results(cfg, bare, replayed(cfg, cell.read_trace(cfg.trace)))
    assert set(told).isdisjoint({"scorecard", "validity"})
    assert told["job_cdf"]["source"].unique().to_list() == ["twin"]
    cfg.replay = "recorded"
    with pytest.raises(UsageError, match="recorded no starts of jobs"):
        replayed(cfg, bare)


def test_both_engines_leave_the_same_tables_but_for_the_meters() -> None:
    """The compiled one has no meter, and says so."""
    (one, said), (other, said_more) = (noted(f"engine={engine}") for engine in ("reference", "compiled"))
    assert set(one) - set(other) == {"job_steps"}
    for name in other:
        assert_frame_equal(one[name], other[name])
    (more,) = set(said_more) - set(said)
    assert "no table job_steps: the compiled engine" in more


def test_working_hours_and_outages_of_the_recording_reach_the_twin() -> None:
    """Two rules of admission together; the machine that was away holds nothing then."""
    told = ran("admission=[working_hours,quota]", "admission.quota.jobs=2", "outages=recorded")
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


def test_the_steps_tell_what_the_kpis_tell() -> None:
    """Energy and core-hours, metered while the twin runs and counted afterwards from what lay where."""
    for rules in ((), ("contention=stretch",)):
        told = ran(*BUSY, *rules)
        steps = told["job_steps"].filter(entity="cluster")
        makespan_s = kpi(told, "makespan_s") or 0.0
        idle_kwh = (
            4 * 100.0 * (float(steps["step_s"].sum()) - makespan_s) / 3.6e6
        )  # before and behind, where no KPI looks
        assert float((steps["power_w"] * steps["step_s"]).sum()) / 3.6e6 - idle_kwh == pytest.approx(
            kpi(told, "energy_kwh")
        )
        assert float((steps["cpu_cores"] * steps["step_s"]).sum()) / 3600 == pytest.approx(kpi(told, "core_h"))
        assert steps["waiting_jobs"].max() > 0  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
        parts = told["kpis"].filter(pl.col("entity").str.starts_with("pool:"), pl.col("kpi") == "energy_kwh")
        assert parts["value"].sum() == pytest.approx(kpi(told, "energy_kwh"))


def test_carbon_is_scored_only_where_the_series_covers_the_run() -> None:
    """The synthetic log tells it; a hole is said, with what fills it; the intensity lies between 100 and 500 g/kWh."""
    short, said = noted(*BUSY, "energy.hold_s=1800")
    assert kpi(short, "carbon_kg") is None
    assert any("not scored: carbon_g_kwh of synthetic: no value from" in note and "hold_s" in note for note in said)
    told, said = noted(*BUSY)
    assert (kpi(told, "makespan_s") or 0.0) > 1.5 * 86_400, "longer than jobs arrive"
    assert [note for note in said if "carbon" in note] == []
    grams = 1000 * (kpi(told, "carbon_kg") or 0.0) / (kpi(told, "energy_kwh") or 1.0)
    assert 100 < grams < 500
    assert kpi(told, "energy_cost_usd") is None, "the log holds no prices of electricity"


def test_power_of_your_own_is_no_assumption_and_reaches_energy() -> None:
    """Machines that draw nothing when idle waste nothing; a pool may differ."""
    told, said = noted("machines.power.idle_w=0", "machines.power.full_w=100", "+machines.power_of.large.idle_w=50")
    assert not any("assumed" in note for note in said)
    own = {e: kpi(told, "energy_unoccupied_kwh", e) for e in ("cluster", "pool:small", "pool:large")}
    assert own["pool:small"] == 0.0
    assert own["cluster"] == own["pool:large"]
    assert (own["pool:large"] or 0.0) > 0.0
    pooled = ran("machines=pooled", "replay=policy")
    assert pooled["job_steps"].filter(entity="pool:small")["power_w"].min() == pytest.approx(300.0), "three idle ones"


def test_waits_of_named_jobs_are_explained() -> None:
    """Each job that is asked for has its start, at the machine and second of the replay, and its waits before."""
    waits = ran(*BUSY)["outcomes"].filter(pl.col("wait_s") > 600)["job"].head(2).to_list()
    told = ran(*BUSY, f"explain=[{','.join(waits)}]")
    assert set(told["explanations"]["job"]) == set(waits)
    for job in waits:
        (row,) = told["outcomes"].filter(job=job).iter_rows(named=True)
        own = told["explanations"].filter(job=job)
        starts, waited = own.filter(what="starts"), own.filter(what="waits")
        assert starts["from_s"].item() == row["start_s"]
        assert (waited["until_s"] - waited["from_s"]).sum() == pytest.approx(row["wait_s"])
        where = starts["reason"].item().split(":")[0].removeprefix("on ").split(", ")
        assert sorted(where) == sorted(told["placements"].filter(job=job)["node"])
    assert_frame_equal(told["outcomes"], ran(*BUSY)["outcomes"])


def test_what_contention_costs_is_told_of_the_whole_and_of_its_parts() -> None:
    told = ran(*BUSY, "contention=lose", "largest=100")
    for name in ("asked_core_h", "lost_core_h"):
        parts = told["kpis"].filter(pl.col("entity").str.starts_with("user:"), pl.col("kpi") == name)
        assert parts["value"].sum() == pytest.approx(kpi(told, name))
    assert 0.0 < (kpi(told, "lost_core_h") or 0.0) < (kpi(told, "asked_core_h") or 0.0)
    assert kpi(told, "asked_core_h") == pytest.approx(kpi(told, "core_h")), "they use what they hold"
    assert kpi(told, "stretched_h") == 0.0
    cut = ran(*BUSY, "contention=lose", "until_s=60000")
    assert kpi(cut, "asked_core_h") == pytest.approx(kpi(cut, "core_h")), "those who run count up to now"
    longer, said = noted(*BUSY, "contention=stretch")
    assert kpi(longer, "asked_core_h") == pytest.approx(kpi(told, "asked_core_h")), "the same work, done later"
    assert kpi(longer, "lost_core_h") == 0.0
    own_s = job_log(jobs=375, days=1.5).jobs.select("job", own_s="run_s")
    late_s = (
        longer["outcomes"].join(own_s, on="job").select(pl.col("end_s") - pl.col("start_s") - pl.col("own_s")).sum()
    )
    assert kpi(longer, "stretched_h") == pytest.approx(late_s.item() / 3600)
    assert late_s.item() > 3600
    for words in ("utilisation is of the cores that there are", "not what jobs really used"):
        assert any(words in note for note in said)
        assert not any(words in note for note in noted(*BUSY)[1])


def test_without_a_start_there_is_no_energy_and_that_is_said() -> None:
    """Every job asks for more than any machine has."""
    _, said = noted("machines=uniform", "machines.cpu_cores=0.5")
    assert "no energy: no job started" in said


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "fcfs, backfill easy, placement first_fit"),
        (("order=sjf", "placement=kube_default"), "sjf, backfill easy, placement kube_default"),
        (
            ("filters=[spread,reservation]", "admission=[quota]", "inspector=keep_room", "contention=lose"),
            "fcfs, backfill easy, placement first_fit, admission quota, filter spread, filter reservation, "
            "inspector keep_room, contention lose",
        ),
        (
            ("kill=true", "preempts=true", "retries=0", "checkpoint.interval_s=3600", "outages=recorded"),
            "fcfs, backfill easy, placement first_fit, kill, preempts, retries 0, checkpoint every 3600 s, outages "
            "recorded",
        ),
        (
            ("backfill=none", "piece_cores=0.5", "missing_limit_s=60", "engine=compiled", "calibration=f.json"),
            "fcfs, backfill none, placement first_fit, piece_cores 0.5, missing_limit_s 60, engine compiled, "
            "calibrated",
        ),
        (("replay=recorded", "kill=true"), "the scheduler of the recording, its starts being those recorded"),
    ],
)
def test_a_scheduler_is_named_with_all_of_its_rules(
    overrides: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose("schedule", list(overrides), return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    assert described(cfg) == name


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (("trace=google2019",), UsageError, "holds no jobs to schedule; use one that does: trace=jobs"),
        (("engine=compiled", "preempts=true"), UsageError, "engine=compiled does not know displaced jobs: use engine="),
        (("engine=compiled", "filters=[spread]"), UsageError, "does not know rules about where a job may run"),
        (("engine=compiled", "order=multifactor"), UsageError, "does not know orders that keep accounts"),
        (("engine=compiled", "explain=[job-1]"), UsageError, "does not know explanations of waits"),
        (("engine=compiled", "contention=lose"), UsageError, "does not know contention"),
        (("explain=[job-1,job12]",), UsageError, "explain names the job 'job12', .* did you mean 'job-12'"),
        (("explain=[job-1]", "replay=recorded"), UsageError, "explain needs replay=policy"),
        (("energy.carbon_zone=DE",), UsageError, "zone='DE': the table tells carbon_g_kwh of the zones"),
        (("filters=[reservation]", "filters.reservation.machines=[n9]"), UsageError, "'n9', which is not there"),
        (("+machines.power_of.huge.full_w=900",), UsageError, "unknown pool 'huge'"),
        (("machines.power.curve=steep",), UsageError, "'steep' is unknown; known"),
        (("piece_cores=-1",), UsageError, "piece_cores"),
        (("contention=stretch", "contention.overcommit=0.5"), UsageError, "it must be 1 or more"),
        (("replay=never",), UsageError, "replay=never must be policy or recorded"),
        (("until_s=-5",), UsageError, "until_s=-5 must be above 0, and after the first arrival at"),
        (("until_s=1",), UsageError, "until_s=1 must be above 0, and after the first arrival at"),
        (("replay=recorded", "until_s=0"), UsageError, "until_s=0 must be above 0"),
        (("largest=-1",), UsageError, "largest=-1 must be 0 or more"),
        (("energy.hold_s=-1",), UsageError, "energy.hold_s of the verb schedule"),
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
    """A wrong value is usage, wherever it is found: by the verb, in what Hydra constructs, by the twin."""
    wrong = (("trace=google2019", "holds no jobs"), ("contention=lose", "contention.overcommit=0.5", "be 1 or more"))
    for *overrides, words in (*wrong, ("machines.power.curve=steep", "'steep' is unknown")):
        done = call(*overrides, f"out={tmp_path / 'run'}")
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr + done.stdout


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        task(compose("schedule", [*SMALL, f"out={tmp_path}", "display=none"]), Silent())
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
