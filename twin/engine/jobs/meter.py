"""How a cluster fares over time, measured while the twin runs, in memory that does not grow with simulated time.

Between two looks of the scheduler nothing changes, so each quantity is a level that lasts: its mean over a step is the
sum of level x time over the length of the step. There are at most so many steps; when time goes beyond the last, each
two neighbours become one of twice the length, which leaves sums and means exact.

A machine draws idle_w + (full_w - idle_w) u^e, with u the held share of its cores and e the exponent of its pool's
power curve (as `fragments.energy_j`, for jobs that use all that they hold), idle and closed ones included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.engine.jobs.capacity import Held
from twin.engine.jobs.cells import cells
from twin.engine.jobs.machines import CPU, UNITS, Machines
from twin.engine.jobs.scheduler import Observer
from twin.engine.jobs.simulator import DONE, EXPECTED, WAITING, JobTwin
from twin.engine.jobs.workload import Workload
from twin.errors import SimulationError, UsageError
from twin.trace import tables

_WAITING_JOBS, _WAITING_CORES, _RUNNING_JOBS, _CPU, _MEMORY, _GPU, _EMPTY, _CLOSED, _POWER = range(9)
_COLUMNS = (
    "waiting_jobs", "waiting_cores", "running_jobs", "cpu_cores", "memory_gib", "gpus", "empty_machines",
    "closed_machines", "power_w",
)  # fmt: skip
_LEVELS = len(_COLUMNS)
_NANOWATTS = 1e9
"""Power is counted in whole nanowatts, so that what is added and taken away again leaves nothing behind."""
_SCALE = np.array([1.0, UNITS[CPU], 1.0, *UNITS, 1.0, 1.0, _NANOWATTS])
_HELD = (_CPU, _MEMORY, _GPU)
_QUEUES, _LIES, _LIES_IN_POOL, _LIES_ALSO, _CLOSES = range(5)  # kinds of notes; how often a job in pieces counts
_NOTES = 4096
"""Notes that are kept at most before the books are brought up to date."""
_BLOCK = 512
"""Jobs between two questions whether any changed: a multiple of 8."""


class Waits:
    """Count, mean, variance and quantiles of waits, without keeping them.

    Mean and variance are those of Welford (Technometrics 4(3), 1962). Quantiles come from a histogram whose bins grow
    by (1 + error) / (1 - error), so that an answer is off by the share `error` of the true one at most (DDSketch:
    Masson, Rim and Lee, VLDB 2019); waits below 1 ms count as 0, and those beyond 1e10 s as 1e10 s.
    """

    _LEAST_S, _MOST_S = 1e-3, 1e10

    def __init__(self, error: float = 0.01) -> None:
        """No wait yet; raises UsageError unless 0 < `error` < 1."""
        if not 0.0 < error < 1.0:
            raise UsageError(f"error={error:g} must lie between 0 and 1, e.g. 0.01 for one percent")
        self.error, self.count, self.mean_s = error, 0, 0.0
        self._squares = 0.0
        self._log_growth = math.log((1.0 + error) / (1.0 - error))
        self._bins = np.zeros(self._bin(self._MOST_S) + 1, dtype=np.int64)

    def add(self, wait_s: float) -> None:
        """One more wait of that many seconds."""
        self.count += 1
        off_s = wait_s - self.mean_s
        self.mean_s += off_s / self.count
        self._squares += off_s * (wait_s - self.mean_s)
        self._bins[self._bin(wait_s)] += 1

    @property
    def variance_s2(self) -> float:
        """Variance of the waits, squared seconds (the mean of the squared distances); NaN before the first."""
        return self._squares / self.count if self.count else math.nan

    def quantile_s(self, share: float) -> float:
        """The wait of rank floor(share x (count - 1)) in ascending order, up to the relative error.

        NaN before the first. Raises UsageError unless 0 <= `share` <= 1.
        """
        if not 0.0 <= share <= 1.0:
            raise UsageError(f"share={share:g} must lie between 0 and 1")
        if not self.count:
            return math.nan
        rank = math.floor(share * (self.count - 1))
        found = int(np.searchsorted(np.cumsum(self._bins), rank, side="right"))
        # the middle of the bin in the sense of the relative error; bin 0 holds what is no wait
        return self._LEAST_S * (1.0 + self.error) * math.exp((found - 1) * self._log_growth) if found else 0.0

    def _bin(self, wait_s: float) -> int:
        if wait_s < self._LEAST_S:
            return 0
        return 1 + int(math.log(min(wait_s, self._MOST_S) / self._LEAST_S) / self._log_growth)


class _Books(NamedTuple):
    """How a twin stands, and what is needed to keep that up, as arrays for compiled code.

    `level` are the levels of the cluster, then of each pool, in whole small units; the cluster's row holds only what is
    about jobs, for what is about machines is the sum over its pools. `moment` sums change x time since the begin of the
    step, so that a step's level x time is (level at its end) x length - moment: what does not change costs nothing.
    """

    level: NDArray[np.int64]  # [(1 + pools) x levels]
    moment: NDArray[np.float64]  # [(1 + pools) x levels]
    used: NDArray[np.int64]  # [machines]
    residents: NDArray[np.int64]  # [machines]
    draws_nw: NDArray[np.int64]  # [machines]
    row: NDArray[np.int64]  # [machines], where the levels of its pool begin
    capacity: NDArray[np.int64]  # [machines]
    idle_nw: NDArray[np.int64]  # [machines]
    span_nw: NDArray[np.float64]  # [machines]
    exponent: NDArray[np.float64]  # [machines]
    request: NDArray[np.int64]  # [jobs, resources]
    instances: NDArray[np.int64]  # [jobs]
    job_class: NDArray[np.int64]  # [jobs]
    waits_in: NDArray[np.bool_]  # [classes, 1 + pools]


def _books(load: Workload, machines: Machines) -> _Books:
    """All machines open and empty, and nobody has arrived."""
    powers = [machines.power[pool] for pool in machines.pool]
    idle_nw = np.array([round(power.idle_w * _NANOWATTS) for power in powers], dtype=np.int64)
    row = (machines.pool.astype(np.int64) + 1) * _LEVELS
    level = np.zeros((1 + len(machines.pools)) * _LEVELS, dtype=np.int64)
    np.add.at(level, row + _EMPTY, 1)
    np.add.at(level, row + _POWER, idle_nw)
    in_pool = np.zeros((len(machines.kinds), len(machines.pools)), dtype=np.int64)
    in_pool[machines.kind, machines.pool] = 1
    accepted = load.fits_kind.astype(np.int64) @ in_pool > 0
    return _Books(
        level=level,
        moment=np.zeros(len(level)),
        used=np.zeros(len(machines), dtype=np.int64),
        residents=np.zeros(len(machines), dtype=np.int64),
        draws_nw=idle_nw.copy(),
        row=row,
        capacity=np.maximum(machines.capacity[:, CPU], 1),
        idle_nw=idle_nw,
        span_nw=np.array([(power.full_w - power.idle_w) * _NANOWATTS for power in powers]),
        exponent=np.array([power.exponent for power in powers]),
        request=np.ascontiguousarray(load.request),
        instances=load.instances,
        job_class=load.job_class,
        waits_in=np.column_stack([np.ones(len(accepted), dtype=np.bool_), accepted]),
    )


class _Levels:
    """Notes what changes in a twin, and brings the books up to date in batches.

    `at_s` is always the time since the begin of the step.
    """

    def __init__(self, twin: JobTwin) -> None:
        """All machines open and empty, and nobody has arrived."""
        load = twin.workload
        self.books = _books(load, twin.machines)
        self._notes: list[tuple[float, int, int, int, int]] = []  # at, kind, job, sign or signed count, machine
        self._open = (1 << len(twin.machines)) - 1
        self._states: NDArray[np.int8] = twin.columns["state"]
        self._seen = np.full(len(load), EXPECTED, dtype=np.int8)
        self._changes = np.empty(len(load), dtype=np.int64)
        self._low = self._high = 0
        self._submit_s = cells(np.append(load.submit_s, np.inf))

    def sums(self, since_s: float) -> NDArray[np.float64]:
        """Level x time of the step, which began so many seconds ago [(1 + pools) x levels]."""
        self._book()
        return self.books.level * since_s - self.books.moment

    def follow(self, twin: JobTwin, at_s: float) -> None:
        """Take note of who came to wait or waits no longer, and of machines that were closed or opened."""
        while self._submit_s[self._high] <= twin.now_s:
            self._high += 1
        count, self._low = _changed(self._states, self._seen, self._changes, self._low, self._high)
        for job in self._changes[:count].tolist() if count else ():
            self._notes.append((at_s, _QUEUES, job, 1, 0) if job >= 0 else (at_s, _QUEUES, ~job, -1, 0))
        if twin.capacity.open is not self._open:
            self._note_closed(twin.capacity.open, at_s)
        if len(self._notes) > _NOTES:
            self._book()

    def note_held(self, job: int, held: Held, sign: int, at_s: float) -> None:
        """A job comes to lie there (sign 1), or leaves (-1)."""
        kind = _LIES
        pools: set[int] = set()
        for machine, instances, _ in held:
            if kind != _LIES:  # it counts once as running, and once in each pool
                kind = _LIES_ALSO if self.books.row[machine] in pools else _LIES_IN_POOL
            if len(held) > 1:
                pools.add(int(self.books.row[machine]))
            self._notes.append((at_s, kind, job, sign * instances, machine))
            kind = _LIES_ALSO

    def _note_closed(self, opened: int, at_s: float) -> None:
        changed = opened ^ self._open
        while changed:
            lowest = changed & -changed
            self._notes.append((at_s, _CLOSES, 0, -1 if opened & lowest else 1, lowest.bit_length() - 1))
            changed ^= lowest
        self._open = opened

    def _book(self) -> None:
        if self._notes:
            _enter(np.array(self._notes), self.books)
            self._notes.clear()


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole time that was metered, of all machines together."""

    span_s: float
    held_core_s: float
    held_gib_s: float
    held_gpu_s: float
    energy_mj: float


class Meter(Observer):
    """Watches a twin; `table` says how it fared, `totals` and `waits` what it came to.

    Give it to the twin as one of its observers. After `run(until_s)` let it look once more (`meter.looked(twin)`), for
    nothing tells it that time passed after the last event. It meters one twin: a copy of it needs a meter of its own.
    """

    def __init__(self, steps: int = 2048, *, first_step_s: float = 1.0, begin_s: float = 0.0) -> None:
        """Nothing metered yet.

        Args:
            steps: how many steps there are at most; an even number.
            first_step_s: length of a step until the first merging, seconds.
            begin_s: from when on; of a twin that has run already, its `now_s`, and let the meter look at once.

        Raises:
            UsageError: an odd number of steps or none, or a step of no length.
        """
        if steps < 2 or steps % 2:
            raise UsageError(f"steps={steps} must be an even number above 0: steps are merged in pairs")
        if not 0.0 < first_step_s < math.inf:
            raise UsageError(f"first_step_s={first_step_s:g} must be above 0 s")
        self.waits = Waits()
        self.step_s = first_step_s
        self._steps, self._full = steps, 0  # how many there may be, and how many are over
        self._begin_s = self._step_begin_s = self._last_s = begin_s
        self._twin: JobTwin | None = None

    # -------------------------------------------------- looking on

    def started(self, twin: JobTwin, job: int, held: Held) -> None:
        """Take note of what the job holds from now on, and of its wait where it starts for the first time."""
        if twin is not self._twin:
            self._bind(twin, from_s=0.0)
        self._levels.note_held(job, held, 1, self._at_s(twin))
        if twin.columns["attempts"][job] == 1:
            self.waits.add(twin.now_s - float(twin.workload.submit_s[job]))

    def ended(self, twin: JobTwin, job: int, held: Held) -> None:
        """Take note of what the job holds no longer."""
        if twin is not self._twin:
            self._bind(twin, from_s=0.0)
        self._levels.note_held(job, held, -1, self._at_s(twin))

    def looked(self, twin: JobTwin) -> None:
        """Count the time since the last look, and take note of what changed.

        Raises:
            SimulationError: it is another twin than before, or one that ran before the meter came to it.
        """
        if twin is not self._twin:
            self._bind(twin, from_s=self._begin_s)
            for job, held in twin.held.items():
                self._levels.note_held(job, held, 1, 0.0)
        self._levels.follow(twin, self._at_s(twin))

    def _at_s(self, twin: JobTwin) -> float:
        """Seconds since the step began that now lies in."""
        now_s = self._last_s = twin.now_s
        if now_s > self._edge_s(self._full + 1):
            self._go_on(now_s)
        return now_s - self._step_begin_s

    def _edge_s(self, step: int) -> float:
        """When that step begins; a moment between two steps is the end of the earlier one."""
        return self._begin_s + step * self.step_s

    def _bind(self, twin: JobTwin, from_s: float) -> None:
        """`from_s` is the moment up to which the twin may have run already."""
        if self._twin is not None:
            raise SimulationError("a meter watches one twin: give each twin, and each copy of one, its own Meter")
        if (twin.workload.submit_s < twin.now_s).any() and twin.now_s != from_s:
            raise SimulationError(
                f"the twin ran before this meter came to it, at {twin.now_s:g} s: give the meter to the new twin, or "
                f"begin_s={twin.now_s!r}, and call looked at once"
            )
        self._twin, self._levels = twin, _Levels(twin)
        self._entities = ("cluster", *(f"pool:{name}" for name in twin.machines.pools))
        self._sums = np.zeros((self._steps, len(self._entities) * _LEVELS))

    def _go_on(self, now_s: float) -> None:
        """Steps are over; the one that `now_s` lies in begins."""
        self._sums[self._full] = self._levels.sums(self.step_s)
        self._full += 1
        books = self._levels.books
        books.moment[:] = 0.0
        level = books.level.astype(np.float64)
        while now_s > self._edge_s(self._steps):
            self._sums[self._full :] = level * self.step_s
            half = self._steps // 2
            self._sums[:half] = self._sums[0::2] + self._sums[1::2]
            self._full, self.step_s = half, 2.0 * self.step_s
        full = max(int((now_s - self._begin_s) / self.step_s), self._full)
        while self._edge_s(full) >= now_s:  # dividing rounds
            full -= 1
        self._sums[self._full : full] = level * self.step_s
        self._full, self._step_begin_s = full, self._edge_s(full)

    # -------------------------------------------------- what it came to

    def table(self) -> pl.DataFrame:
        """The table `job_steps`: means over each step, of the cluster and of each pool; the last may be shorter."""
        if self._last_s == self._begin_s:
            return tables.empty("job_steps")
        count = self._full + 1
        time_s = np.append(self._begin_s + np.arange(1, count) * self.step_s, self._last_s)
        step_s = np.diff(time_s, prepend=self._begin_s)
        entities = self._entities
        means = _with_cluster(self._metered()) / _SCALE / step_s[:, None, None]
        frame = pl.DataFrame(
            {
                "time_s": np.repeat(time_s, len(entities)),
                "step_s": np.repeat(step_s, len(entities)),
                "entity": entities * count,
                **{name: means[:, :, i].ravel() for i, name in enumerate(_COLUMNS)},
            }
        )
        return tables.conform(frame, "job_steps", "meter")

    def totals(self) -> Totals:
        """Sums over all the time that was metered."""
        if self._twin is None:
            return Totals(0.0, 0.0, 0.0, 0.0, 0.0)
        sums = _with_cluster(self._metered().sum(axis=0, keepdims=True))[0, 0] / _SCALE
        return Totals(
            span_s=self._last_s - self._begin_s,
            held_core_s=float(sums[_CPU]),
            held_gib_s=float(sums[_MEMORY]),
            held_gpu_s=float(sums[_GPU]),
            energy_mj=float(sums[_POWER]) / 1e6,
        )

    def _metered(self) -> NDArray[np.float64]:
        """Level x time of each step, the one that is not over included [steps, (1 + pools) x levels]."""
        return np.vstack((self._sums[: self._full], self._levels.sums(self._last_s - self._step_begin_s)))


def _with_cluster(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums by row [steps, 1 + pools, levels]; of what lies on machines, the cluster's is that of its pools."""
    made = sums.reshape(len(sums), -1, _LEVELS).copy()
    made[:, 0, _CPU:] = made[:, 1:, _CPU:].sum(axis=1)
    return made


@numba.njit(cache=True)
def _changed(
    states: NDArray[np.int8], seen: NDArray[np.int8], changes: NDArray[np.int64], low: int, high: int
) -> tuple[int, int]:
    """Writes to `changes` who came to wait, as job, and who waits no longer, as -1 - job, and brings `seen` up to date.

    Of the jobs from `low` to `high`; returns how many it wrote, and the new `low`, before which nothing changes any
    more. Eight states are compared at once.
    """
    whole = len(states) // 8 * 8
    words, seen_words = states[:whole].view(np.int64), seen[:whole].view(np.int64)
    count, begin = 0, low // 8 * 8
    while begin < high:
        end = begin + _BLOCK
        different = np.int64(end > whole)  # what lies behind the last whole word is looked at one by one
        for word in range(begin // 8, min(end, whole) // 8):
            different |= words[word] ^ seen_words[word]
        if different:
            for job in range(begin, min(end, high)):
                if (states[job] == WAITING) != (seen[job] == WAITING):
                    changes[count] = job if states[job] == WAITING else -1 - job
                    count += 1
                seen[job] = states[job]
        begin = end
    while low < high and states[low] >= DONE:
        low += 1
    return count, low


@numba.njit(cache=True)
def _enter(notes: NDArray[np.float64], books: _Books) -> None:
    """Brings the books up to date with notes [notes, (at, kind, job, count, machine)]."""
    for at_s, kind_, job_, count_, machine_ in notes:
        kind, job, count, machine = int(kind_), int(job_), int(count_), int(machine_)
        if kind == _QUEUES:
            cores = count * books.instances[job] * books.request[job, CPU]
            for part in range(books.waits_in.shape[1]):
                if books.waits_in[books.job_class[job], part]:
                    _change(books, part * _LEVELS + _WAITING_JOBS, count, at_s)
                    _change(books, part * _LEVELS + _WAITING_CORES, cores, at_s)
            continue
        row = books.row[machine]
        if kind == _CLOSES:
            _change(books, row + _CLOSED, count, at_s)
            continue
        sign = 1 if count > 0 else -1
        if kind == _LIES:
            _change(books, _RUNNING_JOBS, sign, at_s)
        if kind != _LIES_ALSO:
            _change(books, row + _RUNNING_JOBS, sign, at_s)
        for resource in range(len(_HELD)):
            _change(books, row + _HELD[resource], count * books.request[job, resource], at_s)
        books.residents[machine] += sign
        if books.residents[machine] == (sign > 0):  # the first to come, or the last to leave
            _change(books, row + _EMPTY, -sign, at_s)
        books.used[machine] += count * books.request[job, CPU]
        share = min(books.used[machine] / books.capacity[machine], 1.0) ** books.exponent[machine]
        draws_nw = books.idle_nw[machine] + np.int64(np.rint(books.span_nw[machine] * share))
        _change(books, row + _POWER, draws_nw - books.draws_nw[machine], at_s)
        books.draws_nw[machine] = draws_nw


@numba.njit(cache=True)
def _change(books: _Books, which: int, change: int, at_s: float) -> None:
    books.level[which] += change
    books.moment[which] += change * at_s
