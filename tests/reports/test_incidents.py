"""What went wrong: every incident of the shown runs is on the clock and in the table, few or a thousand of them."""

import itertools
import shutil
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import drawing, folder, incidents, page, series, wording
from reports.folder import ShownRun
from tests.reports.outline import Outline
from twin.trace import tables

HOUR_S, DAY_S = 3600.0, 86_400.0
BAD = [
    ("slow_nodes", 8 * HOUR_S, 11 * HOUR_S, "workers-4", "workers-4"),
    ("slow_nodes", 8 * HOUR_S, 11 * HOUR_S, "workers-3", "workers-3"),
    ("zone_failure", 20 * HOUR_S, 20.5 * HOUR_S, "workers-1", "zone-b"),
    ("oom_kill", 30 * HOUR_S, 30 * HOUR_S, "web-7", "web"),
]


def happened(*rows):
    frame = pl.DataFrame(rows, schema=["kind", "start_s", "end_s", "entity", "cause"], orient="row")
    return tables.conform(frame.with_columns(incident=pl.col("kind") + "-1"), "incidents", "test")


@pytest.fixture(scope="module")
def run(small_folder):
    """The surge of the small folder, with incidents for every controller."""
    read = folder.read(small_folder)
    surged = [replace(r, incidents=happened(*BAD)) for r in read.runs if r.scenario == "surge"]
    return replace(read, runs=tuple(surged))


def built(run, *frames):
    """The series of as many runs as frames of incidents."""
    found = series.build(replace(run, runs=tuple(map(_having, run.runs, frames)) if frames else run.runs))
    assert found is not None
    return found


def _having(run, frame):
    return replace(run, incidents=frame)


def told(run, *frames):
    table = incidents.table(list(map(_having, run.runs, frames)) if frames else run.runs)
    assert table is not None
    return table


def test_every_kind_is_marked_with_where_and_how_long(run):
    seen = {row["kind"]: row for row in built(run).incidents.iter_rows(named=True)}
    assert list(seen) == ["oom_kill", "slow_nodes", "zone_failure"]
    slow = seen["slow_nodes"]
    assert (slow["scenario"], slow["start_s"], slow["end_s"]) == ("surge", 8 * HOUR_S, 11 * HOUR_S)
    # five runs met the same two: two, not ten
    assert (slow["count"], slow["where"], slow["lasted"]) == (2, "workers-4 and 1 more", "3 h")
    assert (seen["oom_kill"]["count"], seen["oom_kill"]["where"], seen["oom_kill"]["lasted"]) == (1, "web-7", "0 s")


def test_shades_are_the_time_in_which_anything_lasted(run):
    assert built(run).failures.rows() == [
        ("surge", 8 * HOUR_S, 11 * HOUR_S),
        ("surge", 20 * HOUR_S, 20.5 * HOUR_S),
    ]


@given(st.lists(st.tuples(st.integers(0, 86_400), st.integers(1, 172_800)), max_size=12))
def test_shades_are_disjoint_and_hold_every_incident(times):
    frame = happened(*(("node_failure", float(at), float(at + lasted), "w-1", "wear") for at, lasted in times))
    shades = incidents.spans([ShownRun("a--b", "a", "b", None, None, None, frame, None)], 600.0).rows()
    assert all(after[1] - before[2] > 600.0 for before, after in itertools.pairwise(shades))
    for at, lasted in times:
        assert any(start_s <= at and at + lasted <= end_s for _, start_s, end_s in shades)


def test_a_thousand_kills_become_few_marks_that_count_them_all(run):
    kills = [("oom_kill", 50.0 * k, 50.0 * k, f"web-{k}", "web") for k in range(10_000)]
    found = built(run, happened(*kills)).incidents
    assert found.height <= incidents.MAX_MARKS
    assert found["count"].sum() == 10_000
    assert "more" in found["where"][0]


def test_what_outlasts_the_run_ends_with_it(run):
    frame = happened(("shortage", 6 * DAY_S, float("inf"), "workers", "workers"))
    assert built(run, frame).incidents["end_s"].to_list() == [7 * DAY_S]
    assert told(run, frame).rows[0].cells[3].text == "24"


def test_the_table_tells_how_many_how_long_and_the_first_with_its_cause(run):
    rows = [[cell.text for cell in row.cells] for row in told(run).rows]
    assert rows == [
        ["surge", "slow nodes", "2", "6", "d0 08:00", "workers-4", "3 h", "workers-4"],
        ["surge", "zone failure", "1", "0.5", "d0 20:00", "workers-1", "30 min", "zone-b"],
        ["surge", "oom kill", "1", "0", "d1 06:00", "web-7", "0 s", "web"],
    ]
    assert {row.scenario for row in told(run).rows} == {"surge"}


def test_runs_that_met_different_things_are_told_as_a_range(run):
    less = told(run, happened(*BAD), happened(BAD[0])).rows
    ranges = {row.cells[1].text: row.cells[2].text.replace(wording.THIN, "") for row in less}
    assert ranges == {"slow nodes": "1–2", "zone failure": "0–1", "oom kill": "0–1"}


def test_the_table_stays_short_and_counts_what_it_leaves_out(run):
    frame = happened(*((f"kind_{k}", 0.0, 60.0 * (k + 1), "a", "b") for k in range(20)))
    table = told(run, frame)
    assert len(table.rows) == incidents.MAX_KINDS
    assert table.rows[0].cells[1].text == "kind 19"
    assert table.sentence.endswith("8 kinds that lasted less are left out.")


def test_nothing_wrong_is_no_table_and_no_lane(run):
    calm = [_having(each, tables.empty("incidents")) for each in run.runs]
    found = built(replace(run, runs=tuple(calm)))
    assert incidents.table(calm) is None
    assert found.failures.height == found.incidents.height == 0
    chart = drawing.draw(replace(run, runs=tuple(calm))).charts["timeline"].to_dict()
    assert "incidents" not in [panel["name"] for panel in chart["vconcat"]]


def test_recorded_incidents_stand_before_what_pools_tell(small_folder):
    """Where the ground truth is known, stretches of failed nodes are not told a second time."""
    read = folder.read(small_folder)
    failing = [_having(r, happened(*BAD[:2])) for r in read.runs if r.scenario == "node_failures"]
    assert incidents.marks(failing, 600.0)["kind"].to_list() == ["slow_nodes"]


def test_an_incident_is_in_the_pages_data_chart_and_table(small_folder, tmp_path):
    shutil.copytree(small_folder, tmp_path / "run")
    for place in (tmp_path / "run/runs").glob("surge--*"):
        tables.write(happened(*BAD), place / "incidents.parquet")
    outline = Outline(page.write(tmp_path / "run").read_text(encoding="utf-8"))
    held = outline.held("data")["incidents"]
    assert ("surge", "zone_failure", "workers-1", "30 min") in set(
        zip(held["scenario"], held["kind"], held["where"], held["lasted"], strict=True)
    )
    panels = {panel["name"]: panel for panel in outline.held("charts")["timeline"]["vconcat"]}
    assert next(iter(panels)) == "incidents"
    tips = {tip["title"] for tip in panels["incidents"]["layer"][-1]["encoding"]["tooltip"]}
    assert {"what", "where", "lasted"} <= tips
    text = " ".join(outline.text)
    assert "zone failure" in text
    assert "zone-b" in text


def test_a_folder_of_a_run_that_recorded_no_incidents_still_gives_a_page(small_folder):
    read = folder.read(small_folder)
    assert all(each.incidents is None for each in read.runs)
    html = page.render(read)
    assert 'id="wrong"' not in html
    assert set(Outline(html).held("data")["incidents"]["kind"]) == {incidents.NODES_DOWN}
