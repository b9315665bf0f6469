"""The fast engine of jobs: what `simulator.JobTwin` does, compiled, a window of simulated time at a go.

The same jobs start on the same machines at the same moments; the tests hold it to that, event by event. SimPy owns the
clock and wakes the twin once for each tick in which anything happens; within a tick, one compiled loop over flat
arrays (`window_state`) goes from event to event. Jobs that wait for others or give up, and machines that fail, are
left to the reference.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.jobs import window_state as ws
from twin.engine.jobs.capacity import Capacity, Held
from twin.engine.jobs.machines import UNLIMITED, Machines
from twin.engine.jobs.simulator import DONE, EXPECTED, KILLED, RUNNING, WAITING, Outage, Scheduler
from twin.engine.jobs.window_state import (
    CHANGING,
    EASY,
    ENDS,
    FREE_CPU,
    GREEDY,
    HEAD,
    INSTANCES,
    NEXT,
    NONE,
    ORDERED,
    PLANNED,
    RANK,
    TAIL,
    TOTAL_CPU,
    Fixed,
    Scratch,
    State,
)
from twin.engine.jobs.workload import F8, I8, NEVER, Workload
from twin.engine.scheduling.backfill import Easy, Greedy, Strict
from twin.engine.scheduling.orders import Unicep, Wfp3
from twin.errors import SimulationError

TICK_S = 3600.0
FORMAT = 1
_BACKFILLS = {Strict: ws.STRICT, Greedy: ws.GREEDY, Easy: ws.EASY}
_PLACEMENTS: dict[object, int] = {
    Capacity.lowest_first: ws.LOWEST,
    Capacity.fullest_first: ws.FULLEST,
    Capacity.emptiest_first: ws.EMPTIEST,
}
_ORDER_ANEW = 1  # what `advance` returns when the queue has to be put in order first


def supported(workload: Workload, scheduler: Scheduler) -> str:
    """Why this engine cannot do it, in words that end a sentence; "" where it can."""
    runs = np.array([not reason for reason in workload.refused], dtype=bool)
    if (workload.parents[runs] > 0).any():
        return "jobs that wait for other jobs"
    if np.isfinite(workload.cancel_s[runs]).any():
        return "jobs whose owner gives up waiting"
    if scheduler.admission or scheduler.preempts or scheduler.checkpoint is not None:
        return "rules of admission, displaced jobs and checkpoints"
    if type(scheduler.backfill) not in _BACKFILLS:
        return f"the backfill {type(scheduler.backfill).__name__}"
    if scheduler.placement not in _PLACEMENTS:
        return f"the placement {getattr(scheduler.placement, '__name__', scheduler.placement)}"
    return ""


class WindowTwin:
    """A cluster of machines with its queue, as `JobTwin`, without what `supported` names."""

    def __init__(
        self,
        workload: Workload,
        machines: Machines,
        scheduler: Scheduler,
        *,
        outages: Sequence[Outage] = (),
        tick_s: float = TICK_S,
    ) -> None:
        """An empty cluster at second 0 that SimPy wakes every `tick_s` of simulated time.

        Raises:
            SimulationError: something asked for is left to the reference, the scheduler plans ahead and a job has no
                estimate, or `tick_s` is not above zero.
        """
        reason = "machines that fail or are drained" if outages else supported(workload, scheduler)
        if reason:
            raise SimulationError(f"the fast engine does not know {reason}: use simulator.JobTwin, the reference")
        if not tick_s > 0:
            raise SimulationError(f"tick_s={tick_s:g} must be above 0")
        without = np.flatnonzero(np.isinf(workload.limit_s) & np.array([not r for r in workload.refused], dtype=bool))
        if scheduler.backfill.plans and len(without):
            raise SimulationError(
                f"{len(without)} jobs have no estimate (the first is {workload.names[int(without[0])]!r}), and this "
                "scheduler plans with estimates: fill them with workload.estimated, or choose another backfill"
            )
        self.workload, self.machines, self.scheduler, self.tick_s = workload, machines, scheduler, tick_s
        order = scheduler.order
        keys = None if order.changing else order.keys(workload, np.arange(len(workload)), 0.0)
        rules = (_PLACEMENTS[scheduler.placement], _BACKFILLS[type(scheduler.backfill)])
        self._fixed = ws.fixed(workload, machines, keys, rules, kill=scheduler.kill)
        self._work = ws.scratch(machines)
        self.state = ws.empty(workload, machines, self._fixed, plans=scheduler.backfill.plans)
        self.now_s = 0.0
        self._env, self._due_s = simpy.Environment(), NEVER
        self._plan()

    # -------------------------------------------------- the clock

    def run(self, until_s: float | None = None) -> None:
        """Let time pass until `until_s`, what happens then included; until nothing is left to happen by default."""
        if until_s is None:
            self._env.run()
            return
        if until_s < self.now_s:
            raise SimulationError(f"until_s={until_s:g} lies before now, {self.now_s:g}: fork earlier to go back")
        while self._due_s <= until_s:
            self._env.step()
        self._advance(until_s)
        self.now_s = until_s

    def _plan(self) -> None:
        """Ask SimPy to wake us at the end of the tick in which the next thing happens."""
        due_s = float(next_s(self._fixed, self.state))
        self._due_s = NEVER
        if due_s < NEVER:
            # a tick may end a rounding before the moment that it holds; the later of the two is the one to wake at
            self._due_s = max(math.ceil(due_s / self.tick_s) * self.tick_s, due_s)
            event = simpy.Event(self._env)
            event._ok, event._value = True, None
            event.callbacks = [self._wake]
            self._env.schedule(event, delay=max(self._due_s - self._env.now, 0.0))

    def _wake(self, _event: simpy.Event) -> None:
        self._advance(self._due_s)
        self.now_s = max(self.now_s, float(self.state.now_s[0]))
        self._plan()

    def _advance(self, until_s: float) -> None:
        while advance(self._fixed, self.state, self._work, until_s) == _ORDER_ANEW:
            self._reorder()

    def _reorder(self) -> None:
        """Put the queue in the order that holds now: NumPy works the keys out, so that they tie as in the reference."""
        count = self.state.number
        waiting = self.state.queue[count[HEAD] : count[TAIL]]
        jobs = waiting.astype(np.int64)
        keys = _keys(self.scheduler, self.workload, jobs, float(self.state.now_s[0]))
        waiting[:] = jobs[np.lexsort((jobs, keys))]
        count[ORDERED] = 1

    # -------------------------------------------------- how it stands

    @property
    def columns(self) -> dict[str, NDArray]:
        """What became of each job so far, with the names and meanings of `JobTwin.columns` [jobs]; copies."""
        state = self.state
        ended = (state.status == DONE) | (state.status == KILLED)
        return {
            "state": state.status.copy(),
            "attempts": (ended | (state.status == RUNNING)).astype(np.int32),
            "first_start_s": state.start_s.copy(),
            "start_s": state.start_s.copy(),
            "end_s": state.end_s.copy(),
            "ran_s": np.where(ended, state.end_s - state.start_s, 0.0),
            "kept_s": np.zeros(len(self.workload)),
        }

    @property
    def queue(self) -> I8:
        """The jobs that wait, in the order in which they were last looked at."""
        count = self.state.number
        return self.state.queue[count[HEAD] : count[TAIL]].astype(np.int64)

    @property
    def first_machine(self) -> NDArray[np.int32]:
        """The first machine that each job took [jobs]; -1 for those that never started."""
        return self.state.machine.copy()

    @property
    def held(self) -> dict[int, Held]:
        """What each running job holds."""
        return {job: self._held(job) for job in np.flatnonzero(self.state.status == RUNNING).tolist()}

    def _held(self, job: int) -> Held:
        state, facts = self.state, self._fixed
        parts = [(int(state.machine[job]), 1)]
        if facts.jobs[job, INSTANCES] > 1:
            parts = [(machine, count) for machine, count in _listed(state.slots, int(state.first_slot[job]))]
        devices: list[int] = []
        if facts.jobs[job, ws.GPU]:
            devices = [device for (device,) in _listed(state.device_slots, int(state.first_device[job]))]
        begin = facts.device_begin
        here = lambda m: tuple(int(d - begin[m]) for d in devices if begin[m] <= d < begin[m + 1])  # noqa: E731
        return tuple((machine, count, here(machine)) for machine, count in parts)

    # -------------------------------------------------- copies

    def fork(self) -> WindowTwin:
        """A second twin in the same state, independent from now on: what if, from now."""
        twin = object.__new__(WindowTwin)
        twin.__dict__.update(self.__dict__)
        twin._work = ws.scratch(self.machines)
        twin._stand(ws.copied(self.state), self.now_s)
        return twin

    def _stand(self, state: State, now_s: float) -> None:
        self.state, self.now_s = state, now_s
        # a tick that has begun ends where it would have ended
        self._env = simpy.Environment(now_s)
        self._plan()

    def save(self, path: str | Path) -> None:
        """Write the state to `path`, as arrays in an .npz file."""
        with Path(path).open("wb") as file:
            stamp = np.array([FORMAT, self._checksum()], dtype=np.int64)
            np.savez(file, stamp=stamp, clock_s=np.array([self.now_s, self.tick_s]), **self.state._asdict())

    @classmethod
    def load(cls, path: str | Path, workload: Workload, machines: Machines, scheduler: Scheduler) -> WindowTwin:
        """The twin that was saved to `path`.

        Raises:
            SimulationError: the file cannot be read, or was saved with other jobs, machines or another scheduler.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            stamp, (now_s, tick_s) = arrays.pop("stamp").tolist(), arrays.pop("clock_s").tolist()
            state = State(**arrays)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise SimulationError(f"{path} holds no saved twin ({error}): save one with WindowTwin.save") from error
        twin = cls(workload, machines, scheduler, tick_s=tick_s)
        if stamp != [FORMAT, twin._checksum()] or not _alike(state, twin.state):
            raise SimulationError(
                f"{path} was saved with other jobs, machines or another scheduler: load it with these"
            )
        twin._stand(state, now_s)
        return twin

    def _checksum(self) -> int:
        value = 0
        for array in (*self._fixed, self.machines.capacity):
            value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
        return zlib.crc32(repr(self.scheduler.order).encode(), value)


def _alike(one: State, other: State) -> bool:
    return all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def _listed(slots: I8, slot: int) -> list[list[int]]:
    """The entries of a linked list, the first taken first."""
    found = []
    while slot != NONE:
        found.append(slots[slot, :-1].tolist())
        slot = int(slots[slot, -1])
    return found[::-1]


def _keys(scheduler: Scheduler, workload: Workload, jobs: I8, now_s: float) -> F8:
    """The keys of some jobs.

    The two formulas that are known are asked about these jobs alone: they are computed element by element, so that
    the values are the same, and the cost does not grow with the jobs that do not wait.
    """
    if type(scheduler.order) not in (Wfp3, Unicep):
        return scheduler.order.keys(workload, jobs, now_s)
    part = replace(
        workload,
        submit_s=workload.submit_s[jobs],
        limit_s=workload.limit_s[jobs],
        request=workload.request[jobs],
        instances=workload.instances[jobs],
    )
    return scheduler.order.keys(part, np.arange(len(jobs)), now_s)


# ---------------------------------------------------------------------- the compiled loop


@ws.compiled
def next_s(facts: Fixed, state: State) -> float:
    """The moment at which the next thing happens; infinite where nothing is left."""
    due_s = np.inf
    if state.number[ENDS]:
        due_s = state.end_due_s[0]
    if state.number[NEXT] < len(facts.submit_s):
        due_s = min(due_s, facts.submit_s[state.number[NEXT]])
    return due_s


@ws.compiled
def advance(facts: Fixed, state: State, work: Scratch, until_s: float) -> int:
    """Go from event to event until `until_s`, what happens then included; 0 when that is done.

    Returns 1 to have the queue put in order: the caller does so, sets ORDERED and calls again.
    """
    count = state.number
    while True:
        if not count[ORDERED]:
            due_s = next_s(facts, state)
            if due_s > until_s or due_s == np.inf:
                return 0
            state.now_s[0] = due_s
            _end(facts, state, due_s)
            _arrive(facts, state, work, due_s)
            waiting = count[TAIL] - count[HEAD]
            if not waiting:
                continue
            # an order that is asked anew each time matters only when somebody may start
            if facts.rule[CHANGING] and waiting > 1:
                if not _somebody_may(facts, state):
                    continue
                return 1
        count[ORDERED] = 0
        backfill = facts.rule[ws.BACKFILL]
        if backfill == GREEDY:
            _greedy(facts, state, work)
        else:
            _strict(facts, state, work)
            if backfill == EASY:
                _easy(facts, state, work)


@ws.compiled
def _somebody_may(facts: Fixed, state: State) -> bool:
    for at in range(state.number[HEAD], state.number[TAIL]):
        if facts.jobs[state.queue[at], TOTAL_CPU] <= state.number[FREE_CPU]:
            return True
    return False


@ws.compiled
def _end(facts: Fixed, state: State, now_s: float) -> None:
    """End every job whose time has come."""
    while state.number[ENDS] and state.end_due_s[0] <= now_s:
        job = state.end_job[0]
        state.number[ENDS] -= 1
        _pop(state.end_due_s, state.end_job, state.number[ENDS])
        ws.give_back(facts, state, job)
        state.end_s[job] = now_s
        state.status[job] = KILLED if facts.jobs[job, ws.KILLED] else DONE
        if facts.rule[ws.BACKFILL] == EASY:
            _forget(state, state.start_s[job] + facts.limit_s[job], job)


@ws.compiled
def _arrive(facts: Fixed, state: State, work: Scratch, now_s: float) -> None:
    """Queue every job that has arrived."""
    count = state.number
    while count[NEXT] < len(facts.submit_s) and facts.submit_s[count[NEXT]] <= now_s:
        job = count[NEXT]
        count[NEXT] += 1
        if state.status[job] == EXPECTED:
            state.status[job] = WAITING
            _note(facts, work, job)
            _enqueue(facts, state, job)


@ws.compiled
def _enqueue(facts: Fixed, state: State, job: int) -> None:
    queue, begin, end = state.queue, state.number[HEAD], state.number[TAIL]
    rank = facts.jobs[job, RANK]
    state.number[TAIL] += 1
    if begin == end or facts.rule[CHANGING] or facts.jobs[queue[end - 1], RANK] < rank:
        queue[end] = job
        return
    low, high = begin, end
    while low < high:
        middle = (low + high) >> 1
        if facts.jobs[queue[middle], RANK] < rank:
            low = middle + 1
        else:
            high = middle
    for at in range(end, low, -1):
        queue[at] = queue[at - 1]
    queue[low] = job


# ---------------------------------------------------------------------- starting


@ws.compiled
def _start(facts: Fixed, state: State, work: Scratch, job: int, bound: int) -> bool:
    """Start a waiting job if there is room for all of it; `bound` is the epoch of a promise to be kept, or 0."""
    if facts.jobs[job, TOTAL_CPU] > state.number[FREE_CPU]:
        return False
    if facts.jobs[job, INSTANCES] == 1:
        machine = ws.find(facts, state, work, job, bound)
        if machine == NONE:
            return False
        ws.take(facts, state, work, job, machine, 1, bound)
    else:
        used = ws.choose(facts, state, work, job, bound)
        if not used:
            return False
        machine = work.chosen[0, 0]
        ws.take_gang(facts, state, work, job, used, bound)
    now_s = state.now_s[0]
    state.machine[job] = machine
    state.status[job] = RUNNING
    state.start_s[job] = now_s
    _push(state.end_due_s, state.end_job, state.number[ENDS], now_s + facts.hold_s[job], job)
    state.number[ENDS] += 1
    if facts.rule[ws.BACKFILL] == EASY:
        _plan_end(state, now_s + facts.limit_s[job], job)
    return True


@ws.compiled
def _strict(facts: Fixed, state: State, work: Scratch) -> None:
    """Start from the head of the queue as far as there is room."""
    count = state.number
    while count[HEAD] < count[TAIL] and _start(facts, state, work, state.queue[count[HEAD]], 0):
        count[HEAD] += 1


@ws.compiled
def _greedy(facts: Fixed, state: State, work: Scratch) -> None:
    """Start everyone who fits."""
    if _may_fill(state, work, state.number[FREE_CPU], np.inf):
        _fill(facts, state, work, state.number[HEAD], np.inf, 0)


@ws.compiled
def _easy(facts: Fixed, state: State, work: Scratch) -> None:
    """Fill up behind the head, which has found no room, where that does not delay its earliest start."""
    begin = state.number[HEAD] + 1
    # the promise is worked out only when somebody could start beside it
    if begin >= state.number[TAIL] or not _may_fill(state, work, state.number[FREE_CPU], np.inf):
        return
    work.epoch[0] += 1
    work.epoch[1] = 0
    shadow_s, promised = _reserve(facts, state, work, state.queue[begin - 1], work.epoch[0])
    if _may_fill(state, work, state.number[FREE_CPU] - work.epoch[1], shadow_s):
        _fill(facts, state, work, begin, shadow_s, work.epoch[0] if promised else 0)


@ws.compiled
def _may_fill(state: State, work: Scratch, spare_cpu: int, shadow_s: float) -> bool:
    """Could any of those who wait be small enough, by the bounds that are kept for each size?"""
    for size in range(ws.SIZES):
        cpu = work.least_cpu[size]
        if cpu <= spare_cpu or (cpu <= state.number[FREE_CPU] and state.now_s[0] + work.least_s[size] <= shadow_s):
            return True
    return False


@ws.compiled
def _note(facts: Fixed, work: Scratch, job: int) -> None:
    """Keep the bounds: the job waits."""
    size = facts.size[job]
    work.least_cpu[size] = min(work.least_cpu[size], facts.jobs[job, TOTAL_CPU])
    work.least_s[size] = min(work.least_s[size], facts.limit_s[job])


@ws.compiled
def _fill(facts: Fixed, state: State, work: Scratch, begin: int, shadow_s: float, bound: int) -> None:
    """Start whom there is room for from place `begin` on; who stays beyond `shadow_s` takes only what is spare."""
    count, queue, jobs = state.number, state.queue, facts.jobs
    kept, now_s = begin, state.now_s[0]
    # whoever starts leaves less, so that what is spare at the outset bounds what is spare later
    spare_cpu = count[FREE_CPU] - (work.epoch[1] if bound else 0)
    least_cpu, least_s = work.least_cpu, work.least_s
    least_cpu[:] = UNLIMITED
    least_s[:] = np.inf
    for at in range(count[HEAD], begin):
        _note(facts, work, queue[at])
    for at in range(begin, count[TAIL]):
        job = queue[at]
        total = jobs[job, TOTAL_CPU]
        if total <= count[FREE_CPU]:
            free = bound == 0 or now_s + facts.limit_s[job] <= shadow_s
            if (free or total <= spare_cpu) and _start(facts, state, work, job, 0 if free else bound):
                continue
        queue[kept] = job
        kept += 1
        size = facts.size[job]
        least_cpu[size] = min(least_cpu[size], total)
        least_s[size] = min(least_s[size], facts.limit_s[job])
    count[TAIL] = kept


# ---------------------------------------------------------------------- the promise of EASY


@ws.compiled
def _reserve(facts: Fixed, state: State, work: Scratch, head: int, epoch: int) -> tuple[float, int]:
    """When the head can start at the latest, and on how many machines room is promised to it.

    What is left on these then lies in `spare`, with the epoch in `promised`.
    """
    needed, total = facts.jobs[head, INSTANCES], 0
    if needed > 1:
        total = _room_now(facts, state, work, head, epoch)
    shadow_s, looked = state.now_s[0], 0
    while looked < state.number[PLANNED]:
        end_s = state.plan_s[looked]
        if total >= needed and end_s > shadow_s:
            break
        shadow_s = max(end_s, state.now_s[0])
        total += _released(facts, state, work, state.plan_job[looked], head, epoch)
        looked += 1
    return shadow_s, _promise(facts, state, work, head, looked, epoch)


@ws.compiled
def _accepts(facts: Fixed, head: int, machine: int) -> bool:
    return (facts.accepted[facts.jobs[head, ws.CLASS], machine >> 6] & ws.BIT[machine & 63]) != 0


@ws.compiled
def _look(free: I8, work: Scratch, machine: int, epoch: int) -> None:
    """Begin with what is free on the machine now."""
    if work.seen[machine] != epoch:
        work.seen[machine] = epoch
        work.room[machine] = 0
        for r in range(3):
            work.left[machine, r] = free[machine, r]


@ws.compiled
def _room_now(facts: Fixed, state: State, work: Scratch, head: int, epoch: int) -> int:
    total = 0
    for machine in range(state.free.shape[0]):
        if _accepts(facts, head, machine):
            fit = ws.room(facts, state, head, machine)
            if fit:
                _look(state.free, work, machine, epoch)
                work.room[machine] = fit
                total += fit
    return total


@ws.compiled
def _released(facts: Fixed, state: State, work: Scratch, job: int, head: int, epoch: int) -> int:
    """How much more room the head has once the job has ended."""
    if facts.jobs[job, INSTANCES] == 1:
        return _release_one(facts, state, work, job, head, state.machine[job], 1, epoch)
    gained, slot = 0, state.first_slot[job]
    while slot != NONE:
        machine, instances, slot = state.slots[slot, 0], state.slots[slot, 1], state.slots[slot, 2]
        gained += _release_one(facts, state, work, job, head, machine, instances, epoch)
    return gained


@ws.compiled
def _release_one(
    facts: Fixed, state: State, work: Scratch, job: int, head: int, machine: int, instances: int, epoch: int
) -> int:
    if not _accepts(facts, head, machine):
        return 0
    _look(state.free, work, machine, epoch)
    work.released[machine] = epoch
    for r in range(3):
        work.left[machine, r] += instances * facts.jobs[job, r]
    before = work.room[machine]
    work.room[machine] = ws.times(facts, head, work.left[machine])
    return work.room[machine] - before


@ws.compiled
def _promise(facts: Fixed, state: State, work: Scratch, head: int, looked: int, epoch: int) -> int:
    """Promise machines to the head: those released last first, then those with the highest number."""
    needed, machines = facts.jobs[head, INSTANCES], 0
    for at in range(looked - 1, -1, -1):
        job = state.plan_job[at]
        # a list of slots begins with what was taken last, which is the order in which it is wanted here
        slot = NONE if facts.jobs[job, INSTANCES] == 1 else state.first_slot[job]
        machine = np.int64(state.machine[job]) if slot == NONE else state.slots[slot, 0]
        while needed:
            if work.released[machine] == epoch and work.promised[machine] != epoch:
                taken = _promise_one(facts, state.free, work, head, machine, needed, epoch)
                needed -= taken
                machines += taken > 0
            slot = NONE if slot == NONE else state.slots[slot, 2]
            if slot == NONE:
                break
            machine = state.slots[slot, 0]
    for machine in range(state.free.shape[0] - 1, -1, -1):
        if not needed:
            break
        if work.seen[machine] == epoch and work.released[machine] != epoch:
            needed -= _promise_one(facts, state.free, work, head, machine, needed, epoch)
            machines += 1
    return machines


@ws.compiled
def _promise_one(facts: Fixed, free: I8, work: Scratch, head: int, machine: int, needed: int, epoch: int) -> int:
    taken = min(needed, work.room[machine])
    if taken:
        work.promised[machine] = epoch
        for r in range(3):
            work.spare[machine, r] = work.left[machine, r] - taken * facts.jobs[head, r]
        work.epoch[1] += max(0, free[machine, ws.CPU] - work.spare[machine, ws.CPU])
    return taken


# ---------------------------------------------------------------------- ends: a heap, and in order of estimates


@ws.compiled
def _push(due_s: F8, jobs: I8, count: int, value_s: float, job: int) -> None:
    """Add to a heap of `count` entries in which each has four children."""
    at = count
    while at:
        parent = (at - 1) >> 2
        if due_s[parent] <= value_s:
            break
        due_s[at], jobs[at] = due_s[parent], jobs[parent]
        at = parent
    due_s[at], jobs[at] = value_s, job


@ws.compiled
def _pop(due_s: F8, jobs: I8, count: int) -> None:
    """Drop the first entry; `count` remain."""
    value_s, job, at = due_s[count], jobs[count], 0
    while True:
        child = 4 * at + 1
        if child >= count:
            break
        for other in range(child + 1, min(child + 4, count)):
            if due_s[other] < due_s[child]:
                child = other
        if due_s[child] >= value_s:
            break
        due_s[at], jobs[at] = due_s[child], jobs[child]
        at = child
    due_s[at], jobs[at] = value_s, job


@ws.compiled
def _planned_at(state: State, end_s: float, job: int) -> int:
    """Where (end, job) stands among the estimated ends, or belongs."""
    low, high = 0, state.number[PLANNED]
    while low < high:
        middle = (low + high) >> 1
        before = state.plan_s[middle]
        if before < end_s or (before == end_s and state.plan_job[middle] < job):
            low = middle + 1
        else:
            high = middle
    return low


@ws.compiled
def _plan_end(state: State, end_s: float, job: int) -> None:
    place = _planned_at(state, end_s, job)
    for at in range(state.number[PLANNED], place, -1):
        state.plan_s[at], state.plan_job[at] = state.plan_s[at - 1], state.plan_job[at - 1]
    state.plan_s[place], state.plan_job[place] = end_s, job
    state.number[PLANNED] += 1


@ws.compiled
def _forget(state: State, end_s: float, job: int) -> None:
    state.number[PLANNED] -= 1
    for at in range(_planned_at(state, end_s, job), state.number[PLANNED]):
        state.plan_s[at], state.plan_job[at] = state.plan_s[at + 1], state.plan_job[at + 1]
