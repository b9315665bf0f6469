"""The table at the end of a sweep: what is marked as best, and what stands beside it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from experiments import sweep
from twin.trace import tables


def left(folder: Path, job: int, override: str, kpis: dict[str, float], error: str = "") -> None:
    """What a job of a sweep leaves: its note and its KPIs."""
    rows = [
        {"kpi": kpi, "entity": "cluster", "value": value, "unit": "1", "better": "lower"} for kpi, value in kpis.items()
    ]
    place = folder / f"{job}_run" / "tables"
    place.mkdir(parents=True)
    if rows:
        tables.conform(pl.DataFrame(rows), "kpis", "test").write_parquet(place / "kpis.parquet")
    content = {"overrides": [override], "exit_code": int(bool(error)), "error": error, "folder": str(place.parent)}
    sweep.note(folder, job, content)


def test_what_promised_cores_cost_stands_beside_what_they_won(tmp_path: Path) -> None:
    """The shortest wait is starred, and so is the policy that lost and stretched least: not one without the other."""
    left(tmp_path, 0, "contention=lose", {"wait_mean_s": 5.0, "lost_core_h": 40.0, "stretched_h": 0.0})
    left(tmp_path, 1, "contention=stretch", {"wait_mean_s": 9.0, "lost_core_h": 0.0, "stretched_h": 7.0})
    left(tmp_path, 2, "contention=none", {"wait_mean_s": 30.0})
    table = sweep.marked(pl.DataFrame(sweep.read(tmp_path), infer_schema_length=None))
    assert table["contention"].to_list() == ["lose", "stretch", "none"]
    assert table["wait_mean_s"].to_list() == ["5.0 *", "9.0", "30.0"]
    assert table["lost_core_h"].to_list() == ["40.0", "0.0 *", None]
    assert table["stretched_h"].to_list() == ["0.0 *", "7.0", None]


def test_of_utilisation_the_highest_is_best_and_a_job_that_failed_is_told(tmp_path: Path) -> None:
    left(tmp_path, 0, "order=sjf", {"utilisation_cpu_ratio": 0.5})
    left(tmp_path, 1, "order=ljf", {"utilisation_cpu_ratio": 0.7})
    left(tmp_path, 2, "order=f1", {}, "it broke")
    table = sweep.marked(pl.DataFrame(sweep.read(tmp_path), infer_schema_length=None))
    assert table["utilisation_cpu_ratio"].to_list() == ["0.5", "0.7 *", None]
    assert table["error"].to_list() == ["", "", "it broke"]
