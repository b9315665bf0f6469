"""Series as long frames (`unique_id`, `ds`, `y`), as forecasting libraries take them, and as arrays for models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from twin.errors import UsageError
from twin.trace.trace import Trace

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a long frame stand beside `y`.

    `known` are known ahead (calendar, events, plans), `seen` only when they happen (other resources of the same
    machine), `static` never change within a series.
    """

    known: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


def _no_columns() -> Floats:
    return np.zeros((0, 0))


@dataclass(frozen=True, slots=True)
class Series:
    """One regular series: `values[i]` (float64, finite) covers the step that starts at `start_s + i * step_s`.

    Attributes:
        known: one row per step, and further ones for steps to come [>= steps, columns].
        seen: one row per step [steps, columns].
        static: one number per column [columns].
        columns: the names of those columns.
    """

    unique_id: str
    start_s: int
    step_s: int
    values: Floats
    known: Floats = field(default_factory=_no_columns)
    seen: Floats = field(default_factory=_no_columns)
    static: Floats = field(default_factory=lambda: np.zeros(0))
    columns: Columns = Columns()

    def until(self, steps: int) -> Series:
        """What was on record after the first `steps` steps, with what was known ahead of them left out as well."""
        return replace(self, values=self.values[:steps], known=self.known[:steps], seen=self.seen[:steps])


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


def panel(frame: pl.DataFrame, columns: Columns = Columns()) -> list[Series]:
    """The frame's series by name, as arrays; the order of its rows does not matter.

    Rows at the end of a series without `y` say what is known ahead.

    Raises UsageError for missing columns, a single row, an irregular step, an unknown value, or a static column
    that changes.
    """
    wanted = ("unique_id", "ds", "y", *columns.known, *columns.seen, *columns.static)
    missing = [c for c in wanted if c not in frame.columns]
    if missing:
        raise UsageError(f"a long frame needs the columns {', '.join(wanted)}; {missing[0]!r} is missing")
    groups = frame.sort("unique_id", "ds").partition_by("unique_id", as_dict=True, maintain_order=True)
    return [_one(str(key[0]), rows, columns) for key, rows in groups.items()]


def _one(unique_id: str, rows: pl.DataFrame, columns: Columns) -> Series:
    ds = rows["ds"].to_numpy()
    gaps = np.unique(np.diff(ds))
    if len(gaps) != 1 or gaps[0] <= 0:
        raise UsageError(f"series {unique_id!r}: the step must be one positive number of seconds, found {gaps[:3]}")
    y = _array(rows, ("y",))[:, 0]
    ahead = int(np.argmax(np.isfinite(y[::-1]))) if columns.known and np.isfinite(y).any() else 0
    steps = len(y) - ahead
    known, seen = _array(rows, columns.known), _array(rows, columns.seen)[:steps]
    static = _array(rows, columns.static)
    for name, values in (("y", y[:steps, None]), ("known", known), ("seen", seen), ("static", static)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            what = "value" if name == "y" else f"{name} column"
            raise UsageError(
                f"series {unique_id!r}: the {what} at {ds[int(bad.argmax())]} s is unknown; fill it or cut the series "
                "there"
            )
    if len(static) and (static != static[0]).any():
        raise UsageError(f"series {unique_id!r}: a static column changes; say it is known or seen")
    return Series(unique_id, int(ds[0]), int(gaps[0]), y[:steps].copy(), known, seen, static[0], columns)


def _array(rows: pl.DataFrame, names: Sequence[str]) -> Floats:
    columns = [rows[name].cast(pl.Float64).to_numpy() for name in names]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((len(rows), 0))


def steps_in(length: int, share: float, leaving: int = 0) -> int:
    """How many of `length` steps lie in the first `share` (0-1) of them, at least the last `leaving` left out."""
    return max(min(int(length * share), length - leaving), 0)


def first(series: Sequence[Series], share: float, leaving: int = 0) -> list[Series]:
    """The first `share` (0-1) of each series, by time, at least its last `leaving` steps left out."""
    return [each.until(steps_in(len(each.values), share, leaving)) for each in series]


def windows(values: Floats, origins: NDArray[np.int64], context: int) -> Floats:
    """The `context` steps [origins, context, ...] that end right before each origin; NaN before the beginning."""
    before = context - int(origins.min(initial=context))
    if before > 0:
        values = np.concatenate([np.full((before, *values.shape[1:]), np.nan), values])
    return values[np.maximum(before, 0) + origins[:, None] + np.arange(-context, 0)]


def mirrored(windows: Any) -> Any:  # noqa: ANN401 - numpy and JAX arrays alike
    """Windows [batch, steps] whose unknown beginning is what follows it, mirrored, as often as it takes.

    A beginning that never moves would make a spread that never was: it cost a shipped network up to 80 % of its
    accuracy on windows half full.
    """
    xp = windows.__array_namespace__()
    steps = windows.shape[1]
    young = xp.isnan(windows).sum(axis=1, keepdims=True)
    at = xp.arange(steps)
    period = xp.maximum(2 * (steps - young - 1), 1)
    back = (young - at) % period
    place = xp.where(at < young, young + xp.minimum(back, period - back), at)
    return xp.take_along_axis(windows, xp.minimum(place, steps - 1), axis=1)


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
