"""Fitted forecasters as pure JAX functions: what is exported, and composed when forecasters are made of others.

Import this module only where a forecaster is exported or differentiated: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

import jax.numpy as jnp
import numpy as np

from agents.forecast import training
from agents.forecast.adaptive import Adaptive
from agents.forecast.base import MEDIAN, Forecaster, Past, fitted_to
from agents.forecast.conformal import Conformal, stretched
from agents.forecast.ensemble import Each, Stack
from agents.forecast.federated import Federated
from agents.forecast.graphs.decompositions import decomposed
from agents.forecast.graphs.filters import filtered
from agents.forecast.graphs.given import Given, Graph, placed, table_rows
from agents.forecast.graphs.looks import seen_in
from agents.forecast.graphs.recursions import smoothing
from agents.forecast.graphs.seasonal_smoothing import seasonal_smoothing
from agents.forecast.graphs.theta import theta
from agents.forecast.naive import HistoricMean, Naive
from agents.forecast.neural import Neural
from agents.forecast.private import Private
from agents.forecast.statistical import MSTL, AutoARIMA, AutoETS, AutoTheta
from twin.errors import UsageError

STATISTICAL = (AutoETS, MSTL, AutoTheta, AutoARIMA)
# what float32 may add to moves of a window, in its units and in parts: one that just reaches an edge is not beyond it
_ROUNDING = 1e-6


@singledispatch
def graph(forecaster: Forecaster, ids: Sequence[str], h: int) -> Graph:
    """The fitted forecaster as a function of what is given, for the series `ids` and `h` steps ahead.

    Raises:
        UsageError: not fitted, not on one of the series, or it cannot be stated as a function of the past.
    """
    raise UsageError(
        f"{forecaster.name}: its kind, {type(forecaster).__name__}, cannot be exported (for {len(ids)} series and {h} "
        "steps): it is not among what agents.forecast.graphs can state as a graph (naive forecasts, the historic mean, "
        "networks, statistical methods, and corrections and means of these); export one of them instead"
    )


@graph.register(Federated)
@graph.register(Private)
def _(forecaster: Federated | Private, ids: Sequence[str], h: int) -> Graph:
    return graph(forecaster.net, ids, h)


@graph.register
def _(forecaster: Naive, ids: Sequence[str], h: int) -> Graph:
    whole = _lookup(forecaster, ids, h, 0)
    young = _lookup(forecaster, ids, h, forecaster.season - forecaster.needs)
    if forecaster.needs == forecaster.season:
        return whole
    return lambda given: jnp.where(jnp.isnan(given.unit).any(1)[:, None, None], young(given), whole(given))


def _lookup(forecaster: Naive, ids: Sequence[str], h: int, missing: int) -> Graph:
    """A naive forecast where the first `missing` steps are unknown; a past that counts shows which steps it takes."""
    count = np.arange(float(forecaster.season))
    count[:missing] = np.nan
    said = forecaster.forecast(Past.of(np.tile(count, (len(ids), 1)), ids, h), h)
    steps = said[..., MEDIAN].astype(np.int32)
    errors = (said - said[..., MEDIAN : MEDIAN + 1]).astype(np.float32)

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        point = jnp.take_along_axis(given.unit, table_rows(steps, given), axis=1)
        return point[:, :, None] + table_rows(errors, given) / given.scale[:, :, None]

    return say


@graph.register
def _(forecaster: HistoricMean, ids: Sequence[str], h: int) -> Graph:
    said = forecaster.forecast(Past.of(np.zeros((len(ids), 1)), ids, h), h)
    return lambda given: placed(said, given)


@graph.register
def _(forecaster: Each, ids: Sequence[str], h: int) -> Graph:
    models = [fitted_to(forecaster.models, i, forecaster.name) for i in ids]
    failed = [model for model in models if isinstance(model, str)]
    if failed:
        raise UsageError(failed[0])
    if all(isinstance(model, STATISTICAL) for model in models):
        return graph(_joined(models), ids, h)
    graphs = [graph(model, [i], h) for model, i in zip(models, ids, strict=True)]

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        alone = given._replace(series=jnp.zeros_like(given.series))
        said = graphs[0](alone)
        for k, each in enumerate(graphs[1:], 1):
            said = jnp.where((given.series == k)[:, None, None], each(alone), said)
        return said

    return say


def _joined(models: Sequence[Any]) -> Forecaster:
    """One statistical forecaster of all series instead of one for each: what they share is then stated once."""
    return replace(models[0], models={i: known for model in models for i, known in model.models.items()})


@graph.register
def _(forecaster: Stack, ids: Sequence[str], h: int) -> Graph:
    if not forecaster.weights:
        raise UsageError(f"{forecaster.name}: not fitted; call fit first")
    members = list(forecaster.members.values())
    weights = np.array([forecaster.weights.get(i, forecaster.weights[""]) for i in ids], np.float32)
    weights = weights * np.array([[_answers(member, i) for member in members] for i in ids])
    asked = [k for k in range(len(members)) if (weights[:, k] > 0.0).any()]
    graphs = {k: _able(members[k], ids, weights[:, k] > 0.0, h) for k in asked}

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        total, mixed = jnp.zeros(()), jnp.zeros(())
        for k, each in graphs.items():
            context, needs = members[k].context, members[k].needs
            own = given.of(context, h)
            # one that needs more history than there is is left out, as the stack itself does
            old = ~jnp.isnan(own.unit[:, context - needs :]).any(1)
            weight = jnp.where(old, table_rows(weights[:, k], given), 0.0)[:, None, None]
            mixed = mixed + weight * jnp.where(old[:, None, None], each(own), 0.0)
            total = total + weight
        return mixed / total

    return say


def _answers(member: Forecaster, unique_id: str) -> bool:
    """Whether a member of a stack has a model of the series; the stack leaves it out where it has none."""
    return not isinstance(member, Each) or not isinstance(member.models.get(unique_id, ""), str)


def _able(member: Forecaster, ids: Sequence[str], able: np.ndarray, h: int) -> Graph:
    """The member's graph on the series that it is asked for; what it says of the others has no weight."""
    kept = [i for i, has in zip(ids, able, strict=True) if has]
    place = np.where(able, np.cumsum(able) - 1, 0).astype(np.float32)
    inner = graph(member, kept, h)
    return lambda given: inner(given._replace(series=table_rows(place, given)))


@graph.register
def _(forecaster: Conformal, ids: Sequence[str], h: int) -> Graph:
    base = graph(forecaster.base, ids, h)
    factors = np.array([fitted_to(forecaster.stretch, i, f"{forecaster.name}, conformal") for i in ids], np.float32)
    return lambda given: _floored(stretched(base(given), table_rows(factors, given)[:, None, :]), given)


@graph.register
def _(forecaster: Adaptive, ids: Sequence[str], h: int) -> Graph:
    if not forecaster.starts:
        raise UsageError(f"{forecaster.name}: not fitted; call fit first")
    if forecaster.lookback:
        raise UsageError(
            f"{forecaster.name}: its bands follow how it did over {forecaster.lookback} steps, forecast by forecast, "
            "which no graph can state; export model.settled(series) instead, whose bands are those of now"
        )
    if h > forecaster.horizon:
        raise UsageError(f"{forecaster.name}: its bands follow {forecaster.horizon} steps ahead, asked for {h}")
    base, context = graph(forecaster.base, ids, h), forecaster.base.context
    starts = [forecaster.starts.get(i, forecaster.starts[""]) for i in ids]
    factors = np.exp([start.factors[:, :h] for start in starts]).astype(np.float32)
    edges = np.array([start.edges for start in starts], np.float32)

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        rows = table_rows(factors, given)
        rough, limits = _rough(given.unit, forecaster.horizon), table_rows(edges, given) / given.scale
        chosen = rows[:, 0]
        for k in range(edges.shape[1]):
            beyond = rough > limits[:, k] * (1.0 + _ROUNDING) + _ROUNDING
            chosen = jnp.where(beyond[:, None, None], rows[:, k + 1], chosen)
        return _floored(stretched(base(given.of(context, h)), chosen), given)

    return say


def _floored(said: Any, given: Given) -> Any:  # noqa: ANN401 - a JAX array
    """Deciles that stay at or above zero where the window does, as `conformal.floored` has it."""
    zero = -given.last / given.scale
    # zero itself may be missed by rounding
    amount = ~(given.unit < zero - _ROUNDING * jnp.abs(zero)).any(1)
    return jnp.where(amount[:, None, None], jnp.maximum(said, zero[:, :, None]), said)


def _rough(unit: Any, steps: int) -> Any:  # noqa: ANN401 - a JAX array
    """How much windows [batch, context] moved from step to step lately [batch], as `adaptive.roughness` has it."""
    moves = jnp.abs(unit[:, 1:] - unit[:, :-1])[:, -steps:]
    return jnp.where(jnp.isnan(moves), 0.0, moves).sum(1) / steps


@graph.register
def _(forecaster: Neural, ids: Sequence[str], h: int) -> Graph:  # noqa: ARG001
    view, stored = forecaster.view, forecaster.weights
    if not stored or h > forecaster.horizon:
        raise UsageError(f"{forecaster.name}: trained for {forecaster.horizon} steps ahead, asked for {h}")
    members = [_constants({path: value[k] for path, value in stored.items()}) for k in range(_count(stored))]

    def say(given: Given) -> Any:  # noqa: ANN401 - a JAX array
        inputs, line, scale = given.looks[view] if view in given.looks else seen_in(view, given)
        said = [training.rebuild(forecaster.architecture, view.dims, member)(inputs) for member in members]
        units = jnp.stack([jnp.sinh(each) if view.squash else each for each in said]).mean(0)
        return line[:, :h, None] + scale[:, :, None] * units[:, :h]

    return say


def _constants(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {path: jnp.asarray(value, jnp.float32) for path, value in weights.items()}


def _count(stored: Mapping[str, Any]) -> int:
    return len(next(iter(stored.values())))


@graph.register
def _(forecaster: AutoETS, ids: Sequence[str], h: int) -> Graph:
    return smoothing(forecaster, ids, h) if forecaster.season == 1 else seasonal_smoothing(forecaster, ids, h)


graph.register(MSTL, decomposed)
graph.register(AutoTheta, theta)
graph.register(AutoARIMA, filtered)
