"""The other printed tables: forecast scores, fidelity, checks, configuration, cluster and files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import polars as pl

from reports import wording
from reports.cells import Cell, Column, Glyph, Row, Table, link, tone
from reports.charts import Styles
from reports.differences import difference
from reports.folder import Facts, RunFolder
from reports.kpis import scored

_SCORES = (
    ("accuracy_percent", "accuracy", "%"),
    ("wape", "WAPE", ""),
    ("mase", "MASE", ""),
    ("scaled_crps", "scaled CRPS", ""),
    ("coverage_80", "coverage of the 80 % band", ""),
    ("skill", "skill over naive", ""),
)


def score_table(scores: pl.DataFrame, styles: Styles) -> Table:
    """The forecasters' scores, best scaled CRPS first."""
    rows = []
    for row in scores.sort("unique_id", "horizon", "scaled_crps").iter_rows(named=True):
        head = (
            Cell(row["forecaster"], dot=styles[row["forecaster"]][0] if row["forecaster"] in styles else ""),
            Cell(row["unique_id"]),
            Cell(row["horizon"]),
            Cell(wording.count(row["origins"]), sort=row["origins"]),
        )
        rows.append(Row((*head, *(Cell(wording.number(row[c]), sort=row[c]) for c, _, _ in _SCORES))))
    named = [Column("forecaster"), Column("series"), Column("lead", "steps"), Column("origins", number=True)]
    return Table((*named, *(Column(title, unit, number=True) for _, title, unit in _SCORES)), tuple(rows))


def fidelity_table(facts: Facts) -> Table:
    """What was recorded and what the twin replays."""
    columns = (
        Column("quantity"),
        Column("unit"),
        Column("recorded", number=True),
        Column("replayed", number=True),
        Column("error", number=True),
        Column("note", wide=True),
    )
    rows = []
    for row in facts.get("rows", []):
        numbers = [Cell(wording.number(row.get(c)), sort=row.get(c)) for c in ("recorded", "replayed", "error")]
        rows.append(
            Row(
                (
                    Cell(str(row.get("quantity", ""))),
                    Cell(str(row.get("unit") or "")),
                    *numbers,
                    Cell(str(row.get("note") or "")),
                )
            )
        )
    return Table(columns, tuple(rows))


def check_table(verdict: Facts) -> Table:
    """The gate's checks: rule, threshold, value with interval, result, and what would help."""
    columns = (
        Column("result"),
        Column("check", wide=True),
        Column("value", number=True),
        Column("threshold", number=True),
        Column("interval and threshold"),
        Column("evidence and remedy", wide=True),
    )
    return Table(columns, tuple(_check_row(check) for check in verdict.get("checks", [])))


def _check_row(check: Facts) -> Row:
    result = str(check.get("result", "cannot tell"))
    value, low, high, threshold = (check.get(k) for k in ("value", "low", "high", "threshold"))
    return Row(
        (
            Cell(result, tone=tone(result)),
            Cell(str(check.get("name", "")), note=str(check.get("rule") or ""), strong=True),
            Cell(wording.number(value), sort=value, note=wording.interval(low, high)),
            Cell(wording.number(threshold), sort=threshold),
            Cell("", glyph=_glyph(value, low, high, threshold, tone(result))),
            Cell(str(check.get("remedy") or ""), note=str(check.get("evidence") or "")),
        )
    )


def _glyph(value: Any, low: Any, high: Any, mark: Any, tone: str) -> Glyph | None:  # noqa: ANN401 - numbers or null
    known = [float(v) for v in (value, low, high, mark) if v is not None and math.isfinite(v)]
    if value is None or len(known) < 2:
        return None
    least, most = min(known), max(known)
    span = (most - least) or abs(most) or 1.0
    place = [
        None if v is None or not math.isfinite(v) else 8.0 + 84.0 * (v - least) / span for v in (value, low, high, mark)
    ]
    return Glyph(*place, tone=tone)


# ---------------------------------------------------------------- identity and reproduction


def differences(config: str | None, defaults: str | None) -> Table | None:
    """The configuration where it differs from its defaults (YAML texts); None when either is not recorded."""
    if config is None or defaults is None:
        return None
    rows = [
        Row(
            (
                Cell(key),
                Cell(wording.DASH if default is None else default),
                Cell(wording.DASH if here is None else here),
            )
        )
        for key, default, here in difference(config, defaults)
    ]
    return Table((Column("key"), Column("default"), Column("this run")), tuple(rows))


def records(rows: Iterable[Facts]) -> Table:
    """Plain records as a table: one column per key that holds a single value."""
    listed = list(rows)
    keys = dict.fromkeys(k for row in listed for k, v in row.items() if not isinstance(v, dict | list))
    made = [Row(tuple(_plain(row.get(key)) for key in keys)) for row in listed]
    return Table(tuple(Column(key, number=_numeric(key, listed)) for key in keys), tuple(made))


def _numeric(key: str, rows: list[Facts]) -> bool:
    return all(isinstance(row.get(key), int | float) and not isinstance(row.get(key), bool) for row in rows)


def _plain(value: Any) -> Cell:  # noqa: ANN401 - any JSON value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(wording.number(value), sort=float(value))
    return Cell(wording.DASH if value is None else str(value))


def demand_scale(identity: Facts) -> list[str]:
    """What one unit of each service's recorded demand stands for: a modelling choice that must be read."""
    services = (identity.get("cluster") or {}).get("services", [])
    return [
        f"{s.get('name', '')}: one recorded unit stands for {wording.number(s['unit_rps'], 6)} requests/s"
        for s in services
        if "unit_rps" in s
    ]


def file_table(files: Iterable[tuple[str, int]]) -> Table:
    """Every file of a folder (relative path, bytes) with its size."""
    rows = [Row((Cell(name, href=link(name)), Cell(wording.size(count), sort=count))) for name, count in files]
    return Table((Column("file"), Column("size", number=True)), tuple(rows))


def missing(folder: RunFolder) -> list[str]:
    """The stations that this run folder does not hold, in the page's order."""
    stations = {
        "KPIs": scored(folder) is not None,
        "shown runs": bool(folder.runs),
        "forecasts": folder.forecasts is not None or folder.forecast_scores is not None,
        "learning curves": folder.learning is not None,
        "twin fidelity": folder.fidelity is not None,
        "gate verdict": bool(folder.verdicts),
        "bridge": folder.bridge is not None,
        "timing": bool(folder.timing),
        "configuration": folder.config is not None,
    }
    return [name for name, there in stations.items() if not there]
