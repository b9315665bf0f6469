"""The event kernel: each request of each service is followed from its arrival to its end, compiled.

Two calendars say what happens next. A heap holds the requests whose present doing ends at a known time: served, paused
before asking again, thinking. A tournament over services holds what each of them has only one of: the next arrival from
outside, and the first possible giving up. The queue is first come, first served and all in it have the same patience,
so that only its head can be the next to give up: no entry per waiting request, and nobody who gave up is ever counted
as waiting.

One event draws a bounded number of random numbers and opens at most one record, so that running short is noticed
between events and nothing has to be undone. A stretch is half open: what falls on its end belongs to the next one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from twin.engine.request_path import book, close_books, end, enter, fill, go_on, part, think, unqueue
from twin.engine.request_tables import (
    FREE,
    GAP,
    HEAP_SIZE,
    LOW,
    MET,
    NONE,
    NONSENSE,
    NOTHING,
    NUMBERS,
    PAUSING,
    ROOM,
    SERVING,
    WORK,
    Tables,
    View,
    close_record,
    compiled,
    draw,
    open_record,
    pop,
    purge,
    push,
    set_due,
)
from twin.engine.serving import DROPPED, FAILED, READY_S, RETRIED
from twin.fleet import READY


@compiled
def serve(t: Tables, v: View, since_s: float, until_s: float) -> int:
    """What it lacks to go on, or NOTHING: then the time between the two has passed.

    Called again with the same arguments it goes on where it stopped.
    """
    if t.meta[MET] == 0:
        for s in range(t.services.shape[0]):
            lack = _meet(t, v, s, since_s)
            if lack != NOTHING:
                return lack
        t.meta[MET] = 1
    lack = _pass(t, v, until_s)
    if lack != NOTHING:
        return lack
    for s in range(t.services.shape[0]):
        v.books[s, READY_S] += v.replicas[s, READY] * (until_s - since_s)
        show(t, v, s, until_s)
    t.meta[MET] = 0
    return NOTHING


@compiled
def forget(t: Tables, chosen: NDArray[np.int64], gone: NDArray[np.bool_]) -> None:
    """Take the requests `chosen` out of the calendar, and out of the minds of those that they call.

    `gone` [records] is all false and becomes true for those without an entry.
    """
    for r in chosen:
        gone[r] = True
        child = t.requests[r]["child"]
        if child != NONE:
            t.requests[child]["parent"] = NONE
            # nobody is left to ask again
            gone[child] = t.requests[child]["doing"] == PAUSING
    purge(t, gone)
    for r in chosen:
        child = t.requests[r]["child"]
        t.requests[r]["child"] = NONE
        if child != NONE and gone[child]:
            close_record(t, child)
    # until the next stretch says how many servers there are, nobody takes the place of a failed request
    t.services["slots"][:] = 0


@compiled
def fail(t: Tables, v: View, chosen: NDArray[np.int64], done: int, now_s: float) -> int:
    """How many of the requests `chosen`, forgotten before, have failed: fewer than all when numbers run short."""
    while done < chosen.shape[0] and t.meta[LOW] == 0:
        end(t, v, chosen[done], FAILED, now_s)
        done += 1
    return done


@compiled
def show(t: Tables, v: View, s: int, now_s: float) -> None:
    """Complete the integrals of a service and write how many are inside."""
    book(t, v, s, now_s)
    service = t.services[s]
    v.queue[s] = service["waiting"]
    v.inside[s] = service["waiting"] + service["busy"]


# ---------------------------------------------------------------- between stretches


@compiled
def _meet(t: Tables, v: View, s: int, since_s: float) -> int:
    """Take note of the service's rate, users and servers from `since_s` on; does nothing where they are known."""
    service = t.services[s]
    book(t, v, s, since_s)
    ready, capacity = v.replicas[s, READY], v.capacity[s]
    if not (0.0 <= v.rate_rps[s] < np.inf and 0.0 <= capacity < np.inf):
        return NONSENSE
    service["slots"] = ready * int(service["concurrency"]) if capacity > 0.0 else 0
    service["slowness"] = ready / capacity if capacity > 0.0 else 1.0
    fill(t, v, s, since_s)
    if service["replayed"]:
        _next_recorded(t, s, since_s)
    elif service["closed"]:
        return _welcome(t, s, int(v.rate_rps[s] + 0.5), since_s)
    elif service["rate_rps"] != v.rate_rps[s]:
        service["budget"] = max(0.0, service["budget"] - (since_s - service["budget_s"]) * service["rate_rps"])
        service["rate_rps"] = v.rate_rps[s]
        _spend(t, s, since_s)
    return NOTHING


@compiled
def _welcome(t: Tables, s: int, users: int, now_s: float) -> int:
    """Let there be that many users: new ones think first, surplus ones leave when they would ask next."""
    service = t.services[s]
    while service["users"] < users:
        if t.meta[LOW]:
            return NUMBERS
        if t.meta[FREE] == 0:
            return ROOM
        user = service["users"]
        service["users"] = user + 1
        if not t.here[s, user]:
            t.here[s, user] = True
            r = open_record(t, s)
            t.requests[r]["user"] = user
            think(t, s, r, now_s)
    service["users"] = users
    return NOTHING


@compiled
def _next_recorded(t: Tables, s: int, now_s: float) -> None:
    service = t.services[s]
    while service["next_recorded"] < service["last_recorded"]:
        time_s = t.recorded[service["next_recorded"]]["time_s"]
        if time_s >= now_s:
            set_due(t, 2 * s, time_s)
            return
        service["next_recorded"] += 1  # before the run began
    set_due(t, 2 * s, np.inf)


@compiled
def _spend(t: Tables, s: int, now_s: float) -> None:
    """The next arrival comes when the budget is spent."""
    service = t.services[s]
    service["budget_s"] = now_s
    rate_rps = service["rate_rps"]
    set_due(t, 2 * s, now_s + service["budget"] / rate_rps if rate_rps > 0.0 else np.inf)


# ---------------------------------------------------------------- events


@compiled
def _pass(t: Tables, v: View, until_s: float) -> int:
    """Let everything happen that is due before `until_s`; what is lacking for that."""
    meta, due_s, tree, heap = t.meta, t.due_s, t.tree, t.heap
    while True:
        if meta[LOW]:
            return NUMBERS
        if meta[FREE] == 0:
            return ROOM
        leaf = tree[1]
        now_s = due_s[leaf]
        # at the same instant answers come first: they make room for those who arrive or would give up
        if meta[HEAP_SIZE] > 0 and heap[0]["time_s"] <= now_s:
            now_s = heap[0]["time_s"]
            if now_s >= until_s:
                return NOTHING
            _wake(t, v, pop(t), now_s)
        elif now_s >= until_s:
            return NOTHING
        elif leaf & 1:
            _give_up(t, v, leaf >> 1, now_s)
        else:
            _arrive(t, v, leaf >> 1, now_s)


@compiled
def _wake(t: Tables, v: View, r: int, now_s: float) -> None:
    """What the request was doing is over."""
    request = t.requests[r]
    s = request["service"]
    doing = request["doing"]
    if doing == SERVING:
        request["call"] = t.services[s]["first_call"] - 1
        request["left"] = 0
        end(t, v, r, go_on(t, v, r, now_s), now_s)
    elif doing == PAUSING:
        v.books[s, RETRIED] += 1.0
        enter(t, v, r, now_s)
    elif request["user"] < t.services[s]["users"]:
        request["work_s"] = draw(t, s, WORK)
        request["tries"] = 0
        enter(t, v, r, now_s)
    else:
        part(t, s, r)


@compiled
def _arrive(t: Tables, v: View, s: int, now_s: float) -> None:
    """A request comes from outside, and the time of the next one is known."""
    service = t.services[s]
    r = open_record(t, s)
    work_s = np.nan
    if service["replayed"]:
        work_s = t.recorded[service["next_recorded"]]["work_s"]
        service["next_recorded"] += 1
        _next_recorded(t, s, now_s)
    else:
        service["budget"] = draw(t, s, GAP)
        _spend(t, s, now_s)
    t.requests[r]["work_s"] = draw(t, s, WORK) if math.isnan(work_s) else work_s
    enter(t, v, r, now_s)


@compiled
def _give_up(t: Tables, v: View, s: int, now_s: float) -> None:
    """The head of the queue gives up if its patience is at an end; the next alarm is set in any case."""
    service = t.services[s]
    r = service["head"]
    gone = service["waiting"] > 0 and t.requests[r]["arrived_s"] + service["timeout_s"] <= now_s
    if gone:
        book(t, v, s, now_s)
        unqueue(t, v, s, now_s)
    waiting = service["waiting"] > 0
    set_due(t, 2 * s + 1, t.requests[service["head"]]["arrived_s"] + service["timeout_s"] if waiting else np.inf)
    if not gone:
        return
    request = t.requests[r]
    orphan = request["called"] == 1 and request["parent"] == NONE
    if request["tries"] < service["retries"] and not orphan:
        close_books(t, v, r, DROPPED, now_s)
        request["tries"] += 1
        request["doing"] = PAUSING
        push(t, now_s + service["backoff_s"], r)
    else:
        end(t, v, r, DROPPED, now_s)
