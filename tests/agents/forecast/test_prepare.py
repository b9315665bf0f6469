"""Dirty series: what is done is said, nothing good is lost, nothing later than the cutoff is looked at."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twin
from agents.forecast import mend
from agents.forecast.frames import Columns, panel, series
from agents.forecast.prepare import Prepare, prepare
from twin.errors import UsageError

STEP = 300
DAY = 288
AS_IS = Prepare()


def frame_of(y, ds=None, unique_id="a", **columns):
    ds = np.arange(len(y)) * STEP if ds is None else ds
    return pl.DataFrame({"unique_id": [unique_id] * len(y), "ds": ds, "y": np.asarray(y, float), **columns})


def one(frame, settings=AS_IS, **more):
    return prepare(frame, STEP, settings, **more).clean["a"]


def said(frame, settings=AS_IS, **more):
    return {row["what"]: row["steps"] for row in prepare(frame, STEP, settings, **more).report.iter_rows(named=True)}


@pytest.mark.parametrize("name", ["google2019", "azure_v2", "alibaba2018"])
def test_a_clean_recording_stays_as_it_is_and_nothing_is_said(name):
    frame = series(twin.read(name))
    done = prepare(frame, STEP)
    assert done.report.is_empty()
    assert not done.refused
    for each in panel(frame):
        mine = done.clean[each.unique_id]
        np.testing.assert_array_equal(mine.series.values, each.values)
        assert (mine.series.start_s, mine.stale) == (each.start_s, 0)


def test_the_order_of_rows_changes_nothing(wave):
    frame = frame_of(wave(400)).filter(pl.col("ds") % 2100 != 0)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    np.testing.assert_array_equal(one(frame).series.values, one(shuffled).series.values)


@pytest.mark.parametrize(("how", "value"), [("mean", 15.0), ("last", 10.0)])
def test_rows_of_one_step_become_one_as_the_setting_says(how, value):
    frame = frame_of([1, 20, 10, 3], ds=[0, 300, 300, 600])
    assert one(frame, Prepare(duplicates=how)).series.values.tolist() == [1, value, 3]
    assert said(frame, Prepare(duplicates=how)) == {"duplicates": 1}


def test_an_unknown_duplicate_hides_no_known_one():
    frame = frame_of([1, 20, np.nan, 3], ds=[0, 300, 300, 600])
    assert one(frame, Prepare(duplicates="last")).series.values.tolist() == [1, 20, 3]


@given(st.integers(0, 999))
def test_trembling_stamps_are_snapped_to_their_step(seed):
    rng = np.random.default_rng(seed)
    y = rng.uniform(1, 2, 120)
    done = one(frame_of(y, ds=np.arange(120) * STEP + rng.uniform(-30, 30, 120)))
    assert done.series.start_s == 0
    np.testing.assert_array_equal(done.series.values, y)


def test_stamps_on_a_second_of_their_own_keep_it():
    done = one(frame_of([1, 2, 3, 4], ds=np.arange(4) * STEP + 17))
    assert done.series.start_s == 17


def test_a_stray_stamp_is_left_out_and_its_step_filled():
    ds = np.arange(20) * STEP
    ds[10] += 140
    frame = frame_of(np.arange(20), ds=ds)
    assert one(frame).series.values.tolist() == list(range(20))
    assert said(frame) == {"off the step": 1, "short gaps": 1}


def test_before_a_clock_jump_all_is_cut_off_or_snapped_as_the_setting_says():
    ds = np.arange(40) * STEP
    ds[:15] -= 140
    frame = frame_of(np.arange(40), ds=ds)
    cut = one(frame)
    assert (cut.series.start_s, cut.series.values.tolist()) == (15 * STEP, list(range(15, 40)))
    assert said(frame) == {"clock jump": 15}
    assert len(one(frame, Prepare(at_jump="snap")).series.values) == 40


def test_stamps_of_another_step_are_refused_with_a_remedy():
    done = prepare(frame_of(np.arange(40), ds=np.arange(40) * 437), STEP)
    assert "keep to no step of 300 s" in done.refused["a"]


def test_a_short_gap_is_bridged_by_a_line_a_long_one_by_the_days_around_it(wave):
    y = wave(5 * DAY, noise=0.0)
    short, long = y.copy(), y.copy()
    short[700:703] = np.nan
    long[700:760] = np.nan
    np.testing.assert_allclose(one(frame_of(short)).series.values[699:704], np.linspace(y[699], y[703], 5))
    np.testing.assert_allclose(one(frame_of(long)).series.values, y)
    assert said(frame_of(long)) == {"long gaps": 60}
    without = pl.concat([frame_of(y)[:700], frame_of(y)[760:]])
    np.testing.assert_allclose(one(without).series.values, y)


def test_a_gap_too_long_to_fill_cuts_off_what_lies_before(wave):
    y = wave(5 * DAY)
    y[400 : 401 + DAY] = np.nan
    done = one(frame_of(y))
    assert done.series.start_s == (401 + DAY) * STEP
    np.testing.assert_array_equal(done.series.values, y[401 + DAY :])


def test_the_newest_unknown_steps_are_counted_and_not_invented():
    for frame in (frame_of([*range(20), np.nan, np.nan]), frame_of(np.arange(20))):
        done = one(frame, cutoff_s=21 * STEP)
        assert (len(done.series.values), done.stale, done.end_s) == (20, 2, 22 * STEP)
    assert one(frame_of([*range(20), np.nan])).stale == 1


@pytest.mark.parametrize(
    ("y", "why"),
    [
        ([np.nan] * 30, "no value of it is known"),
        ([1.0, np.nan], "1 regular steps are left"),
        ([*np.arange(10.0), *[np.nan] * 300], "most_stale_days"),
        ([1.0, *[np.nan] * 5, 2.0, *[np.nan] * 5, 3.0], "77% of its steps are unknown"),
        ([np.inf] * 30, "no value of it is known"),
    ],
)
def test_what_cannot_be_forecast_is_refused_with_its_reason_and_the_others_go_on(y, why):
    settings = Prepare(most_filled=0.7)
    done = prepare(pl.concat([frame_of(y), frame_of(np.arange(50), unique_id="b")]), STEP, settings)
    assert why in done.refused["a"]
    assert list(done.clean) == ["b"]
    assert done.clean["b"].series.values.tolist() == list(range(50))


def test_isolated_outliers_become_the_median_of_their_surroundings_and_bursts_stay(wave):
    y = wave(400, noise=0.1)
    spiked = y.copy()
    spiked[100] = 500.0
    spiked[200:206] += 50.0
    done = one(frame_of(spiked), Prepare(outliers_sigma=6)).series.values
    assert abs(done[100] - y[100]) < 0.5
    np.testing.assert_array_equal(done[200:206], spiked[200:206])
    np.testing.assert_array_equal(one(frame_of(spiked)).series.values, spiked)


def test_a_level_shift_is_found_to_the_step_and_handled_as_the_setting_says(wave):
    y = wave(28 * DAY, noise=0.2)
    y[: 15 * DAY + 40] *= 3.0
    rescaled = one(frame_of(y), Prepare(shifts="rescale")).series.values
    assert abs(rescaled[: 10 * DAY].mean() / rescaled[-10 * DAY :].mean() - 1.0) < 0.02
    np.testing.assert_array_equal(rescaled[16 * DAY :], y[16 * DAY :])
    dropped = one(frame_of(y), Prepare(shifts="drop")).series
    assert abs(dropped.start_s / STEP - (15 * DAY + 40)) <= 2
    np.testing.assert_array_equal(one(frame_of(y)).series.values, y)


def test_weekends_are_no_level_shift():
    rng = np.random.default_rng(0)
    day = np.arange(28 * DAY) // DAY
    y = 100.0 - 40.0 * (day % 7 > 4) + rng.normal(size=len(day))
    assert mend.last_shift(y, DAY, 4.0) is None


def test_columns_beside_the_target_are_held_on_and_static_ones_are_one_number():
    frame = frame_of(np.arange(6), plan=[None, 1, None, 3, 4, 5], other=[0, 1, 2, 3, None, 5], size=[7] * 6)
    done = one(frame, columns=Columns(("plan",), ("other",), ("size",))).series
    assert done.known[:, 0].tolist() == [1, 1, 1, 3, 4, 5]
    assert done.seen[:, 0].tolist() == [0, 1, 2, 3, 3, 5]
    assert done.static.tolist() == [7]
    changing = frame.with_columns(size=pl.col("ds"))
    assert "exactly one value" in prepare(changing, STEP, columns=Columns(static=("size",))).refused["a"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"unique_id": ["a"], "ds": [0]}), "needs the column 'y'"),
        (pl.DataFrame({"unique_id": ["a"], "ds": [0], "y": ["1"]}), "'y' holds String"),
        (pl.DataFrame({"unique_id": [None], "ds": [0], "y": [1.0]}), "no unique_id"),
    ],
)
def test_a_frame_that_is_none_is_refused(frame, message):
    with pytest.raises(UsageError, match=message):
        prepare(frame, STEP)


@pytest.mark.parametrize("settings", [{"duplicates": "first"}, {"tolerance": 0.7}, {"shifts": "x"}, {"least_steps": 0}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(UsageError, match="prepare"):
        Prepare(**settings)


EVERYTHING = Prepare(outliers_sigma=4.0, shifts="rescale", hampel_steps=3)


@settings(max_examples=40)
@given(seed=st.integers(0, 9999), cut=st.integers(30, 4100))
def test_nothing_after_the_cutoff_is_looked_at(seed, cut):
    """Other values, holes, doubles and stamps after the cutoff: the same series, refusal and report."""
    rng = np.random.default_rng(seed)
    y = 10 + np.cumsum(rng.normal(size=16 * DAY)) + 30 * (np.arange(16 * DAY) > 9 * DAY)
    frame = frame_of(y, ds=np.arange(len(y)) * STEP + rng.uniform(-20, 20, len(y)))
    frame = frame.filter(pl.Series(rng.random(len(y)) > 0.05))
    frame = pl.concat([frame, frame.sample(50, seed=seed)])
    cutoff_s = cut * STEP
    # a stamp may tremble over the cutoff and still belong to its step
    late = frame.filter(pl.col("ds") > cutoff_s + 0.5 * STEP)
    other = late.sample(fraction=0.5, seed=seed).with_columns(y=pl.Series(rng.uniform(-1e6, 1e6, len(late) // 2)))
    other = pl.concat([other, other.with_columns(pl.col("ds") + 77)])
    early = frame.filter(pl.col("ds") <= cutoff_s + 0.5 * STEP)
    worlds = [prepare(each, STEP, EVERYTHING, cutoff_s=cutoff_s) for each in (frame, pl.concat([early, other]))]
    assert worlds[0].notes == worlds[1].notes
    assert worlds[0].refused == worlds[1].refused
    for key, clean in worlds[0].clean.items():
        np.testing.assert_array_equal(clean.series.values, worlds[1].clean[key].series.values)
        assert (clean.stale, clean.series.start_s) == (worlds[1].clean[key].stale, worlds[1].clean[key].series.start_s)


values = st.one_of(st.none(), st.floats(), st.floats(0, 1e3), st.just(0.0))
stamps = st.one_of(st.integers(0, 40).map(lambda k: k * 300.0), st.floats(-1e5, 1e7), st.floats(), st.none())


@settings(max_examples=150)
@given(rows=st.lists(st.tuples(st.sampled_from("ab"), stamps, values), max_size=60), snap=st.booleans())
def test_whatever_comes_is_a_regular_series_or_a_refusal_that_says_why(rows, snap):
    frame = pl.DataFrame(rows, schema={"unique_id": pl.String, "ds": pl.Float64, "y": pl.Float64}, orient="row")
    chosen = Prepare(at_jump="snap" if snap else "cut", outliers_sigma=3.0, shifts="rescale")
    done = prepare(frame, STEP, chosen)
    assert set(done.clean) | set(done.refused) == set(frame["unique_id"])
    assert not set(done.clean) & set(done.refused)
    assert all(why.startswith(f"series {key!r}: ") for key, why in done.refused.items())
    for clean in done.clean.values():
        assert np.isfinite(clean.series.values).all()
        assert len(clean.series.values) >= 3
        assert clean.stale >= 0


@given(st.lists(st.booleans(), max_size=40))
def test_run_lengths_are_those_of_a_loop(flags):
    expected = [0] * len(flags)
    for i in range(len(flags)):
        left = right = i
        while flags[i] and left > 0 and flags[left - 1]:
            left -= 1
        while flags[i] and right + 1 < len(flags) and flags[right + 1]:
            right += 1
        expected[i] = right - left + 1 if flags[i] else 0
    assert mend.run_lengths(np.array(flags, bool)).tolist() == expected
