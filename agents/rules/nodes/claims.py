"""The new nodes that Karpenter would start for pods: packed first, and only then priced.

Source: `pkg/controllers/provisioning/scheduling/` of kubernetes-sigs/karpenter (1.8). A claim is a node that is not
chosen yet: it takes pods as long as any pool's nodes could hold them all, the claim with the fewest pods first, and is
bought from the cheapest pool that can. Pools stand for Karpenter's instance types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.rules.nodes import packing
from agents.rules.nodes.packing import SLACK
from agents.rules.nodes.pools import number
from twin.fleet import BOOTING, DRAINING, UP, Fleet


@dataclass(frozen=True, slots=True)
class Market:
    """What can be bought now, pool by pool."""

    size: NDArray[np.float64]  # [pools, resources]
    price_usd_h: NDArray[np.float64]  # [pools]
    spot: NDArray[np.bool_]  # [pools]
    nodes_left: NDArray[np.int64]  # [pools], how many nodes more it may have; 0 = not for sale
    allowed: NDArray[np.bool_]  # [services, pools]


@dataclass(slots=True)
class Claims:
    """Nodes to be bought, each with what its pods ask for and the pools that could still hold them."""

    asked: NDArray[np.float64]  # [claims, resources]
    pods: NDArray[np.int64]  # [claims]
    possible: NDArray[np.bool_]  # [claims, pools]

    def __len__(self) -> int:
        """How many nodes."""
        return len(self.pods)


def market(fleet: Fleet, pools: Sequence[int], closed: Sequence[int] = ()) -> Market:
    """What the pools at these places offer now; `closed` ones and the others sell nothing."""
    left = np.zeros(len(fleet.pools), dtype=np.int64)
    for pool in set(pools) - set(closed):
        here = number(fleet, pool, BOOTING, UP, DRAINING)
        left[pool] = max(fleet.pools[pool].max_nodes - max(here, int(fleet.nodes_wanted[pool])), 0)
    return Market(
        np.array([pool.size for pool in fleet.pools], dtype=np.float64),
        fleet.price_usd_h,
        np.array([pool.offer == "spot" for pool in fleet.pools]),
        left,
        packing.permitted(fleet) & (left > 0),
    )


def claim(
    market: Market, request: NDArray[np.float64], counts: NDArray[np.int64], order: Sequence[int]
) -> tuple[Claims, NDArray[np.int64]]:
    """The nodes to be bought for pods [services], and the pods [services] that no node for sale could hold."""
    resources, pools = market.size.shape[1], len(market.size)
    claims = Claims(np.zeros((0, resources)), np.zeros(0, dtype=np.int64), np.zeros((0, pools), dtype=bool))
    left = counts.copy()
    for service in order:
        if left[service]:
            left[service] = _join(claims, market, request, service, int(left[service]))
            left[service] = _open(claims, market, request, service, int(left[service]))
    return claims, left


def buy(claims: Claims, market: Market) -> tuple[NDArray[np.int64], int]:
    """How many nodes of each pool [pools] the claims are bought as, and how many claims nobody could serve."""
    bought = np.zeros(len(market.size), dtype=np.int64)
    unserved = 0
    for possible in claims.possible:
        options = np.flatnonzero(possible & (bought < market.nodes_left))
        if len(options):
            bought[options[np.argmin(market.price_usd_h[options])]] += 1
        else:
            unserved += 1
    return bought, unserved


def _join(claims: Claims, market: Market, request: NDArray[np.float64], service: int, count: int) -> int:
    """How many of the pods no open claim could take; always the claim with the fewest pods takes the next."""
    if not len(claims):
        return count
    fit = np.array([_fit(market, request, service, *row) for row in zip(claims.asked, claims.possible, strict=True)])
    taken = level(claims.pods, fit, count)
    _take(claims, market, request, service, taken)
    return count - int(taken.sum())


def _open(claims: Claims, market: Market, request: NDArray[np.float64], service: int, count: int) -> int:
    """How many of the pods find no node even if new claims are opened; each new one is filled before the next."""
    anywhere = np.ones(len(market.size), dtype=bool)
    each = _fit(market, request, service, np.zeros(market.size.shape[1]), anywhere)
    if not count or not each:
        return count
    old, new = len(claims), -(-count // each)
    claims.asked = np.concatenate([claims.asked, np.zeros((new, market.size.shape[1]))])
    claims.pods = np.concatenate([claims.pods, np.zeros(new, dtype=np.int64)])
    claims.possible = np.concatenate([claims.possible, np.tile(anywhere, (new, 1))])
    taken = np.zeros(len(claims), dtype=np.int64)
    taken[old:] = packing.fill(np.full(new, each), count)
    _take(claims, market, request, service, taken)
    return 0


def _fit(
    market: Market, request: NDArray[np.float64], service: int, asked: NDArray[np.float64], possible: NDArray[np.bool_]
) -> int:
    """How many more pods of the service the largest possible node could hold."""
    pools = np.flatnonzero(possible & market.allowed[service])
    return int(packing.fitting(market.size[pools] - asked, request[service]).max(initial=0))


def _take(claims: Claims, market: Market, request: NDArray[np.float64], service: int, taken: NDArray[np.int64]) -> None:
    claims.pods = claims.pods + taken
    claims.asked = claims.asked + taken[:, None] * request[service]
    holds = np.all(market.size[None, :, :] + SLACK >= claims.asked[:, None, :], axis=2)
    claims.possible &= holds & (market.allowed[service] | (taken == 0)[:, None])


def level(have: NDArray[np.int64], fit: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of `count` pods each takes when of those with room the one that has the fewest takes the next."""
    low, high = 0, int(have.max(initial=0)) + count + 1
    while low < high - 1:  # the highest level that the pods suffice for
        middle = (low + high) // 2
        if np.clip(middle - have, 0, fit).sum() <= count:
            low = middle
        else:
            high = middle
    taken = np.clip(low - have, 0, fit)
    over = count - int(taken.sum())
    next_up = np.flatnonzero((have + taken == low) & (taken < fit))[:over]
    taken[next_up] += 1
    return taken
