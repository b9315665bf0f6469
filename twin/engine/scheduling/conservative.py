"""Conservative backfilling: every waiting job holds a reservation, and nobody is ever moved to a later one.

Mu'alem and Feitelson, "Utilization, predictability, workloads, and user runtime estimates in scheduling the IBM SP2
with backfilling", IEEE TPDS 12(6), 2001. The plan is a profile of what will be free, from estimates alone: [times,
machines, resources], each row from its time until the next one's, the last for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from twin.engine.jobs.simulator import JobTwin
from twin.engine.jobs.workload import F8, I8

_NOTE = "conservative"
_PARTS = ("jobs", "begin_s", "instances", "running", "open")


@dataclass(frozen=True, slots=True)
class Plan:
    """The reservations of the waiting jobs, the first to start first, and what they were made for."""

    jobs: tuple[int, ...]
    begin_s: F8  # [jobs]; infinite where the open machines cannot hold the job
    instances: I8  # [jobs, machines], where
    running: tuple[tuple[float, int], ...]  # (estimated end, job)
    open: int  # machines that took jobs, as bits


@dataclass(frozen=True, slots=True)
class Conservative:
    """Whoever arrives is given the earliest time at which it fits beside all reservations given before.

    When a job ends before its estimate, or a reservation is given up, the plan is compressed: in the order of the
    reservations each is taken out and put back at the earliest time, which is never a later one. So nobody starts
    later than the time that it was given first. This guarantee holds for fixed orders of the queue only (which say
    who is given a time first of those who arrive together; a fork to another scheduler keeps what was promised), while
    estimates are upper bounds and no machine closes. With an order that changes, the plan is made anew in the order of
    the queue at each look. A job that runs past its estimate counts as ending now, and while there is one, and after a
    machine closed, the plan is made anew in the order of the reservations.

    A reservation names its machines, those with the lowest numbers first; the scheduler's `placement` is not asked.
    GPU shares are counted machine by machine, not device by device: a job that finds them scattered starts late.
    """

    plans: bool = True
    excludes: tuple[str, ...] = ("preempts", "filters")

    def start(self, twin: JobTwin) -> None:
        """Bring the plan up to date, then start everyone whose time has come."""
        plan = _renewed(twin)
        due = int(np.searchsorted(plan.begin_s, twin.now_s, side="right"))
        waits = np.ones(len(plan.jobs), dtype=np.bool_)
        for i, job in enumerate(plan.jobs[:due]):
            waits[i] = not _start(twin, job, plan.instances[i])
        started = {job for job, still in zip(plan.jobs, waits, strict=True) if not still}
        twin.queue[:] = [entry for entry in twin.queue if entry[1] not in started]
        jobs = tuple(job for job in plan.jobs if job not in started)
        left = Plan(jobs, plan.begin_s[waits], plan.instances[waits], tuple(twin.running), twin.capacity.open)
        twin.notes.update(_noted(left))


def reservations(twin: JobTwin) -> dict[int, float]:
    """When each waiting job will start at the latest by the plan, in seconds; empty under another scheduler.

    As of the last time that the scheduler looked; infinite where the open machines cannot hold the job.
    """
    plan = _plan(twin)
    return dict(zip(plan.jobs, plan.begin_s.tolist(), strict=True)) if plan else {}


def _noted(plan: Plan) -> dict[str, NDArray[Any]]:
    """The plan as arrays, which a saved twin can hold."""
    words = plan.open.to_bytes((plan.open.bit_length() + 7) // 8, "little")
    return {
        f"{_NOTE}.jobs": np.array(plan.jobs, dtype=np.int64),
        f"{_NOTE}.begin_s": plan.begin_s,
        f"{_NOTE}.instances": plan.instances,
        f"{_NOTE}.running": np.array(plan.running, dtype=np.float64).reshape(-1, 2),
        f"{_NOTE}.open": np.frombuffer(words, dtype=np.uint8),
    }


def _plan(twin: JobTwin) -> Plan | None:
    """The plan of the last look; None where there was none."""
    if f"{_NOTE}.jobs" not in twin.notes:
        return None
    jobs, begin_s, instances, running, opened = (twin.notes[f"{_NOTE}.{part}"] for part in _PARTS)
    return Plan(
        jobs=tuple(jobs.tolist()),
        begin_s=begin_s,
        instances=instances,
        running=tuple((end_s, int(job)) for end_s, job in running.tolist()),
        open=int.from_bytes(opened.tobytes(), "little"),
    )


def _start(twin: JobTwin, job: int, instances: I8) -> bool:
    """Start the job on the machines of its reservation."""
    promised = instances[:, None] * twin.workload.request[job]
    return twin.start(job, dict(enumerate(promised.tolist())))


def _renewed(twin: JobTwin) -> Plan:
    """The plan as of now, sorted by time, with everyone who waits in it."""
    old = _plan(twin)
    if old is None:
        old = Plan((), np.empty(0), np.empty((0, len(twin.machines)), dtype=np.int64), (), twin.capacity.open)
    waiting = [job for _, job in twin.queue]
    present = set(waiting)
    stays = np.array([job in present for job in old.jobs], dtype=np.bool_)
    jobs = [job for job in old.jobs if job in present]
    keeps, moves = _holds(twin, old), not stays.all() or _ended_early(twin, old) or twin.capacity.open != old.open
    if not twin.has_fixed_order:
        jobs, keeps = waiting, False
    else:
        planned = set(jobs)
        jobs += [job for job in waiting if job not in planned]
    kept = int(stays.sum()) if keeps else 0
    begin_s = np.full(len(jobs), np.inf)
    instances = np.zeros((len(jobs), len(twin.machines)), dtype=np.int64)
    begin_s[:kept], instances[:kept] = old.begin_s[stays][:kept], old.instances[stays][:kept]
    if kept < len(jobs) or (kept and moves):
        _plan_in_order(twin, np.array(jobs, dtype=np.int64), begin_s, instances, kept, bool(moves))
    by_time = np.argsort(begin_s, kind="stable")
    return Plan(tuple(jobs[i] for i in by_time.tolist()), begin_s[by_time], instances[by_time], (), 0)


def _holds(twin: JobTwin, old: Plan) -> bool:
    """Can all reservations be kept as they are?"""
    late = bool(old.jobs) and old.begin_s[0] < twin.now_s
    overdue = bool(twin.running) and twin.running[0][0] <= twin.now_s
    # bits that were open and are not any more
    closed = old.open & ~twin.capacity.open
    unplanned = not set(twin.running) <= set(old.running)
    return not (late or overdue or closed or unplanned)


def _ended_early(twin: JobTwin, old: Plan) -> bool:
    still = set(twin.running)
    return any(entry[0] > twin.now_s and entry not in still for entry in old.running)


def _plan_in_order(twin: JobTwin, jobs: I8, begin_s: F8, instances: I8, kept: int, compress: bool) -> None:
    """Fill `begin_s` and `instances` in place."""
    capacity, load = twin.capacity, twin.workload
    releases = [
        (max(end_s, twin.now_s), job, machine, count)
        for end_s, job in twin.running
        for machine, count, _ in twin.held[job]
    ]
    ends_s = np.array([release[0] for release in releases], dtype=np.float64)
    who = np.array([release[1:] for release in releases], dtype=np.int64).reshape(-1, 3)
    machines = len(twin.machines)
    bits = np.frombuffer(capacity.open.to_bytes((machines + 7) // 8, "little"), dtype=np.uint8)
    is_open = np.unpackbits(bits, count=machines, bitorder="little").astype(np.bool_)
    _fill_plan(
        twin.now_s,
        np.ascontiguousarray(capacity.free),
        ends_s,
        load.request[who[:, 0]] * who[:, 2:],
        who[:, 1].copy(),
        load.request[jobs],
        load.instances[jobs],
        load.limit_s[jobs],
        load.fits_kind[load.job_class[jobs]][:, twin.machines.kind] & is_open,
        begin_s,
        instances,
        kept,
        compress,
    )


@numba.njit(cache=True)
def _fill_plan(
    now_s: float,
    free_now: I8,
    ends_s: F8,
    released: I8,
    machine: I8,
    request: I8,
    needed: I8,
    limit_s: F8,
    accepted: NDArray[np.bool_],
    begin_s: F8,
    instances: I8,
    kept: int,
    compress: bool,
) -> None:
    """Give everyone from `kept` on the earliest time beside those before; those before move up if `compress`.

    Args:
        now_s: the profile's first time.
        free_now: what is free now [machines, resources].
        ends_s: when running jobs give back, in order of time [releases].
        released: what they give back [releases, resources].
        machine: where [releases].
        request: of one instance [jobs, resources].
        needed: instances [jobs].
        limit_s: estimates [jobs].
        accepted: machines that each job may take [jobs, machines].
        begin_s: the reservations' times, in and out [jobs].
        instances: the reservations' places, in and out [jobs, machines].
        kept: how many have a reservation already, which come first.
        compress: may those move to earlier times?
    """
    most = 1 + len(ends_s) + 2 * (len(needed) + (kept if compress else 0))
    times = np.empty(most)
    free = np.empty((most, free_now.shape[0], free_now.shape[1]), dtype=np.int64)
    times[0], free[0], rows = now_s, free_now, 1
    for i in range(len(ends_s)):
        row, rows = _split(times, free, rows, ends_s[i])
        free[row:rows, machine[i]] += released[i]
    for i in range(kept):
        rows = _book(times, free, rows, begin_s[i], limit_s[i], instances[i], request[i], -1)
    for i in range(0 if compress else kept, len(needed)):
        if i < kept:
            rows = _book(times, free, rows, begin_s[i], limit_s[i], instances[i], request[i], 1)
        begin_s[i] = _earliest(times, free, rows, request[i], needed[i], limit_s[i], accepted[i], instances[i])
        rows = _book(times, free, rows, begin_s[i], limit_s[i], instances[i], request[i], -1)


@numba.njit(cache=True)
def _split(times: F8, free: I8, rows: int, time_s: float) -> tuple[int, int]:
    """The row that begins at a time, made if there is none, and the number of rows."""
    row = int(np.searchsorted(times[:rows], time_s))
    if row < rows and times[row] == time_s:
        return row, rows
    for later in range(rows, row, -1):
        times[later] = times[later - 1]
        free[later] = free[later - 1]
    times[row] = time_s
    free[row] = free[row - 1]
    return row, rows + 1


@numba.njit(cache=True)
def _book(times: F8, free: I8, rows: int, begin_s: float, limit_s: float, instances: I8, request: I8, sign: int) -> int:
    """Take (-1) or give back (1) what a reservation holds; the number of rows then."""
    if begin_s == np.inf:
        return rows
    first, rows = _split(times, free, rows, begin_s)
    last, rows = _split(times, free, rows, begin_s + limit_s)
    for row in range(first, last):
        for machine in range(len(instances)):
            if instances[machine]:
                free[row, machine] += sign * instances[machine] * request
    return rows


@numba.njit(cache=True)
def _room(free: I8, request: I8, most: int) -> int:
    """How many instances go into what is free on a machine [resources], at most `most`."""
    room = most
    for r in range(len(request)):
        if request[r]:
            room = min(room, max(free[r], 0) // request[r])
    return room


@numba.njit(cache=True)
def _earliest(
    times: F8,
    free: I8,
    rows: int,
    request: I8,
    needed: int,
    limit_s: float,
    accepted: NDArray[np.bool_],
    instances: I8,
) -> float:
    """The first time from which all instances fit for the whole estimate; fills `instances`, lowest machines first."""
    begin, room = 0, np.empty(len(accepted), dtype=np.int64)
    while begin < rows:
        blocked = _fits_from(times, free, rows, begin, request, needed, limit_s, accepted, room)
        if blocked < 0:
            left = needed
            for machine in range(len(accepted)):
                instances[machine] = min(left, room[machine])
                left -= instances[machine]
            return times[begin]
        begin = blocked
    instances[:] = 0
    return np.inf


@numba.njit(cache=True)
def _fits_from(
    times: F8,
    free: I8,
    rows: int,
    begin: int,
    request: I8,
    needed: int,
    limit_s: float,
    accepted: NDArray[np.bool_],
    room: I8,
) -> int:
    """-1 where the job fits from row `begin` on, else the next row worth a try.

    Fills `room`, instances on each machine during the whole time.
    """
    for m in range(len(accepted)):
        room[m] = needed if accepted[m] else 0
    row, end_s = begin, times[begin] + limit_s
    while row < rows and (row == begin or times[row] < end_s):
        through, here = 0, 0
        for m in range(len(accepted)):
            if accepted[m]:
                now = _room(free[row, m], request, needed)
                here += now
                room[m] = min(room[m], now)
                through += room[m]
        if through < needed:
            # nobody who needs this row fits before it is over
            return row + 1 if here < needed else begin + 1
        row += 1
    return -1
