"""The page of forecasts: parts by the verb of the run folders, everything else left alone."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from experiments import forecasting_page
from twin.errors import UsageError
from twin.trace import tables

OLD = "".join(
    f"kept\n<!-- {marks}:begin -->\nold {marks}\n<!-- {marks}:end -->\n" for marks, _ in forecasting_page.PARTS.values()
)


def made(folder: Path, verb: str, config: str, found: dict[str, list[dict[str, Any]]], **facts: Any) -> Path:
    """A run folder of a verb: tables whose other columns are 1."""
    (folder / "tables").mkdir(parents=True)
    identity = {"format_version": 1, "verb": verb, "overrides": ["data=/a/place", "seed=1"], **facts}
    (folder / "identity.json").write_text(json.dumps(identity), encoding="utf-8")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    for name, rows in found.items():
        columns = {c.name: [row.get(c.name, 1) for row in rows] for c in tables.schema(name)}
        table = tables.conform(pl.DataFrame(columns, strict=False), name, "test")
        table.write_parquet(folder / "tables" / f"{name}.parquet")
    return folder


def text_of(tmp_path: Path, *runs: Path) -> str:
    page = tmp_path / "page.md"
    page.write_text(OLD, encoding="utf-8")
    assert forecasting_page.main([*map(str, runs), "--page", str(page)]) == 0
    return page.read_text(encoding="utf-8")


SITE = {"panel": "cells", "method": "fedavg", "site": "all", "epsilon": None, "unit": "", "price_percent": 6.0}
DAY = {"unique_id": "a", "operated_percent": 90.0, "untouched_percent": 70.0}
TRIAL = {"detector": "ours", "runs": 10, "false_alarm_percent": 0.0}
COLD = {"grid": "hourly", "forecaster": "cold_start", "network_weight": 0.5, "unique_id": "a/cpu", "kept": 0.9}
DELAYS = {"a": {"noticed_h": 4.0, "swapped_h": None}}
RULE = {"scenario": "recorded", "seed": 0, "quantile": None, "equal_slo": True, "kendall_tau": None}


def drill(folder: Path, **facts: Any) -> Path:
    """The series begins a week into a longer recording, and changes a day later."""
    trials = [{**TRIAL, "plant": "none", "unique_id": "a"}]
    trials += [{**TRIAL, "plant": "errors x 2", "unique_id": "a", "in_time_percent": 80.0, "delay_p50_h": 7.0}]
    found = {
        "drift_trials": trials,
        "retraining_accuracy": [{**DAY, "day": d, "operated_percent": 88.0 + d} for d in (0, 1, 2)],
    }
    facts = {"start_s": 604_800, "changed_s": 691_200.0, "delays_h": DELAYS, **facts}
    return made(folder, "retraining", "operation: {drift: {stream_days: 7}}", found, **facts)


def test_each_part_is_made_of_its_verbs_folders_and_the_rest_stays(tmp_path: Path) -> None:
    rows = [{**SITE, "method": "pooled", "price_percent": 0.0}, SITE]
    text = text_of(tmp_path, made(tmp_path / "run", "sites", "targets: {fedavg: 5.0}", {"sites_scores": rows}))
    assert "python -m experiments.sites seed=1 data=FOLDER" in text
    assert "/a/place" not in text
    assert "| fedavg | all | – | 1 | 1 | 1 | 1 | 1 | 6 | <= 5: missed |" in text
    assert "old sites" not in text
    assert all(f"old {marks}\n" in text for marks, _ in forecasting_page.PARTS.values() if marks != "sites")
    assert text.count("kept\n") == OLD.count("kept\n")


def test_a_drill_tells_when_it_was_noticed_and_what_never_happened(tmp_path: Path) -> None:
    text = text_of(tmp_path, drill(tmp_path / "run"))
    assert "changes on day 1. After 4 h it is noticed. It never happened that a retrained model answers." in text
    assert "From the day after on, accuracy is 90 %, never retrained 70 %." in text
    assert "Streams of 7 days made of recorded ones" in text
    assert "| ours | 0 | 80 | 7 |" in text
    mended = drill(tmp_path / "mended", delays_h={"a": {"noticed_h": 4.0, "swapped_h": 26.5}})
    assert "After 4 h it is noticed. After 26.5 h a retrained model answers." in text_of(tmp_path, mended)


def test_what_is_kept_of_the_gain_is_counted_by_history(tmp_path: Path) -> None:
    rows = [
        {**COLD, "history_steps": n, "kept": kept, "fallback_low": low}
        for n, kept, low in ((24, 0.9, 0.8), (168, 0.1, 1.2))
    ]
    text = text_of(tmp_path, made(tmp_path / "run", "cold_start", "kept_share: 0.7", {"cold_start": rows}))
    assert "| 1 d | 1 | 0 | 0 |" in text
    assert "| 7 d | 0 | 0 | 1 |" in text
    assert "| series, 7 d |" in text


def test_decisions_are_told_by_scenario(tmp_path: Path) -> None:
    rows = [{**RULE, "kind": "rule", "forecaster": "hpa"}]
    rows += [{**RULE, "kind": "scaler", "forecaster": "mine", "quantile": 0.9, "cost_ratio": 0.93, "cost_usd": 0.5}]
    config = "days: 4\nallowed_min: 5\nbaseline: hpa\n"
    text = text_of(tmp_path, made(tmp_path / "run", "decision_value", config, {"decision_value": rows}))
    assert "### recorded" in text
    assert text.index("| scaler | `mine` | 0.9 |") < text.index("| rule | `hpa` | – |")


def test_a_wrong_folder_or_page_is_named_and_the_page_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks", encoding="utf-8")
    other = made(tmp_path / "other", "simulate", "{}", {})
    for run, message in ((drill(tmp_path / "drill"), "retraining:begin"), (other, "is of 'simulate'")):
        assert forecasting_page.main([str(run), "--page", str(page)]) == UsageError.exit_code
        assert message in capsys.readouterr().err
    (tmp_path / "drill" / "tables" / "retraining_accuracy.parquet").unlink()
    with pytest.raises(UsageError, match="holds no table retraining_accuracy"):
        forecasting_page.write(page, [tmp_path / "drill"])
    accuracy = {"retraining_accuracy": [{**DAY, "day": 0}]}
    with pytest.raises(UsageError, match="says nothing of start_s, delays_h"):
        forecasting_page.write(page, [made(tmp_path / "old", "retraining", "{}", accuracy, changed_s=1.0)])
    with pytest.raises(UsageError, match="cannot be read"):
        forecasting_page.write(tmp_path / "absent.md", [other])
    assert page.read_text(encoding="utf-8") == "no marks"
