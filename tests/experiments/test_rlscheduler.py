"""RLScheduler's comparison of heuristics: the protocol's parts by hand, and the published means on the real log."""

from bisect import insort
from operator import itemgetter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import twin
from experiments import rlscheduler
from experiments.study import published
from twin.engine.jobs import machines, workload
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling.committed import Committed
from twin.engine.scheduling.orders import Fcfs, Sjf
from twin.errors import UsageError
from twin.trace.trace import Trace, TraceInfo

LOG = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "swf-pwa" / "lublin_256.swf"
needs_log = pytest.mark.skipif(not LOG.exists(), reason=f"{LOG} is not here: a log of the Parallel Workloads Archive")
COMPARED = ("fcfs", "wfp3_as_published", "unicep_as_published", "sjf", "f1")
"""The heuristics of the published table; none of them changes with time."""


@pytest.fixture(scope="module")
def lublin():
    """Lublin-1 as the protocol sees it."""
    return rlscheduler.prepared(twin.read(LOG))


@pytest.fixture(scope="module")
def drawn(lublin):
    """Its ten sequences, each with the empty pool that it meets."""
    return list(rlscheduler.sequences(lublin))


def log(jobs, cores=4, name="drawn"):
    """A log of jobs (submit, cores, run) on single-core nodes."""
    frame = pl.DataFrame(jobs, schema=("submit_s", "cpu_cores", "run_s"), orient="row").with_columns(
        pl.all().cast(pl.Float64), job=pl.int_range(pl.len()).cast(pl.String)
    )
    nodes = pl.DataFrame({"node": [f"n{i}" for i in range(cores)], "pool": ["n"] * cores, "cpu_cores": [1.0] * cores})
    return Trace(TraceInfo(name, "test", "test", "0" * 64), {"jobs": frame, "nodes": nodes})


def started(jobs, order, *, fill):
    """When each job starts under committed dispatch on a pool of four cores, and the twin."""
    trace = log(jobs)
    pool = machines.of(trace, pooled=True)
    mirror = JobTwin(workload.estimated(workload.of(trace, pool)), pool, Scheduler(order, Committed(fill)))
    mirror.run()
    return mirror.columns["start_s"].tolist()


def test_the_elected_job_keeps_its_turn():
    """A shorter job that comes after the election waits, though it would fit and its order puts it first."""
    jobs = [(0, 3, 10), (1, 4, 5), (2, 1, 2)]
    assert started(jobs, Sjf(), fill=False) == [0.0, 10.0, 15.0]


def test_filling_goes_by_arrival_and_ends_before_the_earliest_start():
    """Of two that fit only the first to arrive starts, not the shorter; who would end just then does not."""
    # the elected job 1 starts at 10: job 2 would end at 10, which is not before
    assert started([(0, 3, 10), (1, 4, 5), (2, 1, 8)], Sjf(), fill=True) == [0.0, 10.0, 15.0]
    assert started([(0, 3, 10), (1, 4, 5), (2, 1, 7), (3, 1, 3)], Sjf(), fill=True) == [0.0, 10.0, 2.0, 15.0]
    # both wait for core 4 when 1 ends at 2; 3 is shorter and 2 came first
    jobs = [(0, 2, 20), (0, 2, 3), (1, 4, 5), (1, 2, 9), (2, 2, 4)]
    assert started(jobs, Fcfs(), fill=True) == [0.0, 0.0, 20.0, 3.0, 12.0]


def test_a_fork_keeps_the_turn():
    """The fork of a twin with an elected job goes on as the twin does."""
    rng = np.random.default_rng(4)
    jobs = list(zip(np.cumsum(rng.integers(0, 9, 80)), rng.integers(1, 5, 80), rng.integers(1, 20, 80), strict=True))
    trace = log(jobs)
    pool = machines.of(trace, pooled=True)
    mirror = JobTwin(workload.estimated(workload.of(trace, pool)), pool, Scheduler(Sjf(), Committed()))
    mirror.run(150.0)
    copy = mirror.fork()
    assert mirror.queue
    mirror.run()
    copy.run()
    assert (mirror.columns["start_s"] == copy.columns["start_s"]).all()
    assert mirror.columns["start_s"].tolist() == started(jobs, Sjf(), fill=True)


def test_sequences_start_where_the_artifact_drew_them():
    """Ten starts of a log of 10,000 jobs, and of any longer one; a short log is refused."""
    drawn = (1981, 2756, 4299, 8850, 3316, 2714, 5228, 7762, 4022, 7085)
    assert rlscheduler.starts(10_000) == rlscheduler.starts(28_489) == drawn
    assert max(rlscheduler.starts(2_100)) < 2_100 - rlscheduler.LENGTH
    with pytest.raises(UsageError, match="too short"):
        rlscheduler.starts(2_049)


def test_the_published_waiting_time_stands_still():
    """WFP3 with w = -(1 + s) is ((s + 1) / r)^3 n at any time."""
    trace = log([(5, 2, 3), (9, 4, 2)])
    load = workload.estimated(workload.of(trace, machines.of(trace, pooled=True)))
    order = rlscheduler.HEURISTICS["wfp3_as_published"]
    assert order.keys(load, np.arange(2), 77.0).tolist() == pytest.approx([2.0**3 * 2, 5.0**3 * 4])
    assert not order.changing


def test_jobs_take_whole_nodes_and_those_of_no_length_are_left_out():
    """On nodes of eight processors a job of nine takes sixteen; a length that nobody recorded is 10 s."""
    trace = log([(0, 9, 5), (1, 8, 0), (2, 1, 5)], cores=2)
    trace = Trace(trace.info, {"jobs": trace.jobs, "nodes": trace.nodes.with_columns(cpu_cores=8.0)})
    assert rlscheduler.prepared(trace).jobs.select("job", "cpu_cores").rows() == [("0", 16.0), ("2", 8.0)]
    unknown = trace.jobs.with_columns(run_s=pl.lit(None, pl.Float64))
    assert (
        rlscheduler.prepared(Trace(trace.info, {"jobs": unknown, "nodes": trace.nodes})).jobs["run_s"].to_list()
        == [10.0] * 3
    )
    uneven = trace.nodes.with_columns(cpu_cores=pl.Series([8.0, 4.0]))
    with pytest.raises(UsageError, match="equal nodes"):
        rlscheduler.prepared(Trace(trace.info, {"jobs": trace.jobs, "nodes": uneven}))


def test_the_summary_is_the_same_each_time():
    """Interval around the mean, and no published figure for a log that nobody published one of."""
    runs = pl.DataFrame(
        {"log": "drawn", "heuristic": "sjf", "backfill": True, "sequence": range(10), "slowdown": np.arange(10.0)}
    )
    table = rlscheduler.summary(runs)
    assert table.equals(rlscheduler.summary(runs))
    row = table.row(0, named=True)
    assert row["mean"] == row["iqm"] == 4.5
    assert 0.0 < row["low"] < 4.5 < row["high"] < 9.0
    assert (row["published"], row["difference"], row["inside"]) == (None, None, None)


class Replay:
    """The protocol's own loop over (submit, cores, run, score): the queue is looked at after each single event."""

    def __init__(self, jobs, cores):
        self.jobs, self.free, self.now = jobs, cores, jobs[0][0]
        self.coming, self.queue, self.running = list(reversed(jobs[1:])), [jobs[0]], []  # end, number of start, cores
        self.slowdowns = []

    def slowdown(self, *, fill):
        """The mean bounded slowdown, with or without backfilling."""
        while self.queue or self.coming:
            while not self.queue:
                self.step()
            elected = min(self.queue, key=itemgetter(3))
            bound = self.earliest(elected)
            while elected[1] > self.free:
                for job in sorted(self.queue) if fill else ():
                    if job[1] <= self.free and self.now + job[2] < bound:
                        self.start(job)
                self.step()
            self.start(elected)
        return sum(self.slowdowns) / len(self.jobs)

    def step(self):
        """One arrival, or one end; of both in one moment the arrival."""
        if self.coming and (not self.running or self.coming[-1][0] <= self.running[0][0]):
            self.now = max(self.now, self.coming[-1][0])
            self.queue.append(self.coming.pop())
        else:
            end, _, cores = self.running.pop(0)
            self.now, self.free = max(self.now, end), self.free + cores

    def start(self, job):
        self.queue.remove(job)
        self.free -= job[1]
        insort(self.running, (self.now + job[2], len(self.slowdowns), job[1]))
        self.slowdowns.append(max(1.0, (self.now - job[0] + job[2]) / max(job[2], 10.0)))

    def earliest(self, job):
        room, bound = self.free, self.now
        for end, _, cores in self.running:
            if room >= job[1]:
                break
            room, bound = room + cores, end
        return bound


def sequence_of(load, order):
    """The jobs of a sequence as (submit, cores, run, score), scores that time does not change."""
    numbers = np.arange(len(load))
    columns = (load.submit_s, load.cores(numbers), load.run_s, order.keys(load, numbers, 0.0))
    return list(zip(*(column.tolist() for column in columns), strict=True))


@needs_log
@pytest.mark.parametrize("fill", [False, True])
def test_the_protocol_gives_the_published_means(drawn, fill):
    """Looking at the queue after each single event gives all ten means to the last printed digit."""
    told = published("rlscheduler").filter(pl.col("backfill") == fill, log="lublin_256")
    means = dict(told.select("heuristic", "published").iter_rows())
    assert sorted(means) == sorted(COMPARED)
    for name, mean in means.items():
        order = rlscheduler.HEURISTICS[name]
        own = [Replay(sequence_of(load, order), 256).slowdown(fill=fill) for load, _ in drawn]
        assert np.mean(own) == pytest.approx(mean, abs=0.00501), name


@needs_log
@pytest.mark.parametrize("name", COMPARED)
def test_the_twin_is_the_protocol_but_for_events_that_share_a_second(drawn, name):
    """Two sequences: without backfilling to the last digit, with it to half a percent (it looks once a second)."""
    order = rlscheduler.HEURISTICS[name]
    for load, pool in drawn[:2]:
        for fill, off in ((False, 1e-12), (True, 0.005)):
            expected = Replay(sequence_of(load, order), 256).slowdown(fill=fill)
            assert rlscheduler.replay(load, pool, order, backfill=fill) == pytest.approx(expected, rel=off), fill


@needs_log
@pytest.mark.parametrize("name", COMPARED)
def test_where_no_two_events_share_a_moment_the_twin_is_the_protocol(lublin, name):
    """With fractions of a millisecond added to arrivals and run times both give the same slowdown."""
    rng = np.random.default_rng(7)
    shift = pl.Series(rng.uniform(0.0, 1e-3, (lublin.jobs.height, 2)))
    jobs = lublin.jobs.with_columns(
        submit_s=pl.col("submit_s") + shift.arr.get(0), run_s=pl.col("run_s") + shift.arr.get(1)
    )
    load, pool = next(rlscheduler.sequences(Trace(lublin.info, {"nodes": lublin.nodes, "jobs": jobs})))
    order = rlscheduler.HEURISTICS[name]
    expected = Replay(sequence_of(load, order), 256).slowdown(fill=True)
    assert rlscheduler.replay(load, pool, order, backfill=True) == pytest.approx(expected, rel=1e-12)


@needs_log
def test_the_true_waiting_time_mends_what_was_published(drawn):
    """Without backfilling WFP3 and UNICEP are then better than FCFS by far, where the published ones are worse."""
    names = ("fcfs", "wfp3", "unicep", "wfp3_as_published", "unicep_as_published")
    load, pool = drawn[0]
    found = {n: rlscheduler.replay(load, pool, rlscheduler.HEURISTICS[n], backfill=False) for n in names}
    assert [found["wfp3"], found["unicep"]] == pytest.approx([388.37446588633685, 405.30513303324784], rel=0.005)
    assert max(found["wfp3"], found["unicep"]) < found["fcfs"]
    assert found["fcfs"] < min(found["wfp3_as_published"], found["unicep_as_published"])


def test_each_heuristic_meets_each_sequence_with_and_without_backfilling():
    """On a log just long enough, a row for each, worth the replay of that sequence."""
    rng = np.random.default_rng(0)
    jobs = list(zip(np.cumsum(rng.integers(1, 9, 2_051)), rng.integers(1, 5, 2_051), rng.integers(1, 9, 2_051)))  # noqa: B905
    trace = log(jobs)
    runs = rlscheduler.run(trace, ["sjf"])
    assert runs.columns == ["log", "heuristic", "backfill", "sequence", "slowdown"]
    assert runs.select("backfill", "sequence").rows() == [(fill, i) for fill in (False, True) for i in range(10)]
    load, pool = list(rlscheduler.sequences(rlscheduler.prepared(trace)))[3]
    for fill in (False, True):
        worth = rlscheduler.replay(load, pool, Sjf(), backfill=fill)
        assert runs.filter(backfill=fill, sequence=3)["slowdown"].item() == worth


def test_an_unknown_heuristic_is_refused():
    """With the known ones by name."""
    with pytest.raises(UsageError, match="fcfs"):
        rlscheduler.run(log([(0, 1, 1)]), ["best"])
