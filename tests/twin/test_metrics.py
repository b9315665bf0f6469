"""KPIs from hand-made tables, by hand-made arithmetic."""

from __future__ import annotations

import polars as pl
import pytest

from tests.twin.conftest import make_cluster
from twin import metrics
from twin.trace import tables


def kpis(
    late: list[float], since_s: float = 0.0, arrived: float = 100.0, times: list[float] | None = None
) -> dict[str, float | None]:
    n = len(late)
    steps = pl.DataFrame(
        {
            "time_s": times or [60.0 * (i + 1) for i in range(n)],
            "service": "web",
            "arrived_requests": arrived,
            "served_requests": 100.0,
            "late_requests": late,
            "dropped_requests": 0.0,
            "queue_requests": 0.0,
            "latency_p95_s": [0.1 * (i + 1) for i in range(n)],
            "busy_replica_s": 30.0,
            "ready_replica_s": 60.0,
            "wanted_replicas": 1,
            "ready_replicas": 1,
            "starting_replicas": 0,
            "pending_replicas": 0,
        }
    )
    pools = pl.DataFrame(
        {"time_s": steps["time_s"], "pool": "workers", "node_s": 60.0, "cost_usd": 0.01, "ready_nodes": 1,
         "booting_nodes": 0, "failed_nodes": 0, "used_cpu_cores": 2.0}
    )  # fmt: skip
    frame = metrics.kpis(
        make_cluster(),
        tables.conform(steps, "service_steps", "test"),
        tables.conform(pools, "pool_steps", "test"),
        tables.empty("decisions"),
        since_s=since_s,
    )
    return dict(frame.select("kpi", "value").iter_rows())


def test_arithmetic() -> None:
    found = kpis([0.0, 10.0, 5.0, 5.0])
    assert found["late_ratio"] == pytest.approx(20 / 400)
    assert found["slo_violation_min"] == 1  # only 10 % exceeds the budget of 5 %
    assert found["utilisation_ratio"] == pytest.approx(0.5)
    assert found["cost_usd"] == pytest.approx(0.04)
    assert found["node_h"] == pytest.approx(4 / 60)
    assert found["latency_p95_s"] == pytest.approx(0.4)


def test_what_came_before_does_not_count() -> None:
    assert kpis([100.0, 0.0, 0.0], since_s=60.0)["late_ratio"] == 0


def test_a_negligible_tail_is_none() -> None:
    assert kpis([1e-40, 1e-50])["late_ratio"] == 0


def test_without_data_a_kpi_is_unscored_not_zero() -> None:
    found = kpis([1.0], since_s=1e6)
    assert found["late_ratio"] is None
    assert found["cost_usd"] is None
    assert found["slo_violation_min"] is None


def test_minutes_without_arrivals_violate_nothing() -> None:
    found = kpis([0.0, 0.0], arrived=0.0)
    assert found["slo_violation_min"] == 0
    assert found["late_ratio"] is None


def test_a_short_last_step_counts_with_its_own_length() -> None:
    found = kpis([50.0, 50.0, 50.0], times=[60.0, 120.0, 130.0])
    assert found["slo_violation_min"] == pytest.approx(130 / 60)
