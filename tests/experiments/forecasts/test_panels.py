"""The series of the accuracy bench: what is embedded, what a folder of recordings adds, and that nothing leaks."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from agents.forecast.frames import Series, steps_in
from experiments.forecasts import panels
from twin.errors import UsageError

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
recorded = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of recordings is not here")


@pytest.fixture(scope="module")
def beside():
    return panels.extra_5min(DATA)


def check(series, step_s):
    names = [each.unique_id for each in series]
    assert len(set(names)) == len(names)
    for each in series:
        assert each.step_s == step_s
        assert each.values.dtype == np.float64
        assert np.isfinite(each.values).all()


def test_ten_series_of_whole_clusters_are_embedded():
    found = panels.cell_5min()
    check(found, 300)
    assert len(found) == 10
    assert "google2019/cpi" not in [each.unique_id for each in found]
    assert {each.unique_id: len(each.values) for each in found}["google2019/cpu"] == 8064
    assert all(each.values.min() > 0.0 for each in found)


def test_an_hour_is_the_mean_of_its_twelve_steps_and_what_is_left_over_goes():
    short = Series("a", 600, 300, np.arange(27.0))
    found = panels.hourly(short)
    assert (found.start_s, found.step_s) == (600, 3600)
    assert found.values.tolist() == [5.5, 17.5]
    check(panels.panel("cell", "hourly", None), 3600)


def test_without_a_folder_machines_are_absent_and_said_to_be():
    assert panels.machine_5min() == []
    assert panels.absent("cell", None) == ["opendc-workloads/v1/bitbrains-small"]
    assert panels.absent("machine", None) == ["opendc-workloads/v1/bitbrains-small", "nab"]
    with pytest.raises(UsageError, match="give the folder"):
        panels.panel("machine", "5min", None)


@pytest.mark.parametrize(("level", "grid"), [("rack", "5min"), ("cell", "daily")])
def test_an_unknown_level_or_grid_is_refused(level, grid):
    with pytest.raises(UsageError, match="levels are cell, machine, grids 5min, hourly"):
        panels.panel(level, grid, None)


def test_without_a_folder_what_is_learned_from_beside_is_embedded_too_and_ends_before_the_test():
    (cycles,) = panels.extra_5min()
    assert cycles.unique_id == "google2019/cpi"
    assert len(cycles.values) <= steps_in(8064, 0.75)


@recorded
def test_the_folder_adds_the_sum_of_50_machines():
    found = panels.cell_5min(DATA)
    check(found, 300)
    assert len(found) == 11
    total = found[-1]
    assert (total.unique_id, len(total.values)) == ("bitbrains/cpu", 8640)
    assert datetime.fromtimestamp(total.start_s, UTC) == datetime(2013, 8, 12, 13, 35, 46, tzinfo=UTC)
    assert panels.absent("cell", DATA) == []


@recorded
def test_the_sum_holds_every_machine_and_after_its_last_sample_nothing_of_it():
    total = panels.cell_5min(DATA)[-1]
    scored = [each for each in panels.machine_5min(DATA) if each.unique_id.startswith("bitbrains")]
    steps = range(0, 8640, 97)
    for step in steps:
        parts = [
            vm.values[at] for vm in scored if 0 <= (at := step - (vm.start_s - total.start_s) // 300) < len(vm.values)
        ]
        assert total.values[step] >= sum(parts) - 1e-6


@recorded
@pytest.mark.parametrize(("grid", "step_s"), [("5min", 300), ("hourly", 3600)])
def test_32_machines_do_something_in_their_last_quarter(grid, step_s):
    found = panels.panel("machine", grid, DATA)
    check(found, step_s)
    assert len(found) == 32
    assert sum(each.unique_id.startswith("nab/") for each in found) == 8
    assert all(each.values[steps_in(len(each.values), 0.75) :].any() for each in found)


@recorded
def test_nothing_learned_from_beside_is_scored_or_lies_in_the_time_that_judges(beside):
    scored = [*panels.cell_5min(DATA), *panels.machine_5min(DATA)]
    check(beside, 300)
    assert not {each.unique_id for each in scored} & {each.unique_id for each in beside}
    first_test_s = min(
        each.start_s + 300 * steps_in(len(each.values), 0.75)
        for each in scored
        if each.unique_id.startswith("bitbrains")
    )
    same = [each for each in beside if each.unique_id.startswith(("bitbrains", "opendc-workloads"))]
    assert len(same) > 20
    assert all(each.start_s + 300 * len(each.values) <= first_test_s for each in same)


@recorded
def test_hourly_series_of_the_grid_are_learned_from_by_the_hour_only(beside):
    found = panels.extra_hourly(DATA)
    check(found, 3600)
    hourly, fine = ({each.unique_id.partition("/")[0] for each in series} for series in (found, beside))
    assert hourly - fine == {"carbon-electricitymaps", "grid-mix-weather", "electricity-price-es-2023"}
