"""Forecasts that add up: over machines, pools and the cell, and over 5 min, hours, days and weeks.

Every node's forecast is made on its own and then projected onto what can be true: x = S P x, with S from bottom to all
and P chosen by hierarchicalforecast (bottom-up, or MinTrace: Wickramasuriya, Athanasopoulos and Hyndman 2019, JASA
114). The projection is linear, so it is done for the point forecasts and for drawn futures alike: a drawn future adds
up exactly, in every draw. What adds up is the point forecast and the mean of the draws; deciles of sums are not sums
of deciles, and are read from the draws.

The draws keep the nodes together as their errors were together: each takes the ranks of one past origin's errors in
all nodes (the Schaake shuffle, Clark et al. 2004, J. Hydrometeorology 5: an empirical copula) and reads each node's
own quantiles there. Projecting them: Panagiotelis et al. (2023), European Journal of Operational Research 306.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from agents.forecast.base import DECILES, MEDIAN
from agents.forecast.frames import Floats
from twin.errors import UsageError

METHODS = ("bottom_up", "ols", "wls_struct", "wls_var", "mint_shrink")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Which nodes add up to which.

    Attributes:
        nodes: names, aggregates first, from the top down; the bottom nodes are the last.
        sums: 1 where a bottom node is part of a node [nodes, bottom].
        levels: the rows of each level, from the top down.
    """

    nodes: tuple[str, ...]
    sums: Floats
    levels: Mapping[str, slice]

    @property
    def bottom(self) -> int:
        """How many bottom nodes there are."""
        return self.sums.shape[1]

    def aggregate(self, bottom: Floats) -> Floats:
        """Values of all nodes [nodes, ...] from those of the bottom nodes [bottom, ...]."""
        return np.tensordot(self.sums, bottom, axes=1)


def hierarchy(paths: Mapping[str, Sequence[str]], levels: Sequence[str]) -> Hierarchy:
    """The hierarchy of bottom nodes that say what they belong to.

    Args:
        paths: for each bottom node its aggregates from the top down: `{"vm-7": ("cell", "pool-b")}`.
        levels: the names of the levels from the top down, the bottom one last: `("cell", "pool", "machine")`.

    Raises:
        UsageError: a path of another length, or one aggregate below two different ones.
    """
    wrong = [name for name, path in paths.items() if len(path) != len(levels) - 1]
    if wrong or not paths:
        raise UsageError(f"hierarchy: {wrong or 'no bottom nodes'}; each needs {len(levels) - 1} aggregates: {levels}")
    full = [(*path, name) for name, path in paths.items()]
    parents: dict[tuple[int, str], str] = {}
    for path in full:
        for depth in range(1, len(path)):
            above = parents.setdefault((depth, path[depth]), path[depth - 1])
            if above != path[depth - 1]:
                raise UsageError(f"hierarchy: {path[depth]!r} is part of both {above!r} and {path[depth - 1]!r}")
    nodes: list[str] = []
    rows: list[Floats] = []
    spans: dict[str, slice] = {}
    for depth, level in enumerate(levels):
        names = list(dict.fromkeys(path[depth] for path in full))
        spans[level] = slice(len(nodes), len(nodes) + len(names))
        rows += [np.array([float(path[depth] == name) for path in full]) for name in names]
        nodes += names
    return Hierarchy(tuple(nodes), np.stack(rows), spans)


def temporal(lengths: Mapping[str, int]) -> Hierarchy:
    """The hierarchy of one span of time: `{"day": 24, "6 h": 6, "hour": 1}` in steps, the first one the whole span.

    Raises UsageError when a length does not divide the one before it, or the last is not 1.
    """
    names, steps = list(lengths), list(lengths.values())
    if not steps or steps[-1] != 1 or any(a % b for a, b in pairwise(steps)):
        raise UsageError(f"temporal: each length must divide the one before it, down to 1; got {dict(lengths)}")
    rows, nodes, spans = [], [], {}
    for name, length in zip(names, steps, strict=True):
        count = steps[0] // length
        spans[name] = slice(len(nodes), len(nodes) + count)
        rows.append(np.repeat(np.eye(count), length, axis=1))
        nodes += [f"{name} {k + 1}" for k in range(count)]
    return Hierarchy(tuple(nodes), np.concatenate(rows), spans)


def projection(tree: Hierarchy, method: str, errors: Floats | None = None) -> Floats:
    """The matrix S P [nodes, nodes] that makes forecasts add up and leaves alone those that do.

    Args:
        tree: what adds up.
        method: one of `METHODS`; the last two weigh nodes by their errors.
        errors: past one-step errors of the nodes' forecasts [nodes, times], for "wls_var" and "mint_shrink".

    Raises:
        UsageError: an unknown method, or one that needs errors without them.
    """
    if method not in METHODS or (method in METHODS[3:] and errors is None):
        raise UsageError(f"projection: method={method!r} must be one of {METHODS}; the last two need past errors")
    from hierarchicalforecast.methods import BottomUp, MinTrace

    model: Any = BottomUp() if method == "bottom_up" else MinTrace(method=method)
    told = np.zeros_like(tree.sums[:, :1]) if errors is None else errors
    given: dict[str, Any] = {"S": tree.sums, "y_hat": np.zeros((len(tree.nodes), 1))}
    if method in METHODS[3:]:
        given |= {"y_insample": told, "y_hat_insample": np.zeros_like(told)}
    fitted = model.fit(**given)
    return tree.sums @ np.asarray(fitted.P, np.float64)


@dataclass(frozen=True, slots=True)
class Coherent:
    """Forecasts that add up.

    Attributes:
        point: the reconciled medians of the nodes' own forecasts [nodes, h]; they add up.
        draws: futures [draws, nodes, h]; each adds up, and so does their mean.
        said: deciles of the draws [nodes, h, 9].
    """

    point: Floats
    draws: Floats
    said: Floats


def reconciled(tree: Hierarchy, said: Floats, errors: Floats, matrix: Floats, *, least: float = -np.inf) -> Coherent:
    """Forecasts of all nodes, made to add up.

    Args:
        tree: what adds up.
        said: deciles of the nodes' own forecasts [nodes, h, 9].
        errors: their errors at past origins [origins, nodes, h], which say how the nodes err together; one draw for
            each origin, so take fifty or more.
        matrix: of `projection`.
        least: no bottom node goes below; 0 for what cannot be negative.

    Raises:
        UsageError: shapes that do not fit together.
    """
    nodes, h = said.shape[:2]
    if matrix.shape != (nodes, nodes) or errors.shape[1:] != (nodes, h) or nodes != len(tree.nodes):
        raise UsageError(
            f"reconciled: {len(tree.nodes)} nodes; deciles of {nodes} nodes and {h} steps, errors "
            f"{list(errors.shape)}, matrix {list(matrix.shape)}"
        )
    below = matrix[-tree.bottom :]
    # the nodes above are summed from the bottom ones once more: exact, and right after the floor as well
    point = tree.sums @ np.maximum(below @ said[..., MEDIAN], least)
    draws = tree.sums @ np.maximum(below @ _shuffled(said, errors), least)
    return Coherent(point, draws, np.moveaxis(np.quantile(draws, DECILES, axis=0), 0, -1))


def _shuffled(said: Floats, errors: Floats) -> Floats:
    """Draws [draws, nodes, h] with the nodes' own deciles, in the order that their past errors had."""
    count = len(errors)
    rank = errors.argsort(axis=0).argsort(axis=0)
    levels = (np.arange(count) + 0.5) / count
    return np.take_along_axis(_quantiles(said, levels), rank, axis=0)


def _quantiles(said: Floats, levels: Floats) -> Floats:
    """Quantiles [levels, nodes, h] between the deciles, and beyond them with tails as wide as a normal's."""
    from scipy.special import ndtri

    z, known = ndtri(levels), ndtri(DECILES)
    place = np.clip(np.searchsorted(known, z) - 1, 0, len(known) - 2)
    low, high = said[..., place], said[..., place + 1]
    share = (z - known[place]) / (known[place + 1] - known[place])
    return np.moveaxis(low + share * (high - low), -1, 0)
