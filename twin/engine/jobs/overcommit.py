"""Jobs that use more or less than they hold, on machines that promise more than they have, while the twin runs.

The scheduler sees `overcommitted` machines. What the jobs on a machine really use over time comes from the recording;
where that is more than the machine has, its processor is shared max-min fairly (`contention`), and a job that gets
less either takes longer ("stretch") or loses work and ends on time ("lose"). A job of several instances gets on at the
pace of its slowest one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush

import numpy as np
import polars as pl

from twin.engine.jobs import fragments as fragment
from twin.engine.jobs.capacity import Held
from twin.engine.jobs.contention import POLICIES, Policy, fair_shares
from twin.engine.jobs.machines import CPU, UNITS, Machines, uniform
from twin.engine.jobs.scheduler import Observer
from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import F8, I8, Workload
from twin.errors import SimulationError
from twin.trace.trace import Trace


def overcommitted(machines: Machines, cpu: float) -> Machines:
    """The machines as a scheduler sees them that promises `cpu` cores for each one that there is.

    Raises:
        SimulationError: `cpu` is below 1.
    """
    if not cpu >= 1.0:
        raise SimulationError(f"cpu={cpu:g} cores promised for each core: it must be 1 or more")
    capacity = machines.capacity.copy()
    capacity[:, CPU] = np.floor(capacity[:, CPU] * cpu)
    return replace(machines, capacity=capacity)


@dataclass(frozen=True, slots=True)
class Demand:
    """What each instance of a job uses, in seconds of its own run at full pace.

    The pieces of job j are `first[j]:first[j + 1]`; each lasts until `until_s` and uses `cores`; the last never ends.
    """

    first: I8  # [jobs + 1]
    until_s: F8  # [pieces]
    cores: F8  # [pieces]


def demand(workload: Workload, trace: Trace, *, core_mhz: float | None = None) -> Demand:
    """What was recorded about what the jobs used; a job of which nothing was recorded uses what it holds.

    Raises:
        SimulationError: the use is told in a unit that means nothing here, or in MHz without `core_mhz`.
    """
    count = len(workload)
    runs_s = np.where(np.isfinite(workload.run_s), workload.run_s, 0.0)
    placed = pl.DataFrame(
        {
            "job": workload.names,
            "start_s": np.zeros(count),
            "end_s": runs_s,
            "instances": workload.instances,
            "cpu_cores": workload.cores(np.arange(count)),
        }
    ).with_columns(node=pl.lit("any-0"))
    told = fragment.fragments(placed, trace.usage, trace.jobs, uniform(1, 1.0, name="any"), core_mhz=core_mhz)
    return _without_gaps(told, workload.instances)


def _without_gaps(told: fragment.Fragments, instances: I8) -> Demand:
    """Pauses become pieces that use nothing."""
    counts = np.diff(told.first)
    owner = np.repeat(np.arange(len(counts)), counts)
    before_s = np.append(0.0, told.end_s[:-1])[: len(owner)]
    before_s[told.first[:-1][counts > 0]] = 0.0
    pause = told.begin_s > before_s
    size = np.where(pause, 2, 1)
    last = np.cumsum(size) - 1
    until_s, cores = np.zeros(int(size.sum())), np.zeros(int(size.sum()))
    until_s[last], cores[last] = told.end_s, told.used / UNITS[CPU] / np.maximum(instances, 1)[owner]
    until_s[last[pause] - 1] = told.begin_s[pause]
    first = np.concatenate([[0], np.cumsum(np.bincount(owner, size, len(counts)))]).astype(np.int64)
    return Demand(first, until_s, cores)


_ACCOUNTS = ("asked_core_s", "lost_core_s", "stretched_s")


class Contention(Observer):
    """Lets the jobs of a twin share what their machines really have.

    `asked_core_s` is the work that came up for each job so far and `lost_core_s` the part that was not done: the rest
    was done, under both policies. Work that a job must do again because its machine was lost comes up again.
    `stretched_s` says by how much longer the job ran than it would have with all that it asked for.

    Neither a fork nor a twin that was saved is watched by anybody, and its jobs go on at full pace. A fork goes on
    sharing with `what_if.observers = (shared.copy(what_if),)`, as long as no time has passed in either.
    """

    def __init__(self, demand: Demand, machines: Machines, policy: Policy = "stretch") -> None:
        """Nothing runs; `machines` are what there really is.

        Raises:
            SimulationError: an unknown policy.
        """
        if policy not in POLICIES:
            raise SimulationError(f"policy {policy!r} is unknown; known: {list(POLICIES)}")
        self._demand, self._stretch = demand, policy == "stretch"
        self._cores = machines.capacity[:, CPU] / UNITS[CPU]
        self._on: list[dict[int, int]] = [{} for _ in range(len(machines))]
        self._share: dict[tuple[int, int], float] = {}  # of what it asks for: (job, machine)
        self._piece: dict[int, int] = {}
        self._own_s: dict[int, tuple[float, float, float]] = {}  # its own time, since when, pace
        self._due: list[tuple[float, int]] = []  # when a piece ends, as it was planned: time, job
        self._due_s: dict[int, float] = {}  # when it really does
        self._touched: set[int] = set()  # machines
        jobs = len(demand.first) - 1
        self.asked_core_s, self.lost_core_s, self.stretched_s = np.zeros(jobs), np.zeros(jobs), np.zeros(jobs)

    def copy(self, fork: JobTwin) -> Contention:
        """What shares on in a fork of the twin, taken just now; it sets the pace of every job anew when the fork runs.

        Its accounts begin with what there was up to the fork.
        """
        other = object.__new__(Contention)
        other.__dict__.update(self.__dict__)
        other._on = [jobs.copy() for jobs in self._on]
        for name in ("_share", "_piece", "_own_s", "_due", "_due_s", *_ACCOUNTS):
            setattr(other, name, getattr(self, name).copy())
        other.settle(fork)
        other._own_s = {job: (own_s, since_s, 1.0) for job, (own_s, since_s, _) in other._own_s.items()}
        other._touched = {machine for machine, jobs in enumerate(other._on) if jobs}
        fork.wake_at(fork.now_s)
        return other

    def started(self, twin: JobTwin, job: int, held: Held) -> None:
        """It begins where its last checkpoint left it."""
        own_s = float(twin.columns["kept_s"][job])
        self._own_s[job] = (own_s, twin.now_s, 1.0)
        begin, end = self._demand.first[job : job + 2].tolist()
        self._piece[job] = begin + int(np.searchsorted(self._demand.until_s[begin:end], own_s, side="right"))
        for machine, instances, _ in held:
            self._on[machine][job] = instances
            self._share[job, machine] = 1.0
            self._touched.add(machine)

    def ended(self, twin: JobTwin, job: int, held: Held) -> None:
        """What it used is free for the others."""
        self._book(twin, job, held)
        for machine, _, _ in held:
            del self._on[machine][job], self._share[job, machine]
            self._touched.add(machine)
        del self._own_s[job], self._piece[job]
        self._due_s.pop(job, None)

    def looked(self, twin: JobTwin) -> None:
        """Share anew where something changed."""
        while self._due and self._due[0][0] <= twin.now_s:
            due_s, job = heappop(self._due)
            if self._due_s.get(job) == due_s:
                del self._due_s[job]
                self._turn(twin, job)
        changed: dict[int, None] = {}
        for machine in sorted(self._touched):
            changed.update(dict.fromkeys(self._on[machine]))
        for job in changed:
            self._book(twin, job, twin.held[job])
        for machine in sorted(self._touched):
            self._divide(machine)
        self._touched.clear()
        for job in changed:
            self._go_on(twin, job)

    def settle(self, twin: JobTwin) -> None:
        """Bring the accounts of all who run up to now: they are kept only when something changes."""
        for job in self._own_s:
            self._book(twin, job, twin.held[job])

    def _turn(self, twin: JobTwin, job: int) -> None:
        """The job's next piece begins."""
        self._book(twin, job, twin.held[job])
        _, since_s, pace = self._own_s[job]
        self._own_s[job] = (float(self._demand.until_s[self._piece[job]]), since_s, pace)
        self._piece[job] += 1
        self._touched.update(machine for machine, _, _ in twin.held[job])

    def _asks(self, job: int) -> float:
        """Cores of each instance now."""
        piece = self._piece[job]
        return float(self._demand.cores[piece]) if piece < self._demand.first[job + 1] else 0.0

    def _divide(self, machine: int) -> None:
        jobs = [(job, instances) for job, instances in self._on[machine].items()]
        asked = np.array([self._asks(job) for job, instances in jobs for _ in range(instances)])
        given = fair_shares(asked, float(self._cores[machine]))
        at = 0
        for job, instances in jobs:
            self._share[job, machine] = given[at] / asked[at] if asked[at] > 0.0 else 1.0
            at += instances

    def _pace(self, job: int, machines: Iterable[int]) -> float:
        return min(self._share[job, machine] for machine in machines)

    def _go_on(self, twin: JobTwin, job: int) -> None:
        """Set the job's pace, and plan the end of its piece."""
        own_s, since_s, before = self._own_s[job]
        pace = self._pace(job, (machine for machine, _, _ in twin.held[job])) if self._stretch else 1.0
        if pace != before:
            twin.pace(job, pace)
        self._own_s[job] = (own_s, since_s, pace)
        piece = self._piece[job]
        self._due_s.pop(job, None)
        if piece < self._demand.first[job + 1] and pace > 0.0:
            due_s = twin.now_s + (float(self._demand.until_s[piece]) - own_s) / pace
            self._due_s[job] = due_s
            heappush(self._due, (due_s, job))
            twin.wake_at(due_s)

    def _book(self, twin: JobTwin, job: int, held: Held) -> None:
        """Bring the job's own time and accounts up to now."""
        own_s, since_s, pace = self._own_s[job]
        span_s = twin.now_s - since_s
        asks = self._asks(job)
        for machine, instances, _ in held:
            work_core_s = asks * instances * span_s * pace
            self.asked_core_s[job] += work_core_s
            if not self._stretch:
                self.lost_core_s[job] += work_core_s * (1.0 - self._share[job, machine])
        self.stretched_s[job] += span_s * (1.0 - pace)
        self._own_s[job] = (own_s + span_s * pace, twin.now_s, pace)
