import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import twin
from agents.forecast.frames import Columns, demand, first, mirrored, normalise, panel, series, steps_in, windows
from twin.errors import UsageError


def test_series_are_the_recorded_usage_by_trace_and_resource():
    trace = twin.read("google2019")
    frame = series(trace)
    assert frame["unique_id"].unique().sort().to_list() == [
        "google2019/assigned_memory",
        "google2019/cpi",
        "google2019/cpu",
        "google2019/memory",
    ]
    assert dict(frame.schema) == {"unique_id": pl.String, "ds": pl.Int64, "y": pl.Float64}
    recorded = trace.usage.filter(resource="cpu")
    assert series(trace, ["cpu"])["y"].equals(recorded["value"].rename("y"))
    assert series(trace, ["cpu"])["ds"].to_list()[:3] == [0, 300, 600]


def test_demand_of_the_embedded_cell_is_its_cpu():
    trace = twin.read("google2019")
    frame = demand(trace, ["cell"])
    assert frame["unique_id"][0] == "google2019/demand/cell"
    assert frame["y"].equals(series(trace, ["cpu"])["y"])


def test_several_entities_stay_several_series():
    trace = twin.read("google2019")
    doubled = pl.concat([trace.usage, trace.usage.with_columns(pl.lit("other").alias("entity"))])
    ids = series(trace.replacing("doubled", usage=doubled), ["cpu"])["unique_id"].unique().sort().to_list()
    assert ids == ["google2019/cell/cpu", "google2019/other/cpu"]


@pytest.mark.parametrize("ask", [series, demand])
def test_what_was_not_recorded_is_refused_by_name(ask):
    with pytest.raises(UsageError, match=r"gpu.*recorded"):
        ask(twin.read("google2019"), ["gpu"])


def test_the_order_of_rows_does_not_matter(long):
    frame = long(b=np.arange(5), a=np.arange(7))
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    for one, other in zip(panel(frame), panel(shuffled), strict=True):
        assert (one.unique_id, one.start_s, one.step_s) == (other.unique_id, other.start_s, other.step_s)
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pl.when(pl.col("ds") == 600).then(None).otherwise(pl.col("y")).alias("y"), r"'a'.*600 s is unknown"),
        (pl.when(pl.col("ds") == 600).then(601).otherwise(pl.col("ds")).alias("ds"), r"'a'.*one positive number"),
        (pl.when(pl.col("ds") == 600).then(300).otherwise(pl.col("ds")).alias("ds"), r"'a'.*one positive number"),
    ],
)
def test_irregular_or_unknown_is_refused_with_its_place(long, spoil, message):
    with pytest.raises(UsageError, match=message):
        panel(long(a=np.arange(5)).with_columns(spoil))


@given(n=st.integers(2, 40), share=st.floats(0.0, 1.0), leaving=st.integers(0, 50))
def test_the_first_share_is_the_earliest_rows(n, share, leaving):
    frame = pl.DataFrame({"unique_id": ["a"] * n, "ds": np.arange(n)[::-1], "y": np.arange(n)[::-1]})
    (kept,) = first(panel(frame), share, leaving)
    assert kept.values.tolist() == list(range(max(min(int(n * share), n - leaving), 0)))
    assert len(kept.values) == steps_in(n, share, leaving)


def _with_columns(frame):
    return frame.with_columns(pl.col("ds").alias("plan"), (2 * pl.col("ds")).alias("other"), pl.lit(7.0).alias("size"))


def test_columns_stand_beside_the_values_and_rows_to_come_say_what_is_known(long):
    frame = _with_columns(long(a=np.arange(5))).with_columns(
        pl.when(pl.col("ds") < 900).then("y").alias("y"), pl.when(pl.col("ds") < 900).then("other").alias("other")
    )
    (one,) = panel(frame, Columns(("plan",), ("other",), ("size",)))
    assert one.values.tolist() == [0, 1, 2]
    assert one.known[:, 0].tolist() == [0, 300, 600, 900, 1200]
    assert one.seen[:, 0].tolist() == [0, 600, 1200]
    assert one.static.tolist() == [7.0]
    early = one.until(2)
    assert (len(early.values), len(early.known), len(early.seen)) == (2, 2, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pl.when(pl.col("ds") != 300).then("plan").alias("plan"), r"known column at 300 s is unknown"),
        (pl.when(pl.col("ds") != 300).then("other").alias("other"), r"seen column at 300 s is unknown"),
        (pl.when(pl.col("ds") == 300).then(1.0).otherwise("size").alias("size"), r"static column changes"),
    ],
)
def test_a_column_with_a_hole_is_refused_with_its_place(long, spoil, message):
    with pytest.raises(UsageError, match=message):
        panel(_with_columns(long(a=np.arange(5))).with_columns(spoil), Columns(("plan",), ("other",), ("size",)))


def test_a_missing_column_is_named(long):
    with pytest.raises(UsageError, match="'plan' is missing"):
        panel(long(a=np.arange(5)), Columns(("plan",)))


def test_a_window_ends_right_before_its_origin():
    assert windows(np.arange(10.0), np.array([3, 10]), 3).tolist() == [[0, 1, 2], [7, 8, 9]]


def test_a_window_that_begins_before_the_series_is_unknown_there():
    np.testing.assert_array_equal(windows(np.arange(10.0), np.array([1, 4]), 3), [[np.nan, np.nan, 0], [1, 2, 3]])


@given(st.lists(st.floats(0.1, 1e3), min_size=3, max_size=20), st.floats(0.01, 1e4))
def test_normalising_follows_the_unit_of_the_series(values, factor):
    window = np.array([values])
    shape, last, scale = normalise(window)
    again, last_again, scale_again = normalise(window * factor)
    np.testing.assert_allclose(again, shape, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose([last_again, scale_again], [last * factor, scale * factor], rtol=1e-6)
    np.testing.assert_allclose(last + scale * shape, window, rtol=1e-9)
    assert scale >= 1e-3 * last * (1 - 1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9), st.integers(0, 30))
def test_an_unknown_beginning_is_what_follows_mirrored(values, missing):
    window = np.array([[np.nan] * missing + values])
    np.testing.assert_array_equal(mirrored(window)[0], np.pad(np.array(values), (missing, 0), mode="reflect"))


def test_a_window_of_which_nothing_is_known_stays_unknown():
    assert np.isnan(mirrored(np.full((2, 5), np.nan))).all()
