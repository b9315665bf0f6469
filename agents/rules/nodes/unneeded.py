"""Which nodes the Cluster Autoscaler finds unneeded: its scale-down planner, as pure functions.

Source: `core/scaledown/` of kubernetes/autoscaler (1.34) and its FAQ. A node is unneeded when its pods ask for less
than a share of it and would all fit elsewhere, beside the pods of the nodes found unneeded before it. A node that
fails the trial is not looked at again for five minutes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.rules.nodes.packing import Room, blocked, by_size, fitting, fitting_one
from twin.errors import UsageError
from twin.fleet import FAILED, UP, Fleet


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """When nodes go, with the defaults of the Cluster Autoscaler.

    A node below the share `utilisation` of both CPU and memory goes after `unneeded_s` (`unready_s` when it is not
    ready). Nothing goes within `after_add_s` of a growth, `after_delete_s` of a removal or `after_failure_s` of a
    failed one. At most `parallelism` nodes go at once, `drains` of them with pods.
    """

    utilisation: float = 0.5
    unneeded_s: float = 600.0
    unready_s: float = 1200.0
    after_add_s: float = 600.0
    after_delete_s: float = 10.0
    after_failure_s: float = 180.0
    parallelism: int = 10
    drains: int = 1
    recheck_s: float = 300.0

    def __post_init__(self) -> None:
        waits = (self.unneeded_s, self.unready_s, self.after_add_s, self.after_delete_s, self.after_failure_s)
        if not 0.0 <= self.utilisation <= 1.0 or min(*waits, self.recheck_s, self.parallelism, self.drains) < 0:
            raise UsageError(f"{self}: utilisation must be in [0, 1], times and numbers of nodes at least 0")

    def most_unneeded(self, known: int, interval_s: float) -> int:
        """How many unneeded nodes are worth knowing: those `known` and two removals' worth more, within bounds."""
        rounds = int(max(self.unneeded_s, interval_s) / interval_s)
        return min(known + 2 * self.parallelism, self.parallelism * rounds + self.parallelism)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying to do without nodes; both are places of nodes."""

    unneeded: list[int]
    stuck: dict[int, str]  # why the node has to stay


def utilisation(fleet: Fleet, room: Room) -> NDArray[np.float64]:
    """The larger of the asked shares of CPU and memory of each node [nodes]."""
    return np.max(1.0 - room.free / fleet.node_size, axis=1)


def try_without(
    fleet: Fleet,
    room: Room,
    pools: Collection[int],
    rules: ScaleDown,
    *,
    known: Collection[str] = (),
    skip: Mapping[str, float] | None = None,
    most: int = 1 << 30,
) -> Trial:
    """The nodes that the fleet could do without, all together, and those that turned out not to be such.

    Args:
        fleet: as of now.
        room: what is left once the pods have been placed that are on their way; is not changed.
        pools: places of the pools whose nodes may go.
        rules: the threshold.
        known: names of nodes found unneeded before; they are tried first, after the empty ones.
        skip: nodes that are not to be tried, by name, and until when.
        most: stop when so many are found.
    """
    low = utilisation(fleet, room) < rules.utilisation
    mine = np.isin(fleet.node_pool, list(pools)) & np.isin(fleet.node_state, (UP, FAILED))
    skipped = skip or {}
    names = fleet.node_name
    candidates = [int(n) for n in np.flatnonzero(low & mine) if skipped.get(names[n], -1.0) <= fleet.time_s]
    full = room.held.sum(axis=1) > 0
    candidates.sort(key=lambda n: (bool(full[n]), names[n] not in known))
    kept = blocked(fleet, room)
    trying = _Trying.start(room, fleet.node_state == UP)
    order = by_size(room.request)
    trial = Trial([], {})
    for node in candidates:
        if len(trial.unneeded) >= most:
            break
        if kept[node]:
            trial.stuck[node] = "a disruption budget holds a pod"
        elif trying.do_without(node, order):
            trial.unneeded.append(node)
        else:
            trial.stuck[node] = "its pods fit nowhere else"
    return trial


@dataclass(slots=True)
class _Trying:
    """What is left while nodes are tried to be done without.

    Trials are many and touch few nodes: what a node can still take is kept up to date one node at a time, in plain
    numbers, which is several times as fast as arrays are with so few of them.
    """

    free: list[list[float]]  # [nodes][resources]
    held: list[list[int]]  # [nodes][services]
    request: list[list[float]]  # [services][resources]
    allowed: list[list[bool]]  # [services][nodes]
    fits: NDArray[np.int64]  # [services, nodes], how many pods more it takes; 0 where it takes none

    @classmethod
    def start(cls, room: Room, takes: NDArray[np.bool_]) -> _Trying:
        fits = [
            np.where(takes & allowed, fitting(room.free, request), 0)
            for request, allowed in zip(room.request, room.allowed, strict=True)
        ]
        lists = (room.free.tolist(), room.held.tolist(), room.request.tolist(), room.allowed.tolist())
        return cls(*lists, np.array(fits).reshape(len(room.request), len(takes)))

    def do_without(self, node: int, order: list[int]) -> bool:
        """Move the node's pods to others by first fit and close it; False, with all as before, if one fits nowhere."""
        pods = self.held[node]
        own = self.fits[:, node].copy()
        self.fits[:, node] = 0
        done: list[tuple[int, int, int]] = []
        for service in order:
            if pods[service] and not self._spread(service, pods[service], done):
                for moved, target, number in done:
                    self._put(moved, target, -number)
                self.fits[:, node] = own
                return False
        self.held[node] = [0] * len(pods)
        return True

    def _spread(self, service: int, left: int, done: list[tuple[int, int, int]]) -> bool:
        fits = self.fits[service]
        while left:
            target = int((fits > 0).argmax())
            number = min(left, int(fits[target]))
            if not number:
                return False
            self._put(service, target, number)
            done.append((service, target, number))
            left -= number
        return True

    def _put(self, service: int, target: int, number: int) -> None:
        self.held[target][service] += number
        free = [left - number * each for left, each in zip(self.free[target], self.request[service], strict=True)]
        self.free[target] = free
        for other, request in enumerate(self.request):
            if self.allowed[other][target]:
                self.fits[other, target] = fitting_one(free, request)
