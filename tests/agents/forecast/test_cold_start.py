"""A network that knows nothing of the series: what it needs, when simple methods take over, how wide its bands are."""

from dataclasses import replace

import numpy as np
import pytest

from agents.forecast.base import MEDIAN, Forecaster, Past
from agents.forecast.cold_start import ColdStart, factors_when_short, guess
from agents.forecast.frames import Series
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural
from twin.errors import PolicyError, UsageError

H, DAY = 24, 24
WIDE = ((3, 1.0, 2.0, 3.0, 4.0), (168, 1.0, 1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def cold() -> ColdStart:
    net = Neural(ResidualMLP(128), window=96, horizon=H, lags=(24, 168), start="day")
    return ColdStart(net, day_steps=DAY, lookback=168, widened=WIDE).fit()


def past(cold: ColdStart, values: np.ndarray, name: str = "new") -> Past:
    y = np.full((1, cold.context), np.nan)
    y[0, -len(values) :] = values[-cold.context :]
    return Past.of(y, [name], H, 3_600)


def test_it_is_a_forecaster_and_loads_its_checkpoint_without_any_series(cold):
    assert cold.fit() is cold  # loaded once
    assert (cold.pooled, cold.needs, cold.context) == (True, 3, 336)
    assert isinstance(cold, Forecaster)


def test_a_network_without_weights_or_checkpoint_is_refused_with_the_remedy(cold):
    bare = replace(cold.base, weights=None)
    with pytest.raises(UsageError, match="start="):
        ColdStart(replace(bare, start=None)).fit()
    with pytest.raises(PolicyError, match="nowhere"):
        ColdStart(replace(bare, start="nowhere.npz")).fit()
    with pytest.raises(UsageError, match="prior weights"):
        replace(cold, prior=(1.0,)).fit()


@pytest.mark.parametrize("steps", [3, 10, 24, 25, 100, 400])
def test_any_history_from_three_steps_on_gives_deciles_that_do_not_cross(cold, wave, steps):
    said, (answer,) = cold.answers(past(cold, wave(steps, day=DAY)), H)
    assert said.shape == (1, H, 9)
    assert np.isfinite(said).all()
    assert (np.diff(said, axis=-1) >= 0.0).all()
    assert answer.steps == min(steps, cold.context)
    assert sum(answer.weights.values()) == pytest.approx(1.0)


def test_two_steps_are_refused_and_the_message_says_what_to_do(cold):
    with pytest.raises(UsageError, match=r"2 steps on record.*guess"):
        cold.forecast(past(cold, np.array([1.0, 2.0])), H)


def test_a_hole_between_known_steps_is_refused(cold):
    values = np.arange(30.0)
    values[12] = np.nan
    with pytest.raises(UsageError, match="between known ones"):
        cold.forecast(past(cold, values), H)


def test_a_step_that_is_not_in_the_window_changes_nothing(cold, wave):
    values = wave(600, day=DAY)
    other = values.copy()
    other[: len(values) - cold.context] = 1e6
    assert np.array_equal(cold.forecast(past(cold, values), H), cold.forecast(past(cold, other), H))


def test_the_evidence_is_what_the_network_says_of_the_past_alone(cold, wave):
    """The forecasts from an inner origin do not move when what came after it does."""
    values, origins = wave(200, day=DAY), np.array([60, 120])
    later = values.copy()
    later[120:] += 50.0
    before, after = (cold._methods("new", v, origins, 3_600, H) for v in (values, later))
    assert np.array_equal(before, after)


def test_a_batch_says_what_each_origin_says_alone(cold, wave):
    values = wave(336, day=DAY)
    one, two = past(cold, values), past(cold, values[:50])
    both = Past.of(np.concatenate([one.y, two.y]), ["a", "b"], H, 3_600)
    said = cold.forecast(both, H)
    assert np.allclose(said, np.concatenate([cold.forecast(one, H), cold.forecast(two, H)]), rtol=1e-6)
    assert cold.forecast(both.rows([]), H).shape == (0, H, 9)


def test_where_yesterday_is_exactly_right_the_day_takes_over_and_the_reason_is_told(cold):
    rng = np.random.default_rng(0)
    values = np.tile(rng.normal(100.0, 20.0, DAY), 14)  # a pattern that no network has learned, again and again
    said, (answer,) = cold.answers(past(cold, values), H)
    assert answer.answered == "day_ago"
    assert "day_ago" in answer.why
    assert np.abs(said[0, :, MEDIAN] - values[:H]).mean() < 5.0


def test_where_the_future_is_noise_about_a_level_the_mean_outweighs_the_last_value(cold):
    values = np.random.default_rng(1).normal(100.0, 10.0, 336)
    _, (answer,) = cold.answers(past(cold, values), H)
    assert answer.weights["last_value"] < answer.weights["local_mean"] + answer.weights["checkpoint"]


def test_with_little_evidence_the_prior_answers(cold, wave):
    _, (few,) = cold.answers(past(cold, wave(6, day=DAY)), H)
    assert few.evidence < 1.0
    assert few.answered == "checkpoint"
    assert few.weights["day_ago"] == 0.0  # there is no yesterday
    _, (many,) = cold.answers(past(cold, wave(336, day=DAY)), H)
    assert many.evidence == pytest.approx(168 / H, abs=1.0)


def test_a_stronger_prior_stays_nearer_to_the_checkpoint(cold):
    values = np.tile(np.random.default_rng(0).normal(100.0, 20.0, DAY), 14)
    weights = [
        replace(cold, prior_looks=looks).answers(past(cold, values), H)[1][0].weights["checkpoint"]
        for looks in (0.5, 8.0, 1e6)
    ]
    assert weights[0] < weights[1] < weights[2]
    assert weights[2] == pytest.approx(cold.prior[0], abs=1e-3)


def test_bands_are_wider_where_less_is_known_by_the_factors_given(cold):
    assert cold.usual(3) == pytest.approx([4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0])
    assert cold.usual(1000) == pytest.approx(np.ones(9))
    assert (np.diff([cold.usual(n)[-1] for n in (3, 6, 24, 96, 168)]) < 0.0).all()


def test_a_series_that_never_moved_is_forecast_as_it_is(cold):
    said, _ = cold.answers(past(cold, np.full(50, 7.0)), H)
    assert np.abs(said[0, :, MEDIAN] - 7.0).max() < 0.05


@pytest.mark.parametrize(("steps", "scale", "shift"), [(5, 0.01, 0.0), (30, 1e4, -3.0), (60, 7.0, 50.0)])
def test_the_unit_of_a_series_does_not_matter(cold, steps, scale, shift):
    values = np.random.default_rng(steps).normal(1.0, 1.0, steps)
    said, moved = (cold.forecast(past(cold, each), H) for each in (values, scale * (values + shift)))
    assert np.allclose(moved / scale - shift, said, atol=1e-3)


def test_a_day_ago_is_asked_once_it_has_repeated_for_half_a_day(cold, wave):
    weights = [
        cold.answers(past(cold, wave(steps, day=DAY)), H)[1][0].weights["day_ago"] for steps in (DAY, 35, 36, 200)
    ]
    assert weights[:2] == [0.0, 0.0]
    assert min(weights[2:]) > 0.0


def test_short_series_of_what_was_learned_tell_how_much_wider_bands_must_be(cold, wave):
    series = [Series(f"s{k}", 0, 3_600, wave(1_000, seed=k, day=DAY)) for k in range(2)]
    rows = factors_when_short(cold, series, H, (4, 96), count=8)
    assert [row[0] for row in rows] == [4.0, 96.0]
    assert rows[0][-1] > rows[1][-1]
    with pytest.raises(UsageError, match="no series"):
        factors_when_short(cold, [series[0].until(60)], H, (4,))


# ---------------------------------------------------------------- no value yet


def test_a_guess_lies_within_the_capacity_is_the_same_for_every_step_and_says_that_it_is_one():
    found = guess("cpu", "cell", 200.0, H)
    assert found.said.shape == (H, 9)
    assert (found.said == found.said[0]).all()
    assert 0.0 < found.said[0, 0] < found.said[0, -1] < 200.0
    assert (np.diff(found.said[0]) > 0.0).all()
    assert found.recordings == 1
    assert "guess" in found.why


def test_what_was_never_recorded_may_be_anything_up_to_the_capacity():
    found = guess("disk", "cell", 10.0, 2)
    assert found.recordings == 0
    assert found.said[0] == pytest.approx(np.arange(1.0, 10.0))


def test_one_recording_counts_as_much_as_an_even_spread():
    """Half the chance lies in the recording (17.8 to 32.8 % of a cluster's CPU), the other half is even."""
    said = guess("cpu", "cell", 1.0, 1).said[0]
    assert said[MEDIAN] == pytest.approx(0.281, abs=0.01)
    assert said[-1] == pytest.approx(0.8, abs=0.01)  # of the upper fifth of the even half, half is left


@pytest.mark.parametrize(("level", "capacity"), [("cell", 0.0), ("cell", np.nan), ("rack", 1.0)])
def test_a_guess_without_a_capacity_or_of_an_unknown_level_is_refused(level, capacity):
    with pytest.raises(UsageError, match="capacity"):
        guess("cpu", level, capacity, 1)
