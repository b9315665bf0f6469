"""Golden numbers and laws of the layers that architectures share, and of their own fixed maps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from agents.forecast.nets.base import Dims, Inputs
from agents.forecast.nets.layers import Norm, Views, drop, interpolation, patches
from agents.forecast.nets.linear_net import moving_average
from agents.forecast.nets.patch import PatchTransformer
from agents.forecast.nets.recurrent import LinearRecurrence
from agents.forecast.nets.recurrent_net import Recurrence
from agents.forecast.nets.residual import ResidualMLP
from twin.errors import UsageError


def test_views_of_a_day_are_two_hours_in_full_six_in_quarters_and_all_in_hours() -> None:
    matrix = Views(288, (12, 4, 1), 24).matrix()
    assert matrix.shape == (288, 72)
    assert sorted(set((matrix > 0).sum(axis=0))) == [1, 3, 12]
    assert matrix[-1, 0] == 1.0
    assert (matrix[:, 47] > 0).nonzero()[0].tolist() == [216, 217, 218]


@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 13))
def test_views_are_means_and_leave_no_step_out(context: int, count: int, part: int) -> None:
    matrix = Views(context, (part, 1), count).matrix()
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, rtol=1e-5)
    assert (matrix.sum(axis=1) > 0).all()


@given(st.integers(1, 40), st.integers(1, 30))
def test_interpolated_knots_stay_between_their_neighbours(knots: int, steps: int) -> None:
    matrix = interpolation(knots, steps)
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, rtol=1e-5)
    assert (matrix >= 0).all()
    if steps > 1:
        assert matrix[0, 0] == 1.0
        assert matrix[-1, -1] == 1.0


def test_interpolation_is_linear() -> None:
    np.testing.assert_allclose(np.array([0.0, 4.0, 2.0]) @ interpolation(3, 5), [0.0, 2.0, 4.0, 3.0, 2.0])


@given(st.integers(1, 40), st.integers(1, 30))
def test_a_moving_average_keeps_a_level(context: int, steps: int) -> None:
    np.testing.assert_allclose(moving_average(context, steps).sum(axis=0), 1.0, rtol=1e-5)


def test_a_moving_average_repeats_the_ends() -> None:
    np.testing.assert_allclose(np.array([0.0, 3.0, 6.0]) @ moving_average(3, 3), [1.0, 3.0, 5.0])


def test_patches_end_at_the_origin_and_repeat_the_first_step() -> None:
    found = patches(jnp.arange(1.0, 6.0)[None, :, None], 3)
    np.testing.assert_array_equal(found, [[[1.0, 1.0, 2.0], [3.0, 4.0, 5.0]]])


def test_a_norm_of_nothing_is_nothing() -> None:
    np.testing.assert_array_equal(Norm(4)(jnp.ones((2, 4))), np.zeros((2, 4)))


def test_a_recurrence_is_what_its_steps_make_of_it() -> None:
    """The product with powers, against states carried from step to step as complex numbers."""
    recurrence = Recurrence(LinearRecurrence(width=3, states=4), nnx.Rngs(0))
    u = np.random.default_rng(0).standard_normal((2, 9, 3)).astype(np.float32)
    keep = np.exp(-np.exp(np.asarray(recurrence.damping[...])))
    assert (keep > 0.5).all()
    assert (keep < 0.99).all()
    turn = keep * np.exp(1j * np.asarray(recurrence.turning[...]))
    entered = np.asarray(recurrence.enter(jnp.asarray(u))) * np.sqrt(1 - keep**2)
    state, states = np.zeros((2, 4), np.complex128), []
    for t in range(9):
        state = turn * state + entered[:, t]
        states.append(np.concatenate([state.real, state.imag], axis=1))
    expected = recurrence.read(jnp.asarray(np.stack(states, axis=1), jnp.float32))
    np.testing.assert_allclose(recurrence(jnp.asarray(u)), expected, atol=1e-5)


def test_dropping_keeps_the_mean_and_happens_only_where_random_numbers_are_given() -> None:
    x = jnp.ones((200, 200))
    dropped = drop(x, 0.25, nnx.Rngs(0))
    assert float((dropped == 0).mean()) == pytest.approx(0.25, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert drop(x, 0.25, None) is x
    assert drop(x, 0.0, nnx.Rngs(0)) is x


def test_dropout_changes_an_answer_in_training_and_holds_no_state(
    draw: Callable[..., Inputs], compiled: Callable[..., Any]
) -> None:
    dims = Dims(context=12, horizon=2)
    network = compiled(lambda: ResidualMLP(width=8, dropout=0.5).build(dims, nnx.Rngs(0)))()
    network.leave.raw.kernel[...] += 0.1
    assert all(isinstance(variable, nnx.Param) for _, variable in nnx.to_flat_state(nnx.state(network)))

    def thrice(inputs: Inputs) -> tuple[jax.Array, ...]:
        return network(inputs), network(inputs), network(inputs, nnx.Rngs(1))

    first, again, dropped = (np.asarray(said) for said in compiled(thrice)(draw(dims, 4)))
    np.testing.assert_array_equal(first, again)
    assert (dropped != first).any()


def test_a_smooth_skip_has_a_weight_per_mean(draw: Callable[..., Inputs]) -> None:
    dims = Dims(context=48, horizon=2)

    def shapes(smooth: bool) -> Any:
        network = ResidualMLP(width=8, means=4, smooth=smooth).build(dims, nnx.Rngs(0))
        return network.skip.window.kernel[...], network(draw(dims, 3))

    rough, smooth = (jax.eval_shape(partial(shapes, each)) for each in (False, True))
    assert [each.shape for each in rough] == [(48, 2), (3, 2, 9)]
    assert [each.shape for each in smooth] == [(2 + 4 + 4 + 4, 2), (3, 2, 9)]


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UsageError, match="5 heads must divide its width 64"):
        PatchTransformer(heads=5)
