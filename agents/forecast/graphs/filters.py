"""ARIMA with fixed parameters as what it is in whole windows of one length: a weighted sum of their values.

The gains of a Kalman filter do not depend on the values, so neither do the weights of the values in its forecast; the
filter is run here once, in float64, and its weights are found by going back from the forecast. Source: Durbin and
Koopman (2012), Time series analysis by state space methods, sections 4.3 and 4.8. Import this module only where a
forecaster is exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from agents.forecast.base import Floats
from agents.forecast.graphs.bounds import models, whole, within
from agents.forecast.graphs.given import Given, Graph, placed, table_rows
from agents.forecast.statistical import AutoARIMA, Fit


class _Sum(NamedTuple):
    """mean = weights' sum of (window - home) + home + drift; the deviation is always the same."""

    weights: Floats  # [steps, h]
    home: float
    drift: Floats  # [h]
    deviation: Floats  # [h]


def filtered(forecaster: AutoARIMA, ids: Sequence[str], h: int) -> Graph:
    """ARIMA, seasonal or not; of whole windows only."""
    known = models(forecaster, ids)
    sums = [_sum(one.fit, forecaster.context, h) for one in known]
    weights = np.stack([each.weights for each in sums])
    lack = weights.sum(axis=1) - 1.0  # of a forecast that follows the level wherever it goes
    home = np.array([[each.home] for each in sums])
    drift, spread = (np.stack([getattr(each, name) for each in sums]) for name in ("drift", "deviation"))
    bounded = within(known)

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        mean = (given.unit[:, None, :] @ table_rows(weights.astype(np.float32), given))[:, 0]
        mean = mean - table_rows(lack.astype(np.float32), given) * placed(home, given)
        mean = mean + table_rows(drift.astype(np.float32), given) / given.scale
        return bounded(given, mean, table_rows(spread.astype(np.float32), given) / given.scale)

    return whole(say)


def _sum(fit: Fit | None, steps: int, h: int) -> _Sum:
    if fit is None:
        return _Sum(np.zeros((steps, h)), 0.0, np.zeros(h), np.zeros(h))
    weights, variance = _weights(fit, steps, h)
    by_step = fit["coef"].get("drift", 0.0) * np.arange(1.0, steps + h + 1)
    drift = by_step[steps:] - by_step[:steps] @ weights
    return _Sum(weights, fit["coef"].get("intercept", 0.0), drift, np.sqrt(variance * fit["sigma2"]))


def _weights(fit: Fit, steps: int, h: int) -> tuple[Floats, Floats]:
    """The weights [steps, h] of a window's values in the next ones, and the variance [h] in those of one error."""
    from statsforecast.arima import make_arima

    model = make_arima(*(fit["model"][name] for name in ("phi", "theta", "delta")))
    seen, move, noise, spread = model["Z"], model["T"], model["V"], model["Pn"]
    gains = np.empty((steps, len(seen)))
    for k in range(steps):
        spread = move @ spread @ move.T + noise if k else spread
        reach = spread @ seen
        gains[k] = reach / (seen @ reach)
        spread = spread - np.outer(gains[k], reach)
    ahead, variance = np.empty((h, len(seen))), np.empty(h)
    look = seen
    for k in range(h):
        ahead[k] = look = look @ move
        spread = move @ spread @ move.T + noise
        variance[k] = seen @ spread @ seen
    weights = np.empty((steps, h))
    for k in range(steps - 1, -1, -1):
        weights[k] = ahead @ gains[k]
        ahead = (ahead - np.outer(weights[k], seen)) @ move
    return weights, variance
