"""The front door for jobs: replays by hand, refusals, and recorded logs against figures of another simulator."""

from __future__ import annotations

from functools import cache
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import twin
from scenarios.job_log import job_log
from twin.engine.jobs import machines as machine
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.machines import Power
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.window import WindowTwin
from twin.engine.scheduling.backfill import Backfill, Easy, Greedy, Strict
from twin.engine.scheduling.orders import Fcfs, Sjf
from twin.errors import SimulationError, TraceError, UsageError
from twin.fidelity.calibrate import Calibration, Estimate
from twin.scheduling import Grid, JobRun, Sharing, grid, kpis, recorded, recorded_machines, schedule, span
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

NASA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "swf-pwa" / "NASA-iPSC-1993-3.1-cln.swf.gz"
FCFS = Scheduler(Fcfs(), Strict())


def trace_of(*rows: dict, edges: tuple[tuple[str, str], ...] = (), nodes: pl.DataFrame | None = None) -> Trace:
    """Jobs "0", "1", ... of a core and 10 s at second 0, but for what is told."""
    full = [{"job": str(i), "submit_s": 0.0, "run_s": 10.0, "cpu_cores": 1.0, **row} for i, row in enumerate(rows)]
    frames = {"dependencies": pl.DataFrame(edges, schema={"job": pl.String, "parent": pl.String}, orient="row")}
    if rows:
        frames["jobs"] = tables.conform(pl.DataFrame(full, infer_schema_length=None), "jobs", "test")
    if nodes is not None:
        frames["nodes"] = nodes
    return Trace(TraceInfo("test", "by hand", "none", "0" * 64), frames)


def test_the_queue_by_hand() -> None:
    """Four cores: strict waits behind the wide job, greedy overtakes, EASY only where the wide one is not delayed."""
    trace = trace_of(
        {"cpu_cores": 3.0},
        {"cpu_cores": 4.0, "submit_s": 1.0},
        {"submit_s": 2.0, "run_s": 20.0},
        {"submit_s": 3.0, "run_s": 7.0},
    )
    starts: list[tuple[Backfill, list[float]]] = [
        (Strict(), [0.0, 10.0, 20.0, 20.0]),
        (Greedy(), [0.0, 22.0, 2.0, 10.0]),
        (Easy(), [0.0, 10.0, 20.0, 3.0]),
    ]
    for backfill, expected in starts:
        run = schedule(trace, machine.uniform(1, 4), Scheduler(Fcfs(), backfill))
        assert run.outcomes["start_s"].to_list() == expected
        assert run.until_s == max(run.outcomes["end_s"])


def test_a_run_is_its_tables() -> None:
    """As a run folder holds them, in the order of arrival, checked against their schemas."""
    run = schedule(trace_of({"submit_s": 3.0}, {}), machine.uniform(1, 1), FCFS)
    assert isinstance(run, JobRun)
    assert list(run.tables()) == ["outcomes", "placements"]
    for name, frame in run.tables().items():
        assert_frame_equal(tables.conform(frame, name, "test"), frame)
    assert run.outcomes["job"].to_list() == ["1", "0"]
    assert run.until_s == 20.0
    assert run.twin.now_s == 20.0
    assert len(run.machines) == 1


def test_a_horizon_stops_the_clock_and_forgets_nobody() -> None:
    """Half of the jobs are not there yet; the twin can go on."""
    trace = trace_of(*({"submit_s": 5.0 * i} for i in range(6)))
    run = schedule(trace, machine.uniform(1, 1), FCFS, until_s=12.0)
    assert run.until_s == 12.0
    assert run.outcomes["state"].to_list() == ["done", "running", "waiting", "expected", "expected", "expected"]
    run.twin.run()
    assert run.twin.columns["end_s"].tolist() == [10.0 * (i + 1) for i in range(6)]


def test_estimates_and_run_times_can_be_given() -> None:
    """Asked of all who gave none; what was recorded stays."""
    trace = trace_of({"limit_s": 3.0}, {}, {"run_s": None})
    kill = Scheduler(Sjf(), Easy(), kill=True)
    run = schedule(trace, machine.uniform(1, 1), kill, missing_run_s=4.0, missing_limit_s=6.0)
    assert run.outcomes["state"].to_list() == ["killed", "killed", "done"]
    assert run.outcomes["limit_s"].to_list() == [3.0, 6.0, 6.0]
    assert run.outcomes["run_s"].to_list() == [3.0, 6.0, 4.0]
    without = schedule(trace, machine.uniform(1, 1), kill)
    assert without.outcomes["state"].to_list() == ["killed", "done", "refused"]


def test_outages_reach_the_twin() -> None:
    """A drained machine lets its job finish, then stays closed for the rest of its outage."""
    outage = Outage(1.0, 30.0, (0,), drain=True)
    run = schedule(trace_of({}, {}), machine.uniform(1, 1), FCFS, outages=[outage])
    assert run.outcomes["start_s"].to_list() == [0.0, 31.0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"cpu_cores": 9.0}, "larger than any machine"),
        ({"memory_gib": 99.0}, "larger than any machine"),
        ({"instances": 50}, "together are too small"),
        ({"requires": "disk=ssd"}, "labels"),
        ({"gpu_model": "H100"}, "GPU model"),
        ({"run_s": None}, "how long it ran"),
        ({"submit_s": None}, "when it arrived"),
        ({"instances": 0}, "no instance"),
    ],
)
def test_a_job_that_cannot_run_is_refused_by_name_and_the_others_run(row: dict, reason: str) -> None:
    """No job is dropped; whoever waits for it is cancelled."""
    run = schedule(trace_of({}, row, {}, edges=(("2", "1"),)), machine.uniform(2, 4, 8), FCFS)
    told = {each["job"]: each for each in run.outcomes.iter_rows(named=True)}
    assert {job: each["state"] for job, each in told.items()} == {"0": "done", "1": "refused", "2": "cancelled"}
    assert reason in told["1"]["reason"]


def test_asking_for_no_memory_is_allowed() -> None:
    """Planning divides by nothing."""
    for backfill in (Strict(), Greedy(), Easy()):
        trace = trace_of(
            {"memory_gib": 0.0, "cpu_cores": 4.0}, {"memory_gib": 0.0, "cpu_cores": 4.0}, {"memory_gib": 0.0}
        )
        run = schedule(trace, machine.uniform(1, 4, 0.0), Scheduler(Fcfs(), backfill))
        assert run.outcomes["state"].to_list() == ["done"] * 3


def test_what_cannot_be_is_one_error_with_a_remedy() -> None:
    """No jobs, no machines, unknown CPU, unknown pool, a circle."""
    machines = machine.uniform(1, 1)
    with pytest.raises(SimulationError, match="no jobs"):
        schedule(trace_of(), machines, FCFS)
    with pytest.raises(SimulationError, match="give machines"):
        machine.of(trace_of({}))
    unknown = pl.DataFrame({"node": ["n"], "pool": ["p"]})
    with pytest.raises(SimulationError, match="give its cores"):
        machine.of(trace_of({}, nodes=unknown))
    with pytest.raises(SimulationError, match="known: "):
        machine.of(trace_of({}, nodes=unknown.with_columns(cpu_cores=1.0)), power={"x": Power()})
    with pytest.raises(TraceError, match="break the cycle"):
        trace_of({}, {}, edges=(("0", "1"), ("1", "0")))


@pytest.mark.parametrize("until_s", [-1.0, 0.0])
def test_a_run_without_time_is_refused(until_s: float) -> None:
    for replay in (
        lambda: schedule(trace_of({}), machine.uniform(1, 1), FCFS, until_s=until_s),
        lambda: recorded(trace_of({"start_s": 0.0}), machine.uniform(1, 1), until_s=until_s),
    ):
        with pytest.raises(UsageError, match=r"until_s=.* must be above 0 s"):
            replay()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"policy": "share"}, "policy='share' is unknown; known"),
        ({"overcommit": 0.5}, "overcommit=0.5: it must be 1 or more"),
        ({"overcommit": float("nan")}, "overcommit=nan"),
        ({"overcommit": "2"}, "overcommit='2'"),
        ({"core_mhz": 0.0}, "core_mhz=0.0: the clock of a core must be above 0"),
    ],
)
def test_what_cannot_be_shared_by_is_refused(given: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Sharing(**{"policy": "lose", **given})


def test_wrong_arguments_are_told_with_a_remedy() -> None:
    """An engine by its name, one name for a list of them, a negative number of parts, values that last for no time."""
    trace, room = trace_of({}), machine.uniform(1, 1)
    with pytest.raises(UsageError, match="engine='compiled' is no engine: give the class JobTwin or WindowTwin"):
        schedule(trace, room, FCFS, engine="compiled")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match=r"explain='0' is a text, .*: explain=\['0'\]"):
        schedule(trace, room, FCFS, explain="0")
    with pytest.raises(UsageError, match="largest=-1"):
        kpis(schedule(trace, room, FCFS), trace.jobs, largest=-1)
    for hold_s in (-1.0, 0.0):
        with pytest.raises(UsageError, match=r"hold_s=.* must last for more than 0 s"):
            grid(trace, hold_s=hold_s)


def test_who_looks_on_leaves_tables_and_changes_nothing() -> None:
    """One job runs 10 s of 25, the other waits for it; the second is explained."""
    trace = trace_of({}, {"submit_s": 5.0, "run_s": 15.0})
    plain = schedule(trace, machine.uniform(1, 1), FCFS)
    run = schedule(trace, machine.uniform(1, 1), FCFS, metered=True, explain=("1",))
    assert list(run.tables()) == ["outcomes", "placements", "job_steps", "explanations"]
    assert_frame_equal(run.outcomes, plain.outcomes)
    whole = run.watched["job_steps"].filter(entity="cluster")
    assert (whole["cpu_cores"] * whole["step_s"]).sum() == pytest.approx(25.0)
    assert (whole["waiting_jobs"] * whole["step_s"]).sum() == pytest.approx(5.0)
    assert run.watched["explanations"].select("from_s", "until_s", "what").rows() == [
        (5.0, 10.0, "waits"),
        (10.0, 10.0, "starts"),
    ]


def test_a_run_that_is_cut_is_metered_up_to_the_cut() -> None:
    """Nothing happens after the last arrival, and yet time passes."""
    run = schedule(trace_of({"run_s": 100.0}), machine.uniform(1, 1), FCFS, metered=True, until_s=40.0)
    steps = run.watched["job_steps"].filter(entity="cluster")
    assert (steps["cpu_cores"] * steps["step_s"]).sum() == pytest.approx(40.0)


def test_jobs_on_promised_cores_take_longer_or_lose_work() -> None:
    """Two jobs of one core and 10 s share one core that was promised twice: 20 s, or half of the work of each."""
    trace = trace_of({}, {})
    stretched = schedule(trace, machine.uniform(1, 1), FCFS, sharing=Sharing("stretch", 2.0))
    assert stretched.outcomes["end_s"].to_list() == [20.0, 20.0]
    longer = kpis(stretched, trace.jobs, largest=3).filter(entity="cluster")
    told = {name: longer.filter(kpi=name)["value"].item() * 3600 for name in ("asked_core_h", "stretched_h")}
    assert told == pytest.approx({"asked_core_h": 20.0, "stretched_h": 20.0})
    losing = schedule(trace, machine.uniform(1, 1), FCFS, sharing=Sharing("lose", 2.0))
    assert losing.outcomes["end_s"].to_list() == [10.0, 10.0]
    cut = schedule(trace, machine.uniform(1, 1), FCFS, sharing=Sharing("lose", 2.0), until_s=4.0)
    for run, seconds in ((losing, 10.0), (cut, 4.0)):
        assert run.shared is not None
        assert run.shared["asked_core_h"].to_list() == pytest.approx([seconds / 3600] * 2)
        assert run.shared["lost_core_h"].to_list() == pytest.approx([seconds / 7200] * 2)
        assert len(run.machines) == 1
        assert run.machines.total()[0] == 1.0, "what there is, not what was promised"
    told = kpis(losing, trace.jobs, largest=3).filter(entity="cluster")
    assert told.filter(kpi="lost_core_h")["value"].item() == pytest.approx(10.0 / 3600)
    assert "lost_core_h" not in kpis(schedule(trace, machine.uniform(1, 1), FCFS), trace.jobs, largest=3)["kpi"]


def test_what_the_compiled_engine_does_not_know_is_named() -> None:
    trace, room = trace_of({}), machine.uniform(1, 1)
    asked = [{"metered": True}, {"explain": ("0",)}, {"sharing": Sharing("lose")}]
    for more, words in zip(asked, ("metering", "explanations", "contention"), strict=True):
        with pytest.raises(UsageError, match=f"engine=compiled does not know {words}.*use engine=reference"):
            schedule(trace, room, FCFS, engine=WindowTwin, **more)
    with pytest.raises(UsageError, match="does not know displaced jobs"):
        schedule(trace, room, Scheduler(Fcfs(), Strict(), preempts=True), engine=WindowTwin)
    assert schedule(trace, room, FCFS, engine=WindowTwin).outcomes["state"].to_list() == ["done"]


def test_an_unknown_job_is_told_with_its_nearest() -> None:
    with pytest.raises(UsageError, match=r"the job 'x', which is not among the 2 jobs .* did you mean '0' or '1'"):
        schedule(trace_of({}, {}), machine.uniform(1, 1), FCFS, explain=("0", "x"))


def test_a_pool_as_one_machine_draws_what_its_machines_draw() -> None:
    rows = {"node": ["a0", "a1", "b0"], "pool": ["a", "a", "b"], "cpu_cores": [4.0, 4.0, 10.0]}
    trace = trace_of({}, nodes=tables.conform(pl.DataFrame(rows), "nodes", "t"))
    single = recorded_machines(trace, power=Power(50.0, 150.0), power_of={"b": {"full_w": 400.0}})
    assert single.power == (Power(50.0, 150.0), Power(50.0, 400.0))
    assert recorded_machines(trace, pooled=True, power=Power(50.0, 150.0)).power == (
        Power(100.0, 300.0),
        Power(50.0, 150.0),
    )
    with pytest.raises(SimulationError, match="unknown pool 'c'"):
        recorded_machines(trace, power_of={"c": {}})


def priced(*rows: tuple[str, str, float, float]) -> Trace:
    """A job of 1 h and the table `prices` from rows of zone, quantity, second, value."""
    frame = pl.DataFrame(rows, schema=["zone", "quantity", "time_s", "value"], orient="row")
    trace = trace_of({"run_s": 3600.0})
    return trace.replacing("priced", prices=tables.conform(frame.sort("zone", "quantity", "time_s"), "prices", "t"))


def test_carbon_and_cost_by_hand() -> None:
    """One machine of one core at 300 W for an hour: 0.3 kWh, at 200 g/kWh for half of it, then 400; 90 EUR/MWh."""
    trace = priced(
        *(("X", "carbon_g_kwh", 1800.0 * i, 200.0 * (i + 1)) for i in range(2)),
        *(("X", "electricity_eur_mwh", 1800.0 * i, 90.0) for i in range(2)),
    )
    run = schedule(trace, machine.uniform(1, 1), FCFS)
    told = kpis(run, trace.jobs, largest=1, grid=grid(trace, usd_eur=2.0).over(span(run))).filter(entity="cluster")
    values = dict(told.select("kpi", "value").iter_rows())
    assert values["energy_kwh"] == pytest.approx(0.3)
    assert values["carbon_kg"] == pytest.approx(0.3 * 300 / 1000)
    assert values["energy_cost_usd"] == pytest.approx(0.3 * 180 / 1000)


def test_what_the_grid_does_not_tell_is_said_and_not_scored() -> None:
    """Two zones and none chosen, prices in EUR, a series that ends early, and a trace without any."""
    carbon = [(zone, "carbon_g_kwh", 600.0 * i, 100.0) for zone in "XY" for i in range(2)]
    trace = priced(*carbon, *(("X", "electricity_eur_mwh", 600.0 * i, 90.0) for i in range(2)))
    several = grid(trace)
    assert (several.carbon, several.price) == (None, None)
    assert [words in note for words, note in zip(("the zones", "EUR"), several.missing, strict=True)] == [True, True]
    chosen = grid(trace, carbon_zone="Y")
    assert chosen.carbon is not None
    early = chosen.over((0.0, 3600.0))
    assert early.carbon is None
    assert "no value from 1200 s" in early.missing[-1]
    assert grid(trace, carbon_zone="Y", hold_s=3600.0).over((0.0, 3600.0)).carbon is not None
    with pytest.raises(UsageError, match="zone='Z'"):
        grid(trace, carbon_zone="Z")
    assert grid(trace_of({})) == Grid()


def test_same_inputs_same_tables() -> None:
    """Nothing is drawn at random."""
    rng = np.random.default_rng(3)
    jobs = [
        {"submit_s": float(s), "run_s": float(r), "cpu_cores": float(n)}
        for s, r, n in zip(rng.integers(0, 99, 80), rng.integers(0, 30, 80), rng.integers(1, 5, 80), strict=True)
    ]
    runs = [
        schedule(trace_of(*jobs), machine.uniform(3, 4), Scheduler(Fcfs(), Easy(), Capacity.fullest_first))
        for _ in range(2)
    ]
    for name in ("outcomes", "placements"):
        assert_frame_equal(runs[0].tables()[name], runs[1].tables()[name])


# -------------------------------------------------- a recorded log

needs_nasa = pytest.mark.skipif(not NASA.is_file(), reason="the NASA iPSC log is not there")


@cache
def nasa(pooled: bool, easy: bool) -> JobRun:
    """The log replayed once; its 128 processors as one machine, or as 128 with pieces of one core."""
    trace = twin.read(NASA)
    machines = machine.of(trace, pooled=True) if pooled else machine.uniform(128, 1)
    scheduler = Scheduler(Fcfs(), Easy() if easy else Strict())
    return schedule(trace, machines, scheduler, piece_cores=None if pooled else 1.0)


def rounded_slowdown(wait_s: np.ndarray, run_s: np.ndarray) -> float:
    """The mean as AccaSim takes it: each rounded to cents; with no run time the wait, or 1 where that is 0."""
    ratio = [round((w + r) / r, 2) if r > 0 else (w or 1.0) for w, r in zip(wait_s, run_s, strict=True)]
    return float(np.mean(ratio))


@needs_nasa
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "128 machines"])
@pytest.mark.parametrize(
    ("easy", "wait_s", "slowdown"), [(False, 8.00, 1.03), (True, 4.03, 1.01)], ids=["FIFO", "EASY"]
)
def test_nasa_waits_are_those_of_accasim(pooled: bool, easy: bool, wait_s: float, slowdown: float) -> None:
    """18,239 jobs on 128 processors, estimates exact; AccaSim 1.1.3, FIFO and EASY with first fit."""
    told = nasa(pooled, easy).outcomes
    assert told.height == 18_239
    assert (told["state"] == "done").all()
    waits, runs = told["wait_s"].to_numpy(), told["run_s"].to_numpy()
    assert waits.mean() == pytest.approx(wait_s, abs=0.005)
    assert rounded_slowdown(waits, runs) == pytest.approx(slowdown, abs=0.005)


@needs_nasa
def test_nasa_starts_are_those_of_the_rule() -> None:
    """FIFO: a job starts when it has arrived, all before it have started, and enough processors are free."""
    expected, free, last_s = [], 128, 0.0
    ends: list[tuple[float, int]] = []
    told = nasa(pooled=True, easy=False).outcomes
    for submit_s, run_s, cores in told.select("submit_s", "run_s", "cpu_cores").iter_rows():
        last_s = max(last_s, submit_s)
        while ends and (ends[0][0] <= last_s or free < cores):
            end_s, given = heappop(ends)
            last_s, free = max(last_s, end_s), free + given
        expected.append(last_s)
        heappush(ends, (last_s + run_s, int(cores)))
        free -= int(cores)
    assert told["start_s"].to_list() == expected
    assert nasa(pooled=False, easy=False).outcomes["start_s"].to_list() == expected


@needs_nasa
def test_nasa_on_many_machines_is_nasa_on_one() -> None:
    """One-core pieces anywhere are a pool, also where others overtake."""
    one, many = nasa(pooled=True, easy=True).outcomes, nasa(pooled=False, easy=True).outcomes
    assert one["start_s"].to_list() == many["start_s"].to_list()


def test_a_replay_with_a_calibration_sees_jobs_as_late_as_the_recording_did() -> None:
    """Every job waits at least the fitted latency; without a generator nothing can be drawn."""
    told = tuple(Estimate(f"scheduler_latency_p{q}_s", 30.0, 30.0, 30.0, "s", 9) for q in (10, 50, 90))
    fitted = Calibration("test", "0" * 64, "d", "2026-01-01T00:00:00+00:00", told)
    trace = job_log(jobs=60, days=1)
    scheduler = Scheduler(Fcfs(), Easy())
    run = schedule(trace, machine.of(trace), scheduler, calibration=fitted, rng=np.random.default_rng(0))
    assert run.outcomes["wait_s"].min() == pytest.approx(30.0)
    with pytest.raises(UsageError, match="give rng"):
        schedule(trace, machine.of(trace), scheduler, calibration=fitted)
