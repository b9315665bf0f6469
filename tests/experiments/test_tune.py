"""The verb: judged inside the learned part alone, the same twice, resumed where it stood, compared series by series."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from agents.forecast import naive
from agents.forecast.frames import Series, steps_in
from experiments import schema, sweep, tune
from experiments.display import Silent
from experiments.forecasts import panels
from experiments.forecasts.accuracy_levels import NATIVE
from reports import folder, tuning
from tests.reports.outline import Outline
from twin.errors import TraceError, UsageError
from twin.trace import tables

ROOT = Path(__file__).resolve().parents[2]
BRIEF = ("forecaster=naive", "origins=4")


def composed(*overrides: str) -> DictConfig:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        return compose("tune", list(overrides))


@pytest.fixture
def job_of() -> Iterator[Callable[..., DictConfig]]:
    """Composes a configuration as a job of the verb has it: Hydra knows the choices and the overrides."""

    def of(*overrides: str) -> DictConfig:
        schema.register()
        with initialize_config_module("conf", version_base="1.3"):
            cfg = compose("tune", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return cfg

    before = HydraConfig.instance().cfg
    yield of
    HydraConfig.instance().cfg = before


def ran(out: Path, *overrides: str) -> int:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):  # the run folder also keeps the bare defaults
        return tune.task(compose("tune", [*overrides, f"out={out}"]), Silent())


def changed(series: Sequence[Series], share: float, values: Callable[[np.ndarray], np.ndarray]) -> list[Series]:
    """The series with other values after the first `share` of them."""
    made = []
    for each in series:
        start = steps_in(len(each.values), share)
        made.append(replace(each, values=np.concatenate([each.values[:start], values(each.values[start:])])))
    return made


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tune") / "run"
    assert ran(out, *BRIEF) == 0
    return out


# ---------------------------------------------------------------- one job


def test_the_part_that_judges_elsewhere_is_never_looked_at(first, tmp_path, monkeypatch):
    """Poisoned, it changes nothing; poison in the part before it is seen."""
    whole, poison = panels.panel("cell", "hourly", None), np.full
    tables_of = lambda out: pl.read_parquet(out / "tables" / "accuracy_scores.parquet")  # noqa: E731 - local

    def poisoned(share: float) -> list[Series]:
        return changed(whole, share, lambda rest: poison(rest.shape, np.nan))

    monkeypatch.setattr(tune.panels, "panel", lambda *_: poisoned(0.75))
    assert ran(tmp_path / "after", *BRIEF) == 0
    assert tables_of(tmp_path / "after").equals(tables_of(first))
    monkeypatch.setattr(tune.panels, "panel", lambda *_: poisoned(0.74))
    ran(tmp_path / "before", *BRIEF)
    assert not tables_of(tmp_path / "before").equals(tables_of(first))


def test_origins_begin_where_learning_ends_and_end_before_the_part_that_judges_elsewhere():
    trial = tune.Trial.of(composed("train_share=0.6", "validate_from=0.7", "forecaster=naive"))
    for plan, whole in zip(trial.plans, panels.panel("cell", "hourly", None), strict=True):
        cut = steps_in(len(whole.values), 0.6)
        assert len(plan.series.values) == cut
        assert plan.origins[0] == steps_in(cut, 0.7)
        assert plan.origins[-1] + trial.protocol.h == cut


def test_a_series_without_room_to_judge_is_a_usage_error_that_names_the_key():
    with pytest.raises(UsageError, match=r"validate_from=0\.99 of train_share=0\.75: series 'google2019/cpu'"):
        tune.Trial.of(composed("validate_from=0.99", "forecaster=naive"))


def test_the_run_holds_the_scores_of_all_series_and_the_kpis_that_follow_from_them(first):
    scores = tables.read(first / "tables" / "accuracy_scores.parquet", "accuracy_scores")
    assert set(scores["forecaster"]) == {NATIVE, "naive"}
    assert scores["unique_id"].n_unique() == 10
    kpis = {row["kpi"]: row for row in tables.read(first / "tables" / "kpis.parquet", "kpis").to_dicts()}
    pooled = scores.filter(horizon="1-24", regime="all").sort("unique_id")
    own, native = (pooled.filter(forecaster=name) for name in ("naive", NATIVE))
    expected = math.exp(np.log(own["crps"].to_numpy() / native["crps"].to_numpy()).mean())
    assert kpis["score"]["value"] == pytest.approx(expected)
    assert kpis["score"]["better"] == "lower"
    assert kpis["mae_ratio"]["value"] == pytest.approx(math.exp(np.log((own["mae"] / native["mae"]).to_numpy()).mean()))
    assert kpis["accuracy_percent"]["value"] == pytest.approx(own["accuracy_percent"].median())
    assert kpis["coverage_80"]["value"] == pytest.approx(own["coverage_80"].mean())
    assert kpis["fit_s"]["value"] > 0.0
    assert kpis["forecast_ms"]["value"] > 0.0


def test_a_trial_that_was_ended_is_not_made_again_and_another_does_not_overwrite_it(first, monkeypatch):
    def refused(*_: object) -> None:
        raise AssertionError("fitted again")

    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    monkeypatch.setattr(naive.Naive, "fit", refused)
    assert ran(first, *BRIEF) == 0
    with pytest.raises(UsageError, match="not empty"):
        ran(first, *BRIEF, "seed=1")
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before


def test_a_series_that_fails_leaves_the_score_unknown_and_the_code_of_a_partly_failed_run(tmp_path):
    cfg = ("forecaster=weekly_naive", "on_grid.weekly_naive.base.shorter=null", "origins=2")
    assert ran(tmp_path / "run", *cfg) == 4  # Alibaba has no week to learn from
    kpis = tables.read(tmp_path / "run" / "tables" / "kpis.parquet", "kpis")
    assert kpis.filter(kpi="score")["value"].to_list() == [None]
    assert "alibaba2018/cpu" in folder.identity_of(tmp_path / "run")["reason"]


def season_of(forecaster):
    return forecaster.base.season


@pytest.mark.parametrize(("grid", "season"), [("5min", 288), ("hourly", 24)])
def test_the_grid_sets_what_the_command_line_does_not(grid, season, job_of):
    keys = ("forecaster=seasonal_naive", f"grid={grid}", "forecaster.base.name=mine")
    assert season_of(tune.forecast.built(job_of(*keys), "forecaster")) == season
    assert season_of(tune.forecast.built(job_of(*keys, "forecaster.base.season=7"), "forecaster")) == 7


@pytest.mark.parametrize("mark", ["+", "++"])
def test_what_the_command_line_adds_has_the_last_word_too(mark, job_of):
    cfg = job_of("forecaster=neural", f"{mark}forecaster.base.squash=true")
    assert tune.forecast.built(cfg, "forecaster").base.squash is True  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("grid", ["5min", "hourly"])
@pytest.mark.parametrize("level", ["cell", "machine"])
def test_a_cold_start_has_its_checkpoint_on_every_level_and_grid(level, grid):
    asked = tune.forecast.built(composed("forecaster=cold_start", f"level={level}", f"grid={grid}"), "forecaster")
    assert asked.fit([], 0).base.weights  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("option", sorted(path.stem for path in (ROOT / "conf" / "forecaster").glob("*.yaml")))
def test_every_forecaster_is_told_of_the_grid_and_can_be_built(option):
    cfg = composed(f"forecaster={option}")
    assert tune.forecast.built(cfg, "forecaster").name in cfg.on_grid


# ---------------------------------------------------------------- a sweep

IDS = [f"s{k}" for k in range(8)]


def job(place: Path, number: int, overrides: Sequence[str], crps: Sequence[float], error: str = "") -> None:
    """What one job of a sweep leaves: its note and, where it worked, its tables; the native CRPS is 1 everywhere."""
    out = place / str(number)
    if not error:
        plain = dict.fromkeys(("wape", "mase", "scaled_crps", "coverage_80", "skill", "bias", "mae"), 0.5)
        named = {"level": "cell", "grid": "5min", "horizon": "1-12", "regime": "all", "origins": 3}
        rows = [
            {**named, **plain, "accuracy_percent": 90.0, "forecaster": name, "unique_id": i, "crps": value}
            for name, values in (("net", crps), (NATIVE, [1.0] * len(IDS)))
            for i, value in zip(IDS, values, strict=True)
        ]
        kpis = [{"kpi": k, "entity": "all", "value": number + 1.0, "unit": u, "better": b} for k, u, b in tune._KPIS]
        (out / "tables").mkdir(parents=True)
        for name, frame in (("accuracy_scores", rows), ("kpis", kpis)):
            tables.write(tables.conform(pl.DataFrame(frame), name, "test"), out / "tables" / f"{name}.parquet")
        identity = {"format_version": 1, "name": "tune", "forecaster": "net", "level": "cell", "grid": "5min"}
        (out / "identity.json").write_text(json.dumps({**identity, "git": {}, "versions": {}}), encoding="utf-8")
    note = {"overrides": list(overrides), "folder": str(out), "exit_code": int(bool(error)), "error": error}
    sweep.note(place, number, note)


def spread(middle: float, width: float) -> list[float]:
    """Values of all series, `width` apart at most in logarithms, whose geometric mean is `middle`."""
    return (middle * np.exp(width * np.linspace(-0.5, 0.5, len(IDS)))).tolist()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two windows in two seeds each, a clear and a hardly different opponent, and one that failed."""
    job(tmp_path, 0, ["display=plain", "base.window=96", "seed=0"], spread(0.50, 1.0))
    job(tmp_path, 1, ["display=plain", "base.window=96", "seed=1"], spread(0.32, 1.0))
    job(tmp_path, 2, ["display=plain", "base.window=48", "seed=0"], spread(0.9, 1.0))
    job(tmp_path, 3, ["display=plain", "base.window=48", "seed=1"], spread(0.9, 1.0))
    job(tmp_path, 4, ["display=plain", "base.window=12", "seed=0"], [], "UsageError: <b>no</b>")
    return tmp_path


def test_a_configuration_is_the_mean_of_its_seeds_and_is_held_against_the_best_series_by_series(place):
    table = tune.compared(tune.jobs(place), seed=0)
    assert [json.loads(text) for text in table["settings"]] == [{"base.window": w} for w in ("96", "48", "12")]
    assert table["jobs"].to_list() == ["0, 1", "2, 3", "4"]
    assert table["score"].to_list()[:2] == pytest.approx([0.4, 0.9])
    best, other, failed = table.to_dicts()
    assert best["to_best"] == 1.0
    assert best["score_low"] < 0.4 < best["score_high"]
    # the series differ by far more than the configurations, and alike: pairing takes that out
    assert other["to_best_low"] == pytest.approx(2.25)
    assert other["to_best_high"] == pytest.approx(2.25)
    assert other["fit_s"] == 3.5
    assert (failed["score"], failed["error"]) == (None, "UsageError: <b>no</b>")
    tables.conform(table, "tuning", "test")


def test_the_finding_says_whether_the_second_differs_by_more_than_noise(place, tmp_path):
    said = tune.finding(tune.compared(tune.jobs(place), seed=0))
    assert "Best of 2: base.window=96, score 0.4" in said
    assert "over 8 series" in said
    assert "The second, base.window=48, has 2.25 times its CRPS" in said
    assert said.endswith("more than noise.")
    assert not said.endswith("no more than noise.")
    job(tmp_path, 5, ["display=plain", "base.window=192", "seed=0"], spread(0.401, -2.0))
    said = tune.finding(tune.compared(tune.jobs(place), seed=0))
    assert "base.window=192" in said
    assert said.endswith("no more than noise.")


def test_jobs_that_were_judged_on_other_series_or_origins_are_not_compared(place):
    path = place / "2" / "tables" / "accuracy_scores.parquet"
    found = pl.read_parquet(path)
    found.with_columns(pl.col("origins") + 1).write_parquet(path)
    with pytest.raises(UsageError, match="job 2 was judged on other series, steps or origins than job 0"):
        tune.compared(tune.jobs(place), seed=0)


def test_nothing_scored_is_a_usage_error(tmp_path):
    job(tmp_path, 0, ["base.window=1"], [], "it broke")
    with pytest.raises(UsageError, match="no configuration was scored"):
        tune.compared(tune.jobs(tmp_path), seed=0)


def test_the_page_shows_every_configuration_the_finding_and_a_chart_of_each_key(place):
    sentence = tune.conclude(place, 0, "python -m experiments.tune --multirun base.window=96,48,12 seed=0,1")
    text = tuning.write(place).read_text(encoding="utf-8")
    page = Outline(text)
    assert sentence in page.text
    assert [each for each in page.text if each in ("96", "48", "12")] == ["96", "48", "12"]  # the best first
    assert "UsageError: <b>no</b>" in page.text
    assert "b" not in page.tags
    assert 'id="chart-key_0"' in text
    assert "chart-key_1" not in text
    assert tuning.write(place).read_text(encoding="utf-8") == text
    (place / "tables" / "tuning.parquet").unlink()
    with pytest.raises(TraceError, match=r"tuning\.parquet is missing"):
        tuning.write(place)


def test_a_sweep_goes_on_where_it_stood_and_ends_with_its_table_and_its_page(tmp_path):
    place = tmp_path / "sweep"
    assert ran(place / "0", "forecaster=naive", "origins=2") == 0  # what the first job of a sweep that was cut off left
    kept = (place / "0" / "timing.json").stat().st_mtime_ns
    keys = ["forecaster=naive,seasonal_naive", "origins=2", "display=plain", f"hydra.sweep.dir={place}"]
    command = [sys.executable, "-m", "experiments.tune", "--multirun", *keys]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("nothing to do") == 1
    assert (place / "0" / "timing.json").stat().st_mtime_ns == kept
    table = pl.read_csv(place / "sweep.csv")
    assert table["forecaster"].to_list() == ["naive", "seasonal_naive"]
    assert table["score"].null_count() == 0
    assert "Best of 2: forecaster=" in done.stdout
    assert str(place / "report.html") in done.stdout
