"""What node controllers read of a fleet, pool by pool, and what they say of pools that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from twin.errors import PolicyError
from twin.fleet import BOOTING, FAILED, UP, Fleet
from twin.types import Action, Observation


def look(observation: Observation, controller: str) -> Fleet:
    """The single nodes and pods as of now; raises PolicyError where the plant does not show them."""
    if observation.fleet is None:
        raise PolicyError(
            f"controller {controller!r} looks at single nodes and pods, but this plant shows no fleet; "
            "run it on one whose observations have a fleet, such as the twin"
        )
    return observation.fleet()


def pool_places(fleet: Fleet, names: Sequence[str], controller: str) -> list[int]:
    """The places of the pools of these names; raises PolicyError for a name that the cluster does not have."""
    known = [pool.name for pool in fleet.pools]
    missing = [name for name in names if name not in known]
    if missing:
        raise PolicyError(f"controller {controller!r}: the cluster has no pool {missing}; its pools are {known}")
    return [known.index(name) for name in names]


def in_state(fleet: Fleet, *states: int) -> NDArray[np.intp]:
    """The places of the nodes in one of the states, the states in the order given."""
    return np.concatenate([np.flatnonzero(fleet.node_state == state) for state in states])


def number(fleet: Fleet, pool: int, *states: int) -> int:
    """How many nodes of the pool are in one of the states."""
    return len(fleet.nodes_of(pool, *states))


def undelivered(fleet: Fleet, pool: int) -> int:
    """How many nodes the pool was asked for and shows no sign of."""
    return max(int(fleet.nodes_wanted[pool]) - number(fleet, pool, BOOTING, UP, FAILED), 0)


def held(fleet: Fleet, pools: Sequence[int], done: Sequence[Action], why: Mapping[int, str]) -> list[Action]:
    """For each of the pools (places in the fleet) that nothing is `done` to: its wished number, and `why` it stays."""
    touched = {action.target for action in done}
    going = {int(fleet.node_pool[n]) for n, name in enumerate(fleet.node_name) if name in touched}
    kept = [pool for pool in pools if pool not in going and fleet.pools[pool].name not in touched]
    wanted = fleet.nodes_wanted
    return [Action("nodes", fleet.pools[p].name, int(wanted[p]), f"kept at {wanted[p]}: {why[p]}") for p in kept]


def counted(number: int, noun: str) -> str:
    """The number and the noun, in the plural where it takes one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
