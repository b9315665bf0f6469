"""The promise of EASY, compiled: when the head of the queue can start at the latest, and which machines it then needs.

What `backfill.reservation` works out, with arrays for its dictionaries: what belongs to an earlier promise carries an
older epoch and counts as not there, so that nothing has to be cleared.
"""

from __future__ import annotations

import numpy as np

from twin.engine.jobs.machines import CPU
from twin.engine.jobs.window_ends import ask
from twin.engine.jobs.window_room import room, times
from twin.engine.jobs.window_state import BIT, CLASS, INSTANCES, NONE, PLANNED, Fixed, Scratch, State, compiled
from twin.engine.jobs.workload import I8


@compiled
def reserve(facts: Fixed, state: State, work: Scratch, head: int, epoch: int) -> tuple[float, int]:
    """When the head can start at the latest, and on how many machines room is promised to it.

    What is left on these then lies in `spare`, with the epoch in `promised`.
    """
    ask(facts, state)
    needed, total = facts.jobs[head, INSTANCES], 0
    if needed > 1:
        total = _room_now(facts, state, work, head, epoch)
    shadow_s, looked = state.now_s[0], 0
    while looked < state.number[PLANNED]:
        end_s = state.plan_s[looked]
        if total >= needed and end_s > shadow_s:
            break
        shadow_s = max(end_s, state.now_s[0])
        total += _released(facts, state, work, state.plan_job[looked], head, epoch)
        looked += 1
    return shadow_s, _promise(facts, state, work, head, looked, epoch)


@compiled
def _accepts(facts: Fixed, head: int, machine: int) -> bool:
    return (facts.accepted[facts.jobs[head, CLASS], machine >> 6] & BIT[machine & 63]) != 0


@compiled
def _look(free: I8, work: Scratch, machine: int, epoch: int) -> None:
    """Begin with what is free on the machine now."""
    if work.seen[machine] != epoch:
        work.seen[machine] = epoch
        work.room[machine] = 0
        for r in range(3):
            work.left[machine, r] = free[machine, r]


@compiled
def _room_now(facts: Fixed, state: State, work: Scratch, head: int, epoch: int) -> int:
    total = 0
    for machine in range(state.free.shape[0]):
        if _accepts(facts, head, machine):
            fit = room(facts, state, head, machine)
            if fit:
                _look(state.free, work, machine, epoch)
                work.room[machine] = fit
                total += fit
    return total


@compiled
def _released(facts: Fixed, state: State, work: Scratch, job: int, head: int, epoch: int) -> int:
    """How much more room the head has once the job has ended."""
    if facts.jobs[job, INSTANCES] == 1:
        return _release_one(facts, state, work, job, head, state.machine[job], 1, epoch)
    gained, slot = 0, state.first_slot[job]
    while slot != NONE:
        machine, instances, slot = state.slots[slot, 0], state.slots[slot, 1], state.slots[slot, 2]
        gained += _release_one(facts, state, work, job, head, machine, instances, epoch)
    return gained


@compiled
def _release_one(
    facts: Fixed, state: State, work: Scratch, job: int, head: int, machine: int, instances: int, epoch: int
) -> int:
    if not _accepts(facts, head, machine):
        return 0
    _look(state.free, work, machine, epoch)
    work.released[machine] = epoch
    for r in range(3):
        work.left[machine, r] += instances * facts.jobs[job, r]
    before = work.room[machine]
    work.room[machine] = times(facts, head, work.left[machine])
    return work.room[machine] - before


@compiled
def _promise(facts: Fixed, state: State, work: Scratch, head: int, looked: int, epoch: int) -> int:
    """Promise machines to the head: those released last first, then those with the highest number."""
    needed, machines = facts.jobs[head, INSTANCES], 0
    for at in range(looked - 1, -1, -1):
        job = state.plan_job[at]
        # a list of slots begins with what was taken last, which is the order in which it is wanted here
        slot = NONE if facts.jobs[job, INSTANCES] == 1 else state.first_slot[job]
        machine = np.int64(state.machine[job]) if slot == NONE else state.slots[slot, 0]
        while needed:
            if work.released[machine] == epoch and work.promised[machine] != epoch:
                taken = _promise_one(facts, state.free, work, head, machine, needed, epoch)
                needed -= taken
                machines += taken > 0
            slot = NONE if slot == NONE else state.slots[slot, 2]
            if slot == NONE:
                break
            machine = state.slots[slot, 0]
    for machine in range(state.free.shape[0] - 1, -1, -1):
        if not needed:
            break
        if work.seen[machine] == epoch and work.released[machine] != epoch:
            needed -= _promise_one(facts, state.free, work, head, machine, needed, epoch)
            machines += 1
    return machines


@compiled
def _promise_one(facts: Fixed, free: I8, work: Scratch, head: int, machine: int, needed: int, epoch: int) -> int:
    taken = min(needed, work.room[machine])
    if taken:
        work.promised[machine] = epoch
        for r in range(3):
            work.spare[machine, r] = work.left[machine, r] - taken * facts.jobs[head, r]
        work.epoch[1] += max(0, free[machine, CPU] - work.spare[machine, CPU])
    return taken
