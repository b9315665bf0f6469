"""Theta with fixed parameters as a pure JAX function of whole windows: the season taken out, then a scan.

Theta moves with the level of what it is given, so it is run in units of the window; see `statistical.AutoTheta` for
the source. Import this module only where a forecaster is exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from agents.forecast.base import Floats
from agents.forecast.graphs.bounds import models, whole, within
from agents.forecast.graphs.decompositions import classical
from agents.forecast.graphs.given import Given, Graph, table_rows
from agents.forecast.statistical import AutoTheta, Fit, theta_growth


class _State(NamedTuple):
    """After `i` steps: level, mean, slope and intercept of the line, and (1 - alpha) ** i [batch each]."""

    level: Any
    mean: Any
    slope: Any
    intercept: Any
    faded: Any
    i: Any


def theta(forecaster: AutoTheta, ids: Sequence[str], h: int) -> Graph:
    """Theta, with a season or without; of whole windows only."""
    known, steps = models(forecaster, ids), forecaster.context
    table = np.array([_parameters(one.fit) for one in known], np.float32)
    growth = np.array([_growth(one.fit, steps, h) for one in known], np.float32)
    bounded, seasonal = within(known), bool(table[:, 3:].any())

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        *settings, product, added = jnp.moveaxis(table_rows(table, given), 1, 0)
        unit, zero = given.unit, given.last / given.scale
        factor = offset = jnp.zeros((1, steps + h), jnp.float32)
        if seasonal:
            factor, offset = _season(unit, zero, forecaster.season, h, product[:, None] > 0.0, added[:, None] > 0.0)
        rest = unit - offset[:, :steps]
        rest = rest - (rest + zero) * factor[:, :steps] / (1.0 + factor[:, :steps])
        level, error = _through(rest, tuple(settings), h)
        ahead = factor[:, steps:]
        spread = error[:, None] * table_rows(growth, given) * (1.0 + ahead)
        return bounded(given, level + (level + zero) * ahead + offset[:, steps:], spread)

    return whole(say)


def _parameters(fit: Fit | None) -> list[float]:
    """alpha, theta, whether the line follows the values, whether there is a season that multiplies, or adds."""
    if fit is None:
        return [0.5, 2.0, 0.0, 0.0, 0.0]
    has, adds = bool(fit.get("decompose", False)), fit.get("decomposition_type") == "additive"
    dynamic = fit["modeltype"] in ("DSTM", "DOTM")
    return [fit["par"]["alpha"], fit["par"]["theta"], dynamic, has and not adds, has and adds]


def _growth(fit: Fit | None, steps: int, h: int) -> Floats:
    return np.ones(h) if fit is None else theta_growth(fit["par"]["alpha"], fit["par"]["theta"], steps, h)


def _season(unit: Any, zero: Any, season: int, h: int, product: Any, added: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Factor less 1 and offset [batch, steps + h] of the season; where a product cannot be, it adds."""
    steps = unit.shape[1]
    times = classical(unit, zero, season, multiplicative=True)
    plus = classical(unit, zero, season, multiplicative=False)
    places = np.concatenate([np.arange(steps), steps - season + np.arange(h) % season])
    adds = added | (product & ~times.able[:, None])
    factor = jnp.where(product & times.able[:, None], times.along(steps), 0.0)
    offset = jnp.where(adds, plus.along(steps), 0.0)
    return factor[:, places], offset[:, places]


def _through(unit: Any, settings: tuple[Any, Any, Any], h: int) -> tuple[Any, Any]:  # noqa: ANN401 - JAX arrays
    """The mean [batch, h] after windows [batch, steps], and the deviation [batch] of their errors."""
    alpha, angle, dynamic = settings
    steps, first = unit.shape[1], unit[:, 0]
    place = np.arange(1, steps + 1) - (steps + 1) / 2
    slope = unit @ (place / (place**2).sum()).astype(np.float32)
    intercept = unit.mean(1) - slope * (steps + 1) / 2
    follows = dynamic > 0.0

    def said(state: _State) -> Any:  # noqa: ANN401
        line = state.intercept * state.faded + state.slope * (1.0 - state.faded * (1.0 - alpha)) / alpha
        return state.level + (1.0 - 1.0 / angle) * line

    def moved(state: _State, value: Any) -> _State:  # noqa: ANN401
        i = state.i
        mean = (i * state.mean + value) / (i + 1.0)
        own = ((i - 1.0) * state.slope + 6.0 * (value - state.mean) / (i + 1.0)) / (i + 2.0)
        return _State(
            alpha * value + (1.0 - alpha) * state.level,
            mean,
            jnp.where(follows, own, state.slope),
            jnp.where(follows, mean - own * (i + 2.0) / 2.0, state.intercept),
            state.faded * (1.0 - alpha),
            i + 1.0,
        )

    def step(state: _State, value: Any) -> tuple[_State, Any]:  # noqa: ANN401
        return moved(state, value), value - said(state)

    begun = _State(
        alpha * first + (1.0 - alpha) * first / angle,
        first,
        jnp.where(follows, 0.0, slope),
        jnp.where(follows, first, intercept),
        1.0 - alpha,
        jnp.ones_like(alpha),
    )
    state, errors = lax.scan(step, begun, unit[:, 1:].T)
    errors = errors[2:]  # those that the start explains are left out, as in the original
    spread = jnp.sqrt(((errors - errors.mean(0)) ** 2).sum(0) / (steps - 4))
    ahead = []
    for _ in range(h):
        ahead.append(said(state))
        state = moved(state, ahead[-1])
    return jnp.stack(ahead, axis=1), spread
