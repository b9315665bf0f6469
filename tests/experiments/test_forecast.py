"""The verb: forecasts, reasons and sentences, nothing from after now, and fallbacks that are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import twin
from agents.forecast.base import DECILE_NAMES, Forecaster
from agents.forecast.ensemble import Stack
from agents.forecast.exported import OnnxForecaster
from agents.forecast.frames import Series
from agents.forecast.naive import Naive
from agents.forecast.rolling import past_at
from experiments import forecast, schema, verb
from experiments.display import Silent
from experiments.forecasts import forecast_answers, forecast_series
from reports import folder
from twin.errors import UsageError
from twin.trace import tables
from twin.trace.trace import Trace

CONF = Path(__file__).resolve().parents[2] / "conf"
NOW_S = 20 * 86_400
BRIEF = ["forecaster=naive", "resources=[cpu]"]


def composed(*overrides: str) -> DictConfig:
    schema.register()
    with initialize_config_module("conf", version_base="1.3"):
        return compose("forecast", list(overrides))


@pytest.fixture
def job() -> Iterator[Callable[..., DictConfig]]:
    """Composes a configuration as a job of the verb has it: Hydra knows the choices and the overrides."""

    def of(*overrides: str) -> DictConfig:
        schema.register()
        with initialize_config_module("conf", version_base="1.3"):
            cfg = compose("forecast", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return cfg

    before = HydraConfig.instance().cfg
    yield of
    HydraConfig.instance().cfg = before


class Heard(Silent):
    """What is said on stdout is kept, and on stderr apart from it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def result(self, text: str) -> None:
        self.said.append(text)


def ran(out: Path, *overrides: str, heard: Heard | None = None, **changed: object) -> tuple[int, list[str]]:
    schema.register()
    heard = heard or Heard()
    with initialize_config_module("conf", version_base="1.3"):  # the run folder also keeps the bare defaults
        cfg = compose("forecast", [*overrides, f"out={out}"])
        for key, value in changed.items():
            cfg[key] = value
        return forecast.task(cfg, heard), heard.said


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Naive forecasts of two series from the twentieth day on, under two growth scenarios."""
    out = tmp_path_factory.mktemp("forecast") / "run"
    more = ["resources=[cpu,cpi]", f"until_s={NOW_S}", "scenarios={same:{},more:{level:1.1}}"]
    code, said = ran(out, "forecaster=naive", *more)
    assert code == 0
    return out, said


def table(done: tuple[Path, list[str]], name: str) -> pl.DataFrame:
    return tables.read(done[0] / "tables" / f"{name}.parquet", name)


def test_each_series_is_forecast_from_now_and_what_came_stands_beside_it(done) -> None:
    said = table(done, "forecasts").filter(unique_id="google2019/cpu")
    assert said["cutoff_s"].unique().to_list() == [NOW_S]
    assert said["step"].to_list() == list(range(1, 13))
    recorded = twin.read("google2019").usage.filter(resource="cpu")
    came = recorded.filter(pl.col("time_s").is_between(NOW_S, NOW_S + 3600, closed="left"))["value"]
    assert said["y"].to_list() == came.to_list()
    last = recorded.filter(pl.col("time_s") < NOW_S)["value"][-1]
    assert said["q50"].to_list() == pytest.approx([last] * 12)


def test_the_reasons_of_every_step_add_up_to_its_median(done) -> None:
    added = table(done, "forecast_explanations").group_by("unique_id", "step").agg(pl.col("contribution").sum())
    both = table(done, "forecasts").join(added, on=["unique_id", "step"])
    assert both.height == 24
    assert both["contribution"].to_list() == pytest.approx(both["q50"].to_list())


def test_one_sentence_for_each_series_is_printed_and_stands_in_the_table(done) -> None:
    rows = table(done, "forecast_sentences")
    assert done[1][: rows.height] == rows["sentence"].to_list()
    assert rows["sentence"].str.starts_with("cp").all()
    assert rows["fallback"].to_list() == ["", ""]
    look = rows["confidence_percent"] < 80.0
    assert rows["needs_a_human"].to_list() == look.to_list()
    assert rows["sentence"].str.contains("a human should look").to_list() == look.to_list()


def test_a_scenario_moves_the_whole_forecast(done) -> None:
    on = ["unique_id", "step"]
    both = table(done, "forecast_scenarios").join(table(done, "forecasts"), on=on, suffix="_said")
    for name, factor in (("same", 1.0), ("more", 1.1)):
        rows = both.filter(scenario=name)
        for q in DECILE_NAMES:
            assert rows[q].to_list() == pytest.approx((factor * rows[f"{q}_said"]).to_list())


def test_the_exported_graph_says_what_the_table_says(tmp_path) -> None:
    out = tmp_path / "run"
    code, printed = ran(out, *BRIEF, f"until_s={NOW_S}", "onnx=true")
    assert code == 0
    assert printed[1].startswith("onnx/naive--google2019--cpu: ")
    graph = OnnxForecaster(out / "onnx" / "naive--google2019--cpu")
    (series,) = forecast_series.recorded(twin.read("google2019"), 300, ["cpu"], NOW_S).series
    past = past_at(series, np.array([len(series.values)]), graph.context, 12)
    said = tables.read(out / "tables" / "forecasts.parquet", "forecasts").select(DECILE_NAMES).to_numpy()
    assert graph.forecast(past, 12)[0] == pytest.approx(said, rel=1e-5)
    assert folder.identity_of(out)["onnx"]["naive--google2019--cpu"] < 1e-3


def test_the_report_shows_the_sentences(done) -> None:
    page = (done[0] / "report.html").read_text(encoding="utf-8")
    for text in table(done, "forecast_sentences")["sentence"]:
        assert text in page


def test_nothing_from_after_now_is_looked_at() -> None:
    whole = twin.read("google2019")
    for step_s in (300, 3600):
        seen = forecast_series.recorded(whole, step_s, until_s=NOW_S).series
        cut = forecast_series.recorded(whole.between(0, NOW_S), step_s).series
        for one, other in zip(seen, cut, strict=True):
            assert one.values.tolist() == other.values.tolist()
            assert one.start_s + one.step_s * len(one.values) == NOW_S


def test_at_the_end_of_a_trace_nothing_has_come_yet(tmp_path) -> None:
    code, _ = ran(tmp_path / "run", *BRIEF, "step_s=3600", "horizon_steps=6")
    assert code == 0
    said = tables.read(tmp_path / "run" / "tables" / "forecasts.parquet", "forecasts")
    assert said.height == 6
    assert said["y"].is_nan().all()


# ---------------------------------------------------------------- what fails


def test_a_forecaster_that_cannot_be_fitted_is_stood_in_for_and_the_table_says_so(tmp_path) -> None:
    long = {"_target_": "agents.forecast.naive.Naive", "season": 10**6, "name": "long"}
    code, _ = ran(tmp_path / "run", *BRIEF, forecaster=long)
    assert code == verb.PARTLY
    (row,) = tables.read(tmp_path / "run/tables/forecast_sentences.parquet", "forecast_sentences").to_dicts()
    assert (row["asked"], row["forecaster"]) == ("long", "seasonal_naive")
    assert "too few" in row["fallback"]
    assert "A fallback made this forecast" in row["sentence"]
    said = tables.read(tmp_path / "run/tables/forecasts.parquet", "forecasts")
    assert said["forecaster"].unique().to_list() == ["seasonal_naive"]
    assert folder.identity_of(tmp_path / "run")["status"] == "partly failed"


@dataclass(frozen=True)
class Lost:
    """Says NaN, or raises when it is asked what if."""

    base: Forecaster
    only: bool
    name: str = "lost"
    context: int = 12
    needs: int = 12
    pooled: bool = False

    def fit(self, series, seed, progress=None):
        return self

    def forecast(self, past, h):
        if self.only and len(past.ids) > 1:
            raise ValueError("one at a time")
        said = self.base.forecast(past, h)
        return said if self.only else np.full_like(said, np.nan)


@pytest.mark.parametrize(("only", "why"), [(False, "lost: not finite"), (True, "lost could not be explained")])
def test_a_forecaster_that_says_nonsense_or_cannot_be_explained_is_stood_in_for(*, only, why) -> None:
    now = forecast_series.recorded(twin.read("google2019"), 300, ["cpu"], NOW_S)
    series = now.series[0]
    simple = Naive(12, "simple").fit([series], 0)
    found = forecast_answers.answer(Lost(simple, only), simple, series, 3, now.wordings[series.unique_id])
    assert found.explanation.forecaster == "simple"
    assert found.fallback.startswith(why)


def test_a_series_too_young_for_its_forecaster_is_told_how_much_is_missing() -> None:
    now = forecast_series.recorded(twin.read("google2019"), 300, ["cpu"], 3600.0)
    series = now.series[0]
    simple = Naive(1, "simple").fit([series], 0)
    long = Lost(simple, only=True, context=99, needs=99)
    found = forecast_answers.answer(long, simple, series, 3, now.wordings[series.unique_id])
    assert found.fallback == "lost: needs 99 steps of history, and 12 are on record"


def test_a_forecaster_answers_alone_where_nobody_can_stand_in_for_it_and_its_reason_is_told_where_it_cannot() -> None:
    now = forecast_series.recorded(twin.read("google2019"), 300, ["cpu"], NOW_S)
    series = now.series[0]
    wording = now.wordings[series.unique_id]
    simple = Naive(12, "simple").fit([series], 0)
    assert forecast_answers.answer(simple, "too short", series, 3, wording).explanation.forecaster == "simple"
    for only in (False, True):
        with pytest.raises(UsageError, match=r"lost.*, and too short"):
            forecast_answers.answer(Lost(simple, only), "too short", series, 3, wording)


def test_what_cannot_be_exported_is_told_and_the_forecast_stays(tmp_path) -> None:
    more = ["forecaster=structural_daily", "forecaster.families=[mean]", "step_s=3600", "horizon_steps=6", "onnx=true"]
    code, said = ran(tmp_path / "run", *BRIEF, *more)
    assert code == verb.PARTLY
    assert "cannot be exported" in folder.identity_of(tmp_path / "run")["reason"]
    assert said[0].startswith("cpu of google2019")
    assert not (tmp_path / "run" / "onnx").exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["step_s=7"], "settings are known for 300, 3600, 86400, 604800 s"),
        (["horizon_steps=0"], "must be 1 or more"),
        (["until_s=10"], "on record by until_s=10"),
        (["resources=[nothing]"], "no usage of"),
        (["scenarios={odd:{growht:1}}"], "growht"),
        (["forecaster=cold_start", "step_s=86400"], "forecaster=cold_start.*no checkpoint.*step_s=86400"),
        (["forecaster@fallback=cold_start", "step_s=604800"], "fallback=cold_start.*no checkpoint.*step_s=604800"),
    ],
)
def test_a_wrong_setting_is_a_usage_error_and_leaves_nothing(tmp_path, overrides, told) -> None:
    with pytest.raises(UsageError, match=told):
        ran(tmp_path / "run", "forecaster=naive", *overrides)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- grids


def frame(values: list[float], start: int = 0, step: int = 300) -> pl.DataFrame:
    return pl.DataFrame({"unique_id": "s", "ds": [start + step * k for k in range(len(values))], "y": values})


def test_a_step_is_the_mean_of_what_was_recorded_in_it_and_begun_ones_are_left_out() -> None:
    found = forecast_series.means(frame([float(k) for k in range(14)], start=600), 1200)
    assert found["ds"].to_list() == [1200, 2400, 3600]
    assert found["y"].to_list() == [3.5, 7.5, 11.5]


def test_an_unknown_value_does_not_count_in_a_mean() -> None:
    found = forecast_series.means(frame([1.0, float("nan"), 3.0, 5.0]), 600)
    assert found["y"].to_list() == [1.0, 4.0]


def test_a_step_that_is_recorded_stays_and_a_finer_one_is_refused() -> None:
    same = frame([1.0, 2.0, 3.0], start=7)
    assert forecast_series.means(same, 300).equals(same)
    with pytest.raises(UsageError, match="give a longer step"):
        forecast_series.means(same, 60)


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "forecaster").glob("*.yaml")))
def test_every_forecaster_takes_the_grid(option: str) -> None:
    """The name of each option is the name that the grid's settings go by; the horizon reaches all of it."""
    cfg = composed(f"forecaster={option}", "step_s=3600", "horizon_steps=6")
    built = forecast.built(cfg, "forecaster")
    assert built.name == option
    assert option in cfg.on_grid, f"say in conf/forecast.yaml what {option} takes from the grid"
    assert len(cfg.on_grid) == len(list((CONF / "forecaster").glob("*.yaml"))), "one is gone"
    assert built.context <= 1461
    assert getattr(built, "horizon", 6) == 6


@pytest.mark.parametrize("mark", ["", "++"])
def test_the_command_line_has_the_last_word(job, mark) -> None:
    cfg = job("forecaster=naive", f"{mark}forecaster.least_steps=99", f"{mark}fallback.every=7")
    assert forecast.built(cfg, "forecaster").least_steps == 99  # pyright: ignore[reportAttributeAccessIssue]
    assert forecast.built(cfg, "fallback").least_steps == 288  # pyright: ignore[reportAttributeAccessIssue]
    assert forecast.built(cfg, "fallback").every == 7  # pyright: ignore[reportAttributeAccessIssue]


def test_a_forecaster_by_another_name_takes_the_grid_too(job) -> None:
    names = ["forecaster.base.name=mine", "fallback.base.name=auto_ets"]
    cfg = job("forecaster=naive", "forecaster@fallback=weekly_naive", "step_s=3600", *names)
    mine, other = forecast.built(cfg, "forecaster"), forecast.built(cfg, "fallback")
    assert (mine.name, mine.least_steps) == ("mine", 48)  # pyright: ignore[reportAttributeAccessIssue]
    assert (other.name, other.base.season) == ("auto_ets", 168)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("step_s", "steps"), [(86_400, 560), (604_800, 240)])
def test_the_default_forecasts_days_and_weeks_with_all_its_members(tmp_path, step_s, steps) -> None:
    """Two weeks or more ahead: beyond the season of days."""
    at_s = np.arange(steps) * float(step_s)
    noise = np.random.default_rng(0).normal(0.0, 0.3, steps)
    value = 10.0 + 2.0 * np.sin(2 * np.pi * at_s / (364 * 86_400)) + noise
    base = twin.read("google2019")
    rows = {"time_s": at_s, "step_s": float(step_s), "value": value}
    told = base.usage.filter(resource="cpu").head(1).drop(*rows).join(pl.DataFrame(rows), how="cross")
    Trace(base.info, {"usage": told.select(base.usage.columns)}).write(tmp_path / "trace")
    small = [("steps", 2), ("members", 1)]
    nets = [f"forecaster.base.members.{n}.training.{key}={v}" for n in ("neural", "fresh") for key, v in small]
    heard = Heard()
    where = ["trace=folder", f"trace.path={tmp_path / 'trace'}", f"step_s={step_s}", "horizon_steps=14"]
    plain = [f"architecture@forecaster.base.members.{n}.architecture=nlinear" for n in ("neural", "fresh")]
    code, said = ran(tmp_path / "run", *where, *nets, *plain, heard=heard)
    assert code == 0
    assert said[0].startswith("cpu of google2019 is expected to")
    assert not [line for line in heard.lines if "answers for no series" in line]


# ---------------------------------------------------------------- ensembles


def test_a_member_that_answers_for_no_series_is_told_with_its_reason(tmp_path) -> None:
    member = {"_target_": "agents.forecast.naive.Naive"}
    long = {**member, "season": 10**6, "name": "long"}
    stack = {"_target_": "agents.forecast.ensemble.Stack", "members": {"last": member, "long": long}, "every": 144}
    heard = Heard()
    ran(tmp_path / "run", *BRIEF, heard=heard, forecaster=stack)
    (told,) = [line for line in heard.lines if "answers for no series" in line]
    assert told.startswith("stack: long answers for no series: ")
    assert "too few" in told


def test_of_an_ensemble_only_members_without_any_part_are_silent() -> None:
    series = [Series(name, 0, 300, np.random.default_rng(k).uniform(1, 2, 99)) for k, name in enumerate("ab")]
    fitted = {name: Naive(1, name).fit(series, 0) for name in ("one", "two", "far")}
    weights = {"": np.array([1.0, 0.0, 0.0]), "a": np.array([0.5, 0.5, 0.0]), "b": np.array([1.0, 0.0, 0.0])}
    stack = Stack(fitted, weights=weights)
    (told,) = forecast.silent(dict.fromkeys("ab", stack), series, 3)
    assert told == "stack: far answers for no series: its errors on the newest part earned it no weight"
    assert forecast.silent({"a": "could not be fitted", "b": fitted["one"]}, series, 3) == []
