"""What a network sees of a past, worked out in double outside of its graph, as the network's own forecast does it.

Import this module only where a forecaster is exported or differentiated: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from agents.forecast import training
from agents.forecast.graphs.given import Given
from agents.forecast.nets.base import Inputs
from agents.forecast.training import View

_SCALED = ("window", "recall", "recalled", "seen")  # of `Inputs`: what depends on the level of the values
Look = tuple[Inputs, Any, Any]  # as `training.inputs` has it, line and scale in units of the given window


def names(view: View) -> list[str]:
    """The arrays that `doubled` returns; without those of no columns or lags, which no graph can name."""
    sizes = (1, view.dims.recall, view.dims.recall, view.dims.seen)
    return [*(name for name, size in zip(_SCALED, sizes, strict=True) if size), "line", "scale"]


def doubled(view: View, y: Any, seen: Any, last: Any, scale: Any) -> list[Any]:  # noqa: ANN401 - JAX arrays
    """What depends on the level of the values, in the order of `names`, all in float64.

    `y` [batch, context] and `seen` as in `Past`; `last` and `scale` [batch, 1] as in `Given`.
    """
    batch, context = y.shape
    nothing = jnp.zeros((batch, context + view.dims.horizon, 0))
    plain = replace(view, squash=False)  # no runtime has that function in double
    inputs, line, own = training.inputs(plain, {"y": y, "seen": seen, "known": nothing, "static": nothing[:, 0]})
    found = {**inputs._asdict(), "line": (line - last) / scale, "scale": own / scale}
    return [found[name] for name in names(view)]


def single(view: View, arrays: Sequence[Any], given: Given) -> Look:
    """The look of which `doubled` worked out the `arrays`, now float32, beside what is given as it is."""
    found = dict(zip(names(view), arrays, strict=True))
    dims, batch = view.dims, given.unit.shape[0]
    squashed = jnp.arcsinh if view.squash else jnp.asarray
    inputs = Inputs(
        squashed(found["window"]),
        squashed(found.get("recall", jnp.zeros((batch, 0, dims.horizon), jnp.float32))),
        found.get("recalled", jnp.zeros((batch, 0), jnp.float32)),
        found.get("seen", jnp.zeros((batch, dims.context, 0), jnp.float32)),
        _known(view, given),
        given.static,
    )
    return inputs, found["line"], found["scale"]


def seen_in(view: View, given: Given) -> Look:
    """The look worked out in float32 from what is given: what gradients are taken of.

    Good to float32's rounding of the values, where `doubled` is exact.
    """
    near = _inputs(view, given, given.unit)
    # the least scale goes by the last value, which is 0 in these units: a flat window is looked at in its values,
    # where what float32 leaves out is small against that scale
    zero, least = given.last / given.scale, (1e-3 * jnp.abs(given.last) + 1e-12) / given.scale
    inputs, line, scale = _inputs(view, given, given.unit + zero)
    flat = near[2][:, 0] < least[:, 0]
    return jax.tree.map(partial(_chosen, flat), (inputs, line - zero, jnp.maximum(scale, least)), near)


def _inputs(view: View, given: Given, unit: Any) -> Look:  # noqa: ANN401 - a JAX array
    batch: Mapping[str, Any] = {"y": unit, "seen": given.seen, "known": _known(view, given), "static": given.static}
    return training.inputs(view, batch)


def _known(view: View, given: Given) -> Any:  # noqa: ANN401 - a JAX array
    """What is known over the network's window and its whole horizon; taken to stay as it is beyond what is given."""
    dims, context = view.dims, given.unit.shape[1]
    further = dims.horizon - (given.known.shape[1] - context)
    known = jnp.concatenate([given.known, *[given.known[:, -1:]] * further], axis=1)
    return known[:, context - dims.context :]


def _chosen(rows: Any, these: Any, others: Any) -> Any:  # noqa: ANN401 - JAX arrays
    return jnp.where(rows.reshape(-1, *[1] * (these.ndim - 1)), these, others)
