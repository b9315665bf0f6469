"""The shown runs as small series: equal bins on one clock, so that 28 days fit into one page.

Every bin holds mean, minimum and maximum over its steps; a bin without steps is null, and drawn as a gap.
Ratios are binned as the ratio of sums. `series` numbers the lines: one per shown run and service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from reports import incidents
from reports.folder import Facts, RunFolder, ShownRun, step_s

MAX_POINTS = 2_000  # per series, whatever the budget
_CELLS = 90_000  # numbers of all series together: about 0.5 MB of text
_COLUMNS = 15
_BINS_S = (60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_SAME_DEMAND = 0.2  # a forecast of values that differ by more, in the worst 5 % of bins, is of another demand

MEASURES = ("demand", "ready", "utilisation", "late")
QUANTILES = ("q10", "q50", "q90")


@dataclass(frozen=True, slots=True)
class Series:
    """What the time panels draw; see the module's docstring for bins.

    `lines`: series, scenario, controller, service, leads (the run whose demand stands for the scenario).
    `steps`: series, bin, demand (requests/s), ready, wanted (replicas), utilisation, late (percent that were late,
    dropped or failed), each but `wanted` also as *_min and *_max, and nodes (ready nodes).
    `forecast`: scenario, service, bin, part (rises where forecasts are missing), q10, q50, q90 (requests/s).
    `failures`: scenario, start_s, end_s: when anything was wrong in any shown run; `incidents`: what, by
    `reports.incidents.marks`.
    """

    bin_s: float
    lines: pl.DataFrame
    steps: pl.DataFrame
    forecast: pl.DataFrame
    forecaster: str
    failures: pl.DataFrame
    incidents: pl.DataFrame
    slo_late_percent: dict[str, float]


def build(folder: RunFolder, *, most: int = MAX_POINTS) -> Series | None:
    """The binned series of the shown runs, `most` points each; None when no run recorded service steps."""
    runs = [run for run in folder.runs if run.service_steps is not None and run.service_steps.height]
    if not runs:
        return None
    lines = _lines(runs)
    end_s = max(float(_steps(run)["time_s"].max()) for run in runs)  # pyright: ignore[reportArgumentType]
    bin_s = bin_width(end_s, lines.height, min(step_s(_steps(run)) for run in runs), most)
    steps = pl.concat([_binned(run, line, bin_s) for run in runs for line in _of(lines, run)])
    forecaster, forecast = _forecast(folder, lines, steps, bin_s)
    wrong = incidents.spans(runs, bin_s), incidents.marks(runs, bin_s)
    return Series(bin_s, lines, steps, forecast, forecaster, *wrong, _slo(folder.identity))


def bin_width(end_s: float, lines: int, step: float, most: int = MAX_POINTS) -> float:
    """The shortest round bin, no shorter than `step`, that keeps `lines` series of `end_s` within the page's budget."""
    points = min(most, max(_CELLS // (_COLUMNS * max(lines, 1)), 50))
    least = max(end_s / points, step)
    return next((float(b) for b in _BINS_S if b >= least), math.ceil(least / 86_400.0) * 86_400.0)


def _steps(run: ShownRun) -> pl.DataFrame:
    assert run.service_steps is not None
    return run.service_steps


def _lines(runs: list[ShownRun]) -> pl.DataFrame:
    rows, seen = [], set()
    for run in runs:
        for service in _steps(run)["service"].unique().sort():
            rows.append(
                (len(rows), run.label, run.scenario, run.controller, service, (run.scenario, service) not in seen)
            )
            seen.add((run.scenario, service))
    columns = ["series", "run", "scenario", "controller", "service", "leads"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _of(lines: pl.DataFrame, run: ShownRun) -> list[dict[str, Any]]:
    return lines.filter(run=run.label).to_dicts()


def _bin(column: str, bin_s: float) -> pl.Expr:
    # steps are stamped with their end: the one that ends on the bin's border belongs to the bin before
    return ((pl.col(column) / bin_s).ceil() - 1).clip(0).cast(pl.Int64).alias("bin")


def _binned(run: ShownRun, line: dict[str, Any], bin_s: float) -> pl.DataFrame:
    frame = _steps(run).filter(service=line["service"])
    bad = pl.sum_horizontal("late_requests", "dropped_requests", "failed_requests")  # an error not counted is none
    arrived = "arrived_requests"
    each = frame.with_columns(
        _bin("time_s", bin_s),
        demand=pl.col(arrived) / step_s(frame),
        ready=pl.col("ready_replicas"),
        utilisation=_percent(pl.col("busy_replica_s"), pl.col("ready_replica_s")),
        late=_percent(bad, pl.col(arrived)),
    )
    binned = each.group_by("bin").agg(
        pl.col("demand", "ready").mean(),
        pl.col("wanted_replicas").mean().alias("wanted"),
        _percent(pl.col("busy_replica_s").sum(), pl.col("ready_replica_s").sum()).alias("utilisation"),
        _percent(bad.sum(), pl.col(arrived).sum()).alias("late"),
        *(pl.col(m).min().alias(f"{m}_min") for m in MEASURES),
        *(pl.col(m).max().alias(f"{m}_max") for m in MEASURES),
    )
    grid = pl.DataFrame({"bin": range(int(binned["bin"].max()) + 1)}, schema={"bin": pl.Int64})  # pyright: ignore
    joined = grid.join(binned, on="bin", how="left").join(_nodes(run, bin_s), on="bin", how="left").sort("bin")
    order = ["bin", "demand", "ready", "wanted", "utilisation", "late", "nodes"]
    spread = [f"{m}_{end}" for m in MEASURES for end in ("min", "max")]
    return joined.select(pl.lit(line["series"]).alias("series"), *order, *spread)


def _percent(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then((100.0 * part / whole).clip(0.0, 100.0))


def _nodes(run: ShownRun, bin_s: float) -> pl.DataFrame:
    if run.pool_steps is None:
        return pl.DataFrame(schema={"bin": pl.Int64, "nodes": pl.Float64})
    total = run.pool_steps.group_by("time_s").agg(pl.col("ready_nodes").sum())
    return total.group_by(_bin("time_s", bin_s)).agg(pl.col("ready_nodes").mean().alias("nodes"))


def _slo(identity: Facts) -> dict[str, float]:
    services = (identity.get("cluster") or {}).get("services", [])
    return {s["name"]: 100.0 * (1.0 - s["slo_target"]) for s in services if "name" in s and "slo_target" in s}


# ---------------------------------------------------------------- the forecast band


def _forecast(folder: RunFolder, lines: pl.DataFrame, steps: pl.DataFrame, bin_s: float) -> tuple[str, pl.DataFrame]:
    """The best forecaster's nearest forecasts in requests/s, for the scenarios whose demand it foretold."""
    none = pl.DataFrame(schema={"scenario": pl.String, "service": pl.String, "bin": pl.Int64, "part": pl.UInt32})
    none = none.with_columns(pl.lit(None, pl.Float64).alias(q) for q in QUANTILES)
    name = best_forecaster(folder)
    if folder.forecasts is None or not name:
        return "", none
    # forecasts count from the start of the recording, shown runs from where they were cut out of it
    shown_from_s = float(folder.identity.get("shown_from_s") or 0.0)
    own = folder.forecasts.filter(forecaster=name).with_columns(pl.col("time_s") - shown_from_s)
    nearest = _nearest(own, bin_s)
    found = []
    for line in lines.filter("leads").to_dicts():
        demand = steps.filter(series=line["series"]).select("bin", "demand")
        for (_,), said in nearest.group_by("unique_id", maintain_order=True):
            factor = _factor(said, demand, folder.identity, line["service"])
            if factor is None:
                continue
            keys = [pl.lit(line["scenario"]).alias("scenario"), pl.lit(line["service"]).alias("service"), "bin"]
            between = pl.col("bin").diff()
            part = (between > 2 * between.median()).fill_null(value=False).cum_sum().alias("part")
            found.append(said.sort("bin").select(*keys, part, *(pl.col(q) * factor for q in QUANTILES)))
            break  # one recorded series is this service's demand
    return (name, pl.concat(found)) if found else ("", none)


def best_forecaster(folder: RunFolder) -> str:
    """The forecaster with the lowest mean scaled CRPS, else the first by name, else ""."""
    scores = folder.forecast_scores
    if scores is not None and scores.height:
        ranked = scores.group_by("forecaster").agg(pl.col("scaled_crps").mean()).sort("scaled_crps", "forecaster")
        return str(ranked["forecaster"][0])
    if folder.forecasts is not None and folder.forecasts.height:
        return str(folder.forecasts["forecaster"].min())
    return ""


def _nearest(forecasts: pl.DataFrame, bin_s: float) -> pl.DataFrame:
    shortest = forecasts.sort("step").unique(["unique_id", "time_s"], keep="first", maintain_order=True)
    bins = (pl.col("time_s") / bin_s).floor().cast(pl.Int64).alias("bin")
    binned = shortest.group_by("unique_id", bins, maintain_order=True).agg(pl.col("y", *QUANTILES).mean())
    return binned.filter(pl.col("bin") >= 0)


def _factor(said: pl.DataFrame, demand: pl.DataFrame, identity: Facts, service: str) -> float | None:
    """Requests/s per unit of the forecast, accepted only if the recorded values then equal the run's demand."""
    both = said.join(demand, on="bin").filter(pl.col("demand") > 0)
    services = (identity.get("cluster") or {}).get("services", [])
    unit_rps = next((s.get("unit_rps", 1.0) for s in services if s.get("name") == service), 1.0)
    for factor in (1.0, float(unit_rps)):
        error = (both["y"] * factor / both["demand"] - 1.0).abs().quantile(0.95)
        if error is not None and error <= _SAME_DEMAND:
            return factor
    return None
