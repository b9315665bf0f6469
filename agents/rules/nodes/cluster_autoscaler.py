"""The Kubernetes Cluster Autoscaler as a controller of node pools.

One scan, every 10 s: give up on nodes that did not come, grow one pool for pods that fit nowhere
(`expanders`), else find nodes that nobody needs (`unneeded`) and drain those that were unneeded long enough.
Source: `core/static_autoscaler.go` and the FAQ of kubernetes/autoscaler (release 1.34).

Where a fleet knows less than a cluster does: a booting node and one that was asked for are "upcoming", a failed node
is "unready", and all that a pod can demand of a node is room and a pool where its service may run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.rules.nodes import packing
from agents.rules.nodes.expanders import Expander, Option, check, choose, estimate
from agents.rules.nodes.packing import Room
from agents.rules.nodes.pools import counted, held, in_state, look, number, pool_places, undelivered
from agents.rules.nodes.unneeded import ScaleDown, try_without
from twin.errors import UsageError
from twin.fleet import BOOTING, DRAINING, FAILED, UP, Fleet
from twin.types import Action, Observation


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """How growth is watched, with the defaults of the Cluster Autoscaler.

    A pool whose new nodes are not up `provision_s` after the last of them was asked for is left alone for `backoff_s`,
    twice as long each time it fails again, up to `most_backoff_s`; `forget_s` without a failure make it new.
    Nothing at all is done while more than `unready_nodes` nodes and `unready_share` of all are not ready.
    """

    provision_s: float = 900.0
    backoff_s: float = 300.0
    most_backoff_s: float = 1800.0
    forget_s: float = 10_800.0
    most_nodes: int = 1000
    unready_nodes: int = 3
    unready_share: float = 0.45

    def __post_init__(self) -> None:
        if min(self.provision_s, self.backoff_s, self.forget_s) < 0 or self.most_backoff_s < self.backoff_s:
            raise UsageError(f"{self}: times must be at least 0, and most_backoff_s at least backoff_s")


@dataclass(slots=True)
class _Backoff:
    """A pool that failed to deliver."""

    duration_s: float
    failed_s: float

    @property
    def until_s(self) -> float:
        return self.failed_s + self.duration_s


class ClusterAutoscaler:
    """Grows pools for pending pods and drains nodes that are not needed; its confidence is always 1."""

    def __init__(
        self,
        pools: Sequence[str],
        expanders: Sequence[Expander] = ("least-waste",),
        priorities: Mapping[str, int] | None = None,
        scale_up: ScaleUp | None = None,
        scale_down: ScaleDown | None = None,
        seed: int = 0,
        interval_s: float = 10.0,
        name: str = "cluster-autoscaler",
    ) -> None:
        """Look after `pools`.

        Args:
            pools: names; their `min_nodes` and `max_nodes` bound them.
            expanders: who chooses the pool that grows, each among what the one before left.
            priorities: of pools by name, the highest wins; for the expander "priority".
            scale_up: how growth is watched; None = the defaults.
            scale_down: when nodes go; None = the defaults.
            seed: of the draws between equal options.
            interval_s: seconds between scans.
            name: as the decision table shows it.

        Raises:
            UsageError: when there is no pool, an unknown expander or no interval.
        """
        check(expanders)
        if not pools or interval_s <= 0:
            raise UsageError(f"controller {name!r}: pools={list(pools)} must not be empty, interval_s={interval_s} > 0")
        self.name = name
        self.interval_s = interval_s
        self.pools = tuple(pools)
        self.expanders = tuple(expanders)
        self.priorities = dict(priorities or {})
        self.up = scale_up or ScaleUp()
        self.down = scale_down or ScaleDown()
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """Forget who was unneeded, who failed and when anything was done."""
        self._rng = np.random.default_rng(self._seed)
        self._asked: dict[int, float] = {}  # when a pool was last asked for nodes that are not up yet
        self._backoff: dict[int, _Backoff] = {}
        self._unneeded: dict[str, float] = {}  # since when
        self._skip: dict[str, float] = {}  # until when
        self._drained: set[str] = set()  # asked to go at the last scan
        self._grown_s = self._removed_s = self._failed_s = -math.inf

    def decide(self, observation: Observation) -> list[Action]:
        """What changes, and for each pool that does not change why."""
        fleet = look(observation, self.name)
        pools = pool_places(fleet, self.pools, self.name)
        self._check_drains(fleet)
        ill = self._ill(fleet)
        if ill:
            return held(fleet, pools, [], dict.fromkeys(pools, ill))
        given_up = self._give_up(fleet, pools)
        if given_up:
            other = f"first {given_up[0].target} is put right, which did not deliver"
            return given_up + held(fleet, pools, given_up, dict.fromkeys(pools, other))
        room = packing.room(fleet)
        here = np.concatenate([in_state(fleet, UP), in_state(fleet, BOOTING)])
        left = packing.place(room, packing.homeless(fleet), here, packing.by_size(fleet.request))
        grown, refused = self._grow(fleet, room, pools, left)
        if grown:
            other = f"pool {grown[0].target} grows for the pending pods"
            return grown + held(fleet, pools, grown, dict.fromkeys(pools, other))
        drains, why = self._shrink(fleet, room, pools)
        return drains + held(fleet, pools, drains, why | refused)

    def _ill(self, fleet: Fleet) -> str:
        """Why nothing is done with a cluster in this state; "" when it is well."""
        failed, nodes = int((fleet.node_state == FAILED).sum()), len(fleet.node_name)
        if failed <= self.up.unready_nodes or failed <= self.up.unready_share * nodes:
            return ""
        return f"{failed} of {nodes} nodes are not ready, too many to trust the cluster"

    # -------------------------------------------------- growing

    def _give_up(self, fleet: Fleet, pools: Sequence[int]) -> list[Action]:
        """Take back what pools were asked for and did not deliver in time."""
        return [action for pool in pools if (action := self._overdue(fleet, pool)) is not None]

    def _overdue(self, fleet: Fleet, pool: int) -> Action | None:
        now_s, spec = fleet.time_s, fleet.pools[pool]
        upcoming = number(fleet, pool, BOOTING) + undelivered(fleet, pool)
        backoff = self._backoff.get(pool)
        if backoff and now_s - backoff.failed_s > self.up.forget_s:
            del self._backoff[pool]
        if not upcoming:
            if self._asked.pop(pool, None) is not None:
                self._backoff.pop(pool, None)
            return None
        waited_s = now_s - self._asked.setdefault(pool, now_s)
        if waited_s <= self.up.provision_s:
            return None
        del self._asked[pool]
        before = self._backoff.get(pool)
        again_s = min(2.0 * before.duration_s, self.up.most_backoff_s) if before else self.up.backoff_s
        self._backoff[pool] = _Backoff(again_s, now_s)
        wanted = int(fleet.nodes_wanted[pool])
        value = max(wanted - upcoming, spec.min_nodes)
        late = f"{counted(upcoming, 'node')} not up {waited_s:g} s after the last was asked for"
        reason = f"{wanted} taken back to {value}: {late}; left alone for {again_s:g} s"
        return Action("nodes", spec.name, value, reason)

    def _grow(
        self, fleet: Fleet, room: Room, pools: Sequence[int], left: NDArray[np.int64]
    ) -> tuple[list[Action], dict[int, str]]:
        """The pool that grows for the pods [services] that found no room on nodes up or booting, or why none does."""
        left = self._on_ordered(fleet, room, pools, left)
        pending = int(left.sum())
        if not pending:
            return [], {}
        options, refused = [], {}
        for pool in pools:
            option = self._option(fleet, pool, left)
            if isinstance(option, Option):
                options.append(option)
            else:
                refused[pool] = f"{counted(pending, 'pod')} without room, but {option}"
        if not options:
            return [], refused
        nodes = int((fleet.node_state == UP).sum())
        best = choose(options, self.expanders, self._rng, cluster_nodes=nodes, priorities=self.priorities)
        pool = pools[self.pools.index(best.pool)]
        self._asked[pool] = self._grown_s = fleet.time_s
        wanted = int(fleet.nodes_wanted[pool])
        among = f"by {', '.join(self.expanders)} among {len(options)} pools" if len(options) > 1 else "the only choice"
        reason = f"grown from {wanted} by {counted(best.nodes, 'node')} for {best.pods} of {counted(pending, 'pod')}"
        reason += f" without room, {among}"
        return [Action("nodes", best.pool, wanted + best.nodes, reason)], refused

    def _on_ordered(self, fleet: Fleet, room: Room, pools: Sequence[int], left: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pods [services] that do not fit either on nodes that were asked for and do not show yet."""
        for pool in pools:
            ordered = undelivered(fleet, pool)
            if ordered and left.any():
                more = packing.extend(room, fleet, pool, ordered)
                new = np.arange(len(room.free), len(more.free))
                left = packing.place(more, left, new, packing.by_size(fleet.request))
        return left

    def _option(self, fleet: Fleet, pool: int, left: NDArray[np.int64]) -> Option | str:
        """How the pool could help, or why it cannot."""
        spec, backoff = fleet.pools[pool], self._backoff.get(pool)
        if backoff and backoff.until_s > fleet.time_s:
            return f"it did not deliver and is left alone for another {backoff.until_s - fleet.time_s:g} s"
        size = max(int(fleet.nodes_wanted[pool]), number(fleet, pool, UP, BOOTING, DRAINING))
        most = min(spec.max_nodes - size, self.up.most_nodes)
        if most <= 0:
            return f"it has its most nodes ({spec.max_nodes})"
        counts = np.where(packing.permitted(fleet)[:, pool], left, 0)
        nodes, placed = estimate(spec.size, fleet.request, counts, most)
        if not nodes:
            return "none of them fits on its nodes"
        return Option(
            spec.name, nodes, int(placed.sum()), placed @ fleet.request, spec.size, float(fleet.price_usd_h[pool])
        )

    # -------------------------------------------------- shrinking

    def _check_drains(self, fleet: Fleet) -> None:
        """A node that was told to go and is still up counts as a failed removal."""
        up = {fleet.node_name[n] for n in in_state(fleet, UP)}
        if self._drained & up:
            self._failed_s = fleet.time_s
        self._drained.clear()

    def _shrink(self, fleet: Fleet, room: Room, pools: Sequence[int]) -> tuple[list[Action], dict[int, str]]:
        """Drain the nodes that were unneeded long enough, and say for each pool how its nodes stand."""
        now_s = fleet.time_s
        self._skip = {name: until_s for name, until_s in self._skip.items() if until_s > now_s}
        most = self.down.most_unneeded(len(self._unneeded), self.interval_s)
        trial = try_without(fleet, room, pools, self.down, known=self._unneeded, skip=self._skip, most=most)
        self._skip |= {fleet.node_name[n]: now_s + self.down.recheck_s for n in trial.stuck}
        self._unneeded = {fleet.node_name[n]: self._unneeded.get(fleet.node_name[n], now_s) for n in trial.unneeded}
        pause = self._pause(now_s)
        why = {pool: self._standing(fleet, pool, pause) for pool in pools}
        chosen = [] if pause else self._removable(fleet, room, trial.unneeded, why)
        drains = [Action("drain", fleet.node_name[n], 1, self._farewell(fleet, room, n)) for n in chosen]
        for action in drains:
            self._drained.add(action.target)
            del self._unneeded[action.target]
            self._removed_s = now_s
        return drains, why

    def _pause(self, now_s: float) -> str:
        """Why nothing may go now; "" when it may."""
        for since_s, wait_s, what in (
            (self._grown_s, self.down.after_add_s, "growth"),
            (self._failed_s, self.down.after_failure_s, "failed removal"),
            (self._removed_s, self.down.after_delete_s, "removal"),
        ):
            if now_s < since_s + wait_s:
                return f"nothing goes within {wait_s:g} s of the last {what} ({now_s - since_s:g} s ago)"
        return ""

    def _standing(self, fleet: Fleet, pool: int, pause: str) -> str:
        nodes = [fleet.node_name[n] for n in fleet.nodes_of(pool) if fleet.node_name[n] in self._unneeded]
        if not nodes:
            return f"no node below {self.down.utilisation:.0%} whose pods fit elsewhere"
        longest_s = fleet.time_s - min(self._unneeded[name] for name in nodes)
        text = (
            f"{counted(len(nodes), 'node')} unneeded, the longest since {longest_s:g} s of {self.down.unneeded_s:g} s"
        )
        return f"{text}; {pause}" if pause else text

    def _removable(self, fleet: Fleet, room: Room, unneeded: Sequence[int], why: dict[int, str]) -> list[int]:
        """The nodes that go now: first the empty ones, then those with pods, within the bounds."""
        leaving = in_state(fleet, DRAINING)
        parallel = self.down.parallelism - len(leaving)
        drains = self.down.drains - int((fleet.node_pods[leaving] > 0).sum())
        size = {pool: self._size(fleet, pool) for pool in why}
        chosen: list[int] = []
        for node in unneeded:  # the empty ones come first
            pool, full = int(fleet.node_pool[node]), bool(room.held[node].any())
            if not self._long_enough(fleet, node) or len(chosen) >= parallel or (full and drains <= 0):
                continue
            if size[pool] <= fleet.pools[pool].min_nodes:
                why[pool] = f"{why[pool]}, but the pool has its fewest nodes ({fleet.pools[pool].min_nodes})"
                continue
            size[pool] -= 1
            drains -= full
            chosen.append(node)
        return chosen

    def _size(self, fleet: Fleet, pool: int) -> int:
        """How many nodes the pool has without those on their way out."""
        return min(int(fleet.nodes_wanted[pool]), number(fleet, pool, UP, BOOTING, FAILED))

    def _long_enough(self, fleet: Fleet, node: int) -> bool:
        wait_s = self.down.unready_s if fleet.node_state[node] == FAILED else self.down.unneeded_s
        return fleet.time_s - self._unneeded[fleet.node_name[node]] > wait_s

    def _farewell(self, fleet: Fleet, room: Room, node: int) -> str:
        since_s = fleet.time_s - self._unneeded[fleet.node_name[node]]
        used = 1.0 - room.free[node] / fleet.node_size[node]
        pods = int(room.held[node].sum())
        if not pods:
            return f"unneeded for {since_s:g} s: it is empty"
        asked = f"{used[0]:.0%} of its CPU and {used[1]:.0%} of its memory are asked for"
        return f"unneeded for {since_s:g} s: {asked}, and what it holds ({counted(pods, 'pod')}) fits on other nodes"
