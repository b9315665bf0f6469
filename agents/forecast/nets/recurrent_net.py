"""The linear recurrence in Flax NNX. Import this module only where a network is built: it needs JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.layers import (
    Beside,
    Dense,
    Leave,
    Norm,
    Skip,
    cast,
    channels,
    drop,
    history,
    joined,
    patches,
    squash,
    start,
)
from agents.forecast.nets.recurrent import LinearRecurrence


class Recurrence(nnx.Module):
    """A diagonal linear recurrence x[t] = keep * turn(x[t - 1]) + enter(u[t]), read out linearly at every step.

    A window is short and of fixed length, so the sum over its past is one product with the powers of `keep` and
    `turn` (the convolutional form: Gu, Goel & Re, 2022), in real numbers.
    """

    def __init__(self, settings: LinearRecurrence, rngs: nnx.Rngs) -> None:
        width, states = settings.width, settings.states
        least, most = settings.keep
        share, turn = jax.random.uniform(rngs.params(), (2, states))
        # keep = exp(-exp(damping)) stays within 0-1 whatever training does; squares are uniform at the start
        self.damping = nnx.Param(jnp.log(-0.5 * jnp.log(least**2 + share * (most**2 - least**2))))
        self.turning = nnx.Param(turn * np.pi)
        self.enter = Dense(width, states, rngs, start(settings.orthogonal))
        self.read = Dense(2 * states, width, rngs, start(settings.orthogonal))

    def __call__(self, u: jax.Array) -> jax.Array:
        """Inputs [batch, steps, width] to what the states say after each [batch, steps, width]."""
        keep = jnp.exp(-jnp.exp(self.damping[...]))
        steps = np.arange(u.shape[1])
        lag = steps[:, None] - steps
        reached = jnp.asarray(lag >= 0, jnp.float32)[:, :, None]
        lag = jnp.asarray(np.maximum(lag, 0), jnp.float32)[:, :, None]
        # sqrt(1 - keep^2): a state that forgets slowly does not grow larger than one that forgets at once
        powers = reached * jnp.exp(-lag * jnp.exp(self.damping[...])) * jnp.sqrt(1.0 - keep * keep)
        entered = self.enter(u)
        real, turned = (
            jnp.einsum("tsn,bsn->btn", (powers * wave(lag * self.turning[...])).astype(u.dtype), entered)
            for wave in (jnp.cos, jnp.sin)
        )
        return self.read(joined([real, turned]))


class Layer(nnx.Module):
    """What a recurrence and a hidden layer add to [batch, steps, width]."""

    def __init__(self, settings: LinearRecurrence, rngs: nnx.Rngs) -> None:
        self.dropout = settings.dropout
        self.norm = Norm(settings.width)
        self.recurrence = Recurrence(settings, rngs)
        self.outer = Dense(settings.width, settings.width, rngs, start(settings.orthogonal))

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """As [batch, steps, width]."""
        return x + drop(self.outer(nnx.gelu(self.recurrence(self.norm(x)))), self.dropout, rngs)


class RecurrentNet(nnx.Module):
    """Deciles of a linear skip plus a hidden layer over the states at the origin and all that is known beside."""

    def __init__(self, settings: LinearRecurrence, dims: Dims, rngs: nnx.Rngs) -> None:
        width, initial = settings.width, start(settings.orthogonal)
        self.context, self.patch = dims.context, settings.patch
        self.beside = Beside(dims)
        self.skip = Skip(dims, rngs)
        self.enter = Dense(settings.patch * channels(dims), width, rngs, initial)
        self.layers = nnx.Dict({f"layer{k}": Layer(settings, rngs) for k in range(settings.layers)})
        self.meet = Dense(width + self.beside.size, width, rngs, initial)
        self.leave = Leave(width, dims.horizon, rngs)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Deciles [batch, horizon, 9]; with `rngs`, answers are left out by chance, as in training."""
        inputs = cast(inputs)
        hidden = self.enter(patches(history(inputs, self.context), self.patch))
        for layer in self.layers.values():
            hidden = layer(hidden, rngs)
        met = joined([hidden[:, -1], *(squash(part) for part in self.beside(inputs))])
        return self.leave(nnx.gelu(self.meet(met)), self.skip(inputs))
