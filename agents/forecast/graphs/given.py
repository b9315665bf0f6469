"""A past as the graph of a forecaster takes it: float32, in units of its own window.

Values are `last + scale x unit`, taken in float64 outside of a graph, so a series of large values and small movements
loses nothing. Import this module only where a forecaster is exported or differentiated: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.forecast.base import Past

_NO_LOOKS: Mapping[Any, Any] = MappingProxyType({})


class Given(NamedTuple):
    """A past as a graph takes it, float32.

    Attributes:
        unit: (y - last) / scale [batch, context]; NaN where a series is younger.
        last: the last value [batch, 1].
        fine: what float32 left out of it [batch, 1].
        scale: the spread of y, see `scaled` [batch, 1].
        seen: minus its last row [batch, context, columns].
        known: [batch, context + h, columns].
        static: [batch, columns].
        series: the position of each row's series among those that were exported [batch].
        looks: what networks see, by their view, where it was worked out before (`looks.doubled`).
    """

    unit: Any
    last: Any
    fine: Any
    scale: Any
    seen: Any
    known: Any
    static: Any
    series: Any
    looks: Mapping[Any, Any] = _NO_LOOKS

    def of(self, context: int, h: int) -> Given:
        """The same with `context` steps of history, for a member that looks less far back."""
        start = self.unit.shape[1] - context
        known = self.known[:, start : start + context + h]
        return self._replace(unit=self.unit[:, start:], seen=self.seen[:, start:], known=known)


Graph = Callable[[Given], Any]  # deciles [batch, h, 9] in units of the window


def scaled(y: Any, seen: Any) -> tuple[Any, ...]:  # noqa: ANN401 - JAX arrays
    """(unit, last, fine, scale, seen) of `Given`: all that happens in float64 before a graph.

    The scale is the standard deviation of the known steps, at least 0.1 % of the last value, as in
    `frames.normalise`.
    """
    last = y[:, -1][:, None]  # a slice of a single step would be the input itself, which a graph cannot name twice
    young = jnp.isnan(y)
    moved = jnp.where(young, 0.0, y - last)
    count = jnp.where(young, 0.0, 1.0).sum(1, keepdims=True)
    mean = moved.sum(1, keepdims=True) / count
    spread = jnp.sqrt(jnp.where(young, 0.0, (moved - mean) ** 2).sum(1, keepdims=True) / count)
    scale = jnp.maximum(spread, 1e-3 * jnp.abs(last) + 1e-12)
    fine = last - last.astype(jnp.float32).astype(jnp.float64)
    return (y - last) / scale, last, fine, scale, seen - seen[:, -1:]


def given(past: Past) -> Given:
    """A past as a graph takes it, every row of the first series that was exported."""
    with jax.enable_x64():
        double = [np.asarray(each) for each in scaled(jnp.asarray(past.y), jnp.asarray(past.seen))]
    rest = (past.known, past.static, np.zeros(len(past.ids)))
    return Given(*(jnp.asarray(each, jnp.float32) for each in (*double, *rest)), looks=_NO_LOOKS)


def table_rows(table: np.ndarray, given: Given) -> Any:  # noqa: ANN401 - a JAX array
    """The row of each row's series in a table [series, ...]."""
    return jnp.asarray(table)[given.series.astype(jnp.int32)]


def placed(values: np.ndarray, given: Given) -> Any:  # noqa: ANN401 - a JAX array
    """Values [series, ...] of each row's series in units of the window, exact where they lie near its last value."""
    high = values.astype(np.float32)
    low = (values - high).astype(np.float32)
    shape = (-1, *[1] * (values.ndim - 1))
    last, fine, scale = (each.reshape(shape) for each in (given.last, given.fine, given.scale))
    return ((table_rows(high, given) - last) + (table_rows(low, given) - fine)) / scale
