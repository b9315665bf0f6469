"""How good forecasts of one to twelve months are, and what making forecasts add up costs; with the data folder.

The bounds hold what was measured against getting worse; where a target is missed, the bound says the measured value.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.signal import lfilter

import twin
from agents.forecast import frames
from agents.forecast.base import DECILES, MEDIAN, Floats
from agents.forecast.hierarchy import METHODS, Hierarchy, hierarchy, projection, reconciled
from agents.forecast.long.guarded import Guarded
from agents.forecast.long.totals import core_hours, totals
from agents.forecast.rolling import past_at, truth_at
from experiments import long_horizon
from scenarios.synthesis.years import Plan
from tests.bench.conftest import Figure

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SEEDS = range(30)
HOUR_S = 3_600
pytestmark = [pytest.mark.bench, pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here: recorded series")]


@pytest.fixture(scope="module")
def recorded() -> list[long_horizon.Long]:
    return list(long_horizon.recorded(DATA))


def _forecaster(months: int) -> Guarded:
    return Guarded(horizon=months * long_horizon.MONTH_DAYS, context=1_461, needs=28)


def test_recorded_series_month_by_month(recorded: list[long_horizon.Long], figure: Figure, tmp_path: Path) -> None:
    """Accuracy of monthly totals beside that of the mean so far; on two of the three logs at least as good, or near."""
    rows = pl.concat([long_horizon.measure(each, _forecaster(each.months)) for each in recorded])
    scores = {row["series"]: row for row in long_horizon.table(rows, ("series",)).iter_rows(named=True)}
    for name, row in scores.items():
        figure(f"{name}: totals", row["accuracy_percent"], "accuracy %, floor: mean", row["accuracy_of_mean_percent"])
    csv, markdown = long_horizon.write(long_horizon.table(rows), tmp_path)
    assert pl.read_csv(csv).height == markdown.read_text().count("\n") - 2
    logs = [scores[name] for name in ("KTH-SP2", "RICC", "philly")]
    assert all(log["accuracy_percent"] > log["accuracy_of_mean_percent"] - 1.0 for log in logs)
    for zone in ("DE", "FR", "US-TEX-ERCO"):
        assert scores[f"carbon-{zone}"]["accuracy_percent"] > scores[f"carbon-{zone}"]["accuracy_of_mean_percent"]


def test_generated_years_month_by_month(recorded: list[long_horizon.Long], figure: Figure) -> None:
    """Thirty generated four-year series: 90 % at 1-3 months is met; 12 months beats the best naive forecast."""
    told = long_horizon.habits_of(recorded)
    drawn = long_horizon.generated(told, SEEDS, Plan())
    rows = pl.concat([long_horizon.measure(each, _forecaster(each.months)) for each in drawn])
    scores = long_horizon.table(rows, ("month",)).sort("month")
    for row in scores.iter_rows(named=True):
        figure(f"generated: month {row['month']}", row["accuracy_percent"], "accuracy %, floor: 90", 90.0)
    assert (scores["accuracy_percent"].to_numpy()[:3] >= 90.0).all()
    assert (scores["skill"].to_numpy() > 0.0).all()
    coverage = scores["coverage_80"].to_numpy()
    assert ((coverage > 0.55) & (coverage < 0.95)).all()


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


# ---------------------------------------------------------------- machines, pools and the cell


@pytest.fixture(scope="module")
def cell() -> tuple[Hierarchy, Floats, int]:
    """Bitbrains machines on record from first to last, hourly MHz [nodes, hours]; a pool has equal numbers of cores."""
    trace = twin.read(DATA / "opendc-workloads" / "v4" / "bitbrains-small")
    hours = int(trace.usage["time_s"].to_numpy().max() // HOUR_S)
    cores = dict(trace.jobs.select("job", "cpu_cores").iter_rows())
    machines: dict[str, Floats] = {}
    usage = trace.usage.filter(resource="cpu").sort("time_s")
    for (name,), rows in usage.partition_by("entity", as_dict=True, maintain_order=True).items():
        at_s, mhz = rows["time_s"].to_numpy(), rows["value"].to_numpy()
        if at_s[0] < HOUR_S and at_s[-1] > (hours - 3) * HOUR_S:
            grid = np.searchsorted(at_s, np.arange(0, hours * HOUR_S, 300), side="right") - 1
            machines[str(name)] = mhz[np.maximum(grid, 0)].reshape(hours, 12).mean(axis=1)
    tree = hierarchy({m: ("cell", f"{cores[m]:g} cores") for m in machines}, ("cell", "pool", "machine"))
    return tree, tree.aggregate(np.stack([machines[m] for m in tree.nodes[-tree.bottom :]])), hours


def test_adding_up_costs_no_error_on_real_machines(cell: tuple[Hierarchy, Floats, int], figure: Figure) -> None:
    """Simple exponential smoothing 12 h ahead, its errors of a week as bands: WAPE and CRPS before and after."""
    tree, values, hours = cell
    said, truth = (np.stack(each) for each in zip(*(_smoothed(y) for y in values), strict=True))
    past, judged = np.arange(340, 500, 3), np.arange(515, hours - 11, 6)
    errors = np.moveaxis((truth - said)[:, past], 1, 0)
    said, truth = np.moveaxis(said[:, judged], 1, 0), np.moveaxis(truth[:, judged], 1, 0)
    bands = np.moveaxis(np.quantile(errors, DECILES, axis=0), 0, -1)
    said = np.maximum(said[..., None] + bands - bands[..., [MEDIAN]], 0.0)
    own = _losses(tree, said[..., MEDIAN], said, truth)
    for method in METHODS:
        matrix = projection(tree, method, errors.transpose(1, 0, 2).reshape(len(tree.nodes), -1))
        done = [reconciled(tree, each, errors, matrix, least=0.0) for each in said]
        mended = _losses(tree, np.stack([d.point for d in done]), np.stack([d.said for d in done]), truth)
        for level, (wape, crps) in mended.items():
            figure(f"{method}: {level} WAPE %", 100.0 * wape, "floor: not reconciled", 100.0 * own[level][0])
            figure(f"{method}: {level} CRPS %", 100.0 * crps, "floor: not reconciled", 100.0 * own[level][1])
        ratios = np.array([np.divide(mended[level], own[level]) for level in own]).mean(axis=0)
        if method in ("bottom_up", "wls_var"):
            assert (ratios < 1.0).all(), f"{method}: mean ratio of WAPE and CRPS {ratios}"


def _smoothed(values: Floats, h: int = 12) -> tuple[Floats, Floats]:
    """Forecasts and truth [hours, h] of the steps from each hour on; the weight is the best of the first two weeks."""
    truth = np.lib.stride_tricks.sliding_window_view(np.concatenate([values, np.full(h, np.nan)]), h)[:-1]
    levels = {}
    for weight in np.linspace(0.05, 1.0, 20):
        level = lfilter([weight], [1.0, weight - 1.0], values - values[0]) + values[0]
        level = np.repeat(np.concatenate([[values[0]], level[:-1]])[:, None], h, axis=1)
        levels[float(np.abs(truth - level)[24:324].mean())] = level
    return levels[min(levels)], truth


def _losses(tree: Hierarchy, point: Floats, said: Floats, truth: Floats) -> dict[str, tuple[float, float]]:
    """WAPE of the points and scaled CRPS of the deciles of each level."""
    error = truth[..., None] - said
    crps = 2.0 * np.maximum(DECILES * error, (DECILES - 1.0) * error).mean(axis=-1)
    sizes = {level: float(truth[:, rows].sum()) for level, rows in tree.levels.items()}
    return {
        level: (float(np.abs(truth - point)[:, rows].sum()) / sizes[level], float(crps[:, rows].sum()) / sizes[level])
        for level, rows in tree.levels.items()
    }
