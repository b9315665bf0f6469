"""How far ready replicas are from their users: a mean round trip and a mean price of what is sent."""

from __future__ import annotations

import numpy as np

from twin.engine.state import State
from twin.types import Cluster


class Ways:
    """Keeps `state.way_s` and `state.egress_usd_gib` true: means over the ready replicas of each service.

    Users' requests are spread evenly over the ready replicas, wherever these are.
    """

    def __init__(self, cluster: Cluster, state: State) -> None:
        """No replica is ready yet."""
        self._state = state
        self._ready = np.zeros((len(cluster.services), len(cluster.pools)))
        links = [
            [cluster.link(service.users_region or pool.region, pool.region) for pool in cluster.pools]
            for service in cluster.services
        ]
        shape = self._ready.shape
        self._latency_s = np.array([[link.latency_s for link in row] for row in links]).reshape(shape)
        self._usd_gib = np.array([[link.egress_usd_gib for link in row] for row in links]).reshape(shape)
        self._far = np.logical_or(self._latency_s != 0, self._usd_gib != 0).any(axis=1).tolist()

    def count(self, service: int, pool: int, sign: int) -> None:
        """One ready replica more or less in the pool."""
        self._ready[service, pool] += sign
        if not self._far[service]:
            return
        ready = self._ready[service]
        total = max(float(ready.sum()), 1.0)
        self._state.way_s[service] = float(ready @ self._latency_s[service]) / total
        self._state.egress_usd_gib[service] = float(ready @ self._usd_gib[service]) / total
