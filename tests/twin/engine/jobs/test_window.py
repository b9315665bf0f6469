"""The fast engine is held to the reference: the same jobs on the same machines at the same moments, exactly."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from twin.engine.compiling import version
from twin.engine.jobs import machines as machines_
from twin.engine.jobs import outcomes, window_loop
from twin.engine.jobs.capacity import Capacity
from twin.engine.jobs.machines import UNITS, Machines
from twin.engine.jobs.scheduler import Checkpoint, Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.window import WindowTwin, supported
from twin.engine.jobs.workload import Workload
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Easy, Greedy, Strict
from twin.errors import SimulationError

ORDERS = (
    orders.Fcfs,
    orders.Sjf,
    orders.Ljf,
    orders.SmallestArea,
    orders.EarliestDeadline,
    orders.HighestPriority,
    orders.F1,
    orders.Wfp3,
    orders.Unicep,
)
BACKFILLS = (Strict, Greedy, Easy)
PLACEMENTS = (Capacity.lowest_first, Capacity.fullest_first, Capacity.emptiest_first)
SCENARIOS = 360


def cluster(rng: np.random.Generator) -> Machines:
    """A few machines: equal or not, on levels of whole cores or not, of one kind or two, with GPUs or without."""
    count = int(rng.choice([1, 2, 5, 9, 70]))
    cores = rng.choice([[4.0, 8.0], [64.0, 64.0], [100.0, 37.5]][rng.integers(3)], count)
    frame = pl.DataFrame(
        {
            "node": [f"n{i}" for i in range(count)],
            "pool": [f"p{i % 2}" for i in range(count)],
            "cpu_cores": cores,
            "memory_gib": cores * 4.0 if rng.random() < 0.7 else [None] * count,
            "gpus": rng.choice([0.0, 2.0, 4.0], count),
        },
        schema_overrides={"memory_gib": pl.Float64},
    )
    return machines_.from_nodes(frame)


def jobs(rng: np.random.Generator, machines: Machines, count: int) -> Workload:
    """Jobs of few sizes and times, so that ties are common; some fit nowhere and are refused."""
    total = machines.total()[0]
    cores = rng.choice([0.0, 0.5, 1.0, 2.0, 3.0, 4.0], count, p=[0.03, 0.07, 0.4, 0.2, 0.1, 0.2])
    memory = cores * rng.choice([0.0, 1.0, 5.0, 12.0], count) * (rng.random() < 0.7)
    gpus = rng.choice([0.0, 0.25, 0.4, 1.0, 2.0], count, p=[0.5, 0.15, 0.1, 0.15, 0.1]) * (rng.random() < 0.4)
    gangs = rng.random() < 0.6
    instances = np.where(rng.random(count) < 0.4 * gangs, rng.integers(2, 9, count), 1)
    request = np.round(np.column_stack([cores, memory, gpus]) * UNITS).astype(np.int64)
    run_s = rng.choice([0.0, 1.0, 7.0, 30.0, 100.0], count) + rng.choice([0.0, rng.random()])
    load = float((cores * instances * run_s).sum() / total)
    fits_kind = np.array([[True] * len(machines.kinds), [True] + [False] * (len(machines.kinds) - 1)])
    job_class = (rng.random(count) < 0.3).astype(np.int64)
    some = Workload(
        names=pl.Series([f"j{i}" for i in range(count)]),
        submit_s=np.sort(np.round(rng.uniform(0.0, max(load, 1.0) / rng.choice([0.5, 1.0, 2.0]), count), 1)),
        request=request,
        instances=instances,
        limit_s=run_s * rng.choice([0.5, 1.0, 1.0, 3.0], count) + rng.choice([0.0, 2.0], count),
        priority=rng.integers(0, 3, count).astype(float),
        deadline_s=rng.choice([50.0, 100.0, np.inf], count),
        user=np.zeros(count, dtype=np.int64),
        users=("u",),
        group=np.zeros(count, dtype=np.int64),
        groups=("",),
        queue=pl.repeat("", count, eager=True),
        fits_kind=fits_kind,
        job_class=job_class,
        refused=("",) * count,
        run_s=run_s,
        cancel_s=np.full(count, np.inf),
        parents=np.zeros(count, dtype=np.int64),
        children=(np.zeros(count + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)),
    )
    empty = Capacity(machines, some)
    rooms = [sum(empty.room(j, m) for m in empty.lowest_first(j, empty.candidates(j))) for j in range(count)]
    return replace(some, refused=tuple("too large" if r < n else "" for r, n in zip(rooms, instances, strict=True)))


def scenario(seed: int) -> tuple[Workload, Machines, Scheduler]:
    """The scenario of this number; every mixture of backfill and placement comes up."""
    rng = np.random.default_rng(seed)
    machines = cluster(rng)
    workload = jobs(rng, machines, int(rng.integers(2, 150)))
    order = ORDERS[seed // 9 % len(ORDERS)]()
    backfill, placement = BACKFILLS[seed % 3](), PLACEMENTS[seed // 3 % 3]
    return workload, machines, Scheduler(order, backfill, placement, kill=bool(rng.random() < 0.4))


def same(fast: WindowTwin, reference: JobTwin) -> None:
    """Both stand exactly alike."""
    for name, column in reference.columns.items():
        np.testing.assert_array_equal(fast.columns.get(name, np.zeros_like(column)), column, err_msg=name)
    assert fast.held == reference.held
    assert fast.now_s == reference.now_s


def first_machines(reference: JobTwin) -> np.ndarray:
    found = np.full(len(reference.workload), -1)
    for job, machine, *_ in reversed(reference.history):
        found[job] = machine
    return found


@pytest.mark.parametrize("part", range(8))
def test_it_does_exactly_what_the_reference_does(part):
    """Starts, ends, states and machines agree at every moment looked at, for every order, backfill and placement."""
    for seed in range(part, SCENARIOS, 8):
        workload, machines, scheduler = scenario(seed)
        reference, fast = JobTwin(workload, machines, scheduler), WindowTwin(workload, machines, scheduler, tick_s=11.0)
        for until_s in np.linspace(0.0, workload.submit_s[-1] + 50.0, 7).tolist():
            reference.run(until_s)
            fast.run(until_s)
            same(fast, reference)
        reference.run()
        fast.run()
        same(fast, reference)
        np.testing.assert_array_equal(fast.first_machine, first_machines(reference), err_msg=f"scenario {seed}")


def tables_agree(fast: WindowTwin, reference: JobTwin) -> None:
    """The same rows in the same order, with the same reasons for waiting."""
    assert_frame_equal(outcomes.outcomes(fast), outcomes.outcomes(reference), check_exact=True)
    assert_frame_equal(outcomes.placements(fast), outcomes.placements(reference), check_exact=True)


@pytest.mark.parametrize("history", [True, False])
def test_the_tables_are_those_of_the_reference(history):
    """While jobs wait and run and at the end, whether what is over was kept or not."""
    waited = lengthened = 0
    for seed in range(not history, SCENARIOS, 14):
        workload, machines, scheduler = scenario(seed)
        reference = JobTwin(workload, machines, scheduler, history=history)
        fast = WindowTwin(workload, machines, scheduler, history=history)
        slots = len(fast.state.slots)
        until_s = 0.6 * float(workload.submit_s[-1])
        reference.run(until_s)
        fast.run(until_s)
        waited += len(fast.queue)
        tables_agree(fast, reference)
        reference.run()
        fast.run()
        tables_agree(fast, reference)
        lengthened += len(fast.state.slots) > slots
    assert waited > 30
    assert (lengthened > 3) == history


def test_the_reference_can_go_on_from_here():
    """Handed over in the midst of it, the same happens as would have happened."""
    for seed in range(3, SCENARIOS, 13):
        workload, machines, scheduler = scenario(seed)
        whole, fast = JobTwin(workload, machines, scheduler), WindowTwin(workload, machines, scheduler)
        whole.run()
        fast.run(0.5 * float(workload.submit_s[-1]))
        handed = fast.reference()
        same(fast, handed)
        handed.run()
        for name, column in whole.columns.items():
            np.testing.assert_array_equal(handed.columns[name], column, err_msg=f"scenario {seed}, {name}")
        assert sorted(handed.history) == sorted(whole.history)


def test_the_scenarios_are_not_idle():
    """What is compared is worth comparing: jobs wait, overtake, are killed, refused, and lie on several machines."""
    waited = overtook = killed = refused = spread = 0
    for seed in range(0, SCENARIOS, 4):
        workload, machines, scheduler = scenario(seed)
        twin = JobTwin(workload, machines, scheduler)
        twin.run()
        start_s = twin.columns["start_s"]
        started = start_s[start_s >= 0.0]
        waited += int((start_s > workload.submit_s).sum())
        overtook += int((np.diff(started) < 0).sum())
        killed += int((twin.columns["state"] == 6).sum())
        refused += int((twin.columns["state"] == 8).sum())
        spread += len(twin.history) - len(started)
    assert min(waited, overtook, killed, refused, spread) > 50


@pytest.mark.parametrize("tick_s", [0.3, 3600.0, 1e9])
def test_the_tick_changes_nothing(tick_s):
    """How often SimPy wakes the twin is of no consequence."""
    workload, machines, scheduler = scenario(5)
    one, other = WindowTwin(workload, machines, scheduler), WindowTwin(workload, machines, scheduler, tick_s=tick_s)
    one.run()
    other.run()
    assert one.now_s == other.now_s
    for name, column in one.columns.items():
        np.testing.assert_array_equal(other.columns[name], column)


@pytest.mark.parametrize("seed", [2, 8, 31, 67, 71, 80])
def test_copies_and_saved_states_go_on_as_the_original(seed, tmp_path: Path):
    """A fork or a stored twin, taken anywhere, ends as the original does, which does not notice."""
    workload, machines, scheduler = scenario(seed)
    whole = WindowTwin(workload, machines, scheduler)
    whole.run()
    for share in (0.0, 0.3, 0.7, 1.1):
        twin = WindowTwin(workload, machines, scheduler)
        twin.run(share * float(workload.submit_s[-1]))
        fork = twin.fork()
        twin.save(tmp_path / "twin.npz")
        stored = WindowTwin.load(tmp_path / "twin.npz", workload, machines, scheduler)
        for each in (fork, stored, twin):
            each.run()
            assert each.now_s == max(whole.now_s, share * float(workload.submit_s[-1]))
            np.testing.assert_array_equal(each.first_machine, whole.first_machine)
            for name, column in whole.columns.items():
                np.testing.assert_array_equal(each.columns[name], column)
            np.testing.assert_array_equal(each.history, whole.history)
        assert [path.name for path in tmp_path.iterdir()] == ["twin.npz"]


def test_a_saved_state_goes_with_its_own_jobs_and_machines_alone(tmp_path: Path):
    """Other jobs, another scheduler or another file are refused."""
    workload, machines, scheduler = scenario(3)
    WindowTwin(workload, machines, scheduler).save(tmp_path / "twin.npz")
    with pytest.raises(SimulationError, match="with other jobs"):
        WindowTwin.load(tmp_path / "twin.npz", replace(workload, run_s=workload.run_s + 1.0), machines, scheduler)
    with pytest.raises(SimulationError, match="another scheduler"):
        WindowTwin.load(tmp_path / "twin.npz", workload, machines, replace(scheduler, backfill=Easy()))
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(SimulationError, match="holds no saved twin"):
        WindowTwin.load(tmp_path / "other.npz", workload, machines, scheduler)


def test_what_it_does_not_know_is_refused_by_name():
    """Dependencies, cancellations, outages and other rules are left to the reference, in words."""
    workload, machines, scheduler = scenario(4)
    assert supported(workload, scheduler) == ""
    some = np.array([not reason for reason in workload.refused])
    waits = replace(workload, parents=some.astype(np.int64))
    leaves = replace(workload, cancel_s=np.where(some, 5.0, np.inf))
    looking: Any = SimpleNamespace(look=lambda twin: None)
    accepting: Any = SimpleNamespace(accepts=lambda twin, job: True)
    for load, rules, words in (
        (waits, scheduler, "wait for other jobs"),
        (leaves, scheduler, "gives up"),
        (workload, replace(scheduler, order=looking), "keep accounts"),
        (workload, replace(scheduler, admission=(looking,)), "admission"),
        (workload, replace(scheduler, filters=(looking,)), "where a job may run"),
        (workload, replace(scheduler, inspector=accepting), "inspectors"),
        (workload, replace(scheduler, preempts=True), "displaced"),
        (workload, replace(scheduler, checkpoint=Checkpoint(1.0, 1.0)), "checkpoints"),
        (workload, replace(scheduler, placement=lambda capacity, job, among: iter(())), "the placement"),
        (workload, replace(scheduler, placement=looking), "look at more than what is free, as SimpleNamespace"),
        (
            workload,
            replace(
                scheduler,
                backfill=type("Other", (), {"plans": False, "excludes": (), "start": lambda self, twin: None})(),
            ),
            "backfill Other",
        ),
    ):
        assert words in supported(load, rules)
        with pytest.raises(SimulationError, match=r"use simulator\.JobTwin"):
            WindowTwin(load, machines, rules)
    with pytest.raises(SimulationError, match="machines that fail"):
        WindowTwin(workload, machines, scheduler, outages=[Outage(1.0, 1.0, (0,))])
    with pytest.raises(SimulationError, match="observers"):
        WindowTwin(workload, machines, scheduler, observers=[looking])


def test_every_part_of_a_scheduler_is_known_or_refused():
    """Whoever adds one has to say what this engine does about it."""
    done = {"order", "backfill", "placement", "kill", "retries"}  # nothing is lost here, so that nothing is retried
    refused = {"admission", "filters", "inspector", "preempts", "checkpoint"}
    assert {field.name for field in fields(Scheduler)} == done | refused


def test_stored_code_is_told_apart_by_all_files_that_it_comes_from(tmp_path: Path):
    """A step in one file calls those in others: when any changes, none of the stored ones is taken for the new."""
    (tmp_path / "window_a.py").write_text("1")
    (tmp_path / "window_b.py").write_text("2")
    before = version(tmp_path.glob("window_*.py"))
    (tmp_path / "window_b.py").write_text("3")
    assert version(tmp_path.glob("window_*.py")) != before
    here = version(Path(window_loop.__file__).parent.glob("window_*.py"))
    assert window_loop.advance.__qualname__ == f"advance_{here}"


def test_time_does_not_go_back_and_plans_need_estimates():
    """The same errors as the reference."""
    workload, machines, scheduler = scenario(4)
    twin = WindowTwin(workload, machines, scheduler)
    twin.run(10.0)
    with pytest.raises(SimulationError, match="lies before now"):
        twin.run(9.0)
    with pytest.raises(SimulationError, match="lies before now"):
        twin.run(float("nan"))
    with pytest.raises(SimulationError, match="have no estimate"):
        WindowTwin(
            replace(workload, limit_s=np.full(len(workload), np.inf)), machines, replace(scheduler, backfill=Easy())
        )


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_that_nobody_asked_for_is_made_anew(seed: int) -> None:
    """Hours in which nobody waits, then a crowd, and again: the promises to its heads are those of the reference."""
    rng = np.random.default_rng(seed)
    machines = machines_.uniform(6, 8.0, 64.0, 2.0)
    quiet, crowd = 150, 60
    some = jobs(rng, machines, 2 * (quiet + crowd))
    gaps_s = np.tile(np.concatenate([np.full(quiet, 40.0), np.zeros(crowd)]), 2)
    run_s = rng.choice([5.0, 30.0, 100.0, 400.0], len(some))
    limit_s = run_s * rng.choice([1.0, 1.5, 3.0], len(some))
    load = replace(some, submit_s=np.cumsum(gaps_s), run_s=run_s, limit_s=limit_s)
    scheduler = Scheduler(orders.Fcfs(), Easy())
    reference, fast = JobTwin(load, machines, scheduler), WindowTwin(load, machines, scheduler)
    reference.run()
    fast.run()
    same(fast, reference)
    waited = reference.columns["start_s"] > load.submit_s
    assert waited[quiet : quiet + crowd].any()
    assert not waited[: quiet // 2].all()


def test_until_for_ever_is_until_nothing_is_left() -> None:
    """As the reference: an infinite time ends with the last job."""
    workload, machines, scheduler = scenario(4)
    for engine in (WindowTwin, JobTwin):
        twin, whole = engine(workload, machines, scheduler), engine(workload, machines, scheduler)
        twin.run(np.inf)
        whole.run()
        assert twin.now_s == whole.now_s < np.inf
        np.testing.assert_array_equal(twin.columns["end_s"], whole.columns["end_s"])
