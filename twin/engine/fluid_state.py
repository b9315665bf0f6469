"""What the fluid model of services knows and remembers: arrays with a row for each service."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.engine.erlang import LEVELS, strata
from twin.engine.serving import BUCKETS, callers_first
from twin.types import Service

_F8 = NDArray[np.float64]
STRATA = len(LEVELS) - 1

# constants of a service, columns of `Known.constants`
CONCURRENCY, SERVICE_S, CV, SLO_S, TIMEOUT_S, RETRIES, BACKOFF_S, CLOSED, THINK_S, STEPS = range(10)
# what was worked out last for a service, columns of `Known.memory`, valid while what it was worked out for is the same:
# the law of waits (LEAVES: share that gives up by chance, beyond what the flow makes give up; NOISE: width of the
# queue's noise in requests, P(|noise| > y) = erfc(y / width))
ASKED, SLOTS, HOLD_S, DENSITY, DECAY, LEAVES, NOISE = range(7)
# response times (those of `Known.shape` lie in the buckets from FIRST up to END)
PHASE, WAY_S, MEAN_WAIT_S, LATE_SHARE, FIRST, END = range(7, 13)
# users of a closed load; the hold time that the strata were scaled to, and its variation; what callers meet: mean time
# inside, and share of requests without an answer
USERS, USERS_INSIDE, USERS_RATE, STRETCHED, HOLD_CV, NOW_S, BAD = range(13, 20)


class Known(NamedTuple):
    """What the model knows beside the state: constants, and what it worked out last."""

    constants: _F8  # [services, constants]
    memory: _F8  # [services, memory]
    unit_edges: _F8  # [services, strata + 1], service times of mean 1 between the strata
    unit_means: _F8  # [services, strata]
    levels: _F8  # [services, strata + 1]
    edges: _F8  # [services, strata + 1], times that a request holds its slot
    means: _F8  # [services, strata]
    shape: _F8  # [services, BUCKETS], shares of response times
    attempts: _F8  # [services, tries], requests inside by their number of retries
    again: _F8  # [services, tries], who will ask again, for the how manieth time
    inflow: _F8  # [services], calls per second
    order: NDArray[np.int64]  # [services], callers first
    caller: NDArray[np.int64]  # [calls]
    callee: NDArray[np.int64]  # [calls]
    per_request: _F8  # [calls]


class Open(NamedTuple):
    """The part of the state that the model reads and writes."""

    rate_rps: _F8
    capacity: _F8
    counts: NDArray[np.int64]
    error_share: _F8
    way_s: _F8
    queue: _F8
    inside: _F8
    books: _F8
    responses: _F8


def known_of(services: tuple[Service, ...]) -> Known:
    """What is known before the first step; raises UsageError if services call each other in a circle."""
    number = len(services)
    place = {s.name: k for k, s in enumerate(services)}
    calls = [(place[s.name], place[c.callee], c.per_request) for s in services for c in s.calls]
    callers = {caller for caller, _, _ in calls}
    constants = np.zeros((number, STEPS + 1))
    levels, edges, means = np.ones((number, STRATA + 1)), np.ones((number, STRATA + 1)), np.ones((number, STRATA))
    for k, s in enumerate(services):
        spread = s.service_cv > 0.0 or k in callers
        load = (s.load == "closed", s.think_s, STRATA if spread else 1)
        times = (s.service_time_s, s.service_cv, s.slo_s, s.timeout_s, s.retries, s.backoff_s)
        constants[k] = (s.concurrency, *times, *load)
        levels[k] = LEVELS if spread else np.minimum(np.arange(STRATA + 1), 1.0)
        if s.service_cv > 0.0:
            edges[k], means[k] = strata(s.distribution, s.service_cv)
    tries = 1 + max((s.retries for s in services), default=0)
    memory = np.full((number, BAD + 1), np.nan)
    memory[:, NOW_S] = [s.service_time_s for s in services]
    memory[:, BAD] = 0.0
    return Known(
        constants,
        memory,
        edges,
        means,
        levels,
        np.zeros_like(edges),
        np.zeros_like(means),
        np.zeros((number, BUCKETS)),
        np.zeros((number, tries)),
        np.zeros((number, tries)),
        np.zeros(number),
        np.array(callers_first(services), dtype=np.int64),
        np.array([c[0] for c in calls], dtype=np.int64),
        np.array([c[1] for c in calls], dtype=np.int64),
        np.array([c[2] for c in calls], dtype=np.float64),
    )
