"""Copies and pieces: a twin may be forked, stopped and run again, and nothing of what happens changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.twin.engine.jobs.conftest import check_books, random_world, same, simple, states, twin_of
from twin.engine.jobs import machines as machine
from twin.engine.jobs import outcomes, snapshot, workload
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Backfill, Easy, Strict
from twin.engine.scheduling.committed import Committed
from twin.engine.scheduling.conservative import Conservative
from twin.errors import SimulationError
from twin.trace import tables


def test_a_fork_changes_nothing() -> None:
    """Original and copy end alike, alike with the run that was never forked, in whatever order they go on."""
    for seed in range(200, 215):
        world = random_world(seed)
        whole, twin = world.twin(), world.twin()
        whole.run()
        rng = np.random.default_rng(seed)
        twin.run(float(rng.uniform(0, whole.now_s)))
        fork = twin.fork()
        assert same(fork, twin)
        before = twin.fork()
        fork.run()
        assert same(before, twin)
        twin.run()
        assert same(fork, whole)
        assert same(twin, whole)


def test_a_fork_of_a_fork_and_one_that_lags_behind() -> None:
    """Copies are independent both ways: the original may run away first."""
    for seed in range(230, 240):
        world = random_world(seed)
        twin = world.twin()
        twin.run(40.0)
        fork = twin.fork()
        twin.run()
        fork.run(70.0)
        second = fork.fork()
        fork.run()
        second.run()
        assert same(fork, twin)
        assert same(second, twin)


def test_a_fork_with_the_same_scheduler_given_again_changes_nothing() -> None:
    """Queue and plans are built anew, and are what they were."""
    for seed in range(310, 320):
        world = random_world(seed)
        twin = world.twin()
        twin.run(60.0)
        fork = twin.fork(world.scheduler)
        assert fork.running == twin.running
        twin.run()
        fork.run()
        assert same(fork, twin)


def test_a_fork_under_another_order_serves_the_queue_in_that_order() -> None:
    """What waits is sorted anew."""
    trace = simple([(0, 10, 1), (1, 9, 1), (2, 5, 1), (3, 2, 1)])
    twin = twin_of(trace, machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()))
    twin.run(4.0)
    fork = twin.fork(Scheduler(orders.Sjf(), Easy()))
    fork.run()
    twin.run()
    assert twin.columns["start_s"].tolist() == [0, 10, 19, 24]
    assert fork.columns["start_s"].tolist() == [0, 17, 12, 10]


def test_a_fork_that_begins_to_kill_tells_the_truth_about_what_runs() -> None:
    """Killed means ended at the limit, done means ended after the run time, also across the change."""
    trace = simple([(0, 10, 1, 4)], ("submit_s", "run_s", "cpu_cores", "limit_s"))
    for first, then in ((False, True), (True, False)):
        scheduler = Scheduler(orders.Fcfs(), Strict(), kill=first)
        twin = twin_of(trace, machine.uniform(1, 1), scheduler)
        twin.run(1.0)
        fork = twin.fork(replace(scheduler, kill=then))
        fork.run()
        assert (states(fork)["0"], float(fork.columns["end_s"][0])) in {("done", 10.0), ("killed", 4.0)}


def test_a_fork_to_a_scheduler_that_plans_needs_estimates_too() -> None:
    """The same refusal as at the start."""
    machines = machine.uniform(1, 1)
    twin = JobTwin(workload.of(simple([(0, 1, 1)]), machines), machines, Scheduler(orders.Fcfs(), Strict()))
    with pytest.raises(SimulationError, match=r"workload\.estimated"):
        twin.fork(Scheduler(orders.Fcfs(), Easy()))


def test_running_in_pieces_is_running_at_once() -> None:
    """The moments at which one stops to look change nothing; a moment on an event counts it in."""
    for seed in range(250, 262):
        world = random_world(seed)
        whole, twin = world.twin(), world.twin()
        whole.run()
        rng = np.random.default_rng(seed)
        last_s = int(whole.now_s)
        for until_s in np.sort(np.concatenate([rng.uniform(0, last_s, 10), rng.integers(0, last_s, 10)])):
            twin.run(float(until_s))
            assert twin.now_s == until_s
            check_books(twin)
        twin.run(whole.now_s)
        assert same(twin, whole)


def test_same_inputs_same_bytes(tmp_path) -> None:
    """Both tables, written twice."""
    for name in ("one", "other"):
        twin = random_world(300).twin()
        twin.run()
        tables.write(outcomes.outcomes(twin), tmp_path / f"{name}-outcomes.parquet")
        tables.write(outcomes.placements(twin), tmp_path / f"{name}-placements.parquet")
    for table in ("outcomes", "placements"):
        assert (tmp_path / f"one-{table}.parquet").read_bytes() == (tmp_path / f"other-{table}.parquet").read_bytes()


def test_without_history_the_twin_ends_alike() -> None:
    """What lay where is all that is missing."""
    world = random_world(400)
    load = workload.estimated(workload.of(world.trace, world.machines))
    twins = [
        JobTwin(load, world.machines, world.scheduler, outages=world.outages, history=history)
        for history in (True, False)
    ]
    for twin in twins:
        twin.run()
    assert all(np.array_equal(twins[0].columns[name], twins[1].columns[name]) for name in twins[0].columns)
    assert not twins[1].history
    assert twins[0].history


@pytest.mark.parametrize("discipline", [Conservative(), Committed(), Committed(fill=False)])
def test_disciplines_that_remember_are_saved_with_what_they_remember(discipline: Backfill, tmp_path: Path) -> None:
    """Saved and loaded at any moment, the reservations and the elected job are the same, and so is what follows."""
    for seed in range(6):
        world = random_world(seed)
        world = replace(world, scheduler=replace(world.scheduler, backfill=discipline, order=orders.Fcfs()))
        straight = world.twin()
        straight.run()
        twin = world.twin()
        for until_s in (30.0, 70.0, 110.0, 150.0):
            twin.run(until_s)
            snapshot.save(twin, tmp_path / "twin.npz")
            twin = snapshot.load(tmp_path / "twin.npz", twin.workload, twin.machines, twin.scheduler, world.outages)
        twin.run()
        assert same(straight, twin)
