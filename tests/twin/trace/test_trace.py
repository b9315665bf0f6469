"""Traces: the schema at the border, the rules, and the round trip."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twin
from twin.errors import SchemaError, TraceError
from twin.trace import tables
from twin.trace.trace import Trace, TraceInfo

INFO = TraceInfo("test", "made by a test", "none", "0" * 64, step_s=300.0)
JOBS = {
    "job": ["a", "b"],
    "submit_s": [0.0, 10.0],
    "start_s": [5.0, 20.0],
    "end_s": [9.0, 30.0],
    "cpu_cores": [1.0, 2.0],
}


def folder_of(tmp_path: Path, **csv: str) -> Path:
    folder = tmp_path / "trace"
    folder.mkdir()
    info = {"format_version": 2, "name": "mine", "source": "s", "licence": "l", "sha256": "0", "step_s": 60.0}
    (folder / "trace.json").write_text(json.dumps(info))
    for table, text in csv.items():
        (folder / f"{table}.csv").write_text(text)
    return folder


@pytest.mark.parametrize("table", [*tables.TRACE_TABLES, *tables.RUN_TABLES, *tables.JOB_TABLES, *tables.STUDY_TABLES])
def test_every_table_has_a_complete_schema(table: str) -> None:
    """Each column tells its unit where it is a number, and what it is."""
    for column in tables.schema(table):
        assert column.description
        assert column.unit or not column.dtype.is_numeric() or table in ("results", "summary"), column


def test_empty_tables_conform() -> None:
    for table in (*tables.TRACE_TABLES, *tables.RUN_TABLES, *tables.JOB_TABLES, *tables.STUDY_TABLES):
        assert tables.conform(tables.empty(table), table, "test").height == 0


def test_optional_columns_get_their_default() -> None:
    trace = Trace(INFO, {"jobs": pl.DataFrame(JOBS)})
    assert trace.jobs["gpus"].to_list() == [0.0, 0.0]
    assert trace.jobs["user"].to_list() == [None, None]


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(SchemaError, match=r"'cpus'.*its columns are"):
        Trace(INFO, {"jobs": pl.DataFrame({**JOBS, "cpus": [1, 2]})})


def test_a_missing_column_is_named() -> None:
    with pytest.raises(SchemaError, match="lacks the required column 'job'"):
        Trace(INFO, {"jobs": pl.DataFrame(JOBS).drop("job")})


def test_a_wrong_value_is_named_with_its_row(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, jobs="job,submit_s,cpu_cores\na,0,1\nb,soon,2\n")
    with pytest.raises(TraceError, match=r"jobs\.csv: row 3, column 'submit_s': not a double: invalid value 'soon'"):
        twin.read(folder)


def test_a_negative_duration_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, jobs="job,submit_s,start_s,end_s,cpu_cores\na,0,5,9,1\nb,0,8,3,1\n")
    with pytest.raises(TraceError, match=r"jobs: row 2, column 'end_s': job 'b' has a negative duration"):
        twin.read(folder)


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("demand", {"service": ["web"], "time_s": [0.0], "value": [float("nan")]}, "not a finite number"),
        ("demand", {"service": ["web"], "time_s": [0.0], "value": [-1.0]}, "must not be < 0"),
        ("demand", {"service": ["api"], "time_s": [0.0], "value": [1.0]}, "not declared"),
        ("demand", {"service": ["web"] * 2, "time_s": [5.0, 5.0], "value": [1.0, 1.0]}, "does not follow"),
        ("jobs", {"job": ["a"], "submit_s": [9.0], "start_s": [1.0], "cpu_cores": [1.0]}, "before its submission"),
        ("incidents", {"incident": ["a"], "start_s": [9.0], "end_s": [1.0], "kind": ["x"]}, "before its start"),
    ],
)
def test_each_rule_refuses_what_breaks_it(table: str, rows: dict, message: str) -> None:
    services = pl.DataFrame({"service": ["web"], "demand_unit": ["rps"]})
    with pytest.raises(TraceError, match=message):
        Trace(INFO, {table: pl.DataFrame(rows), "services": services} if table != "services" else {})


def test_written_read_and_written_again_is_byte_identical(tmp_path: Path) -> None:
    trace = twin.read("google2019").between(0, 86_400)
    trace.write(tmp_path / "a")
    again = twin.read(tmp_path / "a")
    again.write(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["demand.parquet", "services.parquet", "trace.json", "usage.parquet"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert trace.digest() == again.digest()
    assert trace.info == again.info


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_a_damaged_table_is_a_trace_error_or_a_trace(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = folder_of(tmp_path_factory.mktemp("fuzz"))
    (folder / "jobs.csv").write_bytes(noise)
    try:
        twin.read(folder)
    except TraceError as error:
        message = str(error)
    else:
        return
    assert "jobs" in message


@given(st.text(max_size=100))
@settings(max_examples=40, deadline=None)
def test_a_damaged_trace_json_is_a_trace_error(tmp_path_factory: pytest.TempPathFactory, noise: str) -> None:
    folder = folder_of(tmp_path_factory.mktemp("fuzz"))
    (folder / "trace.json").write_text(noise)
    with pytest.raises(TraceError, match=r"trace\.json"):
        twin.read(folder, format="folder")


def test_a_cut_counts_time_from_its_start_and_remembers_where_it_was() -> None:
    whole = twin.read("google2019")
    cut = whole.between(86_400, 3 * 86_400)
    assert cut.duration_s == 2 * 86_400
    assert cut.info.start_s == 86_400
    assert cut.demand["value"][0] == whole.demand.filter(pl.col("time_s") == 86_400)["value"][0]
    assert cut.between(86_400, 90_000).info.start_s == 2 * 86_400


def test_a_cut_without_facts_is_an_error() -> None:
    with pytest.raises(TraceError, match="nothing recorded"):
        twin.read("google2019").between(1e9, 2e9)


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(TraceError, match="datacenter_aggregates"):
        twin.read("google2019", format="swf2")
    with pytest.raises(TraceError, match="no such file or folder; name a format"):
        twin.read("nothing-here")


@pytest.mark.parametrize("edges", [[("a", "a")], [("a", "b"), ("b", "a")]])
def test_a_job_that_waits_for_itself_is_refused(edges: list[tuple[str, str]]) -> None:
    dependencies = pl.DataFrame(edges, schema=["job", "parent"], orient="row")
    with pytest.raises(TraceError, match=r"dependencies: column 'parent': job '[ab]' waits for itself"):
        Trace(INFO, {"jobs": pl.DataFrame(JOBS), "dependencies": dependencies})


def test_dependencies_name_jobs_that_are_there() -> None:
    with pytest.raises(TraceError, match="job 'z' is not in the table 'jobs'"):
        Trace(INFO, {"jobs": pl.DataFrame(JOBS), "dependencies": pl.DataFrame({"job": ["a"], "parent": ["z"]})})


@pytest.mark.parametrize(
    ("epoch", "zone", "later"),
    [
        ("2024-03-30T00:00:00+01:00", "Europe/Berlin", "2024-03-31T13:00:00+02:00"),
        ("2024-03-30T00:00:00+01:00", "", "2024-03-31T12:00:00+01:00"),
        ("2024-03-30T00:00:00", "", "2024-03-31T12:00:00"),
        ("", "", ""),
    ],
)
def test_a_cut_moves_the_epoch(epoch: str, zone: str, later: str) -> None:
    """Second 0 of the cut is 36 hours later, as the clock of its zone shows it."""
    demand = pl.DataFrame({"service": ["web"] * 72, "time_s": [3600.0 * i for i in range(72)], "value": [1.0] * 72})
    services = pl.DataFrame({"service": ["web"], "demand_unit": ["rps"]})
    info = TraceInfo("t", "s", "l", "0" * 64, epoch=epoch, zone=zone, step_s=3600.0)
    trace = Trace(info, {"demand": demand, "services": services})
    assert trace.between(36 * 3600, 72 * 3600).info.epoch == later


def test_a_cut_keeps_the_state_of_the_machines() -> None:
    """What happened to a machine before the cut has happened when it begins."""
    events = pl.DataFrame({"node": ["a", "b", "a"], "time_s": [10.0, 50.0, 90.0], "event": ["remove", "fail", "add"]})
    jobs = pl.DataFrame({"job": ["j"], "submit_s": [60.0]})
    cut = Trace(INFO, {"node_events": events, "jobs": jobs}).between(40, 80)
    assert cut.node_events.select("node", "time_s", "event").rows() == [("a", 0.0, "remove"), ("b", 10.0, "fail")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_s": [None, None], "end_s": [5.0, 3.0]}, "before its submission"),
        ({"seen_s": [3.0, 40.0]}, "last seen at 3.0 s, before its start"),
        ({"used_cpu_cores": [-1.0, 1.0]}, "must not be < 0"),
        ({"instances": [2.9, 1.0]}, "row 1, column 'instances': 2.9 is not of type"),
    ],
)
def test_jobs_make_sense(change: dict, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        Trace(INFO, {"jobs": pl.DataFrame({**JOBS, **change})})
