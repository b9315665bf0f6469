"""Descent on clipped and noised sums of whole tenants' gradients (DP-SGD: Abadi et al., 2016, CCS).

Import this module only where a network is trained: it needs JAX and JAX Privacy. What a step costs in privacy is the
business of `private.py`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax_privacy import clipped_grad, noise_addition

from agents.forecast import training
from agents.forecast.training import Batch, Recipe, Weights

State = tuple[Any, Any, Any]  # weights (members stacked), the optimiser's state, the noise's


class Bounds(NamedTuple):
    """What keeps a tenant hidden.

    Attributes:
        clip: the norm to which the gradient of one tenant is cut.
        deviation: of the noise added to the sum over tenants, per weight.
        expected: tenants in a step on average, by which the noisy sum is divided.
    """

    clip: float
    deviation: float
    expected: float


@dataclass(frozen=True, slots=True)
class Clipped:
    """The fixed part of a private training: hashable, compiled once for all bounds.

    Attributes:
        moves: patterns of the paths of those weights that are trained ("*.bias").
    """

    recipe: Recipe
    moves: tuple[str, ...] = ("*",)

    def moved(self, weights: Weights) -> dict[str, Any]:
        """Those weights that are trained."""
        return {path: value for path, value in weights.items() if any(fnmatch(path, each) for each in self.moves)}

    def descent(self) -> optax.GradientTransformation:
        """The optimiser that follows the noise: it sees nothing else, so what it does costs no privacy."""
        return training.optimizer(self.recipe.steps, self.recipe.learning_rate, self.recipe.weight_decay)


def start(plan: Clipped, weights: Weights, key: jax.Array, after: int = 0) -> State:
    """The state before the first step; the learning rate is that after `after` steps, the noise is drawn from `key`."""
    weights = {path: jnp.asarray(weights[path]) for path in sorted(weights)}
    moved = plan.moved(weights)
    return weights, training.late(plan.descent().init(moved), after), _noise(0.0, key).init(moved)


@partial(jax.jit, static_argnames="plan")
def advance(plan: Clipped, bounds: Bounds, state: State, arrays: Batch, places: jax.Array, absent: jax.Array) -> State:
    """The state after one step per row of `places` [steps, tenants, windows], origins as in `training.gather`.

    Where `absent` [steps, tenants] holds, nobody stands in that place.
    """

    def step(state: State, drawn: tuple[jax.Array, jax.Array]) -> tuple[State, None]:
        weights, moments, noise = state
        origins, missing = drawn
        total = contributions(plan, bounds.clip, weights, arrays)(
            plan.moved(weights), origins, is_padding_example=missing
        )
        total, noise = _noise(bounds.deviation).update(total, noise)
        slope = jax.tree.map(lambda x: x / bounds.expected, total)
        updates, moments = plan.descent().update(slope, moments, plan.moved(weights))
        moved: Any = optax.apply_updates(plan.moved(weights), updates)
        return ({**weights, **moved}, moments, noise), None

    return jax.lax.scan(step, state, (places, absent))[0]


def contributions(plan: Clipped, clip: float, weights: Weights, arrays: Batch) -> Any:  # noqa: ANN401 - JAX arrays
    """The function (moved weights, origins [tenants, windows]) -> sum of the tenants' gradients, each within `clip`.

    The gradient of a tenant is that of the mean loss over its windows, summed over members.
    """
    recipe = plan.recipe

    def objective(moved: Weights, origins: jax.Array) -> jax.Array:
        batch, truth = training.gather(recipe.view, arrays, origins)
        each = partial(training.loss, recipe.architecture, recipe.view, recipe.precision)
        return jax.vmap(lambda member: each(member, batch, truth))({**weights, **moved}).sum()

    bounded = clipped_grad(objective, l2_clip_norm=clip, keep_batch_dim=False)

    def quietly(moved: Weights, origins: jax.Array, **kwargs: jax.Array) -> Any:  # noqa: ANN401 - weights
        with warnings.catch_warnings():  # JAX Privacy calls what Optax has given another name
            warnings.filterwarnings("ignore", "optax.global_norm", DeprecationWarning)
            return bounded(moved, origins, **kwargs)

    return quietly


def _noise(deviation: float, key: jax.Array | None = None) -> optax.GradientTransformation:
    """What adds the noise; its state, begun with `key`, holds what it is drawn from."""
    return noise_addition.gaussian_privatizer(stddev=deviation, prng_key=jax.random.key(0) if key is None else key)
