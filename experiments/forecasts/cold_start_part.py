"""The part of docs/forecasting.md that run folders of `python -m experiments.cold_start` make: clusters never seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from experiments import markdown
from reports import folder, wording
from twin.errors import UsageError

KEPT, SAFE, MISSED = "kept", "as the fallback", "missed"
_STEPS = {"5min": 300, "hourly": 3_600}
_TITLES = {"5min": "5 to 60 min ahead", "hourly": "1 to 24 h ahead"}


def written(runs: Sequence[Path]) -> str:
    """The part in Markdown; raises UsageError for two folders of one grid, or one that holds no such table."""
    tables = {run: folder.table_in(run, "cold_start") for run in runs}
    grids = [table["grid"][0] for table in tables.values()]
    if len(set(grids)) < len(grids):
        raise UsageError("two run folders of cold_start are of the same grid; give one of each")
    parts = [markdown.shell(markdown.command(folder.identity_of(run)) for run in runs)]
    for run, table in tables.items():
        share = float(folder.config_of(run)["kept_share"])
        judged = verdicts(table, share)
        parts += [f"### {_TITLES[table['grid'][0]]}", _forecasters(table), _counts(judged, share), _resources(judged)]
    return "\n\n".join(parts)


def verdicts(table: pl.DataFrame, share: float) -> pl.DataFrame:
    """The rows of the cold start with a `verdict`: enough is kept of the gain, or it is no worse than the fallback.

    Args:
        table: `cold_start` rows of one grid.
        share: of the in-domain gain that is asked for (0-1).
    """
    enough, safe = pl.col("kept") >= share, pl.col("fallback_low") <= 1.0
    verdict = pl.when(enough).then(pl.lit(KEPT)).when(safe).then(pl.lit(SAFE)).otherwise(pl.lit(MISSED))
    return table.filter(pl.col("network_weight").is_not_null()).with_columns(verdict.alias("verdict"))


def _forecasters(table: pl.DataFrame) -> str:
    """Each forecaster at each history: medians over series, the mean of coverage."""
    medians = [pl.col(name).median() for name in ("gain", "kept", "scaled_crps", "fallback_ratio", "network_weight")]
    found = table.group_by("grid", "forecaster", "history_steps", maintain_order=True).agg(
        pl.len().alias("series"), *medians, pl.col("coverage_80").mean()
    )
    shown = ("gain", "kept", "scaled_crps", "coverage_80", "fallback_ratio", "network_weight")
    rows = [
        (f"`{row['forecaster']}`", _history(row), str(row["series"]), *(_number(row[name]) for name in shown))
        for row in found.to_dicts()
    ]
    header = ("forecaster", "history", "series", "gain", "kept of the gain", "scaled CRPS", "coverage of 80 %")
    return markdown.table((*header, "MAE / fallback", "weight of the checkpoint"), rows)


def _counts(judged: pl.DataFrame, share: float) -> str:
    rows = []
    for _, part in judged.group_by("history_steps", maintain_order=True):
        counts = [part.filter(verdict=verdict).height for verdict in (KEPT, SAFE, MISSED)]
        rows.append((_history(part.row(0, named=True)), *map(str, counts)))
    header = ("history in sight", f"keep {100 * share:g} % of the gain", "no worse than the fallback", "worse")
    return markdown.table(header, rows)


def _resources(judged: pl.DataFrame) -> str:
    """Each series with the longest history that is cut short."""
    week = judged.filter(history_steps=judged["history_steps"].drop_nulls().max())
    rows = []
    for row in week.to_dicts():
        ratios = _interval(row, "gain", "gain"), _number(row["kept"]), _interval(row, "fallback_ratio", "fallback")
        rows.append((row["unique_id"], *ratios, _number(row["coverage_80"]), row["verdict"]))
    header = (f"series, {_history(week.row(0, named=True))}", "gain", "kept of the gain", "MAE / fallback")
    return markdown.table((*header, "coverage of 80 %", "verdict"), rows)


def _interval(row: dict[str, float], value: str, ends: str) -> str:
    return f"{_number(row[value])} ({_number(row[f'{ends}_low'])} – {_number(row[f'{ends}_high'])})"


def _history(row: dict[str, int | str | None]) -> str:
    if row["history_steps"] is None:
        return "all"
    return wording.duration(int(row["history_steps"]) * _STEPS[str(row["grid"])]) if row["history_steps"] else "none"


def _number(value: float | None) -> str:
    return wording.number(value, 3)
