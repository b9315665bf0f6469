"""How good forecasts of one to twelve months are: on recorded long series, and on generated years.

A month is 28 days here, so that every one has the same weekdays. A forecaster is fitted once on the first part of a
series and then forecasts the totals of the coming months from an origin every week, or every month where a year is
forecast. Generated years are fitted together, as the machines of an operator are; recordings, which have nothing to
do with each other, alone. Recorded and generated series are never averaged together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

import twin
from agents.forecast import frames
from agents.forecast.base import DECILES, MEDIAN, Floats
from agents.forecast.frames import Series
from agents.forecast.long.guarded import Guarded
from agents.forecast.long.totals import DAY_S, clock_s, core_hours, totals
from agents.forecast.rolling import Origins, past_at, truth_at
from scenarios.synthesis import years

MONTH_DAYS = 28
TOTAL = "total"
BANDS = {"1-3": range(1, 4), "4-12": range(4, 13)}
_FITTED_TO = ("KTH-SP2", "RICC", "philly")  # whose habits the generated years have
_LOGS = {
    "KTH-SP2": "swf-pwa/KTH-SP2/log.swf",
    "RICC": "swf-pwa/RICC-2010-2.swf.gz",
    "philly": "philly-2017/philly_node_sequence.csv",
}
_PRICES = {
    **{f"carbon-{zone}": f"carbon-electricitymaps/{zone}_2021-2024.parquet" for zone in ("DE", "FR", "US-TEX-ERCO")},
    "price-ES": "electricity-price-es-2023/PVPC_active_energy_billing_Iberian_Peninsula_2023.csv",
}


@dataclass(frozen=True, slots=True)
class Long:
    """A daily series, and how many months ahead it is long enough for."""

    source: str  # "recorded" or "generated"
    series: Series
    months: int
    monday_s: int = 0  # of its second 0, in s since a Monday midnight
    foreseen: Callable[[int, int], Floats] | None = None  # who knows all that is decided at an origin, `h` steps ahead

    @property
    def h(self) -> int:
        """Steps ahead."""
        return self.months * MONTH_DAYS

    @property
    def start(self) -> int:
        """Steps that are learned from: the first origin."""
        n = len(self.series.values)
        return max(n // 2, n - self.h - 3 * MONTH_DAYS)


def recorded(folder: Path) -> Iterator[Long]:
    """The long series of the data folder: core-hours of two logs, active nodes, carbon intensity, a price."""
    for name, path in {**_LOGS, **_PRICES}.items():
        trace = twin.read(folder / path)
        if name in _PRICES:
            frame = trace.prices.filter(pl.col("quantity").is_in(["carbon_g_kwh", "electricity_eur_mwh"]))
            frame = frame.select(pl.col("time_s").cast(pl.Int64).alias("ds"), pl.col("value").alias("y"))
        else:
            frame = frames.series(trace, ["active_nodes"]) if name == "philly" else core_hours(trace, 3_600)
        daily = totals(frame.with_columns(pl.lit(name).alias("unique_id")), "day", epoch=trace.info.epoch)
        series = frames.panel(daily)[0]
        yield Long("recorded", series, min(len(series.values) // 4 // MONTH_DAYS, 13) or 1, clock_s(trace.info.epoch))


def generated(told: Sequence[years.Habits], seeds: Sequence[int], plan: years.Plan) -> Iterator[Long]:
    """Years drawn with the habits of the recordings in turn, holidays and announced launches known ahead."""
    for seed in seeds:
        drawn = years.draw(told[seed % len(told)], plan, np.random.default_rng(seed))
        columns = frames.Columns(known=years.KNOWN)
        series = Series(f"years-{seed}", 0, DAY_S, drawn.values, drawn.known, columns=columns)
        habits = told[seed % len(told)]
        yield Long("generated", series, 13, foreseen=partial(years.foreseen, drawn, habits, plan))


def habits_of(series: Sequence[Long]) -> list[years.Habits]:
    """The habits of the recordings that generated years are like."""
    kept = [each for each in series if each.series.unique_id in _FITTED_TO]
    return [years.habits(k.series.values, DAY_S, k.monday_s + k.series.start_s) for k in kept]


def fitted(longs: Sequence[Long], forecaster: Guarded) -> Guarded:
    """The forecaster for as many months as are judged, fitted together on the first parts of the series."""
    return replace(forecaster, horizon=max(long.h for long in longs)).fit(
        [long.series.until(long.start) for long in longs], 0
    )


def measure(long: Long, forecaster: Guarded) -> pl.DataFrame:
    """One row per origin and month ahead, and for the `TOTAL` of all: errors, losses, and the naive forecasts' errors.

    `forecaster` is fitted on the first part of the series.
    """
    series, h = long.series, long.h
    origins = np.arange(long.start, len(series.values) - h + 1, MONTH_DAYS if long.months > 12 else 7)
    past = past_at(series, origins, forecaster.context, h)
    truth = truth_at(series, origins, h)
    points = {f"naive_{name}": said for name, said in _naive(series.values, origins, h).items()}
    if long.foreseen is not None:
        points["foreseen"] = np.stack([long.foreseen(int(origin), h) for origin in origins])
    train = series.values[long.start % MONTH_DAYS : long.start].reshape(-1, MONTH_DAYS).sum(axis=1)
    scale = float(np.abs(np.diff(train)).mean()) if len(train) > 1 else None
    tables = []
    for names, lengths in _spans(long.months):
        sums = np.repeat(np.eye(len(lengths)), lengths, axis=1)
        said, came = forecaster.forecast_totals(past, lengths), truth[:, : sums.shape[1]] @ sums.T
        error = came[..., None] - said
        crps = 2.0 * np.maximum(DECILES * error, (DECILES - 1.0) * error).mean(axis=-1)
        within = (said[..., 0] <= came) & (came <= said[..., -1])
        columns = {"truth": came, "error": np.abs(error[..., MEDIAN]), "crps": crps, "within": within.astype(float)}
        columns |= {name: np.abs(came - each[:, : sums.shape[1]] @ sums.T) for name, each in points.items()}
        months = pl.Series("months", names * len(origins))
        tables.append(pl.DataFrame({"months": months, **{name: values.ravel() for name, values in columns.items()}}))
    return pl.concat(tables).with_columns(
        pl.lit(long.source).alias("source"), pl.lit(series.unique_id).alias("series"), pl.lit(scale).alias("scale")
    )


def _spans(months: int) -> list[tuple[list[str], list[int]]]:
    """What is judged: each month, and the total of a year or of all months where they are fewer."""
    each = [str(month + 1) for month in range(months)], [MONTH_DAYS] * months
    return [each, ([TOTAL], [MONTH_DAYS * months])] if months > 1 else [each]


def _naive(values: Floats, origins: Origins, h: int) -> dict[str, Floats]:
    """Steps [origins, h]: as in the last month, as a year ago (NaN: no such year), the mean so far."""
    ahead = np.arange(h)
    year = origins[:, None] - 364 + ahead % 364
    return {
        "last": values[origins[:, None] - MONTH_DAYS + ahead % MONTH_DAYS],
        "year": np.where(year >= 0, values[np.maximum(year, 0)], np.nan),
        "mean": np.repeat([[values[:o].mean()] for o in origins], h, axis=1),
    }


def table(rows: pl.DataFrame, by: Sequence[str] = ("source", "series", "months")) -> pl.DataFrame:
    """Scores of the rows of `measure` by series and month, or by what is asked for.

    accuracy = 100 (1 - WAPE of totals); skill = 1 - error over that of the best naive in hindsight (last month, the
    same month a year ago, the mean so far); MASE is scaled by the change from month to month in training, and told
    of single months alone.
    """
    scale = pl.when(pl.col("months") == TOTAL).then(None).otherwise(pl.col("scale"))
    size, error = pl.col("truth").abs().mean(), pl.col("error").mean()
    foreseen = pl.col("foreseen") if "foreseen" in rows.columns else pl.lit(None, pl.Float64)
    known = [pl.col(f"naive_{k}").mean().fill_nan(None) for k in ("last", "year", "mean")]
    return rows.group_by(*by, maintain_order=True).agg(
        pl.len().alias("forecasts"),
        (100.0 * (1.0 - error / size)).alias("accuracy_percent"),
        (100.0 * (1.0 - known[2] / size)).alias("accuracy_of_mean_percent"),
        (100.0 * (1.0 - foreseen.mean() / size)).alias("accuracy_of_knowing_percent"),
        (1.0 - error / pl.min_horizontal(*known)).alias("skill"),
        (pl.col("error") / scale).mean().alias("mase"),
        (pl.col("crps").mean() / size).alias("scaled_crps"),
        pl.col("within").mean().alias("coverage_80"),
    )


def scores(rows: pl.DataFrame) -> pl.DataFrame:
    """The table `long_horizon`: recorded series by name, generated ones together; months, bands of them, the total."""
    named = pl.when(pl.col("source") == "recorded").then("series").otherwise(pl.lit("all")).alias("series")
    rows = rows.with_columns(named)
    for name, months in BANDS.items():
        rows = pl.concat(
            [
                rows,
                rows.filter(pl.col("months").is_in([str(m) for m in months])).with_columns(
                    pl.lit(name).alias("months")
                ),
            ]
        )
    order = {str(month): month for month in range(1, 14)} | {name: 20 + k for k, name in enumerate((*BANDS, TOTAL))}
    place = pl.col("months").replace_strict(order, return_dtype=pl.Int64)
    found = table(rows).with_columns(place.alias("place"))
    return found.sort("source", "series", "place").drop("place")
