"""The end of every network: a median and eight gaps become nine deciles that cannot cross."""

from __future__ import annotations

from typing import Any

from agents.forecast.base import DECILES, MEDIAN

OUTPUTS = len(DECILES)
_NARROW = 2.0  # an untrained network starts with narrow bands: softplus(-2) is 0.13 of the window's spread


def deciles(median: Any, raw: Any) -> Any:  # noqa: ANN401 - JAX arrays
    """Deciles [batch, horizon, 9] around `median` [batch, horizon] from raw outputs [batch, horizon, 9].

    The first raw output moves the median; the others are the gaps above it, then those below it.
    """
    import jax.numpy as jnp
    from flax import nnx

    median = median + raw[:, :, 0]
    gaps = nnx.softplus(raw[:, :, 1:] - _NARROW)
    above, below = [median], [median]
    # added one by one: rounding cannot make a sum of such steps fall
    for k in range(MEDIAN):
        above.append(above[-1] + gaps[:, :, k])
        below.append(below[-1] - gaps[:, :, MEDIAN + k])
    return jnp.stack([*below[:0:-1], *above], axis=-1)
