"""Changes of the demand: Trace -> Trace, and recordings read as the demand of one service."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from scenarios.base import Scenery
from twin.errors import ScenarioError
from twin.trace.read import read
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
    """Each `every_days` days from `first_s` on, demand rises by `factor` within `ramp_s`, holds, and falls again.

    Requests that were recorded one by one come again as often, evenly spread until the next one; a recording of calls
    between services keeps its requests as they are.
    """

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
        requests = trace.requests if trace.requests["parent"].count() else _repeated(trace.requests, lift)
        return trace.replacing(f"scenario: {self}", demand=demand, requests=requests), cluster, ()


def _repeated(requests: pl.DataFrame, lift: pl.Expr) -> pl.DataFrame:
    """Each service's requests, as many of them as the `lift` of their moments adds up to; none of it is drawn."""
    reached = lift.cum_sum().over("service").floor().cast(pl.Int64)
    times = reached - reached.shift(1, fill_value=0).over("service")
    gap_s = pl.col("time_s").shift(-1).over("service") - pl.col("time_s")
    copy = pl.int_ranges(pl.col("_times"))
    return (
        requests.sort("service", "time_s", maintain_order=True)
        .with_columns(_times=times, _gap_s=gap_s.fill_null(0.0))
        .filter(pl.col("_times") > 0)
        .with_columns(_copy=copy)
        .explode("_copy")
        .with_columns(
            time_s=pl.col("time_s") + pl.col("_gap_s") * pl.col("_copy") / pl.col("_times"),
            request=pl.when(pl.col("_copy") > 0)
            .then(pl.format("{}/{}", "request", "_copy"))
            .otherwise(pl.col("request")),
        )
        .drop("_times", "_gap_s", "_copy")
    )


def merged(
    path: str,
    format: str | None = None,  # noqa: A002 - as `twin.read` calls it
    step_s: float | None = None,
    service: str = "all",
) -> Trace:
    """The demand recorded at `path`, all services as the one `service`, and nothing else of the recording.

    At each time the recorded values are added; with `step_s` a coarser series is made of the means over such steps (of
    what was recorded in them: gaps stay gaps).

    Raises:
        ScenarioError: there is no demand, its units differ, or `step_s` is no multiple of the recording's step.
        TraceError: as `twin.read`.
    """
    trace = read(path, format)
    units = trace.services["demand_unit"].unique().to_list()
    if not trace.demand.height or len(units) != 1:
        raise ScenarioError(f"{path}: needs demand in one unit to add it up; it has {units}")
    step = step_s or trace.info.step_s
    if step <= 0 or step % trace.info.step_s:
        raise ScenarioError(f"{path}: step_s={step:g} must be a multiple of the recorded {trace.info.step_s:g} s")
    # added in numpy: the last digit of Polars' sums depends on how many threads it has
    times, place = np.unique(trace.demand["time_s"].to_numpy(), return_inverse=True)
    total = np.bincount(place, weights=trace.demand["value"].to_numpy())
    coarse, place = np.unique(times // step * step, return_inverse=True)
    mean = np.bincount(place, weights=total) / np.bincount(place)
    demand = pl.DataFrame({"service": service, "time_s": coarse, "value": mean})
    note = f"the demand of {trace.services.height} services as one, means over steps of {step:g} s"
    info = replace(trace.info, step_s=step, notes=(*trace.info.notes, note))
    return Trace(info, {"services": pl.DataFrame({"service": [service], "demand_unit": units}), "demand": demand})
