from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.forecast.base import DECILES, Floats, Past
from agents.forecast.explain.attribution import attribute
from agents.forecast.explain.contributions import GROUPS, Contributions, contributions, shapley
from agents.forecast.explain.decompose import decompose
from agents.forecast.explain.explanation import explain
from agents.forecast.explain.sentence import Wording, confidence_percent, sentence
from agents.forecast.explain.similar import similar_days
from agents.forecast.frames import Columns, Series
from agents.forecast.naive import Naive
from agents.forecast.nets.base import Dims
from agents.forecast.nets.residual import ResidualMLP
from agents.forecast.neural import Neural
from twin.errors import UsageError

DAY = 24  # steps of an hour
WEEK = 7 * DAY


def hourly(values: np.ndarray, **beside: object) -> Series:
    return Series("a", 0, 3600, np.asarray(values, np.float64), **beside)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Rule:
    """A forecaster that says a formula: it goes on as on the line through its first and last step, or as a day ago."""

    context: int = 2 * DAY
    needs: int = 2 * DAY
    slope: float = 0.0
    day_ago: float = 0.0
    event: float = 0.0
    seen: float = 0.0
    flat: float = 0.0
    square: float = 0.0
    name: str = "rule"
    pooled: bool = True

    def fit(self, series: object, seed: int, progress: object = None) -> "Rule":
        return self

    def forecast(self, past: Past, h: int) -> Floats:
        ahead = np.arange(1, h + 1)
        y, last = past.y, past.y[:, -1:]
        said = last + self.flat + np.zeros(h)
        if self.slope:
            said = said + self.slope * ahead * (last - y[:, :1]) / (self.context - 1)
        said = said + self.day_ago * (y[:, self.context - DAY + np.arange(h)] - last)
        said = said + self.square * (y[:, -2:-1] - last) ** 2
        if past.known.shape[2]:
            said = said + self.event * past.known[:, -h:, 0]
        if past.seen.shape[2]:
            said = said + self.seen * (past.seen[:, -1, :1] - past.seen[:, 0, :1])
        return said[:, :, None] + (DECILES - 0.5)


def only(group: str, value: np.ndarray) -> Floats:
    table = np.zeros((len(value), len(GROUPS)))
    table[:, GROUPS.index(group)] = value
    return table


t = np.arange(30 * DAY)
WAVE = 50 + 9 * np.sin(2 * np.pi * t / DAY) + 4 * (t % DAY == 7)


# ---------------------------------------------------------------- contributions: laws


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(2 * DAY, 29 * DAY), st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_contributions_add_up_to_the_median_minus_the_last_value(
    seed: int, origin: int, slope: float, day_ago: float, square: float
) -> None:
    rng = np.random.default_rng(seed)
    events = rng.integers(0, 2, (len(t), 1)).astype(np.float64)
    series = hourly(rng.normal(0, 5, len(t)).cumsum(), known=events, columns=Columns(known=("event",)))
    rule = Rule(slope=slope, day_ago=day_ago, square=square, event=3.0, flat=1.0)
    why = contributions(rule, series, origin, 6)
    assert why.baseline == series.values[origin - 1]
    np.testing.assert_allclose(why.baseline + why.by_group.sum(axis=1), why.said[:, 4], rtol=1e-12, atol=1e-9)


def test_a_pure_daily_wave_is_the_daily_season() -> None:
    series, origin = hourly(WAVE), 20 * DAY + 5
    why = contributions(Naive(DAY).fit([series], 0), series, origin, 6)
    change = WAVE[origin : origin + 6] - WAVE[origin - 1]
    np.testing.assert_allclose(why.by_group, only("daily", change), atol=1e-9)


def test_a_pure_weekly_wave_is_the_weekly_season() -> None:
    week = 50.0 + 10.0 * (t % WEEK >= 5 * DAY)
    series, origin = hourly(week), 4 * WEEK - DAY - 2
    why = contributions(Naive(WEEK).fit([series], 0), series, origin, 6)
    change = week[origin : origin + 6] - week[origin - 1]
    # a day that is as the others on average has a season of its own of 0
    np.testing.assert_allclose(why.by_group, only("weekly", change), atol=1e-9)


def test_a_pure_ramp_is_the_trend() -> None:
    series, origin = hourly(3.0 + 0.5 * t), 20 * DAY + 5
    why = contributions(Rule(slope=1.0), series, origin, 6)
    np.testing.assert_allclose(why.by_group, only("trend", 0.5 * np.arange(1, 7)), atol=1e-9)


def test_a_last_value_off_its_line_is_the_level() -> None:
    values = np.full(len(t), 40.0)
    origin = 20 * DAY
    values[origin - 1] = 46.0
    series = hourly(values)
    why = contributions(Rule(day_ago=1.0), series, origin, 6)
    named = why.at(-1)
    assert sum(named.values()) == pytest.approx(-6.0)
    # what is left is the line, which the last value bends
    assert -7.0 < named["level"] < -5.0


def test_an_event_ahead_is_the_event_and_is_named() -> None:
    origin = 20 * DAY
    known = np.zeros((len(t), 2))
    known[origin : origin + 6, 0] = 1.0
    series = hourly(np.full(len(t), 40.0), known=known, columns=Columns(known=("sale", "holiday")))
    why = contributions(Rule(event=7.0), series, origin, 6)
    np.testing.assert_allclose(why.by_group, only("events", np.full(6, 7.0)), atol=1e-12)
    assert why.events == ("sale",)


def test_a_column_that_repeats_every_day_counts_as_the_daily_season() -> None:
    known = np.sin(2 * np.pi * t / DAY)[:, None]
    series = hourly(np.full(len(t), 40.0), known=known, columns=Columns(known=("hour_sine",)))
    why = contributions(Rule(event=7.0), series, 20 * DAY + 3, 6)
    assert why.events == ()
    np.testing.assert_allclose(why.by_group, only("daily", 7.0 * known[20 * DAY + 3 :][:6, 0]), atol=1e-9)


def test_what_the_forecaster_ignores_gets_nothing() -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(size=(len(t), 1))
    series = hourly(WAVE + rng.normal(size=len(t)), known=known, columns=Columns(known=("noise",)))
    why = contributions(Rule(flat=2.0), series, 20 * DAY, 6)
    np.testing.assert_array_equal(why.by_group, only("rest", np.full(6, why.said[0, 4] - why.baseline)))
    assert why.said[0, 4] - why.baseline == pytest.approx(2.0)


def test_other_recorded_columns_are_part_of_the_rest() -> None:
    seen = np.linspace(0.0, 1.0, len(t))[:, None]
    series = hourly(np.full(len(t), 40.0), seen=seen, columns=Columns(seen=("memory",)))
    why = contributions(Rule(seen=100.0), series, 20 * DAY, 2)
    moved = 100.0 * (seen[20 * DAY - 1, 0] - seen[18 * DAY, 0])
    np.testing.assert_allclose(why.by_group, only("rest", np.full(2, moved)), atol=1e-9)


def test_a_forecast_of_the_last_value_has_nothing_to_explain() -> None:
    series = hourly(WAVE)
    why = contributions(Naive().fit([series], 0), series, 20 * DAY + 5, 3)
    np.testing.assert_array_equal(why.by_group, 0.0)
    assert "because" not in sentence(why, Wording("load"), origin_s=0.0, step_s=3600)


def test_nothing_after_the_origin_is_looked_at() -> None:
    origin = 20 * DAY
    rng = np.random.default_rng(2)
    values = WAVE + rng.normal(size=len(t))
    changed = values.copy()
    changed[origin:] = 1e6
    one, two = (contributions(Rule(slope=1.0, day_ago=0.5), hourly(v), origin, 6) for v in (values, changed))
    np.testing.assert_array_equal(one.by_group, two.by_group)
    for a, b in zip(*(similar_days(hourly(v), origin, 6) for v in (values, changed)), strict=True):
        assert (a.days_ago, a.distance) == (b.days_ago, b.distance)
        np.testing.assert_array_equal(a.followed, b.followed)


def test_a_young_series_keeps_its_unknown_beginning() -> None:
    series, origin = hourly(WAVE[: 2 * DAY + 6]), DAY
    rule = replace(Rule(flat=1.0), needs=DAY)
    why = contributions(rule, series, origin, 2)
    assert np.isfinite(why.by_group).all()
    parts = decompose(series, origin, rule.context)
    assert np.isnan(parts.rest[:DAY]).all()
    assert np.isfinite(parts.rest[DAY:]).all()


def test_shapley_values_are_the_mean_over_all_orders() -> None:
    # the gloves game: a left glove is worth 1 with one of two right gloves, and no glove is worth anything alone
    players = ("left", "right1", "right2")
    subsets = [frozenset(p for k, p in enumerate(players) if mask >> k & 1) for mask in range(8)]
    worth = {s: np.array(float("left" in s and len(s) > 1)) for s in subsets}
    values = [float(shapley(worth, players, p)) for p in players]
    assert values == pytest.approx([2 / 3, 1 / 6, 1 / 6])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30 * DAY), st.integers(1, 12 * DAY))
def test_the_parts_add_up_to_the_past(seed: int, origin: int, context: int) -> None:
    series = hourly(np.random.default_rng(seed).normal(size=len(t)).cumsum())
    parts = decompose(series, origin, context)
    whole = parts.trend + parts.daily + parts.weekly + parts.rest
    kept = min(origin, context)
    assert np.isnan(whole[: context - kept]).all()
    np.testing.assert_allclose(whole[context - kept :], series.values[origin - kept : origin], atol=1e-9)


def test_a_line_a_day_and_a_week_are_told_apart_exactly() -> None:
    line, daily, weekly = 5.0 + 0.1 * t, WAVE - WAVE[:DAY].mean(), 2.0 * np.cos(2 * np.pi * t / WEEK)
    hours = weekly  # a week by the hour is a week by the step here
    parts = decompose(hourly(line + daily + hours), 4 * WEEK, 3 * DAY)
    window = slice(4 * WEEK - 3 * DAY, 4 * WEEK)
    np.testing.assert_allclose(parts.trend, line[window], atol=1e-9)
    np.testing.assert_allclose(parts.daily, daily[window], atol=1e-9)
    np.testing.assert_allclose(parts.weekly, hours[window], atol=1e-9)
    np.testing.assert_allclose(parts.rest, 0.0, atol=1e-9)


# ---------------------------------------------------------------- lags and columns


def test_integrated_gradients_of_a_network_are_complete() -> None:
    from agents.forecast import training

    rng = np.random.default_rng(0)
    settings, dims = ResidualMLP(8), Dims(DAY, 3)
    fresh = training.initial(settings, dims, 0).items()
    weights = {k: (np.asarray(v) + rng.normal(0, 0.2, v.shape))[None].astype(np.float32) for k, v in fresh}
    net = Neural(settings, DAY, 3, dims=dims, weights=weights)
    past = Past.of(1e4 + rng.normal(size=(1, DAY)).cumsum(axis=1), ["a"], 3)
    found = attribute(net, past, 3, block=5)
    flat = net.forecast(Past.of(np.repeat(past.y[:, -1:], DAY, axis=1), ["a"], 3), 3)
    assert found.method == "integrated gradients"
    assert found.blocks == ((1, 5), (6, 10), (11, 15), (16, 20), (21, 24))
    assert found.whole == pytest.approx(
        net.forecast(past, 3)[0, -1, 4] - past.y[0, -1], abs=abs(flat[0, -1, 4] - past.y[0, -1]) + 0.01
    )
    assert abs(found.gap) < 0.01 * np.abs(found.by_block).sum()


def test_occlusion_finds_the_steps_and_the_columns_that_matter() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(1, 2 * DAY))
    known = np.zeros((1, 2 * DAY + 3, 2))
    known[:, 2 * DAY :, 0] = 1.0
    past = replace(Past.of(y, ["a"], 3), known=known, seen=rng.normal(size=(1, 2 * DAY, 1)))
    found = attribute(Rule(day_ago=1.0, event=5.0), past, 3, columns=Columns(("sale", "other"), ("memory",)), block=6)
    lag = DAY - 2
    hit = [first <= lag <= last for first, last in found.blocks]
    assert found.method == "occlusion"
    assert np.flatnonzero(found.by_block).tolist() == np.flatnonzero(hit).tolist()
    assert found.by_block[hit] == pytest.approx(y[0, -lag] - y[0, -1])
    assert found.by_column == {"sale": 5.0, "other": 0.0, "memory": 0.0}
    assert found.gap == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("asked", [{"step": 3}, {"block": 0}, {"columns": Columns(("a",))}])
def test_an_attribution_that_makes_no_sense_is_refused(asked: dict[str, object]) -> None:
    past = Past.of(np.ones((1, 2 * DAY)), ["a"], 3)
    with pytest.raises(UsageError):
        attribute(Rule(), past, 3, **asked)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- similar days


def test_the_nearest_day_is_the_one_with_the_same_shape_whatever_its_level() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=10 * DAY)
    now = values[9 * DAY : 10 * DAY]
    values[5 * DAY : 6 * DAY] = 100.0 + 3.0 * now
    values[6 * DAY : 6 * DAY + 4] = 130.0
    nearest, *others = similar_days(hourly(values), 10 * DAY, 4)
    assert (nearest.days_ago, nearest.distance) == (4, pytest.approx(0.0, abs=1e-9))
    assert len(others) == 2
    assert all(0.5 < other.distance <= 2.0 for other in others)
    np.testing.assert_array_equal(nearest.followed, np.full(4, 130.0))
    np.testing.assert_allclose(nearest.carried, np.full(4, 10.0))


def test_what_followed_a_similar_day_was_over_by_the_origin() -> None:
    values = np.tile(np.arange(float(DAY)), 10)
    found = similar_days(hourly(values), 10 * DAY, DAY + 1, count=99)
    assert [each.days_ago for each in found] == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_short_record_has_no_similar_day() -> None:
    assert similar_days(hourly(WAVE), 2 * DAY - 1, 4) == ()
    assert len(similar_days(hourly(WAVE), 2 * DAY, 4)) == 1


def test_flat_days_are_alike() -> None:
    assert similar_days(hourly(np.full(5 * DAY, 0.1)), 4 * DAY, 4)[0].distance == 0.0


# ---------------------------------------------------------------- the sentence

SPREAD = (DECILES - 0.5) / 0.8


def why(now: float, then: float, width: float, names: tuple[str, ...] = (), **parts: float) -> Contributions:
    by_group = np.array([[parts.get(g, 0.0) for g in GROUPS]])
    return Contributions((then + width * SPREAD)[None], now, by_group, names)


MONDAY = datetime(2026, 3, 2)
CPU = Wording("CPU of cell a", "cores", MONDAY)
HALF_PAST_TWELVE = 86400.0 + 12.5 * 3600


def say(contributed: Contributions, wording: Wording = CPU, **further: object) -> str:
    return sentence(contributed, wording, origin_s=HALF_PAST_TWELVE - 4 * 3600, step_s=4 * 3600, **further)  # pyright: ignore[reportArgumentType]


def test_a_rise_is_told_with_its_reasons() -> None:
    days = similar_days(hourly(WAVE), 20 * DAY, 4)
    told = say(why(412, 455, 33, daily=31, trend=9, rest=3), similar=[replace(days[0], days_ago=14)])
    assert told == (
        "CPU of cell a is expected to rise from 412 to 455 cores (80 %: 438 to 472) by 12:30, mainly because of the "
        "usual morning rise (+31); the trend adds 9; most like Tuesday 2 weeks ago."
    )


def test_a_fall_is_told_with_its_main_reason() -> None:
    told = say(why(0.455, 0.412, 0.02, weekly=-0.05, trend=0.007))
    assert told == (
        "CPU of cell a is expected to fall from 0.455 to 0.412 cores (80 %: 0.402 to 0.422) by 12:30, because of the "
        "usual fall on this day of the week (-0.050)."
    )


def test_what_stays_is_not_said_to_move() -> None:
    assert say(why(412, 413, 33, daily=1)) == (
        "CPU of cell a is expected to stay at about 413 cores (80 %: 396 to 430) by 12:30."
    )


def test_reasons_that_cancel_out_are_told() -> None:
    assert "because the usual morning rise (+31) and the trend (-30) nearly cancel out" in say(
        why(412, 413, 33, daily=31, trend=-30)
    )


def test_the_main_reason_points_where_the_forecast_goes() -> None:
    told = say(why(412, 440, 33, daily=68, level=-40))
    assert "mainly because of the usual morning rise (+68); the return to its level takes away 40" in told


def test_wide_bands_send_for_a_human() -> None:
    told = say(why(100, 120, 200, trend=20))
    assert told.endswith(" This is very uncertain: the chance of being within 10 % of it is 10 %; a human should look.")
    assert " This is uncertain: " in say(why(100, 120, 34, trend=20))
    assert "human" not in say(why(100, 120, 10, trend=20))


def test_a_fallback_says_so() -> None:
    told = say(why(412, 412, 33), fallback="the history is shorter than the network needs")
    assert told.endswith(" A fallback made this forecast: the history is shorter than the network needs.")


def test_events_are_named() -> None:
    assert "because of what is planned (sale) (+43)" in say(why(412, 455, 33, ("sale",), events=43))


def test_without_a_date_times_are_spans() -> None:
    told = say(why(412, 455, 33, daily=43), Wording("demand"))
    assert told == (
        "demand is expected to rise from 412 to 455 (80 %: 438 to 472) within 4 h, because of the usual rise at this "
        "time of day (+43)."
    )


@given(st.floats(0.01, 0.5), st.floats(-1e6, 1e6), st.floats(0.0, 1e6))
def test_the_confidence_is_a_share_and_grows_with_the_tolerance(tolerance: float, median: float, width: float) -> None:
    deciles = median + width * SPREAD
    near, far = (confidence_percent(deciles, each) for each in (tolerance, 2 * tolerance))
    assert 0.0 <= near <= far + 1e-9 <= 100.0 + 1e-9


def test_the_confidence_is_read_off_the_deciles() -> None:
    deciles = 100.0 + 100.0 * (DECILES - 0.5)  # as likely anywhere between 50 and 150
    assert confidence_percent(deciles, 0.2) == pytest.approx(40.0)
    assert confidence_percent(deciles, 0.4) == pytest.approx(80.0)
    assert confidence_percent(deciles, 0.5) == pytest.approx(100.0 - 20.0 * np.exp(-1.0))
    assert confidence_percent(np.full(9, 5.0)) == 100.0


def test_an_explanation_holds_the_numbers_and_the_words() -> None:
    rng = np.random.default_rng(0)
    series, origin = hourly(WAVE + 0.1 * rng.normal(size=len(t))), 20 * DAY + 7
    fitted = Naive(DAY).fit([series.until(15 * DAY)], 0)
    found = explain(
        fitted, series, origin, 6, Wording("load", "requests/s", MONDAY), fallback="the network is not trained"
    )
    assert (found.forecaster, found.unique_id, found.origin_s) == ("naive", "a", origin * 3600.0)
    assert found.needs_a_human == (found.confidence_percent < 80.0)
    assert found.text.startswith("load is expected to ")
    assert found.text.endswith(" A fallback made this forecast: the network is not trained.")
    assert explain(fitted, series, origin, 6).text.startswith("a is expected to ")
    assert len(found.similar) == 3
