"""What the configured forecasters reach on whole clusters: known opponents come out as known, targets are printed.

The opponents' figures hold the protocol in its place: series, origins, bands and ratios that drift would move them. A
target that is missed is shown with its figure; what fails here is a candidate that is worse than its opponents.
"""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
from hydra import compose, initialize_config_module

from experiments import accuracy, schema
from experiments.display import Silent
from experiments.forecasts import accuracy_part
from experiments.forecasts.accuracy_levels import NATIVE, STATISTICAL
from experiments.forecasts.accuracy_targets import Panel, targets
from tests.bench.conftest import Figure

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the recordings are not at {DATA}"),
]

MOST_WORSE = 1.01  # of the mean of the statistical models: less than the noise of 24 origins
COVERAGE = (0.70, 0.90)


@pytest.fixture(scope="module")
def panels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Panel]:
    """The bench of whole clusters on both grids, as configured."""
    found = {}
    schema.register()
    for grid in ("5min", "hourly"):
        out = tmp_path_factory.mktemp("accuracy") / grid
        with initialize_config_module("conf", version_base="1.3"):
            assert accuracy.task(compose("accuracy", [f"grid={grid}", f"data={DATA}", f"out={out}"]), Silent()) == 0
        found[grid] = accuracy_part.read(out)
    return found


@pytest.mark.parametrize(
    ("grid", "median_percent", "mase"),
    [("5min", 95.23, 1.04), ("hourly", 95.88, 0.95)],
)
def test_yesterdays_value_is_as_good_as_it_is_known_to_be(
    panels: dict[str, Panel], grid: str, median_percent: float, mase: float
) -> None:
    found = panels[grid].levels().filter(forecaster=NATIVE).row(0, named=True)
    assert found["series"] == 11
    assert found["accuracy_percent"] == pytest.approx(median_percent, abs=0.05)
    assert found["mase"] == pytest.approx(mase, abs=0.01)
    assert found["crps_ratio"] == 1.0


@pytest.mark.parametrize(("grid", "least_percent", "most_crps"), [("5min", 97.3, 0.335), ("hourly", 95.0, 0.90)])
def test_the_statistical_models_together_are_a_strong_opponent(
    panels: dict[str, Panel], grid: str, least_percent: float, most_crps: float
) -> None:
    found = panels[grid].levels().filter(forecaster=STATISTICAL).row(0, named=True)
    assert found["accuracy_percent"] >= least_percent
    assert found["crps_ratio"] <= most_crps


@pytest.mark.parametrize("grid", ["5min", "hourly"])
def test_the_candidate_is_no_worse_than_the_statistical_models(
    panels: dict[str, Panel], grid: str, figure: Figure
) -> None:
    panel = panels[grid]
    for target in targets([panel]):
        if not math.isnan(target.value):
            bound = target.must[0] if math.isfinite(target.must[0]) else target.must[1]
            figure(f"{target.horizon}: {target.what} ({target.met})", target.value, target.scale, bound)
    assert panel.level_of("mae_ratio") <= MOST_WORSE
    assert COVERAGE[0] <= panel.level_of("coverage_80") <= COVERAGE[1]


def test_no_forecaster_fails_on_a_cluster(panels: dict[str, Panel]) -> None:
    for panel in panels.values():
        assert panel.identity["failures"] == {}
        assert not panel.scores.filter(pl.col("crps").is_nan()).height
