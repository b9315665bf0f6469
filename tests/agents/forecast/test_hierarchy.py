"""Reconciled forecasts add up at every level, in every draw and for every method; coherent ones stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.forecast.base import DECILES
from agents.forecast.hierarchy import METHODS, Hierarchy, hierarchy, projection, reconciled, temporal
from twin.errors import UsageError

PATHS = {"m1": ("cell", "a"), "m2": ("cell", "b"), "m3": ("cell", "a"), "m4": ("cell", "b"), "m5": ("cell", "b")}
LEVELS = ("cell", "pool", "machine")
TREE = hierarchy(PATHS, LEVELS)


def errors_of(tree: Hierarchy, rng: np.random.Generator, origins: int = 80, h: int = 4) -> np.ndarray:
    """Errors of the bottom nodes that go together, and larger ones of the aggregates' own."""
    bottom = rng.standard_normal((origins, tree.bottom, h)) + 0.7 * rng.standard_normal((origins, 1, h))
    whole = np.einsum("nb,obh->onh", tree.sums, bottom)
    return (
        whole
        + 0.3 * rng.standard_normal(whole.shape) * (np.arange(len(tree.nodes)) < len(tree.nodes) - tree.bottom)[:, None]
    )


def said_of(tree: Hierarchy, rng: np.random.Generator, h: int = 4) -> np.ndarray:
    median = 10.0 * tree.sums.sum(axis=1)[:, None] + rng.standard_normal((len(tree.nodes), h))
    return median[..., None] + np.linspace(-2.0, 2.0, 9)


def test_the_levels_of_a_cell() -> None:
    assert TREE.nodes == ("cell", "a", "b", "m1", "m2", "m3", "m4", "m5")
    assert TREE.levels == {"cell": slice(0, 1), "pool": slice(1, 3), "machine": slice(3, 8)}
    assert TREE.aggregate(np.arange(1.0, 6.0)).tolist() == [15.0, 4.0, 11.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_levels_of_a_week() -> None:
    week = temporal({"week": 2_016, "day": 288, "hour": 12, "5 min": 1})
    assert [span.stop - span.start for span in week.levels.values()] == [1, 7, 168, 2_016]
    assert week.aggregate(np.ones(2_016))[[0, 1, 8]].tolist() == [2_016.0, 288.0, 12.0]


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(METHODS), st.integers(0, 99), st.booleans())
def test_point_and_every_draw_add_up_exactly(method: str, seed: int, floored: bool) -> None:
    rng = np.random.default_rng(seed)
    errors = errors_of(TREE, rng)
    matrix = projection(TREE, method, errors.transpose(1, 0, 2).reshape(8, -1))
    done = reconciled(TREE, said_of(TREE, rng), errors, matrix, least=9.5 if floored else -np.inf)
    assert np.abs(done.point - TREE.aggregate(done.point[-5:])).max() < 1e-9
    assert np.abs(done.draws - np.einsum("nb,dbh->dnh", TREE.sums, done.draws[:, -5:])).max() < 1e-9
    mean = done.draws.mean(axis=0)
    assert np.abs(mean - TREE.aggregate(mean[-5:])).max() < 1e-9
    assert (np.diff(done.said, axis=-1) >= 0.0).all()
    assert done.draws[:, -5:].min() >= 9.5 or not floored


@pytest.mark.parametrize("method", METHODS)
def test_what_adds_up_already_stays_as_it_is(method: str) -> None:
    rng = np.random.default_rng(0)
    matrix = projection(TREE, method, errors_of(TREE, rng).transpose(1, 0, 2).reshape(8, -1))
    whole = TREE.aggregate(rng.random((5, 3)))
    assert matrix @ whole == pytest.approx(whole, abs=1e-6)
    assert matrix @ matrix == pytest.approx(matrix, abs=1e-6)


def test_bottom_up_keeps_the_bottom_deciles_and_the_dependence_between_machines() -> None:
    rng = np.random.default_rng(1)
    errors, said = errors_of(TREE, rng, 2_000), said_of(TREE, rng)
    done = reconciled(TREE, said, errors, projection(TREE, "bottom_up"))
    assert done.said[-5:] == pytest.approx(said[-5:], abs=0.02)
    drawn, came = (np.corrcoef(part[:, -5:, 0].T) for part in (done.draws, errors))
    assert drawn == pytest.approx(came, abs=0.05)


def test_machines_that_err_together_make_a_wide_cell() -> None:
    rng = np.random.default_rng(2)
    said, matrix = said_of(TREE, rng), projection(TREE, "bottom_up")
    alone = rng.standard_normal((500, 8, 4))
    together = np.repeat(rng.standard_normal((500, 1, 4)), 8, axis=1)
    widths = [np.ptp(reconciled(TREE, said, errors, matrix).said[0], axis=-1) for errors in (alone, together)]
    assert (widths[1] > 1.8 * widths[0]).all()
    assert widths[1] == pytest.approx(5 * np.ptp(said[-1], axis=-1), rel=0.03)


def test_weighing_by_errors_is_better_than_each_nodes_own_forecast() -> None:
    rng = np.random.default_rng(3)
    truth = TREE.aggregate(rng.random((5, 400)) * 10.0)
    noise = rng.standard_normal(truth.shape) * np.array([3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0])[:, None]
    matrix = projection(TREE, "wls_var", noise[:, :200])
    own, mended = np.abs(noise[:, 200:]).mean(axis=1), np.abs(matrix @ noise[:, 200:]).mean(axis=1)
    assert (mended < own).all()


def test_levels_and_time_hold_together() -> None:
    """Both projections weigh by structure alone, so their order does not matter and both kinds of sums hold."""
    day = temporal({"day": 24, "6 h": 6, "hour": 1})
    across, along = projection(TREE, "wls_struct"), projection(day, "wls_struct")
    base = np.random.default_rng(4).random((len(TREE.nodes), len(day.nodes))) * 10.0
    both = across @ base @ along.T
    assert both == pytest.approx(across @ (base @ along.T))
    assert both == pytest.approx(TREE.aggregate(both[-5:]))
    assert both == pytest.approx(both[:, -24:] @ day.sums.T)


def test_tails_beyond_the_deciles_are_those_of_a_normal_where_the_deciles_are() -> None:
    from scipy.special import ndtri

    rng = np.random.default_rng(5)
    said = np.tile(ndtri(DECILES), (8, 1, 1))
    done = reconciled(TREE, said, rng.standard_normal((2_000, 8, 1)), projection(TREE, "bottom_up"))
    assert np.quantile(done.draws[:, -1, 0], [0.01, 0.99]) == pytest.approx(ndtri([0.01, 0.99]), abs=0.05)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="part of both"):
        hierarchy({"m1": ("cell", "a"), "m2": ("other", "a")}, LEVELS)
    with pytest.raises(UsageError, match="aggregates"):
        hierarchy({"m1": ("cell",)}, LEVELS)
    with pytest.raises(UsageError, match="divide"):
        temporal({"day": 24, "odd": 5, "hour": 1})
    with pytest.raises(UsageError, match="past errors"):
        projection(TREE, "mint_shrink")
    with pytest.raises(UsageError, match="nodes"):
        reconciled(TREE, np.zeros((7, 1, 9)), np.zeros((50, 7, 1)), np.eye(7))
