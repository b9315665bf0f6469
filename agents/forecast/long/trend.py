"""Change points of level and slope: the exact least-cost partition of a series into straight lines.

Cost: squared error of a line in each segment plus `penalty` for each change. Source: Jackson et al. (2005), An
algorithm for optimal partitioning of data on an interval, IEEE Signal Processing Letters 12; PELT (Killick, Fearnhead
and Eckley 2012, JASA 107) prunes the same search. A few hundred points need no pruning: each step of the search is
one vectorised look at every earlier one.
"""

from __future__ import annotations

import numpy as np

from agents.forecast.frames import Floats


def changes(values: Floats, penalty: float, shortest: int) -> list[int]:
    """Where a new line begins, rising; none where one line is best.

    Args:
        values: the series [n].
        penalty: what a change must save in squared error.
        shortest: points of a segment at least, 2 or more.
    """
    n = len(values)
    sums = _sums(values)
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    before = np.zeros(n + 1, np.int64)
    for end in range(shortest, n + 1):
        starts = np.arange(end - shortest + 1)
        cost = best[starts] + _errors(sums, starts, end) + penalty
        before[end] = int(cost.argmin())
        best[end] = cost[before[end]]
    found, at = [], n
    while before[at] > 0:
        at = int(before[at])
        found.append(at)
    return found[::-1]


def _sums(values: Floats) -> Floats:
    """Sums of 1, t, t², y, ty, y² up to each point [n + 1, 6]."""
    t = np.arange(len(values), dtype=np.float64) - len(values) / 2
    y = values - values.mean()
    terms = np.stack([np.ones_like(t), t, t * t, y, t * y, y * y], axis=1)
    return np.concatenate([np.zeros((1, 6)), terms.cumsum(axis=0)])


def _errors(sums: Floats, starts: np.ndarray, end: int) -> Floats:
    """The squared error of the best line over [start, end) for each start."""
    n, t, tt, y, ty, yy = (sums[end] - sums[starts]).T
    spread_t, spread_y, together = tt - t * t / n, yy - y * y / n, ty - t * y / n
    return np.maximum(spread_y - together**2 / np.maximum(spread_t, 1e-12), 0.0)


def damped(steps: Floats, memory: float) -> Floats:
    """How far a slope of 1 a step has carried after `steps`, when it fades with e^(-1/memory) a step.

    Source: the damped trend of Gardner and McKenzie (1985), Management Science 31, in continuous time.
    """
    return -memory * np.expm1(-steps / memory)
