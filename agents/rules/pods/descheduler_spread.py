"""Which replicas stand too close together: RemoveDuplicates and the topology spread of the descheduler.

Source: sigs.k8s.io/descheduler 0.3x (`plugins/removeduplicates`,
`plugins/removepodsviolatingtopologyspreadconstraint`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.rules.pods.descheduler_evictor import DEFAULT, Eviction, Evictor, Rules
from twin.errors import UsageError
from twin.fleet import Fleet


@dataclass(frozen=True, slots=True)
class RemoveDuplicates:
    """Leaves no node with more replicas of a service than ceil(replicas / nodes that it may run on).

    Whether those nodes have room is looked at with `node_fit` alone, and then only whether any one of them has.
    """

    def evictions(self, fleet: Fleet, rules: Rules = DEFAULT, earlier: Iterable[Eviction] = ()) -> list[Eviction]:
        """The replicas beyond that number, given what the cycle's `earlier` policies evict."""
        evictor = Evictor(fleet, rules, earlier)
        for service in range(len(fleet.services)):
            if self._spread(evictor, service) == "total limit":
                break
        return evictor.evictions

    def _spread(self, evictor: Evictor, service: int) -> str:
        fleet = evictor.fleet
        by_node = {node: self._movable(evictor, service, node) for node in evictor.ready}
        targets = sum(evictor.schedulable(node) and evictor.suits(service, node) for node in by_node)
        if targets < 2:
            return "nowhere to go"
        total = sum(len(pods) for pods in by_node.values())
        share = math.ceil(total / targets)
        for node, pods in by_node.items():
            why = f"{len(pods)} of {total} replicas are there, and {targets} nodes could hold {share} each"
            for pod in pods[share:]:
                outcome = evictor.evict(pod, f"{fleet.pod_name[pod]} leaves {fleet.node_name[node]}: {why}")
                if outcome == "total limit":
                    return outcome
                if outcome == "node limit":
                    break
        return "done"

    def _movable(self, evictor: Evictor, service: int, node: int) -> list[int]:
        fleet = evictor.fleet
        mine = [int(pod) for pod in fleet.pods_on(node) if fleet.pod_service[pod] == service]
        return [pod for pod in mine if evictor.evictable(pod) and evictor.movable(pod)]


@dataclass(frozen=True, slots=True)
class TopologySpread:
    """Keeps the numbers of a service's replicas in any two zones within `max_skew` of each other.

    A zone counts when it has a ready node that the service may run on. A replica is left alone when no node in the
    zones below the mean has room for it, but is counted as moved all the same.
    """

    max_skew: int = 1

    def __post_init__(self) -> None:
        if self.max_skew < 1:
            raise UsageError(f"TopologySpread: max_skew={self.max_skew} must be at least 1")

    def evictions(self, fleet: Fleet, rules: Rules = DEFAULT, earlier: Iterable[Eviction] = ()) -> list[Eviction]:
        """The replicas that leave crowded zones, given what the cycle's `earlier` policies evict."""
        evictor = Evictor(fleet, rules, earlier)
        chosen = [choice for service in range(len(fleet.services)) for choice in self._chosen(evictor, service).items()]
        for pod, reason in chosen:
            if not evictor.evictable(pod) or not evictor.movable(pod):
                continue
            if evictor.evict(pod, reason) == "total limit":
                break
        return evictor.evictions

    def _chosen(self, evictor: Evictor, service: int) -> dict[int, str]:
        """The replicas that should move, each with its sentence."""
        fleet = evictor.fleet
        nodes = [node for node in evictor.ready if evictor.suits(service, node)]
        pods: dict[str, list[int]] = {_zone(fleet, node): [] for node in nodes}
        for node in nodes:
            pods[_zone(fleet, node)] += [int(p) for p in fleet.pods_on(node) if fleet.pod_service[p] == service]
        zones = sorted(pods, key=lambda zone: len(pods[zone]))
        sizes = [len(pods[zone]) for zone in zones]
        mean = sum(sizes) / max(len(sizes), 1)
        low = [node for node in nodes if len(pods[_zone(fleet, node)]) < mean]
        chosen: dict[int, str] = {}
        for giver, taker, count in moves(sizes, self.max_skew):
            # the protected ones stay at the front of the queue, to be taken last
            queue = sorted(pods[zones[giver]], key=evictor.evictable)
            why = (
                f"zone {zones[giver]} has {sizes[giver]} and zone {zones[taker]} {sizes[taker]} replicas of "
                f"{fleet.services[service].name}, more than {self.max_skew} apart"
            )
            for pod in queue[-count:]:
                if evictor.fits(pod, low):
                    node = fleet.node_name[fleet.pod_node[pod]]
                    chosen[pod] = f"{fleet.pod_name[pod]} leaves {node}: {why}"
            pods[zones[giver]] = queue[:-count]
        return chosen


def moves(sizes: Sequence[int], max_skew: int) -> list[tuple[int, int, int]]:
    """(from, to, how many) that bring `sizes` (in rising order) as near to their mean as `max_skew` asks.

    From the largest to the smallest, the least of half of what the skew is too large, rounded up; of what the one
    has above the mean; and of what the other lacks of it.
    """
    left, found = list(sizes), []
    if not left or left[-1] - left[0] <= max_skew:
        return found
    mean = sum(left) / len(left)
    taker, giver = 0, len(left) - 1
    while taker < giver:
        if left[giver] <= mean:
            giver -= 1
        skew = left[giver] - left[taker]
        spare, lack = math.ceil(left[giver] - mean), math.ceil(mean - left[taker])
        count = min(spare, lack, math.ceil((skew - max_skew) / 2))
        if skew <= max_skew or count <= 0:
            taker += 1
            continue
        found.append((giver, taker, count))
        left[giver] -= count
        left[taker] += count
    return found


def _zone(fleet: Fleet, node: int) -> str:
    return fleet.pools[int(fleet.node_pool[node])].zone
