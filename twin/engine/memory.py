"""Memory: what each replica uses, what leaks, and who is killed for using more than it asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from twin.engine.clock import after
from twin.engine.incidents import Incidents
from twin.engine.replicas import Replicas
from twin.engine.state import READY, State
from twin.types import Cluster

CHECK_S = 60.0
_HOUR_S = 3600.0


class Memory:
    """Checks every minute how much each replica uses; the kernel's out-of-memory killer ends who uses too much.

    A replica uses memory_base_gib + memory_per_request_gib x its requests in service (the mean of the last minute)
    + what leaked since it became ready, or the leak began. A service that says nothing of its memory is not looked at
    unless it leaks.
    """

    def __init__(
        self, env: simpy.Environment, cluster: Cluster, state: State, replicas: Replicas, incidents: Incidents
    ) -> None:
        """Look for the first time a minute from now."""
        self._env, self._cluster, self._state = env, cluster, state
        self._replicas, self._incidents = replicas, incidents
        self._leaks: list[Sequence[tuple[float, float]]] = [() for _ in cluster.services]
        self._modelled = np.array([s.memory_base_gib + s.memory_per_request_gib > 0 for s in cluster.services])
        self._looks = False
        self._look_on()

    def leak(self, service: int, leaks: Sequence[tuple[float, float]]) -> None:
        """What makes the service's replicas leak now: (second it began, GiB/h) of each.

        What they lost to a leak that is over is theirs again.
        """
        self._leaks[service] = leaks
        if not leaks and not self._modelled[service]:
            self._state.memory_use_gib[service] = np.nan  # nobody looks any more
        self._look_on()

    def _look_on(self) -> None:
        if not self._looks and (self._modelled.any() or any(self._leaks)):
            self._looks = True
            after(self._env, CHECK_S, self._check)

    def use_gib(self, service: int, slots: NDArray[np.intp]) -> NDArray[np.float64]:
        """What these ready replicas of the service use now [slots]."""
        spec = self._cluster.services[service]
        inside = spec.concurrency * self._state.busy[service]
        use = np.full(len(slots), spec.memory_base_gib + spec.memory_per_request_gib * inside)
        for began_s, gib_h in self._leaks[service]:
            use += gib_h * (self._env.now - np.maximum(self._state.replica_since_s[slots], began_s)) / _HOUR_S
        return use

    def _check(self) -> None:
        state = self._state
        for service, leaks in enumerate(self._leaks):
            if not leaks and not self._modelled[service]:
                continue
            slots = np.flatnonzero((state.replica_service == service) & (state.replica_state == READY))
            use = self.use_gib(service, slots)
            state.memory_use_gib[service] = use.max() if len(use) else np.nan
            for slot in slots[use > state.replica_request[slots, 1]]:
                self._kill(service, int(slot))
        self._looks = False
        self._look_on()

    def _kill(self, service: int, slot: int) -> None:
        self._state.oom_kills[service] += 1
        name = self._cluster.services[service].name
        self._incidents.note(
            "oom_kill", f"{name}-{self._state.replica_born[slot]}", self._env.now, self._env.now, cause=name
        )
        self._replicas.restart(slot)
