"""What a trace tells of a replay's circumstances: outages by hand, a forecast that knows the past alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from twin.engine.jobs import machines
from twin.engine.jobs.circumstances import Persistence, clean_hours, outages, working_hours
from twin.engine.jobs.scheduler import Outage
from twin.errors import UsageError
from twin.trace.trace import Trace, TraceInfo

TWO = machines.uniform(2, 4.0)


def trace_of(*events: tuple[str, float, str], zones: tuple[str, ...] = ()) -> Trace:
    rows = pl.DataFrame(events, schema={"node": pl.String, "time_s": pl.Float64, "event": pl.String}, orient="row")
    hours = [
        pl.DataFrame({"time_s": np.arange(48) * 3600.0, "value": np.arange(48.0)}).with_columns(
            zone=pl.lit(zone), quantity=pl.lit("carbon_g_kwh")
        )
        for zone in zones
    ]
    frames = {"node_events": rows} | ({"prices": pl.concat(hours)} if zones else {})
    return Trace(TraceInfo("test", "by hand", "none", "0" * 64), frames)


def test_a_machine_is_gone_from_its_failure_to_its_repair() -> None:
    """Removed ones were emptied first; one that first comes back was not there; one that never does stays away."""
    told = trace_of(
        ("node-0", 10.0, "fail"), ("node-0", 30.0, "repair"), ("node-0", 50.0, "remove"),
        ("node-1", 0.0, "add"), ("node-1", 20.0, "remove"), ("node-1", 25.0, "add"), ("node-1", 26.0, "add"),
    )  # fmt: skip
    assert outages(told, TWO) == (
        Outage(10.0, 20.0, (0,)),
        Outage(20.0, 5.0, (1,), drain=True),
        Outage(50.0, np.inf, (0,), drain=True),
    )
    assert outages(trace_of(("node-1", 7.0, "add")), TWO) == (Outage(0.0, 7.0, (1,), drain=True),)


def test_what_cannot_be_told_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match="outages=none"):
        outages(trace_of(), TWO)
    with pytest.raises(UsageError, match="machine 'other' is not among the 2"):
        outages(trace_of(("other", 1.0, "fail")), TWO)
    with pytest.raises(UsageError, match=r"admission\.working_hours\.epoch="):
        working_hours(trace_of())
    with pytest.raises(UsageError, match="leave clean_hours out"):
        clean_hours(trace_of())
    with pytest.raises(UsageError, match=r"\['a', 'b'\]; choose one"):
        clean_hours(trace_of(zones=("a", "b")))
    assert clean_hours(trace_of(zones=("a", "b")), zone="b").share == 0.3


@pytest.mark.parametrize("hour", [0, 5, 24, 30, 47, 60, 200])
def test_a_forecast_looks_at_nothing_of_the_future(hour: int) -> None:
    """Other values from that hour on change nothing; the same hour of the day is foretold."""
    past = np.arange(48.0)
    changed = np.where(np.arange(48) < hour, past, -1.0)
    told = Persistence(past)(hour)
    assert told == Persistence(changed)(hour)
    assert len(told) == (24 if hour >= 24 else 0)
    assert [value % 24 for value in told] == [(hour + k) % 24 for k in range(len(told))]


def test_hours_before_the_first_value_are_not_foretold() -> None:
    values = np.arange(60.0)
    values[:10] = np.nan
    assert Persistence(values)(24) == []
    assert len(Persistence(values)(34)) == 24
