"""Forecasters judged by decisions: everybody meets the same demand, and nobody knows it but the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from experiments import cell, decision_value, schema
from experiments.display import Silent
from experiments.forecasts import foresight
from experiments.rundir import RunFolder
from twin.errors import UsageError
from twin.trace import tables

SMALL = ["days=1", "workers=1", "quantiles=[0.5,0.9]", "~scenarios.surge", "capacity.shortage_costs=[9]"]
SMALL += ["rules.hpa.interval_s=60", *(f"~rules.{name}" for name in ("hpa_tuned", "static"))]
SMALL += [f"~forecasters.{name}" for name in ("weekly_naive", "historic_mean", "auto_ets", "neural", "ensemble")]
SMALL += [f"~capacity.forecasters.{name}" for name in ("naive_week", "auto_ets")]
TOO_LONG = "forecasters.seasonal_naive.base.season=9999"


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        yield


def composed(*overrides: str) -> DictConfig:
    return compose("decision_value", [*SMALL, *overrides, "out=unused"])


@pytest.fixture(scope="module")
def done(hydra: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A study with a forecaster that cannot be fitted."""
    out = tmp_path_factory.mktemp("decision_value") / "run"
    with RunFolder(out) as folder:
        failed = decision_value.study(composed(TOO_LONG), folder, Silent())
    return out, failed


@pytest.fixture(scope="module")
def frame(done: tuple[Path, list[str]]) -> pl.DataFrame:
    return tables.read(done[0] / "tables" / "decision_value.parquet", "decision_value")


def test_each_forecaster_has_a_row_per_quantile_and_each_plan_one_per_price(frame: pl.DataFrame) -> None:
    assert frame.select("kind", "forecaster", "quantile").rows() == [
        ("rule", "hpa", None),
        ("scaler", "oracle", None),
        ("plan", "oracle", None),
        ("scaler", "naive", 0.5),
        ("scaler", "naive", 0.9),
        ("plan", "naive_day", 0.9),
        ("plan", "highest_week", 0.9),
    ]


def test_the_table_lies_beside_it_as_csv(done: tuple[Path, list[str]], frame: pl.DataFrame) -> None:
    assert tables.read(done[0] / "decision_value.csv", "decision_value").equals(frame)


def test_who_fails_is_named_and_the_others_go_on(done: tuple[Path, list[str]]) -> None:
    assert len(done[1]) == 1
    assert done[1][0].startswith("seasonal_naive: UsageError: ")


def test_only_the_oracle_makes_no_error(frame: pl.DataFrame) -> None:
    led = frame.filter(pl.col("kind") != "rule")
    assert (led.filter(forecaster="oracle")["wape"] == 0.0).all()
    assert (led.filter(pl.col("forecaster") != "oracle")["wape"] > 0.01).all()
    assert frame.filter(kind="rule")["wape"].to_list() == [None]


def test_a_higher_quantile_holds_more_and_is_later_less(frame: pl.DataFrame) -> None:
    low, high = frame.filter(forecaster="naive").sort("quantile").iter_rows(named=True)
    assert low["replica_h"] < high["replica_h"]
    assert low["late_ratio"] > high["late_ratio"]
    assert low["wape"] == high["wape"]


def test_the_forecasts_that_led_are_kept(done: tuple[Path, list[str]]) -> None:
    assert sorted(path.name for path in (done[0] / "forecasts").iterdir()) == [
        "recorded--0--naive.npz",
        "recorded--0--oracle.npz",
    ]


def test_the_plans_that_were_held_are_kept(done: tuple[Path, list[str]]) -> None:
    names = sorted(path.name for path in (done[0] / "plans").iterdir())
    assert names == [f"recorded--0--{name}--q90.csv" for name in ("highest_week", "naive_day", "oracle")]
    plan = pl.read_csv(done[0] / "plans" / names[1])
    assert plan.columns == ["time_s", "peak_rps", "replicas"]
    assert plan["time_s"].to_list() == [21 * 86_400.0 + 3600.0 * hour for hour in range(24)]


def test_everybody_meets_the_same_demand(tmp_path: Path) -> None:
    cfg = composed()
    ((label, one),) = foresight.cells(cfg)
    met = [(label, one, foresight.ahead(one, "cell"))]
    led = next(foresight.scalers(cfg, "oracle", None, met, tmp_path))
    rule = next(foresight.rules(cfg, [(label, one)]))
    runs = [cell.run(replace(job.cell, until_s=7200.0))[0].service_steps["arrived_requests"] for job in (led, rule)]
    assert runs[0].to_list() == pytest.approx(runs[1].to_list(), rel=1e-12)


def test_what_is_known_before_a_run_ends_where_it_begins() -> None:
    ((_, one),) = foresight.cells(composed())
    what = foresight.ahead(one, "cell")
    assert (what.start_s, what.scored_s) == (20 * 86_400, 21 * 86_400)
    assert what.steps_until(what.start_s) == 20 * 288
    assert len(what.demand.values) == 22 * 288
    assert np.isfinite(what.demand.values).all()


@pytest.mark.parametrize(("override", "message"), [("part=all", "learn from"), ("baseline=static", "not among")])
def test_a_comparison_that_makes_no_sense_is_refused(override: str, message: str, tmp_path: Path) -> None:
    cfg: Any = composed(override)
    with pytest.raises(UsageError, match=message):
        decision_value.jobs(cfg, tmp_path, lambda share, note: None)
