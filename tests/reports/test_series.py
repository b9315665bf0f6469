"""Bins keep what they stand for: means, bounds, sums of ratios, and gaps."""

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import folder, series


@pytest.fixture(scope="module")
def run(small_folder):
    return folder.read(small_folder)


@pytest.fixture(scope="module")
def binned(run):
    return series.build(run)


def line(binned, run_label):
    number = binned.lines.filter(run=run_label)["series"][0]
    return binned.steps.filter(series=number).sort("bin")


def steps(run, label):
    return next(r for r in run.runs if r.label == label).service_steps


@given(st.floats(60, 86_400 * 60), st.integers(1, 200), st.sampled_from([1.0, 15.0, 60.0, 300.0]))
def test_no_series_has_more_points_than_a_page_can_show(end_s, lines, step):
    bin_s = series.bin_width(end_s, lines, step)
    assert bin_s >= step
    assert end_s / bin_s <= series.MAX_POINTS
    assert bin_s == series.bin_width(end_s, lines, step)


def test_bins_are_equal_for_all_lines_and_numbered_from_zero(binned):
    counted = binned.steps.group_by("series").agg(pl.col("bin").min().alias("first"), pl.len())
    assert counted["first"].to_list() == [0] * 15
    assert counted["len"].unique().to_list() == [7 * 86_400 / binned.bin_s]


def test_the_mean_lies_between_the_bounds(binned):
    known = binned.steps.drop_nulls()
    for measure in series.MEASURES:
        assert (known[f"{measure}_min"] <= known[measure] + 1e-9).all()
        assert (known[measure] <= known[f"{measure}_max"] + 1e-9).all()


def test_full_bins_keep_the_mean_and_the_extremes_of_the_run(run, binned):
    raw, seen = steps(run, "surge--ppo"), line(binned, "surge--ppo")
    assert seen["ready"].mean() == pytest.approx(raw["ready_replicas"].mean())
    assert seen["ready_max"].max() == raw["ready_replicas"].max()
    assert seen["demand"].mean() == pytest.approx(raw["arrived_requests"].mean() / 60.0)


def test_a_ratio_is_the_ratio_of_sums(run, binned):
    raw, seen = steps(run, "surge--ppo"), line(binned, "surge--ppo")
    first = raw.filter(pl.col("time_s") <= binned.bin_s)
    late = first["late_requests"].sum() + first["dropped_requests"].sum()
    assert seen["late"][0] == pytest.approx(100.0 * late / first["arrived_requests"].sum())


def test_a_request_that_failed_counts_as_much_as_a_late_one(run):
    first = run.runs[0]
    frame = first.service_steps.with_columns(failed_requests=0.25 * pl.col("arrived_requests"), late_requests=0.0)
    built = series.build(replace(run, runs=(replace(first, service_steps=frame.with_columns(dropped_requests=0.0)),)))
    assert built is not None
    assert built.steps["late"].drop_nulls().to_list() == pytest.approx([25.0] * built.steps["late"].count())


def test_what_was_not_recorded_is_null_and_not_zero(binned):
    lost = line(binned, "recorded--ppo").filter(pl.col("bin").is_between(4.5 * 48, 4.625 * 48 - 1))
    assert lost.height == 6
    assert lost["demand"].null_count() == lost["late"].null_count() == 6
    assert line(binned, "surge--ppo")["demand"].null_count() == 0


def test_failed_nodes_become_spans_of_their_scenario(binned):
    assert binned.failures["scenario"].unique().to_list() == ["node_failures"]
    assert binned.failures.height == 2
    assert binned.failures["start_s"][0] == pytest.approx(2.2 * 86_400, abs=60)
    assert binned.failures["end_s"][0] == pytest.approx(2.32 * 86_400, abs=60)
    assert binned.incidents["kind"].to_list() == ["nodes down", "nodes down"]
    assert binned.incidents["count"].to_list() == [3, 3]


def test_the_best_forecaster_is_drawn_in_requests_per_second(binned):
    assert binned.forecaster == "flax_quantile"
    recorded = binned.forecast.filter(scenario="recorded")
    both = recorded.join(line(binned, "surge--ppo").select("bin", "demand"), on="bin")
    assert (both["q50"] / both["demand"]).median() == pytest.approx(1.0, abs=0.1)
    assert (recorded["q10"] <= recorded["q90"]).all()


def test_forecasts_of_the_whole_recording_fall_on_the_shown_cut(run):
    """Shown runs begin 20 days into the recording, where forecasts count from its start, under the resource's name."""
    moved = run.forecasts.with_columns(pl.col("time_s") + 20 * 86_400.0, pl.lit("recording/cpu").alias("unique_id"))
    cut = replace(run, forecasts=moved, identity={**run.identity, "shown_from_s": 20 * 86_400.0})
    found, straight, lost = (series.build(each) for each in (cut, run, replace(run, forecasts=moved)))
    assert found is not None
    assert straight is not None
    assert lost is not None
    assert found.forecast.equals(straight.forecast)
    assert straight.forecast.height > 0
    assert lost.forecast.height == 0


def test_a_forecast_of_another_demand_is_not_drawn(run):
    other = replace(run, forecasts=run.forecasts.with_columns(pl.col("y") * 1.5))
    binned = series.build(other)
    assert binned is not None
    assert binned.forecaster == ""
    assert binned.forecast.height == 0


def test_the_slo_comes_from_the_cluster(binned):
    assert binned.slo_late_percent == {"web": pytest.approx(5.0)}


def test_without_shown_runs_there_is_no_series(run):
    assert series.build(replace(run, runs=())) is None
