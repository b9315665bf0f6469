"""Tables as data: one schema CSV per table, read by loader, validator, docs and report alike.

A table is a Polars frame whose columns, types and order are those of `schema/<table>.csv`; it is checked
here, at the border, and trusted inside.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from twin.errors import SchemaError

_SCHEMA = Path(__file__).parent / "schema"
_TYPES: dict[str, pl.DataType] = {"f64": pl.Float64(), "i64": pl.Int64(), "bool": pl.Boolean(), "str": pl.String()}
ROW_GROUP = 1 << 18
_READERS = {".parquet": pl.read_parquet, ".csv": pl.read_csv}

TRACE_TABLES = (
    "nodes",
    "node_events",
    "jobs",
    "dependencies",
    "services",
    "calls",
    "demand",
    "requests",
    "usage",
    "incidents",
    "prices",
)
RUN_TABLES = ("service_steps", "pool_steps", "decisions", "incidents", "kpis")
JOB_TABLES = ("outcomes", "placements", "job_cdf", "scorecard", "validity", "job_steps", "explanations", "calibration")
STUDY_TABLES = (
    "results",
    "summary",
    "forecasts",
    "forecast_scores",
    "accuracy_scores",
    "tuning",
    "decision_value",
    "drift_trials",
    "retraining_events",
    "retraining_accuracy",
    "sites_scores",
    "cold_start",
    "long_horizon",
    "coherence",
    "forecast_explanations",
    "forecast_sentences",
    "forecast_past",
    "forecast_scenarios",
)
INSPECT_TABLES = (
    "trace_facts",
    "trace_load",
    "trace_distributions",
    "trace_periodicity",
    "trace_gaps",
    "trace_uses",
)
COMPARISON_TABLES = ("comparison", "comparison_curves")

SERIES = {"demand": ("service",), "usage": ("entity", "resource"), "prices": ("zone", "quantity")}
"""Trace tables that hold series: what names one, beside `time_s`."""

EVENTS = {"jobs": "submit_s", "requests": "time_s", "node_events": "time_s", "incidents": "start_s"}
"""Trace tables that hold events: the time that orders them."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table as its schema CSV describes it."""

    name: str
    dtype: pl.DataType
    unit: str
    default: str
    description: str
    required: bool


@cache
def schema(table: str) -> tuple[Column, ...]:
    """The columns of a table, in order; raises SchemaError for an unknown table."""
    path = _SCHEMA / f"{table}.csv"
    if not path.is_file():
        known = sorted(p.stem for p in _SCHEMA.glob("*.csv"))
        raise SchemaError(f"unknown table {table!r}; known tables: {known}")
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(
            Column(
                row["column"],
                _TYPES[row["type"]],
                row["unit"],
                row["default"],
                row["description"],
                row["status"] == "required",
            )
            for row in csv.DictReader(file)
        )


def empty(table: str) -> pl.DataFrame:
    """A table without rows."""
    return pl.DataFrame(schema={c.name: c.dtype for c in schema(table)})


def conform(frame: pl.DataFrame, table: str, source: str) -> pl.DataFrame:
    """The frame with exactly the columns, types and order of the schema.

    Optional columns that are absent are filled with their default. Raises SchemaError naming `source`, row
    and column for unknown or missing columns, values of a wrong type, and nulls where a value is required.
    """
    columns = schema(table)
    known = {c.name for c in columns}
    unknown = [name for name in frame.columns if name not in known]
    if unknown:
        raise SchemaError(f"{source}: table {table!r} has no column {unknown[0]!r}; its columns are {sorted(known)}")
    return pl.DataFrame([_conform_column(frame, column, table, source) for column in columns])


def _conform_column(frame: pl.DataFrame, column: Column, table: str, source: str) -> pl.Series:
    if column.name not in frame.columns:
        if column.required:
            raise SchemaError(f"{source}: table {table!r} lacks the required column {column.name!r}")
        default = pl.Series([column.default or None], dtype=pl.String).cast(column.dtype)
        return default.new_from_index(0, frame.height).alias(column.name)
    values = frame[column.name]
    cast = values.cast(column.dtype, strict=False)
    bad = cast.is_null() & values.is_not_null()
    if values.dtype.is_float() and column.dtype.is_integer():
        bad |= (cast.cast(values.dtype) != values).fill_null(value=False)
    if bad.any():
        row = int(bad.arg_true()[0])
        raise SchemaError(
            f"{source}: row {row + 1}, column {column.name!r}: {values[row]!r} is not of type {column.dtype}"
        )
    if column.required and cast.null_count():
        row = int(cast.is_null().arg_true()[0])
        raise SchemaError(f"{source}: row {row + 1}, column {column.name!r}: a value is required")
    return cast


def read(path: Path, table: str) -> pl.DataFrame:
    """The table stored at `path` (.parquet or .csv), checked against its schema."""
    try:
        frame = _READERS[path.suffix](path)
    except KeyError:
        raise SchemaError(f"{path}: unknown table format {path.suffix!r}; use .parquet or .csv") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SchemaError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    return conform(frame, table, str(path))


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file that appears whole or not at all; equal frames give equal bytes."""
    partial = path.with_name(path.name + ".tmp")
    sink(frame.lazy(), partial)
    os.replace(partial, path)


def sink(frame: pl.LazyFrame, path: Path) -> None:
    """Write a Parquet file row group by row group: its bytes depend on the rows alone, not on how they arrive."""
    frame.sink_parquet(path, compression="zstd", statistics=False, row_group_size=ROW_GROUP)
