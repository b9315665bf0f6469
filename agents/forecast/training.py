"""Training of quantile networks on windows of many series: one loss, one descent, many members at once.

Import this module only where a network is trained or run: it needs JAX. Everything here is pure; `neural.py` draws the
windows, watches the held-out part and keeps the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agents.forecast.base import DECILES
from agents.forecast.frames import mirrored, normalise
from agents.forecast.nets.base import Architecture, Dims, Inputs

Weights = Mapping[str, Any]  # by path, "enter.kernel"; one array each, with a leading axis where members are stacked
Batch = Mapping[str, Any]  # arrays `y` [batch, context], `seen`, `known`, `static`, as in `base.Past`
_ROUNDING = 1e-6  # of a value: below it float32 says nothing about movements
_TINY = 1e-30  # keeps zeros from being divided by zero
# a window that rests has next to no spread: what breaks the rest shall not outweigh all other windows
_FARTHEST = 10.0  # spreads that a recalled value or a target may lie off

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class View:
    """How a network looks at the past; hashable, so that one compilation serves all calls of a kind.

    `lags` are how many steps before each forecast step its recalled values lie; `squash` takes the inverse
    hyperbolic sine of the window's units, for series whose spikes are many times their usual spread.
    """

    dims: Dims
    lags: tuple[int, ...] = ()
    squash: bool = False

    @property
    def context(self) -> int:
        """Steps of the past that it takes."""
        return max(self.dims.context, *self.lags, 1)


def inputs(view: View, batch: Batch) -> tuple[Inputs, Any, Any]:
    """(what the network sees, line [batch, horizon], scale [batch, 1]): y = line + scale x the network's units.

    The line goes on from the last value: level, or along the window's own straight line where the window is one
    (`_slope`), so that a counter or a steady growth needs nothing of the network. NumPy and JAX arrays alike: a
    forecast is normalised in float64 and only then rounded.
    """
    dims, y = view.dims, batch["y"]
    xp = y.__array_namespace__()
    window = y[:, y.shape[1] - dims.context :]
    window = mirrored(window)
    slope = _slope(window)
    window, last, scale = normalise(window - slope * xp.arange(1 - dims.context, 1))
    ahead = xp.arange(1, dims.horizon + 1)
    lagged = [y[:, y.shape[1] - lag : y.shape[1] - lag + dims.horizon] - slope * (ahead - lag) for lag in view.lags]
    recall = xp.stack(lagged, axis=1) if lagged else xp.zeros((len(y), 0, dims.horizon), y.dtype)
    recalled = ~xp.isnan(recall).any(axis=2)
    recall = xp.where(recalled[:, :, None], (recall - last[:, None]) / scale[:, None], 0.0)
    recall = xp.clip(recall, -_FARTHEST, _FARTHEST)
    seen = batch["seen"][:, batch["seen"].shape[1] - dims.context :]
    seen = _standardised(seen)
    known = batch["known"][:, batch["known"].shape[1] - dims.context - dims.horizon :]
    known = xp.where(xp.isnan(known), 0.0, known)  # before the beginning of a young series
    if view.squash:
        window, recall = xp.arcsinh(window), xp.arcsinh(recall)
    given = Inputs(window, recall, recalled.astype(y.dtype), seen, known, batch["static"])
    return given, last + slope * ahead, scale


def _standardised(seen: Any) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """Columns [batch, context, seen] less their mean over their deviation, where they are on record; 0 elsewhere."""
    xp = seen.__array_namespace__()
    known = ~xp.isnan(seen)
    count = xp.maximum(known.sum(axis=1, keepdims=True), 1)
    values = xp.where(known, seen, 0.0)
    moved = xp.where(known, values - values.sum(axis=1, keepdims=True) / count, 0.0)
    size = xp.sqrt((values**2).sum(axis=1, keepdims=True) / count)
    return moved / (xp.sqrt((moved**2).sum(axis=1, keepdims=True) / count) + _ROUNDING * size + _TINY)


def _slope(window: Any) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """The slope per step [batch, 1] of windows that are straight lines, 0 for those that are not.

    In between, where a line explains 80 to 95 % of the variance, it fades in.
    """
    xp = window.__array_namespace__()
    steps = xp.arange(window.shape[1]) - (window.shape[1] - 1) / 2
    moved = window - window.mean(axis=1, keepdims=True)
    slope = (moved * steps).sum(axis=1, keepdims=True) / (steps**2).sum()
    least = (_ROUNDING * window) ** 2  # what float32 leaves of a window that rests is no line
    explained = slope**2 * (steps**2).sum() / ((moved**2 + least).sum(axis=1, keepdims=True) + _TINY)
    return slope * xp.clip((explained - 0.8) / 0.15, 0.0, 1.0)


def initial(architecture: Architecture, dims: Dims, seed: int) -> dict[str, jax.Array]:
    """Fresh weights."""
    module: Any = architecture.build(dims, nnx.Rngs(seed))
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): variable[...] for path, variable in flat}


def rebuild(architecture: Architecture, dims: Dims, weights: Weights) -> Any:  # noqa: ANN401 - an nnx module
    """The network with these weights, which may be traced arrays."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: architecture.build(dims, nnx.Rngs(0))))
    return nnx.merge(graph, nnx.from_flat_state([(_path(path), nnx.Param(x)) for path, x in sorted(weights.items())]))


def _path(path: str) -> tuple[str | int, ...]:
    return tuple(int(step) if step.isdigit() else step for step in path.split("."))


@partial(jax.jit, static_argnames=("architecture", "view"))
def predict(architecture: Architecture, view: View, weights: Weights, given: Inputs) -> jax.Array:
    """Deciles [batch, horizon, 9] in units of the window; `weights` are stacked members, whose deciles are averaged."""
    said = jax.vmap(lambda member: rebuild(architecture, view.dims, member)(given))(weights)
    return (jnp.sinh(said) if view.squash else said).mean(axis=0)


def pinball(quantiles: jax.Array, truth: jax.Array) -> jax.Array:
    """The pinball loss of deciles [..., 9] against values [...], meant over the deciles: [...]."""
    error = truth[..., None] - quantiles
    levels = jnp.asarray(DECILES, error.dtype)
    return jnp.maximum(levels * error, (levels - 1.0) * error).mean(axis=-1)


def loss(
    architecture: Architecture, view: View, precision: Precision, weights: Weights, batch: Batch, truth: jax.Array
) -> jax.Array:
    """The mean pinball loss in units of the window's spread (squashed, where the network squashes)."""
    given, line, scale = inputs(view, batch)
    target = jnp.clip((truth - line) / scale, -_FARTHEST, _FARTHEST)
    target = jnp.arcsinh(target) if view.squash else target
    if half(precision):
        given, weights = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (given, weights))
    said = rebuild(architecture, view.dims, weights)(given).astype(target.dtype)
    return pinball(said, target).mean()


def half(precision: Precision) -> bool:
    """Whether to compute in bfloat16: where asked for, or where there is an accelerator to gain from it."""
    return precision == "bfloat16" or (precision == "auto" and jax.default_backend() != "cpu")


def optimizer(steps: int, learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """AdamW on a cosine from `learning_rate` to nothing over `steps`, with a short warm-up and clipped gradients."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(steps // 20, 1), max(steps, 2))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=weight_decay))


@dataclass(frozen=True, slots=True)
class Recipe:
    """The fixed part of a training: hashable, compiled once.

    `proximal` times half the squared distance from the weights that `advance` begins with is added to the loss.
    """

    architecture: Architecture
    view: View
    steps: int
    learning_rate: float
    weight_decay: float
    precision: Precision
    proximal: float = 0.0


State = tuple[Any, Any]  # weights and optimiser state, each with a leading axis of members


def start(recipe: Recipe, members: Sequence[Weights], after: int = 0) -> State:
    """The state before the first step, the members stacked; the learning rate is that after `after` steps."""
    weights = {path: jnp.stack([jnp.asarray(member[path]) for member in members]) for path in sorted(members[0])}
    descent = optimizer(recipe.steps, recipe.learning_rate, recipe.weight_decay)
    return weights, jax.vmap(lambda member: late(descent.init(member), after))(weights)


def late(moments: Any, after: int) -> Any:  # noqa: ANN401 - an optimiser's state
    """The optimiser's state with its learning rate as it is after `after` steps; what it averages begins anew."""

    def scheduled(path: Any, _: Any) -> bool:  # noqa: ANN401 - keys of a tree
        last = path[-1]
        return isinstance(last, optax.tree_utils.NamedTupleKey) and last.tuple_name == "ScaleByScheduleState"

    return optax.tree_utils.tree_set(moments, scheduled, count=jnp.asarray(after, jnp.int32))


def spread_over_devices(indices: np.ndarray) -> jax.Array:
    """Window places [members, chunk, batch] with the batch divided over all devices that divide it."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if indices.shape[-1] % n == 0)
    mesh = Mesh(np.asarray(devices[:count]), ("data",))
    return jax.device_put(indices, NamedSharding(mesh, PartitionSpec(None, None, "data")))


@partial(jax.jit, static_argnames="recipe")
def advance(recipe: Recipe, state: State, arrays: Batch, places: jax.Array) -> tuple[State, jax.Array]:
    """(state, losses [members, chunk]) after one step per row of `places` [members, chunk, batch].

    `places` are origins in the joined series of `arrays` (see `gather`).
    """
    descent = optimizer(recipe.steps, recipe.learning_rate, recipe.weight_decay)

    def step(home: Weights, state: State, origins: jax.Array) -> tuple[State, jax.Array]:
        weights, moments = state
        batch, truth = gather(recipe.view, arrays, origins)
        objective = partial(loss, recipe.architecture, recipe.view, recipe.precision)
        value, slope = jax.value_and_grad(objective)(weights, batch, truth)
        if recipe.proximal:
            slope = jax.tree.map(lambda s, w, h: s + recipe.proximal * (w - h), slope, weights, home)
        updates, moments = descent.update(slope, moments, weights)
        return (optax.apply_updates(weights, updates), moments), value

    return jax.vmap(lambda state, rows: jax.lax.scan(partial(step, state[0]), state, rows))(state, places)


@partial(jax.jit, static_argnames="recipe")
def validate(recipe: Recipe, weights: Weights, arrays: Batch, origins: jax.Array) -> jax.Array:
    """The loss [members] at held-out origins."""
    batch, truth = gather(recipe.view, arrays, origins)
    return jax.vmap(lambda member: loss(recipe.architecture, recipe.view, "float32", member, batch, truth))(weights)


def gather(view: View, arrays: Batch, origins: jax.Array) -> tuple[Batch, jax.Array]:
    """(pasts, truth [batch, horizon]) at `origins` of joined series (`y` [n], the others [n, columns])."""
    back = origins[:, None] + jnp.arange(-view.context, 0)
    ahead = origins[:, None] + jnp.arange(view.dims.horizon)
    batch = {
        "y": arrays["y"][back],
        "seen": arrays["seen"][back],
        "known": arrays["known"][jnp.concatenate([back, ahead], axis=1)],
        "static": arrays["static"][origins],
    }
    return batch, arrays["y"][ahead]
