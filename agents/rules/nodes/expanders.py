"""Which pool grows for pending pods: the Cluster Autoscaler's estimator and its expanders, as pure functions.

Source: `estimator/binpacking_estimator.go` and `expander/` of kubernetes/autoscaler (1.34); the price expander follows
`proposals/pricing.md` there. Options that an expander finds equally good go to the next one of its list, and in the
end a draw decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from agents.rules.nodes.packing import by_share, fill, fitting
from twin.errors import UsageError

Expander = Literal["random", "most-pods", "least-waste", "least-nodes", "price", "priority"]

# what a pod costs by what it asks for, in the price model of Compute Engine: USD/h of a core and of a GiB
_CORE_USD_H, _GIB_USD_H = 0.033174, 0.004446
_STABLE_USD_H = 0.5 * _CORE_USD_H + 500 / 1024 * _GIB_USD_H
# the size of node that suits a cluster of up to so many nodes; it doubles when the cluster grows threefold
_PREFERRED_CORES = ((2, 1.0), (6, 2.0), (20, 4.0), (60, 8.0), (200, 16.0), (math.inf, 32.0))


@dataclass(frozen=True, slots=True)
class Option:
    """One way to help pending pods: `nodes` more nodes in `pool`, for `pods` of them that ask for `asked` in all."""

    pool: str
    nodes: int
    pods: int
    asked: NDArray[np.float64]  # [resources]
    size: NDArray[np.float64]  # of one node [resources]
    price_usd_h: float  # of one node


def estimate(
    size: NDArray[np.float64], request: NDArray[np.float64], counts: NDArray[np.int64], most_nodes: int
) -> tuple[int, NDArray[np.int64]]:
    """How many new nodes the pods need, and how many pods of each service [services] they then hold.

    First-fit decreasing, by the share of a node that a pod takes; at most `most_nodes` are opened.

    Args:
        size: of one node [resources].
        request: of one pod [services, resources].
        counts: pods of each service that may run there [services].
        most_nodes: bound on the nodes.
    """
    free = np.empty((0, size.size))
    placed = np.zeros_like(counts)
    for service in by_share(request, size):
        each = int(fitting(size[None, :], request[service])[0])
        wanted = int(counts[service])
        if wanted == 0 or each == 0:
            continue
        missing = wanted - int(fill(fitting(free, request[service]), wanted).sum())
        more = min(-(-missing // each), most_nodes - len(free))
        free = np.concatenate([free, np.tile(size, (more, 1))])
        taken = fill(fitting(free, request[service]), wanted)
        free -= taken[:, None] * request[service]
        placed[service] = taken.sum()
    return len(free), placed


def choose(
    options: Sequence[Option],
    expanders: Sequence[Expander],
    rng: np.random.Generator,
    *,
    cluster_nodes: int = 0,
    priorities: Mapping[str, int] | None = None,
) -> Option:
    """The option that the expanders agree on; each of them narrows down what the one before left.

    Args:
        options: at least one.
        expanders: their names, the first one asked first.
        rng: draws among what is left.
        cluster_nodes: nodes in the cluster, for "price".
        priorities: of pools by name, the highest wins, for "priority"; pools that are not named have none, and
            where no pool has one all are equal.
    """
    left = list(options)
    for expander in expanders:
        scores = [_score(expander, option, cluster_nodes, priorities or {}) for option in left]
        left = [option for option, score in zip(left, scores, strict=True) if score == min(scores)]
    return left[0] if len(left) == 1 else left[int(rng.integers(len(left)))]


def check(expanders: Sequence[str]) -> None:
    """Raise UsageError for an expander that does not exist, or none at all."""
    known = get_args(Expander)
    unknown = [expander for expander in expanders if expander not in known]
    if unknown or not expanders:
        raise UsageError(f"expander {unknown or list(expanders)}: choose one or several of {list(known)}")


def waste(option: Option) -> float:
    """The unused share of the new nodes, of CPU and memory added (0 to 2)."""
    offered = option.size * option.nodes
    return float(((offered - option.asked) / offered).sum())


def price_score(option: Option, cluster_nodes: int) -> float:
    """How badly the option's money is spent: price over worth, times how ill its nodes suit a cluster of that size.

    The penalty for ill-suited nodes fades as more of them are added at once.
    """
    worth = float(option.asked @ (_CORE_USD_H, _GIB_USD_H))
    price = (option.price_usd_h * option.nodes + _STABLE_USD_H) / (worth + _STABLE_USD_H)
    preferred = next(cores for nodes, cores in _PREFERRED_CORES if cluster_nodes <= nodes)
    ratio = preferred / float(option.size[0])
    unfit = max(ratio, 1.0 / ratio)
    return ((unfit - 1.0) * (1.0 - math.tanh((option.nodes - 1) / 15.0)) + 1.0) * price


def _score(expander: str, option: Option, cluster_nodes: int, priorities: Mapping[str, int]) -> float:
    """What the expander wants to be small."""
    match expander:
        case "most-pods":
            return -option.pods
        case "least-waste":
            return waste(option)
        case "least-nodes":
            return option.nodes
        case "price":
            return price_score(option, cluster_nodes)
        case "priority":
            return -priorities[option.pool] if option.pool in priorities else math.inf
        case _:
            return 0.0
