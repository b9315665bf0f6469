"""Rules and hooks of one's own: filters, inspectors, placements of the moment, observers, suspension and pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.twin.engine.jobs.conftest import check_books, random_world, same, simple, states, twin_of
from twin.engine.jobs import machines as machine
from twin.engine.jobs import snapshot
from twin.engine.jobs.capacity import Capacity, Ordering
from twin.engine.jobs.explain import Watcher, rejections, why_waiting
from twin.engine.jobs.scheduler import Checkpoint, Outage, Scheduler
from twin.engine.jobs.simulator import RUNNING, JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Easy, Greedy, Strict
from twin.engine.scheduling.committed import Committed
from twin.engine.scheduling.conservative import Conservative
from twin.engine.scheduling.scored import Scored
from twin.errors import SimulationError

FCFS = orders.Fcfs()


@dataclass(frozen=True, slots=True)
class NotOn:
    """A machine is out of bounds until a time."""

    machine: int
    until_s: float
    name: str = "are out of bounds"

    def look(self, twin: JobTwin) -> Callable[[int], int]:
        out = 1 << self.machine if twin.now_s < self.until_s else 0
        return lambda _job: ~out


def test_a_filter_keeps_jobs_from_machines_and_is_named() -> None:
    """Machine 0 is free all the time and taken only once the rule allows it; the reason counts it."""
    scheduler = Scheduler(FCFS, Strict(), filters=(NotOn(0, 5.0),))
    twin = twin_of(simple([(0, 4, 1), (1, 4, 1), (6, 1, 1)]), machine.uniform(2, 1), scheduler)
    twin.run(1.0)
    assert {job: held[0][0] for job, held in twin.held.items()} == {0: 1}
    assert why_waiting(twin, 1) == (
        "number 1 in the queue; of 2 machines 1 are out of bounds, 1 have too few free cores"
    )
    twin.run()
    assert {job: place for job, place, *_ in twin.history} == {0: 1, 1: 1, 2: 0}


def test_the_promise_of_easy_keeps_to_the_filters() -> None:
    """The head is promised the machine that it may take, not the one that is free first."""
    scheduler = Scheduler(FCFS, Easy(), filters=(NotOn(0, 1e9),))
    jobs = simple([(0, 10, 4), (1, 10, 4), (2, 9, 2)])
    twin = twin_of(jobs, machine.uniform(2, 4), scheduler)
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 10.0, 20.0]


@dataclass(frozen=True, slots=True)
class Patient:
    """Starts nobody before a time."""

    from_s: float

    def accepts(self, twin: JobTwin, job: int) -> bool:
        if twin.now_s < self.from_s:
            twin.look_at(self.from_s)
        return twin.now_s >= self.from_s


def test_an_inspector_delays_what_was_decided_and_leaves_nothing_behind() -> None:
    """Nothing is held by a job that was not let go, and it goes as soon as it may."""
    twin = twin_of(
        simple([(0, 2, 1), (1, 2, 1)]), machine.uniform(1, 2), Scheduler(FCFS, Easy(), inspector=Patient(7.5))
    )
    twin.run(3.0)
    check_books(twin)
    assert not twin.held
    twin.run()
    assert twin.columns["start_s"].tolist() == [7.5, 7.5]


@dataclass(frozen=True, slots=True)
class Turns:
    """Each second another machine first."""

    def look(self, twin: JobTwin) -> Ordering:
        first = int(twin.now_s)

        def order(capacity: Capacity, job: int, among: int) -> Iterator[int]:
            found = list(capacity.lowest_first(job, among))
            return iter(sorted(found, key=lambda m: (m - first) % len(capacity.machines)))

        return order


def test_a_placement_may_depend_on_the_moment() -> None:
    """It is asked anew each time the scheduler looks."""
    twin = twin_of(simple([(t, 100, 1) for t in range(4)]), machine.uniform(4, 4), Scheduler(FCFS, Strict(), Turns()))
    twin.run()
    assert sorted(row[:2] for row in twin.history) == [(0, 0), (1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("discipline", [Conservative(), Committed()])
def test_a_discipline_that_cannot_displace_refuses_to(discipline: Conservative | Committed) -> None:
    """A wish that would be ignored is an error."""
    with pytest.raises(SimulationError, match="cannot keep to preempts"):
        Scheduler(FCFS, discipline, preempts=True)


def test_losses_and_displacements_are_counted_apart() -> None:
    """One retry: displaced twice and failed once it is still done, for only the failure counts."""
    jobs = simple([(0, 10, 1, 0), (1, 1, 1, 1), (3, 1, 1, 1)], columns=("submit_s", "run_s", "cpu_cores", "priority"))
    scheduler = Scheduler(FCFS, Greedy(), preempts=True, retries=1)
    twin = twin_of(jobs, machine.uniform(1, 1), scheduler, outages=(Outage(6.0, 1.0, (0,)),))
    twin.run()
    assert states(twin) == {"0": "done", "1": "done", "2": "done"}
    assert twin.columns["attempts"].tolist() == [4, 1, 1]
    assert twin.columns["losses"].tolist() == [1, 0, 0]
    assert twin.columns["end_s"].tolist() == [17.0, 2.0, 4.0]


def test_a_suspended_job_needs_only_what_is_left() -> None:
    """4 s, a pause of 3 s, then the other 6 s; it is killed at its limit of held time, not of time that passed."""
    for limit_s, state, end_s in ((100.0, "done", 13.0), (8.0, "killed", 11.0)):
        trace = simple([(0, 10, 1, limit_s)], columns=("submit_s", "run_s", "cpu_cores", "limit_s"))
        twin = twin_of(trace, machine.uniform(1, 1), Scheduler(FCFS, Strict(), inspector=Patient(0.0), kill=True))
        twin.run(4.0)
        twin = twin.fork(replace(twin.scheduler, inspector=Patient(7.0)))
        twin.suspend(0)
        assert not twin.held
        twin.look_at(4.0)

        twin.run()
        assert states(twin) == {"0": state}
        assert twin.columns["end_s"].tolist() == [end_s]


def test_a_job_gets_on_at_its_pace() -> None:
    """4 s at full pace, 4 s at half, 2 s still, then the other 4 s at full pace; its limit is of time that passes."""
    for limit_s, kill, end_s in ((100.0, True, 14.0), (9.0, True, 9.0), (9.0, False, 14.0)):
        trace = simple([(0, 10, 1, limit_s)], columns=("submit_s", "run_s", "cpu_cores", "limit_s"))
        twin = twin_of(trace, machine.uniform(1, 1), Scheduler(FCFS, Strict(), kill=kill))
        for until_s, pace in ((4.0, 0.5), (8.0, 0.0), (10.0, 1.0)):
            twin.run(until_s)
            if twin.columns["state"][0] == RUNNING:
                twin.pace(0, pace)

        twin.run()
        assert twin.columns["end_s"].tolist() == [end_s]
        assert states(twin) == {"0": "killed" if end_s == 9.0 else "done"}


def test_a_paced_job_falls_back_to_its_last_checkpoint() -> None:
    """Eight seconds at half pace are four of work: with a checkpoint after each three, three are kept."""
    trace = simple([(0, 10, 1)])
    scheduler = Scheduler(FCFS, Strict(), checkpoint=Checkpoint(3.0, 0.0))
    twin = twin_of(trace, machine.uniform(1, 1), scheduler, outages=(Outage(8.0, 0.0, (0,)),))
    twin.run(0.0)
    twin.pace(0, 0.5)

    twin.run(8.0)
    assert twin.columns["kept_s"].tolist() == [3.0]
    twin.run()
    assert twin.columns["end_s"].tolist() == [15.0]


@dataclass(frozen=True, slots=True)
class Curious:
    """A filter that allows everything and looks at the residents."""

    name: str = "are looked at"
    sees_residents: bool = True

    def look(self, twin: JobTwin) -> Callable[[int], int]:
        return lambda _job: -1


def test_residents_are_what_is_held(tmp_path: Path) -> None:
    """At any moment, after a fork and after a load as well."""
    for seed in range(12):
        world = random_world(seed)
        scheduler = replace(world.scheduler, filters=(Curious(),))
        twin = replace(world, scheduler=scheduler).twin()
        for until_s in (20.0, 60.0, 110.0):
            twin.run(until_s)
            snapshot.save(twin, tmp_path / "twin.npz")
            loaded = snapshot.load(tmp_path / "twin.npz", twin.workload, twin.machines, scheduler, world.outages)
            plain = replace(world, scheduler=world.scheduler).twin()
            plain.run(until_s)
            for each in (twin, twin.fork(), loaded, plain.fork(scheduler)):
                check_residents(each)
        assert same(twin, loaded)


def check_residents(twin: JobTwin) -> None:
    residents = twin.residents
    assert residents is not None
    lies: list[dict[int, int]] = [{} for _ in range(len(twin.machines))]
    for job, held in twin.held.items():
        for place, instances, _ in held:
            lies[place][job] = instances
    assert [dict(residents.on(m)) for m in range(len(twin.machines))] == lies
    latest_s = [max((twin.estimated_end_s(job) for job in on), default=0.0) for on in lies]
    np.testing.assert_array_equal(residents.latest_s, latest_s)


def test_a_watched_job_tells_its_waits_and_its_start() -> None:
    """Behind another, then without room, then where it started; the intervals meet and end with the start."""
    jobs = simple([(0, 10, 2), (0, 5, 3), (1, 5, 1)])
    load = twin_of(jobs, machine.uniform(1, 4), Scheduler(FCFS, Strict()))
    watcher = Watcher([2])
    twin = JobTwin(load.workload, load.machines, load.scheduler, observers=(watcher,))
    twin.run()
    told = watcher.table(twin)
    assert told.select("from_s", "until_s", "what").rows() == [(1.0, 10.0, "waits"), (10.0, 10.0, "starts")]
    assert told["reason"].to_list() == [
        "number 2 in the queue, behind 1 that go first",
        "on node-0: 1 of 1 machines had room",
    ]


def test_a_watched_job_tells_which_scores_won() -> None:
    """The machine that it starts on is the one that the sentence names."""
    scheduler = Scheduler(FCFS, Strict(), Scored({"least_allocated": 1.0, "balanced_allocation": 1.0}))
    load = twin_of(simple([(0, 10, 1), (1, 5, 1)]), machine.uniform(2, 4, 8.0), scheduler)
    watcher = Watcher([1])
    JobTwin(load.workload, load.machines, scheduler, observers=(watcher,)).run()
    (told,) = watcher.table(load)["reason"].to_list()
    assert told.startswith("on node-1: 2 of 2 machines had room; node-1 won with ")
    assert "least allocated" in told
    assert "runner-up node-0" in told


def test_watching_changes_nothing() -> None:
    """The watched twin does what the other does, and each wait is told without gaps from arrival to start."""
    for seed in range(12):
        world = random_world(seed)
        plain, watcher = world.twin(), Watcher(range(45))
        seen = JobTwin(plain.workload, world.machines, world.scheduler, outages=world.outages, observers=(watcher,))
        plain.run()
        seen.run()
        assert same(plain, seen)
        told = watcher.table(seen)
        for job in np.flatnonzero((seen.columns["attempts"] == 1) & (seen.columns["losses"] == 0)).tolist():
            mine = told.filter(job=seen.workload.names[job])
            starts, waits = mine.filter(what="starts"), mine.filter(what="waits")
            assert starts["from_s"].to_list() == [seen.columns["start_s"][job]]
            assert (
                waits["until_s"].to_list() == [*waits["from_s"].to_list()[1:], *starts["from_s"]][-waits.height :]
                or not waits.height
            )
            assert (waits["until_s"] - waits["from_s"]).sum() == seen.columns["start_s"][job] - max(
                seen.workload.submit_s[job], 0.0
            )


def test_every_machine_is_counted_once() -> None:
    """Whatever rejects it first; the rest has room."""
    twin = random_world(3).twin()
    twin.run(60.0)
    for job in range(len(twin.workload)):
        assert sum(rejections(twin, job).values()) == len(twin.machines)
