"""What one decision by scores costs, taking the room included."""

from __future__ import annotations

import math
import time

import numpy as np
import polars as pl
import pytest

from tests.bench.conftest import Figure, cheapest
from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling.backfill import Strict
from twin.engine.scheduling.orders import Fcfs
from twin.engine.scheduling.scored import Scored
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

pytestmark = pytest.mark.bench

JOBS, DECISIONS = 4_000, 400
MOST_US = {1_000: 60.0, 10_000: 120.0}
"""Twice what a decision may cost on an idle machine."""


def busy_twin(count: int, placement: Scored) -> JobTwin:
    """A cluster on which nine tenths of the jobs have come and most of them still run."""
    rng = np.random.default_rng(0)
    nodes = pl.DataFrame({"node": [f"n{i}" for i in range(count)], "zone": [f"z{i % 3}" for i in range(count)]})
    nodes = nodes.with_columns(pool=pl.lit("p"), cpu_cores=64.0, memory_gib=256.0, gpus=8.0)
    jobs = pl.DataFrame(
        {
            "job": [str(i) for i in range(JOBS)],
            "submit_s": np.arange(JOBS, dtype=float),
            "run_s": rng.uniform(1e3, 16.0 * count, JOBS),
            "cpu_cores": rng.choice([1.0, 2.0, 4.0, 8.0], JOBS),
            "memory_gib": rng.choice([2.0, 4.0, 8.0, 32.0], JOBS),
            "gpus": rng.choice([0.0, 0.25, 0.5, 1.0, 2.0], JOBS),
            "user": rng.choice(list("abcdef"), JOBS),
        }
    )
    machines = machine.from_nodes(tables.conform(nodes, "nodes", "bench"))
    trace = Trace(TraceInfo("bench", "made", "none", "0" * 64), {"jobs": tables.conform(jobs, "jobs", "bench")})
    twin = JobTwin(workload.estimated(workload.of(trace, machines)), machines, Scheduler(Fcfs(), Strict(), placement))
    twin.run(JOBS * 0.9 - 1.0)
    return twin


@pytest.mark.parametrize("count", list(MOST_US))
@pytest.mark.parametrize(
    "weights",
    [
        {"least_allocated": 1, "balanced_allocation": 1}, {"spread_zone": 1, "spread_node": 1},
        {"lifetime": 1}, {"random": 1}, {"gpu_packing": 1}, {"fgd": 1},
    ],
    ids="+".join,
)  # fmt: skip
def test_a_decision(figure: Figure, count: int, weights: dict[str, float]) -> None:
    """All machines of 1,000 are scored, a sample of 10,000; the floor is to add up as many numbers in NumPy."""
    placement = Scored(weights, sample_percent=100 if count == 1_000 else 0)
    twin = busy_twin(count, placement)
    twin.fork().run()  # compiles whatever is needed
    jobs = range(int(JOBS * 0.9), int(JOBS * 0.9) + DECISIONS)
    looking, capacity, free = placement.look(twin), twin.capacity, twin.capacity.free[:, 0].copy()

    spent_s, floor_s = math.inf, cheapest(lambda: [free.sum() for _ in jobs], rounds=5)[0]
    for _ in range(5):
        start_s = time.process_time()
        placed = [(job, looking.place(capacity, job, capacity.candidates(job), None)) for job in jobs]
        spent_s = min(spent_s, time.process_time() - start_s)
        for job, held in placed:
            if held is not None:
                capacity.give_back(job, held)
    figure(
        f"{' '.join(weights)}, {count} machines",
        spent_s / DECISIONS * 1e6,
        "CPU us/decision",
        floor_s * 1e6 / DECISIONS,
    )
    assert spent_s / DECISIONS * 1e6 <= MOST_US[count]
