"""Gang scheduling by time slices: jobs share machines by taking turns, each with all of its instances at once.

The timeslicer of Slurm (slurm.schedmd.com/gang_scheduling.html). At the end of a slice in which somebody waited for its
turn, those who ran go to the end of the rotation, and machines are given anew in its order, to those who waited longest
first and then to whoever fits beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from twin.engine.jobs.capacity import Spare
from twin.engine.jobs.machines import CPU, UNLIMITED
from twin.engine.jobs.simulator import WAITING
from twin.engine.jobs.workload import I8, NEVER
from twin.errors import UsageError

if TYPE_CHECKING:
    from twin.engine.jobs.simulator import JobTwin

_ROTATION, _HOMES, _DUE = "gang:rotation", "gang:homes", "gang:due"
_SHARED = np.array([True, False, True])  # cores and GPUs by turns, memory never
_MAYBE = 1e-9
"""A part of a slice by which a time may have been rounded."""


@dataclass(frozen=True, slots=True)
class TimeSlices:
    """Up to `most` jobs share a core or GPU, in slices that end at each multiple of `slice_s`.

    A job enters the rotation in the order of the queue, where free room is found at once (by the scheduler's placement)
    or else where its machines have fewest to share with; whoever cannot enter blocks those behind. It keeps its
    machines until it ends, and where it entered it resumes. Suspended jobs stay in memory: all who share a machine fit
    into its memory together. A change of turns takes no time and loses no work. Who is suspended while its machine
    closes enters anew, elsewhere. GPU shares are counted machine by machine, not device by device.
    """

    slice_s: float = 30.0
    most: int = 2
    plans: bool = False
    excludes: tuple[str, ...] = ("preempts", "filters", "inspector")

    def __post_init__(self) -> None:
        if not (0 < self.slice_s < np.inf and self.most >= 1):
            raise UsageError(f"slice_s={self.slice_s} must be a time above 0 s, and most={self.most} at least 1")

    def start(self, twin: JobTwin) -> None:
        """Change turns if a slice is over, resume who fits, and let those behind enter."""
        rotation = _Rotation(twin, self.most)
        if twin.now_s >= _due_s(twin):
            rotation.turn()
        rotation.resume()
        for _, job in list(twin.queue):
            if job not in rotation.homes and job not in twin.held and not twin.barred(job) and not rotation.enter(job):
                break
        twin.queue[:] = [entry for entry in twin.queue if entry[1] not in twin.held]
        due_s = _due_s(twin)
        if not rotation.waiting() or not twin.held:
            due_s = NEVER
        elif not twin.now_s < due_s < NEVER:
            due_s = (np.floor(twin.now_s / self.slice_s + _MAYBE) + 1.0) * self.slice_s
            due_s += self.slice_s if due_s <= twin.now_s else 0.0  # a product that was rounded down
            twin.look_at(due_s)
        rotation.note(due_s)


def _due_s(twin: JobTwin) -> float:
    """When the slice ends at whose end somebody waits; never where nobody does."""
    due = twin.notes.get(_DUE)
    return float(due[0]) if isinstance(due, np.ndarray) else NEVER


class _Rotation:
    """Who takes turns, the next first, and the machines of each: those of one look of the scheduler."""

    def __init__(self, twin: JobTwin, most: int) -> None:
        """As noted, without those who left; with those who run and came in under another discipline."""
        self.twin = twin
        self.homes: dict[int, I8] = {}  # job -> [machines of it, (machine, instances)]
        rotation, homes = twin.notes.get(_ROTATION), twin.notes.get(_HOMES)
        if isinstance(rotation, np.ndarray) and isinstance(homes, np.ndarray):
            begin = np.searchsorted(homes[:, 0], np.arange(len(rotation) + 1)).tolist()
            homes = homes[:, 1:]
            waits = (twin.columns["state"][rotation] == WAITING).tolist()
            for place, job in enumerate(rotation.tolist()):
                home = homes[begin[place] : begin[place + 1]]
                if job in twin.held or (waits[place] and self._is_open(home)):
                    self.homes[job] = home
        for job, held in twin.held.items():
            if job not in self.homes:
                self.homes[job] = _home(held)
        capacity = twin.machines.capacity
        # what may be promised: more than there is of cores and GPUs, but not of memory
        self.left = np.where(capacity >= UNLIMITED // most, UNLIMITED, capacity * np.where(_SHARED, most, 1))
        if self.homes:
            jobs, rows = self._rows()
            np.subtract.at(self.left, rows[:, 0], rows[:, 1:] * twin.workload.request[jobs])

    def _rows(self) -> tuple[I8, I8]:
        """The homes one after the other: whose, and (machine, instances)."""
        lengths = [len(home) for home in self.homes.values()]
        return np.repeat(np.array(list(self.homes), dtype=np.int64), lengths), np.concatenate(list(self.homes.values()))

    def _is_open(self, home: I8) -> bool:
        return all(self.twin.capacity.open >> machine & 1 for machine in home[:, 0].tolist())

    def waiting(self) -> list[int]:
        """Those whose turn it is not, without whom a rule keeps from starting."""
        return [job for job in self.homes if job not in self.twin.held and not self.twin.barred(job)]

    def turn(self) -> None:
        """Send those who run to the end, and take machines from those who would find none beside those before them."""
        twin = self.twin
        waiting = self.waiting()
        if not waiting:
            return
        runs = {job: home for job, home in self.homes.items() if job in twin.held}
        self.homes = {job: home for job, home in self.homes.items() if job not in runs} | runs
        free = twin.capacity.free.copy()
        may_yield = [job for job, home in runs.items() if self._is_open(home)]  # elsewhere it could not resume
        for job in may_yield:
            free[runs[job][:, 0]] += runs[job][:, 1:] * twin.workload.request[job]
        stays = set(self._who_fits(free, waiting + may_yield))
        for job in may_yield:
            if job not in stays:
                twin.suspend(job)

    def resume(self) -> None:
        """Give machines to those who wait and fit, in order."""
        twin = self.twin
        elsewhere = [0] * twin.workload.request.shape[1]
        for job in self._who_fits(twin.capacity.free.copy(), self.waiting()):
            spare: Spare = {machine: elsewhere for machine in range(len(twin.machines))}  # noqa: C420
            for machine, count in self.homes[job].tolist():
                spare[machine] = (count * twin.workload.request[job]).tolist()
            twin.start(job, spare)

    def _who_fits(self, free: I8, jobs: list[int]) -> list[int]:
        """Those of these jobs that fit into `free` together, taken in order; changes `free`."""
        if not jobs:
            return []
        homes = [self.homes[job] for job in jobs]
        ends = np.cumsum([len(home) for home in homes])
        fits = _fit(free, ends, np.concatenate(homes), self.twin.workload.request[np.array(jobs)])
        return [job for job, each in zip(jobs, fits.tolist(), strict=True) if each]

    def enter(self, job: int) -> bool:
        """Let a job in: it starts where there is room, or waits for its turn where it shares with fewest."""
        twin = self.twin
        # what suspended jobs keep in memory is not free, though nobody holds it
        tight = np.flatnonzero((self.left < twin.capacity.free).any(axis=1)).tolist()
        if twin.start(job, {machine: self.left[machine].tolist() for machine in tight}):
            home = _home(twin.held[job])
        else:
            home = self._shared_home(job)
        if home is None:
            return False
        self.homes[job] = home
        self.left[home[:, 0]] -= home[:, 1:] * twin.workload.request[job]
        return True

    def _shared_home(self, job: int) -> I8 | None:
        """Machines for all instances, those with most cores left to promise first; None where they are too few."""
        twin = self.twin
        request, needed = twin.workload.request[job], int(twin.workload.instances[job])
        room = np.full(len(twin.machines), needed)
        for r in np.flatnonzero(request).tolist():
            # its instances run together: a machine is not larger for being shared
            most = np.minimum(self.left[:, r], twin.machines.capacity[:, r])
            room = np.minimum(room, np.maximum(most, 0) // request[r])
        bits = twin.candidates(job)
        room *= np.array([bits >> machine & 1 for machine in range(len(room))])
        best = np.argsort(-self.left[:, CPU], kind="stable")
        taken = np.minimum(room[best], np.maximum(needed - (np.cumsum(room[best]) - room[best]), 0))
        if taken.sum() < needed:
            return None
        return np.column_stack([best, taken])[taken > 0]

    def note(self, due_s: float) -> None:
        """Remember the rotation until the next look."""
        notes = self.twin.notes
        notes[_ROTATION] = np.array(list(self.homes), dtype=np.int64)
        places = np.repeat(np.arange(len(self.homes)), [len(home) for home in self.homes.values()])
        notes[_HOMES] = np.column_stack([places, self._rows()[1]]) if self.homes else np.empty((0, 3), dtype=np.int64)
        notes[_DUE] = np.array([due_s])


def _home(held: tuple[tuple[int, int, tuple[int, ...]], ...]) -> I8:
    return np.array([(machine, count) for machine, count, _ in held], dtype=np.int64)


@numba.njit(cache=True)
def _fit(free: I8, ends: I8, homes: I8, request: I8) -> NDArray[np.bool_]:
    """Which jobs fit, taken in order [jobs]; takes them from `free` [machines, resources].

    Args:
        free: what there is.
        ends: where the home of each job ends in `homes` [jobs].
        homes: machine and instances, job by job.
        request: of one instance of each job [jobs, resources].
    """
    fits = np.ones(len(ends), dtype=np.bool_)
    begin = 0
    for job in range(len(ends)):
        for row in range(begin, ends[job]):
            for r in range(request.shape[1]):
                need = homes[row, 1] * request[job, r]
                if need and free[homes[row, 0], r] < need:
                    fits[job] = False
        if fits[job]:
            for row in range(begin, ends[job]):
                free[homes[row, 0]] -= homes[row, 1] * request[job]
        begin = ends[job]
    return fits
