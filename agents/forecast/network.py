"""The quantile network in Flax NNX: a window of one series in, nine deciles of each coming step out.

Import this module only where a network is trained, run or exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from agents.forecast.base import DECILES

Weights = Mapping[str, NDArray[np.float32]]  # by path, "enter.kernel"
Shape = tuple[int, int, int]  # context, horizon, width

# pooled views of the window, (steps back, steps per mean): 2 h in full, 6 h in quarters, the day in hours at a 300 s step
_RATES = ((24, 1), (72, 3), (288, 12))
_LEVELS = len(DECILES) // 2


class Network(nnx.Module):
    """A linear skip from the whole window, plus one residual block over pooled views of it.

    Window and answer are in units of `normalise`; the skip starts at zero, so an untrained network says "as now".
    """

    def __init__(self, shape: Shape, *, rngs: nnx.Rngs) -> None:
        context, horizon, width = shape
        self.horizon = horizon
        self.pooling = _pooling(context, horizon)
        self.skip = nnx.Linear(context, horizon, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.enter = nnx.Linear(self.pooling.shape[1], width, rngs=rngs)
        self.inner = nnx.Linear(width, width, rngs=rngs)
        self.outer = nnx.Linear(width, width, rngs=rngs)
        self.leave = nnx.Linear(width, horizon * len(DECILES), kernel_init=nnx.initializers.normal(0.01), rngs=rngs)

    def __call__(self, window: jax.Array) -> jax.Array:
        """Deciles [batch, horizon, 9] for windows [batch, context]; they cannot cross."""
        hidden = nnx.gelu(self.enter(window @ jnp.asarray(self.pooling)))
        hidden = hidden + self.outer(nnx.gelu(self.inner(hidden)))
        raw = self.leave(hidden).reshape(-1, self.horizon, len(DECILES))
        median = self.skip(window) + raw[:, :, 0]
        gaps = nnx.softplus(raw[:, :, 1:] - 2.0)
        above, below = [median], [median]
        # added one by one: rounding cannot make a sum of such steps fall
        for k in range(_LEVELS):
            above.append(above[-1] + gaps[:, :, k])
            below.append(below[-1] - gaps[:, :, _LEVELS + k])
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


def normalise(windows: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - numpy and JAX arrays alike
    """Windows [..., context] as (shape, last, scale): windows = last + scale x shape.

    `last` is the last value, `scale` the standard deviation in the window, at least 0.1 % of the last value:
    a window that never moved says nothing about how far it may move.
    """
    last = windows[..., -1:]
    moved = windows - last
    spread = ((moved - moved.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True) ** 0.5
    least = 1e-3 * abs(last) + 1e-12
    scale = spread + (least - spread) * (spread < least)
    return moved / scale, last, scale


def initial(shape: Shape, seed: int) -> dict[str, NDArray[np.float32]]:
    """Fresh weights."""
    return _flat(nnx.state(Network(shape, rngs=nnx.Rngs(seed)), nnx.Param))


def rebuild(shape: Shape, weights: Weights) -> Network:
    """The network with these weights; works on traced arrays too."""
    graph, state = _skeleton(shape)
    pure = nnx.to_pure_dict(state)
    for path, value in weights.items():
        node = pure
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    nnx.replace_by_pure_dict(state, pure)
    return nnx.merge(graph, state)
