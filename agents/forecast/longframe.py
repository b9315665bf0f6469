"""The long frames of users: polars or pandas, columns by any name, time as seconds or datetimes, and back again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import polars as pl

from agents.forecast.frames import Columns
from twin.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Frame = TypeVar("Frame", pl.DataFrame, "pd.DataFrame")

_UNITS = {"s": 1, "t": 60, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True)
class Names:
    """What a user calls the columns that name the series, tell the time and hold the target."""

    unique_id: str = "unique_id"
    ds: str = "ds"
    y: str = "y"


@dataclass(frozen=True, slots=True)
class Long(Generic[Frame]):
    """A user's frame in the house's own form, and how to give frames back in the user's.

    Attributes:
        rows: `unique_id` (text), `ds` (float seconds, since 1970 for datetimes), `y` and the columns beside it.
        names: the user's names.
        id_type: the type of the user's ids.
        time_type: the type of the user's stamps.
        pandas: whether the user's frame is one of pandas.
    """

    rows: pl.DataFrame
    names: Names
    id_type: pl.DataType
    time_type: pl.DataType
    pandas: bool

    @classmethod
    def of(cls, frame: Frame, names: Names, columns: Columns, static: Frame | None = None) -> Long[Frame]:
        """The frame as `rows`; raises UsageError for a column that is missing or of no use."""
        table, is_pandas = _polars(frame)
        beside = [*columns.known, *columns.seen]
        taken = {"unique_id", "ds", "y", names.unique_id, names.ds, names.y} & {*beside, *columns.static}
        if taken:
            raise UsageError(f"{sorted(taken)[0]!r} names a series, a time or a target; call the column beside it else")
        if static is not None:
            table = _with_static(table, static, names, columns)
        rows = _selected(table, names, [names.y, *beside, *columns.static], "the frame")
        rows = rows.rename({names.y: "y"}) if names.y != "y" else rows
        return cls(rows, names, table[names.unique_id].dtype, table[names.ds].dtype, is_pandas)

    def ahead(self, frame: Frame | None, known: Sequence[str]) -> pl.DataFrame:
        """The rows of what is known ahead; raises UsageError when a column is missing, or stamps of another kind."""
        if not known:
            return self.rows.select("unique_id", "ds").clear()
        if frame is None:
            raise UsageError(f"{known[0]!r} must be known ahead; give X_df with its values for the steps to come")
        table, _ = _polars(frame)
        rows = _selected(table, self.names, known, "X_df")
        if table[self.names.ds].dtype.is_temporal() != self.time_type.is_temporal():
            raise UsageError(f"X_df tells time as {table[self.names.ds].dtype}, the frame as {self.time_type}")
        return rows

    def back(self, made: pl.DataFrame, stamps: Sequence[str] = ("ds",)) -> Frame:
        """A table of the house with the user's ids, stamps, names and kind of frame."""
        renamed = {"unique_id": self.names.unique_id, "ds": self.names.ds, "y": self.names.y}
        own = made.with_columns(pl.col("unique_id").cast(self.id_type), *(self._time(name) for name in stamps)).rename(
            {old: new for old, new in renamed.items() if old in made.columns and old != new}
        )
        return cast(Any, own.to_pandas() if self.pandas else own)

    def told(self, made: pl.DataFrame, stamps: Sequence[str]) -> pl.DataFrame:
        """A table about the forecasts: polars whatever the frame was, with the user's stamps."""
        return made.with_columns(self._time(name) for name in stamps)

    def _time(self, name: str) -> pl.Expr:
        seconds = pl.col(name).cast(pl.Float64).fill_nan(None)
        if not self.time_type.is_temporal():
            return seconds.cast(self.time_type)
        stamp = pl.from_epoch((seconds * 1_000_000).cast(pl.Int64), time_unit="us").alias(name)
        zone = getattr(self.time_type, "time_zone", None)
        if zone:
            stamp = stamp.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        return stamp.cast(self.time_type)


def seconds_of(freq: str) -> int:
    """The seconds of a step such as "30s", "5min", "1h", "D"; raises UsageError for what has no fixed length."""
    match = re.fullmatch(r"(\d*)\s*([a-zA-Z]+)", freq.strip())
    unit = _UNITS.get(match[2].lower()) if match and match[2] != "M" else None
    if match is None or unit is None:
        raise UsageError(f"freq={freq!r} is no step of fixed length; give one in {list(_UNITS)}, as '5min'")
    return int(match[1] or 1) * unit


def _polars(frame: Any) -> tuple[pl.DataFrame, bool]:  # noqa: ANN401 - whatever a user hands over
    """The frame as one of polars, and whether it was one of pandas."""
    if isinstance(frame, pl.DataFrame):
        return frame, False
    if type(frame).__module__.partition(".")[0] != "pandas":
        raise UsageError(f"a long frame is one of polars or pandas; got {type(frame).__name__}")
    named = [name for name in frame.index.names if name is not None]
    try:
        return pl.from_pandas(frame.reset_index() if named else frame), True
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"the pandas frame holds a column of mixed kinds: {error}") from error


def _with_static(table: pl.DataFrame, static: Any, names: Names, columns: Columns) -> pl.DataFrame:  # noqa: ANN401
    own, _ = _polars(static)
    missing = [name for name in (names.unique_id, *columns.static) if name not in own.columns]
    if missing:
        raise UsageError(f"static_df needs the column {missing[0]!r}; it has {own.columns}")
    if own[names.unique_id].is_duplicated().any():
        raise UsageError("static_df names a series twice; give each one row")
    own = own.select(pl.col(names.unique_id).cast(pl.String).alias("_id"), *columns.static)
    table = table.drop(name for name in columns.static if name in table.columns)
    return table.with_columns(pl.col(names.unique_id).cast(pl.String).alias("_id")).join(own, on="_id", how="left")


def _selected(table: pl.DataFrame, names: Names, columns: Sequence[str], what: str) -> pl.DataFrame:
    missing = [name for name in (names.unique_id, names.ds, *columns) if name not in table.columns]
    if missing:
        raise UsageError(f"{what} needs the column {missing[0]!r}; it has {table.columns}")
    kind = table[names.ds].dtype
    if not (kind.is_numeric() or kind == pl.Date or isinstance(kind, pl.Datetime)):
        raise UsageError(f"the stamps of {what} ({names.ds!r}) are {kind}; give whole seconds or datetimes")
    stamp = pl.col(names.ds)
    if kind.is_temporal():
        zone = getattr(kind, "time_zone", None)
        stamp = stamp.cast(pl.Datetime("us", zone)).dt.epoch("us") / 1e6
    return table.select(
        pl.col(names.unique_id).cast(pl.String).alias("unique_id"),
        stamp.cast(pl.Float64).alias("ds"),
        *(pl.col(name) for name in columns),
    )
