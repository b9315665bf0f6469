from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import twin
from agents.forecast.frames import Series
from agents.scale.demand import Heard, seen
from twin.errors import UsageError
from twin.types import Cluster, Observation, Pool, Service

SERVICE = Service("cell", 2000.0, 2.0, 4.0, 0.16, 4, 0.5, replicas=48, min_replicas=4, max_replicas=90)
CLUSTER = Cluster("web", (Pool("workers", 16, 64, 0.76, 8),), (SERVICE,))


def at(time_s, rate_rps):
    return Observation(time_s, ("cell.demand_rps",), np.array([rate_rps], np.float32))


def told(rates, every_s, heard):
    """What has been heard after `rates`, one for each `every_s` from second 0 on."""
    heard.note(at(0.0, nan))
    for place, rate in enumerate(rates, start=1):
        heard.note(at(place * every_s, rate))
    return heard


def known(rates, every_s, heard=None):
    series = told(rates, every_s, heard or Heard("cell", 300)).series()
    assert series is not None
    return series


@given(st.lists(st.floats(0, 1000, width=32), min_size=20, max_size=40), st.sampled_from([15, 60, 100, 300]))
def test_a_step_is_the_mean_of_what_was_observed_in_it(rates, every_s):
    each = 300 // every_s
    series = known(rates, every_s)
    whole = np.array(rates)[: len(rates) // each * each].reshape(-1, each).mean(axis=1)
    np.testing.assert_allclose(series.values, whole, rtol=1e-6, atol=1e-6)
    assert (series.unique_id, series.start_s, series.step_s) == ("cell.demand_rps", 0, 300)


def test_an_observation_that_spans_steps_counts_in_each_by_its_time():
    assert known([1.0, 3.0, 5.0, 7.0], 200).values == pytest.approx([(2 * 1 + 1 * 3) / 3, (1 * 3 + 2 * 5) / 3])


def test_a_step_counts_when_half_of_it_was_observed():
    assert told([6.0, nan, nan, nan, nan], 60, Heard("cell", 300)).series() is None
    assert known([6.0, 6.0, 9.0, nan, nan], 60).values == pytest.approx([7.0])


def test_short_gaps_are_bridged_and_a_long_one_begins_anew():
    assert known([1.0, nan, nan, nan, 5.0], 300).values.tolist() == [1.0, 1.0, 1.0, 1.0, 5.0]
    after = known([1.0, 2.0, nan, nan, nan, nan, 5.0, 6.0], 300)
    assert (after.values.tolist(), after.start_s) == ([5.0, 6.0], 1800)
    assert told([1.0, nan], 300, Heard("cell", 300)).series() is None


def test_a_history_stands_before_it_and_stays_when_the_rest_is_forgotten():
    before = Series("elsewhere", 600, 300, np.array([7.0, 8.0]))
    heard = Heard("cell", 300, before)
    assert heard.start_s == 1200
    series = known([9.0], 300, heard)
    assert (series.unique_id, series.start_s, series.values.tolist()) == ("elsewhere", 600, [7.0, 8.0, 9.0])
    heard.forget()
    assert known([], 300, heard).values.tolist() == [7.0, 8.0]


def test_a_history_of_another_step_is_refused():
    with pytest.raises(UsageError, match="step of 60 s"):
        Heard("cell", 300, Series("elsewhere", 0, 60, np.zeros(3)))


def test_seen_demand_is_that_of_the_twin_on_the_clock_of_the_recording():
    trace = twin.read("google2019").between(86_400.0, 2 * 86_400.0)
    series = seen(trace, CLUSTER, SERVICE, seed=3)
    assert (series.start_s, series.step_s, len(series.values)) == (86_400, 300, 288)
    recorded = trace.demand["value"].to_numpy() * SERVICE.unit_rps
    # five minutes of bursts with a coefficient of variation of 5 %, and the line between two recorded means
    assert np.abs(series.values / recorded - 1).mean() < 0.03
    assert not np.array_equal(series.values, seen(trace, CLUSTER, SERVICE, seed=4).values)
