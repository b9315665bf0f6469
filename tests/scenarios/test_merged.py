"""Recordings read as the demand of one service: nothing is lost, gaps stay gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scenarios.workload import merged
from twin.errors import ScenarioError
from twin.trace.trace import Trace, TraceInfo


def recorded(place: Path, series: dict[str, dict[float, float]], step_s: float, units: list[str]) -> str:
    rows = [(name, time_s, value) for name, steps in series.items() for time_s, value in steps.items()]
    frames = {
        "services": pl.DataFrame({"service": list(series), "demand_unit": units}),
        "demand": pl.DataFrame(rows, schema=["service", "time_s", "value"], orient="row"),
    }
    Trace(TraceInfo("it", "here", "mine", "", step_s=step_s), frames).write(place)
    return str(place)


def test_services_are_added_and_steps_averaged(tmp_path: Path) -> None:
    series = {"a": {0.0: 1.0, 1.0: 3.0, 2.0: 5.0, 3.0: 7.0}, "b": {0.0: 10.0, 1.0: 10.0, 2.0: 0.0, 3.0: 0.0}}
    path = recorded(tmp_path / "it", series, 1.0, ["requests/s", "requests/s"])
    trace = merged(path, step_s=2.0)
    assert trace.demand.rows() == [("all", 0.0, 12.0), ("all", 2.0, 6.0)]
    assert trace.services.rows() == [("all", "requests/s")]
    assert trace.info.step_s == 2.0
    assert trace.duration_s == 4.0
    assert merged(path).demand["value"].to_list() == [11.0, 13.0, 5.0, 7.0]


def test_a_gap_stays_a_gap_and_a_half_recorded_step_is_the_mean_of_its_half(tmp_path: Path) -> None:
    path = recorded(tmp_path / "it", {"a": {0.0: 4.0, 1.0: 4.0, 5.0: 8.0, 6.0: 2.0, 7.0: 2.0}}, 1.0, ["requests/s"])
    assert merged(path, step_s=2.0, service="b").demand.rows() == [("b", 0.0, 4.0), ("b", 4.0, 8.0), ("b", 6.0, 2.0)]


@given(values=arrays(np.float64, st.integers(1, 40).map(lambda n: (2, 3 * n)), elements=st.floats(0, 1e6)))
def test_what_was_asked_in_all_is_kept(values: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    steps = [{float(at): float(value) for at, value in enumerate(row)} for row in values]
    place = tmp_path_factory.mktemp("it") / "it"
    path = recorded(place, {"a": steps[0], "b": steps[1]}, 1.0, ["x", "x"])
    total = merged(path, step_s=3.0).demand["value"].to_numpy().sum() * 3.0
    assert total == pytest.approx(values.sum())


@pytest.mark.parametrize(("step_s", "units"), [(1.5, ["x", "x"]), (0.5, ["x", "x"]), (None, ["x", "y"])])
def test_what_cannot_be_added_is_refused(tmp_path: Path, step_s: float | None, units: list[str]) -> None:
    path = recorded(tmp_path / "it", {"a": {0.0: 1.0, 1.0: 1.0}, "b": {0.0: 1.0, 1.0: 1.0}}, 1.0, units)
    with pytest.raises(ScenarioError):
        merged(path, step_s=step_s)
