"""The verb on a tiny run: its tables, the bound of what can be known, and the page that is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module

from experiments import long_horizon, schema
from experiments.display import Silent
from experiments.forecasts import coherence, long_horizon_part, long_scores
from reports import folder
from scenarios.synthesis.years import Habits, Plan
from twin.errors import UsageError
from twin.trace import tables

TINY = ["series=2", "first_seed=2000", "timed=[]", "forecaster.origins=3"]
HABITS = Habits((0.02,) * 5 + (-0.05, -0.05), (), 0.2, 0.4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("long") / "run"
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        assert long_horizon.task(compose("long_horizon", [*TINY, f"out={out}"]), Silent()) == 0
    return out


def test_every_month_their_bands_and_the_total_are_scored(run: Path) -> None:
    scores = pl.read_parquet(run / "tables" / "long_horizon.parquet")
    assert scores.columns == [column.name for column in tables.schema("long_horizon")]
    assert scores["months"].to_list() == [*map(str, range(1, 14)), "1-3", "4-12", "total"]
    assert set(scores["source"]) == {"generated"}
    assert scores.filter(months="1-3")["forecasts"].item() == 3 * scores.filter(months="1")["forecasts"].item()
    assert scores["coverage_80"].is_between(0.0, 1.0).all()
    identity = folder.identity_of(run)
    assert (identity["series"], identity["habits"]) == (2, "configured")
    assert 0.0 <= identity["weight_of_drift"] <= 1.0


def test_a_band_pools_its_months() -> None:
    rows = pl.DataFrame({
        "source": "recorded", "series": "x", "months": ["1", "2", "3"], "truth": [10.0, 20.0, 30.0],
        "error": [1.0, 2.0, 6.0], "crps": [1.0, 1.0, 1.0], "within": [1.0, 0.0, 1.0], "scale": 3.0,
        "naive_last": [2.0, 4.0, 12.0], "naive_year": [np.nan] * 3, "naive_mean": [3.0, 6.0, 9.0],
    })  # fmt: skip
    band = long_scores.scores(rows).row(by_predicate=pl.col("months") == "1-3", named=True)
    assert band["accuracy_percent"] == pytest.approx(85.0)
    assert band["skill"] == pytest.approx(0.5)
    assert (band["mase"], band["coverage_80"]) == (pytest.approx(1.0), pytest.approx(2 / 3))
    assert band["accuracy_of_knowing_percent"] is None


def test_what_is_judged_is_not_learned_from() -> None:
    long = next(iter(long_scores.generated([HABITS], [2001], Plan())))
    cut = long.series.until(long.start)
    assert len(cut.values) == len(cut.known) == 1461 - 364 - 84


def test_the_page_takes_its_tables_from_the_run_folder(run: Path, tmp_path: Path) -> None:
    said = long_horizon_part.written([run])
    header = next(line for line in said.splitlines() if line.startswith("| months |"))
    assert all(name in header for name in ("accuracy", "skill", "scaled CRPS", "coverage", "knowing"))
    assert "| accuracy, months 12 | >= 85 % | >= 88 % |" in said
    with pytest.raises(UsageError, match="holds no long_horizon"):
        long_horizon_part.written([tmp_path])
    with pytest.raises(UsageError, match="give one"):
        long_horizon_part.written([run, run])


def test_forecasts_of_a_day_in_three_steps_are_compared_at_each_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coherence, "METHODS", ("bottom_up", "wls_struct"))
    table = coherence.times("google2019")
    assert table["level"].unique(maintain_order=True).to_list() == list(coherence.TIMES)
    lowest = table.filter(method="bottom_up", level="5 min")
    assert lowest["wape"].item() == pytest.approx(lowest["own_wape"].item())
    tables.conform(table, "coherence", "test")


def test_settings_of_simple_forecasts_do_not_see_what_is_judged() -> None:
    values = 10.0 + np.random.default_rng(0).random(20 * 288)
    origins = np.arange(7 * 288, 19 * 288 + 1, coherence._EVERY)
    half = len(origins) // 2
    other = values.copy()
    other[origins[half] :] *= np.linspace(1.0, 5.0, len(values) - origins[half])
    said = [coherence._by_day(each, origins, 12, half)[: half + 1] for each in (values, other)]
    assert (said[0] == said[1]).all()
