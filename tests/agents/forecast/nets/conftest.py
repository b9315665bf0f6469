from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hydra.utils import instantiate
from omegaconf import OmegaConf

from agents.forecast.nets.base import Architecture, Dims, Inputs

CONFIGS = Path(__file__).resolve().parents[4] / "conf" / "architecture"
DIMS = Dims(context=50, horizon=5, recall=2, seen=2, known=3, static=2)  # 50 is no multiple of any patch


class Built(NamedTuple):
    """One architecture at `dims`, compiled once for all tests."""

    settings: Architecture
    dims: Dims
    fresh: Callable[[Any], Any]  # a random key to an untrained network
    graph: Any
    weights: Any  # untrained
    say: Callable[[Any, Inputs], Any]  # weights and inputs to deciles

    def moved(self, seed: int = 1, by: float = 0.1) -> Any:
        """The weights after a random move."""
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda w: w + by * jnp.asarray(rng.standard_normal(w.shape), w.dtype), self.weights)


def quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled fast, to run slowly: what the tests compile runs a few times."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@cache
def _built(name: str) -> Built:
    settings = instantiate(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    fresh = quickly(lambda key: settings.build(DIMS, nnx.Rngs(key)))
    graph, weights = nnx.split(fresh(jax.random.key(0)))
    return Built(settings, DIMS, fresh, graph, weights, quickly(lambda w, inputs: nnx.merge(graph, w)(inputs)))


@pytest.fixture(params=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def built(request: pytest.FixtureRequest) -> Built:
    """Every architecture of conf/architecture in turn."""
    return _built(request.param)


@pytest.fixture(scope="session")
def compiled() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compiles a function for a few calls."""
    return quickly


@pytest.fixture(scope="session")
def draw() -> Callable[..., Inputs]:
    """Random inputs of the given sizes, all of them on record; the same for the same seed."""

    def build(dims: Dims, batch: int, seed: int = 0, scale: float = 1.0) -> Inputs:
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> jax.Array:
            return jnp.asarray(scale * rng.standard_normal((batch, *shape)), jnp.float32)

        return Inputs(
            normal(dims.context),
            normal(dims.recall, dims.horizon),
            jnp.ones((batch, dims.recall)),
            normal(dims.context, dims.seen),
            normal(dims.context + dims.horizon, dims.known),
            normal(dims.static),
        )

    return build
