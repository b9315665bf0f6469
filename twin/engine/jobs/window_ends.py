"""When running jobs end, compiled: a heap of what will happen, and the estimates in order, which a plan goes by."""

from __future__ import annotations

from twin.engine.jobs.window_state import PLANNED, State, compiled
from twin.engine.jobs.workload import F8, I8


@compiled
def push(due_s: F8, jobs: I8, count: int, value_s: float, job: int) -> None:
    """Add to a heap of `count` entries in which each has four children."""
    at = count
    while at:
        parent = (at - 1) >> 2
        if due_s[parent] <= value_s:
            break
        due_s[at], jobs[at] = due_s[parent], jobs[parent]
        at = parent
    due_s[at], jobs[at] = value_s, job


@compiled
def pop(due_s: F8, jobs: I8, count: int) -> None:
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


@compiled
def _place(state: State, end_s: float, job: int) -> int:
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


@compiled
def plan(state: State, end_s: float, job: int) -> None:
    """Enter an estimated end."""
    place = _place(state, end_s, job)
    for at in range(state.number[PLANNED], place, -1):
        state.plan_s[at], state.plan_job[at] = state.plan_s[at - 1], state.plan_job[at - 1]
    state.plan_s[place], state.plan_job[place] = end_s, job
    state.number[PLANNED] += 1


@compiled
def forget(state: State, end_s: float, job: int) -> None:
    """Take an estimated end out."""
    state.number[PLANNED] -= 1
    for at in range(_place(state, end_s, job), state.number[PLANNED]):
        state.plan_s[at], state.plan_job[at] = state.plan_s[at + 1], state.plan_job[at + 1]
