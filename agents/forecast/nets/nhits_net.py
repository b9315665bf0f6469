"""N-HiTS in Flax NNX. Import this module only where a network is built: it needs JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.head import OUTPUTS, deciles
from agents.forecast.nets.layers import (
    ZERO,
    Beside,
    Dense,
    Skip,
    Views,
    cast,
    drop,
    interpolation,
    joined,
    patches,
    squash,
    start,
)
from agents.forecast.nets.nhits import NHiTS


class Stack(nnx.Module):
    """One rate: the pooled window in, knots of a backcast and of a forecast out."""

    def __init__(self, settings: NHiTS, k: int, dims: Dims, beside: int, rngs: nnx.Rngs) -> None:
        self.dims, self.dropout, self.pool = dims, settings.dropout, settings.pools[k]
        pooled = -(-dims.context // self.pool)
        self.knots = -(-dims.horizon // settings.knots[k])
        sizes = [pooled + beside] + [settings.width] * settings.layers
        initial = start(settings.orthogonal)
        layers = {f"layer{i}": Dense(sizes[i], sizes[i + 1], rngs, initial) for i in range(settings.layers)}
        self.layers = nnx.Dict(layers)
        # what the last stack leaves unexplained, nobody reads
        self.back = Dense(settings.width, pooled, rngs) if k + 1 < len(settings.pools) else None
        self.fore = Dense(settings.width, self.knots * OUTPUTS, rngs, ZERO)

    def __call__(
        self, window: jax.Array, beside: list[jax.Array], rngs: nnx.Rngs | None
    ) -> tuple[jax.Array, jax.Array]:
        """The window [batch, context] without what this stack explains, and raw outputs [batch, 9, horizon]."""
        hidden = joined([patches(window[:, :, None], self.pool).max(-1), *beside])
        for layer in self.layers.values():
            hidden = drop(nnx.gelu(layer(hidden)), self.dropout, rngs)
        if self.back is not None:
            back = self.back(hidden)
            window = window - back @ _between(back.shape[1], self.dims.context, window.dtype)
        fore = self.fore(hidden).reshape(-1, OUTPUTS, self.knots)
        return window, fore @ _between(self.knots, self.dims.horizon, window.dtype)


class NHiTSNet(nnx.Module):
    """Deciles of a linear skip plus the interpolated answers of all stacks."""

    def __init__(self, settings: NHiTS, dims: Dims, rngs: nnx.Rngs) -> None:
        self.beside = Beside(dims, Views(dims.context, settings.views, settings.means))
        self.skip = Skip(dims, rngs)
        stacks = {f"stack{k}": Stack(settings, k, dims, self.beside.size, rngs) for k in range(len(settings.pools))}
        self.stacks = nnx.Dict(stacks)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Deciles [batch, horizon, 9]; with `rngs`, units are left out by chance, as in training."""
        inputs = cast(inputs)
        window, beside = squash(inputs.window), [squash(part) for part in self.beside(inputs)]
        answers = []
        for stack in self.stacks.values():
            window, answer = stack(window, beside, rngs)
            answers.append(answer)
        return deciles(self.skip(inputs), sum(answers[1:], answers[0]).swapaxes(1, 2))


def _between(knots: int, steps: int, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(interpolation(knots, steps), dtype)
