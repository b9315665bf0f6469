"""Every architecture of conf/architecture in bfloat16, and as a stack of members."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from agents.forecast.nets.base import Inputs


def test_stacked_weights_are_as_many_networks(
    built: Any, draw: Callable[..., Inputs], compiled: Callable[..., Any]
) -> None:
    members = [built.moved(seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    inputs = draw(built.dims, 24)
    together = compiled(jax.vmap(lambda weights: nnx.merge(built.graph, weights)(inputs)))(stacked)
    for said, member in zip(together, members, strict=True):
        np.testing.assert_allclose(said, built.say(member, inputs), atol=1e-3)


def test_bfloat16_stays_bfloat16_and_close(built: Any, draw: Callable[..., Inputs]) -> None:
    weights, inputs = built.moved(by=0.02), draw(built.dims, 24)
    said = built.say(weights, Inputs(*(each.astype(jnp.bfloat16) for each in inputs)))
    assert said.dtype == jnp.bfloat16
    wide = np.asarray(built.say(weights, inputs))
    assert np.abs(np.asarray(said, np.float32) - wide).mean() < 0.02 * max(float(np.abs(wide).mean()), 1.0)
