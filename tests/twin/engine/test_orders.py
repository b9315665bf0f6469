"""Queue disciplines: their formulas, written again by hand, and the order in which jobs then start."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import Workload
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Greedy, Strict
from twin.engine.scheduling.orders import Order
from twin.trace.trace import Trace, TraceInfo

Row = dict[str, float]
CORES = 8


def log10(value: float) -> float:
    return math.log10(value) if value > 0 else -1.0


def wfp3(row: Row, now_s: float) -> float:
    return -(((now_s - row["submit_s"]) / max(row["limit_s"], 1e-9)) ** 3) * row["cpu_cores"]


def unicep(row: Row, now_s: float) -> float:
    # the moment that is added lets the narrow and short go first among those that have just arrived
    return -(now_s - row["submit_s"] + 1e-15) / (math.log2(row["cpu_cores"]) * max(row["limit_s"], 1e-9))


FORMULAS: list[tuple[Order, Callable[[Row, float], float]]] = [
    (orders.Fcfs(), lambda row, _: row["submit_s"]),
    (orders.Sjf(), lambda row, _: row["limit_s"]),
    (orders.Ljf(), lambda row, _: -row["limit_s"]),
    (orders.SmallestArea(), lambda row, _: row["limit_s"] * row["cpu_cores"]),
    (orders.EarliestDeadline(), lambda row, _: row["deadline_s"]),
    (orders.HighestPriority(), lambda row, _: -row["priority"]),
    (orders.F1(), lambda row, _: log10(row["limit_s"]) * row["cpu_cores"] + 870 * log10(row["submit_s"])),
    (orders.Wfp3(), wfp3),
    (orders.Unicep(), unicep),
]
names = pytest.mark.parametrize(("order", "formula"), FORMULAS, ids=[type(order).__name__ for order, _ in FORMULAS])


def random_rows(seed: int, count: int = 30) -> list[Row]:
    """Wide jobs: no two of them fit on the machine together."""
    rng = np.random.default_rng(seed)
    submit_s = np.sort(rng.integers(0, 60, count))
    return [
        {
            "submit_s": float(submit_s[i]),
            "run_s": float(rng.integers(0, 12)),
            "limit_s": float(rng.integers(0, 12)),
            "cpu_cores": float(rng.integers(CORES // 2 + 1, CORES + 1)),
            "deadline_s": float(rng.integers(0, 200)),
            "priority": float(rng.integers(0, 4)),
        }
        for i in range(count)
    ]


def load_of(rows: list[Row]) -> Workload:
    frame = pl.DataFrame(rows).with_columns(job=pl.int_range(pl.len()).cast(pl.String))
    trace = Trace(TraceInfo("test", "made by a test", "none", "0" * 64), {"jobs": frame})
    return workload.estimated(workload.of(trace, machine.uniform(1, CORES)))


def one_by_one(rows: list[Row], formula: Callable[[Row, float], float]) -> list[float]:
    """Start times on a machine for one job at a time: whenever it is free, the lowest key goes, then the earliest."""
    starts, left, now_s = [math.nan] * len(rows), set(range(len(rows))), 0.0
    while left:
        waiting = [i for i in left if rows[i]["submit_s"] <= now_s]
        if not waiting:
            now_s = min(rows[i]["submit_s"] for i in left)
            continue
        chosen = min(waiting, key=lambda i: (formula(rows[i], now_s), i))
        starts[chosen] = now_s
        left.remove(chosen)
        now_s += rows[chosen]["run_s"]
    return starts


@names
def test_keys_are_the_formula(order: Order, formula: Callable[[Row, float], float]) -> None:
    """For any of the jobs, in the order in which they are asked for."""
    rows = random_rows(1)
    load, jobs = load_of(rows), np.array([7, 3, 29, 0])
    keys = order.keys(load, jobs, 100.0)
    assert keys.tolist() == pytest.approx([formula(rows[i], 100.0) for i in jobs], rel=1e-9)
    if not order.changing:
        assert np.array_equal(keys, order.keys(load, jobs, 5.0))


@names
def test_jobs_start_in_the_order(order: Order, formula: Callable[[Row, float], float]) -> None:
    """Whenever the machine is free the first of the order goes, equal ones by arrival."""
    for seed in range(5):
        rows = random_rows(seed)
        twin = JobTwin(load_of(rows), machine.uniform(1, CORES), Scheduler(order, Strict()))
        twin.run()
        assert twin.columns["start_s"].tolist() == one_by_one(rows, formula)


@names
def test_keys_are_numbers_in_every_corner(order: Order, formula: Callable) -> None:
    """No cores, no time asked, just arrived: no NaN and no warning, so that the queue stays sorted."""
    rows: list[Row] = [
        {"submit_s": s, "run_s": 1.0, "limit_s": r, "cpu_cores": n, "deadline_s": 0.0, "priority": 0.0}
        for s in (0.0, 5.0) for r in (0.0, 1.0) for n in (0.0, 0.5, 1.0, 8.0)
    ]  # fmt: skip
    keys = order.keys(load_of(rows), np.arange(len(rows)), 5.0)
    assert not np.isnan(keys).any()


def test_jobs_without_deadline_go_last() -> None:
    """And among themselves by arrival."""
    rows = random_rows(2, 4)
    for i, row in enumerate(rows):
        row.update(submit_s=0.0, run_s=1.0, deadline_s=[math.nan, 9.0, math.nan, 3.0][i])
    frame = pl.DataFrame(rows).with_columns(
        pl.col("deadline_s").fill_nan(None), job=pl.int_range(pl.len()).cast(pl.String)
    )
    trace = Trace(TraceInfo("test", "made by a test", "none", "0" * 64), {"jobs": frame})
    machines = machine.uniform(1, CORES)
    twin = JobTwin(workload.of(trace, machines), machines, Scheduler(orders.EarliestDeadline(), Strict()))
    twin.run()
    assert twin.columns["start_s"].tolist() == [2.0, 1.0, 3.0, 0.0]


@names
def test_an_order_loses_nobody_who_may_overtake(order: Order, formula: Callable) -> None:
    """With room for several at once and nobody blocking, all are served."""
    load = load_of([{**row, "cpu_cores": row["cpu_cores"] - 4.0} for row in random_rows(3)])
    twin = JobTwin(load, machine.uniform(1, CORES), Scheduler(order, Greedy()))
    twin.run()
    assert (twin.columns["end_s"] - twin.columns["start_s"]).tolist() == load.run_s.tolist()
