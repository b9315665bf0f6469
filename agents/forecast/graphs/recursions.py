"""Exponential smoothing with fixed parameters as a pure JAX function: a scan over the window.

The state equations are those of Hyndman, Koehler, Ord and Snyder (2008), Forecasting with exponential smoothing:
level and trend move alike for additive and multiplicative errors; only the spread of the errors differs, and with it
the bands. Import this module only where a forecaster is exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from agents.forecast.base import Floats
from agents.forecast.graphs.bounds import models, within
from agents.forecast.graphs.given import Given, Graph, table_rows
from agents.forecast.statistical import AutoETS, Fit

Smoothed = Callable[[Given, Any], tuple[Any, Any]]


def smoothing(forecaster: AutoETS, ids: Sequence[str], h: int) -> Graph:
    """Exponential smoothing without a season, run through the window and on."""
    known = models(forecaster, ids)
    run, bounded = smoothed([one.fit for one in known], h), within(known)
    return lambda given: bounded(given, *run(given, given.unit))


def smoothed(fits: Sequence[Fit | None], h: int) -> Smoothed:
    """Mean and deviation [batch, h] after windows [batch, context] in units of the given one (NaN: not yet begun)."""
    table = np.array([parameters(fit) for fit in fits])
    growth = np.array([grown(row, h) for row in table])

    def say(given: Given, unit: Any) -> tuple[Any, Any]:  # noqa: ANN401 - JAX arrays
        alpha, beta, phi, begun, free, product, _ = jnp.moveaxis(table_rows(table.astype(np.float32), given), 1, 0)
        zero = given.last[:, 0] / given.scale[:, 0]  # what must be added to units for values
        by = jnp.where(product > 0.0, zero, jnp.nan)
        level, trend, steps, errors = _through(unit, (alpha, beta, phi), begun / given.scale[:, 0], by)
        reach, weight = jnp.moveaxis(table_rows(growth.astype(np.float32), given), 1, 0)
        mean = level[:, None] + trend[:, None] * reach
        variance = (errors / (steps - free - 1.0))[:, None]
        return mean, deviation(mean + zero[:, None], variance, weight, product)

    return say


def parameters(fit: Fit | None) -> list[float]:
    """alpha, beta, phi, the trend to start with, free parameters, whether errors multiply, gamma; zeros for no fit."""
    if fit is None:
        return [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    alpha, beta, gamma, phi = np.nan_to_num(fit["par"][:4])
    error, trend, _, damped = fit["components"]
    moving = (beta, fit["states"][-1][1]) if trend == "A" else (0.0, 0.0)
    return [alpha, moving[0], phi if damped == "D" else 1.0, moving[1], fit["n_params"], error == "M", gamma]


def grown(row: Floats, h: int) -> Floats:
    """[0]: how many trends lie ahead at each step. [1]: the square of what an error adds so many steps later [2, h]."""
    alpha, beta, phi = row[:3]
    powers = phi ** np.arange(1, h + 1)
    # the mean that statsforecast 2.1.1 says counts the first power of the damping twice; its bands do not
    return np.stack([phi + np.cumsum(powers) - powers, (alpha + beta * np.cumsum(powers)) ** 2])


def deviation(mean: Any, variance: Any, weight: Any, product: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """The standard deviation [batch, h] around `mean` (values): of one error [batch, 1], and what it adds later."""
    # variance in those of one error, where errors add
    summed = 1.0 + jnp.cumsum(weight, axis=1) - weight
    return jnp.sqrt(jnp.where(product[:, None] > 0.0, _product(mean, variance, weight), variance * summed))


def _through(unit: Any, smoothing: tuple[Any, Any, Any], begun: Any, zero: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """(level, trend, steps, sum of squared errors) [batch each] after the windows [batch, context].

    They start at the first value with the trend `begun`; `smoothing` is alpha, beta and phi.
    `zero` is NaN for additive errors; multiplicative ones are divided by the forecast, which is `zero` further up.
    """
    alpha, beta, phi = smoothing

    def step(state: tuple[Any, ...], value: Any) -> tuple[tuple[Any, ...], None]:  # noqa: ANN401
        level, trend, steps, errors = state
        known = ~jnp.isnan(value)
        level = jnp.where(steps > 0.0, level, value)
        said = level + phi * trend
        error = value - said
        relative = error / jnp.where(jnp.isnan(zero), 1.0, said + zero)
        new = said + alpha * error, phi * trend + beta * error, steps + 1.0, errors + relative**2
        return tuple(jnp.where(known, a, b) for a, b in zip(new, state, strict=True)), None

    nothing = jnp.zeros_like(alpha)
    return lax.scan(step, (nothing, begun, nothing, nothing), unit.T)[0]


def _product(mean: Any, variance: Any, weight: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """Variance [batch, h] where errors multiply: (1 + v) theta - mean^2, rearranged so that nothing cancels."""
    thetas: list[Any] = []
    spread: list[Any] = []
    for k in range(mean.shape[1]):
        earlier = sum((weight[:, j] * thetas[k - 1 - j] for j in range(k)), jnp.zeros_like(mean[:, 0]))
        thetas.append(mean[:, k] ** 2 + variance[:, 0] * earlier)
        spread.append(variance[:, 0] * (mean[:, k] ** 2 + (1.0 + variance[:, 0]) * earlier))
    return jnp.stack(spread, axis=1)
