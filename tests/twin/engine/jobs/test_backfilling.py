"""Who may overtake: held against simulators of a few lines, and to what EASY promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin.engine.jobs.conftest import PLACEMENTS, random_sizes, simple, states, trace_of, twin_of
from twin.engine.jobs import machines as machine
from twin.engine.jobs import workload
from twin.engine.jobs.capacity import Ordering
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Scheduler
from twin.engine.jobs.simulator import JobTwin
from twin.engine.scheduling import orders
from twin.engine.scheduling.backfill import Easy, Strict, reservation, start_head
from twin.trace.trace import Trace


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


@settings(max_examples=80)
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


@dataclass(frozen=True, slots=True)
class Promising:
    """EASY that writes down what it promises to each head that is blocked."""

    promises: list[tuple[int, float]]
    plans: bool = True
    excludes: tuple[str, ...] = ()

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
