"""The oracle grows before demand does, shrinks with it, and is silent without a future."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.replicas.erlang import Serving, fewest_replicas, late_probability
from agents.rules.replicas.oracle import Oracle
from twin.errors import PolicyError, UsageError
from twin.types import Clairvoyant, Cluster, Controller, Observation, Pool, Service

NODES = Pool("workers", 16, 64, 1.0, 2)
OTHER = Service("other", 1.0, 1.0, 1.0, 0.1, 1, 1.0)
CELL = Service("cell", 1.0, 2.0, 4.0, 0.16, 4, 0.5, replicas=2, min_replicas=2, max_replicas=60)
CLUSTER = Cluster("c", (NODES,), (OTHER, CELL))


def at(time_s: float) -> Observation:
    return Observation(time_s, (), np.zeros(0, dtype=np.float32))


def told(rates, **changes) -> Oracle:
    oracle = Oracle("cell", **{"lead_s": 120.0, **changes})
    oracle.foresee(np.array([[9999.0] * len(rates), rates]), 60.0, CLUSTER)
    return oracle


def wishes(oracle: Oracle, turns: int) -> list[int]:
    return [oracle.decide(at(60.0 * turn))[0].value for turn in range(turns)]


def test_replicas_are_there_when_needed_and_go_when_demand_does():
    """With 25 requests/s for each replica; 120 s to be ready and 60 s until the next decision."""
    oracle = told([250.0] * 5 + [1000.0] * 3 + [250.0] * 4, target_utilisation=1.0)
    assert wishes(oracle, 12) == [10] * 3 + [40] * 5 + [10] * 4


def test_by_erlang_c_it_has_the_fewest_that_keep_the_slo():
    oracle = told([100.0, 300.0, 900.0, 500.0, 50.0, 50.0, 50.0])
    serving = Serving(0.16, 4, 0.5)
    assert wishes(oracle, 5) == [fewest_replicas(rate, serving) for rate in (900.0, 900.0, 900.0, 500.0, 50.0)]


def test_it_explains_itself():
    reason = told([250.0] * 5, target_utilisation=0.5).decide(at(0.0))[0].reason
    assert reason == "20 = ceil(250 requests/s/(25 x 0.5)), the most in the coming 180 s"
    reason = told([9000.0]).decide(at(0.0))[0].reason
    assert "fewest replicas with at most 0.05 beyond 0.5 s" in reason
    assert reason.endswith("the most in the coming 180 s; kept within 2 to 60")


def test_without_a_future_it_refuses():
    oracle = Oracle("cell")
    assert isinstance(oracle, Clairvoyant)
    assert isinstance(oracle, Controller)
    with pytest.raises(PolicyError, match="never told what will arrive"):
        oracle.decide(at(0.0))


def test_the_future_belongs_to_the_run_and_outlives_a_reset():
    oracle = told([250.0] * 5, target_utilisation=1.0)
    oracle.reset()
    assert wishes(oracle, 1) == [10]
    oracle.foresee(np.array([[0.0], [500.0]]), 60.0, CLUSTER)
    assert wishes(oracle, 1) == [20]


def test_after_the_last_known_step_demand_stays():
    assert told([250.0, 500.0], target_utilisation=1.0, lead_s=0.0).decide(at(1e6))[0].value == 20


def test_between_two_steps_the_present_one_counts():
    oracle = told([500.0, 250.0, 250.0], target_utilisation=1.0, lead_s=0.0, interval_s=15.0)
    assert [oracle.decide(at(time_s))[0].value for time_s in (0.0, 45.0, 60.0)] == [20, 20, 10]


@pytest.mark.parametrize(
    ("rates", "step_s"),
    [(np.zeros((1, 4)), 60.0), (np.zeros(4), 60.0), (np.zeros((2, 0)), 60.0), (np.zeros((2, 4)), 0.0),
     (np.full((2, 4), np.nan), 60.0)],
)  # fmt: skip
def test_a_future_that_is_none_is_refused(rates, step_s):
    with pytest.raises(PolicyError):
        Oracle("cell").foresee(rates, step_s, CLUSTER)


def test_nonsense_is_refused():
    with pytest.raises(UsageError, match="lead_s=-1"):
        Oracle("cell", lead_s=-1)
    with pytest.raises(UsageError, match="target_utilisation=2"):
        Oracle("cell", target_utilisation=2)
    with pytest.raises(UsageError, match="no service 'web'"):
        Oracle("web").foresee(np.zeros((2, 4)), 60.0, CLUSTER)


def test_a_promise_that_cannot_be_kept_is_refused_before_the_run():
    wild = Service("cell", 1.0, 2.0, 4.0, 0.4, 4, 0.5, service_cv=1.0)
    with pytest.raises(UsageError, match="even without waiting"):
        Oracle("cell").foresee(np.zeros((1, 4)), 60.0, Cluster("c", (NODES,), (wild,)))


@settings(max_examples=40)
@given(
    rates=st.lists(st.floats(0, 1400), min_size=2, max_size=40),
    lead_s=st.floats(0, 900),
    interval_s=st.sampled_from([15.0, 60.0, 300.0]),
)
def test_whoever_gets_all_wishes_in_time_keeps_the_slo(rates, lead_s, interval_s):
    """Replicas wished at t are ready at t + lead; until the next ones are, they keep the SLO."""
    oracle, serving = told(rates, lead_s=lead_s, interval_s=interval_s), Serving(0.16, 4, 0.5)
    for turn in range(int(60.0 * len(rates) / interval_s)):
        (action,) = oracle.decide(at(turn * interval_s))
        ready_s = turn * interval_s + lead_s
        for time_s in (ready_s, ready_s + interval_s - 1.0):
            rate = rates[min(int(time_s / 60.0), len(rates) - 1)]
            assert late_probability(action.value, rate, serving) <= 0.05 + 1e-9
