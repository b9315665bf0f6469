"""Jobs in the twin: they arrive, wait, hold machines and end. The reference, to be read.

SimPy owns the clock and wakes the twin at the next moment at which anything happens. At each moment first everything
that ends or changes is dealt with, then what arrives, then the scheduler looks once. State lies in arrays and plain
containers and no process holds any of it, so that a running twin can be copied: `fork` is a what-if from now.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.jobs.capacity import Capacity, Held, Spare, place
from twin.engine.jobs.cells import Cells, cells
from twin.engine.jobs.checkpoint import busy_s, done_s, saved_s
from twin.engine.jobs.holdings import Holdings
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.residents import Residents
from twin.engine.jobs.scheduler import (
    Allowed,
    Filter,
    Observer,
    Outage,
    Placement,
    Scheduler,
    check_estimates,
    check_outages,
)
from twin.engine.jobs.workload import NEVER, Owner, Workload
from twin.engine.scheduling.orders import Accounting
from twin.errors import SimulationError

if TYPE_CHECKING:
    from twin.engine.scheduling.admission import May

EXPECTED, HELD, WAITING, RUNNING, DONE, FAILED, KILLED, CANCELLED, REFUSED = range(9)
STATES = ("expected", "held", "waiting", "running", "done", "failed", "killed", "cancelled", "refused")
# what may happen, in this order where it falls on one moment
END, KILL, _REPAIR, _FAIL, _CLOSE, _CANCEL, _SEE, _LOOK, _WAKE = range(9)
_UNSET = -1.0
Pace = tuple[float, float, float, float, bool]
"""Pace, since when, seconds at full pace done by then, when it ends, and whether that is its limit."""
_PATIENCE_S = 31 * 86_400.0
"""An idle cluster in which nobody was admitted for so long will never admit those who wait still."""


class JobTwin:
    """A cluster of machines with its queue. `run` lets time pass; `queue`, `running` and `held` say how it stands.

    `queue` holds (key, job), the first to go first; `running` (estimated end, job), the first to end first, where the
    scheduler plans; `held` what each running job holds; `residents` what lies on each machine, where a rule looks at
    that; `ended` the jobs that left their machines since an order that keeps accounts was asked last.
    """

    def __init__(
        self,
        workload: Workload,
        machines: Machines,
        scheduler: Scheduler,
        *,
        outages: Sequence[Outage] = (),
        observers: Sequence[Observer] = (),
        history: bool = True,
    ) -> None:
        """An empty cluster at second 0; with `history` it keeps what lay where.

        Raises:
            SimulationError: the scheduler plans ahead and a job has no estimate.
        """
        check_estimates(workload, scheduler)
        check_outages(outages, machines)
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
            "losses": np.zeros(len(workload), dtype=np.int32),  # machines that failed under it
            **{name: np.full(len(workload), _UNSET) for name in ("first_start_s", "start_s", "end_s")},
            "ran_s": np.zeros(len(workload)),
            "kept_s": np.zeros(len(workload)),  # work that need not be done again
            "spent_s": np.zeros(len(workload)),  # of the limit, before it was suspended
            "unsaved_s": np.zeros(len(workload)),  # of the work kept, what only suspension keeps
        }
        self._agenda: list[tuple[float, int, int, int]] = []  # time, kind, job or outage, attempt
        self._next = 0  # the next arrival
        self.history: list[tuple[int, int, int, float, float]] = []  # job, machine, instances, from, until
        self._keeps_history = history
        self.notes: dict[str, NDArray[Any]] = {}  # what rules remember between two looks; never changed in place
        self.outages = tuple(outages)
        for number, outage in enumerate(self.outages):
            kind = _CLOSE if outage.drain else _FAIL
            heappush(self._agenda, (outage.time_s, kind, number, 0))
        self._closed: dict[int, int] = {}  # outages that keep a machine closed
        self._paces: dict[int, Pace] = {}  # of running jobs that did not always go on at full pace
        self.ended: list[int] = []
        self._settle_residents()
        self.observers = tuple(observers)
        self._keys = self._fixed_keys()
        self._submit_s = cells(np.append(workload.submit_s, NEVER))  # the last arrival is followed by none
        self._wire()
        for job in np.flatnonzero((self.columns["state"] == REFUSED) & np.isinf(workload.submit_s)).tolist():
            self._abandon_children(job)  # it never arrives

    def _fixed_keys(self) -> Cells | None:
        """The keys of the queue; None where they change with time."""
        order = self.scheduler.order
        if isinstance(order, Accounting) or order.changing:
            return None
        return cells(order.keys(self.workload, np.arange(len(self.workload)), 0.0))

    def _wire(self) -> None:
        self._keeps_accounts = isinstance(self.scheduler.order, Accounting)
        self._due_s, self._look_s = NEVER, _UNSET
        self._may: tuple[May, ...] = ()
        self._displaced: list[int] = []
        counted: set[Owner] = {rule.counts for rule in self.scheduler.admission if rule.counts is not None}
        self.holdings, self._counts = Holdings(self.workload, counted, self.held), bool(counted)
        view = {name: cells(column) for name, column in self.columns.items()}
        self._state, self._attempts, self._losses = view["state"], view["attempts"], view["losses"]
        self._first_s, self._start_s, self._end_s = view["first_start_s"], view["start_s"], view["end_s"]
        load = self.workload
        self._ran_s, self._kept_s, self._spent_s = view["ran_s"], view["kept_s"], view["spent_s"]
        self._run_s, self.limit_s, self._cancel_s = (cells(c) for c in (load.run_s, load.limit_s, load.cancel_s))
        self._look_around()
        self._looks_around = bool(self._allowed) or isinstance(self.scheduler.placement, Placement)

    # -------------------------------------------------- the clock

    def run(self, until_s: float | None = None) -> None:
        """Let time pass until `until_s`, what happens then included; until nothing is left to happen by default."""
        until_s = None if until_s == NEVER else until_s
        if until_s is not None and not until_s >= self.now_s:
            raise SimulationError(f"until_s={until_s:g} lies before now, {self.now_s:g}: fork earlier to go back")
        # the twin does not hold the clock, which holds it: a fork that nobody wants any more is gone at once
        env = simpy.Environment(self.now_s)
        self._plan(env)
        if until_s is None:
            env.run()
        else:
            while self._due_s <= until_s:
                env.step()
            self.now_s = until_s

    def _plan(self, env: simpy.Environment) -> None:
        """Ask SimPy to wake us when the next thing happens."""
        due_s = self._agenda[0][0] if self._agenda else NEVER
        if self._submit_s[self._next] < due_s:
            due_s = self._submit_s[self._next]
        self._due_s = due_s
        if due_s < NEVER:
            event = simpy.Event(env)
            event._ok, event._value, event.callbacks = True, None, [self._wake]
            delay_s = due_s - env.now
            env.schedule(event, delay=delay_s if delay_s > 0.0 else 0.0)

    def _wake(self, event: simpy.Event) -> None:
        # the planned moment, not env.now: adding a delay to a time rounds
        now_s = self.now_s = self._due_s
        agenda, quiet = self._agenda, True
        while agenda and agenda[0][0] <= now_s:
            _, kind, subject, attempt = heappop(agenda)
            if kind <= KILL:
                if self._attempts[subject] == attempt and self._state[subject] == RUNNING:
                    self._finish_if_due(subject, kind == KILL)
                quiet = False
            elif kind != _WAKE:
                quiet = False
                if kind != _LOOK:
                    _HAPPENS[kind](self, subject)
        submit_s = self._submit_s
        while submit_s[self._next] <= now_s:
            self._arrive(self._next)
            self._next += 1
            quiet = False
        if self.queue and not quiet:
            self._schedule()
        for observer in self.observers:
            observer.looked(self)
        self._plan(event.env)

    def _schedule(self) -> None:
        """Let the scheduler look at the queue once."""
        if self._keys is None:
            self._reorder()
        if self._looks_around:
            self._look_around()
        if self.scheduler.admission:
            self._start_admitted()
        else:
            self.scheduler.backfill.start(self)
        if self._displaced:
            for job in self._displaced:
                self._enqueue(job)
            self._displaced = []
            self.look_at(self.now_s)  # there may be room for some of them elsewhere

    def _look_around(self) -> None:
        """Ask the rules about where to run for the moment's answer."""
        placement = self.scheduler.placement
        self._ordering = placement.look(self) if isinstance(placement, Placement) else placement
        self._allowed = tuple(rule.look(self) for rule in self.scheduler.filters)

    def look_at(self, time_s: float) -> None:
        """Have the scheduler look at that time even if nothing happens then."""
        heappush(self._agenda, (max(time_s, self.now_s), _LOOK, 0, 0))

    def wake_at(self, time_s: float) -> None:
        """Have the observers look at that time; the scheduler does not."""
        heappush(self._agenda, (max(time_s, self.now_s), _WAKE, 0, 0))

    def candidates(self, job: int, *, whatever_runs: bool = False) -> int:
        """The machines that the job may take now if they have room, as bits.

        With `whatever_runs` rules about what runs elsewhere are left out, for it will have ended one day.
        """
        among = self.capacity.candidates(job)
        for rule, allowed in self.allowed():
            if not (whatever_runs and getattr(rule, "sees_residents", False)):
                among &= allowed(job)
        return among

    def allowed(self) -> Iterator[tuple[Filter, Allowed]]:
        """The rules about where to run, with the moment's answer of each."""
        return zip(self.scheduler.filters, self._allowed, strict=True)

    def _start_admitted(self) -> None:
        """Let the scheduler see only those who may start, and look again when a rule says so."""
        looks = [rule.look(self) for rule in self.scheduler.admission]
        self._may = tuple(may for may, _ in looks)
        barred = [entry for entry in self.queue if self.barred(entry[1])]
        if barred:
            self.queue = [entry for entry in self.queue if not self.barred(entry[1])]
        saw = len(self.queue)
        self.scheduler.backfill.start(self)
        if len(self.queue) < saw and any(self.barred(job) for _, job in self.queue):
            self.look_at(self.now_s)  # who started bars others, who may stand before somebody else
        if barred:
            # a discipline that suspends makes room within a quota, and may have started some of them
            self.queue = sorted(self.queue + [entry for entry in barred if self._state[entry[1]] == WAITING])
        again_s = min(again_s for _, again_s in looks)
        if self.queue and self._look_s < again_s < NEVER and self._idle_s() < _PATIENCE_S:
            self._look_s = again_s
            self.look_at(again_s)

    def _idle_s(self) -> float:
        """For how long nothing has run, and nobody has come."""
        if self.held:
            return 0.0
        last_s = max(self._submit_s[job] for _, job in self.queue)
        return self.now_s - max(last_s, self.columns["start_s"].max(), self.columns["end_s"].max())

    @property
    def has_fixed_order(self) -> bool:
        """Does the queue keep its order as time goes by?"""
        return self._keys is not None

    def barring(self, job: int) -> str:
        """The name of the first rule about admission that keeps the job from starting now; "" where none does."""
        return next((rule.name for rule in self.scheduler.admission if not rule.look(self)[0](job)), "")

    def barred(self, job: int) -> bool:
        """Does a rule about admission keep the job from starting now? What started at this moment counts."""
        return not all(may(job) for may in self._may)

    # -------------------------------------------------- the life of a job

    def _arrive(self, job: int) -> None:
        if self._state[job] == REFUSED:
            self._abandon_children(job)
        elif self._state[job] == EXPECTED:
            if self.waits_for[job]:
                self._state[job] = HELD
            else:
                self._show(job)
            cancel_s = self._cancel_s[job]
            if cancel_s < NEVER:
                heappush(self._agenda, (max(cancel_s, self.now_s), _CANCEL, job, 0))

    def _show(self, job: int) -> None:
        """The job waits for nobody: the scheduler sees it, now or when its latency is over."""
        latency_s = self.workload.latency_s
        seen_s = self.now_s if latency_s is None else self._submit_s[job] + float(latency_s[job])
        if seen_s > self.now_s:
            self._state[job] = WAITING
            heappush(self._agenda, (seen_s, _SEE, job, 0))
        else:
            self._enqueue(job)

    def _see(self, job: int) -> None:
        """The scheduler sees a job that arrived a while ago."""
        if self._state[job] == WAITING:
            self._enqueue(job)

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
        order = self.scheduler.order
        if isinstance(order, Accounting):
            order = order.look(self)
            self.ended = []
        keys = order.keys(self.workload, jobs, self.now_s)
        self.queue = sorted(zip(keys.tolist(), jobs.tolist(), strict=True))

    def start(self, job: int, spare: Spare | None = None) -> bool:
        """Start a waiting job if there is room for all of it; the caller takes it out of the queue.

        `spare` bounds what may be taken of some machines.
        """
        if self._may and self.barred(job):
            return False
        for observer in self.observers:
            observer.before_start(self, job)
        inspector = self.scheduler.inspector
        promised = dict(spare) if spare and inspector else None
        among = self.candidates(job) if self._allowed else None
        held = place(self.capacity, job, self._ordering, spare, among=among)
        if held is None:
            return False
        if inspector is not None and not inspector.accepts(self, job):
            self.capacity.give_back(job, held)
            if spare is not None and promised is not None:
                spare.update(promised)
            return False
        self._begin(job, held)
        return True

    def _begin(self, job: int, held: Held) -> None:
        now_s = self.now_s
        self.held[job] = held
        if self._counts:
            self.holdings.count(job, 1)
        self._state[job] = RUNNING
        self._start_s[job] = now_s
        if self._first_s[job] < 0.0:
            self._first_s[job] = now_s
        self._attempts[job] += 1
        lasts_s, kind = self._needs_s(job), END
        if self.scheduler.kill and self.limit_s[job] - self._spent_s[job] < lasts_s:
            lasts_s, kind = self.limit_s[job] - self._spent_s[job], KILL
        heappush(self._agenda, (now_s + lasts_s, kind, job, self._attempts[job]))
        if self.scheduler.backfill.plans:
            insort(self.running, (self.estimated_end_s(job), job))
        if self.residents is not None:
            self.residents.add(job, held, self.estimated_end_s(job))
        for observer in self.observers:
            observer.started(self, job, held)

    def estimated_end_s(self, job: int) -> float:
        """When a running job ends if it runs for as long as it asked."""
        return self._start_s[job] + (self.limit_s[job] - self._spent_s[job])

    def _needs_s(self, job: int) -> float:
        """Seconds that the job needs from its start on at full pace: what is left to do, with its checkpoints."""
        left_s = self._run_s[job] - self._kept_s[job]
        return left_s if self.scheduler.checkpoint is None else busy_s(left_s, self.scheduler.checkpoint)

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
            if place(trial, job, self._ordering, among=self.candidates(job)) is not None:
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
        columns = self.columns
        columns["kept_s"][job] += saved_s(self._busy_s(job), self.scheduler.checkpoint) - columns["unsaved_s"][job]
        columns["unsaved_s"][job] = 0.0
        self._release(job)
        self._spent_s[job] = 0.0
        self._state[job] = WAITING

    def suspend(self, job: int) -> None:
        """Take a running job from its machines without loss: it queues again and then needs only what is left."""
        checkpoint, busy, held_s = self.scheduler.checkpoint, self._busy_s(job), self.now_s - self._start_s[job]
        self.columns["unsaved_s"][job] += done_s(busy, checkpoint) - saved_s(busy, checkpoint)
        self._kept_s[job] += done_s(busy, checkpoint)
        self._release(job)
        self._spent_s[job] += held_s
        self._enqueue(job)

    # -------------------------------------------------- how fast it gets on

    def pace(self, job: int, pace: float) -> None:
        """A running job gets on with its work at this pace from now on: 1 is full, at 0 it stands still."""
        self._plan_end(job, pace, self._busy_s(job))

    def _plan_end(self, job: int, pace: float, behind_s: float) -> None:
        """Plan the end of a running job anew, that has `behind_s` seconds at full pace behind it."""
        left_s = max(self._needs_s(job) - behind_s, 0.0)
        ends_s = self.now_s + left_s / pace if pace > 0.0 else NEVER
        limit_s = self.estimated_end_s(job)
        killed = self.scheduler.kill and limit_s < ends_s
        due_s = limit_s if killed else ends_s
        self._paces[job] = (pace, self.now_s, behind_s, due_s, killed)
        if due_s < NEVER:
            heappush(self._agenda, (due_s, KILL if killed else END, job, self._attempts[job]))

    def _busy_s(self, job: int) -> float:
        """Seconds at full pace that the job has behind it since its start."""
        told = self._paces.get(job)
        if told is None:
            return self.now_s - self._start_s[job]
        pace, since_s, behind_s, _, _ = told
        return behind_s + (self.now_s - since_s) * pace

    def _release(self, job: int) -> None:
        held = self.held.pop(job)
        self.capacity.give_back(job, held)
        if self.residents is not None:
            self.residents.drop(job, held)
        for observer in self.observers:
            observer.ended(self, job, held)
        if self._keeps_accounts:
            self.ended.append(job)
        if self._counts:
            self.holdings.count(job, -1)
        if self._keeps_history:
            start_s, now_s = self._start_s[job], self.now_s
            for machine, count, _ in held:
                self.history.append((job, machine, count, start_s, now_s))
        self._end_s[job] = self.now_s
        self._ran_s[job] += self.now_s - self._start_s[job]
        if self.scheduler.backfill.plans:
            del self.running[bisect_left(self.running, (self.estimated_end_s(job), job))]
        if self._paces:
            self._paces.pop(job, None)

    def _finish_if_due(self, job: int, killed: bool) -> None:
        if self._paces and job in self._paces:
            _, _, _, due_s, killed = self._paces[job]
            if self.now_s < due_s:
                return  # an end that was planned at another pace
        self._release(job)
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
                self._show(child)

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
            self._losses[job] += 1
            if self._losses[job] <= self.scheduler.retries:
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

        With another `scheduler` the copy goes on under that one. Nobody observes the copy, and all its jobs go on at
        full pace: whoever paced them is given to `copy.observers` as a copy of its own.
        """
        twin = object.__new__(JobTwin)
        twin.__dict__.update(self.__dict__)
        twin.capacity = self.capacity.copy()
        for name in ("queue", "running", "held", "_agenda", "_closed", "_paces", "ended", "history", "notes"):
            setattr(twin, name, getattr(self, name).copy())
        twin.columns = {name: column.copy() for name, column in self.columns.items()}
        twin.waits_for = self.waits_for.copy()
        twin.residents = None if self.residents is None else self.residents.copy()
        twin.observers = ()
        if scheduler is not None:
            twin._change_scheduler(scheduler)
        twin._wire()
        twin._go_on_at_full_pace()
        return twin

    def _go_on_at_full_pace(self) -> None:
        for job in list(self._paces):
            self.pace(job, 1.0)

    def _change_scheduler(self, scheduler: Scheduler) -> None:
        check_estimates(self.workload, scheduler)
        before, self.scheduler = self.scheduler, scheduler
        self._keys = self._fixed_keys()
        if self._keys is not None:
            self.queue = sorted((self._keys[job], job) for _, job in self.queue)
        planned = sorted((self.estimated_end_s(job), job) for job in self.held)
        self.running = planned if scheduler.backfill.plans else []
        self._settle_residents()
        if (before.kill, before.checkpoint) != (scheduler.kill, scheduler.checkpoint):
            for job in self.held:
                pace = self._paces[job][0] if job in self._paces else 1.0
                done = done_s(self._busy_s(job), before.checkpoint)
                self._plan_end(job, pace, busy_s(done, scheduler.checkpoint))

    def _settle_residents(self) -> None:
        """Find out anew what lies where."""
        load = self.workload
        owners = {"user": load.user, "group": load.group}
        self.residents = Residents(self.machines, owners) if self.scheduler.sees_residents else None
        if self.residents is not None:
            for job, held in self.held.items():
                self.residents.add(job, held, self.estimated_end_s(job))


_HAPPENS = {
    _REPAIR: JobTwin._repair,
    _FAIL: JobTwin._fail,
    _CLOSE: JobTwin._close,
    _CANCEL: JobTwin._cancel,
    _SEE: JobTwin._see,
}
