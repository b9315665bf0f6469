"""Which node takes a replica: placement rules of the mirrored cluster's own scheduler.

`free` is [nodes, resources] with -1 where a node is not up; a request fits where every resource has room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def _fits(free: NDArray[np.float64], request: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.all(free >= request - 1e-9, axis=1)


@dataclass(frozen=True, slots=True)
class FirstFit:
    """The first node with room."""

    def choose(self, free: NDArray[np.float64], request: NDArray[np.float64]) -> int:
        """The lowest index of a node that fits, or -1."""
        fits = _fits(free, request)
        index = int(fits.argmax())
        return index if fits[index] else -1


@dataclass(frozen=True, slots=True)
class MostAllocated:
    """The fullest node with room (best fit; kube-scheduler's MostAllocated): packs, so that nodes can be given back."""

    def choose(self, free: NDArray[np.float64], request: NDArray[np.float64]) -> int:
        """The index of the fitting node with the least free CPU, or -1."""
        fits = _fits(free, request)
        return int(np.argmin(np.where(fits, free[:, 0], np.inf))) if fits.any() else -1


@dataclass(frozen=True, slots=True)
class LeastAllocated:
    """The emptiest node with room (worst fit; kube-scheduler's LeastAllocated): spreads the risk of a node failure."""

    def choose(self, free: NDArray[np.float64], request: NDArray[np.float64]) -> int:
        """The index of the fitting node with the most free CPU, or -1."""
        fits = _fits(free, request)
        return int(np.argmax(np.where(fits, free[:, 0], -np.inf))) if fits.any() else -1
