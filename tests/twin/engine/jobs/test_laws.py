"""Jobs in the twin: laws that hold for every trace, cluster, scheduler and row of mishaps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest

from tests.twin.engine.jobs.conftest import (
    BACKFILLS,
    GPU_MODELS,
    REQUIRES,
    TOLERATES,
    World,
    attempts_of,
    check_books,
    random_sizes,
    random_world,
    states,
    trace_of,
    twin_of,
)
from twin.engine.jobs import machines as machine
from twin.engine.jobs import outcomes
from twin.engine.jobs.capacity import Capacity, place
from twin.engine.jobs.machines import WHOLE_GPU
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Backfill, Greedy


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


@dataclass(frozen=True, slots=True)
class Watched:
    """A backfill that looks at the twin each time it was asked."""

    inner: Backfill
    seen: list[float]

    @property
    def plans(self) -> bool:
        return self.inner.plans

    @property
    def excludes(self) -> tuple[str, ...]:
        return self.inner.excludes

    def start(self, twin: JobTwin) -> None:
        self.inner.start(twin)
        self.seen.append(twin.now_s)
        check_books(twin)
        if isinstance(self.inner, Greedy):
            copy = twin.capacity.copy()
            assert all(place(copy, job, Capacity.lowest_first) is None for _, job in twin.queue)


@pytest.mark.parametrize("backfill", BACKFILLS, ids=lambda b: type(b).__name__)
def test_the_books_are_right_at_every_moment(backfill: Backfill) -> None:
    """A device never lends more than itself; greedy leaves nobody waiting who fits."""
    for seed in range(100, 106):
        world, seen = random_world(seed), []
        watched = replace(world.scheduler, backfill=Watched(backfill, seen))
        twin_of(world.trace, world.machines, watched, outages=world.outages).run()
        assert len(seen) > 10


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
