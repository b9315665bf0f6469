"""Machines that are asked for more than they have: an event-driven fluid that shares the processor max-min fairly.

Between two events every task on the machine asks for a constant number of cores and gets its fair share: as much as it
asks for, or as much as everybody else who asks for more gets (water filling; Bertsekas and Gallager, Data Networks,
2nd ed., 6.5.2). An event is a task that arrives or a fragment that ends.

What a task does with less than it asks for is its policy:

- "stretch": a fragment ends when its work (cores times seconds) is done, duration times asked/given after its begin;
- "lose": a fragment ends on time, and the work that was not given is lost.

A fragment that asks for nothing is a pause and lasts as long as it is told, under both.

More capacity never makes a task end later whose demand is constant. One whose demand varies may end later: what it
does sooner may then meet somebody else's peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from twin.engine.jobs.fragments import Fragments
from twin.engine.jobs.machines import CPU, UNITS
from twin.errors import SimulationError

Policy = Literal["stretch", "lose"]
POLICIES = ("stretch", "lose")

# columns of the state of a running task: end and pace of its fragment, cores asked and given
_END, _PACE, _ASKS, _GETS = range(4)
_STATE = 4


@dataclass(frozen=True, slots=True)
class Contended:
    """What became of the tasks on one machine, and what it gave over time.

    The machine gives `given_cores` from `time_s` to the next point; from the last one on nothing runs.
    """

    end_s: NDArray[np.float64]  # [tasks]
    done_core_s: NDArray[np.float64]  # [tasks]
    lost_core_s: NDArray[np.float64]  # [tasks]
    time_s: NDArray[np.float64]  # [points]
    given_cores: NDArray[np.float64]  # [points]


@numba.njit(cache=True)
def fair_shares(asked: NDArray[np.float64], capacity: float) -> NDArray[np.float64]:
    """What each of those who ask gets of `capacity`, max-min fair [asked]; O(n log n)."""
    given = asked.copy()
    if asked.sum() <= capacity:
        return given
    left, waiting = capacity, asked.shape[0]
    for i in np.argsort(asked):
        given[i] = min(asked[i], left / waiting)
        left = max(left - given[i], 0.0)
        waiting -= 1
    return given


def contend(
    start_s: NDArray[np.float64],
    first: NDArray[np.int64],
    duration_s: NDArray[np.float64],
    asked_cores: NDArray[np.float64],
    capacity_cores: float,
    policy: Policy,
) -> Contended:
    """What becomes of the tasks on one machine.

    Args:
        start_s: when each task begins [tasks].
        first: the fragments of task i are `first[i]:first[i + 1]`, one after the other [tasks + 1].
        duration_s: how long each fragment takes when it gets all that it asks for [fragments].
        asked_cores: what each fragment asks for [fragments].
        capacity_cores: what the machine has.
        policy: "stretch" or "lose".

    Raises:
        SimulationError: an unknown policy, a machine without capacity, or a time or demand that cannot be.
    """
    if policy not in POLICIES:
        raise SimulationError(f"policy {policy!r} is unknown; known: {list(POLICIES)}")
    if not capacity_cores > 0:
        raise SimulationError(f"a machine of {capacity_cores} cores cannot run anything; give it more than 0")
    for name, values in (("start_s", start_s), ("duration_s", duration_s), ("asked_cores", asked_cores)):
        if not (np.isfinite(values).all() and (name == "start_s" or (values >= 0).all())):
            raise SimulationError(f"{name} of the tasks must be finite, durations and demands 0 or more")
    ends, done, lost, times, given, points = _play(
        np.ascontiguousarray(start_s, dtype=np.float64),
        np.argsort(start_s, kind="stable"),
        np.ascontiguousarray(first, dtype=np.int64),
        np.ascontiguousarray(duration_s, dtype=np.float64),
        np.ascontiguousarray(asked_cores, dtype=np.float64),
        float(capacity_cores),
        policy == "stretch",
    )
    return Contended(ends, done, lost, times[:points].copy(), given[:points].copy())


def contend_machine(
    pieces: Fragments, machine: int, capacity: int, policy: Policy
) -> tuple[NDArray[np.int64], Contended]:
    """The placements on one machine (rows of their table) and what becomes of them there.

    Gaps between fragments are pauses. `capacity` is in millionths of a core, as `Machines` holds it.
    """
    low, high = np.searchsorted(pieces.machine, (machine, machine + 1))
    first = pieces.first[low : high + 1]
    begin, end, used = (each[first[0] : first[-1]] for each in (pieces.begin_s, pieces.end_s, pieces.used))
    first = first - first[0]
    before = np.append(np.nan, end[:-1])[: len(begin)]
    some = np.diff(first) > 0
    before[first[:-1][some]] = pieces.start_s[low:high][some]
    # each fragment comes with the pause before it, of no length where there is none
    duration, asked = np.zeros(2 * len(used)), np.zeros(2 * len(used))
    duration[::2], duration[1::2] = np.maximum(begin - before, 0.0), end - begin
    asked[1::2] = used / UNITS[CPU]
    contended = contend(pieces.start_s[low:high], 2 * first, duration, asked, capacity / UNITS[CPU], policy)
    return pieces.placement[low:high], contended


@numba.njit(cache=True)
def _play(
    start_s: NDArray[np.float64],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    duration_s: NDArray[np.float64],
    asked: NDArray[np.float64],
    capacity: float,
    stretch: bool,
) -> tuple[
    NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int
]:
    """The event loop: end, work done and work lost of each task, and the points of the machine's profile.

    A fragment's end is held as a time and moved only when the pace of the fragment changes, so that without
    contention times are sums of durations and nothing else. Each event uses up an arrival or a fragment.
    """
    tasks = start_s.shape[0]
    end_s, done, lost = start_s.copy(), np.zeros(tasks), np.zeros(tasks)
    times, given = np.empty(tasks + asked.shape[0] + 1), np.empty(tasks + asked.shape[0] + 1)
    # the running tasks, packed: task and fragment; end and pace of the fragment, cores asked and given
    which, state = np.empty((tasks, 2), np.int64), np.empty((tasks, _STATE))
    running, arrived, points = 0, 0, 0
    while running > 0 or arrived < tasks:
        now: float = start_s[order[arrived]] if arrived < tasks else np.inf  # pyright: ignore[reportAssignmentType]
        for k in range(running):
            now = min(now, state[k, _END])
        if running > 0:
            _book(now - times[points - 1], running, which, state, done, lost, stretch)
        while arrived < tasks and start_s[order[arrived]] <= now:
            which[running, 0], which[running, 1] = order[arrived], first[order[arrived]] - 1
            state[running, _END], state[running, _PACE] = now, 1.0
            running += 1
            arrived += 1
        running = _turn(now, running, which, state, first, duration_s, asked, end_s)
        times[points], given[points] = now, _share(now, running, state, capacity, stretch)
        points += 1
    return end_s, done, lost, times, given, points


@numba.njit(cache=True)
def _book(
    span_s: float,
    running: int,
    which: NDArray[np.int64],
    state: NDArray[np.float64],
    done: NDArray[np.float64],
    lost: NDArray[np.float64],
    stretch: bool,
) -> None:
    """Add the work of a span to what the running tasks have done and lost."""
    for k in range(running):
        done[which[k, 0]] += state[k, _GETS] * span_s
        if not stretch:
            lost[which[k, 0]] += (state[k, _ASKS] - state[k, _GETS]) * span_s


@numba.njit(cache=True)
def _turn(
    now: float,
    running: int,
    which: NDArray[np.int64],
    state: NDArray[np.float64],
    first: NDArray[np.int64],
    duration_s: NDArray[np.float64],
    asked: NDArray[np.float64],
    end_s: NDArray[np.float64],
) -> int:
    """Begin the next fragment where one has ended, and let go of tasks without another; how many still run."""
    kept = 0
    for k in range(running):
        task, at, until, pace = which[k, 0], which[k, 1], state[k, _END], state[k, _PACE]
        last = first[task + 1]
        while until <= now and at < last:
            at, pace = at + 1, 1.0
            if at < last:
                until = now + duration_s[at]
        if at < last:
            which[kept, 0], which[kept, 1] = task, at
            state[kept, _END], state[kept, _PACE], state[kept, _ASKS] = until, pace, asked[at]
            kept += 1
        else:
            end_s[task] = now
    return kept


@numba.njit(cache=True)
def _share(now: float, running: int, state: NDArray[np.float64], capacity: float, stretch: bool) -> float:
    """Give each running task its share, and its fragment the end that follows from it; the cores given in all."""
    shares = fair_shares(state[:running, _ASKS], capacity)
    for k in range(running):
        state[k, _GETS] = shares[k]
        pace = shares[k] / state[k, _ASKS] if stretch and state[k, _ASKS] > 0.0 else 1.0
        if pace != state[k, _PACE]:
            state[k, _END] = now + (state[k, _END] - now) * state[k, _PACE] / pace
            state[k, _PACE] = pace
    return min(shares.sum(), capacity)
