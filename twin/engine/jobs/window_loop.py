"""From event to event, compiled: jobs end, arrive and wait, and the scheduler looks once at each moment.

What `simulator` and `scheduling.backfill` do, in their order: first what ends, then what arrives, then who may start.
"""

from __future__ import annotations

import numpy as np

from twin.engine.jobs.machines import UNLIMITED
from twin.engine.jobs.simulator import DONE, EXPECTED, KILLED, RUNNING, WAITING
from twin.engine.jobs.window_ends import forget, plan, pop, push
from twin.engine.jobs.window_promise import reserve
from twin.engine.jobs.window_room import choose, find, give_back, take, take_gang
from twin.engine.jobs.window_state import (
    AHEAD,
    BACKFILL,
    CHANGING,
    EASY,
    ENDS,
    FREE_CPU,
    FREE_SLOT,
    GREEDY,
    HEAD,
    INSTANCES,
    NEXT,
    NONE,
    ORDERED,
    RANK,
    SIZES,
    TAIL,
    TOTAL_CPU,
    UNASKED,
    WAS_KILLED,
    Fixed,
    Scratch,
    State,
    compiled,
)

SETTLED, ORDER_ANEW, LENGTHEN = range(3)
"""What `advance` returns: nothing happens until then any more, or what the caller has to do before it calls again."""


@compiled
def next_s(facts: Fixed, state: State) -> float:
    """The moment at which the next thing happens; infinite where nothing is left."""
    due_s = np.inf
    if state.number[ENDS]:
        due_s = state.end_due_s[0]
    if state.number[NEXT] < len(facts.submit_s):
        due_s = min(due_s, facts.submit_s[state.number[NEXT]])
    return due_s


@compiled
def advance(facts: Fixed, state: State, work: Scratch, until_s: float) -> int:
    """Go from event to event until `until_s`, what happens then included; SETTLED when that is done.

    After ORDER_ANEW the caller puts the queue in order and sets ORDERED, after LENGTHEN it gives more slots; then it
    calls again.
    """
    count = state.number
    while True:
        if not count[ORDERED]:
            due_s = next_s(facts, state)
            if due_s > until_s or due_s == np.inf:
                return SETTLED
            if count[AHEAD] and len(state.slots) - count[FREE_SLOT] < count[AHEAD]:
                return LENGTHEN
            state.now_s[0] = due_s
            count[UNASKED] += 1
            _end(facts, state, due_s)
            _arrive(facts, state, work, due_s)
            waiting = count[TAIL] - count[HEAD]
            if not waiting:
                continue
            # an order that is asked anew each time matters only when somebody may start
            if facts.rule[CHANGING] and waiting > 1:
                if not _somebody_may(facts, state):
                    continue
                return ORDER_ANEW
        count[ORDERED] = 0
        backfill = facts.rule[BACKFILL]
        if backfill == GREEDY:
            _greedy(facts, state, work)
        else:
            _strict(facts, state, work)
            if backfill == EASY:
                _easy(facts, state, work)


@compiled
def _somebody_may(facts: Fixed, state: State) -> bool:
    for at in range(state.number[HEAD], state.number[TAIL]):
        if facts.jobs[state.queue[at], TOTAL_CPU] <= state.number[FREE_CPU]:
            return True
    return False


@compiled
def _end(facts: Fixed, state: State, now_s: float) -> None:
    """End every job whose time has come."""
    while state.number[ENDS] and state.end_due_s[0] <= now_s:
        job = state.end_job[0]
        state.number[ENDS] -= 1
        pop(state.end_due_s, state.end_job, state.number[ENDS])
        give_back(facts, state, job)
        state.end_s[job] = now_s
        state.status[job] = KILLED if facts.jobs[job, WAS_KILLED] else DONE
        if facts.rule[BACKFILL] == EASY:
            forget(state, state.start_s[job] + facts.limit_s[job], job)


@compiled
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


@compiled
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


@compiled
def _start(facts: Fixed, state: State, work: Scratch, job: int, bound: int) -> bool:
    """Start a waiting job if there is room for all of it; `bound` is the epoch of a promise to be kept, or 0."""
    if facts.jobs[job, TOTAL_CPU] > state.number[FREE_CPU]:
        return False
    if facts.jobs[job, INSTANCES] == 1:
        machine = find(facts, state, work, job, bound)
        if machine == NONE:
            return False
        take(facts, state, work, job, machine, 1, bound)
    else:
        used = choose(facts, state, work, job, bound)
        if not used:
            return False
        machine = work.chosen[0, 0]
        take_gang(facts, state, work, job, used, bound)
    now_s = state.now_s[0]
    state.machine[job] = machine
    state.status[job] = RUNNING
    state.start_s[job] = now_s
    push(state.end_due_s, state.end_job, state.number[ENDS], now_s + facts.hold_s[job], job)
    state.number[ENDS] += 1
    if facts.rule[BACKFILL] == EASY:
        plan(state, now_s + facts.limit_s[job], job)
    return True


@compiled
def _strict(facts: Fixed, state: State, work: Scratch) -> None:
    """Start from the head of the queue as far as there is room."""
    count = state.number
    while count[HEAD] < count[TAIL] and _start(facts, state, work, state.queue[count[HEAD]], 0):
        count[HEAD] += 1


@compiled
def _greedy(facts: Fixed, state: State, work: Scratch) -> None:
    """Start everyone who fits."""
    if _may_fill(state, work, state.number[FREE_CPU], np.inf):
        _fill(facts, state, work, state.number[HEAD], np.inf, 0)


@compiled
def _easy(facts: Fixed, state: State, work: Scratch) -> None:
    """Fill up behind the head, which has found no room, where that does not delay its earliest start."""
    begin = state.number[HEAD] + 1
    # the promise is worked out only when somebody could start beside it
    if begin >= state.number[TAIL] or not _may_fill(state, work, state.number[FREE_CPU], np.inf):
        return
    work.epoch[0] += 1
    work.epoch[1] = 0
    shadow_s, promised = reserve(facts, state, work, state.queue[begin - 1], work.epoch[0])
    if _may_fill(state, work, state.number[FREE_CPU] - work.epoch[1], shadow_s):
        _fill(facts, state, work, begin, shadow_s, work.epoch[0] if promised else 0)


@compiled
def _may_fill(state: State, work: Scratch, spare_cpu: int, shadow_s: float) -> bool:
    """Could any of those who wait be small enough, by the bounds that are kept for each size?"""
    for size in range(SIZES):
        cpu = work.least_cpu[size]
        if cpu <= spare_cpu or (cpu <= state.number[FREE_CPU] and state.now_s[0] + work.least_s[size] <= shadow_s):
            return True
    return False


@compiled
def _note(facts: Fixed, work: Scratch, job: int) -> None:
    """Keep the bounds: the job waits."""
    size = facts.size[job]
    work.least_cpu[size] = min(work.least_cpu[size], facts.jobs[job, TOTAL_CPU])
    work.least_s[size] = min(work.least_s[size], facts.limit_s[job])


@compiled
def _fill(facts: Fixed, state: State, work: Scratch, begin: int, shadow_s: float, bound: int) -> None:
    """Start whom there is room for from place `begin` on; who stays beyond `shadow_s` takes only what is spare."""
    count, queue, jobs = state.number, state.queue, facts.jobs
    kept, now_s = begin, state.now_s[0]
    # all that is spare; whoever ends in time may take of it too, so that this is a bound
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
                if not free:
                    spare_cpu -= total
                continue
        queue[kept] = job
        kept += 1
        size = facts.size[job]
        least_cpu[size] = min(least_cpu[size], total)
        least_s[size] = min(least_s[size], facts.limit_s[job])
    count[TAIL] = kept
