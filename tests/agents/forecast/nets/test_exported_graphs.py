"""Every network of conf/architecture as an ONNX graph, at any batch."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.residual import ResidualMLP

Draw = Callable[..., Inputs]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Without the exporter's talk of values whose type onnx infers by itself."""
    talkative = logging.getLogger("onnx_ir")
    level = talkative.level
    talkative.setLevel(logging.ERROR)
    yield
    talkative.setLevel(level)


@pytest.mark.usefixtures("quiet")
def test_the_exported_graph_says_the_same_at_any_batch(built: Any, draw: Draw) -> None:
    _same(nnx.merge(built.graph, built.moved(by=0.03)), built.dims, draw)


@pytest.mark.usefixtures("quiet")
def test_without_columns_a_graph_takes_the_window_alone(draw: Draw) -> None:
    dims = Dims(context=30, horizon=4)
    assert _same(ResidualMLP(width=8).build(dims, nnx.Rngs(0)), dims, draw) == ["window"]


def _same(network: Callable[[Inputs], Any], dims: Dims, draw: Draw) -> list[str]:
    """Assert that the graph of `network` says the same, and return the names of its inputs."""
    ort = pytest.importorskip("onnxruntime")
    from jax2onnx import to_onnx

    given = [k for k, each in enumerate(draw(dims, 1)) if each.size]  # a graph takes no empty input
    fields = [Inputs._fields[k] for k in given]

    def answer(*arrays: Any) -> Any:
        return network(_filled(dims, dict(zip(fields, arrays, strict=True))))

    shapes = [("batch", *draw(dims, 1)[k].shape[1:]) for k in given]
    model: Any = to_onnx(answer, shapes, opset=21, input_names=fields, output_names=["deciles"])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = draw(dims, 7)
    expected = jax.jit(network)(inputs)
    for batch in (1, 7):
        feed = {field: np.asarray(getattr(inputs, field)[:batch]) for field in fields}
        np.testing.assert_allclose(session.run(None, feed)[0], expected[:batch], atol=1e-4)
    return fields


def _filled(dims: Dims, arrays: dict[str, Any]) -> Inputs:
    """Inputs from those that are not empty."""
    batch = arrays["window"].shape[0]
    shapes = {
        "recall": (batch, 0, dims.horizon),
        "recalled": (batch, 0),
        "seen": (batch, dims.context, 0),
        "known": (batch, dims.context + dims.horizon, 0),
        "static": (batch, 0),
    }
    return Inputs(arrays["window"], *(arrays.get(k, jnp.zeros(shape, jnp.float32)) for k, shape in shapes.items()))
