"""The residual network in Flax NNX. Import this module only where a network is built: it needs JAX."""

from __future__ import annotations

import jax
from flax import nnx

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.layers import Beside, Dense, Leave, Norm, Skip, Views, cast, drop, joined, squash, start
from agents.forecast.nets.residual import ResidualMLP


class Block(nnx.Module):
    """A hidden layer, and what it adds to its input."""

    def __init__(self, settings: ResidualMLP, rngs: nnx.Rngs) -> None:
        width, initial = settings.width, start(settings.orthogonal)
        self.dropout = settings.dropout
        self.norm = Norm(width) if settings.norm else None
        self.inner = Dense(width, width, rngs, initial)
        self.outer = Dense(width, width, rngs, initial)

    def __call__(self, hidden: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Hidden [batch, width] to hidden [batch, width]."""
        inner = self.inner(hidden if self.norm is None else self.norm(hidden))
        return hidden + drop(self.outer(nnx.gelu(inner)), self.dropout, rngs)


class ResidualNet(nnx.Module):
    """Deciles of a linear skip plus residual blocks over everything that is known."""

    def __init__(self, settings: ResidualMLP, dims: Dims, rngs: nnx.Rngs) -> None:
        self.views = Views(dims.context, settings.views, settings.means, min(dims.horizon, dims.context))
        self.beside = Beside(dims, self.views)
        size = self.views.size + self.beside.size
        self.skip = Skip(dims, rngs, self.views if settings.smooth else None)
        self.enter = Dense(size, settings.width, rngs, start(settings.orthogonal))
        self.blocks = nnx.Dict({f"block{k}": Block(settings, rngs) for k in range(settings.blocks)})
        self.leave = Leave(settings.width, dims.horizon, rngs)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Deciles [batch, horizon, 9]; with `rngs`, units are left out by chance, as in training."""
        inputs = cast(inputs)
        seen = joined([self.views(inputs.window), *self.beside(inputs)])
        hidden = nnx.gelu(self.enter(squash(seen)))
        for block in self.blocks.values():
            hidden = block(hidden, rngs)
        return self.leave(hidden, self.skip(inputs))
