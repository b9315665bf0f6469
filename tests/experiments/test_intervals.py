"""Interquartile means, bootstrap intervals and the summary table, on numbers worked by hand."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from experiments.intervals import Means, bootstrap_interval, iqm, means, paired_ratios, summarise, values_needed
from twin.errors import SchemaError, UsageError
from twin.trace import tables


def results(rows: Sequence[tuple[str, int, float | None]], kpi: str = "cost_usd") -> pl.DataFrame:
    """A results table of (controller, seed, value) rows in scenario "steady"."""
    return pl.DataFrame(
        {
            "controller": [row[0] for row in rows],
            "scenario": "steady",
            "seed": [row[1] for row in rows],
            "kpi": kpi,
            "entity": "cluster",
            "value": pl.Series([row[2] for row in rows], dtype=pl.Float64),
            "unit": "USD",
            "better": "lower",
        }
    )


def of(summary: pl.DataFrame, controller: str) -> dict:
    return summary.row(by_predicate=pl.col("controller") == controller, named=True)


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm([1, 2, 3, 4, 5, 6, 7, 8]) == 4.5
    assert iqm([8, 1, 7, 2, 6, 3, 5, 4]) == 4.5
    assert iqm([0, 10, 12, 1000]) == 11.0
    assert iqm([3.0]) == 3.0
    assert math.isnan(iqm([]))


def test_one_value_has_no_interval_and_equal_ones_have_a_point():
    assert all(map(math.isnan, bootstrap_interval([3.0], 1)))
    assert bootstrap_interval([0.1] * 7, 1) == (0.1, 0.1)


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not():
    values = np.random.default_rng(0).normal(size=12)
    assert bootstrap_interval(values, 1) == bootstrap_interval(values, 1)
    assert bootstrap_interval(values, 1) != bootstrap_interval(values, 2)


def test_the_interval_is_that_of_the_interquartile_mean():
    """One value in twelve is absurd: the plain mean would follow it to thousands."""
    _, high = bootstrap_interval([*range(1, 12), 1e6], 1, level=0.9)
    assert high < 20


def test_a_higher_level_gives_a_wider_interval():
    values = np.random.default_rng(0).normal(size=12)
    low, high = bootstrap_interval(values, 1, level=0.5)
    wide_low, wide_high = bootstrap_interval(values, 1, level=0.99)
    assert wide_low < low < iqm(values) < high < wide_high


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_the_interval_lies_within_the_values(values):
    low, high = bootstrap_interval(values, 3)
    assert min(values) - 1e-6 <= low <= high <= max(values) + 1e-6


def test_a_ratio_to_zero_is_one_for_zero_and_none_otherwise():
    np.testing.assert_array_equal(paired_ratios([2.0, 0.0, 1.0, 3.0], [4.0, 0.0, 0.0, 2.0]), [0.5, 1.0, np.nan, 1.5])


def test_the_summary_pairs_seed_by_seed():
    """Ratios 0.5, 0.5, 0.5, 0.5: certain, though the values are spread."""
    rows = [("hpa", s, 10.0 * s) for s in (1, 2, 3, 4)] + [("learned", s, 5.0 * s) for s in (4, 3, 2, 1)]
    learned = of(summarise(results(rows), "hpa", 0), "learned")
    assert (learned["value"], learned["seeds"]) == (12.5, 4)
    assert learned["low"] < 12.5 < learned["high"]
    assert (learned["ratio"], learned["ratio_low"], learned["ratio_high"]) == (0.5, 0.5, 0.5)
    assert learned["baseline"] == "hpa"


def test_the_baselines_ratio_to_itself_is_one():
    hpa = of(summarise(results([("hpa", s, float(s)) for s in range(5)]), "hpa", 0), "hpa")
    assert (hpa["ratio"], hpa["ratio_low"], hpa["ratio_high"]) == (1.0, 1.0, 1.0)


def test_the_summary_fits_its_schema_and_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    rows = [(name, seed, float(rng.normal(10))) for name in ("hpa", "learned", "static") for seed in range(8)]
    frame = results(rows)
    summary = summarise(frame, "hpa", 7)
    assert_frame_equal(summary, tables.conform(summary, "summary", "test"))
    shuffled = summarise(frame.sample(fraction=1.0, shuffle=True, seed=3), "hpa", 7)
    assert_frame_equal(summary.sort("controller"), shuffled.sort("controller"))


def test_adding_a_controller_does_not_shift_the_others_intervals():
    rng = np.random.default_rng(0)
    two = [(name, seed, float(rng.normal(10))) for name in ("hpa", "learned") for seed in range(8)]
    before = of(summarise(results(two), "hpa", 7), "learned")
    after = of(summarise(results([("aimd", s, 1.0) for s in range(8)] + two), "hpa", 7), "learned")
    assert before == after


def test_unscored_values_count_for_nothing():
    rows = [("hpa", s, 10.0) for s in range(4)] + [("learned", s, v) for s, v in enumerate([5.0, None, math.inf, 7.0])]
    learned = of(summarise(results(rows), "hpa", 0), "learned")
    assert (learned["seeds"], learned["value"], learned["ratio"]) == (2, 6.0, 0.6)


def test_a_kpi_that_was_never_scored_is_null_and_not_zero():
    rows = [("hpa", s, 10.0) for s in range(4)] + [("learned", s, None) for s in range(4)]
    learned = of(summarise(results(rows), "hpa", 0), "learned")
    assert learned["seeds"] == 0
    assert all(learned[c] is None for c in ("value", "low", "high", "ratio", "ratio_low", "ratio_high"))


def test_one_seed_has_a_value_and_no_interval():
    learned = of(summarise(results([("hpa", 0, 10.0), ("learned", 0, 5.0)]), "hpa", 0), "learned")
    assert (learned["value"], learned["ratio"]) == (5.0, 0.5)
    assert all(learned[c] is None for c in ("low", "high", "ratio_low", "ratio_high"))


def test_one_pair_without_a_ratio_leaves_the_ratio_unknown():
    """Dropping the seed in which only the baseline answered in time would flatter the candidate."""
    rows = [("hpa", 0, 0.0), ("hpa", 1, 0.2), ("learned", 0, 0.5), ("learned", 1, 0.1)]
    assert of(summarise(results(rows, "late_ratio"), "hpa", 0), "learned")["ratio"] is None


def test_an_unknown_baseline_names_the_known_controllers():
    with pytest.raises(UsageError, match=r"'vpa'.*\['hpa'\]"):
        summarise(results([("hpa", 0, 1.0)]), "vpa", 0)


def test_the_same_cell_twice_is_refused_by_name():
    with pytest.raises(UsageError, match=r"more than once: controller 'hpa'.*seed 0"):
        summarise(results([("hpa", 0, 1.0), ("hpa", 0, 2.0)]), "hpa", 0)


def test_a_table_without_seeds_is_no_results_table():
    with pytest.raises(SchemaError, match="seed"):
        summarise(results([("hpa", 0, 1.0)]).drop("seed"), "hpa", 0)


# ------------------------------------------------ means, for judging


def test_an_interval_needs_as_many_values_as_coins_must_agree():
    assert [values_needed(level) for level in (0.5, 0.95, 0.99, 0.999)] == [2, 6, 8, 11]
    five = means([1.0, 2.0, 3.0, 4.0, 5.0], np.random.default_rng(0))
    assert all(map(math.isnan, five.interval(0.95)))
    assert five.interval(0.9)[0] < 3.0 < five.interval(0.9)[1]


def test_the_quantiles_of_ten_values_are_those_of_the_published_table():
    """Hesterberg 2015: for n = 10 the 95 % interval takes the 0.86 % quantile where the plain one takes 2.5 %."""
    low, high = Means(0.5, 10, np.linspace(0, 1, 10_001)).interval(0.95)
    assert (low, high) == (pytest.approx(0.0086, abs=5e-5), pytest.approx(0.9914, abs=5e-5))


def test_equal_values_are_certain_as_far_as_their_number_carries():
    ten = means([2.0] * 10, np.random.default_rng(0))
    assert ten.interval(0.95) == (2.0, 2.0)
    assert ten.probability_below(2.0) == 11 / 12
    assert ten.probability_below(1.9) == pytest.approx(1 / 12)


def test_picking_the_best_of_many_costs_certainty():
    values = means(np.random.default_rng(1).normal(-0.3, 1.0, 30), np.random.default_rng(0))
    assert values.probability_below(0.0, chances=6) < values.probability_below(0.0)


@pytest.mark.parametrize("count", [8, 10, 20])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(count):
    """95 % within four standard errors of 400 draws, where the plain percentile bootstrap has about 90 %."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        low, high = means(rng.normal(size=count), rng).interval(0.95)
        covered += low <= 0.0 <= high
    assert 0.906 <= covered / 400 <= 0.994


def test_probabilities_grow_with_the_bound_and_agree_with_the_interval():
    sample = means(np.random.default_rng(2).normal(size=12), np.random.default_rng(0))
    low, high = sample.interval(0.8)
    probabilities = [sample.probability_below(bound) for bound in np.linspace(-2, 2, 41)]
    assert probabilities == sorted(probabilities)
    assert sample.probability_below(low) == pytest.approx(0.1, abs=0.01)
    assert sample.probability_below(high) == pytest.approx(0.9, abs=0.01)


def test_nothing_is_known_of_nothing():
    none = means([], np.random.default_rng(0))
    assert math.isnan(none.value)
    assert none.probability_below(0.0) == 0.0
