"""The books: requests, replica-seconds and billed node-seconds, settled exactly before anything changes."""

from __future__ import annotations

import numpy as np
import simpy

from twin.engine.queueing import serve
from twin.engine.state import READY, State


class Books:
    """Keeps `state.books` and `state.node_books_s` true up to now.

    Whoever changes a rate, a number of ready replicas or a number of billed nodes calls `settle()` first.
    """

    def __init__(self, env: simpy.Environment, state: State) -> None:
        """Start at the environment's time with empty books."""
        self._env = env
        self._state = state
        self._settled_s = env.now

    def settle(self) -> None:
        """Integrate from the last settlement to now."""
        now = self._env.now
        dt = now - self._settled_s
        if dt <= 0.0:
            return
        state = self._state
        ready = np.ascontiguousarray(state.count[:, READY])
        serve(dt, state.rate_rps, ready, state.constants, state.queue, state.books)
        state.node_books_s += state.billed * dt
        self._settled_s = now
