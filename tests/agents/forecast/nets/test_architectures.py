"""What every architecture of conf/architecture says, whatever its sizes and inputs."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from agents.forecast.base import DECILES
from agents.forecast.nets.base import Dims, Inputs

BATCH = 24
ODD = [
    Dims(context=30, horizon=4),
    Dims(context=1, horizon=1),
    Dims(context=7, horizon=12, recall=1, static=1),
    Dims(context=33, horizon=2, seen=1),
    Dims(context=20, horizon=3, known=1),
]
Draw = Callable[..., Inputs]


def test_settings_are_hashable_and_the_yaml_spells_out_the_defaults(built: Any) -> None:
    assert built.settings == type(built.settings)()
    assert hash(built.settings) == hash(type(built.settings)())


def test_an_untrained_network_says_as_now_with_narrow_bands(built: Any, draw: Draw) -> None:
    said = np.asarray(built.say(built.weights, draw(built.dims, BATCH)))
    assert said.shape == (BATCH, built.dims.horizon, len(DECILES))
    assert said.dtype == np.float32
    assert (said[:, :, 4] == 0.0).all()
    assert (np.diff(said, axis=2) > 0).all()
    assert np.ptp(said, axis=2).max() < 2.0


@pytest.mark.parametrize("dims", ODD, ids=str)
def test_any_sizes_are_served(built: Any, dims: Dims, draw: Draw) -> None:
    said = jax.eval_shape(lambda: built.settings.build(dims, nnx.Rngs(0))(draw(dims, 2)))
    assert said.shape == (2, dims.horizon, len(DECILES))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e8])
def test_deciles_do_not_cross_at_any_scale(built: Any, scale: float, draw: Draw) -> None:
    said = np.asarray(built.say(built.moved(), draw(built.dims, BATCH, scale=scale)))
    assert np.isfinite(said).all()
    assert (np.diff(said, axis=2) >= 0).all()


def test_every_input_column_counts(built: Any, draw: Draw) -> None:
    dims = built.dims
    rows = {field: np.repeat(np.asarray(each), BATCH, axis=0) for field, each in draw(dims, 1)._asdict().items()}
    rows["recalled"][:] = 0.5
    places: list[tuple[str, Any]] = [("window", np.s_[: dims.context // 2]), ("window", np.s_[-3:])]
    places += [(field, np.s_[k]) for field in ("recall", "recalled", "static") for k in range(2)]
    places += [("seen", np.s_[:, k]) for k in range(dims.seen)]
    places += [("known", np.s_[when, k]) for when in (dims.context - 1, slice(dims.context, None)) for k in range(3)]
    assert len(places) < BATCH
    for row, (field, where) in enumerate(places):
        rows[field][row][where] += 2.0  # the last rows stay as they are
    said = np.asarray(built.say(built.moved(), Inputs(**rows)))
    for row, place in enumerate(places):
        assert np.abs(said[row] - said[-1]).max() > 1e-4, place


def test_what_is_not_on_record_does_not_count(built: Any, draw: Draw) -> None:
    inputs = draw(built.dims, BATCH)._replace(recalled=np.zeros((BATCH, built.dims.recall), np.float32))
    said, other = (built.say(built.moved(), inputs._replace(recall=inputs.recall + by)) for by in (0.0, 100.0))
    np.testing.assert_array_equal(said, other)


def test_rows_of_a_batch_do_not_meet(built: Any, draw: Draw) -> None:
    inputs = draw(built.dims, BATCH)
    turned = Inputs(*(np.roll(each, 1, axis=0) for each in inputs))
    said, other = (np.asarray(built.say(built.moved(), given)) for given in (inputs, turned))
    np.testing.assert_allclose(np.roll(said, 1, axis=0), other, atol=1e-4)


def test_weights_are_all_the_state_and_their_paths_are_plain_names(built: Any) -> None:
    for path, variable in nnx.to_flat_state(built.weights):
        assert isinstance(variable, nnx.Param)
        assert variable[...].dtype == np.float32
        assert all(isinstance(part, str) and "." not in part and not part.isdigit() for part in path)


def test_the_same_seed_gives_the_same_weights_and_another_others(built: Any) -> None:
    first, again, other = (jax.tree.leaves(nnx.state(built.fresh(jax.random.key(seed)))) for seed in (7, 7, 8))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    if any(np.asarray(a).any() for a in first):  # linear networks begin at zero whatever the seed
        assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(first, other, strict=True))


def test_the_defaults_are_small(built: Any) -> None:
    dims = Dims(context=288, horizon=12, recall=2, seen=2, known=6, static=3)
    shapes = jax.eval_shape(lambda: nnx.state(built.settings.build(dims, nnx.Rngs(0))))
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes)) < 300_000
