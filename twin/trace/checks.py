"""One function per consistency rule of a trace; each raises TraceError naming table, row and column."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from twin.errors import TraceError

Tables = Mapping[str, pl.DataFrame]


def check(tables: Tables, source: str) -> None:
    """Run every rule over the tables; raises TraceError for the first that does not hold."""
    for rule in RULES:
        rule(tables, source)


def _refuse(frame: pl.DataFrame, bad: pl.Expr, source: str, column: str, what: str) -> None:
    rows = frame.with_row_index("_row").filter(bad)
    if rows.height:
        row = rows.row(0, named=True)
        raise TraceError(
            f"{source}: row {row['_row'] + 1}, column {column!r}: {what.format(**row)} "
            f"({rows.height} such row{'s' if rows.height > 1 else ''}); repair or drop them before the import"
        )


def check_durations(tables: Tables, source: str) -> None:
    """Nothing ends before it starts, and nothing starts before it was submitted."""
    jobs = tables["jobs"]
    _refuse(
        jobs,
        pl.col("end_s") < pl.col("start_s"),
        f"{source}/jobs",
        "end_s",
        "job {job!r} has a negative duration: it starts at {start_s} s and ends at {end_s} s",
    )
    _refuse(
        jobs,
        pl.col("start_s") < pl.col("submit_s"),
        f"{source}/jobs",
        "start_s",
        "job {job!r} starts at {start_s} s, before its submission at {submit_s} s",
    )
    _refuse(
        tables["incidents"],
        pl.col("end_s") < pl.col("start_s"),
        f"{source}/incidents",
        "end_s",
        "incident {incident!r} ends at {end_s} s, before its start at {start_s} s",
    )


def check_finite(tables: Tables, source: str) -> None:
    """No recorded number is NaN or infinite: a gap is an absent row."""
    for table, frame in tables.items():
        for column, dtype in frame.schema.items():
            if dtype == pl.Float64:
                _refuse(
                    frame,
                    pl.col(column).is_not_null() & ~pl.col(column).is_finite(),
                    f"{source}/{table}",
                    column,
                    f"the value {{{column}}} is not a finite number",
                )


def check_sizes(tables: Tables, source: str) -> None:
    """Demands and sizes are not negative."""
    for table, column in (("demand", "value"), ("jobs", "cpu_cores"), ("nodes", "cpu_cores"), ("nodes", "memory_gib")):
        _refuse(
            tables[table], pl.col(column) < 0, f"{source}/{table}", column, f"the value {{{column}}} must not be < 0"
        )


def check_order(tables: Tables, source: str) -> None:
    """Each series runs forward in time without duplicate stamps."""
    for table, key in (("demand", ["service"]), ("usage", ["entity", "resource"]), ("prices", ["zone", "quantity"])):
        step = pl.col("time_s").diff().over(key)
        _refuse(
            tables[table], step <= 0, f"{source}/{table}", "time_s", "time {time_s} s does not follow the row before it"
        )


def check_known_services(tables: Tables, source: str) -> None:
    """Every demand row belongs to a declared service."""
    known = tables["services"]["service"].to_list()
    _refuse(
        tables["demand"],
        ~pl.col("service").is_in(known),
        f"{source}/demand",
        "service",
        "service {service!r} is not declared in the table 'services'",
    )


RULES: tuple[Callable[[Tables, str], None], ...] = (
    check_finite,
    check_durations,
    check_sizes,
    check_order,
    check_known_services,
)
