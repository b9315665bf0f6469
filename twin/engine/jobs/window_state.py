"""The cluster as flat arrays: what each job asks, what is free where, who waits and who runs.

All of the state is arrays of fixed size: a copy of the arrays is a copy of the cluster. The compiled steps that change
it stand in modules of their own: `window_loop` (what happens), `window_promise` (the plan of EASY), `window_room`
(machines) and `window_ends` (when jobs end).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.engine.compiling import compiler
from twin.engine.jobs.capacity import LEVELS
from twin.engine.jobs.machines import CPU, GPU, MEMORY, WHOLE_GPU, Machines
from twin.engine.jobs.simulator import EXPECTED, REFUSED
from twin.engine.jobs.workload import F8, I8, Workload

U8 = NDArray[np.uint64]

# columns of `Fixed.jobs`; one job fills one cache line
INSTANCES, CLASS, TOTAL_CPU, RANK, WAS_KILLED = range(3, 8)
JOB_COLUMNS = 8
LEVEL = 3  # column of `State.free` behind the resources
# `Fixed.rule`
STEP, EXACT, PLACEMENT, BACKFILL, CHANGING, LEAST_CPU = range(6)
LOWEST, FULLEST, EMPTIEST = range(3)
STRICT, GREEDY, EASY = range(3)
# `State.number`
NEXT, HEAD, TAIL, ENDS, PLANNED, FREE_CPU, FREE_SLOT, FREE_DEVICE, ORDERED, AHEAD, UNASKED = range(11)
COUNTS = 11
SIZES = 64
NONE = -1
BIT = np.uint64(1) << np.arange(64, dtype=np.uint64)


compiled = compiler(Path(__file__).parent.glob("window_*.py"))


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
    """What changes. Linked lists of slots end with NONE; a job's list begins with what it took last.

    Where a history is kept, gangs keep their lists when they end, and `number[AHEAD]` slots, as many as can be held at
    one moment, have to be free before each look of the scheduler; it is 0 where none is kept.
    """

    now_s: F8  # [1]
    number: I8  # [COUNTS]
    status: NDArray[np.int8]  # [jobs]
    start_s: F8  # [jobs]
    end_s: F8  # [jobs]
    machine: NDArray[np.int32]  # [jobs], the first that it took
    queue: NDArray[np.int32]  # [jobs], those who wait lie in [HEAD, TAIL)
    end_due_s: F8  # heap of ends
    end_job: I8
    plan_s: F8  # estimated ends in order, unless nobody has asked for them lately
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
    jobs[:, WAS_KILLED] = kill & (workload.limit_s < workload.run_s)
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
        hold_s=np.where(jobs[:, WAS_KILLED], workload.limit_s, workload.run_s),
        jobs=jobs,
        size=np.clip(np.frexp(jobs[:, TOTAL_CPU].astype(np.float64))[1], 0, SIZES - 1).astype(np.int64),
        accepted=_packed(workload.fits_kind[:, machines.kind]),
        device_begin=np.concatenate([[0], np.cumsum(devices)]).astype(np.int64),
        rule=np.array([step, exact, *rules, keys is None, least], dtype=np.int64),
    )


def empty(workload: Workload, machines: Machines, facts: Fixed, *, plans: bool, history: bool) -> State:
    """Nothing has arrived and everything is free; `plans` keeps a list of estimated ends, `history` what gangs took."""
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
    state.number[AHEAD] = slots if history and slots > 1 else 0
    _index(state)
    return state


def _index(state: State) -> None:
    """Enter every machine at its level."""
    machine, level = np.arange(len(state.free)), state.free[:, LEVEL]
    word = machine >> 6
    np.bitwise_or.at(state.bits, (level, word), BIT[machine & 63])
    np.bitwise_or.at(state.words, (level, word >> 6), BIT[word & 63])
    np.maximum.at(state.word_memory, (level, word), state.free[:, MEMORY])
    np.maximum.at(state.level_memory, level, state.free[:, MEMORY])


def lengthened(state: State) -> State:
    """The same state with twice as many slots, where a history has used them up."""
    used = int(state.number[FREE_SLOT])
    slots = _chained(2 * len(state.slots), 3)
    slots[:used] = state.slots[:used]
    return state._replace(slots=slots)


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
