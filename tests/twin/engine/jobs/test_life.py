"""The life of a job, in small cases by hand: refused, cancelled, killed or done."""

from __future__ import annotations

import polars as pl
import pytest

from tests.twin.engine.jobs.conftest import simple, states, trace_of, twin_of
from twin.engine.jobs import machines as machine
from twin.engine.jobs import outcomes, workload
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Easy, Greedy, Strict
from twin.errors import SimulationError


def test_limits_kill_only_where_the_scheduler_kills() -> None:
    """A limit of 4 s: killed at 4 s, or done after 10 s; a job that keeps to it exactly is done."""
    trace = simple([(0, 10, 1, 4), (0, 4, 1, 4)], ("submit_s", "run_s", "cpu_cores", "limit_s"))
    for kill, expected in ((True, ["killed", "done"]), (False, ["done", "done"])):
        twin = twin_of(trace, machine.uniform(1, 2), Scheduler(orders.Fcfs(), Strict(), kill=kill))
        twin.run()
        assert list(states(twin).values()) == expected
        assert twin.columns["end_s"].tolist() == [4.0 if kill else 10.0, 4.0]


def test_an_arrival_before_second_zero_is_refused() -> None:
    """The twin begins at second 0: what arrived before it is refused by name, and others run."""
    twin = twin_of(simple([(-1, 5, 1), (0, 5, 1)]), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()))
    twin.run()
    told = outcomes.outcomes(twin)
    assert told["state"].to_list() == ["refused", "done"]
    assert "before second 0" in told["reason"][0]


def test_a_child_of_a_job_without_arrival_does_not_wait_for_ever() -> None:
    """Its parent is refused, so that it is cancelled."""
    jobs = pl.DataFrame({"job": ["a", "b"], "submit_s": [None, 0.0], "run_s": [1.0, 1.0], "cpu_cores": [1.0, 1.0]})
    trace = trace_of(jobs, dependencies=pl.DataFrame({"job": ["b"], "parent": ["a"]}))
    twin = twin_of(trace, machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()))
    twin.run()
    assert states(twin) == {"a": "refused", "b": "cancelled"}


def test_whoever_gives_up_before_room_comes_is_cancelled() -> None:
    """One that waits at its time is cancelled, one that runs by then is not."""
    jobs = pl.DataFrame(
        {
            "job": ["a", "b", "c"],
            "submit_s": [0.0, 1.0, 2.0],
            "run_s": [10.0, 5.0, 5.0],
            "cpu_cores": [1.0, 1.0, 1.0],
            "status": ["done", "cancelled", "cancelled"],
            "end_s": [10.0, 9.0, 12.0],
        }
    )
    twin = twin_of(trace_of(jobs), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()))
    twin.run()
    assert states(twin) == {"a": "done", "b": "cancelled", "c": "done"}
    assert twin.columns["end_s"].tolist() == [10.0, 9.0, 15.0]


def test_time_does_not_run_backwards() -> None:
    """The remedy is named."""
    twin = twin_of(simple([(0, 1, 1)]), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()))
    twin.run(5.0)
    with pytest.raises(SimulationError, match="fork"):
        twin.run(4.0)


def test_plans_need_estimates() -> None:
    """At the start and at a fork; the remedy is named, and a scheduler that does not plan needs none."""
    machines = machine.uniform(1, 1)
    load = workload.of(simple([(0, 1, 1)]), machines)
    with pytest.raises(SimulationError, match=r"workload\.estimated"):
        JobTwin(load, machines, Scheduler(orders.Fcfs(), Easy()))
    JobTwin(load, machines, Scheduler(orders.Fcfs(), Greedy())).run()
