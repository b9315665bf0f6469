"""How good forecasts of one to twelve months are, and what making forecasts add up costs; with the data folder.

The bounds hold what was measured against getting worse; where a target is missed, the bound says the measured value.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import twin
from agents.forecast import frames
from agents.forecast.base import MEDIAN
from agents.forecast.long.guarded import Guarded
from agents.forecast.long.totals import core_hours, totals
from agents.forecast.rolling import past_at, truth_at
from experiments.forecasts import coherence, long_scores
from scenarios.synthesis.years import Plan
from tests.bench.conftest import Figure

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SEEDS = range(30)
HOUR_S = 3_600
FORECASTER = Guarded(horizon=364, context=1_461, needs=28)
pytestmark = [pytest.mark.bench, pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here: recorded series")]


@pytest.fixture(scope="module")
def recorded() -> list[long_scores.Long]:
    return list(long_scores.recorded(DATA))


def test_recorded_series_month_by_month(recorded: list[long_scores.Long], figure: Figure) -> None:
    """Accuracy of monthly totals beside that of the mean so far; on two of the three logs at least as good, or near."""
    rows = pl.concat([long_scores.measure(each, long_scores.fitted([each], FORECASTER)) for each in recorded])
    scores = {
        row["series"]: row
        for row in long_scores.table(rows.filter(pl.col("months") != long_scores.TOTAL), ("series",)).iter_rows(
            named=True
        )
    }
    for name, row in scores.items():
        figure(f"{name}: totals", row["accuracy_percent"], "accuracy %, floor: mean", row["accuracy_of_mean_percent"])
    logs = [scores[name] for name in ("KTH-SP2", "RICC", "philly")]
    assert all(log["accuracy_percent"] > log["accuracy_of_mean_percent"] - 1.0 for log in logs)
    for zone in ("DE", "FR", "US-TEX-ERCO"):
        assert scores[f"carbon-{zone}"]["accuracy_percent"] > scores[f"carbon-{zone}"]["accuracy_of_mean_percent"]


def test_generated_years_month_by_month(recorded: list[long_scores.Long], figure: Figure) -> None:
    """Thirty generated four-year series, fitted together: 90 % at 1-3 months, 85 % at 12, and bands that cover."""
    drawn = list(long_scores.generated(long_scores.habits_of(recorded), SEEDS, Plan()))
    together = long_scores.fitted(drawn, replace(FORECASTER, families=("mean", "drift")))
    scores = long_scores.scores(pl.concat([long_scores.measure(each, together) for each in drawn]))
    for row in scores.iter_rows(named=True):
        knowing = row["accuracy_of_knowing_percent"]
        figure(f"generated: months {row['months']}", row["accuracy_percent"], "accuracy %, floor: knowing", knowing)
    accuracy = dict(scores.select("months", "accuracy_percent").iter_rows())
    assert accuracy["1-3"] >= 90.0
    assert accuracy["12"] >= 85.0
    assert (scores["skill"].to_numpy() > 0.0).all()
    assert (scores["accuracy_of_knowing_percent"] > scores["accuracy_percent"]).all()
    coverage = scores["coverage_80"].to_numpy()
    assert ((coverage > 0.68) & (coverage < 0.92)).all()


def test_weeks_of_kth_against_the_mean(figure: Figure) -> None:
    """Weekly core-hours, 8 weeks ahead, second half of the log: within a twentieth of the historic mean's error."""
    trace = twin.read(DATA / "swf-pwa" / "KTH-SP2" / "log.swf")
    series = frames.panel(totals(core_hours(trace, HOUR_S), "week", epoch=trace.info.epoch))[0]
    start = len(series.values) // 2
    origins = np.arange(start, len(series.values) - 7)
    began = time.process_time()
    fitted = Guarded(horizon=8, context=209, needs=12).fit([series.until(start)], 0)
    assert figure("fit of 23 weeks", time.process_time() - began, "CPU s, floor: 1 s", 1.0) < 1.0
    truth = truth_at(series, origins, 8)
    said = fitted.forecast(past_at(series, origins, 209, 8), 8)[..., MEDIAN]
    mean = np.array([series.values[:o].mean() for o in origins])[:, None]
    errors = [100.0 * np.abs(each - truth).sum() / truth.sum() for each in (said, mean)]
    assert figure("KTH-SP2: weeks 1-8", errors[0], "WAPE %, floor: mean", errors[1]) < 1.05


def test_adding_up_costs_no_error_on_real_machines(figure: Figure) -> None:
    """Machines, pools and the cell of Bitbrains, 12 h ahead: WAPE and CRPS before and after."""
    table = coherence.parts(DATA)
    for row in table.iter_rows(named=True):
        name = f"{row['method']}: {row['level']}"
        figure(f"{name} WAPE %", 100.0 * row["wape"], "floor: not reconciled", 100.0 * row["own_wape"])
        figure(f"{name} CRPS %", 100.0 * row["scaled_crps"], "floor: not reconciled", 100.0 * row["own_scaled_crps"])
    for method in ("bottom_up", "wls_var"):
        rows = table.filter(method=method)
        assert np.mean(rows["wape"] / rows["own_wape"]) < 1.0
        assert np.mean(rows["scaled_crps"] / rows["own_scaled_crps"]) < 1.0
