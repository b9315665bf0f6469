"""Running and copying jobs beside what both cannot do without: a guard against what would make them twice as slow."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable

import numpy as np

from tests.twin.engine.jobs.conftest import bare_events, crowd_log, steady_log
from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling.backfill import Strict
from twin.engine.scheduling.orders import Fcfs

BEST_FIT = Scheduler(Fcfs(), Strict(), Capacity.fullest_first)


def ratio(work: Callable[[], object], bare: Callable[[], object], rounds: int, enough: float) -> float:
    """CPU time of the work over that of the bare work: the least of each, as they take turns until it is enough."""
    least = [math.inf, math.inf]
    for _ in range(rounds):
        for place, call in enumerate((work, bare)):
            gc.collect()
            start = time.process_time()
            made = call()
            least[place] = min(least[place], time.process_time() - start)
            del made
        if least[0] <= enough * least[1]:
            break
    return least[0] / least[1]


def test_a_job_costs_few_bare_events() -> None:
    """1,000 machines, 70 % of their cores in use: a job arrives and ends, which is two events of SimPy at the least."""
    count, most = 8_000, 11.0
    machines = machine.uniform(1_000, 64.0, 256.0)
    jobs = workload.of(steady_log(np.random.default_rng(0), count, machines), machines)
    run = lambda: JobTwin(jobs, machines, BEST_FIT, history=False).run()  # noqa: E731 - what is measured
    assert ratio(run, lambda: bare_events(2 * count), 12, most) <= most


def test_a_fork_costs_little_more_than_copies() -> None:
    """20,000 running jobs: beside copies of the arrays, and of a dictionary and a list with an entry for each."""
    count, most = 20_000, 3.0
    machines = machine.uniform(2_000, 64.0, 256.0)
    twin = JobTwin(workload.of(crowd_log(np.random.default_rng(0), count, machines), machines), machines, BEST_FIT)
    twin.run(3600.0)
    assert len(twin.held) == count
    planned = [(float(job), 0, job, 1) for job in range(count)]

    def copies() -> object:
        return twin.held.copy(), planned.copy(), [column.copy() for column in twin.columns.values()]

    assert ratio(twin.fork, copies, 15, most) <= most
