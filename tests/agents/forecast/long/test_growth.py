"""Growth scenarios move a forecast without touching its own uncertainty, and are told apart from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.forecast.long.growth import Growth, Launch, apart, applied, factors, scenarios, usual
from agents.forecast.long.totals import DAY_S, YEAR_S
from twin.errors import UsageError

TIME_S = DAY_S * np.arange(1, 365, dtype=np.float64)
SAID = 100.0 + np.linspace(-20.0, 20.0, 9) + np.zeros((364, 1))


def test_growth_per_year_is_reached_after_a_year() -> None:
    factor = factors(Growth("g", level=2.0, growth_per_year=0.2), np.array([0.0, YEAR_S]), 0.0)
    assert factor == pytest.approx([2.0, 2.4])


def test_a_launch_ramps_up_from_its_date_and_stays() -> None:
    launch = Launch(at_s=10.0 * DAY_S, share=0.5, ramp_s=10.0 * DAY_S)
    factor = factors(Growth("g", launches=(launch,)), TIME_S, 0.0)
    assert factor[:10] == pytest.approx([1.0] * 10)
    assert factor[14] == pytest.approx(1.25)
    assert factor[19:] == pytest.approx([1.5] * 345)
    at_once = factors(Growth("g", launches=(Launch(10.0 * DAY_S, -0.5),)), TIME_S, 0.0)
    assert at_once[8:11] == pytest.approx([1.0, 0.5, 0.5])


def test_the_forecasts_own_trend_can_be_stopped_or_doubled() -> None:
    trend = np.linspace(1.0, 1.3, 364)
    assert trend * factors(Growth("none", trend=0.0), TIME_S, 0.0, trend) == pytest.approx(np.ones(364))
    assert (trend * factors(Growth("twice", trend=2.0), TIME_S, 0.0, trend))[-1] == pytest.approx(1.6)
    with pytest.raises(UsageError, match="give the forecast's own"):
        factors(Growth("twice", trend=2.0), TIME_S, 0.0)


@given(st.floats(-0.9, 3.0), st.floats(-0.9, 2.0), st.floats(0.0, 3.0))
def test_deciles_never_cross_and_keep_their_relative_width(growth: float, share: float, level: float) -> None:
    factor = factors(Growth("g", level, 1.0, growth, (Launch(50.0 * DAY_S, share),)), TIME_S, 0.0)
    said = applied(SAID, factor)
    assert (np.diff(said, axis=-1) >= 0.0).all()
    assert said == pytest.approx(SAID * factor[:, None])


def test_scenarios_are_rows_of_their_own_and_apart_from_the_forecasts_spread() -> None:
    table = scenarios(SAID, TIME_S, 0.0, usual())
    assert table["scenario"].unique(maintain_order=True).to_list() == ["pessimistic", "expected", "optimistic"]
    expected = table.filter(scenario="expected")
    assert expected["factor"].to_list() == [1.0] * 364
    assert expected["q10"].to_list() == pytest.approx(SAID[:, 0].tolist())
    spread = apart(table)
    assert spread["between"][0] < 1.0 < 25.0 < spread["between"][-1]
    assert spread["within"][-1] == pytest.approx(40.0, rel=0.05)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="different names"):
        scenarios(SAID, TIME_S, 0.0, [Growth("a"), Growth("a")])
    with pytest.raises(UsageError, match="0 or more"):
        factors(Growth("g", launches=(Launch(0.0, -1.5),)), TIME_S, 0.0)
