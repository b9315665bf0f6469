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


def test_only_decisions_about_replicas_are_scale_events() -> None:
    """Of a change of replicas, one of what they ask for, and one that changed nothing, the first counts."""
    row = {"time_s": 60.0, "policy": "p", "observation": "", "target": "web", "confidence": 1.0, "reason": "",
           "limited_by": "", "status": "applied", "message": "", "confirmed": True}  # fmt: skip
    values = [("replicas", 4, 6), ("cpu_millicores", 1000, 2000), ("replicas", 6, 6)]
    rows = [
        {**row, "kind": kind, "current": now, "proposed": then, "allowed": then, "applied": then}
        for kind, now, then in values
    ]
    decisions = tables.conform(pl.DataFrame(rows), "decisions", "test")
    steps, pools = tables.empty("service_steps"), tables.empty("pool_steps")
    found = metrics.kpis(make_cluster(), steps, pools, decisions)
    assert found.filter(kpi="scale_events")["value"].to_list() == [1.0]


def test_steps_without_an_answer_do_not_make_answers_faster() -> None:
    """A step of a thousand requests that were all dropped says nothing of response times."""
    steps = pl.DataFrame(
        {"time_s": [60.0, 120.0], "service": "web", "arrived_requests": [10.0, 1000.0], "served_requests": [10.0, 0.0],
         "late_requests": 0.0, "dropped_requests": [0.0, 1000.0], "queue_requests": 0.0,
         "latency_p95_s": [0.4, 0.0], "busy_replica_s": 1.0, "ready_replica_s": 1.0, "wanted_replicas": 1,
         "ready_replicas": 0, "starting_replicas": 0, "pending_replicas": 1}
    )  # fmt: skip
    whole = tables.conform(steps, "service_steps", "test")
    found = metrics.kpis(make_cluster(), whole, tables.empty("pool_steps"), tables.empty("decisions"))
    assert found.filter(kpi="latency_p95_s")["value"].to_list() == [0.4]
    none = metrics.kpis(make_cluster(), whole[1:], tables.empty("pool_steps"), tables.empty("decisions"))
    assert none.filter(kpi="latency_p95_s")["value"].to_list() == [None]
