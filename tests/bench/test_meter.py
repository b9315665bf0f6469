"""What it costs to meter a cluster while it runs, beside the same run without a meter."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.bench.conftest import Figure, cheapest
from twin.engine.jobs import machines as machines_
from twin.engine.jobs import workload as workload_
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.meter import Meter
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import Workload
from twin.engine.scheduling.backfill import Easy, Strict
from twin.engine.scheduling.orders import Fcfs
from twin.trace.trace import Trace, TraceInfo

pytestmark = pytest.mark.bench

MACHINE_CORES, MACHINE_GIB = 64.0, 256.0


def synthetic(count: int, machines: Machines, load: float) -> Workload:
    """Jobs of one instance that ask for that share of all cores."""
    rng = np.random.default_rng(0)
    cores = rng.choice([1.0, 2.0, 4.0, 8.0, 16.0], count, p=[0.35, 0.25, 0.2, 0.15, 0.05])
    run_s = rng.lognormal(6.0, 1.3, count)
    gap_s = cores.mean() * run_s.mean() / (load * MACHINE_CORES * len(machines))
    jobs = pl.DataFrame(
        {
            "job": [str(i) for i in range(count)],
            "submit_s": np.cumsum(rng.exponential(gap_s, count)),
            "run_s": run_s,
            "cpu_cores": cores,
            "memory_gib": np.minimum(cores * rng.lognormal(1.0, 0.6, count), 128.0),
        }
    )
    trace = Trace(TraceInfo("synthetic", "made by a measurement", "none", "0" * 64), {"jobs": jobs})
    return workload_.estimated(workload_.of(trace, machines))


@pytest.mark.parametrize(
    ("nodes", "count", "load", "backfill"),
    [(1_000, 20_000, 0.7, Strict()), (10_000, 20_000, 0.7, Strict()), (100, 5_000, 1.1, Easy())],
)
def test_a_run_with_a_meter(figure: Figure, nodes: int, count: int, load: float, backfill: Strict | Easy) -> None:
    """The floor is the run without one; per look of the scheduler it costs about the same at every size."""
    machines = machines_.uniform(nodes, MACHINE_CORES, MACHINE_GIB)
    jobs = synthetic(count, machines, load)
    scheduler = Scheduler(Fcfs(), backfill, Capacity.fullest_first)
    looks = 2 * count

    def run(*observers: Meter) -> None:
        JobTwin(jobs, machines, scheduler, observers=observers, history=False).run()

    run(Meter())  # compiles
    with_s, without_s = cheapest(lambda: run(Meter()), run)
    name = f"twin of jobs, {nodes:,} nodes, load {load:g}"
    ratio = figure(f"{name}, metered", 1e6 * with_s / looks, "us CPU a look", 1e6 * without_s / looks)
    figure(f"{name}, the meter alone", 1e6 * (with_s - without_s) / looks, "us CPU a look", 1e6 * without_s / looks)
    assert ratio <= 4.0
