"""The embedded series: counts and aggregates as published, and the same bytes as the upstream files where they lie."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import twin

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "datacenter-aggregates"
UPSTREAM = {
    "google2019": ("google2019/instance_usage_grouped_300_seconds_month.csv", "avg_cpu"),
    "alibaba2018": ("alibaba2018/machine_usage_days_1_to_8_grouped_300_seconds.csv", "cpu_util_percent"),
    "azure_v2": ("azure_v2/vm_cpu_readings_month_aggregated_cpu_mem.csv", "cpu_usage"),
}


@pytest.mark.parametrize(
    ("name", "rows", "resources", "days"),
    [("google2019", 8064, 4, 28.0), ("alibaba2018", 2243, 5, 7.788), ("azure_v2", 8640, 2, 30.0)],
)
def test_counts(name: str, rows: int, resources: int, days: float) -> None:
    trace = twin.read(name)
    assert trace.demand.height == rows
    assert trace.usage.height == rows * resources
    assert trace.duration_s / 86_400 == pytest.approx(days, abs=1e-3)


def test_google_2019_means() -> None:
    """Mean CPU 0.4728 and memory 0.3272 of the cell, computed once from the upstream file."""
    means = dict(twin.read("google2019").usage.group_by("resource").agg(pl.col("value").mean()).iter_rows())
    assert means["cpu"] == pytest.approx(0.472823, abs=1e-6)
    assert means["memory"] == pytest.approx(0.327155, abs=1e-6)


def test_the_supplied_time_column_is_declared() -> None:
    info = twin.read("google2019").info
    assert any("time_s" in note and "supplied by the reader" in note for note in info.notes)
    assert "epoch" in info.missing
    assert len(info.sha256) == 64


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_equal_to_the_upstream_files(name: str) -> None:
    file, column = UPSTREAM[name]
    if not (DATA / file).is_file():
        pytest.skip(f"the upstream file {file} is not on this machine")
    upstream = pl.read_csv(DATA / file)[column]
    assert twin.read(name).demand["value"].to_list() == pytest.approx(upstream.to_list())
