"""The table of `decision_value`: what forecasts were worth by their error, and by what was decided upon them.

With e = y - q50: WAPE = sum|e| / sum|y|; pinball loss of the level tau = max(tau (y - q), (tau - 1) (y - q)). A
scaled pinball loss is 2 x its mean over mean|y|, and the scaled CRPS the mean of that over the nine deciles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import kendalltau

from agents.forecast.base import DECILES, MEDIAN, Floats
from agents.scale.capacity import quantile_of
from twin.trace import tables

ORACLE = "oracle"
_SAME_DEMAND = ["scenario", "seed"]
_SAME_TASK = ["scenario", "seed", "kind", "quantile"]
_LEAST = 3  # forecasters, of fewer an order says nothing


def errors(said: Floats, truth: Floats, level: float) -> dict[str, float]:
    """How good deciles [..., 9] were for what came [...] (NaN: not known), and their quantile `level` for its use."""
    known = np.isfinite(truth)
    y, q = truth[known], said[known]
    size = float(np.abs(y).mean())
    chosen = quantile_of(q, level)
    return {
        "wape": float(np.abs(y - q[:, MEDIAN]).mean()) / size,
        "scaled_crps": float(_pinball(y[:, None], q, DECILES).mean()) * 2.0 / size,
        "scaled_pinball": float(_pinball(y, chosen, level).mean()) * 2.0 / size,
        "coverage_80": float(((q[:, 0] <= y) & (y <= q[:, -1])).mean()),
        "below_ratio": float((y <= chosen).mean()),
    }


def _pinball(y: Floats, q: Floats, level: Floats | float) -> Floats:
    return np.maximum(level * (y - q), (level - 1.0) * (y - q))


def table(rows: Sequence[dict[str, Any]], baseline: str, late_price: float, allowed_min: float) -> pl.DataFrame:
    """The `decision_value` table of rows that `foresight.evaluate` made.

    judged_usd is cost_usd x (1 + late_price x late_ratio), the trade-off that learners are trained by; ratios are to
    the rule `baseline` on the same demand; `equal_slo` says that, over seeds in the mean, at most `allowed_min` minutes
    more than its violate the SLO: a minute more or less is chance. newsvendor_replica_h is what a plan was to make
    least: idle replica-hours and, at the price that its quantile stands for, missing ones.

    Each task (scenario, seed, kind and quantile) has Kendall's tau-b of the orders of its forecasters by scaled CRPS
    and by judged cost, the oracle left out, null for fewer than three.
    """
    frame = pl.DataFrame(rows, infer_schema_length=None)
    judged = frame.with_columns(judged_usd=pl.col("cost_usd") * (1.0 + late_price * pl.col("late_ratio")))
    rule = judged.filter(pl.col("kind") == "rule", pl.col("forecaster") == baseline)
    compared = judged.join(
        rule.select(*_SAME_DEMAND, "cost_usd", "judged_usd", "slo_violation_min"),
        on=_SAME_DEMAND,
        suffix="_rule",
        maintain_order="left",
    )
    beyond_min = pl.col("slo_violation_min") - pl.col("slo_violation_min_rule")
    price, short = pl.col("quantile") / (1.0 - pl.col("quantile")), pl.col("shortage_replica_h")
    ratios = compared.with_columns(
        cost_ratio=pl.col("cost_usd") / pl.col("cost_usd_rule"),
        judged_ratio=pl.col("judged_usd") / pl.col("judged_usd_rule"),
        equal_slo=beyond_min.mean().over("scenario", "kind", "forecaster", "quantile") <= allowed_min,
        newsvendor_replica_h=pl.when(pl.col("kind") == "plan").then(price * short + pl.col("idle_replica_h")),
    ).drop("cost_usd_rule", "judged_usd_rule", "slo_violation_min_rule")
    ranked = ratios.join(_ranks(ratios), on=_SAME_TASK, how="left", maintain_order="left", nulls_equal=True)
    return tables.conform(ranked, "decision_value", "decision_value")


def _ranks(frame: pl.DataFrame) -> pl.DataFrame:
    """Kendall's tau of each task."""
    rivals = frame.filter(pl.col("kind") != "rule", pl.col("forecaster") != ORACLE)
    rows = [
        (*key, kendall(group["scaled_crps"].to_numpy(), group["judged_usd"].to_numpy()))
        for key, group in rivals.group_by(_SAME_TASK, maintain_order=True)
    ]
    dtypes = {name: frame.schema[name] for name in _SAME_TASK}
    return pl.DataFrame(rows, schema={**dtypes, "kendall_tau": pl.Float64}, orient="row")


def kendall(error: Floats, cost: Floats) -> float | None:
    """Kendall's tau-b between two orders; None for fewer than three, or where all of one are equal."""
    if len(error) < _LEAST or np.ptp(error) == 0 or np.ptp(cost) == 0:
        return None
    found: Any = kendalltau(error, cost)  # scipy has no types
    return float(found.statistic)


def orders(frame: pl.DataFrame) -> pl.DataFrame:
    """Kendall's tau of error and judged cost by scenario, kind and quantile, over seeds in the mean.

    Rows without a quantile compare each forecaster at its cheapest one that keeps the baseline's SLO (`best`); who has
    none counts as the dearest.
    """
    keys = ["scenario", "kind"]
    known = frame.filter(pl.col("kendall_tau").is_not_null())
    each = known.group_by(*keys, "quantile", maintain_order=True).agg(pl.col("kendall_tau").mean())
    rivals = frame.filter(pl.col("kind") != "rule", pl.col("forecaster") != ORACLE)
    errors_of = rivals.group_by(*keys, "forecaster", maintain_order=True).agg(pl.col("scaled_crps").mean())
    costs = errors_of.join(best(frame).select(*keys, "forecaster", "cost_usd"), on=[*keys, "forecaster"], how="left")
    rows = [
        (*key, None, kendall(group["scaled_crps"].to_numpy(), group["cost_usd"].fill_null(1e300).to_numpy()))
        for key, group in costs.group_by(keys, maintain_order=True)
    ]
    overall = pl.DataFrame(rows, schema=each.schema, orient="row")
    return pl.concat([overall, each]).sort(*keys, "quantile", nulls_last=False)


def best(frame: pl.DataFrame) -> pl.DataFrame:
    """Each forecaster and rule at its cheapest quantile that keeps the baseline's SLO, over seeds in the mean.

    Its error, the quantile, its cost, lateness and ratio to the baseline; quantiles that do not keep the SLO are left
    out, and so is whoever has none.
    """
    keys = ["scenario", "kind", "forecaster"]
    means = [
        pl.col(name).mean()
        for name in (
            "wape",
            "scaled_crps",
            "coverage_80",
            "below_ratio",
            "cost_usd",
            "cost_ratio",
            "judged_ratio",
            "late_ratio",
            "slo_violation_min",
            "replica_h",
            "slack_ratio",
        )
    ]
    whole = frame.group_by(*keys, "quantile", maintain_order=True).agg(pl.col("equal_slo").first(), *means)
    kept = whole.filter("equal_slo").drop("equal_slo").sort("cost_usd", maintain_order=True)
    return kept.group_by(keys, maintain_order=True).first().sort("scenario", "cost_usd", maintain_order=True)
