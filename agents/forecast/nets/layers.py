"""What the networks of this package are made of: linear maps, skips and views that keep the dtype of what they get.

Parameters are float32 and are cast on use, so a network computes in float32 or bfloat16 as its inputs do. Every path
to a parameter is made of names without dots. Import this module only where a network is built: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.head import OUTPUTS, deciles

Start = Callable[..., jax.Array]  # an initializer: (key, shape, dtype) -> array
ZERO: Start = nnx.initializers.zeros
LECUN: Start = nnx.initializers.lecun_normal()
# keeps the spread of what passes, however small the batch that follows (Saxe, McClelland & Ganguli, 2014)
ORTHOGONAL: Start = nnx.initializers.orthogonal()


def start(orthogonal: bool) -> Start:
    """The initializer of hidden layers."""
    return ORTHOGONAL if orthogonal else LECUN


class Dense(nnx.Module):
    """A linear map of the last axis, in the dtype of its input."""

    def __init__(self, size: int, out: int, rngs: nnx.Rngs, start: Start = LECUN) -> None:
        self.kernel = nnx.Param(start(rngs.params(), (size, out), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` [..., size] as [..., out]."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class Norm(nnx.Module):
    """Layer norm of the last axis (Ba, Kiros & Hinton, 2016); its mean and spread are taken in float32."""

    def __init__(self, size: int) -> None:
        self.scale = nnx.Param(jnp.ones(size, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(size, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` [..., size] with mean 0 and spread 1 before the learned scale."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        shape = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-6)
        return (shape * self.scale[...] + self.bias[...]).astype(x.dtype)


class Skip(nnx.Module):
    """A linear forecast [batch, horizon] of the window and of the recalled steps; it starts at zero: "as now".

    The recalled steps of a column have weights of their own, horizon -> horizon. A smooth skip gives one weight to all
    steps of a mean in the `views` of the window, as the heterogeneous autoregression does (Corsi, 2009): far fewer
    weights, for few data.
    """

    def __init__(self, dims: Dims, rngs: nnx.Rngs, views: Views | None = None) -> None:
        self.views = views
        size = dims.context if views is None else views.size
        self.window = Dense(size, dims.horizon, rngs, ZERO)
        self.recall = Dense(dims.recall * dims.horizon, dims.horizon, rngs, ZERO) if dims.recall else None

    def __call__(self, inputs: Inputs) -> jax.Array:
        """The median's linear part [batch, horizon]."""
        median = self.window(inputs.window if self.views is None else self.views(inputs.window))
        return median if self.recall is None else median + self.recall(recalled(inputs))


class Leave(nnx.Module):
    """The last layer: hidden [batch, size] to deciles [batch, horizon, 9] around a median [batch, horizon].

    It starts at zero, so an untrained network says what its skip says.
    """

    def __init__(self, size: int, horizon: int, rngs: nnx.Rngs) -> None:
        self.horizon = horizon
        self.raw = Dense(size, horizon * OUTPUTS, rngs, ZERO)

    def __call__(self, hidden: jax.Array, median: jax.Array | float = 0.0) -> jax.Array:
        """Non-crossing deciles [batch, horizon, 9]."""
        return deciles(median, self.raw(hidden).reshape(-1, self.horizon, OUTPUTS))


@dataclass(frozen=True, slots=True)
class Views:
    """Means over the end of a window, at several rates.

    Attributes:
        context: steps of the window.
        parts: each k stands for the last k-th of the window.
        count: means per part; where they do not divide it, the oldest is over fewer steps.
        oldest: steps from the window's beginning that are kept in full: where the window is a season, they are the
            steps to come as they were.
    """

    context: int
    parts: tuple[int, ...]
    count: int
    oldest: int = 0

    def matrix(self) -> NDArray[np.float32]:
        """The means as columns [context, size]."""
        columns = list(np.eye(self.context, dtype=np.float32)[: self.oldest])
        for part in self.parts:
            back = max(round(self.context / part), 1)
            per = max(round(back / self.count), 1)
            for end in range(self.context, self.context - back, -per):
                begin = max(end - per, self.context - back)
                column = np.zeros(self.context, np.float32)
                column[begin:end] = 1.0 / (end - begin)
                columns.append(column)
        return np.stack(columns, axis=1)

    @property
    def size(self) -> int:
        """How many means."""
        return self.matrix().shape[1]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Steps [..., context] as means [..., size]."""
        return x @ jnp.asarray(self.matrix(), x.dtype)


@dataclass(frozen=True, slots=True)
class Beside:
    """Everything but the window as one row: recalled steps, flags, means of what was seen, what is known and static.

    Without `views`, what was seen is left to the network. Of what is known, the last step and those to come count.
    """

    dims: Dims
    views: Views | None = None

    @property
    def sizes(self) -> list[int]:
        """Numbers in each part of the row."""
        d = self.dims
        seen = 0 if self.views is None else d.seen * self.views.size
        sizes = (d.recall * d.horizon, d.recall, seen, d.known * (d.horizon + 1), d.static)
        return [size for size in sizes if size]

    @property
    def size(self) -> int:
        """Numbers in the row."""
        return sum(self.sizes)

    def __call__(self, inputs: Inputs) -> list[jax.Array]:
        """The parts of the row [batch, size of the part]; none of them is empty."""
        d, parts = self.dims, []
        if d.recall:
            parts += [recalled(inputs), inputs.recalled]
        if d.seen and self.views is not None:
            parts.append(flat(self.views(inputs.seen.swapaxes(1, 2))))
        if d.known:
            parts.append(flat(inputs.known[:, d.context - 1 :]))
        return [*parts, inputs.static] if d.static else parts


def cast(inputs: Inputs) -> Inputs:
    """The inputs as arrays of the window's dtype."""
    dtype = jnp.asarray(inputs.window).dtype
    return Inputs(*(jnp.asarray(each).astype(dtype) for each in inputs))


def recalled(inputs: Inputs) -> jax.Array:
    """The steps of other seasons [batch, recall * horizon], 0 where they are not on record."""
    return flat(inputs.recall * inputs.recalled[:, :, None])


def flat(x: jax.Array) -> jax.Array:
    """All axes but the first in one."""
    return x.reshape(x.shape[0], int(np.prod(x.shape[1:])))


def squash(x: jax.Array) -> jax.Array:
    """`x` where it is small and its logarithm where it is large: asinh.

    A flat window makes recalled steps huge in its units. (Variance stabilising: Uniejewski, Weron & Ziel, 2018.)
    """
    return jnp.arcsinh(x)


def drop(x: jax.Array, rate: float, rngs: nnx.Rngs | None) -> jax.Array:
    """`x` with a share of `rate` (0-1) set to 0 and the rest scaled up, where random numbers are given."""
    if rngs is None or not rate:
        return x
    kept = jax.random.bernoulli(rngs.dropout(), 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros((), x.dtype))


def joined(parts: Sequence[jax.Array]) -> jax.Array:
    """The parts side by side along the last axis."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def history(inputs: Inputs, context: int) -> jax.Array:
    """The window and what was seen and known at its steps, squashed, as channels [batch, context, channels]."""
    parts = [inputs.window[:, :, None], inputs.seen, inputs.known[:, :context]]
    return squash(joined([part for part in parts if part.shape[2]]))


def channels(dims: Dims) -> int:
    """Channels of the `history`."""
    return 1 + dims.seen + dims.known


def patches(steps: jax.Array, length: int) -> jax.Array:
    """Steps [batch, steps, channels] in groups of `length`, [batch, groups, length * channels].

    Where `length` does not divide them, the first step is repeated before them.
    """
    count, size = steps.shape[1:]
    padded = jnp.concatenate([steps[:, :1]] * (-count % length) + [steps], axis=1)
    return padded.reshape(steps.shape[0], -(-count // length), length * size)


def interpolation(knots: int, steps: int) -> NDArray[np.float32]:
    """The matrix [knots, steps] of linear interpolation between evenly spaced knots; one knot is a constant."""
    at = np.linspace(0.0, knots - 1.0, steps)
    return np.stack([np.interp(at, np.arange(knots), row) for row in np.eye(knots)]).astype(np.float32)
