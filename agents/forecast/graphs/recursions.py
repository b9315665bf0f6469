"""Exponential smoothing with fixed parameters as a pure JAX function: a scan over the window.

The state equations are those of Hyndman, Koehler, Ord and Snyder (2008), Forecasting with exponential smoothing:
level and trend move alike for additive and multiplicative errors; only the spread of the errors differs, and with it
the bands. Import this module only where a forecaster is exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from agents.forecast.base import Floats, fitted_to
from agents.forecast.graphs.given import Given, Graph, placed, table_rows
from agents.forecast.statistical import REACH, AutoETS, Fit
from agents.forecast.statistical import Z as NORMAL
from twin.errors import UsageError


def smoothing(forecaster: AutoETS, ids: Sequence[str], h: int) -> Graph:
    """Exponential smoothing, run through the window and on; raises UsageError for a kind that cannot be stated."""
    known = [fitted_to(forecaster.models, i, forecaster.name) for i in ids]
    for unique_id, one in zip(ids, known, strict=True):
        kind = "ANNN" if one.fit is None else one.fit["components"]
        if kind[1] == "M" or kind[2] != "N":
            raise UsageError(
                f"{forecaster.name}: on {unique_id!r} it is {kind} (error, trend, season, damping): a multiplicative "
                "trend or a season cannot be exported; use season=1, or export another forecaster"
            )
    table = np.array([_parameters(one.fit) for one in known])
    growth = np.array([_growth(row, h) for row in table])
    bounds = np.array([[one.low, one.high] for one in known])

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        alpha, beta, phi, begun, free, product, fitted = jnp.moveaxis(table_rows(table.astype(np.float32), given), 1, 0)
        zero = given.last[:, 0] / given.scale[:, 0]  # what must be added to units for values
        level, trend, steps, errors = _through(
            given.unit, (alpha, beta, phi), begun / given.scale[:, 0], zero * product
        )
        said = table_rows(growth.astype(np.float32), given)
        reach, weight = said[:, 0], said[:, 1]
        mean = level[:, None] + trend[:, None] * reach
        variance = (errors / (steps - free - 1.0))[:, None]
        spread = jnp.sqrt(
            jnp.where(
                product[:, None] > 0.0, _product(mean + zero[:, None], variance, weight, h), variance * _summed(weight)
            )
        )
        return _bounded(mean, spread, fitted, jnp.column_stack([placed(bounds, given), -zero]), given.unit)

    return say


def _parameters(fit: Fit | None) -> list[float]:
    """alpha, beta, phi, the trend to start with, free parameters, whether errors multiply, whether there is a fit."""
    if fit is None:
        return [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    alpha, beta, _, phi = np.nan_to_num(fit["par"][:4])
    error, trend, _, damped = fit["components"]
    moving = (beta, fit["states"][-1][1]) if trend == "A" else (0.0, 0.0)
    return [alpha, moving[0], phi if damped == "D" else 1.0, moving[1], fit["n_params"], error == "M", 1.0]


def _growth(row: Floats, h: int) -> Floats:
    """[0]: how many trends lie ahead at each step. [1]: the square of what an error adds so many steps later [2, h]."""
    alpha, beta, phi = row[:3]
    powers = phi ** np.arange(1, h + 1)
    # the mean that statsforecast 2.1.1 says counts the first power of the damping twice; its bands do not
    return np.stack([phi + np.cumsum(powers) - powers, (alpha + beta * np.cumsum(powers)) ** 2])


def _through(unit: Any, smoothing: tuple[Any, Any, Any], begun: Any, zero: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """(level, trend, steps, sum of squared errors) [batch each] after the windows [batch, context].

    They start at the first value with the trend `begun`; `smoothing` is alpha, beta and phi.
    `zero` is 0 for additive errors; multiplicative ones are divided by the forecast, which is `zero` further up.
    """
    alpha, beta, phi = smoothing

    def step(state: tuple[Any, ...], value: Any) -> tuple[tuple[Any, ...], None]:  # noqa: ANN401
        level, trend, steps, errors = state
        known = ~jnp.isnan(value)
        level = jnp.where(steps > 0.0, level, value)
        said = level + phi * trend
        error = value - said
        relative = error / jnp.where(zero == 0.0, 1.0, said + zero)
        new = said + alpha * error, phi * trend + beta * error, steps + 1.0, errors + relative**2
        return tuple(jnp.where(known, a, b) for a, b in zip(new, state, strict=True)), None

    nothing = jnp.zeros_like(alpha)
    return lax.scan(step, (nothing, begun, nothing, nothing), unit.T)[0]


def _summed(weight: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """Variance [batch, h] in those of one error, where errors add."""
    return 1.0 + jnp.cumsum(weight, axis=1) - weight


def _product(mean: Any, variance: Any, weight: Any, h: int) -> Any:  # noqa: ANN401 - JAX arrays
    """Variance [batch, h] where errors multiply: (1 + v) theta - mean^2, rearranged so that nothing cancels."""
    thetas: list[Any] = []
    spread: list[Any] = []
    for k in range(h):
        earlier = sum((weight[:, j] * thetas[k - 1 - j] for j in range(k)), jnp.zeros_like(mean[:, 0]))
        thetas.append(mean[:, k] ** 2 + variance[:, 0] * earlier)
        spread.append(variance[:, 0] * (mean[:, k] ** 2 + (1.0 + variance[:, 0]) * earlier))
    return jnp.stack(spread, axis=1)


def _bounded(mean: Any, spread: Any, fitted: Any, bounds: Any, unit: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """The deciles [batch, h, 9], no further out than `statistical` lets them go.

    `bounds` [batch, 3]: the lowest and highest value of the training part, and zero, in these units.
    """
    h = mean.shape[1]
    low = jnp.minimum(bounds[:, 0], jnp.nanmin(unit, axis=1))[:, None]
    high = jnp.maximum(bounds[:, 1], jnp.nanmax(unit, axis=1))[:, None]
    moves = (jnp.nanmax(unit, axis=1) > jnp.nanmin(unit, axis=1)) & (fitted > 0.0)
    mean = jnp.where(moves[:, None], mean, 0.0)
    spread = jnp.where(moves[:, None], spread, _walk(unit)[:, None] * np.sqrt(np.arange(1, h + 1), dtype=np.float32))
    widest = (1.0 + 2.0 * REACH) * (high - low)
    mean = jnp.where(jnp.isfinite(mean), mean, 0.0)
    spread = jnp.where(jnp.isfinite(spread), jnp.minimum(spread, widest), widest)
    said = mean[:, :, None] + spread[:, :, None] * NORMAL.astype(np.float32)
    reach = REACH * (high - low)
    # what was never negative stays so; zero itself may be missed by rounding
    none = bounds[:, 2:]
    least = jnp.where(low >= none - 1e-6 * jnp.abs(none), jnp.maximum(low - reach, none), low - reach)
    return jnp.clip(said, least[:, :, None], (high + reach)[:, :, None])


def _walk(unit: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """The standard deviation [batch] of the steps that are known."""
    moved = unit[:, 1:] - unit[:, :-1]
    known = ~jnp.isnan(moved)
    count = known.sum(1)
    mean = jnp.where(known, moved, 0.0).sum(1) / count
    return jnp.sqrt(jnp.where(known, (moved - mean[:, None]) ** 2, 0.0).sum(1) / count)
