"""The run folder is read whole, or the page is told which file is wrong."""

import json

import pytest

from reports import folder
from twin.errors import SchemaError, TraceError, UsageError


def minimal(path):
    path.mkdir(parents=True)
    (path / "identity.json").write_text(json.dumps({"format_version": 1, "verb": "demo", "name": "tiny"}))
    return path


def test_everything_in_a_full_folder_is_read(small_folder):
    run = folder.read(small_folder)
    assert run.baseline == "hpa"
    assert run.candidate == "forecast_led"  # verdicts are read in the order of their files
    assert run.controllers == ("hold", "static", "hpa", "forecast_led", "ppo")
    assert run.scenarios == ("recorded", "surge", "node_failures")
    assert len(run.runs) == 15
    assert run.bridge is not None
    assert run.bridge.decisions is not None
    assert ("fidelity.json", (small_folder / "fidelity.json").stat().st_size) in run.files


def test_only_the_identity_is_required(tmp_path):
    run = folder.read(minimal(tmp_path / "run"))
    assert run.summary is None
    assert run.runs == ()
    assert run.bridge is None
    assert run.baseline == ""


def test_a_folder_without_identity_is_no_run_folder(tmp_path):
    with pytest.raises(UsageError, match=r"identity\.json is missing"):
        folder.read(tmp_path)


def test_another_format_version_is_refused(tmp_path):
    run = minimal(tmp_path / "run")
    (run / "identity.json").write_text('{"format_version": 2}')
    with pytest.raises(TraceError, match="format_version is 2"):
        folder.read(run)


@pytest.mark.parametrize("name", ["timing.json", "fidelity.json", "verdicts/a.json", "bridge/report.json"])
@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_json_is_named(tmp_path, name, content):
    run = minimal(tmp_path / "run")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    with pytest.raises(TraceError, match=name.split("/")[-1]):
        folder.read(run)


def test_a_damaged_table_is_named(tmp_path):
    run = minimal(tmp_path / "run")
    (run / "tables").mkdir()
    (run / "tables/summary.parquet").write_bytes(b"no parquet")
    with pytest.raises(SchemaError, match=r"summary\.parquet"):
        folder.read(run)


def test_a_shown_run_says_scenario_and_controller(tmp_path):
    run = minimal(tmp_path / "run")
    (run / "runs/surge--hpa--2").mkdir(parents=True)
    assert [(r.scenario, r.controller) for r in folder.read(run).runs] == [("surge", "hpa--2")]
    (run / "runs/nonsense").mkdir()
    with pytest.raises(TraceError, match="nonsense"):
        folder.read(run)


def test_the_page_is_not_one_of_the_files(tmp_path):
    run = minimal(tmp_path / "run")
    (run / "report.html").write_text("old")
    assert [name for name, _ in folder.read(run).files] == ["identity.json"]
