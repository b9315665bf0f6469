"""The page of a forecast: who needs a human first, reasons that lead to the forecast, safe whatever a sentence says."""

import json
from pathlib import Path

import polars as pl
import pytest

from reports import forecast_page, page
from reports import recording_clock as clocks
from tests.reports.outline import Outline
from twin.errors import TraceError
from twin.trace import tables

EVIL = "</script><script>alert('x')</script>"
GROUPS = {"last value": 10.0, "level": 2.0, "daily": -0.5, "rest": 0.001}
SENTENCES = (("sure", 95.0, "", "a"), ("vague", 40.0, "", EVIL), ("stood_in", 90.0, "it raised", "c"))
NAMES = tuple(row[0] for row in SENTENCES)


def written(folder: Path) -> Path:
    """A folder of three series: one sure, one that a human should look at, one answered by the fallback."""
    (folder / "tables").mkdir(parents=True)
    identity = {"format_version": 1, "verb": "forecast", "name": "forecast", "status": "completed"}
    identity |= {
        "trace": {"name": "made", "epoch": ""},
        "command": "python -m experiments.forecast",
        "onnx": {"a": 2e-7},
    }
    (folder / "identity.json").write_text(json.dumps(identity), encoding="utf-8")
    steps = (1, 2)
    median = sum(GROUPS.values())
    deciles = {f"q{10 * k}": median + (k - 5) for k in range(1, 10)}
    frames = {
        "forecasts": [
            {"forecaster": "f", "unique_id": n, "cutoff_s": 600.0, "step": s, "time_s": 300.0 + 300 * s, **deciles}
            | {"y": 11.0 if n == "sure" else float("nan")}
            for n in NAMES
            for s in steps
        ],
        "forecast_past": [
            {"unique_id": n, "time_s": 300.0 * k, "value": 9.0 + k, "unit": "cores"} for n in NAMES for k in range(2)
        ],
        "forecast_explanations": [
            {"unique_id": n, "cutoff_s": 600.0, "step": s, "time_s": 300.0 + 300 * s, "unit": "cores"}
            | {"group": group, "contribution": value}
            for n in NAMES
            for s in steps
            for group, value in GROUPS.items()
        ],
        "forecast_sentences": [
            {"unique_id": n, "cutoff_s": 600.0, "asked": "f", "forecaster": "f", "fallback": why, "sentence": text}
            | {"confidence_percent": sure, "needs_a_human": sure < 80.0, "similar_days_ago": "1, 7"}
            for n, sure, why, text in zip(
                NAMES, (95.0, 40.0, 90.0), ("", "", "it raised"), ("a", EVIL, "c"), strict=True
            )
        ],
        "forecast_scenarios": [
            {"unique_id": "sure", "cutoff_s": 600.0, "scenario": "faster", "step": s, "time_s": 300.0 + 300 * s}
            | {"factor": 1.25, **deciles}
            for s in steps
        ],
    }
    for name, rows in frames.items():
        table = tables.conform(pl.DataFrame(rows), name, "test")
        tables.write(table, folder / "tables" / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("forecast") / "run")


def test_the_page_of_a_forecast_is_written_and_the_same_twice(made: Path) -> None:
    once = page.write(made).read_bytes()
    assert page.write(made).read_bytes() == once
    text = once.decode()
    for shown in ("sure", "a human should look", "it raised", "faster", "1.25", "onnx/a", "2.0e-07"):
        assert shown in text


def test_whom_a_human_should_look_at_comes_first_and_every_chart_has_its_place(made: Path) -> None:
    text = forecast_page.render(made)
    assert [each.sentence["unique_id"] for each in forecast_page.read(made)] == ["vague", "stood_in", "sure"]
    specs = json.loads(next(body for attrs, body in Outline(text).scripts if attrs.get("id") == "charts"))
    assert set(specs) == {f"{kind}_{k}" for kind in ("fan", "why") for k in range(3)}
    for name in specs:
        assert f'id="chart-{name}"' in text


def test_a_sentence_cannot_bring_markup_into_the_page(made: Path) -> None:
    text = forecast_page.render(made)
    assert EVIL not in text
    assert "&lt;/script&gt;" in text


def test_the_bars_lead_from_the_last_value_to_the_median_and_small_ones_count_as_rest(made: Path) -> None:
    shown = forecast_page.read(made)[-1]
    bars = json.loads(forecast_page.why(shown, "_2").to_dict()["datasets"]["explained_2"])
    assert [bar["reason"] for bar in bars] == ["now", "level", "daily", "rest", "forecast"]
    assert bars[0]["end"] == 10.0
    assert bars[-1]["end"] == pytest.approx(sum(GROUPS.values()))


def test_the_fan_begins_at_the_last_value_and_shows_what_came_only_where_it_did(made: Path) -> None:
    import vl_convert

    vague, _, sure = forecast_page.read(made)
    for shown, came in ((vague, 0), (sure, 2)):
        chart = forecast_page.fan("fan_9", shown, clocks.clock("")).to_dict()
        said = json.loads(chart["datasets"]["fan_9_said"])
        assert said[0] == {"t": 300.0, **{f"q{10 * k}": 10.0 for k in range(1, 10)}}
        assert len(json.loads(chart["datasets"]["fan_9_came"])) == came
        assert "cores" in vl_convert.vegalite_to_svg(chart)


def test_a_missing_table_is_named(made: Path, tmp_path: Path) -> None:
    place = written(tmp_path / "run")
    (place / "tables" / "forecast_past.parquet").unlink()
    with pytest.raises(TraceError, match="forecast_past"):
        page.write(place)
    assert not (place / "report.html").exists()
