"""The laws of conservative backfilling: what is promised is kept, and the plan is the one that the rule describes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.engine.jobs import machines, workload
from twin.engine.jobs.scheduler import Outage, Scheduler
from twin.engine.jobs.simulator import DONE, JobTwin
from twin.engine.scheduling.backfill import Easy, Strict
from twin.engine.scheduling.conservative import Conservative, reservations
from twin.engine.scheduling.orders import Fcfs, Wfp3
from twin.trace.trace import Trace, TraceInfo

CORES = 4
PLANNED = Scheduler(Fcfs(), Conservative())


def cluster(jobs, count, scheduler=PLANNED, **options):
    """Jobs (submit, cores, instances, estimate, run) on `count` machines of four cores."""
    columns = ("submit_s", "cpu_cores", "instances", "limit_s", "run_s")
    frame = pl.DataFrame(jobs, schema=columns, orient="row").with_columns(
        pl.exclude("instances").cast(pl.Float64), job=pl.int_range(pl.len()).cast(pl.String)
    )
    on = machines.uniform(count, CORES)
    load = workload.of(Trace(TraceInfo("drawn", "test", "test", "0" * 64), {"jobs": frame}), on)
    return JobTwin(load, on, scheduler, **options)


@st.composite
def cases(draw):
    """A number of machines, and jobs of whole seconds that all fit and never run longer than estimated."""
    count = draw(st.integers(1, 3))
    second = st.integers(1, 9)
    job = st.tuples(st.integers(0, 4), st.integers(1, CORES), st.integers(1, count), second, second)
    drawn = draw(st.lists(job, min_size=1, max_size=10))
    submit = np.cumsum([gap for gap, *_ in drawn]).tolist()
    return count, [(s, c, i, limit, min(run, limit)) for s, (_, c, i, limit, run) in zip(submit, drawn, strict=True)]


def many(rng, jobs=150, count=3, longest=60):
    """A crowded random trace with loose estimates."""
    limit = rng.integers(2, longest, jobs)
    run = np.maximum(1, (limit * rng.uniform(0.2, 1.0, jobs)).astype(int))
    shape = (rng.integers(1, CORES + 1, jobs), rng.integers(1, count + 1, jobs))
    return list(zip(np.cumsum(rng.integers(0, longest // 3, jobs)).tolist(), *shape, limit, run, strict=True))


class Brute:
    """Second by second, machine by machine: the rule as the paper words it."""

    def __init__(self, jobs, count):
        self.jobs, self.machines = jobs, range(count)
        self.plan, self.started = {}, {}  # job -> (begin, instances of each machine)

    def used(self, second, now):
        """Cores taken on each machine in that second, by the estimates."""
        cores = Counter()
        for job, (begin, places) in (self.plan | self.started).items():
            _, each, _, limit, run = self.jobs[job]
            if begin <= second < begin + limit and not (job in self.started and begin + run <= now):
                cores.update({m: each * n for m, n in places.items()})
        return cores

    def earliest(self, job, now):
        """The first second from which all of the job fits, and where: machines with the lowest numbers first."""
        _, each, left, limit, _ = self.jobs[job]
        begin = now
        while True:
            used = [self.used(second, now) for second in range(begin, begin + limit)]
            room = {m: min((CORES - cores[m]) // each for cores in used) for m in self.machines}
            if sum(room.values()) >= left:
                places = {}
                for m in self.machines:
                    places[m] = min(left, room[m])
                    left -= places[m]
                return begin, places
            begin += 1

    def run(self):
        """Start of each job."""
        now = 0
        while len(self.started) < len(self.jobs):
            ended = [j for j, (begin, _) in self.started.items() if begin + self.jobs[j][4] == now]
            if any(self.jobs[j][4] < self.jobs[j][3] for j in ended):
                for job in sorted(self.plan, key=lambda j: (self.plan[j][0], self.since[j])):
                    del self.plan[job]
                    self.plan[job] = self.earliest(job, now)
                self.rank()
            for job, (submit, *_) in enumerate(self.jobs):
                if submit == now:
                    self.plan[job] = self.earliest(job, now)
            self.rank()
            for job in [j for j, (begin, _) in self.plan.items() if begin == now]:
                self.started[job] = self.plan.pop(job)
            now += 1
        return [self.started[job][0] for job in range(len(self.jobs))]

    def rank(self):
        """Equal times go in the order that they had before."""
        order = sorted(self.plan, key=lambda j: self.plan[j][0])
        self.plan = {job: self.plan[job] for job in order}
        self.since = {job: i for i, job in enumerate(order)}


def most_cores(twin):
    """The most cores that were ever held on a machine at once."""
    changes = {}
    for job, machine, count, begin_s, end_s in twin.history:
        cores = count * twin.workload.request[job, machines.CPU] / machines.UNITS[machines.CPU]
        # what ends makes room before what begins at that moment
        changes.setdefault(machine, []).extend([(begin_s, 1, cores), (end_s, 0, -cores)])
    return max(np.cumsum([cores for *_, cores in sorted(each)]).max() for each in changes.values())


def promises(twin):
    """Run to the end; every reservation that each job was given, in order of time."""
    given_s = {}
    while (twin.columns["state"] != DONE).any():
        assert twin.now_s < 50_000.0, "somebody never starts"
        twin.run(twin.now_s + 1.0)
        for job, begin_s in reservations(twin).items():
            given_s.setdefault(job, []).append(begin_s)
    return given_s


@settings(max_examples=80, deadline=None)
@given(cases())
def test_the_plan_is_the_one_that_the_rule_describes(case):
    """Every start equals that of a plan made second by second."""
    count, jobs = case
    twin = cluster(jobs, count)
    twin.run()
    assert twin.columns["start_s"].tolist() == Brute(jobs, count).run()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("unit_s", [1.0, np.pi])
@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_delayed_beyond_a_reservation(count, unit_s, seed):
    """Reservations only ever move to earlier times, and the job starts no later than the last one."""
    jobs = many(np.random.default_rng(seed), count=count)
    # in units that are no whole seconds sums round, and what is due must still be found due
    twin = cluster([(s * unit_s, c, i, limit * unit_s, run * unit_s) for s, c, i, limit, run in jobs], count)
    given_s = promises(twin)
    assert len(given_s) > 50
    assert any(len(set(times)) > 1 for times in given_s.values())
    for job, times in given_s.items():
        assert times == sorted(times, reverse=True)
        assert twin.columns["start_s"][job] <= times[-1]


@pytest.mark.parametrize("seed", range(4))
def test_no_machine_holds_more_than_it_has(seed):
    """At no moment more cores are held than a machine has, and the crowd fills it."""
    twin = cluster(many(np.random.default_rng(seed)), 3)
    twin.run()
    assert most_cores(twin) == CORES


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 40))
def test_a_fork_anywhere_changes_nothing(case, at_s):
    """The fork and what it was forked from both end as a twin that never was forked."""
    count, jobs = case
    whole, forked = cluster(jobs, count), cluster(jobs, count)
    whole.run()
    forked.run(float(at_s))
    copy = forked.fork()
    copy.run()
    forked.run()
    for name, column in whole.columns.items():
        assert (column == forked.columns[name]).all()
        assert (column == copy.columns[name]).all()


def test_a_fork_comes_from_another_scheduler_and_goes_to_one():
    """Whoever takes over in the middle plans anew or not at all, and all jobs are done."""
    jobs = many(np.random.default_rng(5))
    twin = cluster(jobs, 3, Scheduler(Fcfs(), Easy()))
    for after_s, scheduler in ((100.0, PLANNED), (500.0, Scheduler(Fcfs(), Easy())), (900.0, PLANNED)):
        twin.run(after_s)
        while len(twin.queue) < 2:
            twin.run(twin.now_s + 1.0)
        twin = twin.fork(scheduler)
    twin.run()
    assert (twin.columns["state"] == DONE).all()
    assert most_cores(twin) == CORES


@pytest.mark.parametrize("seed", range(3))
def test_it_waits_less_than_without_overtaking(seed):
    """On a crowded random trace the mean wait is below that of strict first come, first served."""
    jobs = many(np.random.default_rng(seed))
    planned, strict = cluster(jobs, 3), cluster(jobs, 3, Scheduler(Fcfs(), Strict()))
    planned.run()
    strict.run()
    assert planned.columns["start_s"].mean() < strict.columns["start_s"].mean()


def test_the_textbook_case():
    """Who would delay nobody goes first, who would delay anybody's reservation does not."""
    # four cores: 0 runs on two until 10; 1 wants all from 10; 2 fits before; 3 would hold two cores beyond 10
    jobs = [(0, 2, 1, 10, 10), (1, 4, 1, 5, 5), (2, 2, 1, 8, 8), (3, 1, 1, 20, 20)]
    twin = cluster(jobs, 1)
    twin.run(5.0)
    assert reservations(twin) == {1: 10.0, 3: 15.0}
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 10.0, 2.0, 15.0]


def test_a_reservation_that_is_given_up_lets_others_move():
    """When the job that all wait for is cancelled, who was planned behind it starts at once."""
    jobs = [(0, 2, 1, 10, 10), (1, 4, 1, 5, 5), (2, 2, 1, 20, 20)]
    twin = cluster(jobs, 1)
    twin = JobTwin(replace(twin.workload, cancel_s=np.array([np.inf, 4.0, np.inf])), twin.machines, PLANNED)
    twin.run()
    assert twin.columns["start_s"][2] == 4.0


@pytest.mark.parametrize("order", [Fcfs(), Wfp3()])
def test_estimates_that_are_too_short_lose_nobody(order):
    """Jobs that outlast their estimates delay others, who all run at last, and no machine is overbooked."""
    jobs = [(s, c, i, limit // 3 + 1, run) for s, c, i, limit, run in many(np.random.default_rng(8))]
    twin = cluster(jobs, 3, Scheduler(order, Conservative()))
    twin.run()
    assert (twin.columns["state"] == DONE).all()
    assert most_cores(twin) == CORES


def test_a_job_that_no_open_machine_holds_waits_for_one():
    """While both machines are drained nobody has a time; all start when they come back."""
    drained = Outage(1.0, 50.0, (0, 1), drain=True)
    twin = cluster([(0, 4, 1, 10, 10), (2, 4, 2, 10, 10), (3, 1, 1, 5, 5)], 2, outages=[drained])
    twin.run(20.0)
    assert reservations(twin) == {1: np.inf, 2: np.inf}
    twin.run()
    assert twin.columns["start_s"].tolist() == [0.0, 51.0, 61.0]
