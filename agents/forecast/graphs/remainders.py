"""Functions stated without remainders: the exporter cannot state one where the size of the batch is left open.

Import this module only where a forecaster is exported: it needs JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax
from jax import lax


def without_remainders(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same JAX function of arrays, each remainder in it a division, a product and a difference of integers.

    Remainders inside loops and conditions are left as they are.
    """

    @wraps(function)
    def stated(*arrays: Any) -> Any:  # noqa: ANN401 - JAX arrays
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shapes), _said(closed.jaxpr, closed.consts, arrays))

    return stated


def _said(jaxpr: Any, constants: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:  # noqa: ANN401
    """What the operations of `jaxpr` make of `arrays`."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arrays), strict=True))

    def read(place: Any) -> Any:  # noqa: ANN401 - a variable or a literal
        return place.val if hasattr(place, "val") else values[place]

    for step in jaxpr.eqns:
        said = _one(step, [read(place) for place in step.invars])
        values.update(zip(step.outvars, said, strict=True))
    return [read(place) for place in jaxpr.outvars]


def _one(step: Any, arrays: list[Any]) -> list[Any]:  # noqa: ANN401
    if step.primitive.name == "rem" and not jax.numpy.issubdtype(step.invars[0].aval.dtype, jax.numpy.floating):
        number, by = arrays
        return [number - by * lax.div(number, by)]
    if step.primitive.name in ("jit", "pjit"):
        inner = step.params["jaxpr"]
        return _said(inner.jaxpr, inner.consts, arrays)
    said = step.primitive.bind(*arrays, **step.primitive.get_bind_params(step.params))
    return list(said) if step.primitive.multiple_results else [said]
