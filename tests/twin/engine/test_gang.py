"""Time slices: turns are fair, work is neither lost nor made, and all instances of a job run together."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines, snapshot, workload
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import DONE, JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Strict
from twin.engine.scheduling.gang import TimeSlices
from twin.errors import SimulationError, UsageError
from twin.trace.trace import Trace, TraceInfo


def trace(rows: list[dict]) -> Trace:
    jobs = pl.DataFrame([{"job": str(i), "cpu_cores": 1.0, **row} for i, row in enumerate(rows)])
    return Trace(TraceInfo("made", "made", "none", "0" * 64), {"jobs": jobs})


def twin_of(
    rows: list[dict], slices: TimeSlices, park: Machines | None = None, outages: tuple[Outage, ...] = ()
) -> JobTwin:
    park = park or machines.uniform(5, 1.0, 8.0)
    return JobTwin(workload.of(trace(rows), park), park, Scheduler(orders.Fcfs(), slices), outages=outages)


def wide(nodes: int, run_s: float = 300.0, submit_s: float = 0.0, **more: float) -> dict:
    return {"submit_s": submit_s, "run_s": run_s, "instances": nodes, **more}


def stretches(twin: JobTwin, job: int) -> dict[tuple[float, float], list[tuple[int, int]]]:
    """(from, until) -> [(machine, instances)]."""
    found: dict[tuple[float, float], list[tuple[int, int]]] = {}
    for other, machine, count, start_s, end_s in twin.history:
        if other == job:
            found.setdefault((start_s, end_s), []).append((machine, count))
    return found


def crowd(seed: int, count: int = 60) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "submit_s": float(submit_s),
            "run_s": float(rng.integers(0, 400)),
            "instances": int(rng.integers(1, 5)),
            "cpu_cores": float(rng.choice([0.5, 1.0])),
            "memory_gib": float(rng.integers(0, 4)),
        }
        for submit_s in np.sort(rng.integers(0, 3000, count))
    ]


def test_two_jobs_that_fill_the_cluster_take_turns() -> None:
    """As in the documented example; both take twice their time and end within one slice of each other."""
    twin = twin_of([wide(5), wide(5)], TimeSlices())
    twin.run()
    assert list(stretches(twin, 0))[:2] == [(0.0, 30.0), (60.0, 90.0)]
    assert list(stretches(twin, 1))[:2] == [(30.0, 60.0), (90.0, 120.0)]
    assert twin.columns["end_s"].tolist() == [570.0, 600.0]


def test_who_shares_with_nobody_runs_on() -> None:
    """The second documented example: of jobs of 3, 2 and 3 of 5 nodes the first and the third take turns."""
    twin = twin_of([wide(3), wide(2), wide(3)], TimeSlices())
    twin.run()
    assert list(stretches(twin, 1)) == [(0.0, 300.0)]
    assert list(stretches(twin, 0))[:2] == [(0.0, 30.0), (60.0, 90.0)]
    assert list(stretches(twin, 2))[:2] == [(30.0, 60.0), (90.0, 120.0)]


def test_the_rotation_fills_up_behind_a_job_that_does_not_fit() -> None:
    """The third documented example, of 3, 5 and 2 nodes: the third runs beside the first until the second's turn."""
    twin = twin_of([wide(3), wide(5), wide(2)], TimeSlices())
    twin.run(100.0)
    assert list(stretches(twin, 0)) == list(stretches(twin, 2)) == [(0.0, 30.0), (60.0, 90.0)]
    assert list(stretches(twin, 1)) == [(30.0, 60.0)]
    assert set(twin.held) == {1}


def test_no_turn_changes_while_nobody_waits() -> None:
    """Each job is started once, and the second waits for its turn only while the first is there."""
    twin = twin_of([wide(5, 95.0), wide(2, 300.0, 200.0), wide(3, 400.0, 250.0)], TimeSlices())
    twin.run()
    assert twin.columns["attempts"].tolist() == [1, 1, 1]
    assert twin.columns["start_s"].tolist() == [0.0, 200.0, 250.0]
    twin = twin_of([wide(5, 95.0), wide(5, 10.0, 92.0)], TimeSlices())
    twin.run()
    assert twin.columns["end_s"].tolist() == [95.0, 105.0]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_at_most_so_many_share(most: int) -> None:
    """Four equal jobs: the first `most` of them take turns, the next enters when one has ended."""
    twin = twin_of([wide(5) for _ in range(4)], TimeSlices(most=most))
    twin.run(290.0)
    assert int((twin.columns["start_s"] >= 0).sum()) == most
    twin.run()
    assert twin.columns["ran_s"].tolist() == [300.0] * 4
    assert twin.columns["end_s"].max() == 1200.0


def test_suspended_jobs_stay_in_memory() -> None:
    """Machines of 8 GiB: a third job of 3 GiB would have room for its turn, but not for its memory."""
    rows = [wide(5, memory_gib=3.0) for _ in range(3)]
    twin = twin_of(rows, TimeSlices(most=3))
    twin.run(200.0)
    assert twin.columns["first_start_s"].tolist() == [0.0, 30.0, -1.0]
    # a narrow job finds a free core while the others are suspended, and no memory either
    twin = twin_of([wide(5, memory_gib=5.0), wide(1, memory_gib=4.0)], TimeSlices())
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 300.0]


@pytest.mark.parametrize("seed", range(6))
def test_work_is_conserved_and_all_instances_run_together(seed: int) -> None:
    """Held time is run time; a job resumes where it entered; nobody holds more than there is, and memory never."""
    twin = twin_of(crowd(seed), TimeSlices(slice_s=20.0, most=3))
    twin.run()
    done = twin.columns["state"] == DONE
    assert done.sum() > 50
    assert np.allclose(twin.columns["ran_s"], twin.workload.run_s)
    assert np.array_equal(twin.capacity.free, twin.machines.capacity)
    assert twin.columns["attempts"].max() > 1
    for job in range(len(twin.workload)):
        places = list(stretches(twin, job).values())
        assert all(sum(count for _, count in place) == twin.workload.instances[job] for place in places)
        assert all(sorted(place) == sorted(places[0]) for place in places)
    slices = [end_s for job in range(len(done)) for _, end_s in list(stretches(twin, job))[:-1]]
    assert all(end_s % 20.0 == 0.0 for end_s in slices)


@pytest.mark.parametrize("seed", range(4))
def test_everyone_who_entered_has_a_turn(seed: int) -> None:
    """Nobody waits longer between two turns than all others of the rotation take."""
    rows = [wide(int(n), 600.0) for n in np.random.default_rng(seed).integers(1, 6, 9)]
    twin = twin_of(rows, TimeSlices(most=4))
    twin.run()
    for job in range(len(rows)):
        mine = sorted(stretches(twin, job))
        gaps = [begin - end for (_, end), (begin, _) in pairwise(mine)]
        assert max(gaps, default=0.0) <= 30.0 * (len(rows) - 1)


def test_who_is_suspended_while_its_machine_fails_enters_elsewhere() -> None:
    """Nothing is lost but the work of those who ran there."""
    park = machines.uniform(2, 1.0)
    rows = [{"submit_s": 0.0, "run_s": 100.0} for _ in range(4)]
    twin = twin_of(rows, TimeSlices(), park, (Outage(45.0, 10_000.0, (0,)),))
    twin.run()
    assert (twin.columns["state"] == DONE).all()
    assert twin.columns["end_s"].max() <= 1000.0
    assert all(machine == 1 for _, machine, _, start_s, _ in twin.history if start_s > 45.0)


def test_a_drained_machine_lets_those_who_run_there_finish() -> None:
    """Whoever runs is not suspended, since it could not resume; who shared with it moves."""
    park = machines.uniform(2, 1.0)
    rows = [{"submit_s": 0.0, "run_s": 100.0} for _ in range(4)]
    twin = twin_of(rows, TimeSlices(), park, (Outage(45.0, 10_000.0, (0,), drain=True),))
    twin.run()
    assert (twin.columns["state"] == DONE).all()
    assert twin.columns["ran_s"].tolist() == [100.0] * 4


def test_a_fork_to_it_takes_in_those_who_run() -> None:
    """Jobs that another discipline started take turns with those who waited."""
    park = machines.uniform(5, 1.0)
    twin = JobTwin(
        workload.of(trace([wide(5), wide(5), wide(5, 300.0, 110.0)]), park), park, Scheduler(orders.Fcfs(), Strict())
    )
    twin.run(100.0)
    fork = twin.fork(Scheduler(orders.Fcfs(), TimeSlices()))
    fork.run()
    assert fork.columns["ran_s"].tolist() == [300.0] * 3
    assert fork.columns["end_s"].max() == 900.0
    assert fork.columns["attempts"].min() > 1


def test_a_fork_and_a_saved_twin_go_on_as_the_twin_does(tmp_path: Path) -> None:
    park = machines.uniform(5, 1.0, 8.0)
    load = workload.of(trace(crowd(9)), park)
    scheduler = Scheduler(orders.Fcfs(), TimeSlices(slice_s=20.0, most=3))
    twin = JobTwin(load, park, scheduler)
    twin.run(1234.0)
    fork = twin.fork()
    snapshot.save(twin, tmp_path / "twin.npz")
    loaded = snapshot.load(tmp_path / "twin.npz", load, park, scheduler)
    for each in (twin, fork, loaded):
        each.run()
    for other in (fork, loaded):
        assert np.array_equal(twin.columns["end_s"], other.columns["end_s"])
        assert twin.history == other.history


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="slice_s=0"):
        TimeSlices(slice_s=0.0)
    with pytest.raises(UsageError, match="most=0"):
        TimeSlices(most=0)
    with pytest.raises(SimulationError, match="TimeSlices"):
        Scheduler(orders.Fcfs(), TimeSlices(), preempts=True)
