"""KPIs as functions of a run's tables: tables in, one tidy table (`kpis`) out.

late_ratio            bad / arrived requests, at most 1; less than one in a million is none. Bad are late, dropped and
                      failed ones; one that was late already when it gave up its place in the queue counts in both
slo_violation_min     minutes of the steps in which bad / arrived exceeds 1 - slo_target
bad_requests          late, dropped and failed requests
error_budget_ratio    bad requests / those that the SLO allows, (1 - slo_target) x arrived: above 1 it is overspent
latency_p95_s         95th percentile over steps of the step's own p95 response time, weighted by arrivals;
latency_p99_s         likewise
utilisation_ratio     busy / ready replica-seconds
replica_h             ready replica-hours
dropped_requests      requests given up
scale_events          decisions that changed the wished number of replicas
limited_ratio         share of decisions that a limit changed
handover_ratio        share of decisions that a rule took in place of the policy
cost_usd              everything that is paid: nodes, what is reserved, and answers sent out of a region
egress_usd            the last part of it
node_h                hours of billed nodes
energy_kwh            energy that nodes drew
carbon_kg             carbon emitted for it
"""

from __future__ import annotations

import numpy as np
import polars as pl

from twin.trace import tables
from twin.types import Cluster, Service

HANDOVER = "rule decides"  # what the reason of a decision says when a rule stands in for the policy


def kpis(
    cluster: Cluster,
    service_steps: pl.DataFrame,
    pool_steps: pl.DataFrame,
    decisions: pl.DataFrame,
    *,
    since_s: float = 0.0,
) -> pl.DataFrame:
    """The `kpis` table of what happened after `since_s`; a KPI without data is null (unscored), not zero."""
    steps = service_steps.filter(pl.col("time_s") > since_s)
    pools = pool_steps.filter(pl.col("time_s") > since_s)
    made = decisions.filter(pl.col("time_s") >= since_s)
    rows = [
        ("cost_usd", "cluster", _plus(_sum(pools, "cost_usd"), _sum(steps, "egress_usd")), "USD", "lower"),
        ("egress_usd", "cluster", _sum(steps, "egress_usd"), "USD", "lower"),
        ("node_h", "cluster", _scaled(_sum(pools, "node_s"), 1 / 3600), "h", "lower"),
        ("energy_kwh", "cluster", _sum(pools, "energy_kwh"), "kWh", "lower"),
        ("carbon_kg", "cluster", _scaled(_sum(pools, "carbon_g"), 1 / 1000), "kg", "lower"),
    ]
    for service in cluster.services:
        rows += _service_kpis(service, steps.filter(service=service.name), made.filter(target=service.name), since_s)
    frame = pl.DataFrame(
        rows, schema=["kpi", "entity", "value", "unit", "better"], orient="row", infer_schema_length=None
    )
    return tables.conform(frame, "kpis", "metrics")


def _service_kpis(service: Service, steps: pl.DataFrame, made: pl.DataFrame, since_s: float) -> list[tuple]:
    arrived = _sum(steps, "arrived_requests")
    bad = steps["late_requests"] + steps["dropped_requests"] + steps["failed_requests"].fill_null(0.0)
    allowed = (1.0 - service.slo_target) * (arrived or 0.0)
    beyond = bad > (1.0 - service.slo_target) * steps["arrived_requests"]
    length_s = steps["time_s"].diff().fill_null(float(steps["time_s"][0]) - since_s if steps.height else 0.0)
    violated = float((beyond * length_s).sum()) / 60.0 if steps.height else None
    scaled = made.filter(kind="replicas")
    name = service.name
    return [
        ("late_ratio", name, _share_of_requests(_ratio(float(bad.sum()), arrived)), "ratio", "lower"),
        ("slo_violation_min", name, violated, "min", "lower"),
        ("bad_requests", name, float(bad.sum()) if steps.height else None, "request", "lower"),
        ("error_budget_ratio", name, _ratio(float(bad.sum()), allowed), "ratio", "lower"),
        ("latency_p95_s", name, _weighted_percentile(steps, "latency_p95_s"), "s", "lower"),
        ("latency_p99_s", name, _weighted_percentile(steps, "latency_p99_s"), "s", "lower"),
        (
            "utilisation_ratio",
            name,
            _ratio(_sum(steps, "busy_replica_s"), _sum(steps, "ready_replica_s")),
            "ratio",
            "higher",
        ),
        ("replica_h", name, _scaled(_sum(steps, "ready_replica_s"), 1 / 3600), "h", "lower"),
        ("dropped_requests", name, _sum(steps, "dropped_requests"), "request", "lower"),
        ("failed_requests", name, _sum(steps, "failed_requests"), "request", "lower"),
        ("scale_events", name, float((scaled["applied"] != scaled["current"]).sum()), "count", "lower"),
        ("limited_ratio", name, _share(made["limited_by"] != ""), "ratio", "lower"),
        ("handover_ratio", name, _share(made["reason"].str.contains(HANDOVER, literal=True)), "ratio", "lower"),
    ]


def _sum(frame: pl.DataFrame, column: str) -> float | None:
    return float(frame[column].sum()) if frame.height else None


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None else one + (other or 0.0)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _share_of_requests(value: float | None) -> float | None:
    # the tail of a waiting-time distribution is never exactly zero; a ratio of two such tails says nothing
    return None if value is None else 0.0 if value < 1e-6 else min(value, 1.0)


def _share(flags: pl.Series) -> float:
    # no decision is no handover and no limit: a do-nothing controller was never in anyone's way
    return float(flags.sum()) / len(flags) if len(flags) else 0.0


def _weighted_percentile(steps: pl.DataFrame, column: str, level: float = 0.95) -> float | None:
    ordered = steps.filter(pl.col(column) > 0.0).sort(column)  # 0: nothing was answered in the step
    weights = np.cumsum(ordered["arrived_requests"].to_numpy())
    if not len(weights) or weights[-1] <= 0:
        return None
    return float(ordered[column][int(np.searchsorted(weights, level * weights[-1]))])
