"""What jobs in the twin cost beside SimPy's own event loop: running, copying, keeping and telling.

AccaSim 1.1.3, a simulator of job dispatchers in Python, replays the 18,239 jobs of NASA iPSC at 7,000 to 7,300 jobs per
CPU second under FIFO and at 7,500 to 7,700 under EASY (2 virtual cores of an AMD EPYC, where bare SimPy processes about
1.7 million events in a second). It is nothing that this project needs, so nothing here runs it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import twin
from tests.bench.conftest import Figure, cheapest
from tests.twin.engine.jobs.conftest import bare_events, crowd_log, steady_log
from twin.engine.jobs import machines as machine
from twin.engine.jobs import outcomes, snapshot, workload
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import DONE, JobTwin
from twin.engine.jobs.window import WindowTwin
from twin.engine.scheduling.backfill import Easy, Strict
from twin.engine.scheduling.orders import Fcfs

pytestmark = pytest.mark.bench

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT.parent / "shared" / "data" / "swf-pwa"
NASA, KTH = LOGS / "NASA-iPSC-1993-3.1-cln.swf.gz", LOGS / "KTH-SP2" / "log.swf"
MACHINE_CORES, MACHINE_GIB = 64.0, 256.0
BEST_FIT = Scheduler(Fcfs(), Strict(), Capacity.fullest_first)
CROWD = 100_000
EVENTS_A_JOB = 2  # it arrives and it ends
RULES = {"FIFO": Strict(), "EASY": Easy()}
Engine = type[JobTwin] | type[WindowTwin]


def cluster(nodes: int) -> Machines:
    return machine.uniform(nodes, MACHINE_CORES, MACHINE_GIB)


def to_its_end(engine: Engine, jobs: workload.Workload, machines: Machines, scheduler: Scheduler) -> Callable[[], None]:
    """A whole run from the empty cluster on, to be measured."""
    if engine is WindowTwin:
        WindowTwin(jobs, machines, scheduler).run(0.0)  # compiles

    def work() -> None:
        twin_ = engine(jobs, machines, scheduler)
        twin_.run()
        assert (twin_.columns["state"] == DONE).all()

    return work


def beside_simpy(work: Callable[[], None], jobs: int) -> tuple[float, float]:
    """CPU seconds of the work, and of SimPy alone for the events that so many jobs cannot do without."""
    spent_s, bare_s = cheapest(work, lambda: bare_events(EVENTS_A_JOB * jobs))
    return spent_s, bare_s


# -------------------------------------------------- jobs per CPU second


@pytest.mark.parametrize(("nodes", "count", "most"), [(1_000, 60_000, 20.0), (10_000, 100_000, 40.0)])
def test_jobs_per_cpu_second(figure: Figure, nodes: int, count: int, most: float) -> None:
    """FCFS and best fit on equal machines, 70 % of the cores in use; the aims are 100,000 and 60,000."""
    machines = cluster(nodes)
    jobs = workload.of(steady_log(np.random.default_rng(0), count, machines), machines)
    spent_s, bare_s = beside_simpy(to_its_end(JobTwin, jobs, machines, BEST_FIT), count)
    name = f"jobs: {count:,} on {nodes:,} machines"
    assert figure(name, count / spent_s, "jobs / CPU s", count / bare_s, more_is_better=True) <= most


@pytest.mark.skipif(not NASA.is_file(), reason="the NASA iPSC log is not there")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("engine", "pooled", "most"),
    [(JobTwin, True, 15.0), (JobTwin, False, 60.0), (WindowTwin, True, 4.0), (WindowTwin, False, 10.0)],
    ids=["pooled", "128 machines", "compiled, pooled", "compiled, 128 machines"],
)
def test_the_log_that_accasim_replays(figure: Figure, engine: Engine, pooled: bool, most: float, rule: str) -> None:
    """NASA iPSC on 128 processors, one machine or 128 of them; the facts about AccaSim are at the top."""
    trace = twin.read(NASA)
    machines = machine.of(trace, pooled=True) if pooled else machine.uniform(128, 1)
    jobs = workload.estimated(workload.of(trace, machines, piece_cores=None if pooled else 1.0))
    scheduler = Scheduler(Fcfs(), RULES[rule])
    spent_s, bare_s = beside_simpy(to_its_end(engine, jobs, machines, scheduler), len(jobs))
    name = f"jobs: NASA, {rule}, {len(machines)} machines, {engine.__name__}"
    assert figure(name, len(jobs) / spent_s, "jobs / CPU s", len(jobs) / bare_s, more_is_better=True) <= most


@pytest.mark.skipif(not KTH.is_file(), reason="the KTH SP2 log is not there")
def test_a_year_of_a_log_with_estimates(figure: Figure) -> None:
    """KTH-SP2, 28,489 jobs under EASY with what their owners asked for."""
    trace = twin.read(KTH)
    machines = machine.of(trace, pooled=True)
    jobs = workload.estimated(workload.of(trace, machines))

    def work() -> None:
        JobTwin(jobs, machines, Scheduler(Fcfs(), Easy())).run()

    spent_s, bare_s = beside_simpy(work, len(jobs))
    assert figure("jobs: KTH-SP2 under EASY", spent_s, "CPU s", bare_s) <= 60.0


# -------------------------------------------------- copies, files and memory


@pytest.fixture(scope="module")
def crowd() -> JobTwin:
    """100,000 jobs that all run, on 10,000 machines."""
    machines = cluster(10_000)
    jobs = workload.of(crowd_log(np.random.default_rng(0), CROWD, machines), machines)
    twin_ = JobTwin(jobs, machines, BEST_FIT)
    twin_.run(3600.0)
    assert len(twin_.held) == CROWD
    return twin_


def median_ms(call: Callable[[], object], rounds: int) -> float:
    spent = []
    for _ in range(rounds):
        start = time.process_time_ns()
        made = call()
        spent.append((time.process_time_ns() - start) / 1e6)
        del made
    return statistics.median(spent)


def test_a_fork_of_a_crowd(figure: Figure, crowd: JobTwin) -> None:
    """What if, from now; the floor is a copy of what holds 100,000 jobs at the least, the aim 5 ms."""
    planned = sorted((float(end_s), 0, job, 1) for job, end_s in enumerate(crowd.columns["start_s"]))

    def bare_copy() -> object:
        return crowd.held.copy(), planned.copy(), [column.copy() for column in crowd.columns.values()]

    fork_ms, bare_ms = median_ms(crowd.fork, 25), median_ms(bare_copy, 25)
    assert figure("jobs: a fork, 100,000 run on 10,000 machines", fork_ms, "CPU ms", bare_ms) <= 8.0


def test_a_crowd_as_a_file(figure: Figure, crowd: JobTwin, tmp_path: Path) -> None:
    """Written and read again; the floor is NumPy's own writing and reading of the same arrays."""
    path, bare = tmp_path / "twin.npz", tmp_path / "bare.npz"

    def read(file: Path) -> dict[str, np.ndarray]:
        with np.load(file) as arrays:
            return dict(arrays)

    save_ms = median_ms(lambda: snapshot.save(crowd, path), 3)
    load_ms = median_ms(lambda: snapshot.load(path, crowd.workload, crowd.machines, BEST_FIT), 3)
    arrays = read(path)
    bare_save_ms = median_ms(lambda: np.savez(bare, allow_pickle=False, **arrays), 5)
    bare_load_ms = median_ms(lambda: read(path), 5)
    saving = figure("jobs: the same twin saved", save_ms, "CPU ms", bare_save_ms)
    loading = figure("jobs: the same twin loaded", load_ms, "CPU ms", bare_load_ms)
    assert saving <= 60.0
    assert loading <= 200.0


MEMORY_CODE = """
import json, re, sys
from pathlib import Path
import numpy as np
from tests.twin.engine.jobs.conftest import crowd_log
from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.simulator import JobTwin, Scheduler
from twin.engine.scheduling.backfill import Strict
from twin.engine.scheduling.orders import Fcfs

machines = machine.uniform(10_000, 64.0, 256.0)
trace = crowd_log(np.random.default_rng(0), int(sys.argv[1]), machines)
twin = JobTwin(workload.of(trace, machines), machines, Scheduler(Fcfs(), Strict(), Capacity.fullest_first))
twin.run(3600.0)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({"running": len(twin.held), "peak_mb": int(peak.group(1)) * 1024 / 1e6}))
"""


def test_memory_of_a_crowd(figure: Figure) -> None:
    """Log, twin and all that is held: the peak of a process with 100,000 running jobs beyond that with one."""
    peak_mb = {}
    for count in (1, CROWD):
        command = [sys.executable, "-c", MEMORY_CODE, str(count)]
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=settings, check=True)
        told = json.loads(done.stdout)
        assert told["running"] == count
        peak_mb[count] = told["peak_mb"]
    # the aim takes the place of a floor
    assert figure("jobs: memory of 100,000 that run (floor: aim)", peak_mb[CROWD] - peak_mb[1], "MB", 150.0) <= 1.0


# -------------------------------------------------- tables


def test_what_became_of_the_jobs_as_tables(figure: Figure) -> None:
    """`outcomes` and `placements` of 100,000 jobs that ended; a row at the cost of at most two bare events."""
    machines = cluster(1_000)
    jobs = workload.of(steady_log(np.random.default_rng(0), CROWD, machines), machines)
    twin_ = JobTwin(jobs, machines, BEST_FIT)
    twin_.run()
    rows = outcomes.outcomes(twin_).height + outcomes.placements(twin_).height
    assert rows == 2 * CROWD

    def work() -> None:
        outcomes.outcomes(twin_)
        outcomes.placements(twin_)

    spent_s, bare_s = cheapest(work, lambda: bare_events(rows))
    assert figure("jobs: a row of outcomes or placements", 1e6 * spent_s / rows, "us CPU", 1e6 * bare_s / rows) <= 2.0
