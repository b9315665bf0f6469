"""What all statistical methods share as graphs: deciles of a normal distribution within honest bounds.

Import this module only where a forecaster is exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from agents.forecast.base import fitted_to
from agents.forecast.graphs.given import Given, Graph, placed, table_rows
from agents.forecast.statistical import REACH
from agents.forecast.statistical import Z as NORMAL

Bounded = Callable[[Given, Any, Any], Any]


def within(known: Sequence[Any]) -> Bounded:
    """Deciles [batch, h, 9] of mean and deviation [batch, h] as `statistical` bounds them, all in units of the window.

    `known` are the models of the series, as a statistical forecaster keeps them.
    """
    bounds = np.array([[one.low, one.high] for one in known])
    fitted = np.array([one.fit is not None for one in known], np.float32)

    def say(given: Given, mean: Any, spread: Any) -> Any:  # noqa: ANN401 - JAX arrays
        h, unit, ends = mean.shape[1], given.unit, placed(bounds, given)
        low = jnp.minimum(ends[:, 0], jnp.nanmin(unit, axis=1))[:, None]
        high = jnp.maximum(ends[:, 1], jnp.nanmax(unit, axis=1))[:, None]
        moves = (jnp.nanmax(unit, axis=1) > jnp.nanmin(unit, axis=1)) & (table_rows(fitted, given) > 0.0)
        mean = jnp.where(moves[:, None], mean, 0.0)
        walk = _walk(unit)[:, None] * np.sqrt(np.arange(1, h + 1), dtype=np.float32)
        spread = jnp.where(moves[:, None], spread, walk)
        widest = (1.0 + 2.0 * REACH) * (high - low)
        mean = jnp.where(jnp.isfinite(mean), mean, 0.0)
        spread = jnp.where(jnp.isfinite(spread), jnp.minimum(spread, widest), widest)
        said = mean[:, :, None] + spread[:, :, None] * NORMAL.astype(np.float32)
        reach = REACH * (high - low)
        # what was never negative stays so; zero itself may be missed by rounding
        none = -given.last / given.scale
        least = jnp.where(low >= none - 1e-6 * jnp.abs(none), jnp.maximum(low - reach, none), low - reach)
        return jnp.clip(said, least[:, :, None], (high + reach)[:, :, None])

    return say


def whole(answer: Graph) -> Graph:
    """The same, NaN for a window that is not whole: it would answer as if its beginning were known."""
    return lambda given: jnp.where(jnp.isnan(given.unit).any(1)[:, None, None], jnp.nan, answer(given))


def models(forecaster: Any, ids: Sequence[str]) -> list[Any]:  # noqa: ANN401 - any statistical forecaster
    """The models of the series; raises UsageError when one was not fitted."""
    return [fitted_to(forecaster.models, i, forecaster.name) for i in ids]


def _walk(unit: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """The standard deviation [batch] of the steps that are known."""
    moved = unit[:, 1:] - unit[:, :-1]
    known = ~jnp.isnan(moved)
    count = known.sum(1)
    mean = jnp.where(known, moved, 0.0).sum(1) / count
    return jnp.sqrt(jnp.where(known, (moved - mean[:, None]) ** 2, 0.0).sum(1) / count)
