"""The fast engine of jobs: what `simulator.JobTwin` does, compiled, a window of simulated time at a go.

The same jobs start on the same machines at the same moments; the tests hold it to that, event by event. SimPy owns the
clock and wakes the twin once for each tick in which anything happens; within a tick, one compiled loop over flat
arrays (`window_loop`) goes from event to event. What `supported` names is left to the reference.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.jobs import snapshot
from twin.engine.jobs import window_state as ws
from twin.engine.jobs.capacity import Capacity, Held
from twin.engine.jobs.machines import Machines
from twin.engine.jobs.scheduler import Observer, Outage, Placement, Scheduler, check_estimates
from twin.engine.jobs.simulator import DONE, END, KILL, KILLED, RUNNING, JobTwin
from twin.engine.jobs.window_loop import LENGTHEN, SETTLED, advance, next_s
from twin.engine.jobs.window_state import ENDS, HEAD, INSTANCES, NEXT, NONE, ORDERED, TAIL, State
from twin.engine.jobs.workload import F8, I8, NEVER, Workload
from twin.engine.scheduling.backfill import Easy, Greedy, Strict
from twin.engine.scheduling.orders import Accounting
from twin.errors import SimulationError

if TYPE_CHECKING:
    from twin.engine.scheduling.orders import Order

TICK_S = 3600.0
FORMAT = 2
_BACKFILLS = {Strict: ws.STRICT, Greedy: ws.GREEDY, Easy: ws.EASY}
_PLACEMENTS: dict[object, int] = {
    Capacity.lowest_first: ws.LOWEST,
    Capacity.fullest_first: ws.FULLEST,
    Capacity.emptiest_first: ws.EMPTIEST,
}


def supported(
    workload: Workload, scheduler: Scheduler, *, outages: Sequence[Outage] = (), observers: Sequence[Observer] = ()
) -> str:
    """Why this engine cannot do it, in words that end a sentence; "" where it can."""
    runs = np.array([not reason for reason in workload.refused], dtype=bool)
    placement, backfill = scheduler.placement, type(scheduler.backfill)
    looks = isinstance(placement, Placement)
    unknown = (
        (len(outages) > 0, "machines that fail or are drained"),
        (len(observers) > 0, "observers"),
        ((workload.parents[runs] > 0).any(), "jobs that wait for other jobs"),
        (np.isfinite(workload.cancel_s[runs]).any(), "jobs whose owner gives up waiting"),
        (workload.latency_s is not None, "schedulers that see jobs late"),
        (isinstance(scheduler.order, Accounting), "orders that keep accounts"),
        (len(scheduler.admission) > 0, "rules of admission"),
        (len(scheduler.filters) > 0, "rules about where a job may run"),
        (scheduler.inspector is not None, "inspectors of what was decided"),
        (scheduler.preempts, "displaced jobs"),
        (scheduler.checkpoint is not None, "checkpoints"),
        (backfill not in _BACKFILLS, f"the backfill {backfill.__name__}"),
        (looks, f"placements that look at more than what is free, as {type(placement).__name__} does"),
        (not looks and _rule_of(placement) == NONE, f"the placement {getattr(placement, '__name__', placement)}"),
    )
    return next((words for holds, words in unknown if holds), "")


def _rule_of(placement: object) -> int:
    """The number of the placement; NONE for one that is not known. Not every object can be looked up by its value."""
    return next((rule for known, rule in _PLACEMENTS.items() if known is placement), NONE)


class WindowTwin:
    """A cluster of machines with its queue, as `JobTwin`, without what `supported` names."""

    def __init__(
        self,
        workload: Workload,
        machines: Machines,
        scheduler: Scheduler,
        *,
        outages: Sequence[Outage] = (),
        observers: Sequence[Observer] = (),
        history: bool = True,
        tick_s: float = TICK_S,
    ) -> None:
        """An empty cluster at second 0 that SimPy wakes every `tick_s` of simulated time.

        With `history` it keeps what lay where: 24 bytes for each machine that a gang took, nothing for other jobs.

        Raises:
            SimulationError: something asked for is left to the reference, the scheduler plans ahead and a job has no
                estimate, or `tick_s` is not above zero.
        """
        reason = supported(workload, scheduler, outages=outages, observers=observers)
        if reason:
            raise SimulationError(f"the fast engine does not know {reason}: use simulator.JobTwin, the reference")
        if not tick_s > 0:
            raise SimulationError(f"tick_s={tick_s:g} must be above 0")
        check_estimates(workload, scheduler)
        self.workload, self.machines, self.scheduler, self.tick_s = workload, machines, scheduler, tick_s
        self.keeps_history = history
        self._order = cast("Order", scheduler.order)  # one that keeps accounts was refused
        keys = None if self._order.changing else self._order.keys(workload, np.arange(len(workload)), 0.0)
        rules = (_rule_of(scheduler.placement), _BACKFILLS[type(scheduler.backfill)])
        self._fixed = ws.fixed(workload, machines, keys, rules, kill=scheduler.kill)
        self._work = ws.scratch(machines)
        self.state = ws.empty(workload, machines, self._fixed, plans=scheduler.backfill.plans, history=history)
        self.now_s = 0.0
        self._env, self._due_s = simpy.Environment(), NEVER
        self._plan()

    # -------------------------------------------------- the clock

    def run(self, until_s: float | None = None) -> None:
        """Let time pass until `until_s`, what happens then included; until nothing is left to happen by default."""
        if until_s is None or until_s == NEVER:
            self._env.run()
            return
        if not until_s >= self.now_s:
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
        while (wish := advance(self._fixed, self.state, self._work, until_s)) != SETTLED:
            if wish == LENGTHEN:
                self.state = ws.lengthened(self.state)
            else:
                self._reorder()

    def _reorder(self) -> None:
        """Put the queue in the order that holds now: NumPy works the keys out, so that they tie as in the reference."""
        count = self.state.number
        waiting = self.state.queue[count[HEAD] : count[TAIL]]
        jobs = waiting.astype(np.int64)
        keys = self._order.keys(self.workload, jobs, float(self.state.now_s[0]))
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
            "losses": np.zeros(len(self.workload), dtype=np.int32),
            "first_start_s": state.start_s.copy(),
            "start_s": state.start_s.copy(),
            "end_s": state.end_s.copy(),
            "ran_s": np.where(ended, state.end_s - state.start_s, 0.0),
            "kept_s": np.zeros(len(self.workload)),
            "spent_s": np.zeros(len(self.workload)),
            "unsaved_s": np.zeros(len(self.workload)),
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
        return {job: self._held_by(job) for job in np.flatnonzero(self.state.status == RUNNING).tolist()}

    def _held_by(self, job: int) -> Held:
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

    @property
    def history(self) -> F8:
        """What lay where and is over [rows, 5]: job, machine, instances, from, until; no row where none is kept."""
        state = self.state
        ended = np.isin(state.status, (DONE, KILLED)) & self.keeps_history
        gang = self._fixed.jobs[:, INSTANCES] > 1
        alone = np.flatnonzero(ended & ~gang)
        rows = [np.column_stack([alone, state.machine[alone], np.ones(len(alone))])]
        jobs = np.flatnonzero(ended & gang)
        slots = state.slots[state.first_slot[jobs]] if len(jobs) else state.slots[:0]
        while len(jobs):
            rows.append(np.column_stack([jobs, slots[:, :2]]))
            more = slots[:, 2] != NONE
            jobs, slots = jobs[more], state.slots[slots[more, 2]]
        table = np.concatenate(rows, dtype=np.float64)
        job = table[:, 0].astype(np.int64)
        return np.column_stack([table, state.start_s[job], state.end_s[job]])

    # -------------------------------------------------- copies

    def reference(self) -> JobTwin:
        """A twin of the reference in the same state, which goes on alike: to ask what only it can tell."""
        twin = JobTwin(self.workload, self.machines, self.scheduler, history=self.keeps_history)
        state, number = self.state, self.state.number
        twin.now_s, twin.columns, twin.held = self.now_s, self.columns, self.held
        for job, held in twin.held.items():
            for machine, count, devices in held:
                twin.capacity.hold(job, machine, count, devices)
        twin.history = [
            (int(job), int(m), int(n), begin_s, end_s) for job, m, n, begin_s, end_s in self.history.tolist()
        ]
        if self.scheduler.backfill.plans:
            twin.running = sorted((float(state.start_s[job] + self.workload.limit_s[job]), job) for job in twin.held)
        due = zip(state.end_due_s[: number[ENDS]].tolist(), state.end_job[: number[ENDS]].tolist(), strict=True)
        kind = np.where(self._fixed.jobs[:, ws.WAS_KILLED], KILL, END).tolist()
        twin._agenda = sorted((due_s, kind[job], job, 1) for due_s, job in due)
        twin._next = int(number[NEXT])
        twin._wire()
        for job in self.queue.tolist():
            twin._enqueue(job)
        if self._order.changing:
            # the order may be older here than the scheduler's last look: it is worked out when somebody may start
            twin.now_s = float(state.now_s[0])
            twin._reorder()
            twin.now_s = self.now_s
        return twin

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
        """Write the state to `path`, as arrays in an .npz file, which appears whole or not at all."""
        stamp = np.array([FORMAT, self._checksum(), self.keeps_history], dtype=np.int64)
        clock_s = np.array([self.now_s, self.tick_s])
        snapshot.write(Path(path), {"stamp": stamp, "clock_s": clock_s, **self.state._asdict()})

    @classmethod
    def load(cls, path: str | Path, workload: Workload, machines: Machines, scheduler: Scheduler) -> WindowTwin:
        """The twin that was saved to `path`.

        Raises:
            SimulationError: the file cannot be read, or was saved with other jobs, machines or another scheduler.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            (version, checksum, history) = arrays.pop("stamp").tolist()
            (now_s, tick_s), state = arrays.pop("clock_s").tolist(), State(**arrays)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise SimulationError(f"{path} holds no saved twin ({error}): save one with WindowTwin.save") from error
        twin = cls(workload, machines, scheduler, tick_s=tick_s, history=bool(history))
        if (version, checksum) != (FORMAT, twin._checksum()) or not _alike(state, twin.state):
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


def _alike(stored: State, mine: State) -> bool:
    """Do the arrays have the same shapes and types? A history may have made more slots."""
    return all(
        a.dtype == b.dtype
        and a.shape[1:] == b.shape[1:]
        and (len(a) == len(b) or (name == "slots" and len(a) > len(b)))
        for name, a, b in zip(State._fields, stored, mine, strict=True)
    )


def _listed(slots: I8, slot: int) -> list[list[int]]:
    """The entries of a linked list, the first taken first."""
    found = []
    while slot != NONE:
        found.append(slots[slot, :-1].tolist())
        slot = int(slots[slot, -1])
    return found[::-1]
