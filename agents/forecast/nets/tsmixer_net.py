"""TSMixer in Flax NNX. Import this module only where a network is built: it needs JAX."""

from __future__ import annotations

import jax
from flax import nnx

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.head import OUTPUTS, deciles
from agents.forecast.nets.layers import (
    ZERO,
    Dense,
    Norm,
    Skip,
    Views,
    cast,
    channels,
    drop,
    history,
    joined,
    squash,
    start,
)
from agents.forecast.nets.tsmixer import TSMixer


class Mixer(nnx.Module):
    """What mixing the steps adds to [batch, steps, width], then what mixing the channels adds."""

    def __init__(self, settings: TSMixer, steps: int, rngs: nnx.Rngs) -> None:
        width, initial = settings.width, start(settings.orthogonal)
        self.dropout = settings.dropout
        self.before_steps, self.before_channels = Norm(width), Norm(width)
        self.steps = Dense(steps, steps, rngs, initial)
        self.inner = Dense(width, 2 * width, rngs, initial)
        self.outer = Dense(2 * width, width, rngs, initial)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """As mixed [batch, steps, width]."""
        mixed = nnx.gelu(self.steps(self.before_steps(x).swapaxes(1, 2))).swapaxes(1, 2)
        x = x + drop(mixed, self.dropout, rngs)
        inner = nnx.gelu(self.inner(self.before_channels(x)))
        return x + drop(self.outer(inner), self.dropout, rngs)


class TSMixerNet(nnx.Module):
    """Deciles of a linear skip plus mixed channels; every step to come has the same last layer."""

    def __init__(self, settings: TSMixer, dims: Dims, rngs: nnx.Rngs) -> None:
        width, initial = settings.width, start(settings.orthogonal)
        self.context = dims.context
        self.views = Views(dims.context, settings.views, settings.means)
        self.skip = Skip(dims, rngs)
        self.enter = Dense(channels(dims), width, rngs, initial)
        steps = self.views.size
        self.past = nnx.Dict({f"block{k}": Mixer(settings, steps, rngs) for k in range(settings.blocks)})
        self.turn = Dense(steps, dims.horizon, rngs, initial)
        by_step, at_once = dims.recall + dims.known, dims.recall + dims.static
        self.by_step = Dense(by_step, width, rngs, initial) if by_step else None
        self.at_once = Dense(at_once, width, rngs, initial) if at_once else None
        self.future = Mixer(settings, dims.horizon, rngs)
        self.raw = Dense(width, OUTPUTS, rngs, ZERO)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Deciles [batch, horizon, 9]; with `rngs`, values are left out by chance, as in training."""
        inputs = cast(inputs)
        past = self.views(history(inputs, self.context).swapaxes(1, 2)).swapaxes(1, 2)
        hidden = self.enter(past)
        for block in self.past.values():
            hidden = block(hidden, rngs)
        hidden = self._ahead(self.turn(hidden.swapaxes(1, 2)).swapaxes(1, 2), inputs)
        return deciles(self.skip(inputs), self.raw(self.future(hidden, rngs)))

    def _ahead(self, hidden: jax.Array, inputs: Inputs) -> jax.Array:
        """Hidden steps to come [batch, horizon, width], with what is known of them."""
        recall = inputs.recall * inputs.recalled[:, :, None]
        if self.by_step is not None:
            hidden = hidden + self.by_step(squash(_some(recall.swapaxes(1, 2), inputs.known[:, self.context :])))
        if self.at_once is not None:
            hidden = hidden + self.at_once(squash(_some(inputs.recalled, inputs.static)))[:, None]
        return hidden


def _some(*parts: jax.Array) -> jax.Array:
    return joined([part for part in parts if part.shape[-1]])
