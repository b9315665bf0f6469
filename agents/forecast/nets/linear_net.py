"""The linear networks in Flax NNX. Import this module only where a network is built: it needs JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.layers import Beside, Leave, Views, cast, drop, joined
from agents.forecast.nets.linear import DLinear, NLinear


class LinearNet(nnx.Module):
    """Deciles whose median is linear in all that is known, and whose gaps are softplus of such a linear map."""

    def __init__(self, settings: NLinear | DLinear, dims: Dims, rngs: nnx.Rngs) -> None:
        self.settings = settings
        self.views = Views(dims.context, settings.views, settings.means)
        self.beside = Beside(dims, self.views)
        window = self.views.size if isinstance(settings, NLinear) and settings.smooth else dims.context
        parts = 2 if isinstance(settings, DLinear) else 1
        size = parts * window + settings.moves * self.views.size + self.beside.size
        self.leave = Leave(size, dims.horizon, rngs)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Deciles [batch, horizon, 9]; with `rngs`, inputs are left out by chance, as in training."""
        inputs = cast(inputs)
        parts = [*self._window(inputs.window), *self._moves(inputs.window), *self.beside(inputs)]
        return self.leave(drop(joined(parts), self.settings.dropout, rngs))

    def _window(self, window: jax.Array) -> list[jax.Array]:
        if isinstance(self.settings, NLinear):
            return [self.views(window) if self.settings.smooth else window]
        trend = window @ jnp.asarray(moving_average(window.shape[1], self.settings.trend), window.dtype)
        return [trend, window - trend]

    def _moves(self, window: jax.Array) -> list[jax.Array]:
        if not self.settings.moves:
            return []
        before = joined([window[:, :1], window[:, :-1]])
        return [self.views(jnp.abs(window - before))]


def moving_average(context: int, steps: int) -> NDArray[np.float32]:
    """The matrix [context, context] of a centred moving average; beyond its ends a window stays as it is there."""
    around = np.arange(steps) - (steps - 1) // 2
    sources = np.clip(np.arange(context)[:, None] + around, 0, context - 1)
    matrix = np.zeros((context, context), np.float32)
    np.add.at(matrix, (sources, np.arange(context)[:, None]), 1.0 / steps)
    return matrix
