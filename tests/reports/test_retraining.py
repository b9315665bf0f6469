"""The page of a retraining: rolling accuracy with its marks, one row for each series, nothing that is not on record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import twin
from reports import page, retraining
from tests.reports.outline import Outline
from twin.errors import TraceError
from twin.trace import tables

ROOT = Path(__file__).resolve().parents[2]
HOURS, CHANGE_H = 72, 48
EVENTS = pl.DataFrame(
    {
        "time_s": [345_600.0, 388_800.0, 432_000.0, 432_000.0],
        "unique_id": ["s"] * 4,
        "trigger": ["age", "drift: level", "drift: level", "drift: level"],
        "verdict": ["noticed", "noticed", "kept", "swapped"],
    }
)


def said(unique_id: str = "s", untouched_error: float = 5.0) -> pl.DataFrame:
    """An hourly step of 10: the operated is wrong by 1, by 4 for the six hours after the change; the other stays so."""
    hours = np.arange(HOURS)
    operated = np.where((hours >= CHANGE_H) & (hours < CHANGE_H + 6), 4.0, 1.0)
    untouched = np.where(hours >= CHANGE_H, untouched_error, 1.0)
    parts = [
        pl.DataFrame({"forecaster": who, "unique_id": unique_id, "time_s": 3600.0 * hours, "step": 1})
        .with_columns(pl.col("time_s").alias("cutoff_s"), pl.lit(10.0).alias("y"))
        .with_columns(*(pl.Series(f"q{10 * k}", 10.0 + error + (k - 5) / 10) for k in range(1, 10)))
        for who, error in ((retraining.OPERATED, operated), (retraining.UNTOUCHED, untouched))
    ]
    return pl.concat(parts)


def written(place: Path, *, trials: bool = False) -> Path:
    """The folder of two series, the second of which was never answered by a swap."""
    (place / "tables").mkdir(parents=True)
    identity = {"format_version": 1, "verb": "retraining", "name": "retraining", "status": "completed"}
    identity |= {"trace": {"name": "made"}, "changed_s": CHANGE_H * 3600.0, "told": "noticed after 3 h"}
    identity |= {"delays_h": {"first": {"noticed_h": 3.0, "swapped_h": None}}}
    (place / "identity.json").write_text(json.dumps(identity), encoding="utf-8")
    nothing = dict.fromkeys(["champion_loss", "challenger_loss", "difference_low", "difference_high"], float("nan"))
    judged = {"champion_loss": 5.0, "challenger_loss": 1.5, "difference_low": -4.0, "difference_high": -3.0}
    events = [
        {"unique_id": "first", "time_s": 3600.0 * 20, "trigger": "age", "verdict": "noticed", "reason": ""} | nothing,
        {"unique_id": "first", "time_s": 3600.0 * 51, "trigger": "drift: level", "verdict": "noticed", "reason": "x"}
        | nothing,
        {"unique_id": "first", "time_s": 3600.0 * 54, "trigger": "drift: level", "verdict": "swapped", "reason": "y"}
        | judged,
    ]
    score = {"horizon": "1-1", "origins": HOURS, "wape": 0.1, "mase": 1.0, "scaled_crps": 0.1, "skill": 0.5}
    scores = [
        score | {"forecaster": who, "unique_id": name, "accuracy_percent": percent, "coverage_80": 0.8}
        for name in ("first", "second")
        for who, percent in ((retraining.OPERATED, 87.5), (retraining.UNTOUCHED, 76.7))
    ]
    days = [
        {"unique_id": name, "day": day, "operated_percent": 87.5, "untouched_percent": 76.7}
        for name in ("first", "second")
        for day in range(3)
    ]
    trial = {"detector": "ADWIN", "unique_id": "first", "plant": "level x 1.2", "runs": 10}
    trial |= {"false_alarm_percent": 4.0, "in_time_percent": 96.0, "delay_p50_h": 9.0, "delay_p95_h": 23.0}
    found = {
        "forecasts": pl.concat([said("first"), said("second")]),
        "retraining_events": pl.DataFrame(events),
        "forecast_scores": pl.DataFrame(scores),
        "retraining_accuracy": pl.DataFrame(days),
        **({"drift_trials": pl.DataFrame([trial])} if trials else {}),
    }
    for name, frame in found.items():
        tables.write(tables.conform(frame, name, "test"), place / "tables" / f"{name}.parquet")
    return place


def test_the_accuracy_of_the_last_day_is_that_of_its_hours_and_begins_when_a_day_is_full() -> None:
    rolled = retraining.rolling(said())
    operated = rolled.filter(who=retraining.OPERATED)
    assert operated["day"].to_list() == pytest.approx((np.arange(24, HOURS + 1) / 24).round(3).tolist())
    by_hour = dict(zip(np.arange(24, HOURS + 1).tolist(), operated["percent"].to_list(), strict=True))
    assert by_hour[CHANGE_H] == 90.0
    assert by_hour[CHANGE_H + 1] == pytest.approx(100.0 * (1.0 - (23 * 1.0 + 4.0) / 240.0), abs=0.01)
    assert by_hour[CHANGE_H + 6] == by_hour[HOURS - 1] == pytest.approx(100.0 * (1.0 - (18 + 24) / 240.0), abs=0.01)
    assert rolled.filter(who=retraining.UNTOUCHED)["percent"][-1] == 50.0
    shifted = retraining.rolling(said().with_columns(pl.col("time_s") + 604_800.0), start_s=604_800.0)
    assert shifted.sort("who", "day").equals(rolled.sort("who", "day")), "days count from the series' beginning"


def test_hours_without_truth_or_forecast_do_not_count_as_right() -> None:
    table = said().with_columns(pl.when(pl.col("time_s") < 3600.0 * 30).then(pl.col("y")).otherwise(float("nan")))
    rolled = retraining.rolling(table)
    assert rolled["day"].max() == pytest.approx(30 / 24)
    assert retraining.rolling(said().head(20)).height == 0
    assert retraining.rolling(said().with_columns(y=pl.lit(0.0))).height == 0


def test_a_rule_stands_at_the_change_the_alarms_of_drift_and_the_swaps_and_nowhere_else() -> None:
    table = retraining.marks(EVENTS, 4.25 * 86_400)
    assert table.rows() == [
        (4.25, "change", "the regime changes"),
        (4.5, "alarm", "drift: level: noticed"),
        (5.0, "swap", "drift: level: swapped"),
    ]
    later = retraining.marks(EVENTS, 4.25 * 86_400, start_s=86_400.0)
    assert later["day"].to_list() == [3.25, 3.5, 4.0], "days count from the series' beginning"
    assert retraining.marks(EVENTS, None)["kind"].to_list() == ["alarm", "swap"]
    assert retraining.marks(EVENTS.clear(), None).height == 0


def test_the_chart_carries_both_lines_and_every_kind_of_mark() -> None:
    import vl_convert

    chart = retraining.chart(retraining.rolling(said()), retraining.marks(EVENTS, 345_600.0)).to_dict()
    assert {"rolling", "marks"} == set(chart["datasets"])
    drawn = vl_convert.vegalite_to_svg(chart)
    for word in (retraining.OPERATED, retraining.UNTOUCHED, "change", "alarm", "swap"):
        assert word in drawn


def test_the_page_of_a_retraining_shows_a_chart_and_a_row_for_each_series(tmp_path: Path) -> None:
    place = written(tmp_path / "run", trials=True)
    once = page.write(place).read_bytes()
    assert page.write(place).read_bytes() == once
    text = once.decode()
    outline = Outline(text)
    specs = json.loads(next(body for attrs, body in outline.scripts if attrs.get("id") == "charts"))
    assert set(specs) == {"accuracy_0", "accuracy_1"}
    for shown in ('id="chart-accuracy_0"', 'id="chart-accuracy_1"', 'id="series"', 'id="trials"', "noticed after 3 h"):
        assert shown in text
    data = json.loads(next(body for attrs, body in outline.scripts if attrs.get("id") == "data"))
    assert data["marks_0"]["kind"] == ["change", "alarm", "swap"]
    assert data["marks_1"]["kind"] == ["change"], "what happened to one series is no mark of another"


def test_each_series_has_its_accuracy_and_how_soon_the_change_was_answered(tmp_path: Path) -> None:
    found = retraining.read(written(tmp_path / "run"))
    delays_h = {"first": {"noticed_h": 3.0, "swapped_h": 6.0}, "second": {"noticed_h": 4.0, "swapped_h": None}}
    rows = {
        row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in retraining.summary(found, delays_h).rows
    }
    assert rows["first"] == ["87.5", "0.5", "0.8", "82.5", "50", "3", "6"]
    assert rows["second"][-2:] == ["4", "–"]
    nothing = retraining.summary(found, {}).rows[0]
    assert [cell.text for cell in nothing.cells[-2:]] == ["–", "–"]


def test_without_trials_there_is_no_section_of_them_and_a_missing_table_is_named(tmp_path: Path) -> None:
    place = written(tmp_path / "run")
    assert 'id="trials"' not in retraining.render(place)
    (place / "tables" / "forecasts.parquet").unlink()
    with pytest.raises(TraceError, match="forecasts"):
        page.write(place)
    assert not (place / "report.html").exists()


def test_a_tiny_run_of_a_trace_cut_from_a_longer_one_tells_one_story_everywhere(tmp_path: Path) -> None:
    """Eleven days of demand in the twin; from day 9 on another regime; the forecaster is yesterday's value."""
    place, start_s, changed_s = tmp_path / "run", 604_800, 604_800 + 777_600
    twin.read("google2019").between(start_s, start_s + 11 * 86_400.0).write(tmp_path / "trace")
    overrides = [f"out={place}", "trace=folder", f"trace.path={tmp_path / 'trace'}", "display=plain", "learn_days=4"]
    overrides += ["scenario.first_s=777600", "operation.rules.refresh_steps=288", "operation.reference_days=5"]
    overrides += [f"{group}=seasonal_naive" for group in ("forecaster", "forecaster@trials.forecaster")]
    overrides += ["trials.runs=2", "trials.recordings=[azure_v2]", "operation.drift.stream_days=3"]
    command = [sys.executable, "-m", "experiments.retraining", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(place / "report.html")
    text = (place / "report.html").read_text(encoding="utf-8")
    identity = json.loads((place / "identity.json").read_text(encoding="utf-8"))
    assert (identity["start_s"], identity["changed_s"]) == (start_s, changed_s)
    found = retraining.read(place)
    events = found["retraining_events"]
    (delays,) = identity["delays_h"].values()
    drifts = events.filter(pl.col("trigger").str.starts_with("drift"), pl.col("time_s") > changed_s)
    noticed = drifts.filter(verdict="noticed")["time_s"][0]
    assert delays["noticed_h"] == (noticed - changed_s) / 3600.0
    assert delays["swapped_h"] > delays["noticed_h"]
    assert f"the change at 9 d was noticed after {delays['noticed_h']:.0f} h" in identity["told"]
    assert identity["told"] in text
    assert identity["told"] in done.stderr

    data = json.loads(next(body for attrs, body in Outline(text).scripts if attrs.get("id") == "data"))
    kinds, days = data["marks_0"]["kind"], data["marks_0"]["day"]
    assert (kinds[0], days[0]) == ("change", 9.0)
    assert days[kinds.index("alarm")] == pytest.approx(9.0 + delays["noticed_h"] / 24.0, abs=1e-3)
    assert set(data["rolling_0"]["who"]) == {retraining.OPERATED, retraining.UNTOUCHED}
    assert max(data["rolling_0"]["day"]) == max(found["retraining_accuracy"]["day"].to_list()) + 1 == 11
    assert set(found["forecast_scores"]["forecaster"]) == {retraining.OPERATED, retraining.UNTOUCHED}

    assert "Drift tests: streams of 3 days" in done.stdout
    trials = pl.read_parquet(place / "tables" / "drift_trials.parquet")
    cries = dict(trials.group_by("detector").agg(pl.col("false_alarm_percent").min()).iter_rows())
    assert cries["Page-Hinkley, defaults"] < 100.0, "in a month its constants cry on every stream, in three days not"
