"""The quantile network in Flax NNX: a window of one series in, nine deciles of each coming step out.

Import this module only where a network is trained, run or exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from agents.forecast.base import DECILES, MEDIAN
from agents.forecast.frames import normalise

Weights = Mapping[str, NDArray[np.float32]]  # by path, "enter.kernel"
Shape = tuple[int, int, int]  # context, horizon, width

# pooled views of the window, (steps back, steps per mean); at a 300 s step: 2 h in full, 6 h in quarters, 24 h in hours
_RATES = ((24, 1), (72, 3), (288, 12))


class Network(nnx.Module):
    """A linear skip from the whole window, plus one residual block over pooled views of it.

    Window and answer are in units of `frames.normalise`; the skip starts at zero: untrained, it says "as now".
    """

    def __init__(self, shape: Shape, *, rngs: nnx.Rngs) -> None:
        context, horizon, width = shape
        self.context, self.horizon = context, horizon
        self.skip = nnx.Linear(context, horizon, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.enter = nnx.Linear(_pooling(context, horizon).shape[1], width, rngs=rngs)
        self.inner = nnx.Linear(width, width, rngs=rngs)
        self.outer = nnx.Linear(width, width, rngs=rngs)
        self.leave = nnx.Linear(width, horizon * len(DECILES), kernel_init=nnx.initializers.normal(0.01), rngs=rngs)

    def __call__(self, window: jax.Array) -> jax.Array:
        """Deciles [batch, horizon, 9] for windows [batch, context]; they cannot cross."""
        hidden = nnx.gelu(self.enter(window @ _pooling(self.context, self.horizon)))
        hidden = hidden + self.outer(nnx.gelu(self.inner(hidden)))
        raw = self.leave(hidden).reshape(-1, self.horizon, len(DECILES))
        median = self.skip(window) + raw[:, :, 0]
        gaps = nnx.softplus(raw[:, :, 1:] - 2.0)
        above, below = [median], [median]
        # added one by one: rounding cannot make a sum of such steps fall
        for k in range(MEDIAN):
            above.append(above[-1] + gaps[:, :, k])
            below.append(below[-1] - gaps[:, :, MEDIAN + k])
        return jnp.stack([*below[:0:-1], *above], axis=-1)


def _pooling(context: int, horizon: int) -> NDArray[np.float32]:
    """The matrix [context, features] of the pooled views, and of the steps one window ago in full."""
    columns = [np.eye(context, dtype=np.float32)[:, : min(horizon, context)]]
    for back, per in _RATES:
        for start in range(context - per, max(context - back, 0) - 1, -per):
            column = np.zeros((context, 1), np.float32)
            column[start : start + per] = 1.0 / per
            columns.append(column)
    return np.concatenate(columns, axis=1)


def initial(shape: Shape, seed: int) -> dict[str, jax.Array]:
    """Fresh weights."""
    flat = nnx.to_flat_state(nnx.state(Network(shape, rngs=nnx.Rngs(seed)), nnx.Param))
    return {".".join(map(str, path)): variable[...] for path, variable in flat}


def rebuild(shape: Shape, weights: Mapping[str, Any]) -> Network:
    """The network with these weights, which may be traced arrays."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: Network(shape, rngs=nnx.Rngs(0))))
    flat = [(tuple(path.split(".")), nnx.Param(value)) for path, value in sorted(weights.items())]
    return nnx.merge(graph, nnx.from_flat_state(flat))


@partial(jax.jit, static_argnames="shape")
def predict(shape: Shape, weights: Mapping[str, Any], windows: jax.Array) -> jax.Array:
    """Deciles [batch, horizon, 9] of normalised windows [batch, context]."""
    return rebuild(shape, weights)(windows)


def pinball(quantiles: jax.Array, truth: jax.Array) -> jax.Array:
    """The mean pinball loss of deciles [..., 9] against values [...]."""
    error = truth[..., None] - quantiles
    levels = jnp.asarray(DECILES, error.dtype)
    return jnp.maximum(levels * error, (levels - 1.0) * error).mean()


def loss(shape: Shape, weights: Mapping[str, Any], values: jax.Array, starts: jax.Array) -> jax.Array:
    """The mean pinball loss, in units of the window's scale, of the windows of `values` that begin at `starts`."""
    context, horizon, _ = shape
    spans = values[starts[:, None] + jnp.arange(context + horizon)]
    windows, last, scale = normalise(spans[:, :context])
    return pinball(rebuild(shape, weights)(windows), (spans[:, context:] - last) / scale)


def optimizer(steps: int, learning_rate: float) -> optax.GradientTransformation:
    """AdamW on a cosine from `learning_rate` to nothing over `steps`, with clipped gradients."""
    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))


validate = partial(jax.jit, static_argnames="shape")(loss)


@partial(jax.jit, static_argnames=("shape", "steps", "learning_rate"))
def advance(
    shape: Shape, steps: int, learning_rate: float, state: tuple[Any, Any], values: jax.Array, starts: jax.Array
) -> tuple[tuple[Any, Any], jax.Array]:
    """(weights, optimizer state) after one step per row of `starts` [chunk, batch], and the losses [chunk]."""
    descent = optimizer(steps, learning_rate)

    def step(state: tuple[Any, Any], starts: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        weights, moments = state
        value, slope = jax.value_and_grad(loss, argnums=1)(shape, weights, values, starts)
        updates, moments = descent.update(slope, moments, weights)
        return (optax.apply_updates(weights, updates), moments), value

    return jax.lax.scan(step, state, starts)
