"""Every architecture of conf/architecture can be trained: finite gradients that reach every weight."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from agents.forecast.nets.base import Inputs


def test_gradients_are_finite_and_reach_every_weight(
    built: Any, draw: Callable[..., Inputs], compiled: Callable[..., Any]
) -> None:
    def far(weights: Any, inputs: Inputs) -> Any:
        return jnp.abs(nnx.merge(built.graph, weights)(inputs) - 0.3).mean()

    slope = compiled(jax.grad(far))
    for scale in (0.0, 1.0, 1e8):
        for path, leaf in nnx.to_flat_state(slope(built.moved(), draw(built.dims, 16, scale=scale))):
            size = np.abs(np.asarray(leaf[...])).max()
            assert np.isfinite(size), (scale, path)
            assert scale != 1.0 or size > 0.0, path
