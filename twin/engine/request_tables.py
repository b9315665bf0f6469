"""The tables of the event kernel: requests, services, what happens next, and blocks of random numbers.

Records lie in structured arrays that travel together, so that calling compiled code costs a few microseconds. Nothing
here grows by itself: compiled code says what it lacks, and `twin.engine.requests` supplies it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.engine.compiling import compiler

NONE = -1

# what a request is doing; one that serves, pauses or thinks has exactly one entry in the heap
WAITING, SERVING, CALLING, PAUSING, THINKING = range(5)

# streams of random numbers of each service. Arrivals and the work that they bring have their own, so that the k-th of
# them is the same whatever else happens.
GAP, WORK, CALLED_WORK, THINK, CHANCE = range(5)
STREAMS = 5

# what compiled code may lack; NONSENSE: a rate or capacity that is none
NOTHING, NUMBERS, ROOM, NONSENSE = range(4)

# places in `Tables.meta`
HEAP_SIZE, SEQUENCE, FREE, FREE_HEAD, LOW, MARGIN, MET = range(7)
META = 7
"""LOW: some stream is short of numbers. MARGIN: how many of one stream an event may draw. MET: the rates and servers of
the present stretch are known."""

REQUEST = np.dtype(
    [
        ("work_s", np.float64),  # service time at full speed
        ("arrived_s", np.float64),  # of this attempt
        ("service", np.int64),
        ("doing", np.int64),
        ("next", np.int64),  # behind it in the queue, or in the list of free records
        ("parent", np.int64),  # the request that called it and still waits for it
        ("child", np.int64),  # the call that it waits for
        ("user", np.int64),  # number of the user who asks, where the load is closed
        ("called", np.int64),  # 1: made by another request
        ("tries", np.int64),  # how often it asked again
        ("call", np.int64),  # row of the call that it makes
        ("left", np.int64),  # how often it still makes that call
    ],
    align=True,
)
SERVICE = np.dtype(
    [
        # what it is
        ("concurrency", np.float64),
        ("slo_s", np.float64),
        ("timeout_s", np.float64),
        ("retries", np.int64),
        ("backoff_s", np.float64),
        ("think_s", np.float64),
        ("closed", np.int64),
        ("replayed", np.int64),  # 1: its arrivals are recorded
        ("first_call", np.int64),
        ("last_call", np.int64),
        # how it is now
        ("slots", np.int64),
        ("slowness", np.float64),
        ("busy", np.int64),
        ("calling", np.int64),  # those of them that wait for a service that they called
        ("waiting", np.int64),
        ("head", np.int64),
        ("tail", np.int64),
        ("booked_s", np.float64),  # its integrals are complete until then
        ("users", np.int64),
        # its next arrival: `budget` units of an exponential variable from `budget_s` on, spent at `rate_rps`
        ("rate_rps", np.float64),
        ("budget", np.float64),
        ("budget_s", np.float64),
        ("next_recorded", np.int64),
        ("last_recorded", np.int64),
    ]
)
CALL = np.dtype([("callee", np.int64), ("per_request", np.float64)])
RECORDED = np.dtype([("time_s", np.float64), ("work_s", np.float64)])
HAPPENING = np.dtype([("time_s", np.float64), ("sequence", np.int64), ("request", np.int64)])


class Tables(NamedTuple):
    """All that the kernel remembers."""

    requests: NDArray[np.void]  # [records] of REQUEST
    services: NDArray[np.void]  # [services] of SERVICE
    calls: NDArray[np.void]  # [calls] of CALL, those of one service side by side
    recorded: NDArray[np.void]  # [recorded arrivals] of RECORDED, those of one service side by side
    heap: NDArray[np.void]  # [records] of HAPPENING: a binary heap over all services
    due_s: NDArray[np.float64]  # [leaves], next arrival and first possible giving up of each service
    tree: NDArray[np.int64]  # [2 x leaves], tournament over `due_s`: its root is the earliest
    draws: NDArray[np.float64]  # [services, STREAMS, block]
    drawn: NDArray[np.int64]  # [services, STREAMS], how many of the block are used
    here: NDArray[np.bool_]  # [services, most users], who is asking, waiting or thinking
    meta: NDArray[np.int64]  # [META]


class View(NamedTuple):
    """What the kernel reads and writes of the twin's state."""

    rate_rps: NDArray[np.float64]
    replicas: NDArray[np.int64]
    capacity: NDArray[np.float64]
    error_share: NDArray[np.float64]
    way_s: NDArray[np.float64]
    queue: NDArray[np.float64]
    inside: NDArray[np.float64]
    books: NDArray[np.float64]
    responses: NDArray[np.float64]


_FOLDER = Path(__file__).parent
compiled = compiler(
    [*_FOLDER.glob("request_*.py"), _FOLDER / "serving.py"], forceinline=True, error_model="numpy"
)  # callees become part of their callers: passing twenty arrays on would cost more than most functions do


# ---------------------------------------------------------------- random numbers


@compiled
def draw(t: Tables, service: int, stream: int) -> float:
    """The next number of a stream; says in `meta` when few are left."""
    place = t.drawn[service, stream]
    t.drawn[service, stream] = place + 1
    if place + t.meta[MARGIN] >= t.draws.shape[2]:
        t.meta[LOW] = 1
    return t.draws[service, stream, place]


# ---------------------------------------------------------------- records of requests


@compiled
def open_record(t: Tables, service: int) -> int:
    """A free record, now of a new request of the service."""
    place = t.meta[FREE_HEAD]
    request = t.requests[place]
    t.meta[FREE_HEAD] = request["next"]
    t.meta[FREE] -= 1
    request["service"] = service
    request["parent"] = NONE
    request["child"] = NONE
    request["user"] = NONE
    request["called"] = 0
    request["tries"] = 0
    return place


@compiled
def close_record(t: Tables, place: int) -> None:
    """Give the record back."""
    t.requests[place]["service"] = NONE
    t.requests[place]["next"] = t.meta[FREE_HEAD]
    t.meta[FREE_HEAD] = place
    t.meta[FREE] += 1


# ---------------------------------------------------------------- what happens next, request by request


@compiled
def _put(heap: NDArray[np.void], place: int, time_s: float, sequence: int, request: int) -> None:
    heap[place]["time_s"] = time_s
    heap[place]["sequence"] = sequence
    heap[place]["request"] = request


@compiled
def _sooner(heap: NDArray[np.void], one: int, time_s: float, sequence: int) -> bool:
    """Does entry `one` come before (time_s, sequence)?"""
    at_s = heap[one]["time_s"]
    return at_s < time_s or (at_s == time_s and heap[one]["sequence"] < sequence)


@compiled
def push(t: Tables, time_s: float, request: int) -> None:
    """Note that the request's present doing ends at `time_s`; of equal times, first noted is first."""
    heap = t.heap
    place = t.meta[HEAP_SIZE]
    sequence = t.meta[SEQUENCE]
    t.meta[HEAP_SIZE] = place + 1
    t.meta[SEQUENCE] = sequence + 1
    while place > 0:
        above = (place - 1) >> 1
        if heap[above]["time_s"] <= time_s:
            break
        _put(heap, place, heap[above]["time_s"], heap[above]["sequence"], heap[above]["request"])
        place = above
    _put(heap, place, time_s, sequence, request)


@compiled
def _sink(heap: NDArray[np.void], size: int, place: int, time_s: float, sequence: int, request: int) -> None:
    """Put an entry at `place` or as far below as order asks."""
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _sooner(heap, below + 1, heap[below]["time_s"], heap[below]["sequence"]):
            below += 1
        if not _sooner(heap, below, time_s, sequence):
            break
        _put(heap, place, heap[below]["time_s"], heap[below]["sequence"], heap[below]["request"])
        place = below
    _put(heap, place, time_s, sequence, request)


@compiled
def pop(t: Tables) -> int:
    """The request whose entry is the earliest; the entry is taken out."""
    heap = t.heap
    first = heap[0]["request"]
    size = t.meta[HEAP_SIZE] - 1
    t.meta[HEAP_SIZE] = size
    if size > 0:
        _sink(heap, size, 0, heap[size]["time_s"], heap[size]["sequence"], heap[size]["request"])
    return first


@compiled
def purge(t: Tables, gone: NDArray[np.bool_]) -> None:
    """Take out the entries of the requests that are `gone` [records]."""
    heap = t.heap
    kept = 0
    for place in range(t.meta[HEAP_SIZE]):
        if not gone[heap[place]["request"]]:
            _put(heap, kept, heap[place]["time_s"], heap[place]["sequence"], heap[place]["request"])
            kept += 1
    t.meta[HEAP_SIZE] = kept
    for place in range(kept // 2 - 1, -1, -1):
        _sink(heap, kept, place, heap[place]["time_s"], heap[place]["sequence"], heap[place]["request"])


# ---------------------------------------------------------------- what happens next, service by service


@compiled
def set_due(t: Tables, leaf: int, time_s: float) -> None:
    """Let what `leaf` stands for be due at `time_s` (infinite: never)."""
    due_s, tree = t.due_s, t.tree
    due_s[leaf] = time_s
    node = (due_s.shape[0] + leaf) >> 1
    while node >= 1:
        left, right = tree[2 * node], tree[2 * node + 1]
        tree[node] = left if due_s[left] <= due_s[right] else right
        node >>= 1
