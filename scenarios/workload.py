"""Changes of the demand: Trace -> Trace."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from scenarios.base import Scenery
from twin.errors import ScenarioError
from twin.trace.trace import Trace
from twin.types import Cluster

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class AsRecorded:
    """Nothing is changed: the recording as it is."""

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace and the cluster as given, and no events."""
        return trace, cluster, ()


@dataclass(frozen=True, slots=True)
class DemandSurge:
    """Each `every_days` days from `first_s` on, demand rises by `factor` within `ramp_s`, holds, and falls again."""

    factor: float
    first_s: float
    hold_s: float
    ramp_s: float
    every_days: float = 1.0

    def apply(self, trace: Trace, cluster: Cluster) -> Scenery:
        """The trace with surges; raises ScenarioError for a factor or times that make no surge."""
        if self.factor <= 0 or self.hold_s <= 0 or self.ramp_s < 0 or self.every_days <= 0:
            raise ScenarioError(f"{self}: factor, hold_s and every_days must be > 0, ramp_s >= 0")
        if self.first_s >= trace.duration_s:
            raise ScenarioError(f"{self}: the first surge begins after the trace ends at {trace.duration_s:g} s")
        since = (pl.col("time_s") - self.first_s) % (self.every_days * DAY_S)
        ramp = max(self.ramp_s, 1e-9)
        height = pl.min_horizontal(
            (since / ramp).clip(0.0, 1.0), ((2 * self.ramp_s + self.hold_s - since) / ramp).clip(0.0, 1.0)
        )
        lift = pl.when(pl.col("time_s") >= self.first_s).then(1.0 + (self.factor - 1.0) * height).otherwise(1.0)
        demand = trace.demand.with_columns((pl.col("value") * lift).alias("value"))
        return trace.replacing(f"scenario: {self}", demand=demand), cluster, ()
