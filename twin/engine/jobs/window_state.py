"""The cluster as flat arrays: what each job asks, what is free where, who runs, and the compiled steps that change it.

The same meaning as `capacity`: machines stand in levels of free cores, and a level is a bitset, here of 64-bit words
with a second bitset of the words that are not empty. Each word and each level also knows a bound of the free memory of
its machines. Bounds are raised at once and lowered only after a search in vain, so that keeping them costs next to
nothing and machines whose memory is used up are not looked at again and again.

All of the state is arrays of fixed size: a copy of the arrays is a copy of the cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from twin.engine.jobs.capacity import LEVELS
from twin.engine.jobs.machines import CPU, GPU, MEMORY, WHOLE_GPU, Machines
from twin.engine.jobs.simulator import EXPECTED, REFUSED
from twin.engine.jobs.workload import Workload

F8, I8, U8 = NDArray[np.float64], NDArray[np.int64], NDArray[np.uint64]

# columns of `Fixed.jobs`; one job fills one cache line
INSTANCES, CLASS, TOTAL_CPU, RANK, KILLED = range(3, 8)
JOB_COLUMNS = 8
LEVEL = 3  # column of `State.free` behind the resources
# `Fixed.rule`
STEP, EXACT, PLACEMENT, BACKFILL, CHANGING, LEAST_CPU = range(6)
LOWEST, FULLEST, EMPTIEST = range(3)
STRICT, GREEDY, EASY = range(3)
# `State.count`
NEXT, HEAD, TAIL, ENDS, PLANNED, FREE_CPU, FREE_SLOT, FREE_DEVICE, ORDERED = range(9)
COUNTS = 9
SIZES = 64
NONE = -1
BIT = np.uint64(1) << np.arange(64, dtype=np.uint64)
_ONE = np.uint64(1)
_SHIFT = np.uint64(58)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_PLACE = np.zeros(64, dtype=np.int64)
with np.errstate(over="ignore"):
    _PLACE[(BIT * _DE_BRUIJN) >> _SHIFT] = np.arange(64)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled, without counting references.

    The arrays outlive every call, and to count theirs would cost several times what the functions do.
    """
    options: dict[str, Any] = {"cache": True, "_nrt": False}
    return numba.njit(**options)(function)


class Fixed(NamedTuple):
    """What does not change while time passes."""

    submit_s: F8  # [jobs]
    limit_s: F8  # [jobs]
    hold_s: F8  # [jobs], how long it will hold its machines: run time, or the limit that kills it
    jobs: I8  # [jobs, JOB_COLUMNS]
    size: I8  # [jobs], binary digits of the CPU of the whole job
    accepted: U8  # [classes of jobs, words]
    device_begin: I8  # [machines + 1]
    rule: I8


class State(NamedTuple):
    """What changes. Linked lists of slots end with NONE; a job's list begins with what it took last."""

    now_s: F8  # [1]
    number: I8  # [COUNTS]
    status: NDArray[np.int8]  # [jobs]
    start_s: F8  # [jobs]
    end_s: F8  # [jobs]
    machine: NDArray[np.int32]  # [jobs], the first that it took
    queue: NDArray[np.int32]  # [jobs], those who wait lie in [HEAD, TAIL)
    end_due_s: F8  # heap of ends
    end_job: I8
    plan_s: F8  # estimated ends in order
    plan_job: I8
    free: I8  # [machines, resources and level]
    bits: U8  # [levels, words]
    words: U8  # [levels, words of words]
    word_memory: I8  # [levels, words], no machine there has more free
    level_memory: I8  # [levels]
    devices: I8  # [devices], free share of each GPU
    slots: I8  # [slots, 3]: machine, instances, next slot of the same gang
    first_slot: NDArray[np.int32]  # [jobs]
    device_slots: I8  # [slots, 2]: device, next
    first_device: NDArray[np.int32]  # [jobs]


class Scratch(NamedTuple):
    """Room to work in, and bounds: with new ones, all zero, the same happens, only later."""

    order: I8  # [machines]
    chosen: I8  # [machines, 2]: machine, instances
    epoch: I8  # [2]: epoch, free CPU that is kept for the head of the queue
    seen: I8  # [machines], epoch in which `left` was filled
    released: I8  # [machines], epoch in which something there ended
    promised: I8  # [machines], epoch in which `spare` was filled; 0 is never
    room: I8  # [machines]
    left: I8  # [machines, resources]
    spare: I8  # [machines, resources]
    least_cpu: I8  # [sizes], no waiting job of this size asks less in all
    least_s: F8  # [sizes], none asks a shorter time


def fixed(workload: Workload, machines: Machines, keys: F8 | None, rules: tuple[int, int], *, kill: bool) -> Fixed:
    """What does not change. `keys` order the queue, None where they change; `rules` are placement and backfill."""
    count = len(workload)
    jobs = np.zeros((count, JOB_COLUMNS), dtype=np.int64)
    jobs[:, :3] = workload.request
    jobs[:, INSTANCES] = workload.instances
    jobs[:, CLASS] = workload.job_class
    jobs[:, TOTAL_CPU] = workload.request[:, CPU] * workload.instances
    jobs[:, KILLED] = kill & (workload.limit_s < workload.run_s)
    if keys is not None:
        jobs[np.argsort(keys, kind="stable"), RANK] = np.arange(count)
    cores = machines.capacity[:, CPU]
    step = max(1, -(-int(cores.max()) // LEVELS))
    exact = not (cores % step).any() and not (workload.request[:, CPU] % step).any()
    mine = jobs[_runnable(workload)]
    least = int(mine[:, TOTAL_CPU].min()) if len(mine) else 0
    devices = machines.capacity[:, GPU] // WHOLE_GPU
    return Fixed(
        submit_s=np.ascontiguousarray(workload.submit_s),
        limit_s=np.ascontiguousarray(workload.limit_s),
        hold_s=np.where(jobs[:, KILLED], workload.limit_s, workload.run_s),
        jobs=jobs,
        size=np.clip(np.frexp(jobs[:, TOTAL_CPU].astype(np.float64))[1], 0, SIZES - 1).astype(np.int64),
        accepted=_packed(workload.fits_kind[:, machines.kind]),
        device_begin=np.concatenate([[0], np.cumsum(devices)]).astype(np.int64),
        rule=np.array([step, exact, *rules, keys is None, least], dtype=np.int64),
    )


def empty(workload: Workload, machines: Machines, facts: Fixed, *, plans: bool) -> State:
    """Nothing has arrived and everything is free; `plans` keeps a list of estimated ends."""
    count, nodes = len(workload), len(machines)
    words = -(-nodes // 64)
    running, slots, device_slots = _bounds(workload, machines, facts)
    state = State(
        now_s=np.zeros(1),
        number=np.zeros(COUNTS, dtype=np.int64),
        status=np.where([bool(r) for r in workload.refused], REFUSED, EXPECTED).astype(np.int8),
        start_s=np.full(count, -1.0),
        end_s=np.full(count, -1.0),
        machine=np.full(count, NONE, dtype=np.int32),
        queue=np.zeros(count, dtype=np.int32),
        end_due_s=np.zeros(running),
        end_job=np.zeros(running, dtype=np.int64),
        plan_s=np.zeros(running if plans else 1),
        plan_job=np.zeros(running if plans else 1, dtype=np.int64),
        free=np.column_stack([machines.capacity, machines.capacity[:, CPU] // facts.rule[STEP]]),
        bits=np.zeros((LEVELS + 1, words), dtype=np.uint64),
        words=np.zeros((LEVELS + 1, -(-words // 64)), dtype=np.uint64),
        word_memory=np.full((LEVELS + 1, words), NONE, dtype=np.int64),
        level_memory=np.full(LEVELS + 1, NONE, dtype=np.int64),
        devices=np.full(int(facts.device_begin[-1]), WHOLE_GPU, dtype=np.int64),
        slots=_chained(slots, 3),
        first_slot=np.full(count if slots > 1 else 1, NONE, dtype=np.int32),
        device_slots=_chained(device_slots, 2),
        first_device=np.full(count if device_slots > 1 else 1, NONE, dtype=np.int32),
    )
    state.number[FREE_CPU] = machines.capacity[:, CPU].sum()
    for machine in range(nodes):
        _enter(state, machine, int(state.free[machine, LEVEL]))
    return state


def copied(state: State) -> State:
    """The same state, independent from now on."""
    return State._make(array.copy() for array in state)


def scratch(machines: Machines) -> Scratch:
    """Fresh room to work in."""
    nodes = len(machines)
    one = lambda: np.zeros(nodes, dtype=np.int64)  # noqa: E731
    three = lambda: np.zeros((nodes, 3), dtype=np.int64)  # noqa: E731
    pair, epoch = np.zeros((nodes, 2), dtype=np.int64), np.zeros(2, dtype=np.int64)
    least = (np.zeros(SIZES, dtype=np.int64), np.zeros(SIZES))
    return Scratch(one(), pair, epoch, one(), one(), one(), one(), three(), three(), *least)


def _runnable(workload: Workload) -> NDArray[np.bool_]:
    return np.array([not reason for reason in workload.refused], dtype=bool)


def _bounds(workload: Workload, machines: Machines, facts: Fixed) -> tuple[int, int, int]:
    """How many jobs can run at once at most, and how many slots and device slots these can need."""
    mine = facts.jobs[_runnable(workload)]
    capacity = machines.capacity[:, CPU]
    least = int(facts.rule[LEAST_CPU])
    running = min(len(mine), int(capacity.sum()) // least) if least else len(mine)
    gangs = mine[mine[:, INSTANCES] > 1]
    slots = int(np.minimum(gangs[:, INSTANCES], len(machines)).sum())
    smallest = int(gangs[:, CPU].min()) if len(gangs) else 0
    if smallest:
        slots = min(slots, int((capacity // smallest).sum()))
    on_gpu = mine[mine[:, GPU] > 0]
    device_slots = int((on_gpu[:, INSTANCES] * np.maximum(on_gpu[:, GPU] // WHOLE_GPU, 1)).sum())
    if len(on_gpu):
        shares = WHOLE_GPU // min(WHOLE_GPU, int(on_gpu[:, GPU].min()))
        device_slots = min(device_slots, shares * int(facts.device_begin[-1]))
    # an empty array would be of no use to index, and of the same type: one slot stands for none
    return max(running, 1), slots + 1, device_slots + 1


def _chained(slots: int, columns: int) -> I8:
    table = np.zeros((slots, columns), dtype=np.int64)
    table[:, -1] = np.arange(1, slots + 1)
    table[-1, -1] = NONE
    return table


def _packed(flags: NDArray[np.bool_]) -> U8:
    rows, count = flags.shape
    padded = np.zeros((rows, -(-count // 64) * 64), dtype=bool)
    padded[:, :count] = flags
    return (padded.reshape(rows, -1, 64) * BIT).sum(axis=2, dtype=np.uint64)


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
    while slot != NONE:
        _change(facts, state, job, slots[slot, 0], slots[slot, 1])
        after = slots[slot, 2]
        slots[slot, 2] = state.number[FREE_SLOT]
        state.number[FREE_SLOT] = slot
        slot = after
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
