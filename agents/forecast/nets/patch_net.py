"""The patch transformer in Flax NNX. Import this module only where a network is built: it needs JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
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
    flat,
    history,
    patches,
    squash,
    start,
)
from agents.forecast.nets.patch import PatchTransformer


class Layer(nnx.Module):
    """Attention among tokens, then a hidden layer for each; both see normed tokens (Xiong et al., 2020)."""

    def __init__(self, settings: PatchTransformer, rngs: nnx.Rngs) -> None:
        width, initial = settings.width, start(settings.orthogonal)
        self.heads, self.dropout = settings.heads, settings.dropout
        self.before_attention, self.before_hidden = Norm(width), Norm(width)
        self.ask, self.offer, self.value = (Dense(width, width, rngs, initial) for _ in range(3))
        self.told = Dense(width, width, rngs, initial)
        self.inner = Dense(width, 2 * width, rngs, initial)
        self.outer = Dense(2 * width, width, rngs, initial)

    def __call__(self, tokens: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Tokens [batch, tokens, width] to tokens."""
        tokens = tokens + drop(self._attention(self.before_attention(tokens)), self.dropout, rngs)
        inner = nnx.gelu(self.inner(self.before_hidden(tokens)))
        return tokens + drop(self.outer(inner), self.dropout, rngs)

    def _attention(self, tokens: jax.Array) -> jax.Array:
        asked, offered, value = (self._split(each(tokens)) for each in (self.ask, self.offer, self.value))
        match = (asked @ offered.swapaxes(2, 3)).astype(jnp.float32) / asked.shape[3] ** 0.5
        heard = jax.nn.softmax(match, axis=-1).astype(tokens.dtype) @ value
        return self.told(heard.swapaxes(1, 2).reshape(tokens.shape))

    def _split(self, tokens: jax.Array) -> jax.Array:
        """Tokens [batch, tokens, width] by head [batch, heads, tokens, width of a head]."""
        batch, count, width = tokens.shape
        return tokens.reshape(batch, count, self.heads, width // self.heads).swapaxes(1, 2)


class PatchNet(nnx.Module):
    """Deciles of a linear skip plus a linear map of all tokens side by side."""

    def __init__(self, settings: PatchTransformer, dims: Dims, rngs: nnx.Rngs) -> None:
        width, initial = settings.width, start(settings.orthogonal)
        self.context, self.patch = dims.context, settings.patch
        self.skip = Skip(dims, rngs)
        self.enter = Dense(settings.patch * channels(dims), width, rngs, initial)
        self.beside = Beside(dims)
        self.extra = nnx.Dict(
            {f"token{k}": Dense(size, width, rngs, initial) for k, size in enumerate(self.beside.sizes)}
        )
        count = -(-dims.context // settings.patch) + len(self.beside.sizes)
        self.positions = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (count, width), jnp.float32))
        self.layers = nnx.Dict({f"layer{k}": Layer(settings, rngs) for k in range(settings.layers)})
        self.norm = Norm(width)
        self.leave = Leave(count * width, dims.horizon, rngs)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Deciles [batch, horizon, 9]; with `rngs`, answers are left out by chance, as in training."""
        inputs = cast(inputs)
        tokens = [self.enter(patches(history(inputs, self.context), self.patch))]
        for layer, part in zip(self.extra.values(), self.beside(inputs), strict=True):
            tokens.append(layer(squash(part))[:, None])
        hidden = jnp.concatenate(tokens, axis=1) + self.positions[...].astype(inputs.window.dtype)
        for layer in self.layers.values():
            hidden = layer(hidden, rngs)
        return self.leave(flat(self.norm(hidden)), self.skip(inputs))
