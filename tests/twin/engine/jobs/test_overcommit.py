"""Jobs that share what their machines really have, while the twin runs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.twin.engine.jobs.conftest import random_world, same, states
from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.contention import Policy, contend
from twin.engine.jobs.overcommit import Contention, Demand, demand, overcommitted
from twin.engine.jobs.scheduler import Observer, Outage, Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Greedy
from twin.errors import SimulationError
from twin.trace.trace import Trace, TraceInfo

ANYWAY = Scheduler(orders.Fcfs(), Greedy())


def trace_of(jobs: pl.DataFrame, usage: pl.DataFrame | None = None) -> Trace:
    frames = {"jobs": jobs} if usage is None else {"jobs": jobs, "usage": usage}
    return Trace(TraceInfo("test", "made by a test", "none", "0" * 64), frames)


def play(
    trace: Trace, real: machine.Machines, promised: float, policy: Policy, *, outages: tuple[Outage, ...] = ()
) -> tuple[JobTwin, Contention]:
    seen = overcommitted(real, promised)
    load = workload.estimated(workload.of(trace, seen))
    shared = Contention(demand(load, trace), real, policy)
    twin = JobTwin(load, seen, ANYWAY, observers=(shared,), outages=outages)
    twin.run()
    return twin, shared


def jobs_of(*rows: tuple[float, float, float]) -> pl.DataFrame:
    frame = pl.DataFrame(list(rows), schema=["submit_s", "run_s", "cpu_cores"], orient="row")
    return frame.with_columns(job=pl.int_range(pl.len()).cast(pl.String))


def test_two_jobs_on_one_core_take_twice_as_long() -> None:
    """Both at half pace until the shorter one is done at 20 s, then the other alone: 10 + 5 s more."""
    trace = trace_of(jobs_of((0, 10, 1), (0, 15, 1)))
    twin, shared = play(trace, machine.uniform(1, 1), 2.0, "stretch")
    assert twin.columns["end_s"].tolist() == [20.0, 25.0]
    assert shared.lost_core_s.tolist() == [0.0, 0.0]
    assert shared.asked_core_s.tolist() == [10.0, 15.0], "the work that they did, however long it took"
    assert shared.stretched_s.tolist() == [10.0, 10.0]
    twin, shared = play(trace, machine.uniform(1, 1), 2.0, "lose")
    assert twin.columns["end_s"].tolist() == [10.0, 15.0]
    assert shared.lost_core_s.tolist() == [5.0, 5.0]
    assert shared.asked_core_s.tolist() == [10.0, 15.0]
    assert shared.stretched_s.tolist() == [0.0, 0.0]


def test_a_gang_gets_on_at_the_pace_of_its_slowest() -> None:
    """One instance shares its machine with another job and the other waits for it: both take twice as long."""
    gang = jobs_of((0, 30, 1), (0, 10, 1)).with_columns(instances=pl.Series([1, 2]))
    seen = overcommitted(machine.uniform(2, 1), 2.0)
    trace = trace_of(gang)
    load = workload.estimated(workload.of(trace, seen))
    shared = Contention(demand(load, trace), machine.uniform(2, 1))
    twin = JobTwin(load, seen, ANYWAY, observers=(shared,))
    twin.run()
    assert twin.columns["end_s"].tolist() == [40.0, 20.0]


def test_use_below_what_is_held_does_not_contend() -> None:
    """Four jobs that hold a core and use a quarter of it fit on one core."""
    trace = trace_of(jobs_of(*[(0, 10, 1)] * 4).with_columns(used_cpu_cores=pl.lit(0.25)))
    twin, _ = play(trace, machine.uniform(1, 1), 4.0, "stretch")
    assert twin.columns["end_s"].tolist() == [10.0] * 4


@pytest.mark.parametrize("policy", ["stretch", "lose"])
def test_it_agrees_with_the_study_of_one_machine(policy: Policy) -> None:
    """Random pieces on one machine: the same ends and losses as `contend` computes for it alone."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        count, pieces = int(rng.integers(2, 8)), int(rng.integers(1, 6))
        start_s = np.sort(rng.integers(0, 20, count)).astype(float)
        lasts_s, cores = rng.integers(1, 9, (count, pieces)).astype(float), rng.integers(0, 5, (count, pieces)) / 2
        jobs = jobs_of(*((s, r, 4.0) for s, r in zip(start_s, lasts_s.sum(axis=1), strict=True)))
        first = np.arange(count + 1) * pieces
        asked = Demand(first, np.cumsum(lasts_s, axis=1).ravel(), cores.ravel())
        real, seen = machine.uniform(1, 4), machine.uniform(1, 4.0 * count)
        load = workload.estimated(workload.of(trace_of(jobs), seen))
        shared = Contention(asked, real, policy)
        twin = JobTwin(load, seen, ANYWAY, observers=(shared,))
        twin.run()
        alone = contend(start_s, first, lasts_s.ravel(), cores.ravel(), 4.0, policy)
        np.testing.assert_allclose(twin.columns["end_s"], alone.end_s, rtol=1e-9)
        np.testing.assert_allclose(shared.lost_core_s, alone.lost_core_s, rtol=1e-9, atol=1e-9)
        done_core_s = shared.asked_core_s - shared.lost_core_s
        np.testing.assert_allclose(done_core_s, alone.done_core_s, rtol=1e-9)
        late_s = twin.columns["end_s"] - start_s - lasts_s.sum(axis=1)
        np.testing.assert_allclose(shared.stretched_s, late_s, rtol=1e-9, atol=1e-9)


def test_recorded_use_is_carried_over() -> None:
    """Steps of 5 s at 2, then 0.5 cores, and a pause at the end; values of the whole job fall to its instances."""
    jobs = jobs_of((100, 15, 1)).with_columns(start_s=pl.lit(100.0), instances=pl.lit(2, dtype=pl.Int64))
    usage = pl.DataFrame({"entity": "0", "time_s": [100.0, 105.0], "step_s": 5.0, "value": [2.0, 0.5]}).with_columns(
        resource=pl.lit("cpu"), unit=pl.lit("core")
    )
    trace = trace_of(jobs, usage)
    asked = demand(workload.of(trace, machine.uniform(2, 1)), trace)
    assert asked.first.tolist() == [0, 2]
    assert (asked.until_s.tolist(), asked.cores.tolist()) == ([5.0, 10.0], [1.0, 0.25])


def test_without_contention_nothing_changes() -> None:
    """Machines that have what they promise: the twin does what it does without anybody looking on."""
    for seed in range(15):
        world = random_world(seed)
        plain = world.twin()
        shared = Contention(demand(plain.workload, world.trace), world.machines)
        seen = JobTwin(plain.workload, world.machines, world.scheduler, outages=world.outages, observers=(shared,))
        plain.run()
        seen.run()
        # what was planned for a job that ended sooner still wakes the observer, perhaps after the last end
        plain.run(max(plain.now_s, seen.now_s))
        assert same(plain, seen)


def test_what_is_lost_with_a_machine_is_done_again() -> None:
    """Half pace for 8 s, then the machine fails: all ten seconds are before both again."""
    trace = trace_of(jobs_of((0, 10, 1), (0, 10, 1)))
    twin, _ = play(trace, machine.uniform(1, 1), 2.0, "stretch", outages=(Outage(8.0, 2.0, (0,)),))
    assert states(twin) == {"0": "done", "1": "done"}
    assert twin.columns["end_s"].tolist() == [30.0, 30.0]


@pytest.mark.parametrize("policy", ["stretch", "lose"])
def test_a_fork_that_shares_on_ends_as_the_original(policy: Policy) -> None:
    """Whenever it was taken, with the same accounts; neither disturbs the other, and a fork alone goes at full pace."""
    rng = np.random.default_rng(5)
    used = [{"submit_s": float(rng.integers(0, 30)), "run_s": float(rng.integers(1, 20))} for _ in range(30)]
    trace = trace_of(jobs_of(*((row["submit_s"], row["run_s"], 1.0) for row in used)))
    real = machine.uniform(2, 2)
    whole, kept = play(trace, real, 2.5, policy)
    for at_s in (0.0, 7.0, 12.3, 25.0, 60.0):
        load = workload.estimated(workload.of(trace, overcommitted(real, 2.5)))
        shared = Contention(demand(load, trace), real, policy)
        twin = JobTwin(load, overcommitted(real, 2.5), ANYWAY, observers=(shared,))
        twin.run(at_s)
        what_if, alone = twin.fork(), twin.fork()
        copied = shared.copy(what_if)
        what_if.observers = (copied,)
        for each in (what_if, alone, twin):
            each.run()
        for ended, accounts in ((what_if, copied), (twin, shared)):
            np.testing.assert_allclose(ended.columns["end_s"], whole.columns["end_s"], rtol=1e-12)
            for name in ("asked_core_s", "lost_core_s", "stretched_s"):
                np.testing.assert_allclose(getattr(accounts, name), getattr(kept, name), rtol=1e-9, atol=1e-9)
        if policy == "stretch" and at_s < 30.0:
            assert alone.columns["end_s"].max() < whole.columns["end_s"].max()


def test_what_cannot_be_is_refused() -> None:
    """A promise below what there is, and an unknown policy."""
    with pytest.raises(SimulationError, match=r"cpu=0\.5 cores promised"):
        overcommitted(machine.uniform(1, 1), 0.5)
    nothing = Demand(np.zeros(1, dtype=np.int64), np.zeros(0), np.zeros(0))
    with pytest.raises(SimulationError, match="policy 'share' is unknown"):
        Contention(nothing, machine.uniform(1, 1), "share")  # pyright: ignore[reportArgumentType]


def test_observers_need_to_hear_nothing() -> None:
    """One that overrides nothing is allowed, and changes nothing."""
    world = random_world(2)
    plain = world.twin()
    seen = JobTwin(plain.workload, world.machines, world.scheduler, outages=world.outages, observers=(Observer(),))
    plain.run()
    seen.run()
    assert same(plain, seen)
