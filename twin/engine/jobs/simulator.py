"""Jobs in the twin: they arrive, wait, hold machines and end. The reference, to be read.

SimPy owns the clock and wakes the twin at the next moment at which anything happens. At each moment first everything
that ends or changes is dealt with, then what arrives, then the scheduler looks once. State lies in arrays and plain
containers and no process holds any of it, so that a running twin can be copied: `fork` is a what-if from now.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.jobs.capacity import Capacity, Held, Ordering, Spare, place
from twin.engine.jobs.cells import cells
from twin.engine.jobs.checkpoint import stretched_run_s, work_kept_s
from twin.engine.jobs.machines import CPU, GPU, UNITS, Machines
from twin.engine.jobs.workload import NEVER, Workload
from twin.errors import SimulationError

if TYPE_CHECKING:
    from twin.engine.scheduling.admission import Admission, May
    from twin.engine.scheduling.backfill import Backfill
    from twin.engine.scheduling.orders import Order

EXPECTED, HELD, WAITING, RUNNING, DONE, FAILED, KILLED, CANCELLED, REFUSED = range(9)
STATES = ("expected", "held", "waiting", "running", "done", "failed", "killed", "cancelled", "refused")
_END, _REPAIR, _FAIL, _CLOSE, _CANCEL, _LOOK = range(6)  # in this order where they fall on one moment
_UNSET = -1.0
_PATIENCE_S = 31 * 86_400.0
"""An idle cluster in which nobody was admitted for so long will never admit those who wait still."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The mirrored cluster's own scheduler: the order of its queue, who may overtake, and which machine is taken.

    `kill` ends jobs that reach their limit; `retries` is how often a job that lost its machine is started anew;
    `admission` are rules about who may start at all at the moment. With `preempts` a job that finds no room displaces
    running ones of lower priority, the lowest and latest first and no more than it needs; they queue again. What a
    displaced job, or one that lost its machine, had done is lost but for what its last checkpoint holds.
    """

    order: Order
    backfill: Backfill
    placement: Ordering = Capacity.lowest_first
    kill: bool = False
    retries: int = 3
    admission: tuple[Admission, ...] = ()
    preempts: bool = False
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every job writes its state after each `interval_s` of work, which takes `cost_s`."""

    interval_s: float
    cost_s: float


@dataclass(frozen=True, slots=True)
class Outage:
    """Machines `[begin, end)` take nothing new from `time_s` on for `duration_s`.

    `drain` lets what runs there finish; otherwise it is lost at once and started anew.
    """

    time_s: float
    duration_s: float
    machines: tuple[int, ...]
    drain: bool = False


class JobTwin:
    """A cluster of machines with its queue. `run` lets time pass; `queue`, `running` and `held` say how it stands.

    `queue` holds (key, job), the first to go first; `running` (estimated end, job), the first to end first, where the
    scheduler plans; `held` what each running job holds.
    """

    def __init__(
        self,
        workload: Workload,
        machines: Machines,
        scheduler: Scheduler,
        *,
        outages: Sequence[Outage] = (),
        history: bool = True,
    ) -> None:
        """An empty cluster at second 0; with `history` it keeps what lay where.

        Raises:
            SimulationError: the scheduler plans ahead and a job has no estimate.
        """
        _check_estimates(workload, scheduler)
        _check_outages(outages, machines)
        self.workload, self.machines, self.scheduler = workload, machines, scheduler
        self.capacity = Capacity(machines, workload)
        self.now_s = 0.0
        self.queue: list[tuple[float, int]] = []
        self.running: list[tuple[float, int]] = []
        self.held: dict[int, Held] = {}
        self.waits_for = workload.parents.copy()
        self.columns = {
            "state": np.where([bool(r) for r in workload.refused], REFUSED, EXPECTED).astype(np.int8),
            "attempts": np.zeros(len(workload), dtype=np.int32),
            **{name: np.full(len(workload), _UNSET) for name in ("first_start_s", "start_s", "end_s")},
            "ran_s": np.zeros(len(workload)),
            "kept_s": np.zeros(len(workload)),  # work that checkpoints saved
        }
        self._agenda: list[tuple[float, int, int, int]] = []  # time, kind, job or outage, attempt
        self._next = 0  # the next arrival
        self.history: list[tuple[int, int, int, float, float]] = []  # job, machine, instances, from, until
        self._keeps_history = history
        self.notes: dict[str, object] = {}  # what a rule remembers between two looks; values are never changed in place
        self.outages = tuple(outages)
        for number, outage in enumerate(self.outages):
            kind = _CLOSE if outage.drain else _FAIL
            heappush(self._agenda, (outage.time_s, kind, number, 0))
        self._closed: dict[int, int] = {}  # outages that keep a machine closed
        self._keys = (
            None if scheduler.order.changing else cells(scheduler.order.keys(workload, np.arange(len(workload)), 0.0))
        )
        self._submit_s = cells(np.append(workload.submit_s, NEVER))  # the last arrival is followed by none
        self._wire(simpy.Environment())
        for job in np.flatnonzero((self.columns["state"] == REFUSED) & np.isinf(workload.submit_s)).tolist():
            self._abandon_children(job)  # it never arrives

    def _wire(self, env: simpy.Environment) -> None:
        self._env, self._due_s, self._look_s = env, NEVER, _UNSET
        self._may: tuple[May, ...] = ()
        self._displaced: list[int] = []
        self._users = np.zeros((len(self.workload.users), 3), dtype=np.int64)
        for job in self.held if self.scheduler.admission else ():
            self._count(job, 1)
        view = {name: cells(column) for name, column in self.columns.items()}
        self._state, self._attempts = view["state"], view["attempts"]
        self._first_s, self._start_s, self._end_s = view["first_start_s"], view["start_s"], view["end_s"]
        self._ran_s, self._kept_s = view["ran_s"], view["kept_s"]
        load = self.workload
        self._run_s, self.limit_s, self._cancel_s = (cells(c) for c in (load.run_s, load.limit_s, load.cancel_s))
        self._plan()

    # -------------------------------------------------- the clock

    def run(self, until_s: float | None = None) -> None:
        """Let time pass until `until_s`, what happens then included; until nothing is left to happen by default."""
        if until_s is None:
            self._env.run()
        elif not until_s >= self.now_s:
            raise SimulationError(f"until_s={until_s:g} lies before now, {self.now_s:g}: fork earlier to go back")
        else:
            while self._due_s <= until_s:
                self._env.step()
            self.now_s = until_s

    def _plan(self) -> None:
        """Ask SimPy to wake us when the next thing happens."""
        due_s = self._agenda[0][0] if self._agenda else NEVER
        if self._submit_s[self._next] < due_s:
            due_s = self._submit_s[self._next]
        self._due_s = due_s
        if due_s < NEVER:
            env = self._env
            event = simpy.Event(env)
            event._ok, event._value, event.callbacks = True, None, [self._wake]
            delay_s = due_s - env.now
            env.schedule(event, delay=delay_s if delay_s > 0.0 else 0.0)

    def _wake(self, _event: simpy.Event) -> None:
        # the planned moment, not env.now: adding a delay to a time rounds
        now_s = self.now_s = self._due_s
        agenda = self._agenda
        while agenda and agenda[0][0] <= now_s:
            _, kind, subject, attempt = heappop(agenda)
            if kind == _END:
                if self._attempts[subject] == attempt and self._state[subject] == RUNNING:
                    self._finish(subject)
            elif kind != _LOOK:
                _HAPPENS[kind](self, subject)
        submit_s = self._submit_s
        while submit_s[self._next] <= now_s:
            self._arrive(self._next)
            self._next += 1
        if self.queue:
            self._schedule()
        self._plan()

    def _schedule(self) -> None:
        """Let the scheduler look at the queue once."""
        if self._keys is None:
            self._reorder()
        if self.scheduler.admission:
            self._start_admitted()
        else:
            self.scheduler.backfill.start(self)
        if self._displaced:
            for job in self._displaced:
                self._enqueue(job)
            self._displaced = []
            heappush(self._agenda, (self.now_s, _LOOK, 0, 0))  # there may be room for some of them elsewhere

    def _start_admitted(self) -> None:
        """Let the scheduler see only those who may start, and look again when a rule says so."""
        looks = [rule.look(self) for rule in self.scheduler.admission]
        self._may = tuple(may for may, _ in looks)
        barred = [entry for entry in self.queue if self.barred(entry[1])]
        if barred:
            self.queue = [entry for entry in self.queue if not self.barred(entry[1])]
        self.scheduler.backfill.start(self)
        if barred:
            self.queue = sorted(self.queue + barred)
        again_s = min(again_s for _, again_s in looks)
        idle_s = self.now_s - max(self.columns["start_s"].max(), self.columns["end_s"].max()) if not self.held else 0.0
        if self.queue and self._look_s < again_s < NEVER and idle_s < _PATIENCE_S:
            self._look_s = again_s
            heappush(self._agenda, (again_s, _LOOK, 0, 0))

    def barred(self, job: int) -> bool:
        """Does a rule about admission keep the job from starting now? What started at this moment counts."""
        return not all(may(job) for may in self._may)

    def user_holds(self, user: int) -> NDArray[np.float64]:
        """Cores, GPUs and jobs of the user that run now [3]."""
        return self._users[user] / (UNITS[CPU], UNITS[GPU], 1.0)

    def _count(self, job: int, sign: int) -> None:
        load = self.workload
        count = sign * int(load.instances[job])
        self._users[load.user[job]] += (count * load.request[job, CPU], count * load.request[job, GPU], sign)

    # -------------------------------------------------- the life of a job

    def _arrive(self, job: int) -> None:
        if self._state[job] == REFUSED:
            self._abandon_children(job)
        elif self._state[job] == EXPECTED:
            if self.waits_for[job]:
                self._state[job] = HELD
            else:
                self._enqueue(job)
            cancel_s = self._cancel_s[job]
            if cancel_s < NEVER:
                heappush(self._agenda, (max(cancel_s, self.now_s), _CANCEL, job, 0))

    def _enqueue(self, job: int) -> None:
        self._state[job] = WAITING
        key = 0.0 if self._keys is None else self._keys[job]
        queue = self.queue
        if not queue or queue[-1] < (key, job):
            queue.append((key, job))
        else:
            insort(queue, (key, job))

    def _reorder(self) -> None:
        """Ask the order anew: its keys change with time."""
        jobs = np.fromiter((job for _, job in self.queue), np.int64, len(self.queue))
        keys = self.scheduler.order.keys(self.workload, jobs, self.now_s)
        self.queue = sorted(zip(keys.tolist(), jobs.tolist(), strict=True))

    def start(self, job: int, spare: Spare | None = None) -> bool:
        """Start a waiting job if there is room for all of it; the caller takes it out of the queue.

        `spare` bounds what may be taken of some machines.
        """
        if self._may and self.barred(job):
            return False
        held = place(self.capacity, job, self.scheduler.placement, spare)
        if held is None:
            return False
        now_s = self.now_s
        self.held[job] = held
        if self._may:
            self._count(job, 1)
        self._state[job] = RUNNING
        self._start_s[job] = now_s
        if self._first_s[job] < 0.0:
            self._first_s[job] = now_s
        self._attempts[job] += 1
        run_s, limit_s = self._needs_s(job), self.limit_s[job]
        ends_s = now_s + (limit_s if self.scheduler.kill and limit_s < run_s else run_s)
        heappush(self._agenda, (ends_s, _END, job, self._attempts[job]))
        if self.scheduler.backfill.plans:
            insort(self.running, (now_s + limit_s, job))
        return True

    def _needs_s(self, job: int) -> float:
        """Seconds that the job needs from its start on: what is left to do, with its checkpoints."""
        checkpoint = self.scheduler.checkpoint
        if checkpoint is None:
            return self._run_s[job]
        left_s = self._run_s[job] - self._kept_s[job]
        return float(stretched_run_s(left_s, checkpoint.interval_s, checkpoint.cost_s))

    def displace(self, job: int) -> bool:
        """Start a job in the place of running ones of lower priority, if that makes room enough."""
        if self._may and self.barred(job):
            return False
        load, capacity = self.workload, self.capacity
        mine = load.priority[job]
        lower = [other for other in self.held if load.priority[other] < mine]
        lower.sort(key=lambda other: (load.priority[other], -self._start_s[other], -other))
        trial = capacity.copy()
        victims = []
        for other in lower:
            trial.give_back(other, self.held[other])
            victims.append(other)
            if place(trial, job, self.scheduler.placement) is not None:
                break
        else:
            return False
        # whoever finds its very place still free is spared, the most worthy first
        for other in reversed(victims.copy()):
            if trial.has_room(other, self.held[other]):
                for machine, count, devices in self.held[other]:
                    trial.hold(other, machine, count, devices)
                victims.remove(other)
        for other in victims:
            self._interrupt(other)
        self._displaced += victims
        return self.start(job)

    def _interrupt(self, job: int) -> None:
        """Take a running job from its machines; its last checkpoint keeps what it holds."""
        elapsed_s = self.now_s - self._start_s[job]
        checkpoint = self.scheduler.checkpoint
        if checkpoint is not None:
            self._kept_s[job] += float(work_kept_s(elapsed_s, checkpoint.interval_s, checkpoint.cost_s))
        self._release(job)
        self._state[job] = WAITING

    def _release(self, job: int) -> None:
        held = self.held.pop(job)
        self.capacity.give_back(job, held)
        if self.scheduler.admission:
            self._count(job, -1)
        if self._keeps_history:
            start_s = self._start_s[job]
            self.history += [(job, machine, count, start_s, self.now_s) for machine, count, _ in held]
        self._end_s[job] = self.now_s
        self._ran_s[job] += self.now_s - self._start_s[job]
        if self.scheduler.backfill.plans:
            entry = (self._start_s[job] + self.limit_s[job], job)
            del self.running[bisect_left(self.running, entry)]

    def _finish(self, job: int) -> None:
        needs_s = self._needs_s(job)
        self._release(job)
        killed = self.now_s < self._start_s[job] + needs_s
        self._state[job] = KILLED if killed else DONE
        begin, children = self.workload.children
        if not len(children):
            return
        for child in children[begin[job] : begin[job + 1]].tolist():
            if killed:
                self._abandon(child)
                continue
            self.waits_for[child] -= 1
            if not self.waits_for[child] and self._state[child] == HELD:
                self._enqueue(child)

    def _abandon(self, job: int) -> None:
        """It waits for a job that will never be done."""
        if self._state[job] in (EXPECTED, HELD):
            self._state[job] = CANCELLED
            self._end_s[job] = max(self.now_s, self._submit_s[job])
            self._abandon_children(job)

    def _abandon_children(self, job: int) -> None:
        begin, children = self.workload.children
        for child in children[begin[job] : begin[job + 1]].tolist():
            self._abandon(child)

    def _cancel(self, job: int) -> None:
        if self._state[job] == WAITING:
            self.queue = [entry for entry in self.queue if entry[1] != job]
        if self._state[job] in (WAITING, HELD):
            self._state[job] = CANCELLED
            self._end_s[job] = self.now_s
            self._abandon_children(job)

    # -------------------------------------------------- machines that fail or are drained

    def _close(self, number: int) -> None:
        for machine in self.outages[number].machines:
            self._closed[machine] = self._closed.get(machine, 0) + 1
            self.capacity.close(machine)
        heappush(self._agenda, (self.now_s + self.outages[number].duration_s, _REPAIR, number, 0))

    def _fail(self, number: int) -> None:
        self._close(number)
        gone = set(self.outages[number].machines)
        lost = sorted(job for job, held in self.held.items() if gone.intersection(machine for machine, _, _ in held))
        for job in lost:
            self._interrupt(job)
            if self._attempts[job] <= self.scheduler.retries:
                self._enqueue(job)
            else:
                self._state[job] = FAILED
                self._abandon_children(job)

    def _repair(self, number: int) -> None:
        for machine in self.outages[number].machines:
            self._closed[machine] -= 1
            if not self._closed[machine]:
                self.capacity.reopen(machine)

    # -------------------------------------------------- copies

    def fork(self, scheduler: Scheduler | None = None) -> JobTwin:
        """A second twin in the same state, independent from now on: what if, from now.

        With another `scheduler` the copy goes on under that one.
        """
        twin = object.__new__(JobTwin)
        twin.__dict__.update(self.__dict__)
        twin.capacity = self.capacity.copy()
        for name in ("queue", "running", "held", "_agenda", "_closed", "history", "notes"):
            setattr(twin, name, getattr(self, name).copy())
        twin.columns = {name: column.copy() for name, column in self.columns.items()}
        twin.waits_for = self.waits_for.copy()
        if scheduler is not None:
            twin._change_scheduler(scheduler)
        twin._wire(simpy.Environment(self.now_s))
        return twin

    def _change_scheduler(self, scheduler: Scheduler) -> None:
        _check_estimates(self.workload, scheduler)
        self.scheduler = scheduler
        load = self.workload
        order = scheduler.order
        self._keys = None if order.changing else cells(order.keys(load, np.arange(len(load)), 0.0))
        keys = [0.0 if self._keys is None else self._keys[job] for _, job in self.queue]
        self.queue = sorted(zip(keys, (job for _, job in self.queue), strict=True))
        start_s = self.columns["start_s"]
        planned = ((float(start_s[job] + load.limit_s[job]), job) for job in self.held)
        self.running = sorted(planned) if scheduler.backfill.plans else []


def _check_estimates(workload: Workload, scheduler: Scheduler) -> None:
    without = np.flatnonzero(np.isinf(workload.limit_s) & np.array([not r for r in workload.refused], dtype=bool))
    if scheduler.backfill.plans and len(without):
        raise SimulationError(
            f"{len(without)} jobs have no estimate (the first is {workload.names[int(without[0])]!r}), and this "
            "scheduler plans with estimates: fill them with workload.estimated, or choose another backfill"
        )


def _check_outages(outages: Sequence[Outage], machines: Machines) -> None:
    for outage in outages:
        if not outage.duration_s >= 0:
            raise SimulationError(f"an outage has the duration {outage.duration_s:g} s: it must be 0 s or more")
        unknown = [machine for machine in outage.machines if not 0 <= machine < len(machines)]
        if unknown:
            raise SimulationError(f"an outage names machine number {unknown[0]}; there are 0 to {len(machines) - 1}")


_HAPPENS = {_REPAIR: JobTwin._repair, _FAIL: JobTwin._fail, _CLOSE: JobTwin._close, _CANCEL: JobTwin._cancel}
