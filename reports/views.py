"""What the page shows, as plain tables ready to print: folder -> tables of cells; no HTML here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import polars as pl

from reports import palette, wording
from reports.charts import Styles
from reports.differences import difference
from reports.folder import Facts, RunFolder

MAX_DECISIONS = 200
_TONES = {"pass": "good", "refuse": "bad", "needs a human": "unsure", "cannot tell": "unsure"}
_HEADLINES = ("late_ratio", "cost_usd", "slo_violation_min", "latency_p95_s")
_SCORES = (
    ("accuracy_percent", "accuracy", "%"),
    ("wape", "WAPE", ""),
    ("mase", "MASE", ""),
    ("scaled_crps", "scaled CRPS", ""),
    ("coverage_80", "coverage of the 80 % band", ""),
    ("skill", "skill over naive", ""),
)


@dataclass(frozen=True, slots=True)
class Glyph:
    """An interval drawn on 0-100: `mark` is the threshold or the baseline; None is not drawn."""

    value: float | None
    low: float | None
    high: float | None
    mark: float | None
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: `text`, a quiet second line `note`, what it sorts by, and how it looks."""

    text: str
    sort: float | str | None = None
    note: str = ""
    tone: str = ""
    shade: str = ""
    strong: bool = False
    dot: str = ""
    href: str = ""
    glyph: Glyph | None = None
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title, its unit, and whether it holds numbers."""

    title: str
    unit: str = ""
    number: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `scenario` and `controller` let the page filter it."""

    cells: tuple[Cell, ...]
    scenario: str = ""
    controller: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows, and one sentence about what is shown."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sentence: str = ""
    links: tuple[tuple[str, str], ...] = field(default=())


def link(path: str) -> str:
    """The relative address of a file in the run folder."""
    return quote(path)


def tone(result: str) -> str:
    """good, bad or unsure for a decision or a check's result."""
    return _TONES.get(result, "unsure")


# ---------------------------------------------------------------- KPIs


def scored(folder: RunFolder) -> pl.DataFrame | None:
    """The summary, or the KPIs of single runs in its columns: without intervals and ratios."""
    if folder.summary is not None and folder.summary.height:
        return folder.summary
    single = [(folder.kpis, folder.identity.get("name", ""), "")]
    single += [(run.kpis, run.controller, run.scenario) for run in folder.runs]
    frames = [
        kpis.select(pl.lit(controller).alias("controller"), pl.lit(scenario).alias("scenario"), pl.all())
        for kpis, controller, scenario in single
        if kpis is not None and kpis.height
    ]
    unknown = [pl.lit(None, pl.Float64).alias(c) for c in ("low", "high", "ratio", "ratio_low", "ratio_high")]
    return pl.concat(frames).with_columns(*unknown, pl.lit("").alias("baseline")) if frames else None


def kpi_table(summary: pl.DataFrame, styles: Styles) -> Table:
    """One row per scenario and controller; a cell holds value, interval, and ratio to the baseline with its interval."""
    kpis = summary.select("kpi", "entity", "unit", "better").unique(maintain_order=True).to_dicts()
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
    return Table((Column("scenario"), Column("controller"), *columns), tuple(rows))


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
    """good or bad where the ratio's whole interval lies on one side of 1, else ""."""
    low, high = row["ratio_low"], row["ratio_high"]
    if low is None or high is None or low <= 1.0 <= high:
        return ""
    amount = palette.strength(row["ratio"], row["better"])
    return "good" if amount > 0 else "bad" if amount < 0 else ""


def matrices(summary: pl.DataFrame) -> list[tuple[str, Table]]:
    """One scenario x controller table of ratios per KPI that has any, the headline KPIs first: (title, table)."""
    found = summary.filter(pl.col("ratio").is_not_null(), pl.col("better") != "neither")
    kpis = found.select("kpi", "entity").unique(maintain_order=True).rows()
    order = {kpi: rank for rank, kpi in enumerate(_HEADLINES)}
    kpis.sort(key=lambda key: order.get(key[0], len(order)))
    return [(f"{kpi} · {entity}", _matrix(summary.filter(kpi=kpi, entity=entity))) for kpi, entity in kpis]


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


# ---------------------------------------------------------------- decisions


def decisions(folder: RunFolder, styles: Styles) -> Table | None:
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
    return Table(_DECISION_COLUMNS, tuple(rows), sentence, links)


def bridge_decisions(frame: pl.DataFrame) -> Table:
    """The changes that the bridge's policy decided, at most 200."""
    told = frame.with_columns(pl.lit("").alias("scenario"), pl.col("policy").alias("controller"))
    sampled, sentence = _sample([told])
    rows = tuple(Row(_decision_row(row, {}).cells[2:]) for row in sampled.iter_rows(named=True))
    return Table(_DECISION_COLUMNS[2:], rows, sentence, (("bridge", link("bridge/decisions.parquet")),))


_DECISION_COLUMNS = (
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


def _sample(frames: list[pl.DataFrame]) -> tuple[pl.DataFrame, str]:
    moved = (pl.col("proposed") != pl.col("current")) | (pl.col("applied") != pl.col("current"))
    failed = pl.col("status").is_in(["rejected", "failed"])
    changes = [frame.filter(moved | failed).sort("time_s") for frame in frames]
    busy = [frame for frame in changes if frame.height]
    quota = MAX_DECISIONS // max(len(busy), 1)
    kept = pl.concat([_evenly(frame, quota) for frame in busy]) if busy else changes[0]
    total, made = sum(f.height for f in changes), sum(f.height for f in frames)
    if kept.height == total:
        sentence = f"All {_count(total)} changes; {_count(made - total)} decisions to hold are left out."
    else:
        each = f", at most {quota} a run" if len(busy) > 1 else ""
        sentence = (
            f"{_count(kept.height)} of {_count(total)} changes, evenly spaced in time{each}; "
            f"{_count(made - total)} decisions to hold are left out."
        )
    return kept, sentence


def _count(value: int) -> str:
    return f"{value:,}".replace(",", wording.THIN)


def _evenly(frame: pl.DataFrame, count: int) -> pl.DataFrame:
    if frame.height <= count:
        return frame
    return frame[[round(k * (frame.height - 1) / max(count - 1, 1)) for k in range(count)]]


def _decision_row(row: Facts, styles: Styles) -> Row:
    changed = f"{row['current']} → {row['applied']}"
    proposed = f"proposed {row['proposed']}" if row["proposed"] != row["applied"] else ""
    unread = {True: "read back", False: "not read back", None: ""}[row["confirmed"]]
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


# ---------------------------------------------------------------- forecasts, fidelity, gate, bridge


def score_table(scores: pl.DataFrame, styles: Styles) -> Table:
    """The forecasters' scores, best scaled CRPS first."""
    rows = []
    for row in scores.sort("unique_id", "horizon", "scaled_crps").iter_rows(named=True):
        head = (
            Cell(row["forecaster"], dot=styles[row["forecaster"]][0] if row["forecaster"] in styles else ""),
            Cell(row["unique_id"]),
            Cell(row["horizon"]),
            Cell(_count(row["origins"]), sort=row["origins"]),
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


def differences(folder: RunFolder) -> Table | None:
    """The configuration where it differs from its defaults; None when either is not recorded."""
    if folder.config is None or folder.defaults is None:
        return None
    rows = [
        Row(
            (
                Cell(key),
                Cell(wording.DASH if default is None else default),
                Cell(wording.DASH if here is None else here),
            )
        )
        for key, default, here in difference(folder.config, folder.defaults)
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
    services = identity.get("cluster", {}).get("services", [])
    return [
        f"{s.get('name', '')}: one recorded unit stands for {wording.number(s['unit_rps'], 6)} requests/s"
        for s in services
        if "unit_rps" in s
    ]


def file_table(folder: RunFolder) -> Table:
    """Every file of the run folder with its size."""
    rows = [Row((Cell(name, href=link(name)), Cell(wording.size(count), sort=count))) for name, count in folder.files]
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
