"""Worlds made by hand and at random: jobs, machines, schedulers and mishaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
import simpy

from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.capacity import Capacity, Ordering
from twin.engine.jobs.machines import CPU, GPU, WHOLE_GPU, Machines
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import STATES, JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Backfill, Easy, Greedy, Strict
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

PLACEMENTS: tuple[Ordering, ...] = (Capacity.lowest_first, Capacity.fullest_first, Capacity.emptiest_first)
ORDERS: tuple[orders.Order, ...] = (
    orders.Fcfs(), orders.Sjf(), orders.Ljf(), orders.SmallestArea(), orders.EarliestDeadline(),
    orders.HighestPriority(), orders.F1(), orders.Wfp3(), orders.Unicep(),
)  # fmt: skip
BACKFILLS: tuple[Backfill, ...] = (Strict(), Greedy(), Easy())

POOLS = frozenset({"small", "gpu", "big"})
# what a job may ask for, and the pools that this leaves by hand
GPU_MODELS = {None: POOLS, "A100": frozenset({"gpu"}), "H100|A100": frozenset({"gpu"}), "H100": frozenset()}
REQUIRES = {
    None: POOLS,
    "zone=x": frozenset({"small", "big"}),
    "zone!=x": frozenset({"gpu"}),
    "tier=gold|silver": frozenset({"gpu", "big"}),
    "tier=gold,zone=x": frozenset(),
}
TOLERATES = {None: POOLS - {"big"}, "spot": POOLS, "other,spot=yes": POOLS, "spot=no": POOLS - {"big"}}


def trace_of(jobs: pl.DataFrame, **frames: pl.DataFrame) -> Trace:
    return Trace(TraceInfo("test", "made by a test", "none", "0" * 64), {"jobs": jobs, **frames})


def simple(rows: Sequence[tuple], columns: Sequence[str] = ("submit_s", "run_s", "cpu_cores")) -> Trace:
    """Jobs "0", "1", ... with these columns."""
    frame = pl.DataFrame(list(rows), schema=dict.fromkeys(columns, pl.Float64), orient="row")
    return trace_of(frame.with_columns(job=pl.int_range(pl.len()).cast(pl.String)))


def twin_of(trace: Trace, machines: Machines, scheduler: Scheduler, *, outages: Sequence[Outage] = ()) -> JobTwin:
    load = workload.estimated(workload.of(trace, machines))
    return JobTwin(load, machines, scheduler, outages=outages)


@dataclass(frozen=True, slots=True)
class World:
    trace: Trace
    machines: Machines
    scheduler: Scheduler
    outages: tuple[Outage, ...]

    def twin(self) -> JobTwin:
        return twin_of(self.trace, self.machines, self.scheduler, outages=self.outages)


def random_machines(rng: np.random.Generator) -> Machines:
    shapes = [
        {"pool": "small", "cpu_cores": 4.0, "memory_gib": 8.0, "gpus": 0.0, "zone": "x"},
        {"pool": "gpu", "cpu_cores": 8.0, "memory_gib": 16.0, "gpus": 2.0, "zone": "y", "gpu_model": "A100",
         "labels": "tier=gold"},
        {"pool": "big", "cpu_cores": 16.5, "memory_gib": None, "gpus": 1.0, "zone": "x", "taints": "spot=yes",
         "labels": "tier=silver"},
    ]  # fmt: skip
    rows = [shape for shape in shapes for _ in range(int(rng.integers(1, 4)))]
    nodes = pl.DataFrame([{"node": f"n{i}", **row} for i, row in enumerate(rows)], infer_schema_length=None)
    return machine.from_nodes(tables.conform(nodes, "nodes", "test"))


def random_trace(rng: np.random.Generator, count: int) -> Trace:
    def pick(options: Sequence, weights: Sequence[float] | None = None) -> list:
        chance = None if weights is None else np.array(weights) / sum(weights)
        return [options[i] for i in rng.choice(len(options), count, p=chance)]

    def numbers(low: int, high: int) -> list[float]:
        return rng.integers(low, high, count).astype(float).tolist()

    submit_s = np.array(numbers(0, 150))
    gives_up = rng.random(count) < 0.15
    run_s = pick([0.0, 1.0, 3.5, 10.0, 40.0, None], [1, 2, 4, 6, 3, 0.3])
    jobs = pl.DataFrame(
        {
            "job": [f"j{i}" for i in range(count)],
            "submit_s": submit_s,
            "run_s": run_s,
            "limit_s": [None if rng.random() < 0.3 else (run or 5.0) * rng.choice([0.5, 1.0, 2.0]) for run in run_s],
            "cpu_cores": pick([None, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0], [1, 3, 5, 4, 3, 2, 0.3]),
            "memory_gib": pick([None, 0.0, 1.0, 3.3, 12.0], [3, 1, 4, 3, 1]),
            "gpus": pick([0.0, 0.25, 0.5, 1.0, 1.5, 2.0], [8, 1, 1, 1, 0.3, 0.5]),
            "instances": pick([0, 1, 2, 5, 9], [0.2, 8, 2, 1, 0.5]),
            "gpu_model": pick(list(GPU_MODELS), [20, 2, 2, 0.3]),
            "requires": pick(list(REQUIRES), [20, 2, 2, 2, 0.3]),
            "tolerates": pick(list(TOLERATES), [6, 3, 3, 1]),
            "deadline_s": pick([None, 50.0, 100.0, 300.0]),
            "priority": numbers(0, 4),
            "status": ["cancelled" if each else "done" for each in gives_up],
            "end_s": np.where(gives_up, submit_s + rng.integers(0, 40, count), submit_s + 1e6),
        }
    )
    # arrivals are in no order, so that parents come before and after their children
    parents = [rng.integers(0, c, rng.choice([0, 1, 3], p=[0.75, 0.15, 0.1])) for c in range(1, count)]
    edges = [(f"j{c + 1}", f"j{p}") for c, mine in enumerate(parents) for p in sorted(set(mine.tolist()))]
    dependencies = pl.DataFrame(edges, schema={"job": pl.String, "parent": pl.String}, orient="row")
    return trace_of(jobs, dependencies=dependencies)


def random_outages(rng: np.random.Generator, count: int) -> tuple[Outage, ...]:
    return tuple(
        Outage(
            float(rng.integers(0, 150)),
            float(rng.integers(1, 30)),
            tuple(sorted(rng.choice(count, int(rng.integers(1, count + 1)), replace=False).tolist())),
            drain=bool(rng.random() < 0.5),
        )
        for _ in range(int(rng.integers(0, 6)))
    )


def random_world(seed: int, count: int = 45) -> World:
    rng = np.random.default_rng(seed)
    machines = random_machines(rng)
    scheduler = Scheduler(
        ORDERS[rng.integers(len(ORDERS))],
        BACKFILLS[rng.integers(len(BACKFILLS))],
        PLACEMENTS[rng.integers(len(PLACEMENTS))],
        kill=bool(rng.random() < 0.5),
        retries=int(rng.integers(0, 3)),
    )
    return World(random_trace(rng, count), machines, scheduler, random_outages(rng, len(machines)))


def states(twin: JobTwin) -> dict[str, str]:
    return dict(zip(twin.workload.names, (STATES[s] for s in twin.columns["state"].tolist()), strict=True))


def attempts_of(twin: JobTwin) -> dict[int, dict[float, list[tuple[int, int, float]]]]:
    """What each attempt of each job held: job -> start -> [(machine, instances, end)]."""
    found: dict[int, dict[float, list[tuple[int, int, float]]]] = defaultdict(lambda: defaultdict(list))
    for job, place_, instances, start_s, end_s in twin.history:
        found[job][start_s].append((place_, instances, end_s))
    return found


def same(one: JobTwin, other: JobTwin) -> bool:
    """Are both in the same state, with the same past?"""
    columns = all(np.array_equal(one.columns[name], other.columns[name]) for name in one.columns)
    lies = one.held == other.held and one.queue == other.queue and one.history == other.history
    room = np.array_equal(one.capacity.free, other.capacity.free) and one.capacity.devices == other.capacity.devices
    return columns and lies and room and one.now_s == other.now_s


def random_sizes(rng: np.random.Generator, count: int, widest: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "job": [str(i) for i in range(count)],
            "submit_s": np.sort(rng.integers(0, 100, count)).astype(float),
            "run_s": rng.integers(0, 40, count).astype(float),
            "cpu_cores": rng.integers(1, widest + 1, count).astype(float),
        }
    )


def check_books(twin: JobTwin) -> None:
    """What is free, device by device, is what there is less what is held."""
    free = twin.machines.capacity.copy()
    left = {m: [WHOLE_GPU] * len(devices) for m, devices in twin.capacity.devices.items()}
    for job, held in twin.held.items():
        request = twin.workload.request[job]
        for m, instances, devices in held:
            free[m] -= instances * request
            whole = -(-int(request[GPU]) // WHOLE_GPU)
            assert len(devices) == instances * whole
            for device in devices:
                left[m][device] -= min(int(request[GPU]), WHOLE_GPU)
    assert (free >= 0).all()
    assert np.array_equal(free, twin.capacity.free)
    assert {m: list(devices) for m, devices in twin.capacity.devices.items()} == left
    assert all(share >= 0 for devices in left.values() for share in devices)


# -------------------------------------------------- many jobs, and what they are measured against


def steady_log(rng: np.random.Generator, count: int, machines: Machines, load: float = 0.7) -> Trace:
    """Jobs of 1 to 16 cores and minutes to hours that keep this share of the cores busy."""
    cores = rng.choice([1.0, 2.0, 4.0, 8.0, 16.0], count, p=[0.35, 0.25, 0.2, 0.15, 0.05])
    run_s = rng.lognormal(6.0, 1.3, count)
    gap_s = (cores * run_s).mean() / (load * machines.total()[CPU])
    return trace_of(
        pl.DataFrame(
            {
                "job": pl.int_range(count, eager=True).cast(pl.String),
                "submit_s": np.cumsum(rng.exponential(gap_s, count)),
                "run_s": run_s,
                "cpu_cores": cores,
                "memory_gib": np.ceil(np.minimum(cores * rng.lognormal(1.0, 0.6, count), 128.0)),
            }
        )
    )


def crowd_log(rng: np.random.Generator, count: int, machines: Machines) -> Trace:
    """As many cores and 2 GiB for each; all arrive in the first hour and stay for days: at its end they all run."""
    jobs = steady_log(rng, count, machines).jobs
    return trace_of(
        jobs.with_columns(
            submit_s=pl.Series(np.sort(rng.uniform(0.0, 3600.0, count))),
            run_s=pl.Series(rng.uniform(1e5, 1e6, count)),
            memory_gib=2.0 * pl.col("cpu_cores"),
        )
    )


def bare_events(count: int) -> None:
    """Nothing but that many SimPy timeouts with one callback each, sixteen of them waiting at any time."""
    env = simpy.Environment()
    left = count

    def tick(_event: simpy.Event | None = None) -> None:
        nonlocal left
        if left:
            left -= 1
            timeout = env.timeout(1.0)
            assert timeout.callbacks is not None
            timeout.callbacks.append(tick)

    for _ in range(16):
        tick()
    env.run()
    assert left == 0


@pytest.fixture(scope="session")
def ended() -> list[tuple[World, JobTwin]]:
    """Thirty worlds at random, run to their end."""
    made = []
    for seed in range(30):
        world = random_world(seed)
        twin = world.twin()
        twin.run()
        made.append((world, twin))
    return made
