"""The verb: a small bench on embedded series, its tables, and a rerun that asks only who is new."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from agents.forecast import naive
from experiments import accuracy, schema
from experiments.display import Silent
from experiments.forecasts.accuracy_levels import NATIVE, STATISTICAL
from reports import folder
from twin.errors import UsageError
from twin.trace import tables

NAIVE = "{_target_:agents.forecast.naive.Naive,season:%d,name:%s}"
ONE = [
    *(f"~forecasters.{name}" for name in ("naive", "seasonal_naive", "auto_ets", "mstl", "auto_theta", "neural")),
    "~forecasters.ensemble",
    "statistical=[one]", "candidate=one", "origins=3", "+forecasters.one=" + NAIVE % (1, "one"),
]  # fmt: skip
TWO = [*ONE, "+forecasters.two=" + NAIVE % (288, "two")]


def composed(*overrides: str) -> DictConfig:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        return compose("accuracy", list(overrides))


def ran(out: Path, *overrides: str) -> int:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):  # the run folder also keeps the bare defaults
        return accuracy.task(compose("accuracy", [*overrides, f"out={out}"]), Silent())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accuracy") / "run"
    assert ran(out, *ONE) == 0
    return out


def test_the_run_folder_holds_the_scores_of_every_forecaster_series_band_and_regime(first):
    scores = pl.read_parquet(first / "tables" / "accuracy_scores.parquet")
    assert scores.columns == [column.name for column in tables.schema("accuracy_scores")]
    assert set(scores["forecaster"]) == {NATIVE, STATISTICAL, "one"}
    assert scores["unique_id"].n_unique() == 10
    assert set(scores["regime"]) <= {"all", "calm", "usual", "rough"}  # nobody told the dates of what is embedded
    assert scores.filter(regime="all").height == 3 * 10 * (4 + 12)
    mine, mean = (scores.filter(forecaster=name).drop("forecaster") for name in ("one", STATISTICAL))
    assert mine.equals(mean)  # of one member


def test_the_identity_says_what_was_not_there_and_who_is_judged(first):
    identity = folder.identity_of(first)
    assert identity["absent"] == ["opendc-workloads/v1/bitbrains-small"]
    assert (identity["candidate"], identity["statistical"]) == ("one", ["one"])
    assert identity["failures"] == {}


def test_a_rerun_asks_only_who_is_new_and_says_the_same_of_the_others(first, tmp_path, monkeypatch):
    asked = []
    fit = naive.Naive.fit

    def heard(self, series, seed, progress=None):
        asked.append(self.name)
        return fit(self, series, seed, progress)

    monkeypatch.setattr(naive.Naive, "fit", heard)
    assert ran(tmp_path / "run", *TWO, f"earlier=[{first}]") == 0
    assert set(asked) == {"two"}
    again, before = (pl.read_parquet(out / "tables" / "accuracy_scores.parquet") for out in (tmp_path / "run", first))
    assert again.filter(forecaster="one").equals(before.filter(forecaster="one"))
    asked.clear()
    assert ran(tmp_path / "fresh", *ONE, f"earlier=[{first}]", "fresh=[one]") == 0
    assert set(asked) == {"one"}


def test_a_forecaster_that_fails_leaves_dashes_and_the_code_of_a_partly_failed_run(tmp_path):
    # too long a season for the eight days of Alibaba, on the hourly grid
    week = "+forecasters.week=" + NAIVE % (168, "week")
    assert ran(tmp_path / "run", *ONE, "grid=hourly", week) == 4
    identity = folder.identity_of(tmp_path / "run")
    assert identity["status"] == "partly failed"
    assert set(identity["failures"]["week"]) == {
        f"alibaba2018/{name}" for name in ("cpu", "memory", "net_in", "net_out", "disk")
    }
    scores = pl.read_parquet(tmp_path / "run" / "tables" / "accuracy_scores.parquet").filter(forecaster="week")
    failed = scores.filter(pl.col("unique_id").str.starts_with("alibaba"))
    assert np.isnan(failed["wape"].to_numpy()).all()
    assert np.isfinite(scores.filter(unique_id="google2019/cpu")["wape"].to_numpy()).all()


@pytest.mark.parametrize(("grid", "h", "day"), [("5min", 12, 288), ("hourly", 24, 24)])
@pytest.mark.parametrize("level", ["cell", "machine"])
def test_horizon_season_and_origins_follow_from_level_and_grid(level, grid, h, day):
    cfg = composed(f"level={level}", f"grid={grid}")
    assert (cfg.horizon_steps, cfg.day_steps) == (h, day)
    assert cfg.origins == {"cell": 24, "machine": {"5min": 8, "hourly": 12}[grid]}[level]
    assert cfg.forecasters.seasonal_naive.base.season == day
    assert cfg.forecasters.auto_theta.base.season == day


@pytest.mark.parametrize("option", ["weekly_naive", "historic_mean", "auto_arima", "cold_start"])
def test_an_option_that_nobody_told_of_the_grid_is_refused_by_the_name_of_what_to_set(option, tmp_path):
    added = f"+forecaster@forecasters.other={option}"
    with pytest.raises(UsageError, match=r"forecasters\.other is set for 12 steps ahead, and grid=hourly judges 24"):
        ran(tmp_path / "run", *ONE, added, "grid=hourly")
    assert not list(tmp_path.iterdir())


def test_an_added_option_that_was_told_of_the_grid_is_judged(tmp_path):
    told = [f"forecasters.mean.{key}" for key in ("horizon=24", "least_steps=48", "every=1")]
    assert ran(tmp_path / "run", *ONE, "+forecaster@forecasters.mean=historic_mean", *told, "grid=hourly") == 0
    assert "mean" in set(pl.read_parquet(tmp_path / "run" / "tables" / "accuracy_scores.parquet")["forecaster"])
