"""What forecasts shall reach, written down before they were measured, and what they do reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from agents.forecast.scoring import ALL
from experiments.forecasts.accuracy_levels import levels, widest
from reports import wording

_HOUR, _DAY = "5 to 60 min", "1 to 24 h"
_COVERED = 0.8
_HORIZONS = {"5min": _HOUR, "hourly": _DAY}


@dataclass(frozen=True, slots=True)
class Panel:
    """The scores of one run folder of the accuracy bench."""

    level: str
    grid: str
    scores: pl.DataFrame
    identity: dict[str, Any]

    @property
    def place(self) -> tuple[str, str]:
        """Level and grid."""
        return self.level, self.grid

    @property
    def candidate(self) -> str:
        """Whom the targets are held against."""
        return str(self.identity["candidate"])

    @property
    def statistical(self) -> list[str]:
        """Whose mean is the statistical opponent."""
        return list(self.identity["statistical"])

    @property
    def absent(self) -> list[str]:
        """Recordings of the panel that were not there."""
        return list(self.identity["absent"])

    def levels(self, horizon: str = "") -> pl.DataFrame:
        """One row per forecaster over all series."""
        return levels(self.scores, int(self.identity["seed"]), horizon=horizon)

    def level_of(self, column: str) -> float:
        """A column of the candidate's row over all series; NaN when it was not run."""
        row = self.levels().filter(forecaster=self.candidate)
        return float(row[column][0]) if row.height else math.nan

    def coverage_farthest_off(self) -> tuple[str, float]:
        """(where, mean over series) of the candidate's coverage at the worst band of steps, or in the worst regime.

        A regime that is told of fewer than half of the series is left out.
        """
        rows = self.scores.filter(forecaster=self.candidate).filter(
            (pl.col("regime") != ALL) | pl.col("horizon").str.contains("-")
        )
        where = pl.when(pl.col("regime") == ALL).then(pl.lit("steps ") + pl.col("horizon")).otherwise(pl.col("regime"))
        means = rows.group_by(where.alias("where"), maintain_order=True).agg(pl.len(), pl.col("coverage_80").mean())
        means = means.filter(2 * pl.col("len") >= rows["unique_id"].n_unique())
        off = means.sort((pl.col("coverage_80") - _COVERED).abs(), descending=True, nulls_last=True)
        return (str(off["where"][0]), float(off["coverage_80"][0])) if off.height else ("", math.nan)

    def accuracy_on(self, unique_id: str) -> float:
        """The candidate's accuracy on one series, all steps pooled; NaN when it is not there."""
        pooled = self.scores.filter(
            horizon=widest(self.scores), regime=ALL, forecaster=self.candidate, unique_id=unique_id
        )
        return float(pooled["accuracy_percent"][0]) if pooled.height else math.nan


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that must hold and one to aim at: at least, at most, or between two values.

    Attributes:
        value: what was measured; NaN: nothing was.
        scale: what bounds and value are shown in, "%" or "".
    """

    horizon: str
    what: str
    must: tuple[float, float]
    aim: tuple[float, float]
    value: float
    scale: str = ""

    @property
    def measured(self) -> str:
        """The value in words."""
        return "not run" if math.isnan(self.value) else f"{self.value:.4g}{self.scale}"

    @property
    def met(self) -> str:
        """Whether it is reached: aim, must, or no."""
        if math.isnan(self.value):
            return wording.DASH
        reached = [name for name, (low, high) in (("aim", self.aim), ("must", self.must)) if low <= self.value <= high]
        return reached[0] if reached else "no"

    def shown(self, bound: tuple[float, float]) -> str:
        """A bound in words."""
        low, high = bound
        if math.isinf(high):
            return f">= {low:g}{self.scale}"
        return f"<= {high:g}{self.scale}" if math.isinf(low) else f"{low:g} to {high:g}{self.scale}"


def targets(panels: Sequence[Panel]) -> list[Target]:
    """All targets with what the candidates of `panels` reach; NaN where a panel was not run."""
    known = {panel.place: panel for panel in panels}
    found = [
        _level(known, "5min", "accuracy_percent", "accuracy, median over clusters' resources", 97.5, 98.0),
        _level(known, "5min", "mae_ratio", "MAE against the mean of the statistical models", 0.97, 0.94),
        *(
            _series(known, "5min", f"{name}/cpu", must, aim)
            for name, must, aim in (("azure_v2", 98.4, 98.6), ("google2019", 95.3, 96.0), ("alibaba2018", 90.0, 91.0))
        ),
        _level(known, "hourly", "accuracy_percent", "accuracy, median over clusters' resources", 95.8, 96.5),
        _level(known, "hourly", "mae_ratio", "MAE against the mean of the statistical models", 0.92, 0.85),
    ]
    for grid, must, aim in (("5min", 0.33, 0.28), ("hourly", 0.42, 0.37)):
        value = known["machine", grid].level_of("crps_ratio") if ("machine", grid) in known else math.nan
        what = "single machines: CRPS against the seasonal naive"
        found.append(Target(_HORIZONS[grid], what, (-math.inf, must), (-math.inf, aim), value))
    for level, title in (("cell", "whole clusters"), ("machine", "single machines")):
        for grid in _HORIZONS:
            found += _covered(known, level, grid, title)
    return found


def _covered(known: dict[tuple[str, str], Panel], level: str, grid: str, title: str) -> list[Target]:
    """Coverage over everything, and where it is farthest off: it must hold at every horizon and in every regime."""
    panel = known.get((level, grid))
    whole = panel.level_of("coverage_80") if panel else math.nan
    where, worst = panel.coverage_farthest_off() if panel else ("", math.nan)
    what = f"{title}: coverage of 80 %"
    farthest = f"{what}, where it is farthest off{f' ({where})' if where else ''}"
    return [
        Target(_HORIZONS[grid], name, (0.77, 0.83), (0.78, 0.82), v) for name, v in ((what, whole), (farthest, worst))
    ]


def _level(known: dict[tuple[str, str], Panel], grid: str, column: str, what: str, must: float, aim: float) -> Target:
    value = known["cell", grid].level_of(column) if ("cell", grid) in known else math.nan
    if column == "accuracy_percent":
        return Target(_HORIZONS[grid], what, (must, math.inf), (aim, math.inf), value, " %")
    return Target(_HORIZONS[grid], what, (-math.inf, must), (-math.inf, aim), value)


def _series(known: dict[tuple[str, str], Panel], grid: str, unique_id: str, must: float, aim: float) -> Target:
    value = known["cell", grid].accuracy_on(unique_id) if ("cell", grid) in known else math.nan
    return Target(_HORIZONS[grid], f"accuracy on {unique_id}", (must, math.inf), (aim, math.inf), value, " %")
