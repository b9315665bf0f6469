"""Series as long frames (`unique_id`, `ds`, `y`), as forecasting libraries take them, and as arrays for models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.trace.trace import Trace


@dataclass(frozen=True, slots=True)
class Series:
    """One regular series: `values[i]` (float64, finite) covers the step that starts at `start_s + i * step_s`."""

    unique_id: str
    start_s: int
    step_s: int
    values: NDArray[np.float64]


def series(trace: Trace, resources: Sequence[str] | None = None) -> pl.DataFrame:
    """The recorded usage as a long frame: `unique_id` "<trace>/<resource>", `ds` in s since its start, `y` in its unit.

    Args:
        trace: where `usage` was recorded; with several entities the id is "<trace>/<entity>/<resource>".
        resources: which resources, by default all of them.

    Raises:
        UsageError: the trace has no usage, or not that of an asked resource.
    """
    known = trace.usage["resource"].unique().sort().to_list()
    asked = known if resources is None else list(resources)
    missing = [r for r in asked if r not in known]
    if missing or not asked:
        raise UsageError(f"trace {trace.info.name!r} holds no usage of {missing or 'anything'}; recorded: {known}")
    path = ["entity", "resource"] if trace.usage["entity"].n_unique() > 1 else ["resource"]
    return _long(trace.usage.filter(pl.col("resource").is_in(asked)), trace.info.name, path)


def demand(trace: Trace, services: Sequence[str] | None = None) -> pl.DataFrame:
    """The recorded demand as a long frame: `unique_id` "<trace>/demand/<service>", `ds` in s, `y` in its unit.

    Raises UsageError when the trace holds no demand of an asked service.
    """
    known = trace.demand["service"].unique().sort().to_list()
    asked = known if services is None else list(services)
    missing = [s for s in asked if s not in known]
    if missing or not asked:
        raise UsageError(f"trace {trace.info.name!r} holds no demand of {missing or 'anything'}; recorded: {known}")
    return _long(trace.demand.filter(pl.col("service").is_in(asked)), f"{trace.info.name}/demand", ["service"])


def _long(frame: pl.DataFrame, prefix: str, path: list[str]) -> pl.DataFrame:
    return frame.select(
        pl.concat_str(pl.lit(prefix), *path, separator="/").alias("unique_id"),
        pl.col("time_s").cast(pl.Int64).alias("ds"),
        pl.col("value").alias("y"),
    ).sort("unique_id", "ds")


def panel(frame: pl.DataFrame) -> list[Series]:
    """The frame's series by name, as arrays; the order of its rows does not matter.

    Raises UsageError for missing columns, a single row, an irregular step, or an unknown value.
    """
    missing = [c for c in ("unique_id", "ds", "y") if c not in frame.columns]
    if missing:
        raise UsageError(f"a long frame needs the columns unique_id, ds, y; {missing[0]!r} is missing")
    groups = frame.sort("unique_id", "ds").partition_by("unique_id", as_dict=True, maintain_order=True)
    return [_one(str(key[0]), rows) for key, rows in groups.items()]


def _one(unique_id: str, rows: pl.DataFrame) -> Series:
    ds = rows["ds"].to_numpy()
    values = rows["y"].cast(pl.Float64).to_numpy().astype(np.float64)
    gaps = np.unique(np.diff(ds))
    if len(gaps) != 1 or gaps[0] <= 0:
        raise UsageError(f"series {unique_id!r}: the step must be one positive number of seconds, found {gaps[:3]}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UsageError(f"series {unique_id!r}: the value at {ds[row]} s is unknown; fill it or cut the series there")
    return Series(unique_id, int(ds[0]), int(gaps[0]), values)


def steps_in(length: int, share: float, leaving: int = 0) -> int:
    """How many of `length` steps lie in the first `share` (0-1) of them, at least the last `leaving` left out."""
    return max(min(int(length * share), length - leaving), 0)


def first(frame: pl.DataFrame, share: float, leaving: int = 0) -> pl.DataFrame:
    """The first `share` (0-1) of each series, by time, at least its last `leaving` steps left out."""
    length = pl.len().over("unique_id").cast(pl.Int64)
    kept = pl.min_horizontal((length * share).cast(pl.Int64), length - leaving)
    return frame.filter(pl.col("ds").rank("ordinal").over("unique_id") <= kept).sort("unique_id", "ds")


def windows(values: NDArray[np.float64], origins: NDArray[np.int64], context: int) -> NDArray[np.float64]:
    """The `context` steps that end right before each origin: [origins, context]."""
    return values[origins[:, None] + np.arange(-context, 0)]


def normalise(windows: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - numpy and JAX arrays alike
    """Windows [..., context] as (shape, last, scale): windows = last + scale x shape.

    `last` is the last value, `scale` the standard deviation in the window, at least 0.1 % of the last value:
    a window that never moved says nothing about how far it may move.
    """
    last = windows[..., -1:]
    moved = windows - last
    spread = ((moved - moved.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True) ** 0.5
    least = 1e-3 * abs(last) + 1e-12
    scale = spread + (least - spread) * (spread < least)
    return moved / scale, last, scale
