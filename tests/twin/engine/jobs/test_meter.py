"""The meter of a cluster, against whoever looks at everything each time and forgets nothing."""

from __future__ import annotations

import inspect
import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin.engine.jobs.conftest import World, random_world, simple
from twin.engine.jobs import fragments, outcomes, workload
from twin.engine.jobs import machines as machine
from twin.engine.jobs.machines import CPU, UNITS, Machines, Power
from twin.engine.jobs.meter import Meter, Waits
from twin.engine.jobs.scheduler import Observer, Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import Workload
from twin.engine.scheduling.backfill import Greedy, Strict
from twin.engine.scheduling.orders import Fcfs, HighestPriority
from twin.errors import SimulationError, UsageError
from twin.trace import tables

MEASURES = tuple(column.name for column in tables.schema("job_steps"))[3:]


class Everything(Observer):
    """Writes down all of `MEASURES` at each look, of the cluster and of each pool, looking at every machine and job."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, np.ndarray]] = []

    def looked(self, twin: JobTwin) -> None:
        """All of it anew."""
        pools = [np.ones(len(twin.machines), dtype=bool)]
        pools += [twin.machines.pool == p for p in range(len(twin.machines.pools))]
        self.rows.append((twin.now_s, np.array([self._of(twin, mine) for mine in pools])))

    @staticmethod
    def _of(twin: JobTwin, mine: np.ndarray) -> list[float]:
        load, machines = twin.workload, twin.machines
        waiting = [job for _, job in twin.queue if (load.fits_kind[load.job_class[job]][machines.kind] & mine).any()]
        held = np.zeros(machines.capacity.shape, dtype=np.int64)
        residents = np.zeros(len(machines), dtype=np.int64)
        for job, places in twin.held.items():
            for m, instances, _ in places:
                held[m] += instances * load.request[job]
                residents[m] += 1
        opened = np.array([bool(twin.capacity.open >> m & 1) for m in range(len(machines))])
        share = np.minimum(held[:, CPU] / machines.capacity[:, CPU], 1.0)
        powers = [machines.power[p] for p in machines.pool]
        drawn = [p.idle_w + (p.full_w - p.idle_w) * u**p.exponent for p, u in zip(powers, share.tolist(), strict=True)]
        return [
            len(waiting),
            load.cores(np.array(waiting, dtype=np.int64)).sum(),
            sum(any(mine[m] for m, _, _ in places) for places in twin.held.values()),
            *(held[mine].sum(axis=0) / UNITS),
            (mine & (residents == 0)).sum(),
            (mine & ~opened).sum(),
            np.array(drawn)[mine].sum(),
        ]

    def between(self, begin_s: float, end_s: float, idle: np.ndarray) -> np.ndarray:
        """Means of everything between two times [1 + pools, measures]; `idle` is how it stood before the first look."""
        times = [0.0, *(time_s for time_s, _ in self.rows), math.inf]
        levels = [idle, *(level for _, level in self.rows)]
        sums = np.zeros(idle.shape)
        for level, since_s, until_s in zip(levels, times[:-1], times[1:], strict=True):
            sums += level * max(0.0, min(until_s, end_s) - max(since_s, begin_s))
        return sums / (end_s - begin_s)


def with_curves(machines: Machines) -> Machines:
    """Every pool draws differently."""
    curves = (Power(90.0, 310.0), Power(50.5, 400.0, "sqrt"), Power(120.0, 700.0, "cubic"))
    return replace(machines, power=tuple(curves[p % 3] for p in range(len(machines.pools))))


@dataclass(frozen=True, slots=True)
class Watched:
    twin: JobTwin
    meter: Meter
    all: Everything


def watched(world: World, meter: Meter, until_s: float | None = None, **more: Any) -> Watched:
    machines, seen = with_curves(world.machines), Everything()
    load = workload.estimated(workload.of(world.trace, machines))
    scheduler = replace(world.scheduler, **more)
    twin = JobTwin(load, machines, scheduler, outages=world.outages, observers=(meter, seen))
    twin.run(until_s)
    meter.looked(twin)
    return Watched(twin, meter, seen)


def array_of(frame: pl.DataFrame, entities: int) -> np.ndarray:
    """The means of a table of steps [steps, entities, measures]."""
    return frame.select(MEASURES).to_numpy().reshape(-1, entities, len(MEASURES))


def idle_of(twin: JobTwin) -> np.ndarray:
    """How the cluster stands before anything happened."""
    blank = Everything()
    blank.looked(JobTwin(twin.workload, twin.machines, twin.scheduler))
    return blank.rows[0][1]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1), steps=st.sampled_from([2, 4, 10, 64]),
    first_step_s=st.sampled_from([0.3, 1.0, 7.0]),
    until_s=st.sampled_from([None, 5.5, 80.0, 1000.0]), displaces=st.booleans(),
)  # fmt: skip
def test_each_step_is_what_one_sees_who_looks_at_everything(
    seed: int, steps: int, first_step_s: float, until_s: float | None, displaces: bool
) -> None:
    """All measures, of the cluster and of each pool, whatever ends, fails, closes, is displaced or cancelled."""
    more = {"order": HighestPriority(), **({"preempts": True, "backfill": Greedy()} if displaces else {})}
    got = watched(random_world(seed, 25), Meter(steps, first_step_s=first_step_s), until_s, **more)
    frame, idle = got.meter.table(), idle_of(got.twin)
    entities = frame["entity"].unique(maintain_order=True).to_list()
    assert entities == ["cluster", *(f"pool:{name}" for name in got.twin.machines.pools)]
    ends = frame.filter(entity="cluster")["time_s"].to_list()
    assert len(ends) <= steps
    assert ends[-1] == got.twin.now_s
    assert frame["step_s"].sum() / len(entities) == pytest.approx(got.twin.now_s)
    for means, begin_s, end_s in zip(array_of(frame, len(entities)), [0.0, *ends], ends, strict=False):
        expected = got.all.between(begin_s, end_s, idle)
        np.testing.assert_allclose(means, expected, rtol=1e-9, atol=1e-7 * max(1.0, 1.0 / (end_s - begin_s)))


@pytest.mark.parametrize("seed", range(6))
def test_totals_are_those_of_the_tables_after_the_run(seed: int) -> None:
    """Core-seconds and energy by the placements, waits by the outcomes."""
    got = watched(random_world(seed, 60), Meter(8))
    lying, ended, totals = outcomes.placements(got.twin), outcomes.outcomes(got.twin), got.meter.totals()
    lasted_s = lying["end_s"] - lying["start_s"]
    machines = got.twin.machines
    held = fragments.profile(
        fragments.fragments(lying, tables.empty("usage"), tables.empty("jobs"), machines), machines
    )
    assert totals.span_s == got.twin.now_s
    assert totals.held_core_s == pytest.approx((lying["cpu_cores"] * lasted_s).sum(), rel=1e-9)
    assert totals.held_gib_s == pytest.approx((lying["memory_gib"] * lasted_s).sum(), rel=1e-9)
    assert totals.held_gpu_s == pytest.approx((lying["gpus"] * lasted_s).sum(), rel=1e-9)
    drawn_j = fragments.energy_j(held, machines, 0.0, got.twin.now_s).sum()
    assert totals.energy_mj == pytest.approx(drawn_j / 1e6, rel=1e-9)
    waits = ended["wait_s"].drop_nulls().to_numpy()
    assert got.meter.waits.count == len(waits)
    assert got.meter.waits.mean_s == pytest.approx(waits.mean(), rel=1e-9)
    assert got.meter.waits.variance_s2 == pytest.approx(waits.var(), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_merging_changes_no_total(seed: int) -> None:
    """Two steps or two thousand: the sums over the table and the totals are the same."""
    world = random_world(seed)
    few, many = watched(world, Meter(2)), watched(world, Meter(2048, first_step_s=0.25))
    assert few.meter.table().height < many.meter.table().height
    entities = 1 + len(world.machines.pools)
    sums = []
    for each in (few, many):
        frame = each.meter.table()
        lasts = frame["step_s"].to_numpy().reshape(-1, entities, 1)
        sums.append((array_of(frame, entities) * lasts).sum(axis=0))
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-9, atol=1e-6)
    assert few.meter.totals().energy_mj == pytest.approx(many.meter.totals().energy_mj, rel=1e-12)
    assert few.meter.totals().energy_mj == pytest.approx(sums[0][0, -1] / 1e6, rel=1e-12)


def load_of(gap_s: float, count: int, machines: Machines) -> Workload:
    return workload.estimated(workload.of(simple([(i * gap_s, 30.0, 1.0) for i in range(count)]), machines))


def kept_bytes() -> int:
    """What was allocated by the meter's module since tracing began, and is still held."""
    mine = tracemalloc.Filter(True, inspect.getfile(Meter))
    held = tracemalloc.take_snapshot().filter_traces([mine]).statistics("filename")
    return sum(each.size for each in held)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_a_year_takes_no_more_room_than_an_hour() -> None:
    """The same jobs spread over more time: no more bytes, and fewer steps than allowed."""
    machines = machine.uniform(3, 4.0)
    sizes = []
    for gap_s in (10.0, 1e5):
        tracemalloc.clear_traces()
        watching = Meter(64)
        twin = JobTwin(load_of(gap_s, 400, machines), machines, Scheduler(Fcfs(), Strict()), observers=(watching,))
        twin.run()
        assert 32 <= watching.table().filter(entity="cluster").height <= 64
        assert watching.step_s == 2.0 ** math.ceil(math.log2(twin.now_s / 64))
        sizes.append(kept_bytes())
    assert sizes[0] > 10_000
    assert sizes[1] < 1.25 * sizes[0]


@pytest.mark.usefixtures("traced")
def test_what_happens_within_a_step_is_not_kept() -> None:
    """10,000 starts and ends in a single step that is never over: less than a megabyte, where all would take two."""
    machines, watching = machine.uniform(3, 4.0), Meter(2, first_step_s=1e9)
    load = load_of(10.0, 5_000, machines)
    JobTwin(load, machines, Scheduler(Fcfs(), Strict()), observers=(watching,), history=False).run()
    assert kept_bytes() < 1_000_000
    assert watching.table().filter(entity="cluster").height == 1
    assert watching.totals().held_core_s == pytest.approx(5_000 * 30.0)


def test_time_without_events_is_metered_by_one_more_look() -> None:
    machines = machine.uniform(2, 4.0, power=Power(100.0, 300.0))
    meter = Meter(4)
    twin = JobTwin(load_of(10.0, 1, machines), machines, Scheduler(Fcfs(), Strict()), observers=(meter,))
    twin.run(90.0)
    assert meter.totals().span_s == 30.0
    meter.looked(twin)
    meter.looked(twin)
    assert meter.totals().span_s == 90.0
    assert meter.totals().energy_mj == pytest.approx((200 * 90 + 50 * 30) / 1e6)
    assert meter.table().filter(entity="pool:node")["power_w"].to_list() == pytest.approx(
        [200 + 50 * 30 / 32, 200, 200]
    )


def test_closed_machines_are_told_while_they_are_closed() -> None:
    machines = machine.uniform(2, 4.0)
    meter = Meter(64)
    twin = JobTwin(
        load_of(10.0, 4, machines), machines, Scheduler(Fcfs(), Strict()), observers=(meter,),
        outages=(Outage(5.0, 7.0, (1,), drain=True), Outage(8.0, 2.0, (1,))),
    )  # fmt: skip
    twin.run()
    closed = meter.table().filter(entity="cluster")["closed_machines"].to_list()
    assert [i for i, count in enumerate(closed) if count] == [5, 6, 7, 8, 9, 10, 11]


def test_a_copy_needs_a_meter_of_its_own() -> None:
    """A meter that comes later counts from then on, and only waits that it saw end."""
    machines = machine.uniform(1, 2.0)
    first, meter = Meter(), Meter(begin_s=45.0)
    twin = JobTwin(load_of(5.0, 20, machines), machines, Scheduler(Fcfs(), Strict()), observers=(first,))
    twin.run(45.0)
    copy = twin.fork()
    with pytest.raises(SimulationError, match="begin_s=45"):
        Meter().looked(copy)
    with pytest.raises(SimulationError, match="its own Meter"):
        first.looked(copy)
    copy.observers = (meter,)
    meter.looked(copy)
    copy.run()
    # by 45 s two were done, one had run since 30 s and one since 35 s
    assert meter.totals().held_core_s == pytest.approx(20 * 30.0 - 2 * 30.0 - 15.0 - 10.0)
    starts = copy.columns["first_start_s"]
    assert meter.waits.count == (starts > 45.0).sum()


def test_nothing_metered_is_an_empty_table() -> None:
    assert Meter().table().height == 0
    assert Meter().table().columns == [column.name for column in tables.schema("job_steps")]
    assert Meter().totals().energy_mj == 0.0


@pytest.mark.parametrize("wrong", [{"steps": 3}, {"steps": 0}, {"first_step_s": 0.0}])
def test_wrong_steps_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        Meter(**wrong)


# -------------------------------------------------- waits


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e9)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]), st.sampled_from([0.01, 0.1]),
)  # fmt: skip
def test_quantiles_are_off_by_the_stated_share_at_most(waits: list[float], share: float, error: float) -> None:
    """The lower quantile of what was added, exactly 0 where that is 0; mean and variance are exact."""
    kept = Waits(error)
    for wait_s in waits:
        kept.add(wait_s)
    true = sorted(waits)[math.floor(share * (len(waits) - 1))]
    assert abs(kept.quantile_s(share) - true) <= error * true * (1.0 + 1e-9)
    assert kept.mean_s == pytest.approx(np.mean(waits), rel=1e-9)
    assert kept.variance_s2 == pytest.approx(np.var(waits), rel=1e-6, abs=1e-9 * float(np.mean(waits)) ** 2)


def test_no_wait_has_no_quantile() -> None:
    assert math.isnan(Waits().quantile_s(0.5))
    assert math.isnan(Waits().variance_s2)
    with pytest.raises(UsageError, match="between 0 and 1"):
        Waits().quantile_s(1.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        Waits(0.0)
