"""Decisions as printed tables: every change is eligible, holds are counted and left out."""

from __future__ import annotations

import polars as pl

from reports import wording
from reports.cells import Cell, Column, Row, Table, link
from reports.charts import Styles
from reports.folder import Facts, RunFolder

MAX_ROWS = 200
_COLUMNS = (
    Column("scenario"),
    Column("controller"),
    Column("time", "day, hour", number=True),
    Column("target"),
    Column("change", number=True),
    Column("confidence", number=True),
    Column("reason", wide=True),
    Column("limited by"),
    Column("outcome"),
)


def made(folder: RunFolder, styles: Styles) -> Table | None:
    """The changes that the shown runs' controllers made, at most 200 in all, evenly spaced in time within each run."""
    frames = [
        frame.with_columns(pl.lit(run.scenario).alias("scenario"), pl.lit(run.controller).alias("controller"))
        for run in folder.runs
        if (frame := run.decisions) is not None and frame.height
    ]
    if not frames:
        return None
    sampled, sentence = _sample(frames)
    rows = [_decision_row(row, styles) for row in sampled.iter_rows(named=True)]
    links = tuple(
        (run.label, link(f"runs/{run.label}/decisions.parquet")) for run in folder.runs if run.decisions is not None
    )
    return Table(_COLUMNS, tuple(rows), sentence, links)


def bridged(frame: pl.DataFrame) -> Table:
    """The changes that the bridge's policy decided, at most 200."""
    told = frame.with_columns(pl.lit("").alias("scenario"), pl.col("policy").alias("controller"))
    sampled, sentence = _sample([told])
    rows = tuple(Row(_decision_row(row, {}).cells[2:]) for row in sampled.iter_rows(named=True))
    return Table(_COLUMNS[2:], rows, sentence, (("bridge", link("bridge/decisions.parquet")),))


def _sample(frames: list[pl.DataFrame]) -> tuple[pl.DataFrame, str]:
    moved = (pl.col("proposed") != pl.col("current")) | (pl.col("applied") != pl.col("current"))
    failed = pl.col("status").is_in(["rejected", "failed"])
    changes = [frame.filter(moved | failed).sort("time_s") for frame in frames]
    busy = [frame for frame in changes if frame.height]
    quota = MAX_ROWS // max(len(busy), 1)
    kept = pl.concat([_evenly(frame, quota) for frame in busy]) if busy else changes[0]
    total, made = sum(f.height for f in changes), sum(f.height for f in frames)
    if kept.height == total:
        sentence = f"All {wording.count(total)} changes; {wording.count(made - total)} decisions to hold are left out."
    else:
        each = f", at most {quota} a run" if len(busy) > 1 else ""
        sentence = (
            f"{wording.count(kept.height)} of {wording.count(total)} changes, evenly spaced in time{each}; "
            f"{wording.count(made - total)} decisions to hold are left out."
        )
    return kept, sentence


def _evenly(frame: pl.DataFrame, count: int) -> pl.DataFrame:
    if frame.height <= count:
        return frame
    return frame[[round(k * (frame.height - 1) / max(count - 1, 1)) for k in range(count)]]


def _decision_row(row: Facts, styles: Styles) -> Row:
    changed = f"{row['current']} → {row['applied']}"
    proposed = f"proposed {row['proposed']}" if row["proposed"] != row["applied"] else ""
    unread = "not read back" if row["confirmed"] is False else ""
    outcome = Cell(
        row["status"], note=row["message"] or unread, tone="bad" if row["status"] in ("rejected", "failed") else ""
    )
    colour = styles[row["controller"]][0] if row["controller"] in styles else ""
    cells = (
        Cell(row["scenario"]),
        Cell(row["controller"], dot=colour),
        Cell(wording.clock(row["time_s"]), sort=row["time_s"]),
        Cell(row["target"]),
        Cell(changed, sort=row["applied"] - row["current"], note=proposed),
        Cell(wording.number(row["confidence"], 2), sort=row["confidence"]),
        Cell(row["reason"]),
        Cell(row["limited_by"]),
        outcome,
    )
    return Row(cells, row["scenario"], row["controller"])
