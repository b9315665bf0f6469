"""The verbs that users of forecasting libraries know: frames in and out, cutoffs, refits, provenance, refusals."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twin
from agents.forecast.conformal import Conformal
from agents.forecast.covariates import Calendar, Event
from agents.forecast.cutoff import fingerprint
from agents.forecast.forecasting import Forecasting
from agents.forecast.frames import Columns, panel, series
from agents.forecast.naive import Naive
from agents.forecast.prepare import Prepare
from agents.forecast.statistical import AutoETS
from twin.errors import UsageError

STEP = 300
NAIVE = Forecasting([Naive()], step_s=STEP)


@dataclass(frozen=True)
class Spy:
    """Says the last value, and keeps what it was shown."""

    fits: list = field(default_factory=list)
    pasts: list = field(default_factory=list)
    name: str = "spy"
    pooled: bool = True
    context: int = 3
    needs: int = 1

    def fit(self, series, seed, progress=None):
        self.fits.append((list(series), seed))
        return self

    def forecast(self, past, h):
        self.pasts.append(past)
        return (
            np.broadcast_to(past.y[:, -1:, None], (len(past.ids), h, 9)) + np.arange(9) * np.arange(1, h + 1)[:, None]
        )


def quantiles(frame, name):
    return frame.select(pl.col(f"^{name}-q\\d+$")).to_numpy()


def test_a_forecast_has_the_columns_that_users_know(long):
    said = NAIVE.forecast(long(a=np.arange(9), b=np.arange(7)), 2, levels=(80, 20))
    assert said.frame.columns == [
        *("unique_id", "ds", "naive", "naive-lo-80", "naive-hi-80", "naive-lo-20", "naive-hi-20"),
        *(f"naive-q{q}" for q in range(10, 100, 10)),
    ]
    assert said.frame["unique_id"].to_list() == ["a", "a", "b", "b"]
    assert said.frame["ds"].to_list() == [2700, 3000, 2100, 2400]
    assert said.frame["naive"].to_list() == [8, 8, 6, 6]
    assert (said.frame["naive"] == said.frame["naive-q50"]).all()
    assert (said.frame["naive-lo-80"] == said.frame["naive-q10"]).all()
    assert (said.frame["naive-hi-20"] == said.frame["naive-q60"]).all()


def test_the_verbs_agree_with_the_models_called_by_hand(long, wave):
    frame = long(a=wave(600))
    (by_hand,) = panel(frame)
    model = Conformal(Naive(12, "seasonal"), horizon=4, least_steps=30, every=1)
    said = Forecasting([model], step_s=STEP).forecast(frame, 4).frame
    from agents.forecast.rolling import roll

    expected = roll(model.fit([by_hand], 0), by_hand, np.array([600]), 4).said[0]
    np.testing.assert_array_equal(quantiles(said, "seasonal"), expected)


KINDS = {
    "seconds": pl.Int64,
    "short seconds": pl.Int32,
    "microseconds": pl.Datetime("us"),
    "nanoseconds in Berlin": pl.Datetime("ns", "Europe/Berlin"),
}


def stamped(frame, kind):
    """The same stamps as datetimes, from the evening before the clocks go forward in Berlin."""
    if not kind.is_temporal():
        return frame.with_columns(pl.col("ds").cast(kind))
    utc = pl.from_epoch((pl.col("ds") + 1_711_836_000) * 1_000_000, time_unit="us")
    zone = getattr(kind, "time_zone", None)
    return frame.with_columns(
        (utc.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else utc).cast(kind).alias("ds")
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("pandas", [False, True])
def test_frames_come_back_as_what_they_were(long, wave, kind, pandas):
    plain = long(a=wave(60), b=wave(60, 1))
    frame = stamped(plain, kind).rename({"unique_id": "node", "ds": "when", "y": "load"})
    own = replace(NAIVE, id_col="node", time_col="when", target_col="load")
    said = own.cross_validation(frame.to_pandas() if pandas else frame, 3, n_windows=2).frame
    assert isinstance(said, pd.DataFrame if pandas else pl.DataFrame)
    made: Any = pl.from_pandas(said) if isinstance(said, pd.DataFrame) else said
    assert made.columns[:4] == ["node", "when", "cutoff", "load"]
    assert made["when"].dtype == made["cutoff"].dtype == frame["when"].dtype
    expected = NAIVE.cross_validation(plain, 3, n_windows=2).frame
    assert made["when"].to_list() == stamped(expected, kind)["ds"].to_list()
    np.testing.assert_array_equal(quantiles(made, "naive"), quantiles(expected, "naive"))


def test_dates_are_stamps_too():
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 3, 1), eager=True)
    frame = pl.DataFrame({"unique_id": "a", "ds": days, "y": np.arange(len(days), dtype=float)})
    said = Forecasting([Naive(7)], freq="1d").forecast(frame, 2).frame
    assert [str(day) for day in said["ds"]] == ["2024-03-02", "2024-03-03"]
    assert said["naive"].to_list() == [54, 55]


def test_a_pandas_frame_may_bear_its_ids_in_the_index(long):
    frame = long(a=np.arange(9)).to_pandas().set_index("unique_id")
    assert NAIVE.forecast(frame, 2).frame["naive"].tolist() == [8, 8]


def test_ids_keep_their_type_and_rows_their_order_by_id_and_time(long):
    frame = long(a=np.arange(9)).with_columns(unique_id=pl.lit(7, pl.Int16))
    assert NAIVE.forecast(frame, 2).frame["unique_id"].dtype == pl.Int16


def test_a_step_may_be_told_by_its_frequency(long):
    frame = long(a=np.arange(9))
    for freq in ("5min", "5m", "300s"):
        assert Forecasting([Naive()], freq=freq).forecast(frame, 2).frame.equals(NAIVE.forecast(frame, 2).frame)
    assert [Forecasting([Naive()], freq=f).every_s for f in ("h", "1D", "2w")] == [3_600, 86_400, 1_209_600]


def test_cutoffs_are_those_that_users_know(long):
    said = NAIVE.cross_validation(long(a=np.arange(40)), 4, n_windows=3, step_size=2).frame
    assert said["cutoff"].unique().sort().to_list() == [31 * STEP, 33 * STEP, 35 * STEP]
    assert said["y"].to_list() == [*range(32, 36), *range(34, 38), *range(36, 40)]
    assert said["naive"].to_list() == [31] * 4 + [33] * 4 + [35] * 4
    assert (said["ds"] == said["y"] * STEP).all()


def test_cutoffs_agree_with_those_of_utilsforecast(long, wave):
    from utilsforecast.processing import backtest_splits

    frame = long(a=wave(60), b=wave(60, 1))
    splits: Any = backtest_splits(
        frame, n_windows=3, h=4, id_col="unique_id", time_col="ds", freq=STEP, step_size=2, input_size=None
    )
    theirs = pl.concat(
        later.join(cutoffs, on="unique_id").select("unique_id", "ds", "cutoff", "y") for cutoffs, _, later in splits
    )
    ours = NAIVE.cross_validation(frame, 4, n_windows=3, step_size=2).frame
    assert ours.select(theirs.columns).rows() == theirs.sort("unique_id", "cutoff", "ds").rows()


def test_a_window_ends_at_the_last_known_value_whatever_rows_come_after(long):
    y = np.where(np.arange(43) < 40, np.arange(43), np.nan)
    frame = pl.concat([long(a=y), long(a=np.zeros(1)).with_columns(ds=pl.lit(10**15))])
    said = NAIVE.cross_validation(frame, 4).frame
    assert said["y"].to_list() == [36, 37, 38, 39]
    assert said["naive"].to_list() == [35] * 4


@pytest.mark.parametrize(("refit", "fitted"), [(True, [30, 32, 34, 36]), (2, [30, 34]), (3, [30, 36]), (False, [30])])
def test_models_are_refitted_as_often_as_told_and_the_provenance_says_so(long, refit, fitted):
    spy = Spy()
    frame = long(a=np.arange(40), b=np.arange(40))
    said = Forecasting([spy], step_s=STEP, seed=5).cross_validation(frame, 4, 4, 2, refit)
    assert [[len(each.values) for each in series] for series, _ in spy.fits] == [[n, n] for n in fitted]
    assert {seed for _, seed in spy.fits} == {5}
    told = said.provenance.filter(unique_id="a")
    until = told["trained_until"].to_list()
    assert until == [STEP * (max(n for n in fitted if n <= cut) - 1) for cut in (30, 32, 34, 36)]
    assert (told["trained_until"] <= told["cutoff"]).all()
    assert told["fitted"].unique().to_list() == [
        "once, at the first cutoff" if refit is False else f"every {int(refit)} cutoffs"
    ]
    series = spy.fits[-1][0]
    assert told["fingerprint"][-1] == fingerprint(series)
    assert told["trained_series"].unique().to_list() == [2]
    # whatever the models know, each forecast starts from the newest value
    assert (
        said.frame.filter(pl.col("unique_id") == "a")["spy-q10"].to_list() == [29] * 4 + [31] * 4 + [33] * 4 + [35] * 4
    )


def test_the_fingerprint_is_of_all_that_models_learn_from(long):
    (one,) = panel(long(a=np.arange(9)))
    prints = {
        fingerprint([each])
        for each in (
            one,
            replace(one, values=one.values + 1e-9),
            replace(one, start_s=300),
            replace(one, unique_id="b"),
            replace(one, static=np.ones(1)),
        )
    }
    assert len(prints) == 5
    assert fingerprint([one]) == fingerprint([replace(one, values=one.values.copy())])


def with_columns(frame):
    return frame.with_columns(plan=pl.col("ds") / STEP, other=-pl.col("y"), size=pl.lit(4.0))


COLUMNS = Columns(("plan",), ("other",), ("size",))


def test_columns_reach_the_model_and_none_of_them_from_the_future_but_what_is_known(long):
    spy = Spy()
    recipe = Forecasting([spy], step_s=STEP, columns=COLUMNS, calendar=Calendar(circles=("day",)))
    frame = with_columns(long(a=np.arange(20)))
    ahead = pl.DataFrame({"unique_id": "a", "ds": [6000, 6300], "plan": [20, 21]})
    recipe.forecast(frame.drop("size"), 2, ahead, pl.DataFrame({"unique_id": ["a"], "size": [4.0]}))
    (past,) = spy.pasts
    assert past.known[0, :, 0].round(9).tolist() == [17, 18, 19, 20, 21]
    assert past.known.shape[2] == 4  # the plan, two of the day, the weekend
    assert past.seen[0, :, 0].tolist() == [-17, -18, -19]
    assert past.static.tolist() == [[4.0]]
    (trained,) = spy.fits[0][0]
    assert (len(trained.known), len(trained.seen), len(trained.values)) == (20, 20, 20)
    assert trained.columns.known == ("plan", "sin_day", "cos_day", "weekend")


def test_what_is_known_of_the_newest_steps_is_read_from_the_frame_and_not_learned_from(long):
    spy = Spy()
    frame = with_columns(long(a=np.arange(20))).with_columns(y=pl.when(pl.col("ds") < 5400).then("y"))
    ahead = pl.DataFrame({"unique_id": "a", "ds": [6000], "plan": [20]})
    Forecasting([spy], step_s=STEP, columns=COLUMNS).forecast(frame, 1, ahead)
    (trained,) = spy.fits[0][0]
    assert (len(trained.known), len(trained.seen), len(trained.values)) == (18, 18, 18)
    assert spy.pasts[0].known[0, :, 0].round(9).tolist() == [15, 16, 17, 18, 19, 20]


def test_a_backtest_reads_what_is_known_ahead_from_its_own_rows(long):
    spy = Spy()
    Forecasting([spy], step_s=STEP, columns=COLUMNS).cross_validation(with_columns(long(a=np.arange(20))), 2, 2)
    found = [past.known[0, :, 0].round(9).tolist() for past in spy.pasts]
    assert found == [[13, 14, 15, 16, 17], [15, 16, 17, 18, 19]]


def test_a_planned_event_of_the_calendar_is_known_ahead(long):
    spy = Spy()
    sale = Calendar(circles=(), events=(Event("sale", 6120.0, 6240.0),))
    Forecasting([spy], step_s=STEP, calendar=sale).forecast(long(a=np.arange(20)), 2)
    assert spy.pasts[0].known[0, :, 0].tolist() == pytest.approx([0, 0, 0, 120 / 300, 0])


@pytest.mark.parametrize(
    ("ahead", "message"),
    [
        (None, "'plan' must be known ahead; give X_df"),
        (pl.DataFrame({"unique_id": "a", "ds": [6000, 6300]}), "X_df needs the column 'plan'"),
        (pl.DataFrame({"unique_id": "a", "ds": [6000], "plan": [1]}), r"'a'.*'plan'.*at 6300 s \(step 2\)"),
        (pl.DataFrame({"unique_id": "a", "ds": [6000, 6300], "plan": [1, None]}), r"at 6300 s \(step 2\)"),
        (pl.DataFrame({"unique_id": "b", "ds": [6000, 6300], "plan": [1, 1]}), r"at 6000 s \(step 1\)"),
    ],
)
def test_what_must_be_known_ahead_and_is_not_is_refused_by_name(long, ahead, message):
    recipe = replace(NAIVE, columns=Columns(("plan",)))
    fitted = recipe.fit(with_columns(long(a=np.arange(20))))
    with pytest.raises(UsageError, match=message):
        fitted.predict(2, ahead)


def test_where_the_newest_steps_are_unknown_the_forecast_is_made_from_further_back(long):
    spy = Spy()
    said = Forecasting([spy], step_s=STEP).forecast(long(a=np.array([*range(20), np.nan, np.nan, np.nan])), 2)
    assert said.frame["ds"].to_list() == [23 * STEP, 24 * STEP]
    assert said.frame["spy-q10"].to_list() == [19, 19]
    # the width of this model is the number of steps ahead: 4 and 5, not 1 and 2
    assert (said.frame["spy-q20"] - said.frame["spy-q10"]).to_list() == [4, 5]
    assert said.report.row(0)[:-1] == ("a", "newest unknown", 3, 20 * STEP, 22 * STEP)


def test_a_forecast_from_further_back_is_wider(long, wave):
    y = 100 + np.random.default_rng(0).normal(size=600).cumsum()
    width = [
        (said["naive-hi-80"] - said["naive-lo-80"]).to_list()
        for said in (NAIVE.forecast(long(a=np.where(np.arange(600) < n, y, np.nan)), 4).frame for n in (600, 592))
    ]
    assert all(late > fresh for fresh, late in zip(*width, strict=True))


def test_what_cannot_be_forecast_is_refused_one_by_one_and_the_rest_goes_on(long, wave):
    frame = long(good=wave(700), short=np.arange(5), empty=np.full(50, np.nan))
    recipe = Forecasting([Naive(), Naive(288, "seasonal")], step_s=STEP)
    said = recipe.forecast(frame, 3)
    reasons = {(row["unique_id"], row["model"]): row["reason"] for row in said.refused.iter_rows(named=True)}
    assert set(reasons) == {("empty", ""), ("short", "seasonal")}
    assert "no value of it is known" in reasons["empty", ""]
    assert "too few" in reasons["short", "seasonal"]
    assert said.frame["unique_id"].unique().sort().to_list() == ["good", "short"]
    assert said.frame.filter(unique_id="short")["seasonal"].is_nan().all()
    alone = recipe.forecast(frame.filter(unique_id="good"), 3).frame
    assert said.frame.filter(unique_id="good").equals(alone)


def test_a_model_of_another_mind_is_refused_and_the_others_go_on(long):
    class Broken(Spy):
        def forecast(self, past, h):
            return super().forecast(past, h)[..., ::-1] if self.name == "crossing" else 1 / 0

    models = [Naive(), Broken(name="crossing"), Broken(name="broken")]
    said = Forecasting(models, step_s=STEP).forecast(long(a=np.arange(9)), 2)
    assert [(r["model"], r["reason"]) for r in said.refused.iter_rows(named=True)] == [
        ("crossing", "crossing answered [1, 2, 9] with unknown or crossing quantiles"),
        ("broken", "ZeroDivisionError: division by zero"),
    ]
    assert said.frame["naive"].to_list() == [8, 8]


def test_a_warning_of_a_model_becomes_a_note(long):
    class Loud(Spy):
        def fit(self, series, seed, progress=None):
            np.log(np.zeros(1))
            return self

    said = Forecasting([Loud()], step_s=STEP).forecast(long(a=np.arange(9)), 2)
    assert said.report["note"].to_list() == ["spy: RuntimeWarning: divide by zero encountered in log"]


def test_cleaning_in_a_backtest_is_that_of_the_cutoff(long, wave):
    """The value interpolated at a late cutoff needs the step after the gap; at an early one it is not there yet."""
    y = wave(60)
    y[50] = np.nan
    spy = Spy()
    said = Forecasting([spy], step_s=STEP).cross_validation(long(a=y), 2, n_windows=8, step_size=1)
    last = said.frame.group_by("cutoff", maintain_order=True).agg(pl.col("spy-q10").first())
    at_the_gap = last.filter(cutoff=50 * STEP)["spy-q10"].item()
    assert at_the_gap == y[49]
    assert np.isnan(said.frame.filter(ds=50 * STEP)["y"].to_numpy()).all()
    after = next(series[0].values for series, _ in spy.fits if len(series[0].values) == 52)
    assert after[50] == pytest.approx((y[49] + y[51]) / 2)


def test_a_recorded_cell_is_backtested_as_the_benchmark_does(long):
    from agents.forecast.backtest import backtest

    frame = series(twin.read("google2019"), ["cpu", "memory"])
    said = NAIVE.cross_validation(frame, 12, n_windows=84, step_size=24, refit=False).frame
    assert said.height == 2 * 84 * 12
    known = backtest([Naive()], frame, h=12, origins_every=24, fit_share=(8064 - 12 - 83 * 24) / 8064 + 1e-9).forecasts
    np.testing.assert_array_equal(said["ds"], known["time_s"])
    np.testing.assert_array_equal(said["y"], known["y"])
    np.testing.assert_allclose(said["naive"], known["q50"], rtol=1e-12)
    np.testing.assert_allclose(said["naive-q90"], known["q90"], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: Forecasting([], step_s=1), "needs a model"),
        (lambda f: Forecasting([Naive(), Naive()], step_s=1), "different names"),
        (lambda f: Forecasting([Naive(name="ds")], step_s=1), "none of"),
        (lambda f: Forecasting([Naive()]), "give step_s"),
        (lambda f: Forecasting([Naive()], freq="1M"), "no step of fixed length"),
        (lambda f: NAIVE.forecast(f.drop("y"), 2), "needs the column 'y'"),
        (lambda f: NAIVE.forecast(f.with_columns(pl.col("ds").cast(pl.String)), 2), "whole seconds or datetimes"),
        (lambda f: replace(NAIVE, columns=Columns(("ds",))).forecast(f, 2), "'ds' names a series, a time"),
        (lambda f: NAIVE.forecast(f.to_dicts(), 2), "polars or pandas"),
        (lambda f: NAIVE.forecast(f, 0), "at least 1"),
        (lambda f: NAIVE.forecast(f, 2, levels=(95,)), r"levels=95.*\[20, 40, 60, 80\]"),
        (lambda f: NAIVE.forecast(f.clear(), 2), "has no rows"),
        (lambda f: NAIVE.forecast(f.with_columns(y=pl.lit(None, pl.Float64)), 2), "no value of it is known"),
        (lambda f: NAIVE.cross_validation(f, 2, n_windows=0), "must be positive"),
        (lambda f: NAIVE.cross_validation(f.with_columns(y=pl.lit("much")), 2), "no row of the frame"),
        (lambda f: NAIVE.cross_validation(f, 2, n_windows=99), "no room for 99 windows"),
    ],
)
def test_what_cannot_be_is_refused(long, call, message):
    with pytest.raises(UsageError, match=message):
        call(long(a=np.arange(9)))


ETS = AutoETS(fit_steps=80, context=60)
DIRT = st.sampled_from(["holes", "zeros", "ten points", "jump", "doubles", "constant", "spikes", "huge", "late"])


def dirty(kinds, seed):
    """A daily wave with the named dirt in it."""
    rng = np.random.default_rng(seed)
    steps = 10 if "ten points" in kinds else 400
    y = 10 + 3 * np.sin(np.arange(steps) / 46) + 0.3 * rng.normal(size=steps)
    ds = np.arange(steps) * float(STEP)
    if "zeros" in kinds:
        y[:] = 0.0
    if "constant" in kinds:
        y[steps // 2 :] = 5.0
    if "spikes" in kinds:
        y[rng.integers(steps, size=3)] = 1e4
    if "huge" in kinds:
        y *= 1e12
    if "holes" in kinds:
        for start in rng.integers(steps, size=4):
            y[start : start + rng.integers(1, 40)] = np.nan
    if "jump" in kinds:
        ds[: rng.integers(steps)] -= rng.integers(1, 10_000)
    if "late" in kinds:
        y[-rng.integers(1, 9) :] = np.nan
    frame = pl.DataFrame({"unique_id": ["a"] * steps, "ds": ds, "y": y})
    return pl.concat([frame, frame.sample(5, seed=seed)]) if "doubles" in kinds else frame


@settings(max_examples=25)
@given(kinds=st.sets(DIRT, max_size=4), seed=st.integers(0, 999))
def test_a_dirty_series_is_forecast_or_refused_with_a_reason_and_nothing_else_happens(kinds, seed):
    models = [Naive(), Conformal(Naive(24, "seasonal"), horizon=4, least_steps=48, every=1), ETS]
    recipe = Forecasting(models, step_s=STEP, prepare=Prepare(outliers_sigma=5.0))
    good = dirty(set(), 1).with_columns(unique_id=pl.lit("good"))
    said = recipe.forecast(pl.concat([dirty(kinds, seed), good]), 4)
    refused = {(row["unique_id"], row["model"]) for row in said.refused.iter_rows(named=True)}
    for model in models:
        for unique_id in ("a", "good"):
            rows = quantiles(said.frame.filter(unique_id=unique_id), model.name)
            if {(unique_id, ""), (unique_id, model.name)} & refused:
                assert not np.isfinite(rows).any()
            else:
                assert rows.shape == (4, 9)
                assert np.isfinite(rows).all()
                assert (np.diff(rows, axis=1) >= 0).all()
    assert not {key for key in refused if key[0] == "good"}
    assert all(said.refused["reason"].str.len_chars() > 10)
