"""Rules that meet: what each alone does right, they must do together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.twin.engine.jobs.conftest import check_books, random_world, same, simple, states, trace_of, twin_of
from twin.engine.jobs import machines as machine
from twin.engine.jobs import snapshot, workload
from twin.engine.jobs.explain import Watcher, why_waiting
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Checkpoint, Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.admission import Quota, Windows
from twin.engine.scheduling.backfill import Backfill, Easy, Greedy, Strict
from twin.engine.scheduling.committed import Committed
from twin.engine.scheduling.conservative import Conservative
from twin.engine.scheduling.filters import AntiAffinity, Reservation, Spread
from twin.engine.scheduling.gang import TimeSlices
from twin.engine.scheduling.scored import Scored
from twin.errors import SimulationError

FCFS = orders.Fcfs()
ONE = machine.uniform(1, 4)


def jobs_of(*rows: tuple[float, float, float, str], **columns: list) -> pl.DataFrame:
    """Jobs of (arrival, run time, cores, user)."""
    frame = pl.DataFrame(list(rows), schema=["submit_s", "run_s", "cpu_cores", "user"], orient="row")
    return frame.with_columns(
        job=pl.int_range(pl.len()).cast(pl.String), **{n: pl.Series(v) for n, v in columns.items()}
    )


def ran(jobs: pl.DataFrame, machines: Machines, scheduler: Scheduler, outages: tuple[Outage, ...] = ()) -> JobTwin:
    twin = twin_of(trace_of(jobs), machines, scheduler, outages=outages)
    twin.run()
    check_books(twin)
    return twin


def test_a_suspended_job_makes_room_in_its_quota_once() -> None:
    """Who is resumed within the very look that suspended another does not stay in the queue, and runs once."""
    jobs = jobs_of((0, 100, 4, "u"), (0, 100, 4, "v"), (15, 3, 4, "u"))
    twin = ran(jobs, ONE, Scheduler(FCFS, TimeSlices(10.0, 3), admission=(Quota(jobs=1),)))
    assert set(states(twin).values()) == {"done"}
    assert twin.columns["ran_s"].tolist() == [100.0, 100.0, 3.0]
    assert not twin.queue


def test_displacing_and_rules_that_may_refuse_afterwards_exclude_each_other() -> None:
    """Else a job would displace others for nothing, again and again."""
    with pytest.raises(SimulationError, match="for nothing: leave out preempts"):
        Scheduler(FCFS, Greedy(), preempts=True, filters=(Spread("zone"),))


@pytest.mark.parametrize("discipline", [Conservative(), TimeSlices()])
def test_a_discipline_that_would_ignore_filters_refuses_them(discipline: Backfill) -> None:
    """Rather than to let a job wait beside idle machines."""
    with pytest.raises(SimulationError, match="cannot keep to filters"):
        Scheduler(FCFS, discipline, filters=(AntiAffinity(),))


def test_the_promise_of_easy_goes_to_the_first_that_may_start() -> None:
    """The second job of a is barred from the moment that its first started; b is the head, and starts at 10 s."""
    jobs = jobs_of((0, 10, 2, "a"), (0, 10, 1, "a"), (0, 10, 4, "b"), (0, 1000, 1, "c"))
    twin = ran(jobs, ONE, Scheduler(FCFS, Easy(), admission=(Quota(jobs=1),)))
    assert twin.columns["start_s"][2] <= 20.0


@pytest.mark.parametrize("discipline", [Easy(), Conservative(), Committed(), Strict(), Greedy()])
def test_whoever_a_quota_bars_within_a_look_stands_in_nobodys_way(discipline: Backfill) -> None:
    """Two cores are free and the job of b fits: it starts at once."""
    jobs = jobs_of((0, 10, 2, "a"), (0, 10, 2, "a"), (0, 10, 2, "b"))
    twin = ran(jobs, ONE, Scheduler(FCFS, discipline, admission=(Quota(jobs=1),)))
    assert twin.columns["start_s"].tolist() == [0.0, 10.0, 0.0]


def test_a_quota_counts_exactly() -> None:
    """Three tenths of a core are three tenths, however they come about."""
    jobs = jobs_of((0, 10, 0.1, "a"), (0, 10, 0.2, "a"), (0, 10, 0.1, "b"))
    jobs = jobs.with_columns(instances=pl.Series([1, 1, 3]))
    twin = ran(jobs, ONE, Scheduler(FCFS, Strict(), admission=(Quota(cpu_cores=0.3),)))
    assert twin.columns["start_s"].tolist() == [0.0, 0.0, 0.0]


def test_a_job_that_comes_after_quiet_weeks_is_let_in_at_the_next_window() -> None:
    """Patience with those who wait counts from their arrival."""
    jobs = jobs_of((39 * 86_400.0 + 9 * 3600.0, 36_000, 1, "a"))
    twin = ran(jobs, ONE, Scheduler(FCFS, Strict(), admission=(Windows("2026-01-05T00:00:00", "UTC"),)))
    assert states(twin) == {"0": "done"}
    fresh = twin_of(trace_of(jobs), ONE, twin.scheduler)
    fresh.run(39 * 86_400.0 + 10 * 3600.0)
    assert "working hours" in why_waiting(fresh.fork(), 0)


def test_easy_does_not_starve_a_head_that_its_own_group_keeps_out() -> None:
    """Machines that a rule about what runs closes to the head now are promised to it for when that has ended."""
    rows = [(0.0, 10.0, 1.0, "m"), (1.0, 10.0, 4.0, "m")]
    rows += [(float(t), 10.0, 1.0, "x") for t in range(2, 40)]
    jobs = jobs_of(*rows)
    twin = ran(jobs, ONE, Scheduler(FCFS, Easy(), filters=(AntiAffinity("node", "user"),)))
    assert twin.columns["start_s"][1] == 10.0


def test_two_reservations_of_almost_the_same_time_end_both() -> None:
    """Ten million seconds and four more are two times."""
    far = 1e7
    rules = (Reservation(far, 4, ("node-0",), ("alice",)), Reservation(far + 4, 40, ("node-0",), ("alice",)))
    jobs = jobs_of((far - 1, 10, 4, "bob"))
    assert ran(jobs, ONE, Scheduler(FCFS, Easy(), filters=rules)).columns["start_s"].tolist() == [far + 44]


def test_a_head_of_one_instance_that_an_inspector_holds_back_is_promised_its_machine() -> None:
    """In an idle cluster it is refused once; those who stay for long may not take what it waits for."""

    @dataclass(frozen=True, slots=True)
    class Once:
        def accepts(self, twin: JobTwin, job: int) -> bool:
            if job == 0 and twin.now_s < 600.0:
                twin.look_at(600.0)
                return False
            return True

    jobs = jobs_of((0, 10, 4, "a"), (0, 5000, 4, "b"), (0, 5000, 4, "c"))
    twin = ran(jobs, machine.uniform(2, 4), Scheduler(FCFS, Easy(), inspector=Once()))
    assert twin.columns["start_s"][0] == 600.0


def test_scores_are_made_anew_for_other_machines() -> None:
    """One placement, the same jobs, two clusters: each is placed on its own machines."""
    placement = Scored({"least_allocated": 1.0})
    for count in (2, 20):
        load = workload.estimated(workload.of(trace_of(jobs_of(*[(0, 10, 4, "a")] * 3)), machine.uniform(20, 4)))
        twin = JobTwin(load, machine.uniform(count, 4), Scheduler(FCFS, Greedy(), placement))
        twin.run()
        assert len({row[1] for row in twin.history}) == min(count, 3)


def limited(run_s: float, limit_s: float, scheduler: Scheduler) -> JobTwin:
    trace = simple([(0, run_s, 4, limit_s)], columns=("submit_s", "run_s", "cpu_cores", "limit_s"))
    return twin_of(trace, ONE, scheduler)


@pytest.mark.parametrize(
    ("before", "after", "state", "end_s"),
    [
        ({}, {"checkpoint": Checkpoint(10.0, 1.0)}, "done", 107.0),
        ({"kill": True}, {}, "done", 100.0),
        ({}, {"kill": True}, "killed", 60.0),
        ({"checkpoint": Checkpoint(10.0, 1.0)}, {}, "done", 102.0),
    ],
)
def test_a_fork_under_other_rules_plans_its_ends_anew(
    before: dict, after: dict, state: str, end_s: float, tmp_path: Path
) -> None:
    """Forked at 25 s, with two checkpoints written where there are some; a saved twin does the same."""
    twin = limited(100, 60, Scheduler(FCFS, Strict(), **before))
    twin.run(25.0)
    scheduler = Scheduler(FCFS, Strict(), **after)
    snapshot.save(twin, tmp_path / "twin.npz")
    loaded = snapshot.load(tmp_path / "twin.npz", twin.workload, twin.machines, scheduler)
    for copy in (twin.fork(scheduler), loaded):
        copy.run()
        assert states(copy) == {"0": state}
        assert copy.columns["end_s"].tolist() == [end_s]


def test_a_saved_twin_goes_on_under_another_discipline(tmp_path: Path) -> None:
    """Exactly as a fork does."""
    for seed in range(10):
        world = random_world(seed)
        twin = replace(world, scheduler=replace(world.scheduler, backfill=Strict())).twin()
        twin.run(70.0)
        snapshot.save(twin, tmp_path / "twin.npz")
        other = replace(twin.scheduler, backfill=Easy(), kill=not twin.scheduler.kill)
        loaded = snapshot.load(tmp_path / "twin.npz", twin.workload, twin.machines, other, list(world.outages))
        fork = twin.fork(other)
        loaded.run()
        fork.run()
        assert same(loaded, fork)


def test_a_watched_job_that_is_displaced_as_soon_as_it_started_says_so() -> None:
    """It started, and waits again."""
    jobs = jobs_of((0, 5, 4, "a"), (0, 5, 2, "b"), priority=[0.0, 5.0])
    load = twin_of(trace_of(jobs), ONE, Scheduler(FCFS, Greedy(), preempts=True))
    watcher = Watcher([0])
    JobTwin(load.workload, ONE, load.scheduler, observers=(watcher,)).run()
    assert watcher.table(load)["what"].to_list() == ["starts", "waits", "starts"]


def test_what_only_suspension_kept_is_lost_with_the_machine() -> None:
    """Thirty seconds of work before a change of turns, then the machine fails: all of it is done again."""
    jobs = jobs_of((0, 200, 4, "a"), (0, 100, 4, "b"))
    twin = ran(jobs, ONE, Scheduler(FCFS, TimeSlices(30.0)), (Outage(65.0, 1.0, (0,)),))
    # at 65 s the first runs its second slice: 30 s before it, and 5 s within it
    assert twin.columns["ran_s"].tolist() == [235.0, 100.0]


def test_a_child_is_seen_when_its_own_latency_is_over() -> None:
    """It arrived before its parent ended."""
    jobs = jobs_of((0, 10, 1, "a"), (0, 10, 1, "a"))
    edges = pl.DataFrame({"job": ["1"], "parent": ["0"]})
    load = workload.estimated(workload.of(trace_of(jobs, dependencies=edges), ONE))
    twin = JobTwin(replace(load, latency_s=np.array([0.0, 50.0])), ONE, Scheduler(FCFS, Strict()))
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 50.0]


def test_slices_go_on_at_times_that_cannot_be_told_exactly() -> None:
    """Late in a long trace the end of a slice may round to now."""
    late = 33_554_400.0
    jobs = jobs_of((late, 60, 4, "a"), (late, 60, 4, "b"))
    twin = ran(jobs, ONE, Scheduler(FCFS, TimeSlices(1.7)))
    assert set(states(twin).values()) == {"done"}
