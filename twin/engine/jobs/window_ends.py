"""When running jobs end, compiled: a heap of what will happen, and the estimates in order, which a plan goes by."""

from __future__ import annotations

from twin.engine.jobs.window_state import ENDS, PLANNED, UNASKED, Fixed, State, compiled
from twin.engine.jobs.workload import F8, I8

_PATIENCE = 64
"""Events for which the plan is kept up though nobody asks for it; to make it anew costs about as much."""


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
    if state.number[UNASKED] > _PATIENCE:
        return
    place = _place(state, end_s, job)
    for at in range(state.number[PLANNED], place, -1):
        state.plan_s[at], state.plan_job[at] = state.plan_s[at - 1], state.plan_job[at - 1]
    state.plan_s[place], state.plan_job[place] = end_s, job
    state.number[PLANNED] += 1


@compiled
def forget(state: State, end_s: float, job: int) -> None:
    """Take an estimated end out."""
    if state.number[UNASKED] > _PATIENCE:
        return
    state.number[PLANNED] -= 1
    for at in range(_place(state, end_s, job), state.number[PLANNED]):
        state.plan_s[at], state.plan_job[at] = state.plan_s[at + 1], state.plan_job[at + 1]


@compiled
def ask(facts: Fixed, state: State) -> None:
    """Have the plan up to date: made anew where it was not kept up."""
    if state.number[UNASKED] > _PATIENCE:
        count = state.number[ENDS]
        for at in range(count):
            job = state.end_job[at]
            state.plan_s[at], state.plan_job[at] = state.start_s[job] + facts.limit_s[job], job
        state.number[PLANNED] = count
        _sort(state.plan_s, state.plan_job, count)
    state.number[UNASKED] = 0


@compiled
def _sort(ends_s: F8, jobs: I8, count: int) -> None:
    """Put (end, job) in order, in place: Shell's sort (CACM 2(7), 1959), as nothing may be allocated here."""
    gap = count >> 1
    while gap:
        for begin in range(gap, count):
            end_s, job, at = ends_s[begin], jobs[begin], begin
            while at >= gap:
                before_s, before = ends_s[at - gap], jobs[at - gap]
                if before_s < end_s or (before_s == end_s and before < job):
                    break
                ends_s[at], jobs[at] = before_s, before
                at -= gap
            ends_s[at], jobs[at] = end_s, job
        gap = 1 if gap == 2 else gap * 5 // 11
