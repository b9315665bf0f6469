"""A hundred different models kept in memory and asked at every step.

Networks of one architecture and one shape are stacked and called once (`jax.vmap` over weights and inputs); every
other model is called by itself, and once for all of its series. All compiling is done when residents are built or
swapped, never when they are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.forecast.base import DECILES, Floats, Forecaster, Past, check_past, fitted_to
from agents.forecast.conformal import Conformal, floored, stretched
from agents.forecast.neural import Neural
from twin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.forecast.nets.base import Architecture
    from agents.forecast.training import View

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Networks of one kind: `weights` by path [models, members, ...]; `places` says where each series stands."""

    net: Neural  # any of them, for its shape
    weights: Mapping[str, Any]
    places: Mapping[str, int]
    stretch: Floats  # [models, 9]
    corrected: NDArray[np.bool_]  # [models]; of these, what was never negative is forecast so


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that a forecast looks at: replaced as a whole, so that nobody sees half a swap."""

    models: Mapping[str, Forecaster]
    stacks: tuple[_Stack, ...]
    alone: tuple[tuple[Forecaster, tuple[str, ...]], ...]

    @property
    def context(self) -> int:
        """The longest of all."""
        return max(model.context for model in self.models.values())


class Residents:
    """Fitted models by the series that each answers for.

    Args:
        models: fitted; one model may stand for several series.
        h: steps ahead.
        most_mib: memory that the weights of all of them may take, stacks included.

    Raises:
        UsageError: no model, or more weights than `most_mib`.
    """

    def __init__(self, models: Mapping[str, Forecaster], *, h: int = 12, most_mib: float = 1024.0) -> None:
        self.h = h
        self.most_mib = most_mib
        self._swapping = Lock()  # of two swaps at once none shall be lost
        self._plan = self._built(models)

    @property
    def ids(self) -> tuple[str, ...]:
        """The series that are answered for."""
        return tuple(self._plan.models)

    @property
    def context(self) -> int:
        """Steps of history that the longest of the models looks at."""
        return self._plan.context

    @property
    def mib(self) -> float:
        """What the weights take, once in the models and once in the stacks."""
        return _mib(self._plan.models)

    def forecast_all(self, past: Past) -> Floats:
        """Deciles [batch, h, 9] of the series of `past`, each once, with at least `context` steps of history.

        Raises UsageError for a series that nobody answers for, and for a past that its model cannot take: too short,
        or with unknown steps among the last that are needed (the series is named, and may be left out of the next
        call, or asked for from its fallback).
        """
        plan = self._plan  # whatever is swapped meanwhile, this call sees one state
        rows = {unique_id: row for row, unique_id in enumerate(past.ids)}
        unknown = [unique_id for unique_id in rows if unique_id not in plan.models]
        if unknown or len(rows) < len(past.ids):
            raise UsageError(
                f"each series can be asked for once, and only if resident; got {(unknown or past.ids)[:3]}"
            )
        said = np.empty((len(rows), self.h, len(DECILES)))
        for stack in plan.stacks:
            own = [unique_id for unique_id in stack.places if unique_id in rows]
            if own:
                said[[rows[i] for i in own]] = _ask_stack(stack, own, _picked(past, rows, own), self.h)
        for model, ids in plan.alone:
            own = [unique_id for unique_id in ids if unique_id in rows]
            if own:
                view = _viewed(_picked(past, rows, own), model, self.h)
                said[[rows[i] for i in own]] = model.forecast(view, self.h)
        return said

    def swap(self, unique_id: str, model: Forecaster) -> None:
        """Let another fitted model answer for a series from the next call on; compiles first where its kind is new.

        Raises UsageError for a series that is not resident, or more weights than there is room for.
        """
        with self._swapping:
            if unique_id not in self._plan.models:
                raise UsageError(f"{unique_id!r} is not resident; resident are {list(self.ids)[:5]}")
            self._plan = self._built({**self._plan.models, unique_id: model})

    def _built(self, models: Mapping[str, Forecaster]) -> _Plan:
        if not models:
            raise UsageError("residents need at least one model")
        if _mib(models) > self.most_mib:
            raise UsageError(f"the weights take {_mib(models):.0f} MiB, and most_mib={self.most_mib:g}; raise it")
        kinds: dict[Key, list[str]] = {}
        for unique_id, model in models.items():
            net = _network(model)
            kinds.setdefault(("alone", id(model)) if net is None else _kind(net), []).append(unique_id)
        stacks = [_stack(models, ids) for key, ids in kinds.items() if key[0] != "alone"]
        alone = [(models[ids[0]], tuple(ids)) for key, ids in kinds.items() if key[0] == "alone"]
        plan = _Plan(dict(models), tuple(stacks), tuple(alone))
        for stack in plan.stacks:
            ids = list(stack.places)
            _ask_stack(stack, ids, _blank(ids, stack.net, self.h), self.h)
        return plan


# ---------------------------------------------------------------- stacks


def _network(model: Forecaster) -> Neural | None:
    """The network in a model, if it is one, or one with corrected bands."""
    inner = model.base if isinstance(model, Conformal) else model
    return inner if isinstance(inner, Neural) and inner.weights else None


def _kind(net: Neural) -> Key:
    assert net.weights is not None
    shapes = tuple((path, net.weights[path].shape) for path in sorted(net.weights))
    return ("stack", net.architecture, net.view, net.window, net.horizon, shapes)


def _mib(models: Mapping[str, Forecaster]) -> float:
    """MiB of the weights: models that stand for several series once, and each stacked row."""
    stored = {id(net): net for model in models.values() if (net := _network(model))}
    stacked = [net for model in models.values() if (net := _network(model))]
    each = [array.nbytes for net in (*stored.values(), *stacked) for array in (net.weights or {}).values()]
    return sum(each) / 2**20


def _stack(models: Mapping[str, Forecaster], ids: Sequence[str]) -> _Stack:
    import jax.numpy as jnp

    nets = [net for unique_id in ids if (net := _network(models[unique_id])) is not None]
    first = nets[0].weights
    assert first is not None
    weights = {path: jnp.asarray(np.stack([(net.weights or {})[path] for net in nets])) for path in sorted(first)}
    stretch = np.stack([_stretch(models[unique_id], unique_id) for unique_id in ids])
    corrected = np.array([isinstance(models[unique_id], Conformal) for unique_id in ids])
    empty = replace(nets[0], weights={path: value[:0] for path, value in first.items()})
    return _Stack(empty, weights, {unique_id: place for place, unique_id in enumerate(ids)}, stretch, corrected)


def _stretch(model: Forecaster, unique_id: str) -> Floats:
    if isinstance(model, Conformal):
        return fitted_to(model.stretch, unique_id, f"{model.name}, conformal")
    return np.ones(len(DECILES))


def _ask_stack(stack: _Stack, ids: Sequence[str], past: Past, h: int) -> Floats:
    from agents.forecast import training

    net = stack.net
    past = _viewed(past, net, h)
    dims = net.view.dims
    widths = (past.seen.shape[2], past.known.shape[2], past.static.shape[1])
    if widths != (dims.seen, dims.known, dims.static):
        made = (dims.seen, dims.known, dims.static)
        raise UsageError(f"{net.name}: {ids[0]!r} needs columns (seen, known, static) {made}; got {widths}")
    if h > net.horizon:
        raise UsageError(f"{net.name}: trained for {net.horizon} steps ahead, asked for {h}")
    further = np.repeat(past.known[:, -1:], net.horizon - h, axis=1)
    known = np.concatenate([past.known, further], axis=1)
    batch = {"y": past.y, "seen": past.seen, "known": known, "static": past.static}
    given, line, scale = training.inputs(net.view, batch)
    places = np.array([stack.places[unique_id] for unique_id in ids])
    # arrays keep one size, whoever is asked: one compilation serves every call
    rows = [_placed(np.asarray(array, np.float32), places, len(stack.places)) for array in given]
    said = np.asarray(_answer(net.architecture, net.view)(stack.weights, tuple(rows)))[places, 0, :h]
    said = line[:, :h, None] + scale[:, :, None] * said.astype(np.float64)
    said = stretched(said, stack.stretch[places, None, :])
    return np.where(stack.corrected[places, None, None], floored(said, past.y), said)


def _placed(array: NDArray[np.float32], places: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """The rows at their places among `count`, zeros elsewhere [count, 1, ...]."""
    placed = np.zeros((count, 1, *array.shape[1:]), np.float32)
    placed[places, 0] = array
    return placed


@cache
def _answer(architecture: Architecture, view: View) -> Callable[[Any, Any], Any]:
    """The compiled answer of many networks, each to its own input."""
    import jax

    from agents.forecast import training
    from agents.forecast.nets.base import Inputs

    def one(weights: Mapping[str, Any], given: tuple[Any, ...]) -> Any:  # noqa: ANN401 - a JAX array
        return training.predict(architecture, view, weights, Inputs(*given))

    return jax.jit(jax.vmap(one))


# ---------------------------------------------------------------- pasts


def _picked(past: Past, rows: Mapping[str, int], ids: Sequence[str]) -> Past:
    if len(ids) == len(past.ids) and all(rows[unique_id] == k for k, unique_id in enumerate(ids)):
        return past
    at = np.array([rows[unique_id] for unique_id in ids])
    return Past(list(ids), past.y[at], past.origin_s[at], past.step_s, past.seen[at], past.known[at], past.static[at])


def _viewed(past: Past, model: Forecaster, h: int) -> Past:
    """The past as a model takes it; raises UsageError as `check_past`."""
    own = past.last(model.context, h) if past.y.shape[1] >= model.context else past
    check_past(own, model, h)
    return own


def _blank(ids: Sequence[str], net: Neural, h: int) -> Past:
    """A past of nothing, to compile with."""
    dims, count = net.view.dims, len(ids)
    return Past(
        ids,
        np.zeros((count, net.context)),
        np.zeros(count),
        300,
        np.zeros((count, net.context, dims.seen)),
        np.zeros((count, net.context + h, dims.known)),
        np.zeros((count, dims.static)),
    )
