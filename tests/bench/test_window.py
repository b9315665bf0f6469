"""What the fast engine of jobs costs: synthetic jobs on many machines, and a recorded log of months in one go."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import twin
from tests.bench.conftest import Figure
from twin.engine.jobs import machines as machines_
from twin.engine.jobs import workload as workload_
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.machines import UNITS, Machines
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import DONE
from twin.engine.jobs.window import WindowTwin
from twin.engine.jobs.workload import Workload
from twin.engine.scheduling.backfill import Easy, Strict
from twin.engine.scheduling.orders import Fcfs

pytestmark = pytest.mark.bench

RICC = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "swf-pwa" / "RICC-2010-2.swf.gz"
MACHINE_CORES, MACHINE_GIB, LOAD = 64.0, 256.0, 0.7


def synthetic(count: int, machines: Machines) -> Workload:
    """Jobs of one instance that use 70 % of the cores."""
    rng = np.random.default_rng(0)
    cores = rng.choice([1.0, 2.0, 4.0, 8.0, 16.0], count, p=[0.35, 0.25, 0.2, 0.15, 0.05])
    memory = np.minimum(cores * rng.lognormal(1.0, 0.6, count), 128.0)
    run_s = rng.lognormal(6.0, 1.3, count)
    gap_s = cores.mean() * run_s.mean() / (LOAD * MACHINE_CORES * len(machines))
    zeros, never = np.zeros(count, dtype=np.int64), np.full(count, np.inf)
    return Workload(
        names=pl.int_range(count, eager=True).cast(pl.String),
        submit_s=np.cumsum(rng.exponential(gap_s, count)),
        request=(np.column_stack([cores, memory, np.zeros(count)]) * UNITS).astype(np.int64),
        instances=zeros + 1,
        limit_s=run_s,
        priority=np.zeros(count),
        deadline_s=never,
        user=zeros,
        users=("u",),
        group=np.zeros(count, dtype=np.int64),
        groups=("",),
        queue=pl.repeat("", count, eager=True),
        fits_kind=np.ones((1, len(machines.kinds)), dtype=bool),
        job_class=zeros,
        refused=("",) * count,
        run_s=run_s,
        cancel_s=never,
        parents=zeros,
        children=(np.zeros(count + 1, dtype=np.int64), zeros[:0]),
    )


def spent_s(workload: Workload, machines: Machines, scheduler: Scheduler) -> float:
    """CPU seconds of the whole run."""
    fast = WindowTwin(workload, machines, scheduler)
    fast.fork().run(0.0)  # compiles
    begin_s = time.process_time()
    fast.run()
    spent = time.process_time() - begin_s
    assert (fast.columns["state"] == DONE).all()
    return spent


@pytest.mark.parametrize(
    ("nodes", "count", "aim"), [(1_000, 60_000, 1.5e6), (1_000, 1_000_000, 1.5e6), (10_000, 400_000, 5e5)]
)
def test_jobs_per_cpu_second(figure: Figure, nodes: int, count: int, aim: float):
    """FCFS and best fit on equal machines; the floor is the aim."""
    machines = machines_.uniform(nodes, MACHINE_CORES, MACHINE_GIB)
    workload = synthetic(count, machines)
    scheduler = Scheduler(Fcfs(), Strict(), Capacity.fullest_first)
    rate = count / min(spent_s(workload, machines, scheduler) for _ in range(3))
    assert figure(f"window: {count:,} jobs, {nodes:,} machines", rate, "jobs/CPU-s", aim, more_is_better=True) < 4.0


@pytest.mark.skipif(not RICC.exists(), reason="the log RICC-2010-2 is not there")
def test_a_log_of_months_under_easy(figure: Figure):
    """RICC's 447,794 jobs in one go with EASY; the floor is the aim of a minute, and 1,024 MB at the most."""
    trace = twin.read(str(RICC))
    machines = machines_.of(trace, pooled=True)
    workload = workload_.estimated(workload_.of(trace, machines))
    # the engine is measured on jobs that nobody withdraws
    workload = replace(workload, cancel_s=np.full(len(workload), np.inf))
    easy_s = spent_s(workload, machines, Scheduler(Fcfs(), Easy()))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    figure("window: RICC under EASY, peak memory of all", peak_mb, "MB", 1024.0)
    assert figure("window: RICC under EASY", easy_s, "CPU-s", 60.0) < 4.0
