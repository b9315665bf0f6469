"""KPIs as printed tables: against the baseline with intervals, and scenario x controller."""

from __future__ import annotations

import math
from dataclasses import replace

import polars as pl

from reports import palette, wording
from reports.cells import Cell, Column, Glyph, Row, Table
from reports.charts import Styles
from reports.folder import Facts, RunFolder

HEADLINES = ("late_ratio", "cost_usd", "slo_violation_min", "latency_p95_s")
_NEXT = ("error_budget_ratio", "node_h", "energy_kwh", "carbon_kg", "utilisation_ratio", "scale_events")
_WIDE = 9  # KPIs beside each other on a page


def scored(folder: RunFolder) -> pl.DataFrame | None:
    """The summary, or the KPIs of single runs in its columns: without intervals and ratios."""
    if folder.summary is not None and folder.summary.height:
        return folder.summary
    single = [(run.kpis, run.controller, run.scenario) for run in folder.runs]
    if not any(kpis is not None and folder.kpis is not None and kpis.equals(folder.kpis) for kpis, _, _ in single):
        single = [(folder.kpis, folder.identity.get("name", ""), ""), *single]
    frames = [
        kpis.select(pl.lit(controller).alias("controller"), pl.lit(scenario).alias("scenario"), pl.all())
        for kpis, controller, scenario in single
        if kpis is not None and kpis.height
    ]
    unknown = [pl.lit(None, pl.Float64).alias(c) for c in ("low", "high", "ratio", "ratio_low", "ratio_high")]
    return pl.concat(frames).with_columns(*unknown, pl.lit("").alias("baseline")) if frames else None


def table(summary: pl.DataFrame, styles: Styles) -> Table:
    """One row per scenario and controller; a cell holds value, interval, and ratio to the baseline.

    The headlines come first. A KPI that is zero or unscored everywhere has no column; the table's sentence names it.
    """
    kpis, sentence = _told(summary)
    several = summary["entity"].n_unique() > 2
    found = {(r["scenario"], r["controller"], r["kpi"], r["entity"]): r for r in summary.iter_rows(named=True)}
    scale = {(k["kpi"], k["entity"]): _log_scale(summary.filter(kpi=k["kpi"], entity=k["entity"])) for k in kpis}
    rows = []
    for scenario, controller in summary.select("scenario", "controller").unique(maintain_order=True).iter_rows():
        colour = styles[controller][0] if controller in styles else ""
        head = (Cell(scenario), Cell(controller, dot=colour))
        cells = [
            _kpi_cell(found.get((scenario, controller, k["kpi"], k["entity"])), scale[k["kpi"], k["entity"]])
            for k in kpis
        ]
        rows.append(Row((*head, *cells), scenario=scenario))
    columns = [Column(k["kpi"], _unit(k, several=several), number=True) for k in kpis]
    return Table((Column("scenario"), Column("controller"), *columns), tuple(rows), sentence)


def tables(summary: pl.DataFrame, styles: Styles) -> list[Table]:
    """`table` in two where it is too wide to be read: nine KPIs, and the others."""
    whole = table(summary, styles)
    parts = [slice(2, 2 + _WIDE), slice(2 + _WIDE, None)] if len(whole.columns) > 2 + _WIDE else [slice(2, None)]
    return [
        replace(
            whole,
            columns=(*whole.columns[:2], *whole.columns[part]),
            rows=tuple(replace(row, cells=(*row.cells[:2], *row.cells[part])) for row in whole.rows),
        )
        for part in parts
    ]


def _told(summary: pl.DataFrame) -> tuple[list[Facts], str]:
    """The KPIs that tell something, in the order of reading, and a sentence about the others."""
    value = pl.col("value").fill_nan(None)
    found = summary.group_by("kpi", "entity", "unit", "better", maintain_order=True).agg(
        scored=value.is_not_null().any(), told=(value != 0).any()
    )
    rank = {kpi: place for place, kpi in enumerate((*HEADLINES, *_NEXT))}
    kpis = sorted(found.filter("told").to_dicts(), key=lambda k: rank.get(k["kpi"], len(rank)))
    several = summary["entity"].n_unique() > 2
    left = {}
    for word, rows in (
        ("Zero", found.filter(~pl.col("told") & pl.col("scored"))),
        ("Unscored", found.filter(~pl.col("scored"))),
    ):
        left[word] = [f"{k['kpi']} · {k['entity']}" if several else k["kpi"] for k in rows.iter_rows(named=True)]
    return kpis, " ".join(f"{word} everywhere: {', '.join(names)}." for word, names in left.items() if names)


def _unit(kpi: Facts, *, several: bool) -> str:
    arrow = {"lower": " ↓", "higher": " ↑"}.get(kpi["better"], "")
    return f"{kpi['unit']}{arrow}" + (f" · {kpi['entity']}" if several else "")


def _log_scale(rows: pl.DataFrame) -> float:
    ends = [v for c in ("ratio", "ratio_low", "ratio_high") for v in rows[c].drop_nulls() if v > 0 and math.isfinite(v)]
    return min(max([0.25, *(abs(math.log2(v)) for v in ends)]), 3.0)


def _kpi_cell(row: Facts | None, scale: float) -> Cell:
    if row is None or row["value"] is None:
        return Cell(wording.DASH, note="unscored" if row else "")
    ratio, known = row["ratio"], row["ratio"] is not None and row["controller"] != row["baseline"]
    glyph = None
    if known:
        ends = [_log_position(row[c], scale) for c in ("ratio", "ratio_low", "ratio_high")]
        glyph = Glyph(*ends, mark=50.0, tone=_side(row))
    said = wording.ratio(ratio) if known else "baseline" if row["controller"] == row["baseline"] else ""
    interval = wording.interval(row["low"], row["high"])
    return Cell(
        wording.number(row["value"]), sort=row["value"], note=interval, glyph=glyph, extra=said, tone=_side(row)
    )


def _log_position(ratio: float | None, scale: float) -> float | None:
    if ratio is None or math.isnan(ratio):
        return None
    change = -scale if ratio <= 0 else max(-scale, min(scale, math.log2(ratio)))
    return 50.0 + 48.0 * change / scale


def _side(row: Facts) -> str:
    """Good or bad where the ratio's whole interval lies on one side of 1, else ""."""
    low, high = row["ratio_low"], row["ratio_high"]
    if low is None or high is None or low <= 1.0 <= high:
        return ""
    amount = palette.strength(row["ratio"], row["better"])
    return "good" if amount > 0 else "bad" if amount < 0 else ""


def compared(summary: pl.DataFrame) -> list[tuple[str, str]]:
    """(kpi, entity) of every KPI that has a ratio to the baseline and a direction, the headlines first."""
    found = summary.filter(pl.col("ratio").is_not_null(), pl.col("better") != "neither")
    rank = {kpi: place for place, kpi in enumerate(HEADLINES)}
    listed = found.select("kpi", "entity").unique(maintain_order=True).rows()
    return sorted(listed, key=lambda key: rank.get(key[0], len(rank)))


def matrices(summary: pl.DataFrame) -> list[tuple[str, Table]]:
    """One scenario x controller table of ratios per compared KPI: (title, table)."""
    return [(f"{kpi} · {entity}", _matrix(summary.filter(kpi=kpi, entity=entity))) for kpi, entity in compared(summary)]


def _matrix(rows: pl.DataFrame) -> Table:
    controllers = rows["controller"].unique(maintain_order=True).to_list()
    found = {(r["scenario"], r["controller"]): r for r in rows.iter_rows(named=True)}
    lines = [
        Row((Cell(scenario), *(_ratio_cell(found.get((scenario, c))) for c in controllers)))
        for scenario in rows["scenario"].unique(maintain_order=True)
    ]
    unit, better = rows["unit"][0], rows["better"][0]
    columns = (Column("scenario"), *(Column(c, number=True) for c in controllers))
    return Table(columns, tuple(lines), f"{better} is better; small: the value in {unit}")


def _ratio_cell(row: Facts | None) -> Cell:
    if row is None:
        return Cell(wording.DASH)
    value = wording.number(row["value"])
    shade = palette.shade(row["ratio"], row["better"])
    return Cell(wording.ratio(row["ratio"]), sort=row["ratio"], note=value, shade=shade, strong=bool(_side(row)))
