"""Replicas that shall leave their node on purpose, as their disruption budgets allow.

The rule of a PodDisruptionBudget with maxUnavailable: a ready replica may go while at least wanted - max_unavailable
would stay ready; one that is not ready may always go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import simpy

from twin.engine.clock import after
from twin.engine.replicas import Replicas
from twin.engine.state import DRAINING, READY, STARTING, State
from twin.types import Cluster

RETRY_S = 5.0


class Evictions:
    """The replicas that wait for leave to go, in the order in which they were asked.

    They wait no longer when their reason is gone: it is that their node drains, or that they asked for other resources
    than their service does now.
    """

    def __init__(self, env: simpy.Environment, cluster: Cluster, state: State, replicas: Replicas) -> None:
        """Nobody shall go yet."""
        self._env, self._state, self._replicas = env, state, replicas
        self._missing = [service.max_unavailable for service in cluster.services]
        self._waiting: deque[tuple[int, int]] = deque()  # (slot, when it was born)
        self._timed = False

    def ask(self, slots: Iterable[int]) -> None:
        """These replicas shall move elsewhere as soon as they may."""
        asked = [(int(slot), int(self._state.replica_born[slot])) for slot in slots]
        self._waiting = deque(dict.fromkeys([*self._waiting, *asked]))
        self.turn()

    def allowed(self, slot: int) -> bool:
        """May the replica go now?"""
        state = self._state
        if state.replica_state[slot] != READY:
            return True
        service = int(state.replica_service[slot])
        return bool(state.count[service, READY] > state.wanted[service] - self._missing[service])

    def _shall_go(self, slot: int) -> bool:
        state = self._state
        if state.replica_state[slot] not in (STARTING, READY):
            return False  # it left in another way
        resized = state.replica_request[slot] != state.request[state.replica_service[slot]]
        return bool(state.node_state[state.replica_node[slot]] == DRAINING or resized.any())

    def turn(self) -> None:
        """Let go who may go now."""
        still: deque[tuple[int, int]] = deque()
        for slot, born in self._waiting:
            if self._state.replica_born[slot] != born or not self._shall_go(slot):
                continue
            if self.allowed(slot):
                self._replicas.move(slot)
            else:
                still.append((slot, born))
        self._waiting = still
        if still and not self._timed:
            self._timed = True
            after(self._env, RETRY_S, self._again)

    def _again(self) -> None:
        self._timed = False
        self.turn()
