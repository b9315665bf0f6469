"""What an agent's numbers mean: a view of the observation, and dials that turn choices into replicas and nodes."""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin import observe
from twin.envs.episode import Episode, Kind
from twin.envs.sizing import SERVICE_METRICS, STEPS, TARGETS, features, fit, service_factors
from twin.types import Cluster, Observation, Service

CHANGES = (-2, -1, 0, 1, 2, 4)
"""What an agent may change of a pool's wished nodes."""
POOL_METRICS = (
    "wanted_nodes",
    "ready_nodes",
    "booting_nodes",
    "failed_nodes",
    "draining_nodes",
    "interrupted_nodes",
    "free_cpu_cores",
    "price_usd_h",
)
_DEMAND, _QUARTER, _LATE = (SERVICE_METRICS.index(m) for m in ("demand_rps", "demand_15m_rps", "late_ratio"))
_READY, _BOOTING, _DRAINING = (POOL_METRICS.index(m) for m in ("ready_nodes", "booting_nodes", "draining_nodes"))


class View:
    """Chosen columns of the observation, brought to about [-1, 1]; the last known value stands in for an unknown one.

    `row` holds the columns as observed (NaN = unknown), `known` without gaps (0 before anything was known).
    """

    def __init__(self, cluster: Cluster, columns: tuple[str, ...], factors: NDArray[np.float32]) -> None:
        """A view that has seen nothing; the agent sees clip(value x factor) of each column."""
        there = observe.columns(cluster)
        self._places = np.array([there.index(column) for column in columns])
        self._factors = factors
        self.known = np.zeros(len(self._places), dtype=np.float32)
        self.row = self.known

    def look(self, observation: Observation) -> None:
        """Take in what is known now."""
        self.row = observation.values[self._places]
        unknown = np.isnan(self.row)
        self.known = np.where(unknown, self.known, self.row) if unknown.any() else self.row

    def features(self) -> NDArray[np.float32]:
        """What the agent sees [columns]."""
        return features(self.known, self._factors)


class Dial(Protocol):
    """One number of the action: an index into `wishes`, the numbers that may be wished for of one target.

    `bounds` are the lowest and the highest number that would not be refused now, `wanted` is the present one.
    """

    kind: Kind
    name: str
    size: int
    wishes: list[int]
    bounds: tuple[int, int]
    wanted: int

    def look(self, episode: Episode, view: View) -> None:
        """Take in what is known now."""
        ...


class ReplicaDial:
    """One service: each choice is a target utilisation (`TARGETS`), and the replicas that serve it so are wished for.

    While the demand is unknown every choice keeps what is: whoever guards a policy decides then.
    """

    kind: Kind = "replicas"
    size = len(TARGETS)

    def __init__(self, service: Service, place: int) -> None:
        """The service's metrics begin at `place` of the view."""
        self.name, self.spec = service.name, service
        self._place = place
        self._minutes: deque[float] = deque(maxlen=STEPS)
        self._targets: list[float] = TARGETS.tolist()
        self._blind = True
        self._peak_rps = self._quarter_rps = self.late = 0.0
        self.wishes: list[int] = []
        self.bounds = 0, 0
        self.wanted = 0

    def look(self, episode: Episode, view: View) -> None:
        """Remember this minute's demand, read the rest."""
        known, at = view.known, self._place
        self._blind = math.isnan(view.row.item(at + _DEMAND))
        self._minutes.append(known.item(at + _DEMAND))
        self._quarter_rps = known.item(at + _QUARTER)
        self._peak_rps = max(*self._minutes, self._quarter_rps)
        self.wanted = episode.wanted(self.kind, self.name)
        late = view.row.item(at + _LATE)
        self.late = 0.0 if math.isnan(late) else min(late, 1.0)  # nothing arrived, or nothing was measured
        self.wishes = self._replicas(self._targets)
        self.bounds = episode.bounds(self.kind, self.name)

    def replicas(self, target: float) -> int:
        """The replicas to wish for at that utilisation."""
        return self._replicas([target])[0]

    def _replicas(self, targets: list[float]) -> list[int]:
        if self._blind:
            return [self.wanted] * len(targets)
        peak_rps, wanted, one_rps = self._peak_rps, max(self.wanted, 1), self.spec.replica_rps
        return [math.ceil(fit(peak_rps, wanted, target, one_rps) - 1e-3) for target in targets]

    def full(self) -> float:
        """Replicas that the demand fills: of the quarter hour, a minute's is noise that no action can change."""
        return max(self._quarter_rps / self.spec.replica_rps, 1.0)

    def reward(self, before: int, late_price: float, churn_price: float) -> float:
        """-(wished replicas / replicas that the demand fills) - late_price x late share - churn_price x change."""
        return -self.wanted / self.full() - late_price * self.late - churn_price * change(before, self.wanted)


class NodeDial:
    """One pool of provision "manual": each choice is a change of its wished nodes (`CHANGES`)."""

    kind: Kind = "nodes"
    size = len(CHANGES)

    def __init__(self, cluster: Cluster, pool: int, first: int) -> None:
        """The metrics of the cluster's pools begin at `first` of the view."""
        self.name, self._pool, self._first = cluster.pools[pool].name, pool, first
        self._cores = [each.cpu_cores for each in cluster.pools]
        names = [each.name for each in cluster.pools]
        self._quotas = [
            (quota.cpu_cores, [names.index(name) for name in quota.pools])
            for quota in cluster.quotas
            if self.name in quota.pools
        ]
        self.wishes: list[int] = []
        self.bounds = 0, 0
        self.wanted = 0

    def look(self, episode: Episode, view: View) -> None:
        """Read the pool's nodes and what its quotas leave."""
        self.wanted = episode.wanted(self.kind, self.name)
        self.wishes = [self.wanted + change for change in CHANGES]
        low, high = episode.bounds(self.kind, self.name)
        if self._quotas:
            high = min(high, max(self._granted(view), self.wanted))  # to keep what is wished for asks for nothing
        self.bounds = low, high

    def _granted(self, view: View) -> int:
        """How many nodes the pool may have as far as its quotas go."""
        metrics = len(POOL_METRICS)
        rows = view.known[self._first : self._first + metrics * len(self._cores)].reshape(-1, metrics)
        staying = rows[:, _READY] + rows[:, _BOOTING]
        held = (staying + rows[:, _DRAINING]) * self._cores
        left = min(cores - held[pools].sum() for cores, pools in self._quotas)
        return int(staying[self._pool]) + max(int((left + 1e-6) // self._cores[self._pool]), 0)


def mask(dial: Dial) -> list[bool]:
    """Which choices would not be refused, [size]; if all would be, the one that comes nearest."""
    low, high = dial.bounds
    fits = [low <= wish <= high for wish in dial.wishes]
    if True not in fits:
        beyond = [max(low - wish, wish - high) for wish in dial.wishes]
        fits[beyond.index(min(beyond))] = True
    return fits


def change(before: int, wanted: int) -> float:
    """Relative change of a wished number."""
    return abs(wanted - before) / max(before, 1)


def fleet_columns(cluster: Cluster) -> tuple[str, ...]:
    """The observation columns of whoever sees all services and pools: services', pools', clock."""
    return (
        *(f"{service.name}.{metric}" for service in cluster.services for metric in SERVICE_METRICS),
        *(f"{pool.name}.{metric}" for pool in cluster.pools for metric in POOL_METRICS),
        *observe.CLOCK,
    )


def fleet_factors(cluster: Cluster) -> NDArray[np.float32]:
    """The factors [columns] that bring each of `fleet_columns` to about [-1, 1]."""
    pools = []
    for pool in cluster.pools:
        nodes = 1.0 / max(pool.nodes, 1)
        pools += [nodes, nodes, *[4 * nodes] * 4, nodes / pool.cpu_cores, 1.0 / max(pool.price_usd_h, 1e-9)]
    services = [factor for service in cluster.services for factor in service_factors(service)]
    return np.array([*services, *pools, *[1.0] * len(observe.CLOCK)], dtype=np.float32)
