"""Seasons taken out of whole windows, and carried on: MSTL as one matrix, the classical decomposition as it is.

Import this module only where a forecaster is exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from agents.forecast.graphs.bounds import models, whole, within
from agents.forecast.graphs.given import Given, Graph, table_rows
from agents.forecast.graphs.recursions import smoothed
from agents.forecast.seasons import mstl, repeated
from agents.forecast.statistical import MSTL

_LEAST_FACTOR = 0.01  # as `seasons.classical` has it
_ROUNDING = 1e-6  # of the level: a value as near to zero may be zero


def decomposed(forecaster: MSTL, ids: Sequence[str], h: int) -> Graph:
    """MSTL and what it leaves by exponential smoothing; of whole windows only.

    STL is linear, so all of it is a matrix [context, context], worked out here once: 16 MB for a week of 5 min steps.
    """
    known = models(forecaster, ids)
    run, bounded = smoothed([one.fit for one in known], h), within(known)
    held = [tuple(one.fit["seasons"]) if one.fit else None for one in known]
    kinds = sorted({each for each in held if each is not None})
    maps = [_maps(forecaster.context, seasons, h) for seasons in kinds]
    which = np.array([0 if each is None else kinds.index(each) for each in held], np.float32)

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        rest, ahead = given.unit, jnp.zeros((1, h), jnp.float32)
        for k, (seasonal, coming) in enumerate(maps):
            mine = (table_rows(which, given) == k)[:, None]
            rest = jnp.where(mine, given.unit - given.unit @ seasonal, rest)
            ahead = jnp.where(mine, given.unit @ coming, ahead)
        mean, spread = run(given, rest)
        return bounded(given, mean + ahead, spread)

    return whole(say)


def _maps(steps: int, seasons: tuple[int, ...], h: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What makes a window [steps] its seasonal part [steps, steps], and that of the next steps [steps, h]."""
    parts = mstl(np.eye(steps), seasons)
    ahead = [repeated(part[:, -season:], h) for part, season in zip(parts, seasons, strict=True)]
    return parts.sum(axis=0).astype(np.float32), np.sum(ahead, axis=0).astype(np.float32)


class Pattern(NamedTuple):
    """A season as `seasons.classical` finds it in whole windows.

    Attributes:
        swing: from the first step of the window on [batch, season], in units of the window: less 1 where it multiplies.
        able: whether there is such a season [batch]; where there is none it is all zeros.
    """

    swing: Any
    able: Any

    def along(self, steps: int) -> Any:  # noqa: ANN401 - a JAX array
        """The swing at each of the first `steps` steps [batch, steps]."""
        return jnp.tile(self.swing, (1, -(-steps // self.swing.shape[1])))[:, :steps]


def classical(unit: Any, zero: Any, season: int, *, multiplicative: bool) -> Pattern:  # noqa: ANN401 - JAX arrays
    """The season of windows [batch, steps] in units, whose values are `zero` [batch, 1] further up."""
    trend, start = _centred_average(unit, season)
    inner = unit[:, start : start + trend.shape[1]]
    rest = (inner - trend) / (trend + zero) if multiplicative else inner - trend
    cycles = -(-(start + rest.shape[1]) // season)
    spare = cycles * season - start - rest.shape[1]
    counts = np.bincount(np.arange(start, start + rest.shape[1]) % season, minlength=season).astype(np.float32)
    means = jnp.pad(rest, ((0, 0), (start, spare))).reshape(-1, cycles, season).sum(1) / counts
    mean = means.mean(1, keepdims=True)
    if not multiplicative:
        return Pattern(means - mean, jnp.ones_like(zero[:, 0]) > 0.0)
    swing = (means - mean) / (1.0 + mean)
    positive = unit.min(1) + zero[:, 0] > _ROUNDING * jnp.abs(zero[:, 0])
    able = positive & (swing.min(1) >= _LEAST_FACTOR - 1.0)
    return Pattern(jnp.where(able[:, None], swing, 0.0), able)


def _centred_average(unit: Any, season: int) -> tuple[Any, int]:  # noqa: ANN401 - a JAX array
    """As `seasons.classical` averages over one season around each step that has one, and the first such step."""
    total = jnp.cumsum(jnp.pad(unit, ((0, 0), (1, 0))), axis=1)
    average = (total[:, season:] - total[:, :-season]) / season
    if season % 2 == 0:
        average = (average[:, 1:] + average[:, :-1]) / 2.0
    return average, season // 2
