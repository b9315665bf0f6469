"""Karpenter as a controller of node pools: provisioning for pending pods, and consolidation.

Pending pods are collected until none came for a second, ten seconds at most, and get the cheapest nodes that hold them
(`claims`). Every 10 s one move is looked for that makes the fleet cheaper (`consolidation`); it is looked at again 15 s
later, its new node is started first, and the old ones are drained once that is up.
Source: `pkg/controllers/` of kubernetes-sigs/karpenter (1.8). Drift, expiry and schedules of budgets are left out.

Pools stand for instance types, and together are one NodePool. While nodes were just asked for, no move is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agents.rules.nodes import consolidation, packing
from agents.rules.nodes.claims import buy, claim, market
from agents.rules.nodes.consolidation import View
from agents.rules.nodes.disruption import Disruption, Move
from agents.rules.nodes.pools import counted, held, in_state, look, pool_places, undelivered
from twin.errors import UsageError
from twin.fleet import BOOTING, PENDING, UP, Fleet
from twin.types import Action, Observation

_UNCHANGED_S = 300.0  # a fleet that did not change is looked at again after that


@dataclass(frozen=True, slots=True)
class Provisioning:
    """How nodes are bought, with the defaults of Karpenter.

    Pods are waited for until none came for `batch_idle_s`, or the first waits `batch_most_s`. A pool that owes nodes
    for `launch_s` sells none for `closed_s`; a replacement that is not up after `register_s` is given up.
    """

    batch_idle_s: float = 1.0
    batch_most_s: float = 10.0
    launch_s: float = 30.0
    closed_s: float = 180.0
    register_s: float = 900.0

    def __post_init__(self) -> None:
        times = (self.batch_idle_s, self.batch_most_s, self.launch_s, self.closed_s, self.register_s)
        if min(times) < 0:
            raise UsageError(f"{self}: times must be at least 0")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A move whose replacement was asked for; `node` is its name once it shows."""

    move: Move
    asked_s: float
    known: frozenset[str]  # the names of nodes that were up or booting before
    node: str = ""


class Karpenter:
    """Buys the cheapest nodes for pending pods and consolidates the fleet; its confidence is always 1."""

    def __init__(
        self,
        pools: Sequence[str],
        disruption: Disruption | None = None,
        provisioning: Provisioning | None = None,
        poll_s: float = 10.0,
        interval_s: float = 10.0,
        name: str = "karpenter",
    ) -> None:
        """Look after `pools`.

        Args:
            pools: names; their `min_nodes` and `max_nodes` bound them.
            disruption: policy, budgets and patience of consolidation; None = the defaults.
            provisioning: how nodes are bought; None = the defaults.
            poll_s: seconds between looks for a move.
            interval_s: seconds between decisions; 1 provisions as fast as Karpenter does.
            name: as the decision table shows it.

        Raises:
            UsageError: when there is no pool or no interval.
        """
        if not pools or min(interval_s, poll_s) <= 0:
            raise UsageError(
                f"controller {name!r}: pools={list(pools)} must not be empty, interval_s={interval_s} and "
                f"poll_s={poll_s} > 0"
            )
        self.name = name
        self.interval_s = interval_s
        self.poll_s = poll_s
        self.pools = tuple(pools)
        self.rules = disruption or Disruption()
        self.buying = provisioning or Provisioning()
        self.reset()

    def reset(self) -> None:
        """Forget all moves, and what came and went."""
        self._pods: frozenset[tuple[str, str]] | None = None  # (pod, node) at the last scan
        self._changed: dict[str, float] = {}  # when a pod last came to the node or went
        self._owing: dict[int, float] = {}  # since when a pool owes nodes
        self._closed: dict[int, float] = {}  # until when it sells none
        self._proposed: tuple[Move, float] | None = None
        self._waiting: list[_Waiting] = []
        self._polled_s = -math.inf
        self._settled: tuple[tuple[bytes, ...], float] | None = None  # a fleet that no move makes better

    def decide(self, observation: Observation) -> list[Action]:
        """What changes, and for each pool that does not change why."""
        fleet = look(observation, self.name)
        pools = pool_places(fleet, self.pools, self.name)
        changed_s = self._watch(fleet)
        actions = self._close_debtors(fleet, pools) + self._finish(fleet)
        sees = self._view(fleet, pools)
        why = ""
        if not actions:
            actions, why = self._provision(sees)
        if not actions and not why:
            actions, why = self._disrupt(sees, changed_s)
        return actions + held(fleet, pools, actions, dict.fromkeys(pools, why or "other pools change"))

    def _view(self, fleet: Fleet, pools: Sequence[int]) -> View:
        tainted = {name for waiting in self._waiting for name in waiting.move.nodes}
        leaving = np.array([name in tainted for name in fleet.node_name], dtype=bool)
        self._closed = {pool: until_s for pool, until_s in self._closed.items() if until_s > fleet.time_s}
        return consolidation.view(fleet, pools, market(fleet, pools, tuple(self._closed)), self.rules, leaving)

    # -------------------------------------------------- what is remembered

    def _watch(self, fleet: Fleet) -> NDArray[np.float64]:
        """When a pod last came to each node or went, or when the node was ready, if later [nodes]."""
        names = fleet.node_name
        placed = np.flatnonzero(fleet.pod_node >= 0).tolist()
        now = frozenset((fleet.pod_name[pod], names[fleet.pod_node[pod]]) for pod in placed)
        if self._pods is None:
            for pod in placed:
                node = names[fleet.pod_node[pod]]
                self._changed[node] = max(self._changed.get(node, -math.inf), float(fleet.pod_since_s[pod]))
        else:
            for _, node in now ^ self._pods:
                self._changed[node] = fleet.time_s
        self._pods = now
        self._changed = {name: self._changed[name] for name in names if name in self._changed}
        changed_s = [self._changed.get(name, -math.inf) for name in names]
        return np.maximum(fleet.node_since_s, changed_s)

    def _close_debtors(self, fleet: Fleet, pools: Sequence[int]) -> list[Action]:
        """Pools that do not deliver sell nothing for a while, and are no longer waited for."""
        taken_back: list[Action] = []
        for pool in pools:
            owed, wanted = undelivered(fleet, pool), int(fleet.nodes_wanted[pool])
            if not owed:
                self._owing.pop(pool, None)
            elif fleet.time_s - self._owing.setdefault(pool, fleet.time_s) >= self.buying.launch_s:
                del self._owing[pool]
                self._closed[pool] = fleet.time_s + self.buying.closed_s
                value = max(wanted - owed, fleet.pools[pool].min_nodes)
                reason = f"{wanted} taken back to {value}: no capacity for {counted(owed, 'node')}"
                reason += f"; not asked again for {self.buying.closed_s:g} s"
                taken_back.append(Action("nodes", fleet.pools[pool].name, value, reason))
        return taken_back

    # -------------------------------------------------- provisioning

    def _provision(self, sees: View) -> tuple[list[Action], str]:
        """The nodes for the pods that wait or must leave their node, and why none are bought if none are."""
        fleet = sees.fleet
        since_s = fleet.pod_since_s[fleet.pod_state == PENDING]
        if not sees.homeless.any():
            return [], ""
        if len(since_s) and not self._batch_is_full(fleet.time_s, since_s):
            idle_s = self.buying.batch_idle_s
            return [], f"{counted(len(since_s), 'pod')} pending, more may come until {idle_s:g} s pass without"
        room = sees.room.copy()
        ready = np.flatnonzero((fleet.node_state == UP) & ~sees.leaving)
        left = packing.place(room, sees.homeless, np.concatenate([ready, sees.coming]), sees.order)
        if not left.any():
            return [], ""
        claims, unplaced = claim(sees.market, fleet.request, left, sees.order)
        bought, unserved = buy(claims, sees.market)
        if not bought.any():
            return [], f"{counted(int(left.sum()), 'pod')} without room, and no pool sells a node that holds one"
        short = f", {counted(unserved, 'node')} short" if unserved or unplaced.any() else ""
        actions: list[Action] = []
        for pool in np.flatnonzero(bought).tolist():
            name, wanted, price = fleet.pools[pool].name, int(fleet.nodes_wanted[pool]), sees.market.price_usd_h[pool]
            reason = f"grown from {wanted} by {counted(int(bought[pool]), 'node')} at {price:.4g} USD/h"
            reason += f", the cheapest for {counted(int(left.sum()), 'pod')} without room{short}"
            actions.append(Action("nodes", name, wanted + int(bought[pool]), reason))
        return actions, ""

    def _batch_is_full(self, now_s: float, since_s: NDArray[np.float64]) -> bool:
        return now_s - since_s.max() >= self.buying.batch_idle_s or now_s - since_s.min() >= self.buying.batch_most_s

    # -------------------------------------------------- disruption

    def _disrupt(self, sees: View, changed_s: NDArray[np.float64]) -> tuple[list[Action], str]:
        """What the move that was found before asks for, or a new move to be looked at again, and what is waited for."""
        now_s = sees.fleet.time_s
        if self._proposed is not None:
            found, found_s = self._proposed
            waited_s = now_s - found_s
            if waited_s < self.rules.validate_s:
                return [], f"{_title(found)}, looked at again after {self.rules.validate_s:g} s ({waited_s:g} s passed)"
            self._proposed = None
            self._polled_s = now_s
            still = consolidation.confirmed(
                sees, found, consolidation.candidates(sees, changed_s, self.rules.after_s), self.rules
            )
            if still is None:
                return [], f"{_title(found)} no longer holds after {waited_s:g} s: the fleet changed"
            return self._start(sees.fleet, still), ""
        if now_s - self._polled_s < self.poll_s:
            return [], f"the next look for a cheaper fleet is in {self.poll_s - (now_s - self._polled_s):g} s"
        self._polled_s = now_s
        return [], self._look(sees, changed_s)

    def _look(self, sees: View, changed_s: NDArray[np.float64]) -> str:
        """What a look for a move brought."""
        fleet = sees.fleet
        open_nodes = consolidation.candidates(sees, changed_s, self.rules.after_s)
        arrays = (open_nodes, fleet.pod_node, fleet.pod_service, fleet.node_state, sees.room.free, sees.price_usd_h)
        key = tuple(array.tobytes() for array in arrays)
        if self._settled and self._settled[0] == key and fleet.time_s - self._settled[1] < _UNCHANGED_S:
            return self._nothing(sees, len(open_nodes))
        found = consolidation.propose(sees, open_nodes, self.rules)
        if found is None:
            self._settled = key, fleet.time_s
            return self._nothing(sees, len(open_nodes))
        self._proposed = found, fleet.time_s
        return f"{_title(found)}, looked at again after {self.rules.validate_s:g} s"

    def _nothing(self, sees: View, candidates: int) -> str:
        nodes, going = sees.budgeted
        if candidates and not self.rules.budget("Underutilized", nodes, going):
            return f"the disruption budget is used up ({going} of {nodes} nodes going or not ready)"
        return f"no move by {self.rules.policy} among {counted(candidates, 'node')} makes the fleet cheaper"

    def _start(self, fleet: Fleet, move: Move) -> list[Action]:
        """Ask for the replacement, or drain at once where none is needed."""
        if not move.replacement:
            what = "it is empty" if move.reason == "Empty" else "its pods fit on other nodes"
            return [Action("drain", node, 1, f"{what}: {_title(move)}") for node in move.nodes]
        live = [fleet.node_name[n] for n in in_state(fleet, UP, BOOTING)]
        self._waiting.append(_Waiting(move, fleet.time_s, frozenset(live)))
        wanted = int(fleet.nodes_wanted[[pool.name for pool in fleet.pools].index(move.replacement)])
        return [Action("nodes", move.replacement, wanted + 1, f"grown from {wanted} by 1 node: {_title(move)}")]

    def _finish(self, fleet: Fleet) -> list[Action]:
        """Drain the nodes whose replacement is up; give up those whose replacement does not come."""
        state = dict(zip(fleet.node_name, fleet.node_state.tolist(), strict=True))
        pool_of = {name: fleet.pools[pool].name for name, pool in zip(fleet.node_name, fleet.node_pool, strict=True)}
        taken = {waiting.node for waiting in self._waiting}
        closed = {fleet.pools[pool].name for pool in self._closed}
        drains: list[Action] = []
        left: list[_Waiting] = []
        for waiting in self._waiting:
            if not waiting.node:
                new = [n for n in state if n not in waiting.known | taken and pool_of[n] == waiting.move.replacement]
                waiting = replace(waiting, node=new[0] if new else "")
                taken.add(waiting.node)
            if state.get(waiting.node) == UP:
                text = f"replaced by {waiting.node}: {_title(waiting.move)}"
                drains += [Action("drain", n, 1, text) for n in waiting.move.nodes if state.get(n) == UP]
            elif self._still_comes(fleet, waiting, state, closed):
                left.append(waiting)
        self._waiting = left
        return drains

    def _still_comes(self, fleet: Fleet, waiting: _Waiting, state: dict[str, int], closed: set[str]) -> bool:
        if fleet.time_s - waiting.asked_s > self.buying.register_s:
            return False
        return state.get(waiting.node) == BOOTING if waiting.node else waiting.move.replacement not in closed


def _title(move: Move) -> str:
    """The move in words, with its savings."""
    nodes = ", ".join(move.nodes[:3]) + (f" and {len(move.nodes) - 3} more" if len(move.nodes) > 3 else "")
    what = f"replacing {nodes} by one of {move.replacement}" if move.replacement else f"removing {nodes}"
    return f"{what} saves {move.savings_usd_h:.4g} USD/h ({move.before_usd_h:.4g} to {move.after_usd_h:.4g})"
