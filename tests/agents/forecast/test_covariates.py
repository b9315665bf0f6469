"""What is known ahead: the clock of a zone over its changes, holidays, events to the minute, plans."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.forecast.covariates import Calendar, Event, Plan, events, planned
from twin.errors import UsageError

HOUR = 3_600
BERLIN = "2024-03-30T00:00:00+01:00"  # the night before the clocks go forward


def column(calendar, name, start_s, step_s, steps):
    return calendar.at(start_s, step_s, steps)[:, calendar.columns.index(name)]


def test_columns_have_names_in_their_order_and_are_finite():
    calendar = Calendar(country="DE", events=(Event("sale", 0, 60),), plans=(Plan("orders", (0.0,), (3.0,)),))
    assert calendar.columns == (
        *("sin_day", "cos_day", "sin_week", "cos_week", "weekend"),
        *("holiday", "days_to_holiday", "days_since_holiday"),
        *("sale", "sale_before", "sale_after", "orders"),
    )
    made = calendar.at(0, 300, 50)
    assert made.shape == (50, len(calendar.columns))
    assert np.isfinite(made).all()
    assert Calendar(circles=()).at(0, 300, 5).shape == (5, 0)


@given(day=st.integers(0, 700), hour=st.integers(0, 23))
def test_the_time_of_day_is_that_of_the_zone_all_year(day, hour):
    start_s = day * 86_400 + hour * HOUR
    local = datetime.fromtimestamp(datetime.fromisoformat(BERLIN).timestamp() + start_s, ZoneInfo("Europe/Berlin"))
    share = (local.hour + local.minute / 60) / 24
    calendar = Calendar(BERLIN, "Europe/Berlin")
    sin, cos, _, _, weekend = calendar.at(start_s, HOUR, 1)[0]
    assert (sin, cos) == pytest.approx((np.sin(2 * np.pi * share), np.cos(2 * np.pi * share)), abs=1e-9)
    assert weekend == (local.weekday() >= 5)


def test_when_the_clocks_go_forward_an_hour_of_the_day_is_missing():
    with_zone = column(Calendar(BERLIN, "Europe/Berlin"), "sin_day", 0, HOUR, 48)
    without = column(Calendar(BERLIN), "sin_day", 0, HOUR, 48)
    np.testing.assert_allclose(with_zone[:26], without[:26])
    np.testing.assert_allclose(with_zone[26:-1], without[27:])


def test_holidays_begin_at_midnight_of_the_place():
    holiday = column(Calendar("2024-12-24T22:00:00+00:00", "Europe/Berlin", country="DE"), "holiday", 0, HOUR, 4)
    assert holiday.tolist() == [0, 1, 1, 1]
    region = Calendar("2024-01-06T12:00:00+00:00", country="DE", region="BY")
    assert column(region, "holiday", 0, HOUR, 1) == [1]
    assert column(Calendar("2024-01-06T12:00:00+00:00", country="DE"), "holiday", 0, HOUR, 1) == [0]


def test_an_event_counts_by_the_share_of_the_step_that_it_covers():
    calendar = Calendar(circles=(), events=(Event("sale", 360.0, 480.0, weight=2.0),))
    assert column(calendar, "sale", 0, 300, 3).tolist() == pytest.approx([0, 2 * 120 / 300, 0])


def test_an_event_rises_before_it_begins_and_decays_after_it_ended():
    calendar = Calendar(circles=(), events=(Event("sale", 1200.0, 1500.0, 2.0, rise_s=600.0, decay_s=300.0),))
    before, after = (column(calendar, f"sale_{side}", 0, 300, 8) for side in ("before", "after"))
    assert before.tolist() == pytest.approx([0, 0, 0, 1.0, 0, 0, 0, 0])
    assert after.tolist() == pytest.approx([0, 0, 0, 0, 0, *(2 * np.exp(-np.arange(1, 4)))])


@given(
    start=st.floats(0, 3000),
    lasts=st.floats(0, 2000),
    rise=st.floats(0, 1000),
    decay=st.floats(0, 1000),
    offset=st.integers(0, 20),
)
def test_an_event_is_the_same_wherever_the_series_begins(start, lasts, rise, decay, offset):
    calendar = Calendar(circles=(), events=(Event("e", start, start + lasts, 1.5, rise, decay),))
    whole, part = calendar.at(0, 300, 40), calendar.at(offset * 300, 300, 40 - offset)
    np.testing.assert_array_equal(whole[offset:], part)
    assert (whole[:, 0].sum() * 300) == pytest.approx(1.5 * lasts, abs=1e-6)
    assert ((whole >= 0.0) & (whole <= 1.5)).all()


def test_events_of_one_name_add_up_and_come_from_a_table_of_seconds_or_datetimes():
    table = pl.DataFrame({"name": ["a", "a", "b"], "start": [0, 60, 0], "end": [60, 300, 30], "weight": [1, 2, 1]})
    made = Calendar(circles=(), events=events(table)).at(0, 300, 1)
    assert made[0].tolist() == pytest.approx([60 / 300 + 2 * 240 / 300, 0, 0, 30 / 300, 0, 0])
    zone = pl.Datetime("us", "Europe/Berlin")
    stamped = table.with_columns(
        (pl.col(c) * 1_000_000).cast(pl.Datetime("us", "UTC")).cast(zone) for c in ("start", "end")
    )
    assert events(stamped) == events(table)


def test_a_plan_holds_from_its_time_until_the_next():
    plan = Plan("orders", (300.0, 900.0), (5.0, 7.0))
    assert planned(plan, np.array([0, 299, 300, 899, 900, 9e9])).tolist() == [0, 0, 5, 5, 7, 7]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Event("e", 2, 1), "start before end"),
        (lambda: Event("e", 0, 1, rise_s=-1), "must not be negative"),
        (lambda: Plan("p", (1.0, 0.0), (1.0, 2.0)), "rising times"),
        (lambda: Plan("p", (1.0,), (float("nan"),)), "must be numbers"),
        (lambda: Calendar(circles=("moon",)), "moon"),
        (lambda: Calendar(zone="Mars/Olympus"), "no IANA"),
        (lambda: Calendar(epoch="yesterday"), "not ISO 8601"),
        (lambda: Calendar(plans=(Plan("weekend", (), ()),)), "two columns of one name"),
        (lambda: Calendar(country="XX").at(0, 300, 1), "country='XX'"),
        (lambda: events(pl.DataFrame({"name": ["a"]})), "'start' is missing"),
        (lambda: events(pl.DataFrame({"name": ["a"], "start": [None], "end": [1.0]})), "has holes"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
