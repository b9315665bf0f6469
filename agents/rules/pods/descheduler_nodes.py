"""Which replicas leave over- or underused nodes: LowNodeUtilization and HighNodeUtilization of the descheduler.

Source: sigs.k8s.io/descheduler 0.3x (`plugins/nodeutilization`). Use is what replicas ask for, in per cent of the
node's CPU, memory and number of pods. A node is underused when none of the given resources is above its threshold
(equal counts as below), overused when any is above its target. Nodes are taken by the sum of their use in millicores,
bytes and pods, which is to say by memory. Evictions go on while the node is above its target and the receiving
nodes together have anything left of every resource; where the replicas will land is the scheduler's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.rules.pods.descheduler_evictor import DEFAULT, RESOURCES, Eviction, Evictor, Rules
from twin.errors import UsageError
from twin.fleet import Fleet

Percent = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LowNodeUtilization:
    """Moves replicas from nodes above `target_thresholds` while there are nodes below `thresholds` (per cent, 0-100).

    With `use_deviation` both are distances from the mean of all nodes. Nothing happens while no more than
    `number_of_nodes` nodes are underused.
    """

    thresholds: Percent
    target_thresholds: Percent
    use_deviation: bool = False
    number_of_nodes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", _checked("thresholds", self.thresholds))
        object.__setattr__(self, "target_thresholds", _checked("target_thresholds", self.target_thresholds))
        if set(self.thresholds) != set(self.target_thresholds):
            raise UsageError(
                f"LowNodeUtilization: thresholds for {sorted(self.thresholds)} but target_thresholds for "
                f"{sorted(self.target_thresholds)}: both must name the same resources"
            )
        if not self.use_deviation and any(low > self.target_thresholds[name] for name, low in self.thresholds.items()):
            raise UsageError(
                f"LowNodeUtilization: thresholds={self.thresholds} must not be above {self.target_thresholds}"
            )

    def evictions(self, fleet: Fleet, rules: Rules = DEFAULT, earlier: Iterable[Eviction] = ()) -> list[Eviction]:
        """The replicas that leave overused nodes, given what the cycle's `earlier` policies evict."""
        evictor = Evictor(fleet, rules, earlier)
        percent = evictor.percent
        low, high = self._levels(percent[evictor.ready])
        under = [node for node in evictor.ready if evictor.schedulable(node) and not (percent[node] > low).any()]
        over = [node for node in evictor.ready if node not in under and (percent[node] > high).any()]
        if len(under) <= self.number_of_nodes or not over:
            return []
        goal = np.where(np.isinf(high), evictor.capacity, np.floor(high * 0.01 * evictor.capacity)).astype(np.int64)
        room = (goal[under] - evictor.used[under]).sum(axis=0)

        def because(node: int) -> str:
            exceeded = ", ".join(
                f"{name} at {percent[node, i]:.0f} % is above {high[i]:.0f} %"
                for i, name in enumerate(RESOURCES)
                if percent[node, i] > high[i]
            )
            return f"{exceeded}, and {len(under)} of {len(evictor.ready)} nodes are underused"

        sources = sorted(over, key=lambda node: -int(evictor.used[node].sum()))
        return _empty_out(evictor, sources, room, goal, because)

    def _levels(self, percent: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        low, high = _vector(self.thresholds), _vector(self.target_thresholds)
        if not self.use_deviation or not len(percent):
            return low, high
        mean, given = percent.mean(axis=0), np.isfinite(low)
        return (
            np.where(given, np.clip(mean - low, 0.0, 100.0), np.inf),
            np.where(given, np.clip(mean + high, 0.0, 100.0), np.inf),
        )


@dataclass(frozen=True, slots=True)
class HighNodeUtilization:
    """Empties nodes below `thresholds` (per cent, 0-100) into those above, so that nodes can be given back.

    Nothing happens while no more than `number_of_nodes` nodes are underused.
    """

    thresholds: Percent
    number_of_nodes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", _checked("thresholds", self.thresholds))

    def evictions(self, fleet: Fleet, rules: Rules = DEFAULT, earlier: Iterable[Eviction] = ()) -> list[Eviction]:
        """The replicas that leave underused nodes, given what the cycle's `earlier` policies evict."""
        evictor = Evictor(fleet, rules, earlier)
        percent, low = evictor.percent, _vector(self.thresholds)
        under = [node for node in evictor.ready if not (percent[node] > low).any()]
        others = [node for node in evictor.ready if node not in under and evictor.schedulable(node)]
        if len(under) <= self.number_of_nodes or not others:
            return []
        room = (evictor.capacity[others] - evictor.used[others]).sum(axis=0)

        def because(node: int) -> str:
            reached = ", ".join(
                f"{name} at {percent[node, RESOURCES.index(name)]:.0f} % is not above {limit:g} %"
                for name, limit in self.thresholds.items()
            )
            return f"{reached}, and {len(others)} fuller nodes may have room"

        sources = sorted(under, key=lambda node: int(evictor.used[node].sum()))
        return _empty_out(evictor, sources, room, np.full_like(evictor.capacity, -1), because)


def _empty_out(
    evictor: Evictor,
    sources: Sequence[int],
    room: NDArray[np.int64],
    goal: NDArray[np.int64],
    because: Callable[[int], str],
) -> list[Eviction]:
    """Evict from one node after the other, while it is above `goal` [nodes, RESOURCES] and `room` is left."""
    fleet, used, room = evictor.fleet, evictor.used.copy(), room.copy()
    for node in sources:
        for pod in [int(pod) for pod in fleet.pods_on(node) if evictor.evictable(int(pod))]:
            if not (used[node] > goal[node]).any() or (room <= 0).any():
                break
            if not evictor.movable(pod):
                continue
            outcome = evictor.evict(pod, f"{fleet.pod_name[pod]} leaves {fleet.node_name[node]}: {because(node)}")
            if outcome == "total limit":
                return evictor.evictions
            if outcome == "node limit":
                break
            if outcome == "evicted":
                asked = evictor.request[fleet.pod_service[pod]]
                used[node] -= asked
                room -= asked
    return evictor.evictions


def _checked(what: str, percent: Percent) -> dict[str, float]:
    known = {str(name): float(value) for name, value in percent.items()}
    if not known or not set(known) <= set(RESOURCES) or not all(0 <= value <= 100 for value in known.values()):
        raise UsageError(f"{what}={known} must give per cents in [0, 100] for some of {RESOURCES}")
    return known


def _vector(percent: Percent) -> NDArray[np.float64]:
    """The per cents by resource [RESOURCES], infinite where none is given."""
    return np.array([percent.get(name, np.inf) for name in RESOURCES])
