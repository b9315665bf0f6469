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
from twin.engine.jobs import machines as machine
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.machines import Power
from twin.engine.jobs.simulator import Outage, Scheduler
from twin.engine.scheduling.backfill import Backfill, Easy, Greedy, Strict
from twin.engine.scheduling.orders import Fcfs, Sjf
from twin.errors import SimulationError, TraceError
from twin.scheduling import JobRun, schedule
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
    """No jobs, no machines, unknown CPU, unknown pool, a horizon before the start, a circle."""
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
    with pytest.raises(SimulationError, match="before now"):
        schedule(trace_of({}), machines, FCFS, until_s=-1.0)
    with pytest.raises(TraceError, match="break the cycle"):
        trace_of({}, {}, edges=(("0", "1"), ("1", "0")))


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
