"""The printed tables say what the run folder says: no more, and what they leave out is counted."""

import re
from dataclasses import replace

import polars as pl
import pytest

from reports import decisions, drawing, folder, kpis, views, wording


@pytest.fixture(scope="module")
def run(small_folder):
    return folder.read(small_folder)


@pytest.fixture(scope="module")
def styles(run):
    return drawing.controller_styles(run)


def listed(run, styles):
    table = decisions.made(run, styles)
    assert table is not None
    return table


def rising(*places):
    return None not in places and list(places) == sorted(places)


def numbers(sentence):
    return [int(n.replace(wording.THIN, "")) for n in re.findall(rf"\d[\d{wording.THIN}]*", sentence)]


def test_at_most_200_changes_are_listed_and_the_rest_is_counted(run, styles):
    table = listed(run, styles)
    total = sum(r.decisions.height for r in run.runs)
    shown, changes, _quota, holds = numbers(table.sentence)
    assert shown == len(table.rows) <= decisions.MAX_ROWS
    assert changes + holds == total
    assert len(table.links) == 15


def test_holds_are_never_listed_and_blocked_wishes_are_no_holds(run, styles):
    rows = [
        {"current": 5, "proposed": 5, "applied": 5, "status": "applied"},  # a hold
        {"current": 5, "proposed": 9, "applied": 5, "status": "applied"},  # a limit kept it
        {"current": 5, "proposed": 5, "applied": 5, "status": "failed"},
        {"current": 5, "proposed": 7, "applied": 7, "status": "applied"},
    ]
    base = run.runs[0].decisions.head(4)
    frame = base.with_columns(pl.Series(name, [row[name] for row in rows]) for name in rows[0])
    table = listed(replace(run, runs=(replace(run.runs[0], decisions=frame),)), styles)
    assert [row.cells[4].text for row in table.rows] == ["5 → 5", "5 → 5", "5 → 7"]
    assert table.rows[0].cells[4].note == "proposed 9"
    assert table.rows[1].cells[8].tone == "bad"
    assert table.sentence == "All 3 changes; 1 decisions to hold are left out."


def test_a_sample_is_spread_over_the_whole_run(run, styles):
    only = replace(run, runs=tuple(r for r in run.runs if r.label == "surge--ppo"))
    times = [row.cells[2].sort for row in listed(only, styles).rows]
    changes = only.runs[0].decisions.filter(pl.col("current") != pl.col("applied"))
    assert len(times) == decisions.MAX_ROWS
    assert rising(*times)
    assert times[0] <= changes["time_s"].min()
    assert times[-1] >= changes["time_s"].max()


def test_a_kpi_cell_holds_value_interval_and_ratio(run, styles):
    table = kpis.table(run.summary, styles)
    row = next(r for r in table.rows if r.cells[0].text == "surge" and r.cells[1].text == "ppo")
    known = run.summary.filter(scenario="surge", controller="ppo", kpi="cost_usd").to_dicts()[0]
    cell = row.cells[3]
    assert table.columns[3].title == known["kpi"] == "cost_usd"
    assert cell.text == wording.number(known["value"])
    assert cell.note == wording.interval(known["low"], known["high"])
    assert cell.extra == wording.ratio(known["ratio"])
    drawn = cell.glyph
    assert drawn is not None
    assert rising(drawn.low, drawn.value, drawn.high, drawn.mark)  # cheaper: left of the baseline


def test_colour_needs_an_interval_that_excludes_one(run, styles):
    odd = run.summary.filter(kpi="cost_usd", scenario="surge").with_columns(
        ratio=pl.lit(0.8),
        ratio_low=pl.Series([0.7, 0.7, 1.0, 0.7, 0.75]),
        ratio_high=pl.Series([0.9, 1.1, 1.0, 1.0, 0.85]),
    )
    tones = {row.cells[1].text: row.cells[2].tone for row in kpis.table(odd, styles).rows}
    assert tones == {"hold": "good", "static": "", "hpa": "", "forecast_led": "", "ppo": "good"}


def test_unscored_is_said_and_not_zero(run, styles):
    held = pl.when(pl.col("controller") != "hold").then("value")
    cell = kpis.table(run.summary.filter(kpi="cost_usd").with_columns(value=held), styles).rows[0].cells[2]
    assert (cell.text, cell.note, cell.sort) == ("–", "unscored", None)


def test_a_kpi_that_is_zero_or_unscored_everywhere_is_named_but_has_no_column(run, styles):
    odd = pl.when(kpi="dropped_requests").then(0.0).when(kpi="node_h").then(None).otherwise("value")
    table = kpis.table(run.summary.with_columns(value=odd), styles)
    titles = [column.title for column in table.columns[2:]]
    assert titles == [t for t in _titles(run, styles) if t not in ("dropped_requests", "node_h")]
    assert table.sentence == "Zero everywhere: dropped_requests. Unscored everywhere: node_h."
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    once = pl.when(kpi="node_h", controller="ppo").then(1.0).otherwise(odd)
    assert "node_h" in [c.title for c in kpis.table(run.summary.with_columns(value=once), styles).columns]


def _titles(run, styles):
    return [column.title for column in kpis.table(run.summary, styles).columns[2:]]


def test_the_headlines_come_first_and_a_wide_table_is_cut_in_two(run, styles):
    whole, parts = _titles(run, styles), kpis.tables(run.summary, styles)
    assert tuple(whole[:4]) == kpis.HEADLINES
    assert [column.title for part in parts for column in part.columns[2:]] == whole
    assert [len(part.columns) for part in parts] == [2 + 9, 2 + 1]
    for part in parts:
        assert [row.cells[:2] for row in part.rows] == [row.cells[:2] for row in parts[0].rows]
        assert all(len(row.cells) == len(part.columns) for row in part.rows)
    assert len(kpis.tables(run.summary.filter(pl.col("kpi").is_in(kpis.HEADLINES)), styles)) == 1


def test_the_kpis_of_a_single_run_stand_once(run):
    single = pl.DataFrame(
        {"kpi": ["cost_usd"], "entity": ["cluster"], "value": [3.0], "unit": ["USD"], "better": ["lower"]}
    )
    alone = replace(run, summary=None, kpis=single, runs=(replace(run.runs[0], kpis=single),))
    for there, controllers in ((alone, ["forecast_led"]), (replace(alone, runs=()), ["flash_crowd"])):
        found = kpis.scored(there)
        assert found is not None
        assert found["controller"].to_list() == controllers


def test_without_a_summary_single_runs_are_shown_without_ratios(run, styles):
    single = pl.DataFrame(
        {"kpi": ["cost_usd"], "entity": ["cluster"], "value": [3.0], "unit": ["USD"], "better": ["lower"]}
    )
    alone = replace(run, summary=None, kpis=None, runs=(replace(run.runs[0], kpis=single),))
    found = kpis.scored(alone)
    assert found is not None
    table = kpis.table(found, styles)
    assert [c.text for c in table.rows[0].cells] == ["node_failures", "forecast_led", "3"]
    assert table.rows[0].cells[2].extra == ""
    assert kpis.scored(replace(alone, runs=())) is None


def test_matrices_start_with_the_headlines(run):
    titles = [title for title, _ in kpis.matrices(run.summary)]
    assert titles[:2] == ["late_ratio · web", "cost_usd · cluster"]
    assert len(titles) == 10


def test_a_check_shows_rule_threshold_value_interval_result_and_remedy(run):
    refused = views.check_table(run.verdicts[1]).rows[1].cells
    assert [c.text for c in refused] == [
        "refuse",
        "late requests in surge",
        "1.31",
        "1.05",
        "",
        "train on surges: scenario=surge, or widen the confidence guard",
    ]
    assert refused[0].tone == "bad"
    assert refused[2].note.replace(wording.THIN, "") == "1.12–1.52"
    drawn = refused[4].glyph
    assert drawn is not None
    assert rising(drawn.mark, drawn.low, drawn.value, drawn.high)
    unknown = views.check_table(run.verdicts[1]).rows[3].cells
    assert unknown[0].tone == "unsure"
    assert unknown[4].glyph is None


def test_the_modelling_choice_behind_the_demand_is_told(run):
    assert views.demand_scale(run.identity) == [f"web: one recorded unit stands for 2{wording.THIN}000 requests/s"]


def test_missing_stations_are_named(run):
    assert views.missing(run) == []
    bare = replace(run, forecasts=None, forecast_scores=None, bridge=None, learning=None)
    assert views.missing(bare) == ["forecasts", "learning curves", "bridge"]
