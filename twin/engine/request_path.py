"""The way of one request through its service and those that it calls, and the books that are kept of it.

A service's integrals are completed (`book`) before its numbers of waiting and serving change. Each function draws a
bounded number of random numbers of each stream and opens at most one record.
"""

from __future__ import annotations

import math

import numpy as np

from twin.engine.request_tables import (
    CALLED_WORK,
    CALLING,
    CHANCE,
    NONE,
    SERVING,
    THINK,
    THINKING,
    WAITING,
    Tables,
    View,
    close_record,
    compiled,
    draw,
    open_record,
    push,
    set_due,
)
from twin.engine.serving import (
    ARRIVED,
    BUSY_S,
    FAILED,
    INSIDE_S,
    LATE,
    RESPONSE_S,
    SERVED,
    WAIT_S,
    WORK_S,
    bucket,
)

_STILL_AT_IT = -1  # no outcome yet


@compiled
def enter(t: Tables, v: View, r: int, now_s: float) -> None:
    """The request comes to its service: it is served at once or joins the queue."""
    request = t.requests[r]
    s = request["service"]
    service = t.services[s]
    book(t, v, s, now_s)
    v.books[s, ARRIVED] += 1.0
    request["arrived_s"] = now_s
    if service["busy"] < service["slots"] and service["waiting"] == 0:
        _begin(t, s, r, now_s)
        return
    request["doing"] = WAITING
    request["next"] = NONE
    if service["waiting"] == 0:
        service["head"] = r
        if t.due_s[2 * s + 1] == np.inf:
            set_due(t, 2 * s + 1, now_s + service["timeout_s"])
    else:
        t.requests[service["tail"]]["next"] = r
    service["tail"] = r
    service["waiting"] += 1


@compiled
def _begin(t: Tables, s: int, r: int, now_s: float) -> None:
    request = t.requests[r]
    t.services[s]["busy"] += 1
    request["doing"] = SERVING
    push(t, now_s + request["work_s"] * t.services[s]["slowness"], r)


@compiled
def unqueue(t: Tables, v: View, s: int, now_s: float) -> int:
    """The head of the queue, which leaves it; the integrals must be complete."""
    service = t.services[s]
    r = service["head"]
    service["head"] = t.requests[r]["next"]
    service["waiting"] -= 1
    v.books[s, WAIT_S] += now_s - t.requests[r]["arrived_s"]
    return r


@compiled
def fill(t: Tables, v: View, s: int, now_s: float) -> None:
    """Free servers take who waits; the integrals must be complete."""
    service = t.services[s]
    while service["busy"] < service["slots"] and service["waiting"] > 0:
        _begin(t, s, unqueue(t, v, s, now_s), now_s)


@compiled
def go_on(t: Tables, v: View, r: int, now_s: float) -> int:
    """The outcome of a request whose service or last call is over, or that it is still at it: it calls again."""
    request = t.requests[r]
    s = request["service"]
    last = t.services[s]["last_call"]
    while request["left"] == 0:
        row = request["call"] + 1
        request["call"] = row
        if row >= last:
            share = v.error_share[s]
            return FAILED if share > 0.0 and draw(t, s, CHANCE) < share else SERVED
        number = t.calls[row]["per_request"]
        whole = math.floor(number)
        more = number > whole and draw(t, s, CHANCE) < number - whole
        request["left"] = int(whole) + int(more)
    request["left"] -= 1
    if request["doing"] != CALLING:
        book(t, v, s, now_s)
        t.services[s]["calling"] += 1
        request["doing"] = CALLING
    callee = t.calls[request["call"]]["callee"]
    child = open_record(t, callee)
    request["child"] = child
    t.requests[child]["parent"] = r
    t.requests[child]["called"] = 1
    t.requests[child]["work_s"] = draw(t, callee, CALLED_WORK)
    enter(t, v, child, now_s)
    return _STILL_AT_IT


@compiled
def end(t: Tables, v: View, r: int, outcome: int, now_s: float) -> None:
    """The request has its outcome; whoever called it goes on, or fails with it."""
    while outcome != _STILL_AT_IT:
        s = t.requests[r]["service"]
        parent = t.requests[r]["parent"]
        close_books(t, v, r, outcome, now_s)
        fill(t, v, s, now_s)
        _rest(t, s, r, now_s)
        if parent == NONE:
            return
        t.requests[parent]["child"] = NONE
        outcome = go_on(t, v, parent, now_s) if outcome == SERVED else FAILED
        r = parent


@compiled
def _rest(t: Tables, s: int, r: int, now_s: float) -> None:
    """A user who has an answer, or none, thinks before asking again."""
    user = t.requests[r]["user"]
    if user != NONE and user < t.services[s]["users"]:
        think(t, s, r, now_s)
    else:
        part(t, s, r)


@compiled
def think(t: Tables, s: int, r: int, now_s: float) -> None:
    """The user thinks before asking again."""
    t.requests[r]["doing"] = THINKING
    push(t, now_s + draw(t, s, THINK) * t.services[s]["think_s"], r)


@compiled
def part(t: Tables, s: int, r: int) -> None:
    """The request is over, and the user who asked is gone."""
    if t.requests[r]["user"] != NONE:
        t.here[s, t.requests[r]["user"]] = False
    close_record(t, r)


# ---------------------------------------------------------------- the books


@compiled
def book(t: Tables, v: View, s: int, now_s: float) -> None:
    """Complete the integrals before anything changes."""
    service = t.services[s]
    passed_s = now_s - service["booked_s"]
    service["booked_s"] = now_s
    v.books[s, INSIDE_S] += (service["waiting"] + service["busy"]) * passed_s
    v.books[s, BUSY_S] += service["busy"] * passed_s / service["concurrency"]
    v.books[s, WORK_S] += (service["busy"] - service["calling"]) * passed_s / service["concurrency"]


@compiled
def close_books(t: Tables, v: View, r: int, outcome: int, now_s: float) -> None:
    """The request is no longer inside."""
    request = t.requests[r]
    s = request["service"]
    service = t.services[s]
    book(t, v, s, now_s)
    inside_s = now_s - request["arrived_s"]
    v.books[s, outcome] += 1.0
    v.books[s, RESPONSE_S] += inside_s
    if request["doing"] != WAITING:
        service["busy"] -= 1
    if request["doing"] == CALLING:
        service["calling"] -= 1
    if outcome == SERVED:
        # calls between services do not go the way to the users
        response_s = inside_s if request["called"] else inside_s + v.way_s[s]
        v.responses[s, bucket(response_s)] += 1.0
        if response_s > service["slo_s"]:
            v.books[s, LATE] += 1.0
