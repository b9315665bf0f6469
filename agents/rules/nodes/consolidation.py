"""Which nodes Karpenter would do away with, and for what: emptiness, multi-node and single-node consolidation.

Source: `pkg/controllers/disruption/` of kubernetes-sigs/karpenter (1.8). Each move is tried on a copy of the fleet: the
pods of the nodes that go must fit on the nodes that stay, and on one new node that is cheaper than what goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.rules.nodes import packing
from agents.rules.nodes.claims import Claims, Market, claim
from agents.rules.nodes.disruption import Disruption, Move, Reason, score
from agents.rules.nodes.packing import Room
from agents.rules.nodes.pools import in_state, number, undelivered
from twin.fleet import BOOTING, DRAINING, FAILED, UP, Fleet

MOST_CANDIDATES = 100  # of multi-node consolidation
SPOT_CHOICES = 15  # cheaper ones that a spot node needs to be replaced by another spot node


@dataclass(frozen=True, slots=True)
class View:
    """The fleet as consolidation sees it; all arrays of nodes have the fleet's order."""

    fleet: Fleet
    room: Room  # with the nodes that were asked for after the fleet's own
    homeless: NDArray[np.int64]  # [services]
    mine: NDArray[np.bool_]  # [nodes], in a pool of the controller
    leaving: NDArray[np.bool_]  # [nodes], about to be drained
    coming: NDArray[np.intp]  # places in `room` of the nodes that boot or were asked for
    market: Market
    order: list[int]
    pod_cost: NDArray[np.float64]  # [services], of one eviction

    @property
    def price_usd_h(self) -> NDArray[np.float64]:
        """What each node costs [nodes]."""
        return self.market.price_usd_h[self.fleet.node_pool]

    @property
    def disruption(self) -> NDArray[np.float64]:
        """What disrupting each node costs [nodes]: 1, and its pods' evictions as far as they cost something."""
        return np.asarray(1.0 + self.room.held[: len(self.mine)] @ np.maximum(self.pod_cost, 0.0), dtype=np.float64)

    @property
    def budgeted(self) -> tuple[int, int]:
        """The nodes that budgets count, and those of them that are going or not ready."""
        state = self.fleet.node_state
        counted = self.mine & np.isin(state, (UP, FAILED, DRAINING))
        going = counted & ((state != UP) | self.leaving)
        return int(counted.sum()), int(going.sum())


def view(
    fleet: Fleet, pools: Sequence[int], market: Market, rules: Disruption, leaving: NDArray[np.bool_] | None = None
) -> View:
    """The fleet as consolidation of these pools sees it; `leaving` [nodes] are about to be drained."""
    going = np.zeros(len(fleet.node_name), dtype=bool) if leaving is None else leaving
    room = packing.room(fleet)
    for pool in pools:
        ordered = undelivered(fleet, pool)
        room = packing.extend(room, fleet, pool, ordered) if ordered else room
    asked_for = np.arange(len(fleet.node_name), len(room.free))
    cost = [min(max(float(rules.pod_costs.get(s.name, 1.0)), -10.0), 10.0) for s in fleet.services]
    return View(
        fleet,
        room,
        packing.homeless(fleet, going),
        np.isin(fleet.node_pool, pools),
        going,
        np.concatenate([in_state(fleet, BOOTING), asked_for]),
        market,
        packing.by_size(fleet.request),
        np.array(cost),
    )


def without(view: View, nodes: Sequence[int]) -> Claims | None:
    """The new nodes it takes to do without these; None when one of their pods finds no place at all.

    A pod that would have to wait for a node that is still booting has no place: nothing is decided on hopes.
    """
    room, fleet = view.room.copy(), view.fleet
    moving = room.held[list(nodes)].sum(axis=0)
    takes = (fleet.node_state == UP) & ~view.leaving
    takes[list(nodes)] = False
    ready = np.flatnonzero(takes)
    ready_or_coming = np.concatenate([ready, view.coming])
    left, waiting = moving.copy(), view.homeless.copy()
    for service in view.order:
        if left[service]:
            left[service] = packing.settle(room, service, int(left[service]), ready)
        if left[service] and packing.settle(room, service, int(left[service]), view.coming) < left[service]:
            return None
        if waiting[service]:
            waiting[service] = packing.settle(room, service, int(waiting[service]), ready_or_coming)
    claims, unplaced = claim(view.market, fleet.request, left + waiting, view.order)
    return None if (unplaced > waiting).any() else claims


def replacement(view: View, nodes: Sequence[int], claims: Claims | None, *, spot_to_spot: bool = False) -> int | None:
    """The pool of the one new node, cheaper than the nodes together; -1 = none is needed, None = there is no move."""
    if claims is None or len(claims) > 1:
        return None
    if not len(claims):
        return -1
    old = view.fleet.node_pool[list(nodes)]
    price, spot = view.market.price_usd_h, view.market.spot
    options = np.flatnonzero(claims.possible[0])
    cheaper = options[price[options] < price[old].sum()]
    if spot[options].any():
        cheaper = cheaper[spot[cheaper]]  # where spot is on offer it is bought, or the move is left
        scarce = len(nodes) == 1 and len(cheaper) < SPOT_CHOICES
        if spot[old].all() and (scarce or not spot_to_spot):
            return None
    if len(nodes) > 1:  # with one of a kind that goes, keeping that one would have been simpler
        same = cheaper[np.isin(cheaper, old)]
        cheaper = cheaper[price[cheaper] < price[same].min(initial=math.inf)]
    return int(cheaper[np.argmin(price[cheaper])]) if len(cheaper) else None


def worth(view: View, nodes: Sequence[int], savings_usd_h: float) -> float:
    """The score of doing away with the nodes."""
    cost, mine = view.disruption, view.mine
    return score(savings_usd_h, float(cost[list(nodes)].sum()), view.price_usd_h[mine].sum(), cost[mine].sum())


def candidates(view: View, changed_s: NDArray[np.float64], after_s: float) -> NDArray[np.intp]:
    """The places of the nodes that may go, where `changed_s` [nodes] says when a pod last came or went.

    A node stays when a pod's disruption budget holds it, when it is about to take a pending pod, or is leaving anyway.
    """
    fleet = view.fleet
    old = fleet.time_s - changed_s >= after_s
    kept = packing.blocked(fleet, view.room)[: len(view.mine)]
    return np.flatnonzero(view.mine & (fleet.node_state == UP) & ~view.leaving & old & ~kept & ~_nominated(view))


def _nominated(view: View) -> NDArray[np.bool_]:
    """The nodes [nodes] that the scheduler is about to put homeless pods on."""
    if not view.homeless.any():
        return np.zeros(len(view.mine), dtype=bool)
    room = view.room.copy()
    ready = np.flatnonzero((view.fleet.node_state == UP) & ~view.leaving)
    packing.place(room, view.homeless, ready, view.order)
    return np.any(room.held != view.room.held, axis=1)[: len(view.mine)]


def within(view: View, nodes: Sequence[int], budget: int) -> list[int]:
    """The first of the nodes that the budget and the pools' smallest sizes let go."""
    spare = _spare(view)
    chosen: list[int] = []
    for node in nodes:
        pool = int(view.fleet.node_pool[node])
        if len(chosen) < budget and spare[pool] > 0:
            spare[pool] -= 1
            chosen.append(int(node))
    return chosen


def _spare(view: View) -> list[int]:
    """How many nodes each pool has beyond its fewest [pools]."""
    fleet = view.fleet
    going = np.bincount(fleet.node_pool[view.leaving], minlength=len(fleet.pools))
    return [
        number(fleet, pool, UP, BOOTING) - int(going[pool]) - spec.min_nodes for pool, spec in enumerate(fleet.pools)
    ]


def propose(view: View, open_nodes: NDArray[np.intp], rules: Disruption) -> Move | None:
    """The first move that helps: empty nodes, then many nodes at once, then one; None when there is none."""
    nodes, going = view.budgeted
    pods = view.room.held[open_nodes].sum(axis=1)
    empty = within(view, open_nodes[pods == 0].tolist(), rules.budget("Empty", nodes, going))
    if empty:
        return move(view, empty, -1, "Empty")
    budget = rules.budget("Underutilized", nodes, going)
    if rules.policy == "WhenEmpty" or not budget:
        return None
    ordered = _ordered(view, open_nodes, rules)
    return _many(view, within(view, ordered, budget)[:MOST_CANDIDATES], rules) or _one(view, ordered, rules)


def confirmed(view: View, proposed: Move, open_nodes: NDArray[np.intp], rules: Disruption) -> Move | None:
    """The move as it stands now, with the prices of now; None when it no longer holds.

    Of empty nodes those go that still are; a move of other nodes holds whole, with the replacement it had, or not.
    """
    place = {view.fleet.node_name[node]: int(node) for node in open_nodes}
    nodes = [place[name] for name in proposed.nodes if name in place]
    if proposed.reason == "Empty":
        nodes = [node for node in nodes if not view.room.held[node].any()]
    nodes = within(view, nodes, rules.budget(proposed.reason, *view.budgeted))
    if proposed.reason == "Empty":
        return move(view, nodes, -1, "Empty") if nodes else None
    claims = without(view, nodes) if len(nodes) == len(proposed.nodes) else None
    if claims is None or len(claims) != bool(proposed.replacement):
        return None
    pool = next((n for n, spec in enumerate(view.fleet.pools) if spec.name == proposed.replacement), -1)
    return move(view, nodes, pool, proposed.reason) if pool < 0 or claims.possible[0, pool] else None


def move(view: View, nodes: Sequence[int], pool: int, reason: Reason) -> Move:
    """The move that does away with the nodes and starts one of `pool` (-1 = none)."""
    before = float(view.price_usd_h[list(nodes)].sum())
    names = tuple(view.fleet.node_name[node] for node in nodes)
    if pool < 0:
        return Move(reason, names, "", before, 0.0)
    return Move(reason, names, view.fleet.pools[pool].name, before, float(view.market.price_usd_h[pool]))


def _ordered(view: View, nodes: NDArray[np.intp], rules: Disruption) -> list[int]:
    """The cheapest to disrupt first; under "Balanced" those that save most for it."""
    if rules.policy == "Balanced":
        rank = -view.price_usd_h[nodes] / view.disruption[nodes]
    else:
        rank = view.room.held[nodes] @ view.pod_cost
    return nodes[np.argsort(rank, kind="stable")].tolist()


def _tried(view: View, nodes: Sequence[int], rules: Disruption) -> Move | None:
    pool = replacement(view, nodes, without(view, nodes), spot_to_spot=rules.spot_to_spot)
    if pool is None:
        return None
    tried = move(view, nodes, pool, "Underutilized")
    balanced = rules.policy == "Balanced"
    return None if balanced and not rules.approves(worth(view, nodes, tried.savings_usd_h)) else tried


def _many(view: View, nodes: Sequence[int], rules: Disruption) -> Move | None:
    """The largest batch, from the front of the list, that a binary search finds to be a move."""
    best, low, high = None, 2, len(nodes)
    while low <= high:
        middle = (low + high) // 2
        tried = _tried(view, nodes[:middle], rules)
        best = tried or best
        low, high = (middle + 1, high) if tried else (low, middle - 1)
    return best


def _one(view: View, nodes: Sequence[int], rules: Disruption) -> Move | None:
    """The first node that is a move on its own."""
    hopeful, spare = _hopeful(view), _spare(view)
    if rules.policy == "Balanced":  # what a node would be worth if nothing had to replace it
        total_usd_h, total = view.price_usd_h[view.mine].sum(), view.disruption[view.mine].sum()
        pairs = zip(view.price_usd_h, view.disruption, strict=True)
        hopeful &= [rules.approves(score(price, cost, total_usd_h, total)) for price, cost in pairs]
    for node in nodes:
        if hopeful[node] and spare[view.fleet.node_pool[node]] > 0 and view.room.held[node].any():
            tried = _tried(view, [node], rules)
            if tried:
                return tried
    return None


def _hopeful(view: View) -> NDArray[np.bool_]:
    """The nodes [nodes] that a trial could succeed with; for the others it would be a waste of time.

    What a node's pods cannot find on all others together, each service on its own, must fit on one cheaper node.
    """
    fleet, room, market = view.fleet, view.room, view.market
    takes = np.zeros(len(room.free), dtype=bool)
    takes[: len(view.mine)] = (fleet.node_state == UP) & ~view.leaving
    missing = np.zeros((len(view.mine), len(fleet.services)))
    for service, request in enumerate(fleet.request):
        fit = np.where(takes & room.allowed[service], np.minimum(packing.fitting(room.free, request), 1 << 20), 0)
        others = fit.sum() - fit[: len(view.mine)]
        missing[:, service] = np.maximum(room.held[: len(view.mine), service] - others, 0)
    asked = missing @ fleet.request
    fits = missing.sum(axis=1) == 0
    for pool in np.flatnonzero(market.nodes_left > 0):
        holds = np.all(asked <= market.size[pool] + packing.SLACK, axis=1)
        fits |= holds & (market.price_usd_h[pool] < view.price_usd_h)
    return fits
