"""Jobs in the twin: laws that hold for every trace, cluster, scheduler and row of mishaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.engine.jobs import machines as machine
from twin.engine.jobs import outcomes, workload
from twin.engine.jobs.capacity import Capacity, Ordering, place
from twin.engine.jobs.machines import GPU, WHOLE_GPU, Machines
from twin.engine.jobs.simulator import STATES, JobTwin, Outage, Scheduler
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Backfill, Easy, Greedy, Strict, reservation, start_head
from twin.errors import SimulationError
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


# -------------------------------------------------- a world at random


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


SEEDS = range(30)


@pytest.fixture(scope="module")
def ended() -> list[tuple[World, JobTwin]]:
    """Many worlds, run to their end."""
    made = []
    for seed in SEEDS:
        world = random_world(seed)
        twin = world.twin()
        twin.run()
        made.append((world, twin))
    return made


def test_the_worlds_hold_every_fate(ended: list[tuple[World, JobTwin]]) -> None:
    """What the laws below speak of does occur."""
    seen = {state for _, twin in ended for state in states(twin).values()}
    assert seen == {"done", "failed", "killed", "cancelled", "refused"}
    assert any(twin.columns["attempts"].max() > 1 for _, twin in ended)


def test_everything_ends_and_everything_is_given_back(ended: list[tuple[World, JobTwin]]) -> None:
    """No job is lost: each is in one last state, and all machines are as they were, every device whole."""
    for _, twin in ended:
        assert len(twin.columns["state"]) == len(twin.workload)
        assert set(states(twin).values()) <= {"done", "failed", "killed", "cancelled", "refused"}
        assert not twin.held
        assert not twin.queue
        assert not twin.running
        assert np.array_equal(twin.capacity.free, twin.machines.capacity)
        assert all(set(devices) == {WHOLE_GPU} for devices in twin.capacity.devices.values())


def test_a_job_runs_as_long_as_it_must(ended: list[tuple[World, JobTwin]]) -> None:
    """Done: its run time in its last attempt; killed: its limit; the sum of all attempts is what it held."""
    for world, twin in ended:
        load, columns, tries = twin.workload, twin.columns, attempts_of(twin)
        for job, state in enumerate(states(twin).values()):
            start_s, end_s = columns["start_s"][job], columns["end_s"][job]
            assert columns["attempts"][job] == len(tries[job])
            lengths = [held[0][2] - begin_s for begin_s, held in tries[job].items()]
            assert columns["ran_s"][job] == pytest.approx(sum(lengths))
            if state == "done":
                assert end_s == start_s + load.run_s[job]
                assert not (world.scheduler.kill and load.limit_s[job] < load.run_s[job])
            elif state == "killed":
                assert world.scheduler.kill
                assert load.limit_s[job] < load.run_s[job]
                assert end_s == start_s + load.limit_s[job]
            elif state == "failed":
                assert columns["attempts"][job] == world.scheduler.retries + 1
            elif state == "refused":
                assert not tries[job]
            if tries[job]:
                assert min(tries[job]) == columns["first_start_s"][job] >= load.submit_s[job]
                assert max(tries[job]) == start_s
                assert columns["attempts"][job] <= world.scheduler.retries + 1


def test_no_machine_ever_holds_more_than_it_has(ended: list[tuple[World, JobTwin]]) -> None:
    """A sweep over starts and ends of the table `placements`, machine by machine, resource by resource."""
    resources = ("cpu_cores", "memory_gib", "gpus")
    for _, twin in ended:
        lay = outcomes.placements(twin).filter(pl.col("end_s") > pl.col("start_s"))
        for m, name in enumerate(twin.machines.names):
            mine = lay.filter(node=name)
            sizes = mine.select(resources).fill_null(0.0).to_numpy()
            stamps = np.concatenate([mine["end_s"], mine["start_s"]])
            gives = np.concatenate([np.zeros(len(mine)), np.ones(len(mine))])
            order = np.lexsort((gives, stamps))
            used = np.cumsum(np.concatenate([-sizes, sizes])[order], axis=0)
            most = used.max(axis=0, initial=0.0)
            assert (most <= twin.machines.capacity[m] / machine.UNITS + 1e-6).all(), (name, most)


def test_gangs_start_together_or_not_at_all(ended: list[tuple[World, JobTwin]]) -> None:
    """Every attempt holds all instances, from one moment to one moment."""
    for _, twin in ended:
        for job, tries in attempts_of(twin).items():
            for held in tries.values():
                assert sum(instances for _, instances, _ in held) == twin.workload.instances[job]
                assert len({end_s for _, _, end_s in held}) == 1
                assert len({lies for lies, _, _ in held}) == len(held)


def test_a_job_lies_on_machines_that_it_accepts(ended: list[tuple[World, JobTwin]]) -> None:
    """GPU models, labels and taints, against the pools told by hand."""
    seen = 0
    for world, twin in ended:
        wishes = {
            row["job"]: GPU_MODELS[row["gpu_model"]] & REQUIRES[row["requires"]] & TOLERATES[row["tolerates"]]
            for row in world.trace.jobs.iter_rows(named=True)
        }
        pool = [twin.machines.pools[p] for p in twin.machines.pool]
        for job, place_, *_ in twin.history:
            assert pool[place_] in wishes[twin.workload.names[job]]
            seen += 1
        for name, reason in zip(twin.workload.names, twin.workload.refused, strict=True):
            assert wishes[name] or reason
    assert seen > 500


def test_outages_take_nothing_new_and_failures_lose_all(ended: list[tuple[World, JobTwin]]) -> None:
    """Nothing starts on a closed machine; a failure ends what runs at once; a drained machine lets it finish."""
    crossed = 0
    for world, twin in ended:
        for outage in world.outages:
            until_s = outage.time_s + outage.duration_s
            for _, place_, _, start_s, end_s in twin.history:
                if place_ in outage.machines:
                    assert not outage.time_s <= start_s < until_s
                    across = start_s < outage.time_s < end_s
                    assert outage.drain or not across
                    crossed += across
    assert crossed


def test_children_wait_for_all_parents(ended: list[tuple[World, JobTwin]]) -> None:
    """They start after all parents are done; a parent that never will be cancels them, whatever ended it."""
    lost = 0
    for world, twin in ended:
        number = {name: i for i, name in enumerate(twin.workload.names)}
        state = states(twin)
        parents = defaultdict(list)
        for child, parent in world.trace.dependencies.iter_rows():
            parents[child].append(parent)
        for child, mine in parents.items():
            if any(state[parent] != "done" for parent in mine):
                lost += 1
                assert state[child] in ("cancelled", "refused")
                assert not twin.columns["attempts"][number[child]]
            elif twin.columns["attempts"][number[child]]:
                ends_s = max(twin.columns["end_s"][number[parent]] for parent in mine)
                assert twin.columns["first_start_s"][number[child]] >= ends_s
        for name, i in number.items():
            gave_up = np.isfinite(twin.workload.cancel_s[i]) or any(state[p] != "done" for p in parents[name])
            assert state[name] != "cancelled" or gave_up
    assert lost


# -------------------------------------------------- what is seen at every moment


@dataclass(frozen=True, slots=True)
class Watched:
    """A backfill that looks at the twin each time it was asked."""

    inner: Backfill
    seen: list[float]

    @property
    def plans(self) -> bool:
        return self.inner.plans

    def start(self, twin: JobTwin) -> None:
        self.inner.start(twin)
        self.seen.append(twin.now_s)
        check_books(twin)
        if isinstance(self.inner, Greedy):
            copy = twin.capacity.copy()
            assert all(place(copy, job, Capacity.lowest_first) is None for _, job in twin.queue)


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


@pytest.mark.parametrize("backfill", BACKFILLS, ids=lambda b: type(b).__name__)
def test_the_books_are_right_at_every_moment(backfill: Backfill) -> None:
    """A device never lends more than itself; greedy leaves nobody waiting who fits."""
    for seed in range(100, 106):
        world, seen = random_world(seed), []
        watched = replace(world.scheduler, backfill=Watched(backfill, seen))
        twin_of(world.trace, world.machines, watched, outages=world.outages).run()
        assert len(seen) > 10


# -------------------------------------------------- copies and pieces


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


# -------------------------------------------------- against simulators of a few lines


def brute(cores: int, jobs: Sequence[tuple[float, float, int, float]], *, easy: bool) -> list[float]:
    """Start times on one machine; jobs are (arrival, run time, cores, estimate) in order of arrival. Lists alone."""
    starts: list[float] = [-1.0] * len(jobs)
    waiting: list[int] = []
    running: list[tuple[float, float, int]] = []  # end, estimated end, cores
    coming = list(range(len(jobs)))
    while coming or running:
        now = min([jobs[j][0] for j in coming] + [end for end, _, _ in running])
        running = [each for each in running if each[0] > now]
        waiting += [j for j in coming if jobs[j][0] <= now]
        coming = [j for j in coming if jobs[j][0] > now]
        free = cores - sum(n for _, _, n in running)
        shadow, extra, blocked = np.inf, 0, False
        for j in list(waiting):
            _, run, need, asked = jobs[j]
            if blocked:
                early = now + asked <= shadow
                if not easy or need > free or not (early or need <= extra):
                    continue
                extra -= 0 if early else need
            elif need > free:
                blocked = True
                then = sorted((max(planned, now), n) for _, planned, n in running)
                shadow = next(t for t, _ in then if free + sum(n for end, n in then if end <= t) >= need)
                extra = free + sum(n for end, n in then if end <= shadow) - need
                continue
            starts[j] = now
            free -= need
            waiting.remove(j)
            running.append((now + run, now + asked, need))
    return starts


RANDOM_JOBS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(1, 8), st.integers(-3, 6)), min_size=1, max_size=25
)


@settings(max_examples=80, deadline=None)
@given(jobs=RANDOM_JOBS, easy=st.booleans())
def test_one_pooled_machine_is_the_textbook(jobs: list[tuple[int, int, int, int]], easy: bool) -> None:
    """FCFS strict, and EASY with shadow time and extra cores, job by job; estimates too low and too high."""
    rows = sorted(((a, r, n, max(r + off, 0)) for a, r, n, off in jobs), key=lambda row: row[0])
    trace = simple(rows, ("submit_s", "run_s", "cpu_cores", "limit_s"))
    twin = twin_of(trace, machine.uniform(1, 8), Scheduler(orders.Fcfs(), Easy() if easy else Strict()))
    twin.run()
    assert twin.columns["start_s"].tolist() == brute(8, rows, easy=easy)


@pytest.mark.parametrize("easy", [False, True])
def test_one_pooled_machine_is_the_textbook_under_load(easy: bool) -> None:
    """Long queues with many equal times, so that jobs end at the very moment of a shadow time."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        draws = zip(np.sort(rng.integers(0, 60, 60)), rng.integers(0, 8, 60), rng.integers(1, 9, 60), strict=True)
        rows = [(float(a), float(r), int(n), float(r)) for a, r, n in draws]
        trace = simple(rows, ("submit_s", "run_s", "cpu_cores", "limit_s"))
        twin = twin_of(trace, machine.uniform(1, 8), Scheduler(orders.Fcfs(), Easy() if easy else Strict()))
        twin.run()
        assert twin.columns["start_s"].tolist() == brute(8, rows, easy=easy)


# -------------------------------------------------- promises of EASY


@dataclass(frozen=True, slots=True)
class Promising:
    """EASY that writes down what it promises to each head that is blocked."""

    promises: list[tuple[int, float]]
    plans: bool = True

    def start(self, twin: JobTwin) -> None:
        start_head(twin)
        if twin.queue:
            head = twin.queue[0][1]
            self.promises.append((head, reservation(twin, head)[0]))
        Easy().start(twin)


def promised(trace: Trace, machines: Machines, ordering: Ordering, piece_cores: float | None = None) -> int:
    """Check every promise; how many were made."""
    kept: list[tuple[int, float]] = []
    load = workload.of(trace, machines, piece_cores=piece_cores)
    twin = JobTwin(workload.estimated(load), machines, Scheduler(orders.Fcfs(), Promising(kept), ordering))
    twin.run()
    for head, shadow_s in kept:
        assert twin.columns["start_s"][head] <= shadow_s
    assert set(states(twin).values()) == {"done"}
    return len(kept)


def random_sizes(rng: np.random.Generator, count: int, widest: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "job": [str(i) for i in range(count)],
            "submit_s": np.sort(rng.integers(0, 100, count)).astype(float),
            "run_s": rng.integers(0, 40, count).astype(float),
            "cpu_cores": rng.integers(1, widest + 1, count).astype(float),
        }
    )


@pytest.mark.parametrize("ordering", PLACEMENTS, ids=lambda o: o.__name__)
def test_easy_keeps_its_promise_where_it_is_exact(ordering: Ordering) -> None:
    """One pooled machine; equal machines and one-core pieces; several resources and gangs, no GPUs."""
    made = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        made += promised(trace_of(random_sizes(rng, 40, 16)), machine.uniform(1, 16), ordering)
        made += promised(trace_of(random_sizes(rng, 40, 16)), machine.uniform(8, 2), ordering, piece_cores=1.0)
        gangs = random_sizes(rng, 40, 4).with_columns(
            memory_gib=pl.Series(rng.choice([0.0, 1.0, 5.0, 8.0], 40)),
            instances=pl.Series(rng.choice([1, 1, 2, 4], 40)),
        )
        made += promised(trace_of(gangs), machine.uniform(4, 4, 8), ordering)
    assert made > 300


@pytest.mark.parametrize("backfill", BACKFILLS, ids=lambda b: type(b).__name__)
def test_more_machines_never_lose_a_job(backfill: Backfill) -> None:
    """Whatever ended well still does with twice the machines, and nobody new is refused."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        frame = random_sizes(rng, 40, 8).with_columns(instances=pl.Series(rng.choice([1, 2, 6], 40)))
        done = []
        for count in (3, 6):
            twin = twin_of(trace_of(frame), machine.uniform(count, 6), Scheduler(orders.Fcfs(), backfill))
            twin.run()
            done.append({job for job, state in states(twin).items() if state == "done"})
        assert done[0] < done[1]


# -------------------------------------------------- small cases by hand


def test_limits_kill_only_where_the_scheduler_kills() -> None:
    """A limit of 4 s: killed at 4 s, or done after 10 s; a job that keeps to it exactly is done."""
    trace = simple([(0, 10, 1, 4), (0, 4, 1, 4)], ("submit_s", "run_s", "cpu_cores", "limit_s"))
    for kill, expected in ((True, ["killed", "done"]), (False, ["done", "done"])):
        twin = twin_of(trace, machine.uniform(1, 2), Scheduler(orders.Fcfs(), Strict(), kill=kill))
        twin.run()
        assert list(states(twin).values()) == expected
        assert twin.columns["end_s"].tolist() == [4.0 if kill else 10.0, 4.0]


def test_failures_restart_a_job_as_often_as_it_may() -> None:
    """Failing at 5 s and 15 s: with two retries it is done at 28 s, with one it has failed at 15 s."""
    trace = simple([(0, 10, 1)])
    outages = (Outage(5.0, 2.0, (0,)), Outage(15.0, 3.0, (0,)))
    for retries, state, end_s, ran_s in ((2, "done", 28.0, 23.0), (1, "failed", 15.0, 13.0), (0, "failed", 5.0, 5.0)):
        scheduler = Scheduler(orders.Fcfs(), Strict(), retries=retries)
        twin = twin_of(trace, machine.uniform(1, 1), scheduler, outages=outages)
        twin.run()
        assert states(twin) == {"0": state}
        assert (twin.columns["end_s"][0], twin.columns["ran_s"][0]) == (end_s, ran_s)


def test_overlapping_outages_keep_a_machine_closed_until_the_last_ends() -> None:
    """Closed twice, opened twice."""
    outages = (Outage(0.0, 10.0, (0,)), Outage(5.0, 20.0, (0,), drain=True))
    twin = twin_of(simple([(1, 1, 1)]), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()), outages=outages)
    twin.run()
    assert twin.columns["start_s"].tolist() == [25.0]


def test_an_outage_of_no_length_is_over_at_once() -> None:
    """It ends what runs there, and the machine takes jobs again at the same moment."""
    outages = (Outage(5.0, 0.0, (0,)),)
    twin = twin_of(simple([(0, 10, 1)]), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()), outages=outages)
    twin.run()
    assert states(twin) == {"0": "done"}
    assert twin.columns["end_s"].tolist() == [15.0]


@pytest.mark.parametrize("number", [1, -1])
def test_an_outage_of_a_machine_that_is_not_there_is_refused(number: int) -> None:
    """One machine, number 0."""
    with pytest.raises(SimulationError, match="machine"):
        twin_of(
            simple([(0, 1, 1)]),
            machine.uniform(1, 1),
            Scheduler(orders.Fcfs(), Strict()),
            outages=(Outage(0.0, 1.0, (number,)),),
        )


def test_an_outage_does_not_end_before_it_begins() -> None:
    """Refused when the twin is made, not when the clock is there."""
    with pytest.raises(SimulationError, match="duration"):
        twin_of(
            simple([(0, 1, 1)]),
            machine.uniform(1, 1),
            Scheduler(orders.Fcfs(), Strict()),
            outages=(Outage(5.0, -2.0, (0,)),),
        )


def test_an_arrival_before_second_zero_is_refused() -> None:
    """The twin begins at second 0: what arrived before it is refused by name, and others run."""
    twin = twin_of(simple([(-1, 5, 1), (0, 5, 1)]), machine.uniform(1, 1), Scheduler(orders.Fcfs(), Strict()))
    twin.run()
    told = outcomes.outcomes(twin)
    assert told["state"].to_list() == ["refused", "done"]
    assert "before second 0" in told["reason"][0]


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


def test_a_fork_to_a_scheduler_that_plans_needs_estimates_too() -> None:
    """The same refusal as at the start."""
    machines = machine.uniform(1, 1)
    twin = JobTwin(workload.of(simple([(0, 1, 1)]), machines), machines, Scheduler(orders.Fcfs(), Strict()))
    with pytest.raises(SimulationError, match=r"workload\.estimated"):
        twin.fork(Scheduler(orders.Fcfs(), Easy()))


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
