"""What is free on which machine, compiled: the index, who has room, which machine is taken, and giving back.

The same meaning as `capacity`: machines stand in levels of free cores, and a level is a bitset, here of 64-bit words
with a second bitset of the words that are not empty. Each word and each level also knows a bound of the free memory of
its machines. Bounds are raised at once and lowered only after a search in vain, so that keeping them costs next to
nothing and machines whose memory is used up are not looked at again and again.
"""

from __future__ import annotations

import numpy as np

from twin.engine.jobs.capacity import LEVELS
from twin.engine.jobs.machines import CPU, GPU, MEMORY, WHOLE_GPU
from twin.engine.jobs.window_state import (
    AHEAD,
    BIT,
    CLASS,
    EMPTIEST,
    EXACT,
    FREE_CPU,
    FREE_DEVICE,
    FREE_SLOT,
    FULLEST,
    INSTANCES,
    LEVEL,
    LOWEST,
    NONE,
    PLACEMENT,
    STEP,
    Fixed,
    Scratch,
    State,
    compiled,
)
from twin.engine.jobs.workload import I8

_ONE = np.uint64(1)
_SHIFT = np.uint64(58)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_PLACE = np.zeros(64, dtype=np.int64)
with np.errstate(over="ignore"):
    _PLACE[(BIT * _DE_BRUIJN) >> _SHIFT] = np.arange(64)


# ---------------------------------------------------------------------- the index


@compiled
def _lowest(bits: np.uint64) -> int:
    """The number of the lowest bit that is set (de Bruijn multiplication; Leiserson, Prokop and Randall 1998)."""
    return _PLACE[((bits & (~bits + _ONE)) * _DE_BRUIJN) >> _SHIFT]


@compiled
def _enter(state: State, machine: int, level: int) -> None:
    word = machine >> 6
    state.bits[level, word] |= BIT[machine & 63]
    state.words[level, word >> 6] |= BIT[word & 63]
    _raise_bound(state, machine, level)


@compiled
def _raise_bound(state: State, machine: int, level: int) -> None:
    word, memory = machine >> 6, state.free[machine, MEMORY]
    if memory > state.word_memory[level, word]:
        state.word_memory[level, word] = memory
        if memory > state.level_memory[level]:
            state.level_memory[level] = memory


@compiled
def _leave(state: State, machine: int, level: int) -> None:
    word = machine >> 6
    state.bits[level, word] ^= BIT[machine & 63]
    if not state.bits[level, word]:
        state.words[level, word >> 6] ^= BIT[word & 63]
        state.word_memory[level, word] = NONE


@compiled
def _change(facts: Fixed, state: State, job: int, machine: int, instances: int) -> None:
    """Give back that many instances of the job on the machine; take them where the number is negative."""
    free = state.free
    cpu = instances * facts.jobs[job, CPU]
    free[machine, CPU] += cpu
    free[machine, MEMORY] += instances * facts.jobs[job, MEMORY]
    free[machine, GPU] += instances * facts.jobs[job, GPU]
    state.number[FREE_CPU] += cpu
    before, after = free[machine, LEVEL], free[machine, CPU] // facts.rule[STEP]
    if before != after:
        free[machine, LEVEL] = after
        _leave(state, machine, before)
        _enter(state, machine, after)
    else:
        _raise_bound(state, machine, after)


# ---------------------------------------------------------------------- room


@compiled
def _devices_room(facts: Fixed, state: State, gpu: int, machine: int) -> int:
    room = 0
    whole = gpu >= WHOLE_GPU
    for device in range(facts.device_begin[machine], facts.device_begin[machine + 1]):
        if whole:
            room += state.devices[device] == WHOLE_GPU
        else:
            room += state.devices[device] // gpu
    return room // (gpu // WHOLE_GPU) if whole else room


@compiled
def times(facts: Fixed, job: int, amounts: I8) -> int:
    """How many instances of the job go into these amounts [resources]."""
    room = NONE
    for r in range(3):
        need = facts.jobs[job, r]
        if need:
            fit = amounts[r] // need
            if room == NONE or fit < room:
                room = fit
    return room if room != NONE else facts.jobs[job, INSTANCES]


@compiled
def room(facts: Fixed, state: State, job: int, machine: int) -> int:
    """How many instances of the job fit on the machine now."""
    jobs, free = facts.jobs, state.free
    cpu, memory, gpu = jobs[job, CPU], jobs[job, MEMORY], jobs[job, GPU]
    if free[machine, CPU] < cpu or free[machine, MEMORY] < memory:
        return 0
    fit = free[machine, CPU] // cpu if cpu else jobs[job, INSTANCES]
    if memory:
        fit = min(fit, free[machine, MEMORY] // memory)
    if gpu and fit:
        fit = min(fit, _devices_room(facts, state, gpu, machine))
    return fit


@compiled
def _one_fits(facts: Fixed, state: State, job: int, machine: int) -> bool:
    jobs, free = facts.jobs, state.free
    if free[machine, CPU] < jobs[job, CPU] or free[machine, MEMORY] < jobs[job, MEMORY]:
        return False
    return jobs[job, GPU] == 0 or _devices_room(facts, state, jobs[job, GPU], machine) > 0


@compiled
def _one_is_spare(facts: Fixed, work: Scratch, job: int, machine: int, bound: int) -> bool:
    """Does a promise leave room for one instance? `bound` is the epoch of the promise, 0 where there is none."""
    if not bound or work.promised[machine] != bound:
        return True
    short = False
    for r in range(3):
        short |= work.spare[machine, r] < facts.jobs[job, r]
    return not short


@compiled
def _best_in(facts: Fixed, state: State, work: Scratch, job: int, level: int, below: int, sign: int, bound: int) -> int:
    """The best machine of a level with room for one instance: the lowest (sign 0), the fullest (1), the emptiest (-1).

    NONE where there is none; nothing is sought from the machine `below` on.
    """
    memory, words, kind = facts.jobs[job, MEMORY], state.words, facts.jobs[job, CLASS]
    found, found_cpu = NONE, 0
    for group in range(words.shape[1]):
        left = words[level, group]
        while left:
            word = group * 64 + _lowest(left)
            left &= left - _ONE
            if word * 64 >= below or state.word_memory[level, word] < memory:
                continue
            members = state.bits[level, word] & facts.accepted[kind, word]
            hit = False
            while members:
                machine = word * 64 + _lowest(members)
                members &= members - _ONE
                if _one_fits(facts, state, job, machine) and _one_is_spare(facts, work, job, machine, bound):
                    if not sign:
                        return machine
                    hit = True
                    cpu = sign * state.free[machine, CPU]
                    if found == NONE or cpu < found_cpu:
                        found, found_cpu = machine, cpu
            if not hit:
                _lower_word(state, level, word)
    if found == NONE and below >= state.free.shape[0]:
        _lower_level(state, level)
    return found


@compiled
def _lower_word(state: State, level: int, word: int) -> None:
    most = np.int64(NONE)
    members = state.bits[level, word]
    while members:
        most = max(most, state.free[word * 64 + _lowest(members), MEMORY])
        members &= members - _ONE
    state.word_memory[level, word] = most


@compiled
def _lower_level(state: State, level: int) -> None:
    most = np.int64(NONE)
    for word in range(state.bits.shape[1]):
        most = max(most, state.word_memory[level, word])
    state.level_memory[level] = most


@compiled
def find(facts: Fixed, state: State, work: Scratch, job: int, bound: int) -> int:
    """The best machine for a job of one instance, or NONE."""
    rule, memory = facts.rule, facts.jobs[job, MEMORY]
    low = facts.jobs[job, CPU] // rule[STEP]
    nodes = state.free.shape[0]
    best = nodes
    sign = 0 if rule[EXACT] or rule[PLACEMENT] == LOWEST else (1 if rule[PLACEMENT] == FULLEST else -1)
    for i in range(LEVELS + 1 - low):
        level = LEVELS - i if rule[PLACEMENT] == EMPTIEST else low + i
        if state.level_memory[level] < memory:
            continue
        machine = _best_in(facts, state, work, job, level, best, sign, bound)
        if machine != NONE:
            if rule[PLACEMENT] != LOWEST:
                return machine
            best = min(best, machine)
    return best if best < nodes else NONE


@compiled
def _offer(facts: Fixed, state: State, work: Scratch, job: int, machine: int, bound: int, left: int) -> int:
    count = min(left, room(facts, state, job, machine))
    if count and bound and work.promised[machine] == bound:
        count = min(count, times(facts, job, work.spare[machine]))
    return count


@compiled
def _in_order(facts: Fixed, state: State, work: Scratch, job: int, level: int) -> int:
    """How many machines of a level the job accepts; they lie in `order`, the best first, as remainders of machines."""
    rule, nodes, found = facts.rule, state.free.shape[0], 0
    kind, base = facts.jobs[job, CLASS], level * rule[STEP]
    for word in range(state.bits.shape[1]):
        members = state.bits[level, word] & facts.accepted[kind, word]
        while members:
            machine = word * 64 + _lowest(members)
            members &= members - _ONE
            above = state.free[machine, CPU] - base
            if rule[PLACEMENT] == EMPTIEST:
                above = rule[STEP] - above
            work.order[found] = above * nodes + machine
            found += 1
    if not rule[EXACT]:
        _sort(work.order, found)
    return found


@compiled
def _sort(values: I8, count: int) -> None:
    """Put the first `count` values in order (Shell's sort, gaps of Ciura 2001)."""
    for gap in (701, 301, 132, 57, 23, 10, 4, 1):
        for begin in range(gap, count):
            value, at = values[begin], begin
            while at >= gap and values[at - gap] > value:
                values[at] = values[at - gap]
                at -= gap
            values[at] = value


@compiled
def choose(facts: Fixed, state: State, work: Scratch, job: int, bound: int) -> int:
    """On how many machines the whole gang goes, listed in `chosen` with the instances on each; 0: not at all."""
    rule, nodes = facts.rule, state.free.shape[0]
    left, used = facts.jobs[job, INSTANCES], 0
    lowest = rule[PLACEMENT] == LOWEST
    low = facts.jobs[job, CPU] // rule[STEP]
    for i in range(1 if lowest else LEVELS + 1 - low):
        level = LEVELS - i if rule[PLACEMENT] == EMPTIEST else low + i
        if not lowest and state.level_memory[level] < facts.jobs[job, MEMORY]:
            continue
        found = nodes if lowest else _in_order(facts, state, work, job, level)
        for at in range(found):
            machine = at if lowest else work.order[at] % nodes
            if lowest and not facts.accepted[facts.jobs[job, CLASS], at >> 6] & BIT[at & 63]:
                continue
            count = _offer(facts, state, work, job, machine, bound, left)
            if count:
                work.chosen[used, 0], work.chosen[used, 1] = machine, count
                used += 1
                left -= count
                if not left:
                    return used
    return 0


# ---------------------------------------------------------------------- taking and giving back


@compiled
def _take_device(facts: Fixed, state: State, job: int, device: int) -> None:
    state.devices[device] -= min(facts.jobs[job, GPU], WHOLE_GPU)
    slot = state.number[FREE_DEVICE]
    state.number[FREE_DEVICE] = state.device_slots[slot, 1]
    state.device_slots[slot, 0], state.device_slots[slot, 1] = device, state.first_device[job]
    state.first_device[job] = slot


@compiled
def _take_devices(facts: Fixed, state: State, job: int, machine: int, instances: int) -> None:
    """A share goes to the fullest device with room, whole GPUs to the first free ones."""
    gpu, begin, end = facts.jobs[job, GPU], facts.device_begin[machine], facts.device_begin[machine + 1]
    if gpu >= WHOLE_GPU:
        left = instances * (gpu // WHOLE_GPU)
        for device in range(begin, end):
            if left and state.devices[device] == WHOLE_GPU:
                _take_device(facts, state, job, device)
                left -= 1
        return
    for _ in range(instances):
        best = NONE
        for device in range(begin, end):
            have = state.devices[device]
            if have >= gpu and (best == NONE or have < state.devices[best]):
                best = device
        _take_device(facts, state, job, best)


@compiled
def take(facts: Fixed, state: State, work: Scratch, job: int, machine: int, instances: int, bound: int) -> None:
    """Take room for that many instances, of what is spare too."""
    if facts.jobs[job, GPU]:
        _take_devices(facts, state, job, machine, instances)
    _change(facts, state, job, machine, -instances)
    if bound and work.promised[machine] == bound:
        for r in range(3):
            work.spare[machine, r] -= instances * facts.jobs[job, r]


@compiled
def take_gang(facts: Fixed, state: State, work: Scratch, job: int, used: int, bound: int) -> None:
    """Take what was chosen."""
    slots, count = state.slots, state.number
    for i in range(used):
        machine, instances = work.chosen[i, 0], work.chosen[i, 1]
        take(facts, state, work, job, machine, instances, bound)
        slot = count[FREE_SLOT]
        count[FREE_SLOT] = slots[slot, 2]
        slots[slot, 0], slots[slot, 1], slots[slot, 2] = machine, instances, state.first_slot[job]
        state.first_slot[job] = slot


@compiled
def give_back(facts: Fixed, state: State, job: int) -> None:
    """Free what the job held."""
    if facts.jobs[job, INSTANCES] == 1:
        _change(facts, state, job, state.machine[job], 1)
    else:
        _give_back_gang(facts, state, job)
    if facts.jobs[job, GPU]:
        _give_back_devices(facts, state, job)


@compiled
def _give_back_gang(facts: Fixed, state: State, job: int) -> None:
    slots, slot = state.slots, state.first_slot[job]
    keeps_history = state.number[AHEAD] > 0
    while slot != NONE:
        _change(facts, state, job, slots[slot, 0], slots[slot, 1])
        after = slots[slot, 2]
        if not keeps_history:
            slots[slot, 2] = state.number[FREE_SLOT]
            state.number[FREE_SLOT] = slot
        slot = after
    if not keeps_history:
        state.first_slot[job] = NONE


@compiled
def _give_back_devices(facts: Fixed, state: State, job: int) -> None:
    slots, slot = state.device_slots, state.first_device[job]
    while slot != NONE:
        state.devices[slots[slot, 0]] += min(facts.jobs[job, GPU], WHOLE_GPU)
        after = slots[slot, 1]
        slots[slot, 1] = state.number[FREE_DEVICE]
        state.number[FREE_DEVICE] = slot
        slot = after
    state.first_device[job] = NONE
