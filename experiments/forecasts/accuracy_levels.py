"""What the accuracy scores of many series come to at their level: medians, worst ones, ratios with intervals.

Accuracy is claimed for whole clusters and pools of machines only: below, errors of machines that rest explode any
percentage, and the ratios of scores say what can be said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from agents.forecast.scoring import ALL
from experiments.intervals import means, paired_ratios
from twin.seeds import child

NATIVE = "seasonal_naive_native"
"""Yesterday's value with normal bands: what ratios of the CRPS are taken to."""
STATISTICAL = "statistical_mean"
"""The mean of the statistical models' deciles: what ratios of the MAE are taken to."""
LEVEL = 0.95


def levels(scores: pl.DataFrame, seed: int, *, horizon: str = "", regime: str = ALL) -> pl.DataFrame:
    """One row per forecaster over the series of one level and grid, the best first; a failed series makes a value NaN.

    Columns: forecaster, series (count), accuracy_percent, skill, mase, scaled_crps (medians), worst_percent and worst
    (the least accurate series), coverage_80 and bias (means), crps_ratio (geometric mean against `NATIVE`) and
    mae_ratio (against `STATISTICAL`), each with the ends of its bootstrap interval over series (`_low`, `_high`).

    Args:
        scores: an `accuracy_scores` table of one level and grid.
        seed: of the bootstrap.
        horizon: which steps, by default all of them pooled.
        regime: which origins.
    """
    rows = scores.filter(horizon=horizon or widest(scores), regime=regime)
    parts = {
        str(key[0]): part for key, part in rows.partition_by("forecaster", as_dict=True, maintain_order=True).items()
    }
    found = [_level(name, part, parts, seed) for name, part in parts.items()]
    return pl.DataFrame(found).sort("crps_ratio", nulls_last=True)


def widest(scores: pl.DataFrame) -> str:
    """The name of the band that pools all steps."""
    return max(scores["horizon"].unique(), key=lambda name: (name.startswith("1-"), int(name.rpartition("-")[2])))


def _level(name: str, part: pl.DataFrame, parts: dict[str, pl.DataFrame], seed: int) -> dict[str, Any]:
    def values(column: str) -> np.ndarray:
        return part[column].to_numpy()

    accuracy = part["accuracy_percent"].fill_null(math.nan).to_numpy()
    worst = int(np.argmin(accuracy))
    found: dict[str, Any] = {"forecaster": name, "series": part.height}
    found |= {"accuracy_percent": float(np.median(accuracy)), "worst_percent": float(accuracy[worst])}
    found |= {"worst": part["unique_id"][worst]}
    found |= {c: float(np.median(values(c))) for c in ("skill", "mase", "scaled_crps")}
    found |= {c: float(values(c).mean()) for c in ("coverage_80", "bias")}
    for column, score, reference in (("crps_ratio", "crps", NATIVE), ("mae_ratio", "mae", STATISTICAL)):
        ends = geometric_mean(ratios(part, parts.get(reference), score), seed, f"{name}/{column}")
        found |= dict(zip((column, f"{column}_low", f"{column}_high"), ends, strict=True))
    return found


def ratios(part: pl.DataFrame, reference: pl.DataFrame | None, score: str) -> np.ndarray:
    """The score of each series over the reference's; NaN where there is none."""
    if reference is None:
        return np.full(part.height, math.nan)
    both = part.join(reference, on="unique_id", how="left", suffix="_reference", maintain_order="left")
    return paired_ratios(both[score].to_numpy(), both[f"{score}_reference"].to_numpy())


def geometric_mean(values: Sequence[float] | np.ndarray, seed: int, name: str) -> tuple[float, float, float]:
    """The geometric mean of ratios, and the ends of its interval over bootstrapped series; NaN when one is not known.

    A ratio of 0 counts as a millionth.
    """
    logs = np.log(np.maximum(np.asarray(values, dtype=np.float64), 1e-6))
    if not np.isfinite(logs).all() or not len(logs):
        return math.nan, math.nan, math.nan
    found = means(logs, child(seed, name))
    low, high = found.interval(LEVEL)
    return math.exp(found.value), math.exp(low), math.exp(high)
