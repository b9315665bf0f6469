"""What-if as pure functions: hashable, composable, and changing only what they say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from scenarios.compose import Compose
from scenarios.faults import NodeFailures, TelemetryLoss
from scenarios.workload import AsRecorded, DemandSurge
from tests.twin.conftest import make_cluster, make_trace
from twin.errors import ScenarioError

FLAT = make_trace(lambda t: 0.0 * t + 0.2, days=3.0)
CLUSTER = make_cluster()
SURGE = DemandSurge(factor=2.0, first_s=36_000, hold_s=3600, ramp_s=600)
FAILURES = NodeFailures("workers", 2, 1000.0, 86_400.0, 600.0)


def test_as_recorded_changes_nothing() -> None:
    assert AsRecorded().apply(FLAT, CLUSTER) == (FLAT, CLUSTER, ())


def test_a_surge_multiplies_while_it_holds_and_comes_back_every_day() -> None:
    trace, cluster, events = SURGE.apply(FLAT, CLUSTER)
    assert (cluster, events) == (CLUSTER, ())
    lift = trace.demand.with_columns(pl.col("value") / 0.2)
    at = dict(lift.select("time_s", "value").iter_rows())
    for day in range(3):
        start = 36_000 + day * 86_400
        assert at[start - 300.0] == pytest.approx(1.0)
        assert at[start + 300.0] == pytest.approx(1.5)
        assert at[start + 900.0] == pytest.approx(2.0)
        assert at[start + 4200.0] == pytest.approx(2.0)
        assert at[start + 4800.0] == pytest.approx(1.0)
    assert any("DemandSurge" in note for note in trace.info.notes)


def test_the_recording_itself_is_not_touched() -> None:
    before = FLAT.digest()
    SURGE.apply(FLAT, CLUSTER)
    assert FLAT.digest() == before


def test_equal_scenarios_are_equal_values() -> None:
    assert Compose([SURGE, FAILURES]) == Compose((SURGE, FAILURES))
    assert len({Compose([SURGE, FAILURES]), Compose([SURGE, FAILURES]), SURGE}) == 2


def test_composition_applies_both_and_orders_the_events() -> None:
    loss = TelemetryLoss("web", 500.0, 86_400.0, 60.0)
    trace, _, events = Compose([SURGE, FAILURES, loss]).apply(FLAT, CLUSTER)
    assert trace.digest() == SURGE.apply(FLAT, CLUSTER)[0].digest()
    assert [event.time_s for event in events] == sorted(event.time_s for event in events)
    assert len(events) == 6


@pytest.mark.parametrize(
    "scenario",
    [
        DemandSurge(factor=0.0, first_s=0, hold_s=60, ramp_s=0),
        DemandSurge(factor=2.0, first_s=1e9, hold_s=60, ramp_s=0),
        NodeFailures("batch", 1, 0.0, 60.0, 60.0),
        NodeFailures("workers", 1, 0.0, 0.0, 60.0),
        TelemetryLoss("api", 0.0, 60.0, 60.0),
    ],
)
def test_what_does_not_fit_is_refused(scenario: DemandSurge | NodeFailures | TelemetryLoss) -> None:
    with pytest.raises(ScenarioError):
        scenario.apply(FLAT, CLUSTER)


def test_a_surge_repeats_recorded_requests() -> None:
    """60 % more during the surge, evenly between the recorded ones, and nothing elsewhere."""
    trace = make_trace(lambda t: 0.0 * t + 0.2, days=1.0)
    times = np.arange(0.0, 86_400.0, 10.0)
    requests = pl.DataFrame({"service": "web", "time_s": times, "request": [f"r{k}" for k in range(len(times))]})
    trace = trace.replacing("requests", requests=requests)
    surge = DemandSurge(factor=1.6, first_s=36_000.0, hold_s=3600.0, ramp_s=0.0)
    changed, *_ = surge.apply(trace, make_cluster())
    before, during, after = (
        changed.requests.filter(pl.col("time_s").is_between(low, high, closed="left")).height
        for low, high in ((0.0, 36_000.0), (36_000.0, 39_600.0), (39_601.0, 86_400.0))
    )
    assert (before, after) == (3600, 4679)
    assert during == pytest.approx(1.6 * 360, abs=2)
    assert changed.requests["request"].n_unique() == changed.requests.height
