"""Exponential smoothing with a season and fixed parameters as a pure JAX function of whole windows.

State equations: Hyndman, Koehler, Ord and Snyder (2008), Forecasting with exponential smoothing, chapter 2; bands as
statsforecast 2.1.1 works them out, its slips included: a graph says what its original says. A multiplicative season is
kept less 1 and everything else in units of the window, so that small movements of large values lose nothing.
Import this module only where a forecaster is exported: it needs JAX.
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
from agents.forecast.graphs.recursions import deviation, grown, parameters
from agents.forecast.statistical import AutoETS, Fit
from twin.errors import UsageError


class _State(NamedTuple):
    """Level, trend and squared errors [batch], and the season [batch, season], that of the next step last."""

    level: Any
    trend: Any
    swing: Any
    errors: Any


def seasonal_smoothing(forecaster: AutoETS, ids: Sequence[str], h: int) -> Graph:
    """Exponential smoothing with a season; of whole windows only.

    Raises UsageError when asked for more than one season ahead: what it says of the first season then depends on how
    far beyond it is asked.
    """
    season, known = forecaster.season, models(forecaster, ids)
    if h > season:
        raise UsageError(
            f"{forecaster.name}: can be exported for one season of {season} steps ahead, asked for {h}; export it for "
            "fewer, or export another forecaster"
        )
    fits = [one.fit for one in known]
    table = np.array([[*parameters(fit), *_kinds(fit)] for fit in fits])
    growth = np.array([_grown(row, h) for row in table]).astype(np.float32)
    products = {trends: _matrices(fits, season, trends) for trends in (False, True) if _any(fits, trends)}
    bounded = within(known)

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        alpha, beta, phi, begun, free, product, gamma, times, adds, trends = jnp.moveaxis(
            table_rows(table.astype(np.float32), given), 1, 0
        )
        zero = given.last / given.scale
        kind, smoothing = (times > 0.0, adds > 0.0, product > 0.0), (alpha, beta, gamma, phi)
        start = _begun(given.unit, zero, season, begun / given.scale[:, 0], kind)
        state = _through(given.unit, zero[:, 0], smoothing, kind, start)
        reach, weight = jnp.moveaxis(table_rows(growth, given), 1, 0)
        coming = state.swing[:, ::-1][:, :h]
        mean = state.level[:, None] + state.trend[:, None] * reach
        swing = jnp.where(kind[0][:, None], (mean + zero) * coming, coming)
        mean = mean + jnp.where((kind[0] | kind[1])[:, None], swing, 0.0)
        variance = state.errors / (given.unit.shape[1] - free - 1.0)
        spread = deviation(mean + zero, variance[:, None], weight, product)
        for trend, matrices in products.items():
            own = _both_multiply(state, zero[:, 0], variance, [table_rows(each, given) for each in matrices], h)
            mine = kind[0] & ((trends > 0.0) == trend)
            spread = jnp.where(mine[:, None], own, spread)
        return bounded(given, mean, spread)

    return whole(say)


def _kinds(fit: Fit | None) -> list[float]:
    """Whether the season multiplies, whether it adds, whether there is a trend."""
    _, trend, season, _ = fit["components"] if fit else "ANNN"
    return [season == "M", season == "A", trend == "A"]


def _any(fits: Sequence[Fit | None], trends: bool) -> bool:
    kinds = [fit["components"] for fit in fits if fit is not None]
    return any(kind[2] == "M" and (kind[1] == "A") == trends for kind in kinds)


def _grown(row: Floats, h: int) -> Floats:
    said = grown(row, h)
    alpha, beta, phi, product, adds, trends = row[0], row[1], row[2], row[5], row[8], row[9]
    if product and adds and trends and phi == 1.0:
        # where level and trend should add up, statsforecast 2.1.1 multiplies them
        said[1] = (alpha * beta * np.arange(1, h + 1)) ** 2
    return said


def _begun(unit: Any, zero: Any, season: int, trend: Any, kind: tuple[Any, ...]) -> _State:  # noqa: ANN401
    """The state at the beginning of windows [batch, steps], as `statistical` has it."""
    times, adds, _ = kind
    product = classical(unit, zero, season, multiplicative=True).swing
    added = classical(unit, zero, season, multiplicative=False).swing
    swing = jnp.where(times[:, None], product, jnp.where(adds[:, None], added, 0.0))
    first = unit[:, 0]
    divided = first - (first + zero[:, 0]) * swing[:, 0] / (1.0 + swing[:, 0])
    level = jnp.where(times, divided, first - swing[:, 0])
    return _State(level, trend, swing[:, ::-1], jnp.zeros_like(level))


def _through(unit: Any, zero: Any, smoothing: tuple[Any, ...], kind: tuple[Any, ...], start: _State) -> _State:  # noqa: ANN401
    """The state after windows [batch, steps] in units, whose values are `zero` [batch] further up."""
    (alpha, beta, gamma, phi), (times, adds, product) = smoothing, kind

    def step(state: _State, value: Any) -> tuple[_State, None]:  # noqa: ANN401
        base, swing = state.level + phi * state.trend, state.swing[:, -1]
        said = base + jnp.where(times, (base + zero) * swing, swing)
        error = value - said
        relative = error / jnp.where(product, said + zero, 1.0)
        own = error / jnp.where(times, 1.0 + swing, 1.0)
        turned = swing + gamma * error / jnp.where(times, base + zero, 1.0)
        turned = jnp.where(times | adds, turned, 0.0)
        seasons = jnp.concatenate([turned[:, None], state.swing[:, :-1]], axis=1)
        return _State(base + alpha * own, phi * state.trend + beta * own, seasons, state.errors + relative**2), None

    return lax.scan(step, start, unit.T)[0]


def _matrices(fits: Sequence[Fit | None], season: int, trends: bool) -> list[Any]:
    """F, G and K [series, states, states] of errors and seasons that both multiply, as statsforecast has them."""
    turn = np.roll(np.eye(season), 1, axis=0)
    found = []
    for fit in fits:
        alpha, beta, _, gamma, phi = (parameters(fit)[k] for k in (0, 1, 4, 6, 2))
        move = np.array([[1.0, 1.0], [0.0, phi]]) if trends else np.ones((1, 1))
        gain = np.array([[alpha, alpha], [beta, beta]]) if trends else np.full((1, 1), alpha)
        own = np.zeros((season, season))
        own[0, -1] = gamma
        found.append((np.kron(turn, move), np.kron(own, gain), np.kron(own, move) + np.kron(turn, gain)))
    return [np.stack(each).astype(np.float32) for each in zip(*found, strict=True)]


def _both_multiply(state: _State, zero: Any, variance: Any, matrices: list[Any], h: int) -> Any:  # noqa: ANN401
    """The standard deviation [batch, h] where errors and season multiply (statsforecast's class 3)."""
    move, gain, mixed = matrices
    season, states = state.swing.shape[1], move.shape[-1]
    level = state.level + zero
    parts = jnp.stack([level, state.trend] if states > season else [level], axis=1)
    product = (parts[:, :, None] * (1.0 + state.swing)[:, None, :]).reshape(-1, states)
    square = product[:, :, None] * product[:, None, :]
    seen = np.kron(np.eye(season)[-1:], np.ones((1, states // season)))[0].astype(np.float32)
    mean = parts.sum(1) * (1.0 + state.swing[:, -1])
    by = variance[:, None, None]
    spread, said = jnp.zeros_like(square), []
    for k in range(h):
        said.append((1.0 + variance) * (spread @ seen @ seen) + variance * mean**2)
        if k + 1 < h:
            both = move @ spread @ gain.swapaxes(1, 2)
            across = gain @ spread @ move.swapaxes(1, 2)
            swung = mixed @ (spread + square) @ mixed.swapaxes(1, 2)
            twice = by * (gain @ (3.0 * spread + 2.0 * square) @ gain.swapaxes(1, 2))
            spread = move @ spread @ move.swapaxes(1, 2) + by * (both + across + swung + twice)
    return jnp.sqrt(jnp.stack(said, axis=1))
